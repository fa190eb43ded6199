"""Lines between pairs of instances: accuracy of what is decoded along them, beside that of averaged weights (Fig. 3b/3d)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data.images import Images
from data.nets import NetsDataset
from evaluation.metrics import accuracy, accuracy_of, correlation, interpolate
from evaluation.spaces import Space
from models.instances import TargetNet

Pairs = Sequence[tuple[int, int]]  # indices of the instances at gamma 0 and at gamma 1


def pairs_of_ends(ranked: Sequence[int], number: int) -> list[tuple[int, int]]:
    """Return all pairs of one of the first `number` instances and one of the last, of indices ranked by accuracy."""
    weak, strong = ranked[:number], ranked[-number:]
    return [(i, j) for i in weak for j in strong if i != j] or [(ranked[0], ranked[-1])]


def weight_lines(net: TargetNet, rows: torch.Tensor, pairs: Pairs, gamma: torch.Tensor, images: Images) -> np.ndarray:
    """Return the accuracy of averaged weights between pairs of rows (N, P) at every gamma (K,): (pairs, K)."""
    starts, ends = zip(*pairs)
    between = interpolate(rows[list(starts)], rows[list(ends)], gamma).flatten(0, 1)
    return accuracy(net, between, images).view(len(pairs), len(gamma)).numpy()


def latent_lines(
    space: Space, embeddings: torch.Tensor, pairs: Pairs, gamma: torch.Tensor, images: Images
) -> np.ndarray:
    """Return the accuracy decoded between pairs of embeddings (N, E) at every gamma (K,): (pairs, K)."""
    starts, ends = zip(*pairs)
    rows = space.decode(interpolate(embeddings[list(starts)], embeddings[list(ends)], gamma).flatten(0, 1))
    return accuracy(space.nets[0], rows, images).view(len(pairs), len(gamma)).numpy()


def line_facts(latent: np.ndarray, weights: np.ndarray, gamma: torch.Tensor, strongest: np.ndarray) -> dict[str, Any]:
    """Return what is known of lines (pairs, K): rank correlation of latent accuracy with gamma, mean and standard deviation.

    Also the points of accuracy that the decoded end is below its target, the stronger instance (pairs,), and how far latent lines
    are above lines of averaged weights. Lines of constant accuracy have no rank correlation and are left out of its mean.
    """
    ranks = [correlation(gamma.tolist(), line.tolist(), ranks=True) for line in latent]
    defined = [rank for rank in ranks if rank is not None]
    return {
        "pairs": len(latent),
        "rank_correlation_mean": float(np.mean(defined)) if defined else None,
        "rank_correlation_std": float(np.std(defined)) if defined else None,
        "end_below_strongest_mean": float((strongest - latent[:, -1]).mean()),
        "latent_above_weights_mean": float((latent - weights).mean()),
        "latent_accuracy_mean": latent.mean(0).tolist(),
        "weight_accuracy_mean": weights.mean(0).tolist(),
    }


def over_pairs(
    space: Space, test: NetsDataset, images: Images, embeddings: torch.Tensor, pairs: Pairs, gamma: torch.Tensor
) -> dict[str, Any]:
    """Measure the lines between pairs of test instances, whose embeddings are given."""
    latent = latent_lines(space, embeddings, pairs, gamma, images)
    weights = weight_lines(test.nets[0], test.rows, pairs, gamma, images)
    target = accuracy_of(test, images).numpy()[[end for _, end in pairs]]
    return line_facts(latent, weights, gamma, target)
