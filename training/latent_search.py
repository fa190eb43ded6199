"""Latent space optimization: Adam on embeddings alone (paper Sec. IV)."""

import torch
from torch import Tensor, nn


class LatentSearch(nn.Module):
    """Embeddings (N, E) in search of accuracy, each as if it were alone: Adam works element by element.

    `best` (N, E) are those of the highest validation accuracy so far, `best_accuracy` (N,). Only more than `min_delta` points
    are a gain: on few validation images, the best of many validations is better by chance.
    """

    def __init__(self, initial: Tensor, patience: int, min_delta: float = 0.0):
        super().__init__()
        self.patience, self.min_delta = patience, min_delta
        self.embeddings = nn.Parameter(initial.clone())
        self.register_buffer("initial", initial.clone())
        self.register_buffer("best", initial.clone())
        self.register_buffer("best_accuracy", torch.full((len(initial),), float("-inf")))
        self.register_buffer("without_gain", torch.tensor(0))  # validations in a row

    @property
    def validated(self) -> bool:
        """Whether there was a validation."""
        return bool(self.best_accuracy.isfinite().all())

    @property
    def stopped(self) -> bool:
        """Whether so many validations brought no gain that the search is over."""
        return int(self.without_gain) >= self.patience

    def update(self, accuracy: Tensor) -> None:
        """Take over as best the embeddings whose validation accuracy (N,) gains on their best."""
        accuracy = accuracy.to(self.best_accuracy.device)
        better = accuracy > self.best_accuracy + self.min_delta
        self.best_accuracy.copy_(torch.where(better, accuracy, self.best_accuracy))
        self.best[better] = self.embeddings.detach()[better]
        self.without_gain.copy_(0 if better.any() else self.without_gain + 1)
