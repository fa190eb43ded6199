"""Planned instances trained in stacks, side by side: what is missing, where a stopped stack goes on, how they are saved.

A stack's instances depend, in their last bits, on how many train beside them: so stacks are dealt to ranks as they are, and
one that was stopped goes on as it was.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.instance_files import is_on_disk, save_instance
from data.plans import Plan
from models.errors import InputError
from models.instances import ArchitectureOnImages
from training.checkpoints import load_checkpoint, refuse_other_constants, save_checkpoint
from training.distributed import is_first, num_ranks, rank
from training.ensembles import Ensemble
from training.interruption import must_stop, stop
from training.locks import hold
from training.provenance import versions

Train = Callable[[list[Plan], Path, dict[str, Any] | None], None]
# How long after a checkpoint is due, without a file being written, the first rank gives the others up, seconds. Between two
# steps a rank may measure accuracies, load images or mesh what it fitted, which takes minutes at most.
PATIENCE = 30 * 60


def constants_of_stack(config: Any) -> dict[str, Any]:
    """What must agree for a stack to be resumed."""
    return {name: value for name, value in asdict(config).items() if name not in ("folders", "checkpoint_seconds")}


def train_missing(
    plans: list[Plan], turns: Iterator[int], constants: dict[str, Any], side_by_side: int, train: Train
) -> int:
    """Calls `train(stack, checkpoint, saved)` for this rank's stacks until their instances are on disk, shortest first.

    Returns how many instances it trained. `turns` counts stacks, over all calls: rank r of R takes turns r, r+R, ... A stack
    that was stopped goes on from `saved`, what StackCheckpoint wrote to its file, before any instance. Raises InputError
    if that was made with other constants, or an instance was, or if another process makes instances in this folder.
    """
    if is_first():  # the other ranks work with it
        hold(plans[0].path.parent)
    num_stacks = -(-len(plans) // side_by_side)
    if num_stacks < min(num_ranks(), len(plans)):
        fewer = -(-len(plans) // num_ranks())
        print(f"{num_stacks} stacks for {num_ranks()} ranks; --side-by-side {fewer} gives work to more of them")
    trained = 0
    for number in range(num_stacks):
        if next(turns) % num_ranks() != rank():
            continue
        stack = plans[number::num_stacks]  # of every length some, so that stacks take alike
        checkpoint = plans[0].path.parent / f"seed{constants['seed']}-in-training-{number:03d}.pt"
        if checkpoint.is_file():
            saved = load_checkpoint(
                checkpoint, "the same command again", ("constants", "indices", "facts", "steps", "ensemble")
            )
            refuse_other_constants(checkpoint, saved["constants"], constants)
            for i, facts in zip(saved["indices"], saved["facts"]):
                refuse_other_constants(checkpoint, facts, plans[i].facts)
            train([plans[i] for i in saved["indices"]], checkpoint, saved)
            trained += len(saved["indices"])
        missing = [plan for plan in stack if not is_on_disk(plan.path, plan.facts)]
        if missing:
            train(missing, checkpoint, None)
        trained += len(missing)
    return trained


class StackCheckpoint:
    """A stack in training, as a file: written before the first step, every so many seconds, and when a signal asks to stop.

    A stack that is stopped at any time goes on with the same instances side by side.
    """

    def __init__(self, path: Path, constants: dict[str, Any], seconds: float):
        self.path, self.constants, self.seconds = path, constants, seconds
        self.last_saved = float("-inf")

    @property
    def due(self) -> bool:
        """To be asked before every step."""
        return must_stop() or time.monotonic() - self.last_saved > self.seconds

    def save(self, plans: list[Plan], steps: int, ensemble: Ensemble, **more: Any) -> None:
        """The state after so many steps of the ensemble that is to be `plans`. On a signal it then raises Interrupted.

        Raises InputError, and leaves the file as it was, if an instance's loss was NaN or infinite.
        """
        ensemble.refuse_divergence([plan.path for plan in plans])
        state = {"constants": self.constants, "versions": versions()}
        state |= {"indices": [plan.index for plan in plans], "facts": [plan.facts for plan in plans]}
        save_checkpoint(self.path, {**state, "steps": steps, "ensemble": ensemble.state_dict(), **more})
        if must_stop():
            stop()
        self.last_saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def wait_for_instances(plans: list[Plan], checkpoint_seconds: float) -> None:
    """Returns when other ranks have saved theirs.

    Raises InputError if for `checkpoint_seconds` and PATIENCE they write nothing.
    """
    patience = checkpoint_seconds + PATIENCE
    folders = {plan.path.parent for plan in plans}
    written, since = [], time.monotonic()
    while missing := sum(not plan.path.is_file() for plan in plans):
        now = [folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders]  # checkpoints change it too
        if now != written:
            written, since = now, time.monotonic()
        if time.monotonic() - since > patience:
            raise InputError(
                f"{missing} instances are missing and nothing was written for {patience:.0f} s; run it again"
            )
        if must_stop():
            stop()
        time.sleep(1)


def of_this_rank() -> str:
    return f" by rank {rank()} of {num_ranks()}" if num_ranks() > 1 else ""


def fresh_state(nets: ArchitectureOnImages, keys: list[tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    """Freshly initialized instances, entries (M, *shape), each from its own key."""
    seeds = [int(np.random.default_rng(key).integers(2**31)) for key in keys]
    return {name: value.to(device) for name, value in nets.start(seeds).items()}


def save_instances(plans: list[Plan], state: dict[str, Tensor], val_accuracy: Tensor) -> None:
    """Saves planned instances, entries (M, *shape), with their accuracy (M,) on validation images among their facts."""
    for i, (plan, accuracy) in enumerate(zip(plans, val_accuracy.tolist())):
        facts = {**plan.facts, "val_accuracy": accuracy, "versions": versions()}
        save_instance(plan.path, {name: value[i] for name, value in state.items()}, facts)
