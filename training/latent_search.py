"""Latent space optimization: Adam on embeddings alone (paper Sec. IV)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import InputError
from training.checkpoints import load_checkpoint, refuse_other_constants, save_checkpoint
from training.logs import ScalarLog


class LatentSearch:
    """Embeddings (N, E) in search of accuracy, each as if it were alone: Adam works element by element.

    `folder` gets `latspace.pt`, to resume from and to evaluate: the `initial` embeddings, the `best` on validation with
    their `best_accuracy`, and where the search stands; and `scalars.jsonl` and `tensorboard/`. Raises InputError if
    what is there was made with other constants or another NetSpace.
    """

    def __init__(self, folder: Path, constants: dict[str, Any], initial: Tensor, learning_rate: float, patience: int):
        self.folder, self.constants, self.patience = folder, constants, patience
        self.initial, self.best = initial, initial.clone()
        self.embeddings = initial.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.embeddings], learning_rate)
        self.best_accuracy = torch.full((len(initial),), float("-inf"))
        self.step, self.without_gain = 0, 0  # the latter in validations
        self.scalars: ScalarLog | None = None
        path = folder / "latspace.pt"
        if path.is_file():
            saved = load_checkpoint(path, "the same command again")
            refuse_other_constants(path, saved["constants"], constants)
            # Within rounding: another number of threads encodes a little differently.
            if not torch.allclose(saved["initial"], initial.cpu(), rtol=1e-3, atol=1e-4):
                raise InputError(f"{path} was made with another NetSpace; delete {folder} to start over")
            self.initial, self.best = saved["initial"].to(initial.device), saved["best"].to(initial.device)
            self.embeddings.data.copy_(saved["embeddings"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.best_accuracy, self.step, self.without_gain = (
                saved[name] for name in ("best_accuracy", "step", "without_gain")
            )

    @property
    def stopped(self) -> bool:
        return self.without_gain >= self.patience

    def update(self, losses: Tensor) -> None:
        """One step of each embedding down its own loss (N,)."""
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self.step += 1

    def validate(self, accuracy: Tensor, scalars: dict[str, float]) -> None:
        """Keeps the embeddings whose validation accuracy (N,) is their highest so far, tells and, but at the start, saves."""
        better = accuracy > self.best_accuracy
        self.best_accuracy = torch.where(better, accuracy, self.best_accuracy)
        self.best[better] = self.embeddings.detach()[better]
        self.without_gain = 0 if better.any() else self.without_gain + 1
        if self.scalars is None:
            self.scalars = ScalarLog(self.folder, before_step=self.step)
        means = {"val_accuracy": accuracy.mean().item(), "best_val_accuracy": self.best_accuracy.mean().item()}
        self.scalars.write(self.step, {**scalars, **means})
        names = ("constants", "initial", "best", "best_accuracy", "step", "without_gain")
        state = {name: getattr(self, name) for name in names}
        if self.step:
            save_checkpoint(
                self.folder / "latspace.pt",
                {**state, "embeddings": self.embeddings.detach(), "optimizer": self.optimizer.state_dict()},
            )
