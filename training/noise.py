"""Noise on what the encoder sees in training."""

import numpy as np
import torch
from torch import Tensor


def add_noise(preps: Tensor, scale: float, key: tuple[int, ...]) -> Tensor:
    """PReps (M, 1, H, W) as the encoder sees them in training: noise keeps it from telling instances by single weights.

    `scale` is its standard deviation, in units of each PRep's mean absolute value.
    """
    if not scale:
        return preps
    noise = np.random.default_rng(key).standard_normal(preps.shape, dtype=np.float32)
    return preps + scale * preps.abs().mean((1, 2, 3), keepdim=True) * torch.from_numpy(noise).to(preps.device)
