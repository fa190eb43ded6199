"""Linear CKA of many views at once: biased, unbiased and minibatch.

A *view* is one net at one point: activations (n, C, H, W) or (n, F). Its rows are images, its columns all C*H*W numbers.

    batches of images  --FeatureSums or GramSums-->  HsicSums  --biased, unbiased-->  HSIC (K, K)  --cka_of-->  CKA (K, K)

Both sums are the same numbers, float64: from cross products X^T Y (p1, p2), or from tiles of Gram matrices X X^T. No matrix (n, n)
is ever there.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import InputError

Views = Sequence[Tensor]  # activations of K views on B images, each (B, C, H, W) or (B, F)

LEAST_IMAGES = 4  # of unbiased HSIC
MOST_BYTES = 1 << 30  # of cross products, and of activations that are kept


class HsicSums(NamedTuple):
    """What HSIC is computed from: sums over the Gram matrices X X^T of K views, of n images.

    For two of them, K and L, with row sums r and s and diagonals d and e: `products` are the sums of K_ij L_ij, `rows` r.s, `mixed`
    r.e, `diagonals` d.e, each (K, K), with NaN for pairs that were not asked for. `totals` (K,) are sums of r, `traces` of d.
    """

    products: Tensor
    rows: Tensor
    mixed: Tensor
    diagonals: Tensor
    totals: Tensor
    traces: Tensor
    n: int

    def biased(self) -> Tensor:
        """Return tr(K H L H), H = I - 1/n, of all pairs (K, K): of linear kernels, |X^T Y|^2 of centred columns."""
        return self.products - 2 / self.n * self.rows + self.totals[:, None] * self.totals / self.n**2

    def unbiased(self) -> Tensor:
        """Return the unbiased estimate of HSIC of all pairs (K, K), which may be below 0. Raise InputError if n < 4.

        [tr KL + sum(K) sum(L) / ((n-1)(n-2)) - 2/(n-2) 1^T K L 1] / (n(n-3)), the diagonals of K and L set to 0 (Song et al., 2012).
        """
        n = self.n
        if n < LEAST_IMAGES:
            raise InputError(
                f"unbiased CKA of {n} images: it needs {LEAST_IMAGES} or more; give more with --num-images and --image-batch"
            )
        trace = self.products - self.diagonals
        between = self.rows - self.mixed - self.mixed.T + self.diagonals
        totals = self.totals - self.traces
        return (trace + totals[:, None] * totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * between) / (n * (n - 3))


def cka_of(hsic: Tensor) -> Tensor:
    """Return CKA of all pairs (K, K): HSIC_KL / sqrt(HSIC_KK HSIC_LL). It is NaN where a view does not vary."""
    own = hsic.diagonal()
    scale = torch.where(own > 0, own, torch.nan).sqrt()
    return hsic / scale[:, None] / scale


class Shift:
    """Views as matrices (B, p) float64, shifted by the first image of all: HSIC stays, and constant columns are exactly 0."""

    def __init__(self) -> None:
        self.first: list[Tensor] = []

    def __call__(self, views: Views) -> list[Tensor]:
        x = [each.flatten(1).double() for each in views]
        self.first = self.first or [each[:1].clone() for each in x]
        return [each - first for each, first in zip(x, self.first)]


class FeatureSums:
    """HSIC by the cross products of pairs of views that are `wanted`, (K, K) bool; of a view with itself they always are."""

    def __init__(self, wanted: Tensor):
        self.shape, self.shift, self.n = wanted.shape, Shift(), 0
        wanted = wanted | wanted.T | torch.eye(len(wanted), dtype=torch.bool, device=wanted.device)
        self.pairs = [(i, j) for i, j in wanted.triu().nonzero().tolist()]
        self.sums: list[list[Tensor]] = []

    def add(self, views: Views) -> None:
        """Add a batch of images."""
        x = [torch.cat([each, each.square().sum(1, keepdim=True)], 1) for each in self.shift(views)]  # with diagonals
        found = [[x[i].T @ x[j] for i, j in self.pairs], [each.sum(0) for each in x]]
        self.sums = [[a + b for a, b in zip(*each)] for each in zip(self.sums, found)] if self.sums else found
        self.n += len(x[0])

    def hsic(self) -> HsicSums:
        """Return the sums over all images that were added."""
        crosses, sums = self.sums
        parts = [torch.full(self.shape, torch.nan, dtype=torch.float64, device=sums[0].device) for _ in range(4)]
        products, rows, mixed, diagonals = parts
        for (i, j), cross in zip(self.pairs, crosses):
            x, y = sums[i][:-1], sums[j][:-1]
            products[i, j] = products[j, i] = cross[:-1, :-1].square().sum()
            rows[i, j] = rows[j, i] = x @ cross[:-1, :-1] @ y  # r = X sum(X)
            mixed[i, j], mixed[j, i] = x @ cross[:-1, -1], y @ cross[-1, :-1]
            diagonals[i, j] = diagonals[j, i] = cross[-1, -1]
        totals = torch.stack([each[:-1] @ each[:-1] for each in sums])
        return HsicSums(*parts, totals, torch.stack([each[-1] for each in sums]), self.n)


class GramSums:
    """The same by Gram matrices, a tile for every two batches: cheaper for many columns, or for all pairs of many views.

    `again` returns the views of an earlier batch, by its number, once more; without it they are kept.
    """

    def __init__(self, again: Callable[[int], Views] | None = None):
        self.kept: list[Views] = []
        self.again, self.shift = again or self.kept.__getitem__, Shift()
        self.keep = again is None
        self.products: Tensor | float = 0.0
        self.rows: list[Tensor] = []  # by batch, (K, B)
        self.diagonals: list[Tensor] = []

    def add(self, views: Views) -> None:
        """Add a batch of images."""
        x = self.shift(views)
        tiles = torch.stack([each @ each.T for each in x])  # (K, B, B)
        rows = tiles.sum(2)
        self.products = self.products + inner(tiles, tiles)
        self.diagonals.append(tiles.diagonal(dim1=1, dim2=2))
        for i, sums in enumerate(self.rows):
            tiles = torch.stack([a @ b.T for a, b in zip(x, self.shift(self.again(i)))])  # (K, B, B')
            self.products += 2 * inner(tiles, tiles)  # the tile, and its mirror image
            rows += tiles.sum(2)
            sums += tiles.sum(1)
        self.rows.append(rows)
        if self.keep:
            self.kept.append(views)

    def hsic(self) -> HsicSums:
        """Return the sums over all images that were added."""
        rows, diagonals = torch.cat(self.rows, 1), torch.cat(self.diagonals, 1)
        pairs = ((rows, rows), (rows, diagonals), (diagonals, diagonals))
        return HsicSums(self.products, *(inner(*each) for each in pairs), rows.sum(1), diagonals.sum(1), rows.shape[1])


class MinibatchSums:
    """The sums over batches of unbiased HSIC, of which minibatch CKA takes one ratio at the end (Nguyen et al., 2021)."""

    def __init__(self) -> None:
        self.hsic: Tensor | float = 0.0

    def add(self, views: Views) -> None:
        """Add a batch of images. Raise InputError if it has fewer than 4."""
        batch = GramSums()
        batch.add(views)
        self.hsic = self.hsic + batch.hsic().unbiased()


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner products (K, K) of K arrays with K arrays."""
    return one.flatten(1) @ other.flatten(1).T


def grams_are_cheaper(columns: Sequence[int], wanted: Tensor, n: int) -> bool:
    """Return whether Gram matrices take fewer operations than cross products, or these take too much memory.

    `columns` (K,) are of the views, `wanted` (K, K) bool their pairs, of n images.
    """
    p = torch.tensor(columns, dtype=torch.float64)
    wanted = wanted.cpu() | wanted.cpu().T | torch.eye(len(p), dtype=torch.bool)
    products = (p[:, None] * p * wanted.triu()).sum().item()
    return n * products > n * n / 2 * (sum(columns) + len(columns) ** 2) or 8 * products > MOST_BYTES


def sums_for(views: Views, n: int, wanted: Tensor, again: Callable[[int], Views]) -> FeatureSums | GramSums:
    """Return the cheaper sums for n images, of which `views` are some; `again` is called if they would take too much memory."""
    columns = [each[0].numel() for each in views]
    if not grams_are_cheaper(columns, wanted, n):
        return FeatureSums(wanted)
    bytes_of_all = n * sum(number * each.element_size() for number, each in zip(columns, views))
    return GramSums(again if bytes_of_all > MOST_BYTES else None)
