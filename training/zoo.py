"""Making nets datasets: which instances to train, training them side by side, and resuming where it was stopped.

    zoo = Zoo(config)
    for stack in zoo.stacks(plans):
        ensemble = stack.start(Ensemble(net, start, optimizer, cross_entropies))
        for step in stack.steps():
            ensemble.step(*batches.batch(step))
        save_instances(stack.plans, ensemble.state(), accuracy)
        stack.finish()

The last bits of an instance depend on how many train beside it: so ranks get whole stacks, a stopped stack resumes as it was,
and if an instance is missing, its whole stack trains again, up to the last step of the missing ones. Only these are saved.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from data.instance_files import is_on_disk, save_instance
from data.streams import stream
from models.errors import InputError, brief
from training.checkpoints import load_checkpoint, load_state, refuse_other_constants, save_checkpoint
from training.constants import SideBySide
from training.distributed import hide_bar, is_first, num_ranks, rank
from training.ensembles import Ensemble
from training.runtime import (
    check_lock,
    constants_of,
    deferred_signals,
    lock_folder,
    stop,
    stop_requested,
    versions,
)

# How long after a checkpoint is due, without a file being written, the first rank stops waiting for the others, seconds.
# Between two steps a rank may measure accuracies, load images or mesh what it fitted, which takes minutes.
PATIENCE = 30 * 60
SHOWN_EVERY = 50  # steps between losses on the bar; each is read back from the device


@dataclass(frozen=True)
class Plan:
    """One instance to be trained. A file is this instance if its facts agree with `facts`."""

    index: int
    steps: int
    path: Path
    facts: dict[str, Any]


def plan_instances(total: int, steps: Sequence[int], folder: Path, facts: dict[str, Any], seed: int) -> list[Plan]:
    """Plan `total` instances, shortest first. Every candidate in `steps` comes equally often, or at most once."""
    rng = stream("training lengths", seed)
    repeats = -(-total // len(steps))
    lengths = np.sort(np.concatenate([rng.permutation(steps) for _ in range(repeats)])[:total]).tolist()
    return [
        Plan(
            i, length, folder / f"seed{seed}-{i:03d}.safetensors", {**facts, "seed": seed, "index": i, "steps": length}
        )
        for i, length in enumerate(lengths)
    ]


class Stack:
    """Planned instances that train side by side, shortest first, and the checkpoint that they resume from.

    `missing` are the indices of those that are not on disk; when the last of them is saved, the stack ends.

    The checkpoint is written before the first step, every so many seconds, and if a signal asks to stop.
    """

    def __init__(
        self,
        plans: list[Plan],
        missing: set[int],
        path: Path,
        constants: dict[str, Any],
        seconds: float,
        saved: Any = None,
    ):
        self.missing = missing
        self.plans, self.path, self.constants, self.seconds, self.saved = plans, path, constants, seconds, saved
        self.last_saved = float("-inf")
        self.shown: dict[str, str] = {}  # on the progress bar

    def start(self, ensemble: Ensemble) -> Ensemble:
        """Return the stack's instances in training, from its checkpoint if there is one."""
        self.ensemble = ensemble
        if self.saved:
            load_state(ensemble, self.saved["ensemble"], self.path)
        return ensemble

    def steps(self) -> Iterator[int]:
        """Count the steps until the longest missing instance has had its own; each must call `ensemble.step` once.

        On a signal the state is saved and Interrupted raised. Raise InputError if a loss was NaN or infinite.
        """
        total = max((plan.steps for plan in self.plans if plan.index in self.missing), default=0)
        name = f"{len(self.plans)} {self.ensemble.net.name}"
        bar = tqdm(total=total, initial=self.ensemble.num_steps, desc=name, unit=" steps", disable=hide_bar())
        with bar, deferred_signals():
            while self.plans and self.ensemble.num_steps < total:
                if stop_requested() or time.monotonic() - self.last_saved > self.seconds:
                    self._save()
                if stop_requested():
                    stop()
                yield self.ensemble.num_steps
                bar.update(self.ensemble.num_steps - bar.n)
                if bar.n % SHOWN_EVERY == 0:
                    bar.set_postfix(loss=f"{self.ensemble.last_losses.mean():.3g}", **self.shown)
        self.ensemble.refuse_divergence([plan.path for plan in self.plans])

    def show(self, **values: str) -> None:
        """Show values on the progress bar from now on."""
        self.shown |= values

    def finished(self) -> list[Plan]:
        """Return the plans, the first of the stack, that have had their steps. Raise InputError if a loss was not finite."""
        done = [plan for plan in self.plans if plan.steps <= self.ensemble.num_steps]
        if done:
            self.ensemble.refuse_divergence([plan.path for plan in self.plans])
        return done

    def remove(self, number: int) -> None:
        """Remove the first instances, which are saved."""
        self.plans = self.plans[number:]
        if self.plans:
            self.ensemble.select(slice(number, None))

    def finish(self) -> None:
        """Delete the checkpoint: all instances are saved."""
        self.path.unlink(missing_ok=True)

    def _save(self) -> None:
        self.ensemble.refuse_divergence([plan.path for plan in self.plans])
        check_lock(self.path.parent)
        state = {"constants": self.constants, "versions": versions(), "ensemble": self.ensemble.state_dict()}
        state |= {"indices": [plan.index for plan in self.plans], "facts": [plan.facts for plan in self.plans]}
        save_checkpoint(self.path, state)
        self.last_saved = time.monotonic()


class Zoo:
    """All instances that a script makes, and how many of them this rank trained."""

    def __init__(self, config: Any):
        sides: SideBySide = config.sides
        self.constants = {name: value for name, value in constants_of(config).items() if name != "checkpoint_seconds"}
        self.size, self.seconds = sides.side_by_side, sides.checkpoint_seconds
        self.turn = 0  # stacks so far: rank r of R takes the turns r, r+R, ...
        self.trained = 0

    def stacks(self, plans: list[Plan]) -> Iterator[Stack]:
        """Yield this rank's stacks of instances that are not on disk; a stopped one first, with its checkpoint.

        Raise InputError if it, or an instance, was made with other constants, or if another process makes instances there.
        """
        folder = plans[0].path.parent
        if is_first():  # the other ranks work with it
            lock_folder(folder)
        number_of_stacks = -(-len(plans) // self.size)
        if number_of_stacks < min(num_ranks(), len(plans)):
            fewer = -(-len(plans) // num_ranks())
            print(
                f"{number_of_stacks} stacks for {num_ranks()} ranks; --side-by-side {fewer} gives work to more of them"
            )
        self.trained = 0
        for number in range(number_of_stacks):
            self.turn += 1
            if (self.turn - 1) % num_ranks() != rank():
                continue
            path = folder / f"seed{self.constants['seed']}-in-training-{number:03d}.pt"
            if path.is_file():
                yield self._stopped(path, plans)
            # Of every length some, so that stacks take equally long.
            stack = plans[number::number_of_stacks]
            missing = not_on_disk(stack)
            if missing:
                self.trained += len(missing)
                yield Stack(stack, missing, path, self.constants, self.seconds)

    def _stopped(self, path: Path, plans: list[Plan]) -> Stack:
        saved = load_checkpoint(path, "the same command", ("constants", "indices", "facts", "ensemble"))
        refuse_other_constants(path, saved["constants"], self.constants)
        indices, all_facts = saved["indices"], saved["facts"]
        known = {plan.index: plan for plan in plans}
        if not isinstance(indices, list) or not isinstance(all_facts, list) or len(indices) != len(all_facts):
            raise InputError(f"{path} does not say which instances it is of; delete it to start over")
        for i, facts in zip(indices, all_facts):
            if type(i) is not int or i not in known:
                raise InputError(f"{path} is of an instance {brief(i)}, which is not planned; delete it to start over")
            refuse_other_constants(path, facts, known[i].facts)
        stack = [known[i] for i in indices]
        missing = not_on_disk(stack)
        self.trained += len(missing)
        return Stack(stack, missing, path, self.constants, self.seconds, saved)

    def report(self, plans: list[Plan]) -> None:
        """Print how many instances there are and how many were trained now."""
        by = f" by rank {rank()} of {num_ranks()}" if num_ranks() > 1 else ""
        name = plans[0].facts.get("architecture", "siren")
        print(f"{len(plans)} instances of {name} in {plans[0].path.parent}, {self.trained} of them trained now{by}")

    def wait(self, plans: list[Plan]) -> None:
        """Wait until other ranks have saved their instances. Raise InputError if they write nothing for too long."""
        patience = self.seconds + PATIENCE
        folders = {plan.path.parent for plan in plans}
        written, since = [], time.monotonic()
        while missing := sum(not plan.path.is_file() for plan in plans):
            now = [
                folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders
            ]  # checkpoints change it too
            if now != written:
                written, since = now, time.monotonic()
            if time.monotonic() - since > patience:
                raise InputError(
                    f"{missing} instances are missing and nothing was written for {patience:.0f} s; run it again"
                )
            time.sleep(1)


def not_on_disk(plans: Sequence[Plan]) -> set[int]:
    """Return the indices of the planned instances without a file. Raise InputError for files of other instances."""
    return {plan.index for plan in plans if not is_on_disk(plan.path, plan.facts)}


def save_instances(plans: list[Plan], state: dict[str, Tensor], val_accuracy: Tensor) -> None:
    """Save planned instances, entries (M, *shape), with their accuracy (M,) on validation images among their facts.

    One that is on disk stays as it is: it trained again because of others in its stack.
    """
    for i, (plan, accuracy) in enumerate(zip(plans, val_accuracy.tolist())):
        if plan.path.is_file():
            continue
        check_lock(plan.path.parent)
        facts = {**plan.facts, "val_accuracy": accuracy, "versions": versions()}
        save_instance(plan.path, {name: value[i] for name, value in state.items()}, facts)
