"""Conv2d, Linear and BatchNorm2d that compute one instance, or M instances at once.

The parameters of one instance have PyTorch's usual shapes, those of M instances have shape (M, *shape)
(`torch.func.functional_call` puts either into the same module). Activations of M instances on images are folded into channels,
instance by instance: (B, M*C, H, W), and (B, M*F) after flattening. Those on points are (M, B, F).

What has no parameters (activations, pooling, flatten, sums) is plain PyTorch. So a target architecture is written as if for
one net. models/instances.py chooses the form; only this file computes M instances.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_INPUTS = 16  # of a linear layer
FEW_PRODUCTS = 4  # of a linear layer that is computed as a sum of them
# On a GPU in bfloat16: input channels of an instance from which on grouped convs are fast; instances that are merged, and their
# channels, at most.
FEW_CHANNELS, MERGED_INSTANCES, MERGED_CHANNELS = 16, 8, 256


def fold_instances(x: Tensor) -> Tensor:
    """Return maps (M, B, C, H, W) of M instances as (B, M*C, H, W), in channels-last memory; vectors (M, B, F) as (B, M*F)."""
    if x.dim() == 3:
        return x.transpose(0, 1).flatten(1)
    m, b, c, h, w = x.shape
    return x.permute(1, 3, 4, 0, 2).reshape(b, h, w, m * c).permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Return maps (B, C, H, W) in channels-last memory, also by their strides, which one channel leaves open.

    Convs choose the layout of their output by them, and two layouts in one net make what adds or compares them slow.
    """
    b, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).contiguous().flatten().view(b, h, w, c).permute(0, 3, 1, 2)


def unfold_instances(x: Tensor, m: int) -> Tensor:
    """Return maps (B, M*C, H, W) as (M, B, C, H, W) and vectors (B, M*F) as (M, B, F), a view; `fold_instances` undoes it."""
    return x.unflatten(1, (m, -1)).transpose(0, 1)


class Conv2d(nn.Conv2d):
    """Compute `nn.Conv2d`, also with the weights (M, O, I, k, k) and biases (M, O) of M instances.

    The input is then (B, M*I, H, W), or (B, I, H, W) if all instances see the same images, and the output (B, M*O, H', W').
    """

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            # The same numbers, from every stride-th pixel. In the backward pass, strided 1x1 convs of few channels in
            # channels-last memory write past their buffer on CPUs with AVX2 or AVX-512 (oneDNN issue 6035).
            # Taken from channels-last memory, so that the gradient is in it too.
            x = x.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]].permute(0, 3, 1, 2)
            stride = (1, 1)
        if self.weight.dim() == 4:
            return F.conv2d(x, self.weight, self.bias, stride, self.padding, self.dilation)
        m, o, i, kh, kw = self.weight.shape
        weight, bias = self.weight, None if self.bias is None else self.bias.reshape(m * o)
        groups = 1 if x.shape[1] == i else m  # instances that share their images share the input channels
        if groups > 1 and on_tensor_cores(x):
            if self.kernel_size == (1, 1) or self.stride != (1, 1):
                return merged_conv2d(x, weight, bias, stride, self.padding, self.dilation)
            if i < FEW_CHANNELS and o % FEW_CHANNELS == 0:
                x, weight = filled_channels(x, m), F.pad(weight, (0, 0, 0, 0, 0, FEW_CHANNELS - i))
        weight = weight.reshape(m * o, -1, kh, kw).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, bias, stride, self.padding, self.dilation, groups)


def in_bfloat16(x: Tensor) -> bool:
    """Return whether convs of x are computed in bfloat16."""
    kind = x.device.type
    return x.dtype == torch.bfloat16 or kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)


def on_tensor_cores(x: Tensor) -> bool:
    """Return whether convs of x are computed on a GPU in bfloat16."""
    return x.is_cuda and in_bfloat16(x)


def filled_channels(x: Tensor, m: int) -> Tensor:
    """Return maps (B, M*I, H, W) with zeros after each instance's channels, FEW_CHANNELS of each, in channels-last memory."""
    x = x.permute(0, 2, 3, 1).unflatten(3, (m, -1))
    return F.pad(x, (0, FEW_CHANNELS - x.shape[4])).flatten(3).permute(0, 3, 1, 2)


def merged_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any = (1, 1)
) -> Tensor:
    """Compute a grouped conv of M instances as convs of several instances each, with zeros between them in the weights.

    x is (B, M*I, H, W), weight (M, O, I, k, k), bias (M*O,). cuDNN computes grouped convs with a stride, and of one pixel, group
    by group: merged, they are several times faster (docs/performance.md). NaN spreads to the instances merged with its own.
    """
    m, o, i, kh, kw = weight.shape
    at_once = max(min(MERGED_INSTANCES, MERGED_CHANNELS // i, m), 1)
    parts = -(-m // at_once)
    weight = F.pad(weight, (0, 0) * 4 + (0, parts * at_once - m)).view(parts, at_once, o, 1, i, kh, kw)
    own = torch.eye(at_once, dtype=weight.dtype, device=weight.device).view(at_once, 1, at_once, 1, 1, 1)
    weights = list((weight * own).reshape(parts, at_once * o, at_once * i, kh, kw).to(x.dtype).unbind())
    rest = m - (parts - 1) * at_once
    weights[-1] = weights[-1][: rest * o, : rest * i]
    inputs = x.split(at_once * i, 1)
    out = [F.conv2d(x, w, None, stride, padding, dilation) for x, w in zip(inputs, weights)]
    joined = out[0] if parts == 1 else torch.cat(out, 1)
    return joined if bias is None else joined + bias.to(joined.dtype)[:, None, None]


class Linear(nn.Linear):
    """Compute `nn.Linear`, also with the weights (M, O, I) and biases (M, O) of M instances.

    Activations (B, M*I) then become (B, M*O), and (M, B, I) become (M, B, O).
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return super().forward(x)
        m, o, i = self.weight.shape
        if x.dim() == 3 and torch.compiler.is_compiling():
            return self.fusible(x)
        if x.dim() == 3 and m == 1:  # faster than a batch of one product
            weight = self.weight.squeeze(0).t()
            # The gradient has the layout of what is multiplied: with few inputs, a row for each is 8 times faster on a CPU.
            weight = weight.contiguous() if i < FEW_INPUTS else weight
            return torch.addmm(self.bias.squeeze(0), x.squeeze(0), weight).unsqueeze(0)
        weight, bias = self.weight.transpose(1, 2), self.bias[:, None]
        if x.dim() == 3:
            return torch.baddbmm(bias, x, weight)
        out = torch.bmm(x.view(-1, m, i).transpose(0, 1), weight) + bias  # (M, B, O)
        return out.transpose(0, 1).reshape(-1, m * o)

    def fusible(self, x: Tensor) -> Tensor:
        """Compute M instances on points (M, B, I) so that a compiler joins the layer with the sines around it.

        Layers of few inputs or outputs are sums of products, which become a part of the kernel beside them. Weights are copied
        from their rows, where they do not begin at aligned addresses.
        """
        if self.in_features <= FEW_PRODUCTS:
            return (x[:, :, None] * self.weight[:, None]).sum(3) + self.bias[:, None]
        if self.out_features <= FEW_PRODUCTS:
            sums = [(x * self.weight[:, None, i]).sum(2) for i in range(self.out_features)]
            return torch.stack(sums, 2) + self.bias[:, None]
        return torch.bmm(x, self.weight.contiguous().transpose(1, 2)) + self.bias[:, None]


class BatchNorm2d(nn.BatchNorm2d):
    """Compute `nn.BatchNorm2d`, also with parameters and running statistics (M, C) of M instances.

    Batch norm works channel by channel, so M instances folded into channels are M*C channels. The running statistics are
    updated in place and must be contiguous.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1:
            return super().forward(x)
        assert (
            self.running_mean is not None and self.running_var is not None and self.momentum is not None
        )  # its default
        mean, var = self.running_mean.view(-1), self.running_var.view(-1)
        weight, bias = self.weight.reshape(-1), self.bias.reshape(-1)
        return F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)


def foreign_layer(net: nn.Module) -> str | None:
    """Return the name of a layer that computes one instance alone, or None if every layer here computes M at once."""
    for path, layer in net.named_modules():
        if not list(layer.parameters(recurse=False)) and not list(layer.buffers(recurse=False)):
            continue
        if not isinstance(layer, (Conv2d, Linear, BatchNorm2d)):
            return path
        if isinstance(layer, Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
            return path
    return None
