"""Image sets by name."""

from pathlib import Path

import torch

from data.cifar10 import load_cifar10
from data.image_folder import load_image_folder
from data.images import ImageSet
from data.photos import load_photos
from data.tiny_imagenet import load_tiny_imagenet
from models.errors import InputError

SHAPES = ("chairs",)  # data sets of shapes that have a name, and no loader here
WITH_PRESETS = ("photos", "cifar10", "tiny-imagenet-200")
LOADERS = {"photos": lambda data_dir: load_photos(), "cifar10": load_cifar10, "tiny-imagenet-200": load_tiny_imagenet}


def dataset_name(dataset: str) -> str:
    """The name that lists and run folders use: a known one, or the last part of a folder's path."""
    if dataset in (*LOADERS, *SHAPES):
        return dataset
    name = Path(dataset).resolve().name
    if name in (*LOADERS, *SHAPES) or ";" in name:
        raise InputError(f"a data set of one's own cannot be called '{name}'; rename the folder {dataset}")
    return name


def command(script: str, dataset: str) -> str:
    """How `script` is run on an image set, for error messages."""
    name = dataset_name(dataset)
    return (
        f"python {script} {name}"
        if name in WITH_PRESETS
        else f"python {script} with the preset and --dataset of {name}"
    )


def load_images(dataset: str, data_dir: Path = Path("data"), device: torch.device | str = "cpu") -> ImageSet:
    """A known image set, or a folder of class folders. Raises InputError if it is neither."""
    name = dataset_name(dataset)
    if name in LOADERS:
        return LOADERS[name](data_dir).to(device)
    if not Path(dataset).is_dir():
        raise InputError(
            f"unknown data set '{dataset}'; choose {', '.join(LOADERS)}, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE"
        )
    return load_image_folder(Path(dataset)).to(device)
