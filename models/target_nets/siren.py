"""SIREN: an MLP with sine activations, here the signed distance function of one shape (supplement Sec. I and V)."""

import math

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.layers import Linear
from models.rows import Channels, chain
from models.target_nets.parts import Part, PartedNet, parts_of_modules

FREQUENCY = 30.0  # omega_0


def check_widths(widths: tuple[int, ...]) -> None:
    """Raise InputError unless widths begin with 3, end with 1 and have at least one hidden width between."""
    if len(widths) < 3 or widths[0] != 3 or widths[-1] != 1 or min(widths) < 1:
        raise InputError(f"SIREN widths {widths}: give 3 coordinates, at least one hidden width, 1 distance")


class Sine(nn.Module):
    """Compute sin(30 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * FREQUENCY)  # in place on a view of a batched product, it would cost six passes in backward


class Siren(PartedNet):
    """Map points (..., 3) to signed distances (...): linear layers of `widths` with a sine between any two of them.

    The paper's widths are 3, 256, 256, 1. Weights start from U(+-1/in) in the first layer and from U(+-sqrt(6/in)/30) in the
    others, biases as PyTorch's. The names in the state dict are those of the original release.
    """

    def __init__(self, widths: tuple[int, ...] = (3, 256, 256, 1)):
        super().__init__()
        self.widths = widths
        layers: list[nn.Module] = []
        for i, (width, next_width) in enumerate(zip(widths, widths[1:])):
            linear = Linear(width, next_width)
            bound = math.sqrt(6 / width) / FREQUENCY if i else 1 / width
            nn.init.uniform_(linear.weight, -bound, bound)
            layers += [linear, Sine()]
        self.mlp = nn.Sequential(*layers[:-1])

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden units that may be permuted (models/rows.py)."""
        return chain([f"mlp.{i}" for i, layer in enumerate(self.mlp) if isinstance(layer, Linear)])

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each sine."""
        *hidden, (name, last, _) = parts_of_modules("mlp", list(self.mlp), (Sine,))
        return [*hidden, Part(name, lambda x: last(x).squeeze(-1))]
