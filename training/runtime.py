"""Settings of the process and the device, for speed."""

import ctypes
import platform
from typing import Literal

import torch

from models.errors import InputError
from training.distributed import local_rank

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

Precision = Literal["float32", "bfloat16"]


def prepare_process() -> None:
    """Keeps freed memory for the next step on the CPU; on a GPU lets matrix products use TF32, as convs do already.

    glibc gives large blocks back to the system, and every step would fault them in again: 40 % of the time of training
    132 instances side by side on 2 CPU cores.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def pick_device() -> torch.device:
    """This rank's GPU, or the CPU. Raises InputError if the machine has fewer GPUs than ranks."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise InputError(f"more ranks than GPUs on this machine: torchrun --nproc-per-node {torch.cuda.device_count()}")
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def mixed_precision(device: torch.device, precision: Precision | None) -> torch.autocast:
    """A context in which convs and matrix products compute in `precision`; parameters, PReps and losses stay float32.

    None means bfloat16 on a GPU, float32 on the CPU.
    """
    chosen = precision or ("bfloat16" if device.type == "cuda" else "float32")
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen == "bfloat16")
