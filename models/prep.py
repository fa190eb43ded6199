"""PReps: the parameters of an instance as a matrix (supplement Sec. II), and the way back.

    state dict  --flatten-->  row (P,)  --pack-->  PRep (1, H, W)  --unpack-->  row  --unflatten-->  state dict

All four work on M instances at once, with a leading dimension M. Packing, unpacking and unflattening are views (a PRep
that needs padding is one copy).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in a row: names and shapes in layer order (weight, then bias; within a residual block
    conv1, conv2, shortcut; then FC), which is the order in which the modules are registered."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> "Layout":
        named = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
        return cls(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def num_parameters(self) -> int:
        return sum(self.sizes)

    def flatten(self, parameters: dict[str, Tensor]) -> Tensor:
        """Parameters (M, *shape) by name to rows (M, P). Names that the layout does not have are ignored."""
        return torch.cat([parameters[name].reshape(-1, size) for name, size in zip(self.names, self.sizes)], dim=1)

    def unflatten(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows (M, P) to parameters (M, *shape) by name, as views."""
        pieces = rows.split(self.sizes, dim=1)
        return {name: piece.view(-1, *shape) for name, piece, shape in zip(self.names, pieces, self.shapes)}


def prep_height(num_parameters: int, width: int) -> int:
    """The smallest height, a multiple of 4, of a PRep of this width that holds so many parameters."""
    return math.ceil(math.ceil(num_parameters / width) / 4) * 4


def check_prep_shape(prep_shape: tuple[int, int], num_parameters: int, name: str) -> None:
    """Raises InputError unless H % 4 = 0, W % 8 = 0 and H*W holds the parameters."""
    height, width = prep_shape
    if height <= 0 or width <= 0 or height % 4 or width % 8:
        raise InputError(f"PRep {height}x{width}: the height must be a multiple of 4 and the width of 8")
    if num_parameters > height * width:
        enough = prep_height(num_parameters, width)
        raise InputError(
            f"PRep {height}x{width} holds {height * width:,} parameters, {name} has {num_parameters:,}; "
            f"at width {width} the height must be at least {enough}"
        )


def pack(rows: Tensor, prep_shape: tuple[int, int]) -> Tensor:
    """Rows (M, P) to PReps (M, 1, H, W): row by row, zeros at the end."""
    height, width = prep_shape
    check_prep_shape(prep_shape, rows.shape[1], "the instance")
    padding = height * width - rows.shape[1]
    return (F.pad(rows, (0, padding)) if padding else rows).view(-1, 1, height, width)


def unpack(preps: Tensor, num_parameters: int) -> Tensor:
    """PReps (M, 1, H, W) to rows (M, P), without the padding."""
    return preps.flatten(1)[:, :num_parameters]
