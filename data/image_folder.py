"""A data set of one's own: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, square images of 32 or 64 pixels a side."""

from pathlib import Path

import numpy as np

from data.image_files import SUFFIXES, read_images
from data.images import IMAGENET_MEAN, IMAGENET_STD, ImageSet, make_images
from data.splits import split_by_class
from models.errors import InputError

SIDES = (32, 64)
SPLIT_SEED = 0


def list_part(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Image paths, labels, and class names in alphabetical order."""
    classes = sorted(path for path in folder.glob("*") if path.is_dir())
    paths, labels = [], []
    for label, class_folder in enumerate(classes):
        images = sorted(path for path in class_folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise InputError(f"{class_folder} holds no images; add some or remove the folder")
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise InputError(f"{folder} holds no class folders with images; expected {folder}/CLASS/IMAGE")
    return paths, np.array(labels), tuple(path.name for path in classes)


def load_image_folder(folder: Path) -> ImageSet:
    """80 % of each class in train/ trains, 20 % validates, test/ tests. The folder's name is the data set's."""
    train_paths, train_labels, class_names = list_part(folder / "train")
    test_paths, test_labels, test_names = list_part(folder / "test")
    if test_names != class_names:
        odd = sorted(set(class_names) ^ set(test_names))[0]
        raise InputError(
            f"class '{odd}' is in only one of {folder}/train and {folder}/test; both must hold the same classes"
        )
    pixels = read_images([*train_paths, *test_paths], SIDES, folder.name)
    padding = pixels.shape[1] // 8
    train, val = split_by_class(train_labels, 0.8, SPLIT_SEED)
    if not len(val):
        raise InputError(f"{folder}/train has too few images to keep some for validation; every class needs at least 3")
    parts = (
        (train, train_labels[train]),
        (val, train_labels[val]),
        (np.arange(len(train_paths), len(pixels)), test_labels),
    )
    train_images, val_images, test_images = (
        make_images(pixels[chosen], labels, IMAGENET_MEAN, IMAGENET_STD, padding) for chosen, labels in parts
    )
    return ImageSet(folder.resolve().name, train_images, val_images, test_images, class_names=class_names)
