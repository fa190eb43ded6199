"""Conv2d, Linear and BatchNorm2d that compute one instance, or M instances at once.

The parameters of one instance have PyTorch's usual shapes. Those of M instances (`torch.func.functional_call` puts either
into the same module) have one of two shapes, which determine the shape of the activations:

- (M, *shape): instances are folded into channels: activations (B, M*C, H, W) and (B, M*F);
- (M, 1, *shape): instances follow one another in the batch: activations (M*B, C, H, W) and (M*B, F).

What has no parameters (activations, pooling, flatten, sums) is plain PyTorch. So a target architecture is written as if for
one net. models/instances.py chooses the form; only this file and models/bands.py compute M instances.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bands import banded_conv, is_banded, normalize


def fold_instances(x: Tensor) -> Tensor:
    """Return images (M, B, C, H, W) of M instances as (B, M*C, H, W), in channels-last memory."""
    m, b, c, h, w = x.shape
    return x.permute(1, 3, 4, 0, 2).reshape(b, h, w, m * c).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """Compute `nn.Conv2d`, also with the weights and biases of M instances.

    Folded into channels, the input is (B, M*I, H, W), or (B, I, H, W) if all instances see the same images, and the output
    (B, M*O, H', W'). In the batch, they are (M*B, I, H, W) and (M*B, O, H', W').
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 6:
            return self._in_batch(x, self.weight[:, 0], None if self.bias is None else self.bias[:, 0])
        stride = self.stride
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            # The same numbers, from every stride-th pixel. In the backward pass, strided 1x1 convs of few channels in
            # channels-last memory write past their buffer on CPUs with AVX2 or AVX-512 (oneDNN issue 6035).
            x, stride = x[..., :: stride[0], :: stride[1]], (1, 1)
        if self.weight.dim() == 4:
            return F.conv2d(x, self.weight, self.bias, stride, self.padding, self.dilation)
        m, o, i, kh, kw = self.weight.shape
        bias = None if self.bias is None else self.bias.reshape(m * o)
        weight = self.weight.reshape(m * o, i, kh, kw).contiguous(memory_format=torch.channels_last)
        groups = 1 if x.shape[1] == i else m  # instances that share their images share the input channels
        return F.conv2d(x, weight, bias, stride, self.padding, self.dilation, groups)

    def _in_batch(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_banded(self.kernel_size, self.stride, self.padding, self.dilation):
            return banded_conv(x, weight, bias, self.stride[0], int(self.padding[0]))
        biases = [None] * len(weight) if bias is None else bias
        each = zip(x.chunk(len(weight)), weight, biases)
        return torch.cat([F.conv2d(x, w, b, self.stride, self.padding, self.dilation) for x, w, b in each])


class Linear(nn.Linear):
    """Compute `nn.Linear`, also with the weights and biases of M instances.

    Folded into channels, activations (B, M*I) become (B, M*O); in the batch, (M*B, I) become (M*B, O).
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return super().forward(x)
        m, o, i = self.weight.shape[0], *self.weight.shape[-2:]
        weight, bias = self.weight.reshape(m, o, i).transpose(1, 2), self.bias.reshape(m, 1, o)
        if self.weight.dim() == 4:
            return torch.baddbmm(bias, x.view(m, -1, i), weight).view(-1, o)
        out = torch.bmm(x.view(-1, m, i).transpose(0, 1), weight) + bias  # (M, B, O)
        return out.transpose(0, 1).reshape(-1, m * o)


class BatchNorm2d(nn.BatchNorm2d):
    """Compute `nn.BatchNorm2d`, also with parameters and running statistics of M instances.

    Batch norm works channel by channel, so M instances folded into channels are M*C channels. The running statistics are
    updated in place and must be contiguous.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1:
            return super().forward(x)
        assert (
            self.running_mean is not None and self.running_var is not None and self.momentum is not None
        )  # its default
        if self.weight.dim() == 3:
            running, affine = (self.running_mean[:, 0], self.running_var[:, 0]), (self.weight[:, 0], self.bias[:, 0])
            return normalize(x, *running, *affine, self.training, self.momentum, self.eps)
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
