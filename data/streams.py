"""Random numbers by name: every purpose has streams of its own, and no draw depends on what was drawn before.

`stream` is for the CPU. `random_indices` is a counter-based generator for the device. Both depend on their arguments alone,
so a resumed run draws what an unbroken one draws.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_INT64 = 2**63 - 1


def stream(purpose: str, *numbers: int) -> np.random.Generator:
    """Return the generator of a purpose and numbers, as in stream("noise", seed, step)."""
    name = repr((purpose, tuple(int(number) for number in numbers)))
    return np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32))


def torch_seed(purpose: str, *numbers: int) -> int:
    """Return a seed for torch's generators, from 0 to 2^31 - 1."""
    return int(stream(purpose, *numbers).integers(2**31))


def device_keys(purpose: str, keys: Sequence[tuple[int, ...]], device: torch.device) -> Tensor:
    """Return numbers (M,) int64 for `random_indices`, one for each key, such as (seed, instance)."""
    return torch.tensor([int(stream(purpose, *key).integers(MAX_INT64)) for key in keys], device=device)


def random_indices(keys: Tensor, step: int, num: int, high: int) -> Tensor:
    """Draw integers (M, num) int64 from 0 to high-1 on the keys' device, for every key (M,) int64 its own.

    The generator is SplitMix64's finalizer over key, step and position. What an instance draws at a step depends on nothing
    else: not on the instances beside it, nor on the step at which a run was resumed.
    """
    counter = mix(torch.tensor(step, device=keys.device)) + torch.arange(num, device=keys.device)
    return (mix(mix(keys)[:, None] + mix(counter)) & MAX_INT64) % high


def mix(x: Tensor) -> Tensor:
    """Compute SplitMix64's finalizer on int64: sums and products wrap around, shifts are made logical."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        return x ^ ((x >> bits) & (MAX_INT64 >> (bits - 1)))

    x = shifted(x - 0x61C8864680B583EB, 30) * -0x40A7B892E31B1A47
    return shifted(shifted(x, 27) * -0x6B2FB644ECCEEE15, 31)


def balanced_indices(keys: Tensor, step: int, num: int, num_samples: int) -> Tensor:
    """Draw indices (M, num) into samples whose first half is positive: as many from that half as from the other."""
    negatives = num_samples // 2
    positives = num_samples - negatives
    of_first = random_indices(keys, 2 * step, num - num // 2, positives)
    return torch.cat([of_first, positives + random_indices(keys, 2 * step + 1, num // 2, negatives)], dim=1)
