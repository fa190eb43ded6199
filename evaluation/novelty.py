"""How new nets are: their distance from the nearest training net, and how alike their errors are.

Generators of weights may copy what they were trained on (arXiv 2506.07998), which accuracy alone does not show.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.images import Images
from evaluation.metrics import predicted_classes
from models.instances import TargetNet
from models.rebasin import align


@dataclass(frozen=True)
class TrainingNets:
    """What samples may have been copied from: rows (K, P) aligned to a reference (P,), and their errors (K, images) bool."""

    net: TargetNet
    images: Images
    reference: Tensor
    rows: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, net: TargetNet, reference: Tensor, rows: Tensor, images: Images) -> "TrainingNets":
        """Align training nets, rows (K, P), to a reference and measure them."""
        aligned = matched(net, rows, reference)
        return cls(net, images, reference, aligned, errors(net, aligned, images))

    def novelty(self, rows: Tensor, among: bool = False) -> dict[str, float]:
        """Return how far rows (N, P) are from the nearest training net and how alike their errors are.

        `distance` is the L2 distance to the nearest, relative to its norm, in the nearest order of hidden channels: the rows' own,
        that aligned to the reference, or that aligned to the nearest net. `error_overlap` is the largest intersection over union
        of a net's errors with those of one training net. Both are means over the rows. `among`: the rows are the training nets,
        and each is compared with the others.
        """
        overlap = intersection_over_union(errors(self.net, rows, self.images), self.wrong)
        distances = torch.stack(
            [self.distances(each) for each in (rows, matched(self.net, rows, self.reference))]
        ).amin(0)
        if among:
            distances.fill_diagonal_(torch.inf)
            overlap.fill_diagonal_(0)
        for row, each in zip(rows, distances):
            k = each.argmin()
            each[k] = torch.minimum(each[k], self.distances(matched(self.net, row[None], self.rows[k]))[0, k])
        return {"distance": distances.amin(1).mean().item(), "error_overlap": overlap.amax(1).mean().item()}

    def distances(self, rows: Tensor) -> Tensor:
        """Return the relative distance of each of the rows (N, P) to each training net, (N, K)."""
        return torch.stack([(self.rows - row).norm(dim=1) for row in rows]) / self.rows.norm(dim=1)


def matched(net: TargetNet, rows: Tensor, target: Tensor) -> Tensor:
    """Return rows (N, P) in the order of hidden channels that is nearest to a row (P,)."""
    return rows.gather(1, align(net.layout, net.hidden_channels(), rows.cpu(), target.cpu()).to(rows.device))


def errors(net: TargetNet, rows: Tensor, images: Images) -> Tensor:
    """Return which images each of the rows (N, P) classifies wrong: (N, images) bool."""
    return predicted_classes(net, rows, images) != images.labels


def intersection_over_union(one: Tensor, other: Tensor) -> Tensor:
    """Return, for sets (N, S) and (K, S) bool, the overlap of every pair (N, K); two empty sets are alike, 1."""
    a, b = one.float(), other.float()
    shared = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1) - shared
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)
