"""Losses that turn NaN or infinite, noticed without waiting for the device at every step."""

import torch
from torch import Tensor


class FirstBad:
    """The first step at which values were not finite, for each of `shape` values by itself; -1 as long as there is none."""

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        self.steps = torch.full(shape, -1, dtype=torch.int64, device=device)

    def look(self, values: Tensor, step: int) -> None:
        """Reads nothing back from the device."""
        self.steps = torch.where((self.steps < 0) & ~values.isfinite(), step, self.steps)
