"""Planned instances trained in stacks, side by side: what is missing, where a stopped stack goes on, how they are saved."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.nets import is_on_disk, save_instance
from data.plans import Plan
from models.instances import ArchitectureOnImages
from training.checkpoints import load_checkpoint, refuse_other_constants

Train = Callable[[list[Plan], dict[str, Any] | None], None]


def constants_of_stack(config: Any) -> dict[str, Any]:
    """What must agree for a stack to be resumed."""
    return {name: value for name, value in asdict(config).items() if name not in ("folders", "checkpoint_seconds")}


def train_missing(
    plans: list[Plan], checkpoint: Path, constants: dict[str, Any], side_by_side: int, train: Train
) -> int:
    """Calls `train(stack, saved)` until all planned instances are on disk, and returns how many of them a stack began with.

    A stack that was stopped goes on first, from `saved`, what it wrote to `checkpoint`: at least its `constants` and the
    `indices` of its instances. Raises InputError if that was made with other constants, or an instance was.
    """
    if checkpoint.is_file():
        saved = load_checkpoint(checkpoint, "the same command again")
        refuse_other_constants(checkpoint, saved["constants"], constants)
        train([plans[i] for i in saved["indices"]], saved)
    missing = [plan for plan in plans if not is_on_disk(plan.path, plan.facts)]
    for start in range(0, len(missing), side_by_side):
        train(missing[start : start + side_by_side], None)
    return len(missing)


def fresh_state(nets: ArchitectureOnImages, keys: list[tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    """Freshly initialized instances, entries (M, *shape), each from its own key."""
    seeds = [int(np.random.default_rng(key).integers(2**31)) for key in keys]
    return {name: value.to(device) for name, value in nets.start(seeds).items()}


def save_instances(plans: list[Plan], state: dict[str, Tensor], val_accuracy: Tensor) -> None:
    """Saves planned instances, entries (M, *shape), with their accuracy (M,) on validation images among their facts."""
    for i, (plan, accuracy) in enumerate(zip(plans, val_accuracy.tolist())):
        save_instance(
            plan.path, {name: value[i] for name, value in state.items()}, {**plan.facts, "val_accuracy": accuracy}
        )
