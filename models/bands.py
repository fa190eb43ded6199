"""Convs and batch norm of M instances that follow one another in the batch, for small images.

A conv of few channels on an 8x8 image is too little work to be one, and M of them as a grouped conv reach a tenth of a
CPU's speed. Here a band of an image's rows is a vector, and the conv of it a matrix product: the kernel's weights stand in
a matrix (K, N) wherever they belong, with zeros between them. That multiplies more, by up to a third of the image's width,
but in a batch of M matrix products, at most of the machine's speed. The sums are the conv's.

Images are in channels-last memory, so that (M*B, C, H, W) is (M, B, H*W*C) without a copy.
"""

from functools import cached_property, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers that a band puts out, at least: enough for a matrix product, few enough to leave out most zeros.
BAND_OUTPUTS = 64


def is_banded(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...] | str, dilation: tuple[int, ...]
) -> bool:
    """Whether a conv is as banded_conv computes it: the same both ways, and no output sees padding alone."""
    alike = all(len(set(each)) == 1 for each in (kernel, stride, padding, dilation))
    return alike and dilation[0] == 1 and not isinstance(padding, str) and padding[0] < kernel[0]


def banded_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Conv of (M*B, I, H, W) with square kernels (M, O, I, k, k) and biases (M, O): (M*B, O, H', W')."""
    bands = bands_of(tuple(x.shape[1:]), weight.shape[1], weight.shape[-1], stride, padding)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):  # does not see what is inside
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        return BandedConv.apply(x, weight, bias, bands)


def normalize(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm of (M*B, C, H, W) with all else (M, C), as ``F.batch_norm`` does it; updates what runs in place."""
    if not training:
        scale = weight * (running_var + eps).rsqrt()
        flat, shift = pixels(x, len(weight)), bias - running_mean * scale
        out = torch.addcmul(over_pixels(shift, flat), flat, over_pixels(scale, flat))
        return images(out, weight.shape[1], x.shape[2])
    out, mean, var = BatchNorm.apply(x, weight, bias, eps)
    n = x.numel() // weight.numel()
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (n / (n - 1)), momentum)
    return out


def pixels(x: Tensor, m: int) -> Tensor:
    """(M*B, C, H, W) as (M, B, H*W*C)."""
    return x.permute(0, 2, 3, 1).reshape(m, x.shape[0] // m, -1)


def images(x: Tensor, channels: int, height: int) -> Tensor:
    """(M, B, H*W*C) as (M*B, C, H, W)."""
    return x.view(x.shape[0] * x.shape[1], height, -1, channels).permute(0, 3, 1, 2)


def over_pixels(values: Tensor, x: Tensor) -> Tensor:
    """(M, C), once for every pixel of x (M, B, H*W*C): (M, 1, H*W*C)."""
    return values.repeat(1, x.shape[2] // values.shape[1])[:, None]


def channel_means(x: Tensor, channels: int) -> Tensor:
    """Over batch and pixels, of (M, B, H*W*C): (M, C)."""
    return x.mean(1).view(len(x), -1, channels).mean(1)


class Bands:
    """How a conv of images (I, H, W) is cut into bands of rows."""

    def __init__(self, image: tuple[int, int, int], out_channels: int, kernel: int, stride: int, padding: int):
        self.in_channels, self.height, self.width = image
        self.out_channels, self.kernel, self.stride, self.padding = out_channels, kernel, stride, padding
        self.out_height, self.out_width = (
            (side + 2 * padding - kernel) // stride + 1 for side in (self.height, self.width)
        )
        self.row, self.out_row = self.width * self.in_channels, self.out_width * out_channels
        self.rows = min(self.out_height, -(-BAND_OUTPUTS // self.out_row))  # that a band puts out
        self.shape = ((self.rows - 1) * stride + kernel) * self.row, self.rows * self.out_row  # (K, N)

    @cached_property
    def slices(self) -> list[tuple[slice, slice, slice, slice]]:
        """Of each band: what it reads of an image, K and N for that, what it writes. Padding is left out of K."""
        found = []
        for first in range(0, self.out_height, self.rows):
            last = min(first + self.rows, self.out_height)
            top = first * self.stride - self.padding
            begin, end = max(0, top), min(self.height, (last - 1) * self.stride - self.padding + self.kernel)
            read, k = (slice((begin - by) * self.row, (end - by) * self.row) for by in (0, top))
            n, write = (slice((first - by) * self.out_row, (last - by) * self.out_row) for by in (first, 0))
            found.append((read, k, n, write))
        return found

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Which weight stands at each place of the matrix (K*N,), and at which places each weight stands (O*I*k*k, most).

        Weights count from 0, in the order (O, I, k, k); what stands nowhere is one past the last.
        """
        o, i, k = self.out_channels, self.in_channels, self.kernel
        weights = torch.arange(o * i * k * k).view(o, i, k, k)
        of_place = torch.full((self.shape[0] // self.row, self.width, i, self.rows, self.out_width, o), weights.numel())
        for row in range(self.rows):
            for column in range(self.out_width):
                left = column * self.stride - self.padding
                seen = slice(max(0, left), min(self.width, left + k))
                kernel = weights[..., seen.start - left : seen.stop - left].permute(2, 3, 1, 0)  # (k, seen, I, O)
                of_place[row * self.stride : row * self.stride + k, seen, :, row, column] = kernel
        of_place = of_place.flatten()
        order = of_place.argsort(stable=True)
        places = order.split(of_place.bincount(minlength=weights.numel() + 1).tolist())[: weights.numel()]
        return of_place, torch.nn.utils.rnn.pad_sequence(list(places), True, of_place.numel())


bands_of = lru_cache(maxsize=None)(Bands)


def taken(values: Tensor, index: Tensor) -> Tensor:
    """values[:, index] of (M, n), and 0 where the index is n: (M, *index.shape)."""
    index = index.to(values.device)
    return F.pad(values, (0, 1)).index_select(1, index.flatten()).view(-1, *index.shape)


class BandedConv(torch.autograd.Function):
    """See banded_conv."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, bands: Bands) -> Tensor:
        matrix = taken(weight.flatten(1), bands.places[0]).view(-1, *bands.shape)
        ctx.save_for_backward(x, matrix)
        ctx.bands, ctx.weight_shape, ctx.has_bias = bands, weight.shape, bias is not None
        flat = pixels(x, len(weight))
        shape = len(x), bands.out_channels, bands.out_height, bands.out_width
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        torch.cat(
            [torch.bmm(flat[..., read], matrix[:, k, n]) for read, k, n, _ in bands.slices],
            2,
            out=pixels(out, len(weight)),
        )
        if bias is not None:
            flat = pixels(out, len(weight))
            flat += over_pixels(bias, flat)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        bands, m = ctx.bands, len(matrix)
        grad, flat = pixels(grad, m), pixels(x, m)
        of_x = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        of_matrix, done = torch.zeros_like(matrix), 0
        for read, k, n, write in bands.slices:
            of_matrix[:, k, n] += torch.bmm(flat[..., read].transpose(1, 2), grad[..., write])
            if of_x is not None:
                of_band = torch.bmm(grad[..., write], matrix[:, k, n].transpose(1, 2))
                of_x[..., done : read.start] = 0
                of_x[..., read.start : done] += of_band[..., : max(0, done - read.start)]
                of_x[..., max(done, read.start) : read.stop] = of_band[..., max(0, done - read.start) :]
                done = read.stop
        if of_x is not None:
            of_x[..., done:] = 0
        return (
            None if of_x is None else images(of_x, bands.in_channels, bands.height),
            taken(of_matrix.flatten(1), bands.places[1]).sum(2).view(ctx.weight_shape),
            grad.sum(1).view(m, -1, bands.out_channels).sum(1) if ctx.has_bias else None,
            None,
        )


class BatchNorm(torch.autograd.Function):
    """Batch norm in training: (M*B, C, H, W), weights and biases (M, C) to what is normalized, means, (biased) variances."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        m, channels = weight.shape
        out = torch.empty_like(x, memory_format=torch.channels_last)
        flat, flat_out = pixels(x, m), pixels(out, m)
        mean = channel_means(flat, channels)
        centered = flat - over_pixels(mean, flat)
        var = channel_means(torch.square(centered, out=flat_out), channels)
        scale = (var + eps).rsqrt()
        torch.addcmul(over_pixels(bias, flat), centered, over_pixels(weight * scale, flat), out=flat_out)
        ctx.save_for_backward(centered, weight, scale)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centered, weight, scale = ctx.saved_tensors
        (m, channels), height = weight.shape, grad.shape[2]
        grad = pixels(grad, m)
        n = grad.shape[1] * grad.shape[2] // channels
        of_x = grad * centered
        of_bias, of_scale = channel_means(grad, channels), channel_means(of_x, channels)
        # scale * weight * (grad - of_bias - centered * of_scale * scale^2)
        slope = weight * scale
        shifts, slopes = (over_pixels(each, grad) for each in (-slope * of_bias, -slope * of_scale * scale.square()))
        torch.addcmul(shifts, centered, slopes, out=of_x)
        of_x.addcmul_(grad, over_pixels(slope, grad))
        return images(of_x, channels, height), of_scale * scale * n, of_bias * n, None
