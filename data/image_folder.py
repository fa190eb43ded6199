"""Image files, and a data set of your own: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, square images, 32 or 64 a side."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.images import IMAGENET_MEAN, IMAGENET_STD, ImageSet, make_images, split_by_class
from models.errors import InputError

# Pillow reads more: it would pass PostScript, whatever the file's name, to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SIDES = (32, 64)  # pixels
SPLIT_SEED = 0
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def read_image(path: Path, sides: Sequence[int]) -> np.ndarray:
    """Return an image as (S, S, 3) uint8. Raise InputError if it is missing, not an image, or not square with S in `sides`.

    The size in the header is checked before the pixels are decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            pixels = np.asarray(image.convert("RGB")) if width == height and width in sides else None
    except FileNotFoundError:
        raise InputError(f"no image {path}; check the list or folder that names it") from None
    except Exception as error:  # what a broken file raises depends on its bytes
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}); replace or remove it") from None
    if pixels is None:
        raise InputError(
            f"{path} is {height}x{width} pixels; images must be square, {' or '.join(map(str, sides))} a side: resize them"
        )
    return pixels


def read_images(paths: Sequence[Path], sides: Sequence[int], what: str) -> np.ndarray:
    """Return images as (N, S, S, 3) uint8, decoded by as many threads as there are cores.

    Raise InputError unless all are square and of one size that is in `sides`.
    """
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        images = list(
            tqdm(pool.map(partial(read_image, sides=sides), paths), what, len(paths), leave=False, disable=None)
        )
    shape = images[0].shape
    for path, image in zip(paths, images):
        height, width, _ = image.shape
        if image.shape != shape:
            raise InputError(
                f"{path} is {height}x{width} pixels, but {paths[0]} is {shape[0]}x{shape[1]}; resize them to one size"
            )
    return np.stack(images)


def list_part(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return image paths, labels, and class names in alphabetical order."""
    classes = sorted(path for path in folder.glob("*") if path.is_dir())
    paths, labels = [], []
    for label, class_folder in enumerate(classes):
        images = sorted(path for path in class_folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise InputError(f"{class_folder} has no images; add some or remove the folder")
        paths += images
        labels += [label] * len(images)
    if not paths:
        raise InputError(f"{folder} has no class folders with images; expected {folder}/CLASS/IMAGE")
    return paths, np.array(labels), tuple(path.name for path in classes)


def load_image_folder(folder: Path) -> ImageSet:
    """Load class folders. Of each class in train/, 80 % train and 20 % validate; test/ is the test set.

    The folder's name is the data set's. Raise InputError if a folder or its images do not have this form.
    """
    train_paths, train_labels, class_names = list_part(folder / "train")
    test_paths, test_labels, test_names = list_part(folder / "test")
    if test_names != class_names:
        odd = sorted(set(class_names) ^ set(test_names))[0]
        raise InputError(
            f"class '{odd}' is in only one of {folder}/train and {folder}/test; both must have the same classes"
        )
    pixels = read_images([*train_paths, *test_paths], SIDES, folder.name)
    padding = pixels.shape[1] // 8
    train, val = split_by_class(train_labels, 0.8, SPLIT_SEED)
    if not len(val):
        raise InputError(f"{folder}/train has too few images for validation; every class needs at least 3")
    parts = (
        (train, train_labels[train]),
        (val, train_labels[val]),
        (np.arange(len(train_paths), len(pixels)), test_labels),
    )
    train_images, val_images, test_images = (
        make_images(pixels[chosen], labels, IMAGENET_MEAN, IMAGENET_STD, padding) for chosen, labels in parts
    )
    return ImageSet(folder.resolve().name, train_images, val_images, test_images, class_names=class_names)
