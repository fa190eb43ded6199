"""Linear probes of activations: do two nets tell classes apart alike at two points (KLAS, ICLR 2026)?

A probe is a logistic regression from a view's channels, their spatial means, to the class, fitted on training images. On other images,
the divergence KL(end || front) of the probes' predictions says how much of what the end tells of classes the front does not tell.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from evaluation.cka import Views
from models.errors import InputError


def channel_means(views: Callable[[int, int], Views], n: int, batch: int) -> list[np.ndarray]:
    """Return the spatial means of K views of n images, (n, C) float64 each; `views` is as in `similarity.compare`."""
    parts = [views(start, min(start + batch, n)) for start in range(0, n, batch)]
    return [
        torch.cat([each.double().flatten(2).mean(2) if each.dim() > 2 else each.double() for each in parts_of])
        .cpu()
        .numpy()
        for parts_of in zip(*parts)
    ]


def probe_predictions(train: list[np.ndarray], labels: np.ndarray, held_out: list[np.ndarray]) -> np.ndarray:
    """Fit a probe of every view on its training features (n, C) and labels (n,), and predict: log probabilities (K, images, classes).

    Raise InputError if the training images are of one class.
    """
    if len(np.unique(labels)) < 2:
        raise InputError("linear probes need training images of several classes; give more, with --probe-images")
    found = []
    for features, others in zip(train, held_out):
        scaler = StandardScaler().fit(features)
        # Of the solvers, this one is ten times as fast as the default here, and converges.
        probe = LogisticRegression(solver="newton-cg").fit(scaler.transform(features), labels)
        found.append(probe.predict_log_proba(scaler.transform(others)))
    return np.stack(found)


def divergences(predictions: np.ndarray) -> Tensor:
    """Return the mean over images of KL(end || front) in nats, for log probabilities (K, images, classes): (K, K) float64.

    Entry i, j has view i in front and view j at the end.
    """
    log_p = torch.from_numpy(predictions)
    p, images = log_p.exp(), log_p.shape[1]
    own = (p * log_p).sum((1, 2))
    return ((own - log_p.flatten(1) @ p.flatten(1).T) / images).clamp(min=0)
