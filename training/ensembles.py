"""Instances in training side by side: their optimizer, their losses, and what a checkpoint of them holds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from data.streams import torch_seed
from models.errors import InputError
from models.instances import TargetNet
from training.graphs import Graphed
from training.run import FirstBad
from training.runtime import MixedPrecision

NUMBERS_AT_ONCE = 2**19  # of the activations of a SIREN's layer, on a CPU: 2 MB


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
        if len(self.net.input_shape) == 1 and not inputs.is_cuda:
            return self._stepped(self._backward_in_parts(inputs, targets))
        losses = self._losses(self.rows, inputs, targets)
        counters = [value for value in self.statistics.values() if not value.is_floating_point()]
        if counters:
            torch._foreach_add_(counters, 1)
        return self.descend(losses)

    def descend(self, losses: Tensor) -> Tensor:
        """Take one optimizer step of every instance down its own loss (M,). Return the losses."""
        self.optimizer.zero_grad()
        losses.sum().backward()
        return self._stepped(losses.detach())

    def _stepped(self, losses: Tensor) -> Tensor:
        """Take a step down the gradient of `rows`, and note the losses (M,)."""
        self.optimizer.step()
        self.last_losses = losses
        self.first_bad.update(losses, self.num_steps)
        self.num_steps += 1
        return losses

    def _backward_in_parts(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return losses (M,) of points (M, B, 3), and set the gradient of `rows`, in parts that stay in a CPU's caches.

        Points do not depend on each other, and a loss is a mean over them.
        """
        layout, num_points = self.net.trained_layout, inputs.shape[1]
        width = max(shape[0] for shape in layout.shapes)
        nets_at_once = max(NUMBERS_AT_ONCE // (num_points * width), 1)
        points_at_once = max(NUMBERS_AT_ONCE // width, 1)
        losses, gradients = [], []
        for rows, own, wanted in zip(*(each.split(nets_at_once) for each in (self.rows.detach(), inputs, targets))):
            state = {name: value.requires_grad_() for name, value in layout.unflatten(rows).items()}
            total = torch.zeros(len(rows), dtype=rows.dtype)
            for x, y in zip(own.split(points_at_once, 1), wanted.split(points_at_once, 1)):
                with self.precision or nullcontext():
                    part = self._losses_of(state, x, y) * (x.shape[1] / num_points)
                part.sum().backward()
                total += part.detach()
            losses.append(total)
            gradients.append(layout.flatten({name: value.grad for name, value in state.items()}))
        self.rows.grad = torch.cat(gradients)
        return torch.cat(losses)

    def _losses_of(self, state: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self.net.run_in_training(state, inputs)
        return self.losses(outputs if outputs.dtype == torch.float64 else outputs.float(), targets)

    def _recorded(self) -> Graphed:
        """Return the losses (M,) as a function of rows, inputs and targets, recorded anew for these instances."""
        running = {name: value for name, value in self.statistics.items() if value.is_floating_point()}

        def losses(rows: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            return self._losses_of({**self.net.trained_layout.unflatten(rows), **running}, inputs, targets)

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
