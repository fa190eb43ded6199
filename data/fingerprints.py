"""Fingerprints of data: what a run goes on with must be what it began with, wherever the files lie."""

import hashlib
from pathlib import Path

from torch import Tensor


def fingerprint(*tensors: Tensor) -> str:
    """Of types, shapes and numbers: the beginning of their SHA-256, as in "sha256:0123456789abcdef"."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:16]}"


def fingerprint_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
