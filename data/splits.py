"""Deals the indices of labelled examples into two parts, class by class."""

import numpy as np


def split_by_class(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the first part, `share` of every class (rounded), and of the rest, from a seed."""
    rng = np.random.default_rng(seed)
    first = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        first.append(members[: round(share * len(members))])
    chosen = np.sort(np.concatenate(first))
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen)
