"""Files that are either whole or absent: everything is written under another name, then moved; and their fingerprints."""

import contextlib
import hashlib
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.errors import InputError

# What writing raises on a full disk: Python's, torch's and safetensors' own.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to. It replaces `path` only if nothing failed, and is on the disk by then.

    Raise InputError if it cannot be written.
    """
    whose = f"{socket.gethostname()}-{os.getpid()}"
    partial = path.with_name(f".{path.name}.partial-{whose}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)  # a power cut may else undo the move
    except WRITE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise InputError(
            f"{path} could not be written ({reason}); make room or choose another folder, and run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes of this machine left of this file."""
    start = f".{path.name}.partial-{socket.gethostname()}-"
    for name in os.listdir(path.parent):
        if name.startswith(start):
            number = name.removeprefix(start).removesuffix(path.suffix)
            if number.isdigit() and not is_alive(int(number)):
                (path.parent / name).unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Return whether a process of this machine exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors by name, with metadata in the file's header."""
    with written_whole(path) as partial:
        # Not save_file: it writes to a temporary file of its own, which stays where a process is killed.
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: Path) -> str:
    """Return a UTF-8 text file's content. Raise InputError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__}); replace or remove it") from None


def load_pt(path: Path) -> Any:
    """Return the tensors and plain values of a `.pt`, on the CPU. Nothing in it is executed.

    A broken file may raise any exception.
    """
    with warnings.catch_warnings(action="ignore"):  # torch finds strange what is about to be refused
        return torch.load(path, map_location="cpu", weights_only=True)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return a JSON object. Raise InputError, with the remedy, if the file is not one."""
    try:
        found = json.loads(read_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object; {remedy}")
    return found


def fingerprint(*tensors: Tensor) -> str:
    """Return the beginning of the SHA-256 of tensors' types, shapes and values, as in "sha256:0123456789abcdef"."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:16]}"


def fingerprint_of_file(path: Path) -> str:
    """Return the beginning of the SHA-256 of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
