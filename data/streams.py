"""Random streams: one generator for every purpose."""

import hashlib

import numpy as np


def stream(purpose: str, *numbers: int) -> np.random.Generator:
    """Return a generator for a purpose and its numbers, e.g. `stream("chair", seed, i)`.

    The seed is the SHA-256 of both. Equal arguments give equal draws on every machine. Different arguments give
    independent draws, whatever the other purposes are.
    """
    text = repr((purpose, tuple(int(number) for number in numbers)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
