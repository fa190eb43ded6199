"""Latent space optimization: Adam on embeddings alone (paper Sec. IV)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import InputError
from training.checkpoints import load_checkpoint, load_state, refuse_other_constants, save_checkpoint
from training.divergence import FirstBad
from training.interruption import must_stop, stop
from training.locks import hold
from training.logs import ScalarLog
from training.provenance import versions

COUNTS = ("best_accuracy", "step", "without_gain", "total_loss")


class LatentSearch:
    """Embeddings (N, E) in search of accuracy, each as if it were alone: Adam works element by element.

    `best` are those of the highest validation accuracy so far, `best_accuracy` (N,). Only more than
    `min_delta` points count as a gain: on few validation images the best of many looks is better by chance.
    """

    def __init__(self, initial: Tensor, learning_rate: float, patience: int, min_delta: float = 0.0):
        self.initial, self.best, self.patience, self.min_delta = initial, initial.clone(), patience, min_delta
        self.embeddings = initial.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.embeddings], learning_rate)
        self.best_accuracy = torch.full((len(initial),), float("-inf"))
        self.step, self.without_gain = 0, 0  # the latter in validations
        self.first_bad = FirstBad((), initial.device)

    @property
    def stopped(self) -> bool:
        return self.without_gain >= self.patience

    def ends_at(self, validate_every: int) -> int:
        """The step at which it stops if no validation gains from here on."""
        return self.step + (self.patience - self.without_gain) * validate_every

    def descend(self, losses: Tensor) -> None:
        """One step of each embedding down its own loss (N,)."""
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self.first_bad.look(losses.detach().sum(), self.step)
        self.step += 1

    def keep(self, accuracy: Tensor) -> None:
        """The embeddings whose validation accuracy (N,) gains on their best. Raises InputError if the loss diverged."""
        self.refuse_divergence()
        better = accuracy > self.best_accuracy + self.min_delta
        self.best_accuracy = torch.where(better, accuracy, self.best_accuracy)
        self.best[better] = self.embeddings.detach()[better]
        self.without_gain = 0 if better.any() else self.without_gain + 1

    def refuse_divergence(self) -> None:
        step = int(self.first_bad.steps)
        if step >= 0 or not self.embeddings.isfinite().all():
            raise InputError(
                f"the loss turned NaN or infinite at step {step if step >= 0 else self.step}{self.advice()}"
            )

    def advice(self) -> str:
        return "; lower the learning rate"


class SavedLatentSearch(LatentSearch):
    """A search in its folder.

    `folder` gets `latspace.pt`, to resume from and to evaluate: the `initial` embeddings, the `best` on validation with
    their `best_accuracy`, and where the search stands; and `scalars.jsonl` and `tensorboard/`. Raises InputError if
    another process writes into it, or if what is there was made with other constants or another NetSpace.
    """

    def __init__(
        self,
        folder: Path,
        constants: dict[str, Any],
        initial: Tensor,
        learning_rate: float,
        patience: int,
        min_delta: float = 0.0,
    ):
        super().__init__(initial, learning_rate, patience, min_delta)
        self.folder, self.constants = folder, constants
        self.total_loss = torch.zeros((), device=initial.device)  # mean over embeddings, sum since the last validation
        self.scalars: ScalarLog | None = None
        hold(folder)
        path = folder / "latspace.pt"
        if path.is_file():
            keys = ("constants", "initial", "best", "embeddings", "optimizer", *COUNTS)
            saved = load_checkpoint(path, "the same command again", keys)
            refuse_other_constants(path, saved["constants"], constants)
            # Within rounding: another number of threads encodes a little differently.
            same = saved["initial"].shape == initial.shape
            if not same or not torch.allclose(saved["initial"], initial.cpu(), rtol=1e-3, atol=1e-4):
                raise InputError(f"{path} was made with another NetSpace; delete {folder} to start over")
            self.initial, self.best = saved["initial"].to(initial.device), saved["best"].to(initial.device)
            self.embeddings.data.copy_(saved["embeddings"])
            load_state(self.optimizer, saved["optimizer"], path)
            self.best_accuracy, self.step, self.without_gain = (saved[name] for name in COUNTS[:3])
            self.total_loss.copy_(saved["total_loss"])

    def update(self, losses: Tensor) -> None:
        """One step of each embedding down its own loss (N,). On a signal it saves instead, and raises Interrupted."""
        if must_stop():
            if self.step:
                self.save()
            stop()
        self.descend(losses)
        self.total_loss += losses.detach().mean()

    def validate(self, accuracy: Tensor, scalars: dict[str, float]) -> None:
        """Keeps the embeddings whose validation accuracy (N,) gains on their best, tells and, but at the start, saves."""
        self.keep(accuracy)
        if self.scalars is None:
            self.scalars = ScalarLog(self.folder, before_step=self.step)
        means = {"val_accuracy": accuracy.mean().item(), "best_val_accuracy": self.best_accuracy.mean().item()}
        self.scalars.write(self.step, {**scalars, **means})
        self.total_loss.zero_()
        if self.step:
            self.save()

    def mean_loss(self, steps: int) -> float:
        """Over embeddings and the `steps` since the last validation."""
        return self.total_loss.item() / steps

    def advice(self) -> str:
        return f", from {', '.join(self.constants['instances'])}; lower --learning-rate; latspace.pt is from before"

    def save(self) -> None:
        self.refuse_divergence()
        state = {name: getattr(self, name) for name in ("constants", "initial", "best", *COUNTS)}
        embeddings, optimizer = self.embeddings.detach(), self.optimizer.state_dict()
        state = {**state, "versions": versions(), "embeddings": embeddings, "optimizer": optimizer}
        save_checkpoint(self.folder / "latspace.pt", state)
