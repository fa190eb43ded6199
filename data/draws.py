"""Random places in samples, drawn on the device: a generator that needs no state."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_INT64 = 2**63 - 1


def instance_keys(keys: Sequence[tuple[int, ...]], device: torch.device) -> Tensor:
    """Keys like (run seed, purpose, instance) as numbers (M,) int64."""
    return torch.tensor([int(np.random.default_rng(key).integers(MAX_INT64)) for key in keys], device=device)


def random_places(keys: Tensor, step: int, num: int, high: int) -> Tensor:
    """Numbers (M, num) int64 from 0 to high-1, for every key (M,) int64 its own, drawn on the keys' device.

    A counter-based generator, SplitMix64's finalizer over key, step and position: what an instance draws at a step
    depends on nothing else, neither on its neighbours in a stack nor on where a run was resumed.
    """
    counter = mix(torch.tensor(step, device=keys.device)) + torch.arange(num, device=keys.device)
    return (mix(mix(keys)[:, None] + mix(counter)) & MAX_INT64) % high


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64: sums and products wrap around, shifts are made logical."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        return x ^ ((x >> bits) & (MAX_INT64 >> (bits - 1)))

    x = shifted(x - 0x61C8864680B583EB, 30) * -0x40A7B892E31B1A47
    return shifted(shifted(x, 27) * -0x6B2FB644ECCEEE15, 31)


def balanced_places(keys: Tensor, step: int, num: int, num_samples: int) -> Tensor:
    """Places (M, num) in samples of which the first half is positive: as many of that half as of the other."""
    negatives = num_samples // 2
    positives = num_samples - negatives
    of_first = random_places(keys, 2 * step, num - num // 2, positives)
    return torch.cat([of_first, positives + random_places(keys, 2 * step + 1, num // 2, negatives)], dim=1)
