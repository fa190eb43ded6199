"""Image sets by name."""

import os
from pathlib import Path

import torch

from data.cifar import load_cifar10, load_cifar100
from data.folders import dataset_name
from data.image_folder import load_image_folder
from data.images import ImageSet
from data.mnist import load_mnist
from data.photos import load_photos
from data.tiny_imagenet import load_tiny_imagenet
from models.errors import InputError, brief

LOADERS = {
    "photos": lambda data_dir: load_photos(),
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "mnist": load_mnist,
    "tiny-imagenet-200": load_tiny_imagenet,
}


def load_images(dataset: str, data_dir: Path = Path("data"), device: torch.device | str = "cpu") -> ImageSet:
    """Load a known image set, or a folder of class folders, onto the device. Raise InputError if it is neither.

    `cifar10` is the known set, `./cifar10` a folder (data/folders.py).
    """
    name = dataset_name(dataset)
    if name in LOADERS:
        return LOADERS[name](data_dir).to(device)
    if not os.path.isdir(dataset):  # unlike Path.is_dir, false for names that are too long
        raise InputError(
            f"unknown data set '{brief(dataset)}'; choose {', '.join(LOADERS)}, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE"
        )
    return load_image_folder(Path(dataset)).to(device)
