"""Which instances are to be trained, for how long, and which of them train, validate and test NetSpace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """One instance to be trained. A file is this instance if its facts agree with `facts`."""

    index: int
    steps: int
    path: Path
    facts: dict[str, Any]


def plan_instances(total: int, steps: Sequence[int], folder: Path, facts: dict[str, Any], seed: int) -> list[Plan]:
    """Deals training lengths to `total` instances, every candidate equally often or at most once; shortest first."""
    rng = np.random.default_rng((seed, 0))
    passes = -(-total // len(steps))
    lengths = np.sort(np.concatenate([rng.permutation(steps) for _ in range(passes)])[:total]).tolist()
    return [
        Plan(
            i, length, folder / f"seed{seed}-{i:03d}.safetensors", {**facts, "seed": seed, "index": i, "steps": length}
        )
        for i, length in enumerate(lengths)
    ]


def split_plans(plans: Sequence[T], num_val: int, num_test: int, seed: int) -> dict[str, list[T]]:
    """Deals instances so that val and test hold short and long training alike, whatever the seed.

    The instances, shortest (or weakest) first, are cut into as many runs of neighbours as a split wants, and one is drawn of each.
    """
    rng = np.random.default_rng((seed, 1))
    split_of = np.full(len(plans), "train", dtype=object)
    for split, number in (("test", num_test), ("val", num_val)):
        free = np.flatnonzero(split_of == "train")
        split_of[[rng.choice(neighbours) for neighbours in np.array_split(free, number)]] = split
    return {split: [plan for plan, of in zip(plans, split_of) if of == split] for split in ("train", "val", "test")}


def deal_alike(plans: list[Plan], **numbers: int) -> dict[str, list[Plan]]:
    """Deals instances that differ by chance alone: the first ones to the first split, and so on."""
    ends = np.cumsum([0, *numbers.values()]).tolist()
    return {split: plans[start:end] for split, start, end in zip(numbers, ends, ends[1:])}
