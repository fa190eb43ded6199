"""SIREN: an MLP with sine activations, here the signed distance function of one shape (supplement Sec. I and V)."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.errors import InputError
from models.instances import module_of, start_instances
from models.layers import Linear
from models.prep import Layout
from models.symmetries import Channels, chain

FREQUENCY = 30.0  # omega_0


class Sine(nn.Module):
    """sin(30 x). Overwrites x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.mul_(FREQUENCY))  # in place: a linear layer before it does not need its output


class Siren(nn.Module):
    """Points (..., 3) to signed distances (...), through linear layers of `widths` with a sine between any two of them.

    The paper's has widths 3, 256, 256, 1. Weights start from U(+-1/in) in the first layer and U(+-sqrt(6/in)/30) in the
    others, biases as PyTorch's. State dict keys are those of the original release. With parameters of M instances, points
    (M, B, 3) give (M, B).
    """

    def __init__(self, widths: tuple[int, ...] = (3, 256, 256, 1)):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (wide, following) in enumerate(zip(widths, widths[1:])):
            linear = Linear(wide, following)
            bound = math.sqrt(6 / wide) / FREQUENCY if i else 1 / wide
            nn.init.uniform_(linear.weight, -bound, bound)
            layers += [linear, Sine()]
        self.mlp = nn.Sequential(*layers[:-1])

    def hidden_channels(self) -> list[Channels]:
        return chain([f"mlp.{i}" for i, layer in enumerate(self.mlp) if isinstance(layer, Linear)])

    def forward(self, points: Tensor) -> Tensor:
        return self.mlp(points).squeeze(-1)


class SirenNets:
    """SIRENs of one size: how they start and run, and where their parameters lie in a row.

    Raises InputError unless `widths` begin with 3, end with 1 and have at least one hidden layer between.
    """

    def __init__(self, widths: tuple[int, ...] = (3, 256, 256, 1)):
        if len(widths) < 3 or widths[0] != 3 or widths[-1] != 1 or min(widths) < 1:
            raise InputError(f"SIREN widths {widths}: give 3 coordinates, at least one hidden width, 1 distance")
        self.widths = widths
        with torch.random.fork_rng(devices=[]):  # building a net draws numbers; whoever asks here wants only shapes
            self.net = Siren(widths)
        self.layout = self.trained_layout = Layout.of(self.net)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SirenNets) and self.widths == other.widths

    @property
    def num_parameters(self) -> int:
        """P"""
        return self.layout.num_parameters

    def start(self, seeds: list[int]) -> dict[str, Tensor]:
        """Freshly initialized states of len(seeds) instances, entries (M, *shape), each from its own seed."""
        return start_instances(lambda: Siren(self.widths), seeds)

    def run(self, rows: Tensor, points: Tensor) -> Tensor:
        """Signed distances (M, B) of M instances, rows (M, P), at points (M, B, 3), or (B, 3) seen by all."""
        points = points.expand(len(rows), -1, -1)
        state = {name: value[:, None] for name, value in self.layout.unflatten(rows).items()}
        return functional_call(self.net, state, (points.flatten(0, 1),)).view(points.shape[:2])

    def module(self, row: Tensor) -> nn.Module:
        """The instance of a row (P,) as a module of its own. See module_of."""
        return module_of(self.net, self.layout, row)
