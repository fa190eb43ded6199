"""Encoders that are one linear map, of an instance's parameters or of its outputs. They start at principal components.

NetSpace's encoder takes maxima over the width and the height of a PRep, and so does not know where a number stands. These do.
"""

import math

import torch
from torch import Tensor, nn

from models.instances import TargetNet

SMALLEST = 1e-5  # of components, relative to the largest: smaller ones are left out


@torch.no_grad()
def start_at_components(linear: nn.Linear, rows: Tensor) -> Tensor:
    """Start a map at the principal components of rows (N, D): scores in units of the first one's deviation. Return the mean (D,).

    So distances between embeddings are those between rows. If there are fewer components than outputs, the others are 0.
    """
    mean = rows.mean(0)
    _, sizes, components = torch.linalg.svd(rows - mean, full_matrices=False)
    rounding = 10 * torch.finfo(rows.dtype).eps * rows.norm()  # what rows that are alike differ by from their mean
    number = min(int((sizes > torch.maximum(SMALLEST * sizes[0], rounding)).sum()), linear.out_features)
    linear.weight.zero_()[:number] = components[:number] * math.sqrt(len(rows)) / sizes[0]
    return mean


class LinearEncoder(nn.Module):
    """Map PReps (M, 1, H, W) to embeddings (M, E): one linear map of their numbers, `numbers` = H*W, around a mean.

    It is for instances from one initialization, whose hidden units correspond.
    """

    def __init__(self, emb_size: int, numbers: int):
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(numbers))
        self.linear = nn.Linear(numbers, emb_size, bias=False)

    def start_at(self, preps: Tensor) -> None:
        """Start at the principal components of training PReps (N, 1, H, W)."""
        self.mean.copy_(start_at_components(self.linear, preps.flatten(1)))

    def forward(self, preps: Tensor) -> Tensor:
        return self.linear(preps.flatten(1) - self.mean)


class ProbeEncoder(nn.Module):
    """Map PReps (M, 1, H, W) of SIRENs to embeddings (M, E): one linear map of their outputs at K fixed points, the probes.

    It sees a SIREN's function alone: neither the order of hidden units nor the initialization matters. `points` (K, 3) and
    `mean` (K,) are buffers.
    """

    def __init__(self, emb_size: int, num_probes: int, net: TargetNet):
        super().__init__()
        self.net = net
        self.points: Tensor
        self.mean: Tensor
        self.register_buffer("points", torch.zeros(num_probes, 3))
        self.register_buffer("mean", torch.zeros(num_probes))
        self.linear = nn.Linear(num_probes, emb_size, bias=False)

    def start_at(self, preps: Tensor, points: Tensor) -> None:
        """Start at the principal components of training instances' outputs at `points` (K, 3), which become the probes."""
        self.points.copy_(points)
        self.mean.copy_(start_at_components(self.linear, self.outputs(preps)))

    @torch.no_grad()
    def outputs(self, preps: Tensor) -> Tensor:
        """Return the SIRENs' outputs at the probes (M, K), without gradient."""
        return torch.cat([self.net.run(part.flatten(1), self.points) for part in preps.split(16)])

    def forward(self, preps: Tensor) -> Tensor:
        return self.linear(self.net.run(preps.flatten(1), self.points) - self.mean)
