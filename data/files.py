"""Files that are either whole or not there: everything is written beside its place and then moved into it."""

import contextlib
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
    """Gives a path to write to; what was written there replaces `path` only if nothing failed, and is on the disk by then.

    Raises InputError if it cannot be written.
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
    """What processes of this machine that are gone have left of this file: they were killed while they wrote it."""
    start = f".{path.name}.partial-{socket.gethostname()}-"
    for name in os.listdir(path.parent):
        if name.startswith(start):
            number = name.removeprefix(start).removesuffix(path.suffix)
            if number.isdigit() and not is_alive(int(number)):
                (path.parent / name).unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    with written_whole(path) as partial:
        # Not save_file: it writes to a temporary file of its own, which stays where a process is killed.
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_text(path: Path) -> str:
    """Raises InputError if the file is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__}); replace or remove it") from None


def load_pt(path: Path) -> Any:
    """Tensors and plain values of a `.pt`, on the CPU. Nothing in it is executed; what it raises depends on its bytes."""
    with warnings.catch_warnings(action="ignore"):  # torch finds strange what is about to be refused
        return torch.load(path, map_location="cpu", weights_only=True)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Raises InputError, with the remedy, if the file is no JSON object."""
    try:
        found = json.loads(read_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object; {remedy}")
    return found
