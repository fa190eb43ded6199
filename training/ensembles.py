"""Many instances trained side by side: one matrix of parameters, one optimizer, one forward and backward pass for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import InputError
from models.instances import ArchitectureOnImages, run_instances
from models.siren import SirenNets
from training.divergence import FirstBad


class Ensemble:
    """M instances of one architecture in training, each as if it were alone.

    `rows` (M, P) holds their parameters, batch norm included, and is the optimizer's only parameter: the optimizer must
    work element by element, as SGD and Adam do. The loss is the sum of the instances' own mean losses, so that no gradient
    depends on M.
    """

    def __init__(
        self,
        nets: ArchitectureOnImages | SirenNets,
        state: dict[str, Tensor],
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    ):
        self.nets = nets
        self.make_optimizer = make_optimizer
        layout = nets.trained_layout
        self.rows = layout.flatten(state).requires_grad_()
        self.statistics = {name: value.clone() for name, value in state.items() if name not in layout.names}
        self.optimizer = make_optimizer([self.rows])
        self.num_steps = 0
        self.first_bad = FirstBad((len(self),), self.rows.device)

    def __len__(self) -> int:
        return self.rows.shape[0]

    def state(self) -> dict[str, Tensor]:
        """State dict entries (M, *shape) of all instances, detached."""
        return {**self.nets.trained_layout.unflatten(self.rows.detach()), **self.statistics}

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy (M,) of every instance on its own images (M, B, C, S, S), labels (M, B)."""
        self.nets.trained.train()
        parameters = self.nets.trained_layout.unflatten(self.rows)
        running = {name: value for name, value in self.statistics.items() if value.is_floating_point()}
        logits = run_instances(self.nets.trained, {**parameters, **running}, images)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)

    def step(self, inputs: Tensor, wanted: Tensor) -> Tensor:
        """One optimizer step of every instance on its own inputs and what is wanted of them. Returns losses (M,)."""
        losses = self.losses(inputs, wanted)
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        for name, value in self.statistics.items():
            if name.endswith("num_batches_tracked"):
                value += 1
        self.first_bad.look(losses.detach(), self.num_steps)
        self.num_steps += 1
        return losses.detach()

    def refuse_divergence(self, paths: list[Path]) -> None:
        """Raises InputError, naming the file that the first one was to be, if an instance's loss was NaN or infinite."""
        # What the last step did shows in the parameters only.
        by_now = torch.where(self.rows.detach().isfinite().all(1), -1, self.num_steps)
        steps = torch.where(self.first_bad.steps < 0, by_now, self.first_bad.steps)
        for path, step in zip(paths, steps.tolist()):
            if step >= 0:
                raise InputError(
                    f"{path} cannot be made: its loss turned NaN or infinite at step {step}; lower --learning-rate"
                )

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def keep(self, chosen: Tensor) -> None:
        """Goes on with the chosen instances (a mask or indices), as if the others had never been there."""
        saved = self.optimizer.state_dict()
        m = len(self)
        for entries in saved["state"].values():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.dim() and value.shape[0] == m:
                    entries[name] = value[chosen]
        self.rows = self.rows.detach()[chosen].clone().requires_grad_()
        self.statistics = {name: value[chosen] for name, value in self.statistics.items()}
        self.first_bad.steps = self.first_bad.steps[chosen]
        self.optimizer = self.make_optimizer([self.rows])
        self.optimizer.load_state_dict(saved)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows.detach(),
            "statistics": self.statistics,
            "optimizer": self.optimizer.state_dict(),
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows = saved["rows"].to(self.rows.device).requires_grad_()
        self.statistics = {name: value.to(self.rows.device) for name, value in saved["statistics"].items()}
        self.optimizer = self.make_optimizer([self.rows])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.num_steps = saved["num_steps"]
        self.first_bad = FirstBad((len(self),), self.rows.device)


class SirenEnsemble(Ensemble):
    """SIRENs side by side: batched matrix products."""

    def losses(self, points: Tensor, distances: Tensor) -> Tensor:
        """Mean squared error (M,) of every SIREN at its own points (M, B, 3), against distances (M, B)."""
        return (self.nets.run(self.rows, points) - distances).square().mean(1)


class BestStates:
    """For each of M instances in training, its state when it did best."""

    def __init__(self, state: dict[str, Tensor]):
        m = len(next(iter(state.values())))
        self.state = {name: value.clone() for name, value in state.items()}
        self.accuracy = torch.full((m,), float("-inf"))

    def look(self, state: dict[str, Tensor], accuracy: Tensor) -> None:
        """Takes over from `state`, entries (M, *shape), the instances whose accuracy (M,) is their highest so far."""
        better = accuracy > self.accuracy
        self.accuracy = torch.where(better, accuracy, self.accuracy)
        for name, value in state.items():
            self.state[name][better] = value[better]

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state, "accuracy": self.accuracy}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.state = {name: value.to(self.state[name].device) for name, value in saved["state"].items()}
        self.accuracy = saved["accuracy"]
