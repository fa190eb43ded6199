"""PReps: the parameters of an instance as a matrix (supplement Sec. II).

    row (P,)  --pack-->  PRep (1, H, W)  --unpack-->  row (P,)

The row is written into the matrix line by line, with zeros at the end. Both functions take M instances at once and return
views; only a PRep that needs padding is a copy.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from models.errors import InputError


def prep_height(num_parameters: int, width: int) -> int:
    """Return the smallest height, a multiple of 4, of a PRep of this width for so many parameters."""
    return math.ceil(math.ceil(num_parameters / width) / 4) * 4


def check_prep_shape(prep_shape: tuple[int, int], num_parameters: Mapping[str, int]) -> None:
    """Raise InputError unless H % 4 = 0, W % 8 = 0 and H*W is enough for each of the nets, given as name: P."""
    height, width = prep_shape
    if height <= 0 or width <= 0 or height % 4 or width % 8:
        raise InputError(f"PRep {height}x{width}: the height must be a multiple of 4 and the width of 8")
    for name, number in num_parameters.items():
        if number > height * width:
            raise InputError(
                f"PRep {height}x{width} holds {height * width:,} parameters, {name} has {number:,}; "
                f"at width {width} the height must be at least {prep_height(number, width)}"
            )


def pack(rows: Tensor, prep_shape: tuple[int, int]) -> Tensor:
    """Write rows (M, P) into PReps (M, 1, H, W). Raise InputError if P is more than H*W."""
    height, width = prep_shape
    check_prep_shape(prep_shape, {"the instance": rows.shape[1]})
    padding = height * width - rows.shape[1]
    return (F.pad(rows, (0, padding)) if padding else rows).reshape(-1, 1, height, width)


def unpack(preps: Tensor, num_parameters: int) -> Tensor:
    """Read rows (M, P) from PReps (M, 1, H, W), without the padding."""
    return preps.flatten(1)[:, :num_parameters]
