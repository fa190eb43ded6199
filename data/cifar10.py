"""CIFAR-10: 40,000 / 10,000 / 10,000 images of 32x32, the 10,000 for validation drawn from the training set (S Sec. IV)."""

import gzip
import pickle
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

from data.files import check_regular, is_regular, written_whole
from data.images import IMAGENET_MEAN, IMAGENET_STD, Images, ImageSet, check_classes, make_images, split_by_class
from data.tensor_files import read_arrays
from models.errors import InputError, brief

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
SPLIT_SEED = 0
PADDING = 4  # pixels
BATCHES = "cifar-10-batches-py"  # as its authors and torchvision name them
ARCHIVE = "cifar-10-python.tar.gz"
BATCH_NAMES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
LARGEST = 1 << 30  # bytes, of all arrays in a file, or all that is in the archive

Arrays = dict[str, np.ndarray]


def cached_arrays(data_dir: Path) -> Arrays:
    """Return the four arrays of CIFAR-10: uint8 images (N, 32, 32, 3) and labels (N,).

    They are in `DATA_DIR/cifar10.npz`, or else in the batches that CIFAR-10 is published in, unpacked or not, or else
    torchvision downloads them and the file is written. Raise InputError if the download fails or a file has other content.
    """
    path = data_dir / "cifar10.npz"
    if is_regular(path):
        try:
            return check_arrays(read_arrays(path, ARRAYS), path)
        except InputError as error:
            raise InputError(f"{error}; correct it, or move it away to have it made again") from None
    for folder in (data_dir, data_dir / "cifar10-download"):
        if (folder / BATCHES).is_dir():
            return check_arrays(arrays_of(read_batches(folder / BATCHES), folder / BATCHES), folder / BATCHES)
        if is_regular(folder / ARCHIVE):
            return check_arrays(arrays_of(read_archive(folder / ARCHIVE), folder / ARCHIVE), folder / ARCHIVE)
    try:
        train, test = (
            CIFAR10(str(data_dir / "cifar10-download"), train=train, download=True) for train in (True, False)
        )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"CIFAR-10 could not be downloaded ({type(error).__name__}); put its folder {BATCHES} or {ARCHIVE} into {data_dir}, "
            f"or write {path} there yourself, with uint8 arrays train_images (50000, 32, 32, 3), train_labels, test_images, test_labels"
        ) from None
    labels = [np.array(each.targets, np.uint8) for each in (train, test)]
    arrays = dict(zip(ARRAYS, (train.data, labels[0], test.data, labels[1])))
    with written_whole(path) as partial:
        np.savez(partial, **arrays)
    return check_arrays(arrays, path)


class BatchReader(pickle.Unpickler):
    """Reads a batch of CIFAR-10: a dict of text, numbers, lists and arrays. Nothing in it is executed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what arrays are made of. Raise UnpicklingError for anything else."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda kind, shape, code: np.empty(0, np.uint8)  # its shape comes with its bytes
        if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):  # of pickle's protocol 5
            return lambda content, dtype, shape, order: np.frombuffer(content, dtype).reshape(shape, order=order)
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument above; called, it would take as much memory as the file says
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda dtype, content: np.frombuffer(content, dtype)[0]
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 writes them for Python 2
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a batch")


def read_batches(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches' names and contents. Raise InputError if one is missing."""
    for name in BATCH_NAMES:
        check_regular(folder / name)
        if (folder / name).stat().st_size > LARGEST:
            raise InputError(f"{folder / name} is too large for a batch of CIFAR-10; replace it")
        yield name, (folder / name).read_bytes()


class BoundedReader(gzip.GzipFile):
    """Refuses to read at once what no part of the archive has: a small file may hold that."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. Raise MemoryError if they are too many."""
        if size is None or not 0 <= size <= LARGEST:
            raise MemoryError
        return super().read(size)


def read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches' names and contents out of the archive, of which nothing is unpacked. Raise InputError if it is broken."""
    try:
        left = LARGEST
        with BoundedReader(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name, left = PurePosixPath(member.name).name, left - member.size
                if left < 0:
                    raise MemoryError
                if name in BATCH_NAMES and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read()
    except Exception as error:  # a broken file may raise anything
        raise InputError(f"{path} cannot be read ({type(error).__name__}); replace it") from None


def arrays_of(batches: Iterator[tuple[str, bytes]], where: Path) -> Arrays:
    """Return the arrays of batches by name, of which each has `data` (N, 3072) uint8 and N `labels`.

    Raise InputError, naming `where`, if one is missing, broken, or of another form.
    """
    images, labels = {}, {}
    for name, content in batches:
        try:
            batch = BatchReader(BytesIO(content), encoding="latin1").load()
            batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
            images[name] = channels_last(np.asarray(batch["data"]))
            labels[name] = np.asarray(batch["labels"])
        except Exception as error:  # a broken file may raise anything
            raise InputError(
                f"{name} in {where} is no batch of CIFAR-10 ({type(error).__name__}: {brief(str(error))}); replace it"
            ) from None
    missing = [name for name in BATCH_NAMES if name not in images]
    if missing:
        raise InputError(f"{where} has no {missing[0]}; get cifar-10-python.tar.gz again")
    *train, test = BATCH_NAMES
    try:
        found = [np.concatenate([each[name] for name in part]) for part in (train, [test]) for each in (images, labels)]
    except (ValueError, TypeError):
        raise InputError(f"the batches in {where} are not alike; get cifar-10-python.tar.gz again") from None
    return dict(zip(ARRAYS, found))


def channels_last(data: np.ndarray) -> np.ndarray:
    """Return a batch's data (N, 3072) or (N, 3, 32, 32) as (N, 32, 32, 3). Raise ValueError for another shape."""
    if data.shape[1:] == (32, 32, 3):
        return data
    if data.shape[1:] not in ((3 * 32 * 32,), (3, 32, 32)):
        raise ValueError(f"data of shape {data.shape}")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def check_arrays(arrays: Arrays, where: Path) -> Arrays:
    """Return the arrays, labels as (N,), keras' are (N, 1). Raise InputError if one is not CIFAR-10's."""
    checked = dict(arrays)
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
            raise InputError(f"{where}: {part}_images is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3)")
        if labels.shape == (len(images), 1):
            labels = labels[:, 0]
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            what = f"{labels.dtype} {labels.shape} for {len(images)} images"
        elif labels.min() < 0 or labels.max() > 9:
            what = f"from {labels.min()} to {labels.max()}"
        else:
            checked[f"{part}_labels"] = labels
            continue
        raise InputError(f"{where}: {part}_labels is {what}, expected integer labels (N,) from 0 to 9")
    return checked


def load_cifar10(data_dir: Path) -> ImageSet:
    """Load CIFAR-10. Raise InputError as `cached_arrays` does."""
    arrays = cached_arrays(data_dir)
    check_classes(arrays["train_labels"], CLASSES, f"the training labels of CIFAR-10 in {data_dir}")
    train, val = split_by_class(arrays["train_labels"], 0.8, SPLIT_SEED)
    if not len(val):
        raise InputError(f"CIFAR-10 in {data_dir} has too few images for validation; every class needs at least 3")

    def part(split: str, chosen: np.ndarray | slice) -> Images:
        images, labels = arrays[f"{split}_images"][chosen], arrays[f"{split}_labels"][chosen]
        return make_images(images, labels, IMAGENET_MEAN, IMAGENET_STD, PADDING)

    test = part("test", slice(None))
    return ImageSet("cifar10", part("train", train), part("train", val), test, class_names=CLASSES)
