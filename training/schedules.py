"""Learning rates over a run."""

import math
from typing import Literal

import torch


def make_scheduler(
    schedule: Literal["constant", "one-cycle"],
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    num_steps: int,
    final_share: float = 0.0,
) -> torch.optim.lr_scheduler.LRScheduler:
    """`learning_rate` is the peak, where it follows one cycle, which begins at 1/25 and ends at `final_share` of it."""
    if schedule == "one-cycle":
        end = 1 / (25 * final_share) if final_share else math.inf
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=num_steps + 1, div_factor=25, final_div_factor=end
        )
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
