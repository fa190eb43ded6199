"""CIFAR-10: 40,000 / 10,000 / 10,000 images of 32x32, the 10,000 for validation drawn from the training set (S Sec. IV)."""

from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

from data.files import written_whole
from data.images import IMAGENET_MEAN, IMAGENET_STD, Images, ImageSet, make_images, split_by_class
from models.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
SPLIT_SEED = 0
PADDING = 4  # pixels


def cached_arrays(data_dir: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of `DATA_DIR/cifar10.npz`. If it is missing, download CIFAR-10 through torchvision and write it.

    Raise InputError if the download fails or the file has other content.
    """
    path = data_dir / "cifar10.npz"
    if not path.is_file():
        try:
            train, test = (
                CIFAR10(str(data_dir / "cifar10-download"), train=train, download=True) for train in (True, False)
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"CIFAR-10 could not be downloaded ({type(error).__name__}); put {path} there yourself, "
                f"with uint8 arrays train_images (50000, 32, 32, 3), train_labels, test_images, test_labels"
            ) from None
        found = (train.data, np.uint8(train.targets), test.data, np.uint8(test.targets))
        with written_whole(path) as partial:
            np.savez(partial, **dict(zip(ARRAYS, found)))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
    except Exception as error:  # a broken file may raise anything
        raise InputError(
            f"{path} does not have the arrays {', '.join(ARRAYS)} ({type(error).__name__}); delete it to have it made again"
        ) from None
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if (
            images.dtype != np.uint8
            or images.shape[1:] != (32, 32, 3)
            or labels.shape != images.shape[:1]
            or not len(labels)
            or not np.issubdtype(labels.dtype, np.integer)
            or labels.min() < 0
            or labels.max() > 9
        ):
            raise InputError(
                f"{path}: {part}_images is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3) with labels (N,) from 0 to 9"
            )
    return arrays


def load_cifar10(data_dir: Path) -> ImageSet:
    """Load CIFAR-10. Raise InputError as `cached_arrays` does."""
    arrays = cached_arrays(data_dir)
    train, val = split_by_class(arrays["train_labels"], 0.8, SPLIT_SEED)

    def part(split: str, chosen: np.ndarray | slice) -> Images:
        images, labels = arrays[f"{split}_images"][chosen], arrays[f"{split}_labels"][chosen]
        return make_images(images, labels, IMAGENET_MEAN, IMAGENET_STD, PADDING)

    test = part("test", slice(None))
    return ImageSet("cifar10", part("train", train), part("train", val), test, class_names=CLASSES)
