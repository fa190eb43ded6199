"""How alike nets are inside: linear CKA, CCA, SVCCA, PWCCA, Procrustes, linear regression, l2 and correlation of activations.

A *view* is one net at one point: activations (n, C, H, W) or (n, F) on the same n images as all others. X (n, p1) and Y (n, p2) are
two views as matrices with centred columns. For CKA (evaluation/cka.py), images are rows. For all others channels are columns, and
rows are the pixels of all images, or, if the two views have other numbers of pixels, images with their spatial means.

Images pass through the nets once, for all pairs of views together; p x p sums in float64 are all that the measures need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from evaluation.cka import MinibatchSums, Views, cka_of, sums_for
from models.errors import InputError

LEAST_VARIANCE = 1e-10  # of the largest; a direction with less is none, such as a dead channel
SVCCA_SHARE = 0.99  # of the variance
MOST_BYTES = 1 << 32  # of the products of all channels


@dataclass(frozen=True)
class Spread:
    """The sums of products X^T X (p, p) of one view's centred columns."""

    sums: Tensor

    @property
    def variance(self) -> Tensor:
        """|X|^2"""
        return self.sums.trace()

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """The variances along principal directions (r,), the largest first, and the directions (p, r); r is the rank."""
        values, directions = torch.linalg.eigh(self.sums)
        live = values > LEAST_VARIANCE * values[-1].clamp(min=0)
        return values[live].flip(0), directions[:, live].flip(1)

    def whitening(self, share: float = 1.0) -> Tensor:
        """Return W (p, r) such that X W is orthonormal and spans X, or the first directions with this share of its variance."""
        values, directions = self.axes
        number = len(values) if share == 1 else int((values.cumsum(0) < share * values.sum()).sum()) + 1
        return directions[:, :number] / values[:number].sqrt()


@dataclass(frozen=True)
class Pair:
    """Views X and Y of n rows: X^T X, Y^T Y, and X^T Y (p1, p2) of centred columns; the columns' means (p1,) and (p2,)."""

    x: Spread
    y: Spread
    cross: Tensor
    mean_x: Tensor
    mean_y: Tensor
    n: int
    same_size: bool = True  # of images: rows are pixels; else they are images, with spatial means

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "Pair":
        """Return the pair of two matrices (n, p1) and (n, p2)."""
        sums = ChannelSums()
        sums.add([x, y])
        return sums.pair(0, 1)

    @property
    def varies(self) -> bool:
        """Whether both views vary."""
        return bool(self.x.variance > 0 and self.y.variance > 0)

    def check_rows(self) -> None:
        """Raise InputError unless there are more rows than columns; if not, every view explains any other."""
        most = max(len(self.x.sums), len(self.y.sums))
        if self.n <= most:
            raise InputError(f"{self.n} rows of {most} channels: compare nets on more images, with --num-images")

    def canonical(self, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return canonical correlations rho (r,), the largest first, and the weights (p1, r) of X's canonical variates.

        They are the singular values of Q_X^T Q_Y, Q an orthonormal basis of a view; r is the smaller rank. Raise InputError if
        there are too few rows.
        """
        self.check_rows()
        whitening = self.x.whitening(share)
        left, rho, _ = torch.linalg.svd(whitening.T @ self.cross @ self.y.whitening(share), full_matrices=False)
        return rho.clamp(max=1), whitening @ left


class RowSums:
    """Sums over rows of the products of all columns of some views, by number of the view."""

    def __init__(self, widths: dict[int, int]):
        ends = np.cumsum([0, *widths.values()]).tolist()
        self.columns = {i: slice(*pair) for i, pair in zip(widths, zip(ends, ends[1:]))}
        self.first: Tensor | None = None  # a row, which all are shifted by: so constant columns are exactly 0
        self.products, self.sums, self.n = 0.0, 0.0, 0
        self.spreads: dict[int, Spread] = {}

    def add(self, rows: Tensor) -> None:
        """Add rows (n, columns of all views)."""
        self.first = rows[:1].clone() if self.first is None else self.first
        rows = rows - self.first
        self.products, self.sums, self.n = self.products + rows.T @ rows, self.sums + rows.sum(0), self.n + len(rows)

    def centred(self, i: int, j: int) -> Tensor:
        """Return the products (p1, p2) of centred columns."""
        x, y = self.columns[i], self.columns[j]
        return self.products[x, y] - self.sums[x, None] * self.sums[y] / self.n

    def spread(self, i: int) -> Spread:
        """Return the spread of a view, computed once."""
        if i not in self.spreads:
            self.spreads[i] = Spread(self.centred(i, i))
        return self.spreads[i]

    def mean(self, i: int) -> Tensor:
        """Return the means (p,) of a view's columns."""
        return (self.first[0] + self.sums / self.n)[self.columns[i]]


class ChannelSums:
    """Sums of all views' channels: over the pixels of those of one size, and over the spatial means of all."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []  # (H, W) of every view, () of vectors
        self.pixels: dict[tuple[int, ...], RowSums] = {}  # by size
        self.means: RowSums | None = None  # None if all views are of one size

    def add(self, views: Views) -> None:
        """Add a batch of images. Raise InputError if the views have too many channels."""
        if not self.sizes:
            self._start(views)
        if self.means:
            means = [each.double().flatten(2).mean(2) if each.dim() > 2 else each.double() for each in views]
            self.means.add(torch.cat(means, 1))
        for sums in self.pixels.values():
            rows = [views[i].double().movedim(1, -1).flatten(0, -2) for i in sums.columns]
            sums.add(torch.cat(rows, 1))

    def _start(self, views: Views) -> None:
        self.sizes = [tuple(each.shape[2:]) for each in views]
        widths = {i: each.shape[1] for i, each in enumerate(views)}
        if 8 * sum(widths.values()) ** 2 > MOST_BYTES:
            raise InputError(
                f"{len(views)} views with {sum(widths.values())} channels are too many to compare at once; give fewer nets"
            )
        for size in dict.fromkeys(self.sizes):
            self.pixels[size] = RowSums({i: width for i, width in widths.items() if self.sizes[i] == size})
        self.means = RowSums(widths) if len(self.pixels) > 1 else None

    def pair(self, i: int, j: int) -> Pair:
        """Return views i and j as X and Y."""
        alike = self.sizes[i] == self.sizes[j]
        sums = self.pixels[self.sizes[i]] if alike else self.means
        assert sums is not None
        parts = sums.spread(i), sums.spread(j), sums.centred(i, j), sums.mean(i), sums.mean(j)
        return Pair(*parts, sums.n, alike)

    def measure(self, measure: "Measure", wanted: Tensor) -> Tensor:
        """Return a measure of the pairs of views that are wanted, (K, K) bool, and vary: (K, K) float64 with NaN elsewhere."""
        assert measure.of_pair is not None
        found = torch.full(wanted.shape, torch.nan, dtype=torch.float64)
        for front, end in wanted.nonzero().tolist():
            if measure.symmetric and end < front and wanted[end, front]:
                found[front, end] = found[end, front]
                continue
            pair = self.pair(end, front) if measure.end_first else self.pair(front, end)
            if pair.varies:
                found[front, end] = measure.of_pair(pair)
        return found


# Measures of a pair, all of views that vary


def cca(pair: Pair) -> float:
    """Return the mean canonical correlation rho, over the smaller rank: dead channels do not count."""
    return pair.canonical()[0].mean().item()


def cca_squared(pair: Pair) -> float:
    """Return the mean of rho^2, likewise."""
    return pair.canonical()[0].square().mean().item()


def svcca(pair: Pair) -> float:
    """Return the mean rho of the principal directions that have 99 % of each view's variance."""
    return pair.canonical(SVCCA_SHARE)[0].mean().item()


def pwcca(pair: Pair) -> float:
    """Return the sum of alpha_i rho_i, alpha_i in proportion to sum_j |<h_i, x_j>|, h_i canonical variates of X."""
    rho, weights = pair.canonical()
    alpha = (weights.T @ pair.x.sums).abs().sum(1)
    return (alpha @ rho / alpha.sum()).item()


def procrustes(pair: Pair) -> float:
    """Return the orthogonal Procrustes distance 2 - 2 |X^T Y|_*, X and Y scaled to Frobenius norm 1: 0 to 2."""
    scale = (pair.x.variance * pair.y.variance).sqrt()
    return (2 - 2 * torch.linalg.svdvals(pair.cross).sum() / scale).clamp(min=0).item()


def linear_regression(pair: Pair) -> float:
    """Return |Q_Y^T X|^2 / |X|^2: the share of X that Y explains."""
    pair.check_rows()
    return ((pair.cross @ pair.y.whitening()).square().sum() / pair.x.variance).clamp(max=1).item()


def l2(pair: Pair) -> float:
    """Return the mean of (X - Y)^2, not centred; NaN unless the views have one shape."""
    if not pair.same_size or len(pair.x.sums) != len(pair.y.sums):
        return torch.nan
    centred = (pair.x.variance + pair.y.variance - 2 * pair.cross.trace()).clamp(min=0) / pair.n
    return ((centred + (pair.mean_x - pair.mean_y).square().sum()) / len(pair.cross)).item()


def correlations(pair: Pair) -> Tensor:
    """Return Pearson's correlation of every column of Y with every column of X, (p2, p1); 0 where one is constant."""
    scale = (pair.y.sums.diagonal()[:, None] * pair.x.sums.diagonal()).sqrt()
    return torch.where(scale > 0, pair.cross.T / scale.clamp(min=1e-300), 0.0)


def same_channel(pair: Pair) -> float:
    """Return the mean correlation of Y's columns that vary with the columns of X at their places; NaN unless of one shape."""
    if len(pair.x.sums) != len(pair.y.sums):
        return torch.nan
    return correlations(pair).diagonal()[pair.y.sums.diagonal() > 0].mean().item()


def correlation(pair: Pair) -> float:
    """Return the mean, over Y's columns that vary, of the largest |correlation| with a column of X."""
    return correlations(pair).abs().amax(1)[pair.y.sums.diagonal() > 0].mean().item()


# All views


@dataclass(frozen=True)
class Measure:
    """A measure: its title, and whether a larger value is more alike. CKA has no function of a pair.

    What is not symmetric is of the end, seen from the front: X is the front, or with `end_first` the end.
    """

    title: str
    of_pair: Callable[[Pair], float] | None = None
    larger_is_alike: bool = True
    symmetric: bool = True
    end_first: bool = False


MEASURES = {
    "cka": Measure("CKA, biased"),
    "cka_unbiased": Measure("CKA, unbiased"),
    "cka_minibatch": Measure("CKA, minibatch"),
    "cca": Measure("CCA, mean ρ", cca),
    "cca_squared": Measure("CCA, mean ρ²", cca_squared),
    "svcca": Measure("SVCCA", svcca),
    "pwcca": Measure("PWCCA", pwcca, symmetric=False, end_first=True),
    "procrustes": Measure("Procrustes distance", procrustes, larger_is_alike=False),
    "linear_regression": Measure("linear regression", linear_regression, symmetric=False, end_first=True),
    "l2": Measure("mean (X - Y)²", l2, larger_is_alike=False),
    "correlation": Measure("best correlation", correlation, symmetric=False),
    "same_channel": Measure("same-channel correlation", same_channel),
}


def compare(
    views: Callable[[int, int], Views], n: int, batch: int, measures: Sequence[str], wanted: Tensor
) -> dict[str, Tensor]:
    """Return measures of the pairs of K views that are `wanted`, (K, K) bool: each (K, K) float64 on the CPU.

    `views` returns the activations of images start ... stop-1 of n, which are cut into equal batches of at most `batch`. Entry i, j is
    of view i in front and view j at the end; NaN if the pair is not wanted or one of the two does not vary, and l2 also if their
    shapes differ. Raise InputError if there are too few images.
    """
    bounds = np.linspace(0, n, -(-n // batch) + 1).astype(int).tolist()

    def part(i: int) -> Views:
        return views(bounds[i], bounds[i + 1])

    first = part(0)
    whole, minibatch, channels = sums_for(first, n, wanted, part), MinibatchSums(), ChannelSums()
    needed = {"cka": whole, "cka_unbiased": whole, "cka_minibatch": minibatch}
    used = {id(sums): sums for sums in (needed.get(name, channels) for name in measures)}.values()
    for i in range(len(bounds) - 1):
        found = first if i == 0 else part(i)
        for sums in used:
            sums.add(found)
    of_images = {
        "cka": lambda: whole.hsic().biased(),
        "cka_unbiased": lambda: whole.hsic().unbiased(),
        "cka_minibatch": lambda: minibatch.hsic,
    }
    pairs, result = wanted.cpu(), {}
    for name in measures:
        values = cka_of(of_images[name]()).cpu() if name in of_images else channels.measure(MEASURES[name], pairs)
        result[name] = torch.where(pairs, values, torch.nan)
    return result
