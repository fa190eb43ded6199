"""Points on the straight line between two embeddings, or between the parameters of two instances."""

from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor


def interpolate(start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
    """(1 - gamma)*start + gamma*end for every gamma (paper eq. 7-12, Fig. 3b/3d).

    (K,) and two vectors (D,) give (K, D), two batches of them (N, D) give (N, K, D).
    """
    return torch.lerp(start[..., None, :], end[..., None, :], gamma[:, None])


def median_place(values: Tensor) -> int:
    """Position of the median of (N,), the lower one of an even number."""
    return values.argsort()[(len(values) - 1) // 2].item()


def share_out_of_order(class_ids: Sequence[int]) -> float:
    """The share of points along a line that must go to leave ClassIds that never fall.

    1 - (longest non-decreasing subsequence) / (number of points).
    """
    ends: list[int] = []  # the smallest ClassId in which a subsequence of length 1, 2, ... can end
    for class_id in class_ids:
        place = bisect_right(ends, class_id)
        ends[place : place + 1] = [class_id]
    return 1 - len(ends) / len(class_ids)
