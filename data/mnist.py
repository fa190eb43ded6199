"""MNIST: 48,000 / 12,000 / 10,000 grey digits, the 12,000 for validation drawn from the training set.

Its images of 28x28 get a black border of 2 pixels, so that the architectures for 32x32 take them.
"""

import gzip
import math
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
from torchvision import datasets

from data.files import check_regular, is_regular
from data.images import Images, ImageSet, check_classes, make_images, split_by_class
from models.errors import InputError

CLASSES = tuple("0123456789")
SIDE, BORDER = 28, 2  # pixels
MEAN, STD = (0.1307,), (0.3081,)  # of the training images without the border
SPLIT_SEED = 0
PADDING = 4  # pixels
RAW = Path("MNIST", "raw")  # as torchvision names it
SPLITS = {"train": "train", "test": "t10k"}  # as in the files' names
LARGEST = 1 << 30  # bytes of a file's content


def load_mnist(data_dir: Path) -> ImageSet:
    """Load MNIST from its four files in `DATA_DIR/MNIST/raw`, unpacked or `.gz`. If all are missing, torchvision downloads them.

    Digits are not mirrored in training. Raise InputError if the download fails, or a file is missing or has other content.
    """
    folder = data_dir / RAW
    if not any(
        is_regular(path) for split in SPLITS for kind in ("images", "labels") for path in places(folder, split, kind)
    ):
        download(data_dir)
    arrays = {split: read_split(folder, split) for split in SPLITS}
    labels = arrays["train"][1]
    check_classes(labels, CLASSES, f"the training labels of MNIST in {folder}")
    train, val = split_by_class(labels, 0.8, SPLIT_SEED)
    if not len(val):
        raise InputError(f"MNIST in {folder} has too few images for validation; every class needs at least 3")

    def part(split: str, chosen: np.ndarray | slice) -> Images:
        pixels, labels = (each[chosen] for each in arrays[split])
        return make_images(pixels, labels, MEAN, STD, PADDING, mirrored=False)

    test = part("test", slice(None))
    return ImageSet("mnist", part("train", train), part("train", val), test, class_names=CLASSES)


def download(data_dir: Path) -> None:
    """Let torchvision download MNIST. Raise InputError, which names the files, if it cannot."""
    try:
        datasets.MNIST(str(data_dir), download=True)
    except (OSError, RuntimeError, URLError) as error:
        names = ", ".join(places(Path(), split, kind)[0].name for split in SPLITS for kind in ("images", "labels"))
        raise InputError(
            f"MNIST could not be downloaded ({type(error).__name__}); put its files {names} into {data_dir / RAW}, unpacked or .gz"
        ) from None


def places(folder: Path, split: str, kind: str) -> list[Path]:
    """Return where the images or labels of a split may be."""
    name = f"{SPLITS[split]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return [folder / name, folder / f"{name}.gz"]


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 32, 32, 1) uint8 with their border, and labels (N,). Raise InputError for a file of other content."""
    (images, images_path), (labels, labels_path) = (
        read_idx(folder, split, kind, dims) for kind, dims in (("images", 3), ("labels", 1))
    )
    if images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise InputError(f"{images_path} has images of shape {images.shape}, expected (N, {SIDE}, {SIDE}); replace it")
    if len(labels) != len(images) or labels.max() >= len(CLASSES):
        raise InputError(
            f"{labels_path} has {len(labels)} labels up to {labels.max(initial=0)} for {len(images)} images, expected 0 to 9; replace it"
        )
    border = (BORDER, BORDER)
    return np.pad(images, ((0, 0), border, border))[..., None], labels


def read_idx(folder: Path, split: str, kind: str, dims: int) -> tuple[np.ndarray, Path]:
    """Return a file's array of bytes (N, ...), and the file. Raise InputError if it is missing or not in the format IDX.

    It begins with 0, 0, 8 for bytes and the number of dimensions, then has each dimension as a big-endian integer of 4 bytes.
    """
    found = [path for path in places(folder, split, kind) if is_regular(path)]
    if not found:
        path = places(folder, split, kind)[0]
        raise InputError(f"no {path}; put it or {path.name}.gz there, or move {folder} away to have MNIST downloaded")
    check_regular(found[0])
    try:
        with gzip.open(found[0]) if found[0].suffix == ".gz" else open(found[0], "rb") as file:
            if file.read(4) != bytes([0, 0, 8, dims]):
                raise ValueError("another header")
            shape = np.frombuffer(file.read(4 * dims), ">u4").astype(int).tolist()
            size = math.prod(shape)
            if len(shape) != dims or size > LARGEST:
                raise ValueError(f"shape {shape}")
            content = file.read(size + 1)
        if len(content) != size:
            raise ValueError("another length")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{found[0]} is no file of MNIST ({type(error).__name__}: {error}); replace it") from None
    return np.frombuffer(content, np.uint8).reshape(shape), found[0]
