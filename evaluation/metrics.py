"""What is measured of instances: accuracy, agreement, closeness, and of lines between them."""

from bisect import bisect_right
from collections.abc import Sequence

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from data.images import Images
from data.nets import NetsDataset
from models.instances import TargetNet, TargetNets

IMAGES_AT_ONCE, INSTANCES_AT_ONCE = 1000, 33
SIRENS_AT_ONCE = 16


# Images


@torch.no_grad()
def predicted_classes(net: TargetNet, rows: Tensor, images: Images) -> Tensor:
    """Return the class that each instance, a row of (N, P), predicts for each image: (N, images) int64 on the device."""
    parts = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        x = images.plain(start, min(start + IMAGES_AT_ONCE, len(images)))
        parts.append(torch.cat([net.run(part, x).argmax(-1) for part in rows.split(INSTANCES_AT_ONCE)]))
    return torch.cat(parts, dim=1)


def accuracy(net: TargetNet, rows: Tensor, images: Images) -> Tensor:
    """Return the percentage of images that each instance, a row of (N, P), classifies right: (N,) float32 on the CPU."""
    return percentage(predicted_classes(net, rows, images) == images.labels)


def mixed_accuracy(nets: TargetNets, rows: Tensor, class_ids: Sequence[int], images: Images) -> Tensor:
    """Return the same for instances of several architectures: (N,) float32 on the CPU."""
    found = torch.zeros(len(class_ids))
    for net, indices in nets.groups(class_ids):
        found[indices] = accuracy(net, rows[indices], images)
    return found


def accuracy_of(dataset: NetsDataset, images: Images) -> Tensor:
    """Return the same for a nets dataset: (N,) float32 on the CPU."""
    return mixed_accuracy(dataset.nets, dataset.rows, dataset.class_ids, images)


def agreement(net: TargetNet, rows: Tensor, others: Tensor, images: Images) -> Tensor:
    """Return the percentage of images that the i-th of `rows` and of `others` (N, P) put into one class: (N,) on the CPU."""
    return percentage(predicted_classes(net, rows, images) == predicted_classes(net, others, images))


def percentage(true: Tensor) -> Tensor:
    """Return the percentage of true values in each row of (N, images) bool: (N,) float32 on the CPU."""
    return (100 * true.sum(1).double() / true.shape[1]).float().cpu()


def where_right(accuracies: Tensor, class_ids: Sequence[int], desired: Sequence[int]) -> Tensor:
    """Return accuracies (N,) with 0 where the predicted ClassId is not the desired one; models are selected by it.

    This is our choice. The paper takes the highest mean accuracy, which rewards an instance of a larger architecture.
    """
    return accuracies * (torch.tensor(class_ids) == torch.tensor(desired))


# Lines


def interpolate(start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
    """Return (1 - gamma)*start + gamma*end for every gamma (K,) (paper eq. 7-12, Fig. 3b/3d).

    Vectors (D,) give (K, D), batches of them (N, D) give (N, K, D).
    """
    return torch.lerp(start[..., None, :], end[..., None, :], gamma[:, None])


def fraction_out_of_order(class_ids: Sequence[int]) -> float:
    """Return the fraction of points on a line to remove so that ClassIds never fall.

    It is 1 - (longest non-decreasing subsequence) / (number of points).
    """
    ends: list[int] = []  # the smallest ClassId that a subsequence of length 1, 2, ... can end in
    for class_id in class_ids:
        i = bisect_right(ends, class_id)
        ends[i : i + 1] = [class_id]
    return 1 - len(ends) / len(class_ids)


def median_index(values: Tensor) -> int:
    """Return the index of the median of (N,), the lower one of an even number."""
    return values.argsort()[(len(values) - 1) // 2].item()


def correlation(one: Sequence[float], other: Sequence[float], ranks: bool = False) -> float | None:
    """Return Pearson's correlation, or Spearman's of ranks; None if all values of one are the same."""
    if min(len(set(one)), len(set(other))) < 2:
        return None
    return float((spearmanr if ranks else pearsonr)(one, other).statistic)


# Weights


def r_squared(predicted: Tensor, target: Tensor, mask: Tensor) -> float:
    """Return R^2 of standardized tokens (N, T, D) where the mask (T, D) is true: 1 - squared error / variance.

    The variance is around each number's mean over the N instances: predicting the mean instance has 0.
    """
    error = ((predicted - target) * mask).square().sum()
    return 1 - (error / ((target - target.mean(0)) * mask).square().sum()).item()


# Signed distance functions (supplement Sec. V)


def closeness(predicted: Tensor, target: Tensor, tolerance: float = 0.01) -> Tensor:
    """Return the fraction of distances within `tolerance` of the target's, (..., S) to (...)."""
    return ((predicted - target).abs() < tolerance).float().mean(-1)


@torch.no_grad()
def outputs_at_samples(sirens: NetsDataset, rows: Tensor) -> Tensor:
    """Return the outputs of rows (N, P) at the dataset's samples, (N, S)."""
    assert sirens.samples is not None
    parts = zip(rows.split(SIRENS_AT_ONCE), sirens.samples.split(SIRENS_AT_ONCE))
    return torch.cat([sirens.nets[0].run(part, samples[..., :3]) for part, samples in parts])


def closeness_to(sirens: NetsDataset, predicted: Tensor) -> Tensor:
    """Return the closeness (N,) of predicted rows (N, P) to their targets, at the targets' samples."""
    return closeness(outputs_at_samples(sirens, predicted), outputs_at_samples(sirens, sirens.rows))


def errors_to(sirens: NetsDataset, predicted: Tensor) -> dict[str, Tensor]:
    """Return how close predicted rows (N, P) are to their targets, at the targets' samples, each (N,).

    `closeness` is the fraction within 0.01; `relative_error` the mean squared error in units of the variance of all targets'
    outputs, so that predicting their mean for every point has 1.
    """
    found, target = outputs_at_samples(sirens, predicted), outputs_at_samples(sirens, sirens.rows)
    relative = (found - target).square().mean(1) / target.var(correction=0)
    return {"closeness": closeness(found, target), "relative_error": relative}
