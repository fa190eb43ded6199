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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from data.instance_files import is_on_disk, save_instance
from data.streams import stream, torch_seed
from models.errors import InputError, brief
from models.instances import TargetNet
from training.checkpoints import load_checkpoint, load_state, refuse_other_constants, save_checkpoint
from training.constants import SideBySide
from training.distributed import hide_bar, is_first, num_ranks, rank
from training.graphs import Graphed
from training.run import FirstBad
from training.runtime import (
    MixedPrecision,
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


def initial_state(net: TargetNet, keys: Sequence[tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    """Return freshly initialized instances, entries (M, *shape), each from its own key."""
    seeds = [torch_seed("initialization", *key) for key in keys]
    return {name: value.to(device) for name, value in net.start(seeds).items()}


def optimizer_of(
    name: Literal["adam", "sgd"], learning_rate: float, weight_decay: float = 0.0
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """Return what makes the optimizer of an ensemble: Adam, or SGD with momentum 0.9."""
    if name == "sgd":
        return partial(torch.optim.SGD, lr=learning_rate, momentum=0.9, weight_decay=weight_decay, fused=True)
    return partial(torch.optim.Adam, lr=learning_rate, weight_decay=weight_decay, fused=True)


# Instances in training


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy (M,) of logits (M, B, classes) with labels (M, B)."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error (M,) of outputs (M, B) from targets (M, B)."""
    return (outputs - targets).square().mean(1)


class Ensemble:
    """M instances of one architecture in training, each as if it were alone.

    `rows` (M, P) are their parameters, batch norm included, and the optimizer's only parameter: the optimizer must work
    element by element, as SGD and Adam do. The loss is the sum of the instances' mean losses, so that no gradient depends on
    M. `best_state` is each instance's state at its highest accuracy.
    """

    def __init__(
        self,
        net: TargetNet,
        state: dict[str, Tensor],
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        losses: Callable[[Tensor, Tensor], Tensor] = cross_entropies,
        precision: MixedPrecision | None = None,
    ):
        self.net, self.make_optimizer, self.losses, self.precision = net, make_optimizer, losses, precision
        layout = net.trained_layout
        self.rows = layout.flatten(state).requires_grad_()
        self.statistics = {name: value.clone() for name, value in state.items() if name not in layout.names}
        self.optimizer = make_optimizer([self.rows])
        self.num_steps = 0
        self.best_state: dict[str, Tensor] = {}
        self.best_accuracy = torch.full((len(self),), float("-inf"))
        self.last_losses = torch.zeros(len(self), device=self.rows.device)
        self.first_bad = FirstBad((len(self),), self.rows.device)
        self._losses = self._recorded()

    def __len__(self) -> int:
        return self.rows.shape[0]

    def state(self, first: int | None = None) -> dict[str, Tensor]:
        """Return the state, entries (M, *shape), of all instances or of the first ones, detached."""
        state = {**self.net.trained_layout.unflatten(self.rows.detach()), **self.statistics}
        return {name: value[:first] for name, value in state.items()}

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take one optimizer step of every instance on its own inputs (M, B, ...) and targets (M, B). Return losses (M,)."""
        losses = self._losses(self.rows, inputs, targets)
        counters = [value for value in self.statistics.values() if not value.is_floating_point()]
        if counters:
            torch._foreach_add_(counters, 1)
        return self.descend(losses)

    def descend(self, losses: Tensor) -> Tensor:
        """Take one optimizer step of every instance down its own loss (M,). Return the losses."""
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self.last_losses = losses.detach()
        self.first_bad.update(self.last_losses, self.num_steps)
        self.num_steps += 1
        return self.last_losses

    def _recorded(self) -> Graphed:
        """Return the losses (M,) as a function of rows, inputs and targets, recorded anew for these instances."""
        running = {name: value for name, value in self.statistics.items() if value.is_floating_point()}

        def losses(rows: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            parameters = self.net.trained_layout.unflatten(rows)
            outputs = self.net.run_in_training({**parameters, **running}, inputs)
            return self.losses(outputs if outputs.dtype == torch.float64 else outputs.float(), targets)

        # Recorded anew whenever instances leave, and not faster if tuned.
        return Graphed(losses, None, self.precision, kept=running.values, tuned=False)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the optimizer's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def update_best(self, accuracy: Tensor) -> None:
        """Save the state of the instances whose accuracy (M,) is their highest so far."""
        state = self.state()
        if not self.best_state:
            self.best_state = {name: value.clone() for name, value in state.items()}
        better = accuracy > self.best_accuracy
        self.best_accuracy = torch.where(better, accuracy, self.best_accuracy)
        for name, value in state.items():
            self.best_state[name][better] = value[better]

    def select(self, chosen: Tensor | slice) -> None:
        """Continue with the chosen instances (a mask, indices or a slice), as if the others had never been there."""
        saved = self.optimizer.state_dict()
        m = len(self)
        for entries in saved["state"].values():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.dim() and value.shape[0] == m:
                    entries[name] = value[chosen]
        self.rows = self.rows.detach()[chosen].clone().requires_grad_()
        self.statistics = {name: value[chosen] for name, value in self.statistics.items()}
        self.best_state = {name: value[chosen] for name, value in self.best_state.items()}
        self.best_accuracy = self.best_accuracy[chosen]
        self.first_bad.steps = self.first_bad.steps[chosen]
        self.optimizer = self.make_optimizer([self.rows])
        self.optimizer.load_state_dict(saved)
        self._losses = self._recorded()

    def refuse_divergence(self, paths: list[Path]) -> None:
        """Raise InputError, naming the file of the first one, if an instance's loss was NaN or infinite."""
        # The result of the last step shows in the parameters alone.
        by_now = torch.where(self.rows.detach().isfinite().all(1), -1, self.num_steps)
        steps = torch.where(self.first_bad.steps < 0, by_now, self.first_bad.steps)
        for path, step in zip(paths, steps.tolist()):
            if step >= 0:
                raise InputError(
                    f"{path} cannot be made: its loss turned NaN or infinite at step {step}; lower --learning-rate"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training depends on."""
        return {
            "rows": self.rows.detach(),
            "statistics": self.statistics,
            "optimizer": self.optimizer.state_dict(),
            "num_steps": self.num_steps,
            "best_state": self.best_state,
            "best_accuracy": self.best_accuracy,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned. Raise ValueError for that of other instances."""
        own, other = (
            {name: value.shape for name, value in each.items()} for each in (self.statistics, saved["statistics"])
        )
        if saved["rows"].shape != self.rows.shape or own != other or type(saved["num_steps"]) is not int:
            raise ValueError("the state of other instances")
        device = self.rows.device
        self.rows = saved["rows"].to(device).requires_grad_()
        self.statistics, self.best_state = (
            {name: value.to(device) for name, value in saved[which].items()} for which in ("statistics", "best_state")
        )
        self.optimizer = self.make_optimizer([self.rows])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.num_steps, self.best_accuracy = saved["num_steps"], saved["best_accuracy"]
        self.first_bad = FirstBad((len(self),), device)
        self._losses = self._recorded()


class Trajectories(Ensemble):
    """Instances in training that are saved several times on the way."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.saved_states: list[dict[str, Tensor]] = []  # entries (M, *shape), on the CPU

    def save_states(self) -> None:
        """Save the state of all instances as it is now."""
        self.saved_states.append({name: value.to("cpu", copy=True) for name, value in self.state().items()})

    def by_net(self) -> Iterator[dict[str, Tensor]]:
        """Yield the saved states of one instance after another, entries (K, *shape)."""
        for i in range(len(self)):
            yield {name: torch.stack([state[name][i] for state in self.saved_states]) for name in self.saved_states[0]}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "saved_states": self.saved_states}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.saved_states = saved["saved_states"]


# Stacks of them, and their checkpoints


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
