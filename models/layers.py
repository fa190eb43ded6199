"""Conv2d, Linear and BatchNorm2d that compute one instance or M instances at once.

The parameters of one instance have PyTorch's usual shapes; those of M instances have one more leading dimension M
(``torch.func.functional_call`` puts either into the same module). Activations of M instances are folded into channels,
instance by instance: (B, M*C, H, W) and (B, M*F). Whatever has no parameters (activations, pooling, flatten, sums) is
therefore plain PyTorch, and a target architecture is written as if for a single net.

This is the only file that knows how M instances are computed: a faster way is a change here and nowhere else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError

# Grouped convs on the CPU are twice as fast where a group has this many output channels: a vector register's floats.
CPU_GROUP_CHANNELS = 8


def fold_instances(x: Tensor) -> Tensor:
    """(M, B, C, H, W), each instance with its own images, to (B, M*C, H, W) in channels-last memory."""
    m, b, c, h, w = x.shape
    return x.permute(1, 3, 4, 0, 2).reshape(b, h, w, m * c).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` that also takes the weights (M, O, I, k, k) and biases (M, O) of M instances.

    With those, the input is (B, M*I, H, W), or (B, I, H, W) when all instances look at the same images, and the output
    (B, M*O, H', W').
    """

    def forward(self, x: Tensor) -> Tensor:
        stride = self.stride
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            # The same numbers from every stride-th pixel. Strided 1x1 convs of few channels in channels-last memory write
            # past their buffer in the backward pass on CPUs with AVX2 or AVX-512 (oneDNN issue 6035, torch 2.12.0).
            x, stride = x[..., :: stride[0], :: stride[1]], (1, 1)
        if self.weight.dim() == 4:
            return F.conv2d(x, self.weight, self.bias, stride, self.padding, self.dilation, self.groups)
        m, o, i, kh, kw = self.weight.shape
        bias = None if self.bias is None else self.bias.reshape(m * o)
        if x.shape[1] == i:  # instances that share their images share the input channels: one dense conv
            weight = self.weight.reshape(m * o, i, kh, kw).contiguous(memory_format=torch.channels_last)
            return F.conv2d(x, weight, bias, stride, self.padding, self.dilation)
        together = 1 if x.is_cuda else max(1, CPU_GROUP_CHANNELS // o)
        spare = -m % together
        if spare:  # the last group is filled up with instances of zeros
            x = F.pad(x, (0, 0, 0, 0, 0, spare * i)).contiguous(memory_format=torch.channels_last)
        weight = join_groups(self.weight, together).contiguous(memory_format=torch.channels_last)
        groups = (m + spare) // together
        if not spare:
            return F.conv2d(x, weight, bias, stride, self.padding, self.dilation, groups)
        bias = None if bias is None else F.pad(bias, (0, spare * o))
        out = F.conv2d(x, weight, bias, stride, self.padding, self.dilation, groups)
        return out[:, : m * o].contiguous(memory_format=torch.channels_last)


def join_groups(weight: Tensor, together: int) -> Tensor:
    """Weights (M, O, I, k, k) for a grouped conv of so many instances a group: block diagonal, (M'*O, together*I, k, k).

    M' is M, rounded up to whole groups. The zeros between instances add nothing, but for an instance that has overflowed:
    infinity times zero is NaN, for its neighbours in the group too.
    """
    m, o, i, kh, kw = weight.shape
    if together == 1:
        return weight.reshape(m * o, i, kh, kw)
    weight = F.pad(weight, (0, 0) * 4 + (0, -m % together)).view(-1, together, o, i, kh, kw)
    blocks = torch.diag_embed(weight.movedim(1, -1), dim1=1, dim2=3)  # (M'/together, together, O, together, I, k, k)
    return blocks.reshape(-1, together * i, kh, kw)


class Linear(nn.Linear):
    """``nn.Linear`` that also takes the weights (M, O, I) and biases (M, O) of M instances.

    With those, folded activations (B, M*I) become (B, M*O), and activations (M, B, I) become (M, B, O).
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return super().forward(x)
        m, o, i = self.weight.shape
        if x.dim() == 3:
            return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))
        out = torch.bmm(x.view(-1, m, i).transpose(0, 1), self.weight.transpose(1, 2)) + self.bias[:, None]  # (M, B, O)
        return out.transpose(0, 1).reshape(-1, m * o)


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that also takes parameters and running statistics (M, C) of M instances.

    Batch norm works channel by channel, so M instances are M*C channels. The running statistics are updated in place
    and must be contiguous.
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


def check_layers(net: nn.Module, name: str) -> None:
    """Raises InputError unless all that has parameters or running statistics can compute M instances at once."""
    for path, layer in net.named_modules():
        if not list(layer.parameters(recurse=False)) and not list(layer.buffers(recurse=False)):
            continue
        where = f"{name}: '{path}'"
        if not isinstance(layer, (Conv2d, Linear, BatchNorm2d)):
            raise InputError(
                f"{where} is a {type(layer).__name__} that computes one instance alone; "
                "build nets from Conv2d, Linear and BatchNorm2d of models/layers.py"
            )
        if isinstance(layer, Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
            raise InputError(f"{where} has groups or pads otherwise than with zeros; M instances at once have neither")
