"""CIFAR-10 and CIFAR-100: 40,000 / 10,000 / 10,000 images of 32x32, 10,000 of the training set for validation (S Sec. IV)."""

import gzip
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torchvision import datasets

from data.files import check_regular, is_regular, written_whole
from data.images import IMAGENET_MEAN, IMAGENET_STD, Images, ImageSet, check_classes, make_images, split_by_class
from data.tensor_files import read_arrays
from models.errors import InputError, brief

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
SPLIT_SEED = 0
PADDING = 4  # pixels
LARGEST = 1 << 30  # bytes, of all arrays in a file, or all that is in the archive

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cifar:
    """One of the two sets. Folder, archive and batches have the names of its authors and of torchvision; the last one is the test set."""

    name: str
    title: str  # also, without the dash, torchvision's
    folder: str
    archive: str
    batches: tuple[str, ...]
    labels: str  # their name in a batch
    classes: tuple[str, ...]


CIFAR_10 = Cifar(
    "cifar10",
    "CIFAR-10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    "labels",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
FINE_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
CIFAR_100 = Cifar(
    "cifar100",
    "CIFAR-100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    ("train", "test"),
    "fine_labels",
    tuple(FINE_CLASSES.split()),
)


def cached_arrays(data_dir: Path, of: Cifar = CIFAR_10) -> Arrays:
    """Return the four arrays of CIFAR-10 or CIFAR-100: uint8 images (N, 32, 32, 3) and labels (N,).

    They are in `DATA_DIR/cifar10.npz`, or else in the batches that CIFAR-10 is published in, unpacked or not, or else
    torchvision downloads them and the file is written. Raise InputError if the download fails or a file has other content.
    """
    path = data_dir / f"{of.name}.npz"
    if is_regular(path):
        try:
            return check_arrays(read_arrays(path, ARRAYS), path, of)
        except InputError as error:
            raise InputError(f"{error}; correct it, or move it away to have it made again") from None
    downloaded = data_dir / f"{of.name}-download"
    for place in (data_dir, downloaded):
        folder, archive = place / of.folder, place / of.archive
        if folder.is_dir():
            return check_arrays(arrays_of(read_batches(folder, of), folder, of), folder, of)
        if is_regular(archive):
            return check_arrays(arrays_of(read_archive(archive, of), archive, of), archive, of)
    try:
        load = getattr(datasets, of.title.replace("-", ""))
        train, test = (load(str(downloaded), train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{of.title} could not be downloaded ({type(error).__name__}); put its folder {of.folder} or {of.archive} into "
            f"{data_dir}, or write {path} there yourself, with uint8 arrays train_images (50000, 32, 32, 3), train_labels, test_images, test_labels"
        ) from None
    labels = [np.array(each.targets, np.uint8) for each in (train, test)]
    arrays = dict(zip(ARRAYS, (train.data, labels[0], test.data, labels[1])))
    with written_whole(path) as partial:
        np.savez(partial, **arrays)
    return check_arrays(arrays, path, of)


class BatchReader(pickle.Unpickler):
    """Reads a batch: a dict of text, numbers, lists and arrays. Nothing in it is executed."""

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


def read_batches(folder: Path, of: Cifar) -> Iterator[tuple[str, bytes]]:
    """Yield the batches' names and contents. Raise InputError if one is missing."""
    for name in of.batches:
        check_regular(folder / name)
        if (folder / name).stat().st_size > LARGEST:
            raise InputError(f"{folder / name} is too large for a batch of {of.title}; replace it")
        yield name, (folder / name).read_bytes()


class BoundedReader(gzip.GzipFile):
    """Refuses to read at once what no part of the archive has: a small file may hold that."""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. Raise MemoryError if they are too many."""
        if size is None or not 0 <= size <= LARGEST:
            raise MemoryError
        return super().read(size)


def read_archive(path: Path, of: Cifar) -> Iterator[tuple[str, bytes]]:
    """Yield the batches' names and contents out of the archive, of which nothing is unpacked. Raise InputError if it is broken."""
    try:
        left = LARGEST
        with BoundedReader(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name, left = PurePosixPath(member.name).name, left - member.size
                if left < 0:
                    raise MemoryError
                if name in of.batches and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read()
    except Exception as error:  # a broken file may raise anything
        raise InputError(f"{path} cannot be read ({type(error).__name__}); replace it") from None


def arrays_of(batches: Iterator[tuple[str, bytes]], where: Path, of: Cifar) -> Arrays:
    """Return the arrays of batches by name, of which each has `data` (N, 3072) uint8 and N `labels`, or `fine_labels`.

    Raise InputError, naming `where`, if one is missing, broken, or of another form.
    """
    images, labels = {}, {}
    for name, content in batches:
        try:
            batch = BatchReader(BytesIO(content), encoding="latin1").load()
            batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
            images[name] = channels_last(np.asarray(batch["data"]))
            labels[name] = np.asarray(batch[of.labels])
        except Exception as error:  # a broken file may raise anything
            raise InputError(
                f"{name} in {where} is no batch of {of.title} ({type(error).__name__}: {brief(str(error))}); replace it"
            ) from None
    missing = [name for name in of.batches if name not in images]
    if missing:
        raise InputError(f"{where} has no {missing[0]}; get {of.archive} again")
    *train, test = of.batches
    try:
        found = [np.concatenate([each[name] for name in part]) for part in (train, [test]) for each in (images, labels)]
    except (ValueError, TypeError):
        raise InputError(f"the batches in {where} are not alike; get {of.archive} again") from None
    return dict(zip(ARRAYS, found))


def channels_last(data: np.ndarray) -> np.ndarray:
    """Return a batch's data (N, 3072) or (N, 3, 32, 32) as (N, 32, 32, 3). Raise ValueError for another shape."""
    if data.shape[1:] == (32, 32, 3):
        return data
    if data.shape[1:] not in ((3 * 32 * 32,), (3, 32, 32)):
        raise ValueError(f"data of shape {data.shape}")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def check_arrays(arrays: Arrays, where: Path, of: Cifar) -> Arrays:
    """Return the arrays, labels as (N,), keras' are (N, 1). Raise InputError if one is not of this set."""
    checked, last = dict(arrays), len(of.classes) - 1
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
            raise InputError(f"{where}: {part}_images is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3)")
        if labels.shape == (len(images), 1):
            labels = labels[:, 0]
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            what = f"{labels.dtype} {labels.shape} for {len(images)} images"
        elif labels.min() < 0 or labels.max() > last:
            what = f"from {labels.min()} to {labels.max()}"
        else:
            checked[f"{part}_labels"] = labels
            continue
        raise InputError(f"{where}: {part}_labels is {what}, expected integer labels (N,) from 0 to {last}")
    return checked


def load_cifar(data_dir: Path, of: Cifar) -> ImageSet:
    """Load CIFAR-10 or CIFAR-100. Raise InputError as `cached_arrays` does."""
    arrays = cached_arrays(data_dir, of)
    check_classes(arrays["train_labels"], of.classes, f"the training labels of {of.title} in {data_dir}")
    train, val = split_by_class(arrays["train_labels"], 0.8, SPLIT_SEED)
    if not len(val):
        raise InputError(f"{of.title} in {data_dir} has too few images for validation; every class needs at least 3")

    def part(split: str, chosen: np.ndarray | slice) -> Images:
        images, labels = arrays[f"{split}_images"][chosen], arrays[f"{split}_labels"][chosen]
        return make_images(images, labels, IMAGENET_MEAN, IMAGENET_STD, PADDING)

    test = part("test", slice(None))
    return ImageSet(of.name, part("train", train), part("train", val), test, class_names=of.classes)


def load_cifar10(data_dir: Path) -> ImageSet:
    """Load CIFAR-10. Raise InputError as `cached_arrays` does."""
    return load_cifar(data_dir, CIFAR_10)


def load_cifar100(data_dir: Path) -> ImageSet:
    """Load CIFAR-100 with its 100 fine classes. Raise InputError as `cached_arrays` does."""
    return load_cifar(data_dir, CIFAR_100)
