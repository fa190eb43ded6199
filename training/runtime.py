"""The process: device and precision, signals, locks, and what a result was made with."""

import contextlib
import ctypes
import functools
import math
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout

from data.files import is_regular, write_text
from models.errors import InputError
from training.distributed import local_rank

PROJECT = Path(__file__).parent.parent
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

Precision = Literal["float32", "tf32", "bfloat16"]


# Device


def prepare_process() -> None:
    """Keep freed memory for the next step on the CPU; compute float32 as IEEE says on a GPU, where PyTorch's convs do not.

    glibc returns large blocks to the system, and every step would fault them in again: 40 % of the time of training 132
    instances side by side on 2 CPU cores.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    allow_tf32(False)


def allow_tf32(allowed: bool) -> None:
    """Let convs and matrix products of float32 on a GPU round their inputs to TF32's 10 bits, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@contextlib.contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 as IEEE says on a GPU within this context, whatever the process has set."""
    allowed = [op.fp32_precision == "tf32" for op in (torch.backends.cuda.matmul, torch.backends.cudnn.conv)]
    if any(allowed):
        allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


def pick_device() -> torch.device:
    """Return this rank's GPU, or the CPU. Raise InputError if the machine has fewer GPUs than ranks."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise InputError(f"more ranks than GPUs on this machine: torchrun --nproc-per-node {torch.cuda.device_count()}")
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def has_amx() -> bool:
    """Return whether this CPU multiplies matrices of bfloat16 in AMX tiles, which is much faster than float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


class MixedPrecision:
    """A context in which convs and matrix products use bfloat16, or float32. Unlike torch.autocast, one may nest in itself.

    On a GPU, weights are not kept in bfloat16: a CUDA graph would not refresh them.
    """

    def __init__(self, device: torch.device, bfloat16: bool):
        self.new = functools.partial(
            torch.autocast, device.type, torch.bfloat16, bfloat16, cache_enabled=device.type != "cuda"
        )
        self.entered: list[torch.autocast] = []

    def __enter__(self) -> None:
        self.entered.append(self.new())
        self.entered[-1].__enter__()

    def __exit__(self, *raised: Any) -> None:
        self.entered.pop().__exit__(*raised)


def mixed_precision(device: torch.device, precision: Precision | None) -> MixedPrecision:
    """Return a context in which convs and matrix products use `precision`; parameters, PReps and losses stay float32.

    None means bfloat16 on a GPU and float32 on the CPU. "tf32" holds for the whole process, for gradients are computed outside
    of the context; on the CPU it is float32.
    """
    chosen = precision or ("bfloat16" if device.type == "cuda" else "float32")
    allow_tf32(chosen == "tf32")
    return MixedPrecision(device, chosen == "bfloat16")


# Signals: training finishes its step, writes a checkpoint and ends; everything else ends at once


class Interrupted(BaseException):
    """A signal asked the script to end. Like KeyboardInterrupt it is not an Exception: error handlers let it pass."""

    def __init__(self, number: int):
        self.status = 128 + number  # as shells report it


class Signals:
    """The signal that arrived, if any, and whether a training loop handles it between steps."""

    received: int | None = None
    deferred = False

    @classmethod
    def handle(cls, number: int, frame: FrameType | None) -> None:
        cls.received = number
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second signal ends the process at once
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not cls.deferred:
            raise Interrupted(number)


@contextlib.contextmanager
def handled_signals() -> Iterator[None]:
    """Raise Interrupted on SIGTERM and Ctrl-C within this context. For the main thread."""
    Signals.received, Signals.deferred = None, False
    before = {number: signal.signal(number, Signals.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Exception as error:
        if Signals.received is not None and not Signals.deferred:
            # A library's compiled code may report the Interrupted as an error of its own.
            raise Interrupted(Signals.received) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        Signals.received, Signals.deferred = None, False


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Let signals wait within this context: `stop_requested` reports them, `stop` obeys."""
    Signals.deferred = True
    try:
        yield
    finally:
        Signals.deferred = False
    if stop_requested():
        stop()


def stop_requested() -> bool:
    """Return whether a signal has arrived."""
    return Signals.received is not None


def stop() -> None:
    """Raise Interrupted for the signal that arrived."""
    assert Signals.received is not None
    raise Interrupted(Signals.received)


# Locks

LONGEST_OWNER = 200  # bytes that are read of the text that names a lock's process
LOCKS: dict[Path, tuple[FileLock, os.stat_result]] = {}  # with the file as it was when it was locked


def lock_folder(folder: Path) -> None:
    """Make this process the only one that writes into a folder, until it ends. `.locked-by` there names it.

    Raise InputError, naming the process that has the lock, if there is another. The kernel releases a lock with its process,
    however that ends. Machines see each other's locks if their file system supports it, as NFS does; a file system without
    locks is used without.
    """
    path = Path(os.path.realpath(folder)) / ".lock"
    if has_lock(path):
        return
    if path in LOCKS:  # of a folder that was removed or moved since
        LOCKS.pop(path)[0].release()
    owner = folder / ".locked-by"
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        locked = path.stat()
    except Timeout:
        raise InputError(
            f"another run is writing into {folder} ({owner_in(owner)}); wait for it, end it, or choose another --runs-dir"
        ) from None
    except NotImplementedError:  # a file system without locks
        return
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); choose another folder") from None
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    write_text(owner, f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
    LOCKS[path] = lock, locked


def owner_in(path: Path) -> str:
    """Return what a lock says of its process."""
    if not is_regular(path):
        return "it has just begun"
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_OWNER).decode(errors="backslashreplace").strip()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def has_lock(path: Path) -> bool:
    """Return whether this process has the lock that is this file, not one that was there before."""
    try:
        return path in LOCKS and os.path.samestat(LOCKS[path][1], path.stat())
    except OSError:  # not there
        return False


def check_lock(folder: Path) -> None:
    """Raise InputError if this process locked a folder that was removed or replaced since: others may write there now."""
    try:
        path = Path(os.path.realpath(folder)) / ".lock"
        if path not in LOCKS or has_lock(path):
            return
    except OSError:  # what it is relative to is not there
        pass
    raise InputError(
        f"{folder} was removed or replaced while this run wrote into it; put it back, or run the same command again"
    )


# What a result was made with


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python, torch and numpy, and the project's commit, "-dirty" if files were changed since."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    if not (PROJECT / ".git").exists():
        return found
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return found
    return found if described.returncode else {**found, "commit": described.stdout.strip()}


def constants_of(config: Any) -> dict[str, Any]:
    """Return the constants of a config by name, groups flattened, folders left out."""
    flat: dict[str, Any] = {}
    for name, value in asdict(config).items():
        if name != "folders":
            flat |= value if isinstance(value, dict) and name != "sizes" else {name: value}
    return flat


def provenance(config: Any) -> dict[str, Any]:
    """Return a config's constants and the versions, for the JSON of a result."""
    return {"config": as_json(constants_of(config)), "versions": versions()}


def as_json(value: Any) -> Any:
    """Return a value as JSON can hold it: infinity and NaN as their names, paths as text, also within lists and dicts."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value.as_posix() if isinstance(value, Path) else value
