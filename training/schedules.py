"""Learning rates over a run."""

from typing import Literal

import torch


def make_scheduler(
    schedule: Literal["constant", "one-cycle"],
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    num_steps: int,
) -> torch.optim.lr_scheduler.LRScheduler:
    """`learning_rate` is the peak, where it follows one cycle."""
    if schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps + 1)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
