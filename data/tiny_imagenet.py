"""Tiny-ImageNet from its folder in the original layout: 80,000 / 20,000 training images, the 10,000 of `val/` as test set."""

import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.files import is_regular, list_files, report_left_out, write_text
from data.image_folder import read_images
from data.images import IMAGENET_MEAN, IMAGENET_STD, Images, ImageSet, make_images, split_by_class
from data.texts import read_lines
from models.errors import InputError, brief, one_line

SPLIT_SEED = 0
PADDING = 8  # pixels
SIDE = 64
SPLITS = ("train", "val", "test")
SUFFIXES = (".jpeg", ".jpg")
UNPACK = "unpack tiny-imagenet-200.zip there again"

Examples = list[tuple[Path, int]]  # images and labels


def load_tiny_imagenet(data_dir: Path) -> ImageSet:
    """Load `DATA_DIR/tiny-imagenet-200`. Split lists `{train,val,test}.txt` are read if present, and written if possible.

    Raise InputError if files are missing or lists are wrong.
    """
    folder = data_dir / "tiny-imagenet-200"
    if not is_regular(folder / "wnids.txt"):
        raise InputError(
            f"no {folder / 'wnids.txt'}; download tiny-imagenet-200.zip from Stanford's CS231N page and unpack it into {data_dir}"
        )
    wnids = read_wnids(folder / "wnids.txt")
    given = {
        split: read_split(folder / f"{split}.txt", folder, len(wnids))
        for split in SPLITS
        if os.path.lexists(folder / f"{split}.txt")
    }
    refuse_overlap(given, folder)
    parts = complete(given, folder, wnids)
    labels = {label for _, label in parts["train"]}
    absent = [wnid for label, wnid in enumerate(wnids) if label not in labels]
    if absent:  # a list of one's own may mean it
        print(
            one_line(f"{folder}/train.txt has no image of {', '.join(absent[:3])}: {len(absent)} classes"),
            file=sys.stderr,
        )
    train, val, test = (load_split(parts[split], split) for split in SPLITS)
    for split in SPLITS:
        if split not in given:
            with contextlib.suppress(InputError):  # the folder may be read-only: reading data needs no writing
                write_split(folder / f"{split}.txt", folder, parts[split])
    return ImageSet("tiny-imagenet-200", train, val, test, class_names=tuple(wnids))


def read_wnids(path: Path) -> list[str]:
    """Return the classes, by label. Raise InputError if there are none, one is there twice, or one is no folder's name."""
    wnids: dict[str, int] = {}
    for number, line in read_lines(path):
        for wnid in line.split():
            if wnid in wnids:
                raise InputError(f"{path}, line {number}: '{brief(wnid)}' is in line {wnids[wnid]} too; leave one")
            if "/" in wnid or "\\" in wnid or "\0" in wnid or wnid in (".", ".."):
                raise InputError(f"{path}, line {number}: '{brief(wnid)}' is not the name of a class; {UNPACK}")
            wnids[wnid] = number
    if not wnids:
        raise InputError(f"{path} is empty; {UNPACK}")
    return list(wnids)


def complete(given: dict[str, Examples], folder: Path, wnids: list[str]) -> dict[str, Examples]:
    """Return all three parts: those given by lists, and the others from the folder, without images that are in a list.

    Of each class's training images, 80 % train and 20 % validate; `val/` is the test set. If val.txt is given, all that it
    leaves train; if train.txt has all of the 20 %, all that it leaves validate. Raise InputError if nothing is left, or
    something is missing in the folder.
    """
    parts, taken = dict(given), {key(path) for examples in given.values() for path, _ in examples}
    if "test" not in given:
        parts["test"] = read_annotations(folder / "val" / "val_annotations.txt", folder, wnids)
    if "train" not in given or "val" not in given:
        images = list_training_images(folder, wnids)
        chosen, rest = split_by_class(np.array([label for _, label in images]), 0.8, SPLIT_SEED)
        left = [example for example in images if key(example[0]) not in taken]
        drawn = {"train": [images[i] for i in chosen], "val": [images[i] for i in rest]}
        if "val" in given:
            drawn["train"] = left
        for split in {"train", "val"} - set(given):
            parts[split] = [example for example in drawn[split] if key(example[0]) not in taken]
        if "train" in given and not parts["val"]:
            parts["val"] = left
    for split in SPLITS:
        overlap = {key(path) for path, _ in parts[split]} & taken if split not in given else set()
        if not given and not parts[split]:
            raise InputError(f"{folder}/train has too few images for validation; every class needs at least 3")
        if overlap or not parts[split]:
            lists = " and ".join(f"{each}.txt" for each in given)
            raise InputError(
                f"{folder} leaves no images for {split}.txt but those of {lists}; write {split}.txt yourself"
            )
    return parts


def list_training_images(folder: Path, wnids: list[str]) -> Examples:
    """Return the images of `train/`, class by class. Raise InputError if a class has none: unpacking may have stopped halfway."""
    found, left_out = [], []
    counts = {}
    for label, wnid in enumerate(wnids):
        class_folder = folder / "train" / wnid / "images"
        if not class_folder.is_dir():
            raise InputError(f"no {class_folder}, though {folder}/wnids.txt names {wnid}; {UNPACK}")
        listing = list_files(class_folder, SUFFIXES)
        if not listing.files:
            raise InputError(f"{class_folder} has no images, though {folder}/wnids.txt names {wnid}; {UNPACK}")
        found += [(path, label) for path in listing.files]
        counts[class_folder] = len(listing.files)
        left_out += listing.left_out
    report_left_out(left_out)
    fewest = min(counts, key=lambda each: counts[each])
    if counts[fewest] < max(counts.values()):
        what = f"{fewest} has {counts[fewest]} images, others have up to {max(counts.values())}"
        print(one_line(f"{what}; if some are missing, {UNPACK}"), file=sys.stderr)
    return found


def read_annotations(path: Path, folder: Path, wnids: list[str]) -> Examples:
    """Return the images of `val/`. Raise InputError, naming the line, if it is not of the release, or an image is there twice."""
    if not is_regular(path):
        raise InputError(f"no {path}; {UNPACK}")
    class_of = {wnid: label for label, wnid in enumerate(wnids)}
    examples: dict[str, tuple[Path, int]] = {}  # by what is the same however an image is spelt
    for number, line in read_lines(path):
        name, wnid = [*line.split(), "", ""][:2]
        if wnid not in class_of:
            raise InputError(
                f"{path}, line {number}: '{brief(line)}' is not NAME WNID ... with a class of {folder}/wnids.txt"
            )
        if not os.path.isfile(os.path.join(folder, "val", "images", name)):
            raise InputError(f"{path}, line {number}: no image {brief(name)} in {folder}/val/images; {UNPACK}")
        image = folder / "val" / "images" / name
        if key(image) in examples:
            raise InputError(f"{path}, line {number}: '{brief(name)}' is in an earlier line too; leave one")
        examples[key(image)] = image, class_of[wnid]
    if not examples:
        raise InputError(f"{path} is empty; {UNPACK}")
    listing = list_files(folder / "val" / "images", SUFFIXES)
    unnamed = [(image, f"not in {path.name}") for image in listing.files if key(image) not in examples]
    report_left_out([*listing.left_out, *unnamed])
    return list(examples.values())


def read_split(path: Path, folder: Path, num_classes: int) -> Examples:
    """Read a list of `PATH,LABEL` lines. Paths are relative to the folder, or to the folder that the script runs in.

    Raise InputError, naming the line, for anything else.
    """
    examples = []
    label_of: dict[str, int] = {}
    for number, line in read_lines(path):
        name, _, label = (each.strip() for each in line.rpartition(","))
        if not name or not (label.isascii() and label.isdigit() and len(label) < 10) or int(label) >= num_classes:
            raise InputError(
                f"{path}, line {number}: '{brief(line)}' is not PATH,LABEL with a label from 0 to {num_classes - 1}"
            )
        places = (os.path.join(folder, name), name, os.path.join(folder, name.replace("\\", "/")))  # of Windows
        found = next(filter(os.path.isfile, places), None)
        if found is None:
            raise InputError(f"{path}, line {number}: no image {brief(name)}; correct the line, or {UNPACK}")
        if label_of.setdefault(key(Path(found)), int(label)) != int(label):
            raise InputError(f"{path}, line {number}: '{brief(name)}' has another label in an earlier line; leave one")
        examples.append((Path(found), int(label)))
    if not examples:
        raise InputError(f"{path} is empty; delete it to have it written again")
    return examples


def refuse_overlap(given: dict[str, Examples], folder: Path) -> None:
    """Raise InputError, naming it, for an image that is in two lists."""
    list_of: dict[str, str] = {}
    for split, examples in given.items():
        for path, _ in examples:
            if list_of.setdefault(key(path), split) != split:
                raise InputError(
                    f"{path} is in both {folder}/{list_of[key(path)]}.txt and {folder}/{split}.txt; take it out of one"
                )


def key(path: Path) -> str:
    """Return what is the same for an image however a list spells its path."""
    return os.path.join(real_path(str(path.parent)), path.name)


@functools.cache
def real_path(folder: str) -> str:
    """Return a folder's path without links; images are many, their folders few."""
    return "" if "\0" in folder else os.path.realpath(folder)


def write_split(path: Path, folder: Path, examples: Examples) -> None:
    """Write a split list. Raise InputError if that is not possible."""
    write_text(path, "".join(f"{image.relative_to(folder).as_posix()},{label}\n" for image, label in examples))


def load_split(examples: Sequence[tuple[Path, int]], what: str) -> Images:
    """Load the images of a split. Raise InputError for one that is missing or broken."""
    pixels = read_images([path for path, _ in examples], (SIDE,), what)
    return make_images(pixels, np.array([label for _, label in examples]), IMAGENET_MEAN, IMAGENET_STD, PADDING)
