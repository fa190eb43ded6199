"""Tiny-ImageNet from its folder in the original layout: 80,000 / 20,000 training images, the 10,000 of `val/` as test set."""

from pathlib import Path

import numpy as np

from data.files import write_text
from data.image_folder import read_images
from data.images import IMAGENET_MEAN, IMAGENET_STD, Images, ImageSet, make_images, split_by_class
from data.texts import read_text
from models.errors import InputError

SPLIT_SEED = 0
PADDING = 8  # pixels
SIDE = 64


def load_tiny_imagenet(data_dir: Path) -> ImageSet:
    """Load `DATA_DIR/tiny-imagenet-200`. Split lists `{train,val,test}.txt` are read if present, and written if not.

    Raise InputError if files are missing or lists are wrong.
    """
    folder = data_dir / "tiny-imagenet-200"
    wnids_file = folder / "wnids.txt"
    if not wnids_file.is_file():
        raise InputError(
            f"no {wnids_file}; download tiny-imagenet-200.zip from Stanford's CS231N page and unpack it into {data_dir}"
        )
    wnids = read_text(wnids_file).split()
    lists = [folder / f"{split}.txt" for split in ("train", "val", "test")]
    if not all(path.is_file() for path in lists):
        write_split_lists(folder, wnids)
    train, val, test = (read_split(path, folder, len(wnids)) for path in lists)
    return ImageSet("tiny-imagenet-200", train, val, test, class_names=tuple(wnids))


def write_split_lists(folder: Path, wnids: list[str]) -> None:
    """Write the missing lists. Of each class's training images, 80 % train and 20 % validate; `val/` is the test set."""
    class_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [
        (path, label)
        for wnid, label in class_of.items()
        for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    annotations = folder / "val" / "val_annotations.txt"
    if not train or not annotations.is_file():
        raise InputError(
            f"{folder} has no train/*/images/*.JPEG or no val/val_annotations.txt; unpack tiny-imagenet-200.zip there again"
        )
    test = []
    for i, line in enumerate(read_text(annotations).splitlines(), start=1):
        name, wnid = [*line.split(), "", ""][:2]
        if wnid not in class_of:
            raise InputError(
                f"{annotations}, line {i}: '{line}' is not NAME WNID ... with a class of {folder}/wnids.txt"
            )
        test.append((folder / "val" / "images" / name, class_of[wnid]))
    chosen, rest = split_by_class(np.array([label for _, label in train]), 0.8, SPLIT_SEED)
    parts = {"train": [train[i] for i in chosen], "val": [train[i] for i in rest], "test": test}
    for split, examples in parts.items():
        if not (folder / f"{split}.txt").is_file():
            write_text(
                folder / f"{split}.txt",
                "".join(f"{path.relative_to(folder).as_posix()},{label}\n" for path, label in examples),
            )


def read_split(path: Path, folder: Path, num_classes: int) -> Images:
    """Read a list of `PATH,LABEL` lines. Paths are relative to the folder, or to the folder that the script runs in."""
    paths, labels = [], []
    for i, line in enumerate(read_text(path).splitlines(), start=1):
        name, _, label = line.rpartition(",")
        if not name or not label.isdigit() or int(label) >= num_classes:
            raise InputError(f"{path}, line {i}: '{line}' is not PATH,LABEL with a label from 0 to {num_classes - 1}")
        paths.append(folder / name if (folder / name).is_file() else Path(name))
        labels.append(int(label))
    if not paths:
        raise InputError(f"{path} is empty; delete it to have it written again")
    return make_images(read_images(paths, (SIDE,), path.stem), np.array(labels), IMAGENET_MEAN, IMAGENET_STD, PADDING)
