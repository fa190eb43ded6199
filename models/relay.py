"""The way from the decoder's second conv to its third, where both are in channels-last memory: bias, leaky ReLU, two transposes.

The second conv ends in channels-last memory, which is where convs are fast. The paper's reshape counts its numbers as contiguous
maps do, and the third conv wants channels last again. PyTorch copies between the two an element at a time; here it is some rows at
a time, on a GPU a tile, and what is computed for every element on the way costs no pass of its own (docs/performance.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # it comes with PyTorch for CUDA on Linux; without it, PyTorch's operations take its place
    triton = None

SLOPE = 0.01  # of nn.LeakyReLU
TILE = 64
ROWS_AT_ONCE = 32  # on the CPU: what is written to a column is then a whole line of its cache


def transposed(
    x: Tensor, shape: tuple[int, int], bias: Tensor | None = None, activations: Tensor | None = None
) -> Tensor:
    """Return x (B, R, C) transposed, cut or filled with zeros to (B, *shape), in contiguous memory.

    With a bias, which is as long as the result is high, it is added to the columns of x, and leaky ReLU is computed. With
    activations (B, R, C), outputs of leaky ReLU, x is a gradient of them, and that of its inputs is returned.
    """
    if triton is not None and x.is_cuda and x.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return _transposed_in_tiles(x, shape, bias, activations)
    (number, rows, columns), (height, width) = x.shape, shape
    filled = min(columns, height)
    out = x.new_empty(number, height, width)
    out[:, filled:], out[:, :, rows:] = 0, 0
    for first in range(0, rows, ROWS_AT_ONCE):
        part = slice(first, min(first + ROWS_AT_ONCE, rows))
        values = x[:, part, :filled]
        if bias is not None:
            values = F.leaky_relu(values + bias.to(x.dtype), SLOPE)
        if activations is not None:
            values = torch.where(activations[:, part, :filled] > 0, values, values * SLOPE)
        out[:, :filled, part] = values.transpose(1, 2)
    return out


def _transposed_in_tiles(x: Tensor, shape: tuple[int, int], bias: Tensor | None, activations: Tensor | None) -> Tensor:
    (number, rows, columns), (height, width) = x.shape, shape
    out = x.new_empty(number, height, width)
    grid = (triton.cdiv(max(rows, width), TILE), triton.cdiv(height, TILE), number)
    others = x if bias is None else bias, x if activations is None else activations  # a kernel takes no None
    computed = bias is not None, activations is not None
    _transpose_tile[grid](x.contiguous(), *others, out, rows, columns, height, width, *computed, SLOPE, TILE)
    return out


if triton is not None:

    @triton.jit
    def _transpose_tile(
        x_pointer,
        bias_pointer,
        activations_pointer,
        out_pointer,
        rows,
        columns,
        height,
        width,
        WITH_BIAS: tl.constexpr,
        WITH_ACTIVATIONS: tl.constexpr,
        SLOPE: tl.constexpr,
        TILE: tl.constexpr,
    ):
        """Write the tile of `out` that this program is for, as `transposed` says."""
        row = tl.program_id(0) * TILE + tl.arange(0, TILE)
        column = tl.program_id(1) * TILE + tl.arange(0, TILE)
        first = tl.program_id(2).to(tl.int64)  # B*R*C may be above 2**31
        at = first * rows * columns + row[:, None] * columns + column[None, :]
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        x = tl.load(x_pointer + at, inside, other=0.0).to(tl.float32)
        if WITH_BIAS:
            x += tl.load(bias_pointer + column, column < height, other=0.0).to(tl.float32)[None, :]
            x = tl.where(x > 0, x, x * SLOPE)
        if WITH_ACTIVATIONS:
            activations = tl.load(activations_pointer + at, inside, other=0.0)
            x = tl.where(activations > 0, x, x * SLOPE)
        at = first * height * width + column[:, None] * width + row[None, :]
        inside = (column[:, None] < height) & (row[None, :] < width)
        tl.store(out_pointer + at, tl.trans(x.to(out_pointer.dtype.element_ty)), inside)


@torch.library.custom_op("netspace::relay", mutates_args=())
def relay(x: Tensor, bias: Tensor, channels: int) -> Tensor:
    """Return leaky ReLU of x + bias, reshaped as contiguous maps are, with channels last again: (M, S', channels).

    x (M, S, C + unused) are maps of S pixels with channels last, bias (C,); S' * channels is S * C.
    """
    m, pixels, _ = x.shape
    maps = transposed(x, (len(bias), pixels), bias=bias)  # (M, C, S)
    return transposed(maps.view(m, channels, -1), (maps[0].numel() // channels, channels))


@torch.library.custom_op("netspace::relay_backward", mutates_args=())
def relay_backward(gradient: Tensor, out: Tensor, channels: int, shape: list[int]) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, whose shape is given, and of the bias (channels,)."""
    m, pixels, width = shape
    maps = transposed(gradient, (out.shape[2], out.shape[1]), activations=out).view(m, channels, pixels)
    of_bias = maps.sum(2).sum(0, dtype=torch.promote_types(maps.dtype, torch.float32))
    return transposed(maps, (pixels, width)), of_bias


@relay.register_fake
def _(x: Tensor, bias: Tensor, channels: int) -> Tensor:
    return x.new_empty(len(x), len(bias) * x.shape[1] // channels, channels)


@relay_backward.register_fake
def _(gradient: Tensor, out: Tensor, channels: int, shape: list[int]) -> tuple[Tensor, Tensor]:
    return gradient.new_empty(shape), gradient.new_empty(channels, dtype=torch.promote_types(out.dtype, torch.float32))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x, bias, _ = inputs
    ctx.save_for_backward(output)
    ctx.channels, ctx.shape, ctx.bias_dtype = len(bias), list(x.shape), bias.dtype


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    (out,) = ctx.saved_tensors
    of_x, of_bias = relay_backward(gradient.contiguous(), out, ctx.channels, ctx.shape)
    return of_x, of_bias.to(ctx.bias_dtype), None


relay.register_autograd(_gradients, setup_context=_save)
