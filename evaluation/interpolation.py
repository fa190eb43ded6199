"""Points on the straight line between two embeddings, or between the parameters of two instances."""

import torch
from torch import Tensor


def interpolate(start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
    """(1 - gamma)*start + gamma*end for every gamma: (K,) and two vectors (D,) give (K, D) (paper eq. 7-12, Fig. 3b/3d)."""
    return torch.lerp(start[None], end[None], gamma[:, None])
