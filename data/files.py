"""Files: written whole or not at all (under another name, then moved), listed by one walker, opened only if regular; fingerprints."""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.errors import InputError, one_line

# What writing raises on a full disk: Python's, torch's and safetensors' own.
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
# Folders that systems make where they like: macOS, disks of Linux and Windows, Synology.
SYSTEMS_OWN = ("__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir")
# When this process last changed a folder, so that it is listed for leftovers once, not once for each file.
CHANGED: dict[Path, int] = {}


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to. It replaces `path` only if nothing failed, and is on the disk by then.

    Raise InputError if it cannot be written.
    """
    whose = f"{socket.gethostname()}-{os.getpid()}"
    suffix = path.suffix if len(path.suffix) < 20 else ""  # which some libraries go by
    partial = path.with_name(f".{path.name[:20]}.partial-{whose}{suffix}")  # short: names of files have 255 bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if CHANGED.get(path.parent) != path.parent.stat().st_mtime_ns:  # not by us alone since leftovers were removed
            remove_leftovers(path)
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)  # a power cut may else undo the move
        CHANGED[path.parent] = path.parent.stat().st_mtime_ns
    except WRITE_ERRORS as error:
        raise InputError(
            f"{path} could not be written ({reason_of(error)}); make room or choose another folder, and try again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """Return why something could not be written, in a few words."""
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())


@contextlib.contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder of the same name to write into, which is moved into place if nothing failed, and else removed.

    Raise InputError if there is one in its place, or if it cannot be written.
    """
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already; move it away to have it made again")
    partial = folder.with_name(f".{folder.name}.partial-{socket.gethostname()}-{os.getpid()}")
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        (partial / folder.name).mkdir(parents=True)
        yield partial / folder.name
        os.rename(partial / folder.name, folder)
        sync(folder.parent)
    except WRITE_ERRORS as error:
        raise InputError(
            f"{folder} could not be written ({reason_of(error)}); make room or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            for parent in made:
                parent.rmdir()


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes of this machine left half-written beside a file or folder."""
    leftover = re.compile(rf"\..+\.partial-{re.escape(socket.gethostname())}-(\d{{1,9}})(\..*)?", re.DOTALL)
    for name in os.listdir(path.parent):
        found = leftover.fullmatch(name)
        if found and not is_alive(int(found[1])):
            leftover_path = path.parent / name
            if leftover_path.is_dir() and not leftover_path.is_symlink():
                shutil.rmtree(leftover_path, ignore_errors=True)
            else:
                leftover_path.unlink(missing_ok=True)


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
    """Write a UTF-8 text file. Raise InputError if it cannot be written, or has a name that is not UTF-8 (from the disk)."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        odd = text[text.rfind("\n", 0, error.start) + 1 : error.end + 100].split("\n")[0]
        raise InputError(f"{path} could not be written: '{odd}' has a name that is not UTF-8; rename it") from None
    with written_whole(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to append bytes to. Raise InputError if it cannot be written, as on a full disk or without its folder."""
    try:
        with path.open("ab") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror}); make room or put its folder back, and run the same command again"
        ) from error


def is_regular(path: Path) -> bool:
    """Return whether there is a regular file: not a folder, nor a FIFO or device, which may never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # a name may be too long for the system, or have a zero byte
        return False


def check_regular(path: Path) -> None:
    """Raise InputError unless there is a regular file that may be opened."""
    if not is_regular(path):
        what = "is not a regular file" if os.path.lexists(path) else "does not exist"
        raise InputError(f"{path} {what}; check its name")


@dataclass(frozen=True)
class Listing:
    """What a folder has: `files` (or folders) to read, by name, and those `left_out`, each with its reason."""

    files: list[Path]
    left_out: list[tuple[Path, str]]


def list_files(folder: Path, suffixes: Collection[str], subfolders: bool = False) -> Listing:
    """List a folder's regular files with these suffixes (in any case), by name, and with `subfolders` those below it.

    Left out are hidden files and folders, among them a Mac's `._NAME` and `__MACOSX`, links to folders, and whatever has such
    a suffix and is no regular file. Raise InputError if a folder cannot be read.
    """
    found, folders, endings = Listing([], []), [folder], tuple(suffix.lower() for suffix in suffixes)
    while folders:
        for path in entries(folders.pop()):
            kind, wanted = kind_of(path), path.name.lower().endswith(endings)
            looked_into = subfolders and kind in ("a folder", "a link to a folder")
            if is_hidden(path):
                if wanted or looked_into:
                    found.left_out.append((path, "hidden"))
            elif looked_into and kind == "a folder":
                folders.append(path)
            elif wanted and kind == "":
                found.files.append(path)
            elif wanted or looked_into:
                found.left_out.append((path, kind))  # a link to a folder may lead back to where it is
    for paths in (found.files, found.left_out):
        paths.sort()
    return found


def list_folders(folder: Path) -> Listing:
    """List the folders in a folder, also by links, by name, without hidden ones and `__MACOSX`, which are left out.

    Raise InputError if it cannot be read.
    """
    found = Listing([], [])
    for path in entries(folder):
        if kind_of(path) in ("a folder", "a link to a folder"):
            if is_hidden(path):
                found.left_out.append((path, "hidden"))
            else:
                found.files.append(path)
    return found


def entries(folder: Path) -> list[Path]:
    """Return what a folder has, by name. Raise InputError if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check its name and who may read it") from None


def is_hidden(path: Path) -> bool:
    """Return whether a file or folder is a system's own: `.NAME`, among them a Mac's `._NAME`, or one of `SYSTEMS_OWN`."""
    return path.name.startswith(".") or path.name in SYSTEMS_OWN


def kind_of(path: Path) -> str:
    """Return "" for a regular file, also by a link, and else what there is, as a reason not to read it."""
    if is_regular(path):
        return ""
    if os.path.isdir(path):
        return "a link to a folder" if path.is_symlink() else "a folder"
    return "a link to nothing" if not os.path.exists(path) else "not a regular file"


def report_left_out(left_out: Sequence[tuple[Path, str]]) -> None:
    """Print, in one line on stderr, which files were left out and why."""
    if left_out:
        some = ", ".join(f"{path} ({reason})" for path, reason in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        print(one_line(f"left out: {some}{more}"), file=sys.stderr)


def fingerprint(*tensors: Tensor) -> str:
    """Return the beginning of the SHA-256 of tensors' types, shapes and values, as in "sha256:0123456789abcdef"."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()[:16]}"


def fingerprint_of_file(path: Path) -> str:
    """Return the beginning of the SHA-256 of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
