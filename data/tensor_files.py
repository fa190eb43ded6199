"""Files of tensors, as every reader opens them: PyTorch's `.pt` in all its spellings, `.safetensors`, `.npz`.

Nothing in a file is executed, and nothing is built that is larger than the file can hold: what a file claims is compared
with its size first. data/state_dicts.py finds the state dict in what a file holds.
"""

import contextlib
import mmap
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from encodings import aliases, normalize_encoding
from math import prod
from pathlib import Path
from pickletools import genops
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from data.files import check_regular
from models.errors import InputError, brief

TENSOR_SUFFIXES = (".pt", ".pth", ".pth.tar", ".ckpt", ".safetensors")  # of state dicts
SAVE_AGAIN = "save its state dict alone: torch.save(net.state_dict(), PATH)"
# A compressed array may be so many bytes whatever its ratio; above, the ratio is limited. Deflate reaches 1000.
ALWAYS_FITS, HIGHEST_RATIO = 1 << 26, 20
# Codecs from bytes to bytes, which may multiply what they are given; torch allows calls of `_codecs.encode`.
BYTE_CODECS = {name for pair in aliases.aliases.items() if pair[1].endswith("_codec") for name in pair}


def read_tensors(path: Path) -> tuple[Any, dict[str, str]]:
    """Return a file's tensors, on the CPU, among its plain values, and the text entries of a `.safetensors` header.

    Numbers of numpy, arrays, paths and argparse's Namespace beside the tensors come back as placeholders. Raise InputError
    for a file that is missing, no regular file, broken, larger inside than outside, or that would run code.
    """
    with reading(path):
        if path.suffix.lower() == ".safetensors":
            with open_safetensors(path) as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if path.suffix.lower() == ".npz":
            arrays = read_arrays(path).items()
            return {
                name: torch.from_numpy(as_native(array)) if array.dtype.kind in "fciub" else array
                for name, array in arrays
            }, {}
        return read_pt(path), {}


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Open a `.safetensors` whatever it is called, of which nothing but the header is read yet. Raise as `read_tensors`."""
    with reading(path), safe_open(path, framework="pt") as file:
        yield file


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken file raises into an InputError. Raise it too if the file is missing or no regular file."""
    check_regular(path)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a broken file may raise anything
        raise InputError(f"{path} cannot be read ({reason_of(error)}); {remedy_for(error)}") from None


def reason_of(error: Exception) -> str:
    """Return an exception's type, and what in a pickle is not allowed."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"{type(error).__name__}: it has {brief(found[1])}" if found else type(error).__name__


def remedy_for(error: Exception) -> str:
    """Return what to do about a file that cannot be read."""
    if type(error).__name__ == "UnpicklingError" and "GLOBAL" in str(error):
        return f"nothing in a file is executed, so if it is a whole net, {SAVE_AGAIN}"
    return "it is broken, or of another kind than its name says; save or copy it again"


# PyTorch's own files


def read_pt(path: Path) -> Any:
    """Return the tensors and plain values of a `.pt`. Raise InputError if it claims more than it holds; broken ones, anything."""
    size = path.stat().st_size
    claimed = 0

    def place(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        """Return a storage where it is, on the CPU. Old files are not zip archives, and claim sizes here."""
        nonlocal claimed
        claimed += storage.nbytes()
        if claimed > size:
            raise InputError(f"{path} claims tensors of {claimed} bytes and has {size}; it is broken")
        return storage

    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            check_archive(file, path, size)
        else:
            check_pickle(file, path)
        file.seek(0)
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(PLACEHOLDERS):
            value = torch.load(file, map_location=place, weights_only=True)  # type: ignore[arg-type]
    check_sizes(value, path, size)
    return value


def check_archive(file: BinaryIO, path: Path, size: int) -> None:
    """Raise InputError unless all records are stored as they are, as torch does, and no more than the file has."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if any("/code/" in record.filename for record in records):
            raise InputError(f"{path} is a program of TorchScript, and nothing in a file is executed; {SAVE_AGAIN}")
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED:
                raise InputError(
                    f"{path}: '{brief(record.filename)}' is compressed, which torch never does; save it with torch.save"
                )
        if sum(record.file_size for record in records) > size:
            raise InputError(f"{path} claims more bytes than the {size} that it has; it is broken")
        for record in records:
            if record.filename.endswith("data.pkl"):
                check_pickle(archive.open(record), path)


def check_pickle(file: Any, path: Path) -> None:
    """Raise InputError if a pickle calls what torch allows, but could fill the memory with from a few bytes."""
    if hasattr(file, "fileno") and not isinstance(file, zipfile.ZipExtFile):
        if not path.stat().st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            suspicious = content.find(b"bytearray") >= 0 or content.find(b"_codecs") >= 0
    else:
        content = file.read()
        suspicious = b"bytearray" in content or b"_codecs" in content
        file.seek(0)
    if not suspicious:
        return
    file.seek(0)
    for _ in range(5):  # an old file begins with five pickles
        try:
            for opcode, argument, _ in genops(file):
                if opcode.name in ("GLOBAL", "INST") and str(argument).endswith(" bytearray"):
                    raise InputError(f"{path} has a bytearray, which is no part of a net; {SAVE_AGAIN}")
                is_text = isinstance(argument, str) and len(argument) < 40
                if is_text and normalize_encoding(str(argument).lower()) in BYTE_CODECS:
                    raise InputError(f"{path} encodes bytes as '{argument}', which is no part of a net; {SAVE_AGAIN}")
        except ValueError as error:  # no pickle follows
            if isinstance(error, InputError):
                raise
            return


def check_sizes(value: Any, path: Path, size: int) -> None:
    """Raise InputError for tensors that look larger than the file: views that repeat a few numbers."""
    seen: dict[tuple[Any, ...], int] = {}
    for tensor in tensors_in(value):
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            continue  # no numbers; who reads it refuses it by its name
        # Two names of one tensor count once.
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        seen[key] = tensor.numel() * tensor.element_size()
        if seen[key] > size or sum(seen.values()) > 4 * size:
            raise InputError(
                f"{path} has a tensor of shape {tuple(tensor.shape)}, more than fits into its {size} bytes; "
                "save tensors whole, with .clone()"
            )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested dicts, lists and tuples, each container once."""
    stack, seen = [value], set()
    while stack:
        each = stack.pop()
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (dict, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            stack.extend(each.values() if isinstance(each, dict) else each)


# What people save beside a state dict, and is no code: these stand for it, so that its own classes are never made.


class Placeholder:
    """Stands for a value that is not read, whatever it is made from."""

    def __new__(cls, *args: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __repr__(self) -> str:
        return "(not read)"


class DictPlaceholder(dict[Any, Any]):
    """Stands for a dict of another class, and becomes a plain one."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


LIGHTNING = [f"{name}.utilities.data" for name in ("lightning_fabric", "lightning.fabric")]
LIGHTNING += [f"{name}.utilities.parsing" for name in ("pytorch_lightning", "lightning.pytorch")]
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
PLACEHOLDERS: list[Any] = [
    *((Placeholder, f"{module}.{name}") for module in NUMPY for name in ("scalar", "_reconstruct")),
    *((Placeholder, name) for name in ("numpy.dtype", "numpy.ndarray", "argparse.Namespace")),
    *((Placeholder, f"pathlib.{kind}") for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *((Placeholder, f"pathlib._local.{kind}") for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *((DictPlaceholder, f"{name}.AttributeDict") for name in LIGHTNING),
    *((Placeholder, f"datetime.{kind}") for kind in ("date", "datetime", "time", "timedelta", "timezone")),
    *((Placeholder, name) for name in ("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "types.SimpleNamespace")),
]


# numpy's files


def open_matrix(path: Path) -> np.ndarray:
    """Open the matrix of floating point numbers in a `.npy` without reading it. Raise InputError if there is none."""
    with reading(path):
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
        raise InputError(f"{path} is not a matrix of floating point numbers; copy it again")
    return matrix


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return arrays of a `.npz` by name, by default all. Each array's header is compared with the file before it is read.

    Raise InputError if the file is missing, no `.npz`, has no array of such a name, or claims more than it holds.
    """
    check_regular(path)
    wanted = "arrays" if names is None else f"arrays {' and '.join(names)}"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {record.filename.removesuffix(".npy"): record for record in archive.infolist()}
            chosen = [name for name in members if not has_objects(archive, members[name])] if names is None else names
            stored = sum(members[name].file_size for name in chosen)
            if stored > max(ALWAYS_FITS, HIGHEST_RATIO * path.stat().st_size):
                raise InputError(
                    f"{path} claims {stored} bytes and has {path.stat().st_size}; if that is so, save it with np.savez"
                )
            return {name: read_array(archive, members[name]) for name in chosen}
    except InputError:
        raise
    except Exception as error:  # a broken file may raise anything
        raise InputError(
            f"{path} cannot be read as a .npz with {wanted} ({type(error).__name__}); replace or remove it"
        ) from None


def read_array(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> np.ndarray:
    """Return one array. Raise ValueError if its header claims another size than the record has, or objects."""
    with archive.open(record) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject or prod(shape) * dtype.itemsize != record.file_size - file.tell():
            raise ValueError("another size than its header claims")
    with archive.open(record) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def has_objects(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    """Return whether an array is of Python's objects, which are not read, or no array at all."""
    with archive.open(record) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            return bool(read_header(file)[2].hasobject)
        except ValueError:
            return False  # reading it says what is wrong


def as_native(array: np.ndarray) -> np.ndarray:
    """Return an array in the byte order of this machine, as torch has it."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
