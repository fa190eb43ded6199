"""Direct matching: transforms that take a front's activations nearest to an end's, from sums over images, without a task loss.

    sums = sum_activations(net, fronts, net, ends, points, batches)   # one pass over images, every pair at every point
    moments = sums["layer2.0", "layer2.0"].of([0, 1], [1, 2])         # two stitches: fronts 0 and 1 with ends 1 and 2
    transform = moments.least_squares()

Pixels and images are rows: X (n, C1) are a front's activations, Y (n, C2) an end's. Sums are in float64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.instances import TargetNet
from models.stitching import Points, Transform

CUT = 1e-10  # eigenvalues of [X 1]^T[X 1] below this, relative to the largest, are those of dead channels


@dataclass(frozen=True)
class Moments:
    """What any direct matching of M stitches depends on, float64.

    `front` (M, C1+1, C1+1) is [X 1]^T[X 1], `cross` (M, C1+1, C2+1) is [X 1]^T[Y 1], `end` (M, C2+1, C2+1) is [Y 1]^T[Y 1].
    """

    front: Tensor
    cross: Tensor
    end: Tensor

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Means of the channels of X (M, C1) and of Y (M, C2)."""
        n = self.front[:, -1, -1, None]
        return self.front[:, -1, :-1] / n, self.end[:, -1, :-1] / n

    @property
    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances within X (M, C1, C1), of X with Y (M, C1, C2), within Y (M, C2, C2)."""
        (x, y), n = self.means, self.front[:, -1:, -1:]
        parts = ((self.front, x, x), (self.cross, x, y), (self.end, y, y))
        xx, xy, yy = (sums[:, :-1, :-1] / n - one[:, :, None] * other[:, None] for sums, one, other in parts)
        return xx, xy, yy

    def least_squares(self) -> Transform:
        """Return the transforms that minimize ||T(X) - Y||^2; where several do, the one of least norm."""
        values, vectors = torch.linalg.eigh(self.front)
        inverse = torch.where(values > CUT * values[:, -1:], 1 / values, 0.0)
        solution = vectors @ (inverse[:, :, None] * (vectors.mT @ self.cross[..., :-1]))  # (M, C1+1, C2)
        return Transform(solution[:, :-1].mT, solution[:, -1])

    def orthogonal(self) -> Transform:
        """Return the orthogonal transforms of centred activations: W = V U^T, where X^T Y = U S V^T."""
        left, _, right = torch.linalg.svd(self.covariances[1], full_matrices=False)
        return self._through_means((left @ right).mT)

    def low_rank(self, rank: int) -> Transform:
        """Return the least-squares transforms of at most this rank: the fitted Y in its first principal directions."""
        weight = self.least_squares().weight
        fitted = weight @ self.covariances[0] @ weight.mT  # (M, C2, C2)
        first = torch.linalg.eigh(fitted).eigenvectors[..., -rank:]
        return self._through_means(first @ (first.mT @ weight))

    def one_to_one(self, mask: Tensor) -> Transform:
        """Return the least-squares transforms in which each end channel reads one front channel: mask (M, C2, C1) of 0 and 1."""
        xx, xy, _ = self.covariances
        variance = (mask * xx.diagonal(dim1=1, dim2=2)[:, None]).sum(2)
        slope = torch.where(variance > 0, (mask * xy.mT).sum(2) / variance, 0.0)
        return self._through_means(slope[:, :, None] * mask)

    def constant(self) -> Transform:
        """Return the transforms that show the end nothing but its mean activations."""
        return self._through_means(torch.zeros_like(self.cross[:, :-1, :-1].mT))

    def correlations(self) -> Tensor:
        """Return the correlation of each end channel with each front channel, (M, C2, C1); 0 for a channel that is constant."""
        xx, xy, yy = self.covariances
        scale = yy.diagonal(dim1=1, dim2=2)[:, :, None] * xx.diagonal(dim1=1, dim2=2)[:, None]
        return torch.where(scale > 0, xy.mT / scale.clamp(min=1e-300).sqrt(), 0.0)

    def relative_errors(self, transform: Transform) -> Tensor:
        """Return ||T(X) - Y||^2 / ||Y - mean||^2 of each stitch, (M,); 1 for the constant transform."""
        solution = self._solution(transform)
        fitted = (solution * (self.front @ solution - 2 * self.cross[..., :-1])).sum((1, 2))
        whole = self.end.diagonal(dim1=1, dim2=2)[:, :-1].sum(1)
        variance = self.covariances[2].diagonal(dim1=1, dim2=2).sum(1) * self.front[:, -1, -1]
        return ((fitted + whole) / variance).clamp(min=0)  # rounding may go below

    def distances(self, transform: Transform) -> tuple[Tensor, Tensor]:
        """Return how far the channels' means, and their standard deviations, of T(X) are from those of Y, (M,) each.

        Both are norms over channels, relative to the norm of Y's standard deviations.
        """
        solution, (_, mean), n = self._solution(transform), self.means, self.front[:, -1, -1, None]
        moved = (self.front[:, -1:] @ solution)[:, 0] / n
        square = (solution * (self.front @ solution)).sum(1) / n
        deviation = (square - moved.square()).clamp(min=0).sqrt()
        own = self.covariances[2].diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        size = own.norm(dim=1)
        return (moved - mean).norm(dim=1) / size, (deviation - own).norm(dim=1) / size

    def _through_means(self, weight: Tensor) -> Transform:
        """Return the transforms of these weights that take the means of X to those of Y."""
        x, y = self.means
        return Transform(weight, y - (weight @ x[:, :, None])[:, :, 0])

    def _solution(self, transform: Transform) -> Tensor:
        """Return [W b]^T (M, C1+1, C2), by which [X 1] is multiplied."""
        return torch.cat([transform.weight, transform.bias[:, :, None]], 2).mT.to(self.front)


class Sums:
    """The moments of all pairs of F fronts and E ends at one front point and one end point."""

    def __init__(self) -> None:
        self.front, self.cross, self.end = (torch.zeros(()) for _ in range(3))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add `samples` of fronts (n, F, C1+1) and of ends (n, E, C2+1)."""
        n, f, c1 = x.shape
        cross = (x.view(n, -1).T @ y.view(n, -1)).view(f, c1, -1, y.shape[2])  # of all pairs at once
        self.front = self.front.to(x.device) + x.permute(1, 2, 0) @ x.transpose(0, 1)
        self.end = self.end.to(x.device) + y.permute(1, 2, 0) @ y.transpose(0, 1)
        self.cross = self.cross.to(x.device) + cross.transpose(1, 2)  # (F, E, C1+1, C2+1)

    def of(self, fronts: Sequence[int], ends: Sequence[int]) -> Moments:
        """Return the moments of M stitches, from their indices of a front and of an end."""
        f, e = (torch.tensor(list(each), device=self.front.device) for each in (fronts, ends))
        return Moments(self.front[f], self.cross[f, e], self.end[e])


def samples(x: Tensor) -> Tensor:
    """Return activations (M, B, C, H, W) as (B*H*W, M, C+1) float64, vectors (M, B, F) as (B, M, F+1); the last one is 1."""
    x = x.permute(1, 3, 4, 0, 2) if x.dim() == 5 else x.transpose(0, 1)
    found = x.new_ones(*x.shape[:-1], x.shape[-1] + 1, dtype=torch.float64)
    found[..., :-1] = x
    return found.flatten(0, -3)


@torch.no_grad()
def sum_activations(
    front_net: TargetNet,
    fronts: Tensor,
    end_net: TargetNet,
    ends: Tensor,
    points: Sequence[Points],
    batches: Iterable[Tensor],
    before_activation: bool = False,
) -> dict[Points, Sums]:
    """Return the sums of rows of fronts (F, P) and ends (E, P) at several pairs of points, from one pass over images.

    Batches are (B, C, S, S). Nets run once for all points, and once if fronts and ends are the same tensor.
    """
    sums = {each: Sums() for each in points}
    front_points, end_points = (list(dict.fromkeys(each[side] for each in points)) for side in (0, 1))
    alike = fronts is ends and front_net is end_net
    for inputs in batches:
        wanted = list(dict.fromkeys([*front_points, *end_points])) if alike else front_points
        x = dict(zip(wanted, map(samples, front_net.run_points(fronts, inputs, wanted, before_activation))))
        y = (
            x
            if alike
            else dict(zip(end_points, map(samples, end_net.run_points(ends, inputs, end_points, before_activation))))
        )
        for (i, j), found in sums.items():
            found.add(x[i], y[j])
    return sums
