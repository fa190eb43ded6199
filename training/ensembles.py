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

# Of a layer's activations that are computed at once, for each thread of a CPU: 2 and 4 MB were fastest.
POINT_NUMBERS, IMAGE_NUMBERS = 2**19, 2**20


def initial_state(net: TargetNet, keys: Sequence[tuple[int, ...]], device: torch.device) -> dict[str, Tensor]:
    """Return freshly initialized instances, entries (M, *shape), each from its own key."""
    seeds = [torch_seed("initialization", *key) for key in keys]
    return {name: value.to(device) for name, value in net.start(seeds).items()}


def repeated(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return one instance, entries (1, *shape), `number` times."""
    return {name: value.expand(number, *value.shape[1:]).clone() for name, value in state.items()}


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
    M. `best_state` is each instance's state at its highest accuracy. If `compiled`, so is the step on a GPU, anew for every
    number of instances.
    """

    def __init__(
        self,
        net: TargetNet,
        state: dict[str, Tensor],
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        losses: Callable[[Tensor, Tensor], Tensor] = cross_entropies,
        precision: MixedPrecision | None = None,
        compiled: bool = False,
    ):
        self.net, self.make_optimizer, self.losses, self.precision = net, make_optimizer, losses, precision
        self.compiled = compiled
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
        counters = [value for value in self.statistics.values() if not value.is_floating_point()]
        if counters:
            torch._foreach_add_(counters, 1)
        if inputs.is_cuda:
            return self.descend(self._losses(self.rows, inputs, targets))
        return self._stepped(self._backward_in_parts(inputs, targets))

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
        """Return losses (M,), and set the gradient of `rows`, for parts whose activations stay in a CPU's caches.

        A part is some instances; of a SIREN, some of its points, for a loss is a mean over them. Batch norm needs all images.
        """
        layout, shape, batch = self.net.trained_layout, self.net.input_shape, inputs.shape[1]
        on_points = len(shape) == 1
        # Of an input in the widest layer of a SIREN, or in the first of a net on images.
        numbers = max(each[0] for each in layout.shapes) if on_points else layout.shapes[0][0] * shape[1] * shape[2]
        at_once = (POINT_NUMBERS if on_points else IMAGE_NUMBERS) * torch.get_num_threads()
        nets_at_once = max(at_once // (batch * numbers), 1)
        inputs_at_once = max(at_once // numbers, 1) if on_points else batch
        losses = torch.zeros(len(self), dtype=self.rows.dtype)
        gradients = torch.zeros_like(self.rows)
        for start in range(0, len(self), nets_at_once):
            nets = slice(start, start + nets_at_once)
            state = layout.unflatten(self.rows.detach()[nets])
            running = {name: value[nets] for name, value in self.statistics.items() if value.is_floating_point()}
            trained = {name: value.requires_grad_() for name, value in state.items()}
            for x, y in zip(*(each[nets].split(inputs_at_once, 1) for each in (inputs, targets))):
                with self.precision or nullcontext():
                    part = self._losses_of({**trained, **running}, x, y) * (x.shape[1] / batch)
                part.sum().backward()
                losses[nets] += part.detach()
            for value, gradient in zip(trained.values(), layout.unflatten(gradients[nets]).values()):
                if value.grad is not None:
                    gradient.copy_(value.grad)
        self.rows.grad = gradients
        return losses

    def _losses_of(self, state: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = self.net.run_in_training(state, inputs)
        return self.losses(outputs if outputs.dtype == torch.float64 else outputs.float(), targets)

    def _recorded(self) -> Graphed:
        """Return the losses (M,) as a function of rows, inputs and targets, recorded anew for these instances."""
        running = {name: value for name, value in self.statistics.items() if value.is_floating_point()}

        def losses(rows: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            return self._losses_of({**self.net.trained_layout.unflatten(rows), **running}, inputs, targets)

        # Recorded anew whenever instances leave, and not faster if tuned.
        return Graphed(losses, None, self.precision, kept=running.values, tuned=False, compiled=self.compiled)

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
