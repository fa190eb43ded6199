"""Stitched nets h(x) = g_{>j}(T(f_{<=i}(x))): the front f and the end g stay as they are, the transform T is trained or fitted.

    nets = StitchedNets(net, rows, net, rows, ("layer2.0", "layer2.0"), [(0, 1), (1, 2)])   # front 0 with end 1, 1 with 2
    logits = nets.finish(transform, nets.activations(x))                                    # (2, B, classes)

Here, fronts and ends are TargetNets, and M stitches between the same two points are computed at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import InputError
from models.instances import TargetNet
from models.layers import fold_instances, unfold_instances
from models.rows import Layout

Points = tuple[str, str]  # of the front, of the end
Init = Literal["random", "permutation", "identity", "least-squares", "ones"]
Mask = Literal["none", "semi-match", "abs-semi-match", "permutation"]
SQUARE = ("permutation", "identity")  # what needs as many channels of the front as of the end


@dataclass(frozen=True)
class Transform:
    """M affine maps of channels: weight (M, C2, C1), bias (M, C2). A 1x1 conv on maps, a linear layer on vectors."""

    weight: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, chosen: Sequence[int] | slice) -> "Transform":
        return Transform(self.weight[chosen], self.bias[chosen])

    def to(self, like: Tensor) -> "Transform":
        """Return the transforms with the type and device of a tensor."""
        return Transform(self.weight.to(like), self.bias.to(like))

    def state(self) -> dict[str, Tensor]:
        """Return weight and bias by name."""
        return {"weight": self.weight, "bias": self.bias}

    def apply(self, x: Tensor) -> Tensor:
        """Map activations (M, B, C1, H, W) to (M, B, C2, H, W), or (M, B, C1) to (M, B, C2)."""
        if x.dim() == 3:
            return torch.baddbmm(self.bias[:, None], x, self.weight.mT)
        if is_instance_by_instance(x):
            pixels = x.movedim(2, -1)  # (M, B, H, W, C1)
            found = torch.baddbmm(self.bias[:, None], pixels.flatten(1, 3), self.weight.mT)
            return found.unflatten(1, pixels.shape[1:4]).movedim(-1, 2)
        m, c2, c1 = self.weight.shape
        weight = self.weight.reshape(m * c2, c1, 1, 1).contiguous(memory_format=torch.channels_last)
        return unfold_instances(F.conv2d(fold_instances(x), weight, self.bias.flatten(), groups=m), m)


def is_instance_by_instance(x: Tensor) -> bool:
    """Return whether maps (M, B, C, H, W) lie in memory as nets on large images are computed, one after the other."""
    return x.movedim(2, -1).is_contiguous()


def take_instances(x: Tensor, chosen: list[int]) -> Tensor:
    """Return the chosen of activations (M, B, ...), maps in the same memory as before: that of folded or of single instances."""
    if chosen == [*range(len(x))]:
        return x
    if x.dim() == 3:
        return x[chosen]
    if is_instance_by_instance(x):
        return x.movedim(2, -1)[chosen].movedim(-1, 2)
    index = torch.tensor(chosen, device=x.device)
    return x.permute(1, 3, 4, 0, 2).index_select(3, index).permute(3, 0, 4, 1, 2)


class StitchedNets:
    """M stitched nets between a point of the fronts and a point of the ends.

    Fronts (F, P) and ends (E, P) are rows; each of `pairs` has the indices of a front and of an end. Fronts that several
    pairs share are computed once. Raise InputError if the points have other heights or widths.
    """

    def __init__(
        self,
        front_net: TargetNet,
        fronts: Tensor,
        end_net: TargetNet,
        ends: Tensor,
        points: Points,
        pairs: Sequence[tuple[int, int]],
        before_activation: bool = False,
    ):
        self.front_net, self.end_net, self.points = front_net, end_net, points
        self.before_activation = before_activation
        self.c1, self.c2 = channels_at(front_net, points[0], end_net, points[1])
        self.pairs = list(pairs)
        used = [sorted({pair[side] for pair in pairs}) for side in (0, 1)]
        self.fronts, self.ends = fronts[used[0]], ends[used[1]]  # each once
        self.front_of, self.end_of = ([each.index(pair[side]) for pair in pairs] for side, each in enumerate(used))
        self.end_rows = self.ends[self.end_of]

    def __len__(self) -> int:
        return len(self.pairs)

    @torch.no_grad()
    def activations(self, inputs: Tensor) -> Tensor:
        """Return the activations of each front once, (F, B, *point_shape), for images (B, C, S, S)."""
        return self.front_net.run_front(self.fronts, inputs, self.points[0], self.before_activation)

    def transformed(self, transform: Transform, activations: Tensor) -> Tensor:
        """Return T of each stitch on its front's activations, (M, B, *point_shape of the end)."""
        return transform.apply(take_instances(activations, self.front_of))

    def end(self, activations: Tensor) -> Tensor:
        """Return the logits (M, B, classes) of each stitch's end for activations (M, B, *point_shape)."""
        return self.end_net.run_end(self.end_rows, activations, self.points[1], self.before_activation)

    def run(self, transform: Transform, inputs: Tensor) -> Tensor:
        """Return the logits (M, B, classes) of the stitched nets for images (B, C, S, S)."""
        return self.end(self.transformed(transform, self.activations(inputs)))


def channels_at(front_net: TargetNet, front_point: str, end_net: TargetNet, end_point: str) -> tuple[int, int]:
    """Return the channels C1 and C2 of two points. Raise InputError unless their heights and widths agree."""
    front, end = front_net.point_shape(front_point), end_net.point_shape(end_point)
    if front[1:] != end[1:]:
        sizes = " and ".join(
            f"{point} of {net.name} has {'x'.join(map(str, shape))}"
            for net, point, shape in ((front_net, front_point, front), (end_net, end_point, end))
        )
        raise InputError(
            f"{sizes}: a transform changes channels alone; choose layers of one height and width (--list-layers)"
        )
    return front[0], end[0]


def stitchable(front_net: TargetNet, end_net: TargetNet) -> list[Points]:
    """Return all pairs of points of one height and width, in order of the front's points."""
    return [
        (i, j)
        for i in front_net.points
        for j in end_net.points
        if front_net.point_shape(i)[1:] == end_net.point_shape(j)[1:]
    ]


# What is trained: all numbers of a transform in one row, as those of a target net


def layout_of(c1: int, c2: int, rank: int | None = None) -> Layout:
    """Return the layout of a transform: weight and bias, or with a rank `left` (C2, r), `right` (r, C1) and bias."""
    if rank:
        return Layout(("left", "right", "bias"), ((c2, rank), (rank, c1), (c2,)))
    return Layout(("weight", "bias"), ((c2, c1), (c2,)))


def transform_of(state: dict[str, Tensor], mask: Tensor | None = None) -> Transform:
    """Return the transforms of parameters (M, *shape) by name; where the mask (M, C2, C1) is 0, their weights are 0."""
    weight = state["left"] @ state["right"] if "left" in state else state["weight"]
    return Transform(weight if mask is None else weight * mask, state["bias"])


def random_start(c1: int, c2: int, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Return PyTorch's default initialization of a linear layer, or 1x1 conv, from each seed: (M, *shape)."""
    layers = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            layers.append(torch.nn.Linear(c1, c2))
    return {name: torch.stack([getattr(each, name).detach() for each in layers]) for name in ("weight", "bias")}


def low_rank_start(c1: int, c2: int, rank: int, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Return two orthogonal factors, drawn from each seed, and no bias: (M, *shape)."""
    left, right = [], []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            left.append(torch.nn.init.orthogonal_(torch.empty(c2, rank)))
            right.append(torch.nn.init.orthogonal_(torch.empty(rank, c1)))
    return {"left": torch.stack(left), "right": torch.stack(right), "bias": torch.zeros(len(left), c2)}


def one_hot(chosen: Tensor, c1: int) -> Tensor:
    """Return the mask (M, C2, C1) in which each end channel reads one front channel, chosen (M, C2) int64."""
    return F.one_hot(chosen, c1).to(torch.float32)


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Return the biased linear CKA (M,) of activations (M, B, ...) with others: images are rows, all else columns."""
    grams = []
    for each in (x, y):
        rows = each.flatten(2)
        rows = rows - rows.mean(1, keepdim=True)
        grams.append(F.normalize((rows @ rows.mT).flatten(1), dim=1))
    return (grams[0] * grams[1]).sum(1)
