"""ResNet8, ResNet32 and ResNet56 (supplement Fig. 3 and 4) and ResNet20, with batch norm for training or fused without it.

Modules carry torchvision's names, so that a state dict reads `layer2.0.downsample.1.running_var`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import BatchNorm2d, Conv2d, Linear
from models.rows import Channels
from models.target_nets.parts import Part, PartedNet

# side of the image: (width of the three stages, kernel of the average pool). 8 pixels is our small relative for `photos`.
SIZES = {8: ((4, 8, 16), 2), 32: ((16, 32, 64), 8), 64: ((16, 32, 64), 8)}
# (side, depth) of the teacher for `photos`: there, depth alone does not make it better than ResNet32.
WIDER = {(8, 56): (8, 16, 32)}


STAGES = ("layer1", "layer2", "layer3")


def conv(in_channels: int, out_channels: int, kernel: int, stride: int, fused: bool) -> Conv2d:
    """Return a conv that batch norm follows. It has no bias; the fused one has the batch norm's."""
    return Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=fused)


def norm(channels: int, fused: bool) -> nn.Module:
    """Return the batch norm, or nothing in the fused form."""
    return nn.Identity() if fused else BatchNorm2d(channels)


def pooled(x: Tensor, kernel: int) -> Tensor:
    """Return means over squares of pixels. Over the whole map, a GPU has a faster way than the pool."""
    return x.mean((2, 3), keepdim=True) if x.is_cuda and x.shape[2] == kernel else F.avg_pool2d(x, kernel)


class BasicBlock(nn.Module):
    """Add two 3x3 convs to a shortcut. The shortcut is the identity or, where the shape changes, a strided 1x1 conv."""

    def __init__(self, in_channels: int, channels: int, stride: int, fused: bool):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, channels, 3, stride, fused), norm(channels, fused)
        self.conv2, self.bn2 = conv(channels, channels, 3, 1, fused), norm(channels, fused)
        if stride == 1 and in_channels == channels:
            self.downsample: nn.Module = nn.Identity()
        else:
            self.downsample = nn.Sequential(conv(in_channels, channels, 1, stride, fused), norm(channels, fused))

    def add(self, x: Tensor) -> Tensor:
        """Return the residual sum."""
        out = self.activate(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return out + self.downsample(x)

    @staticmethod
    def activate(x: Tensor) -> Tensor:
        """Return the activations, in place."""
        return F.leaky_relu_(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.add(x))


class ReluBlock(BasicBlock):
    """Compute a basic block with ReLU, as torchvision's."""

    @staticmethod
    def activate(x: Tensor) -> Tensor:
        return F.relu_(x)


def residual_channels(net: nn.Module, stages: Sequence[str]) -> list[Channels]:
    """Return the hidden channels of stages of basic blocks between `conv1` and `fc`.

    Every block has a group of its own, and every stage one: its blocks are added channel by channel.
    """
    groups, stream = [], Channels(made_by=["conv1"])
    for stage in stages:
        for i, block in enumerate(getattr(net, stage)):
            name = f"{stage}.{i}"
            groups.append(Channels([f"{name}.conv1"], [f"{name}.conv2"]))
            stream.read_by.append(f"{name}.conv1")
            if isinstance(block.downsample, nn.Sequential):
                stream.read_by.append(f"{name}.downsample.0")
                groups.append(stream)
                stream = Channels(made_by=[f"{name}.downsample.0"])
            stream.made_by.append(f"{name}.conv2")
    stream.read_by.append("fc")
    return [*groups, stream]


def residual_parts(net: nn.Module, stages: Sequence[str]) -> list[Part]:
    """Return the parts of stages of basic blocks."""
    return [
        Part(f"{stage}.{i}", block.add, block.activate)
        for stage in stages
        for i, block in enumerate(getattr(net, stage))
    ]


class ResNet(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes). Depth 8 has ClassId 2, depth 32 ClassId 3; 56 is the teacher.

    The paper's have leaky ReLU. Those of depth 20 have ReLU, and `width` times the usual channels.
    `fused=True` builds the form that rows hold: every conv has a bias, and there is no batch norm (supplement Sec. VI).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        depth: int,
        fused: bool = False,
        width: int = 1,
        block: type[BasicBlock] = BasicBlock,
    ):
        super().__init__()
        channels, side, _ = image_shape
        sizes, self.pool = SIZES[side]
        first, second, third = (width * each for each in WIDER.get((side, depth), sizes))
        blocks, self.block = (depth - 2) // 6, block
        self.conv1, self.bn1 = conv(channels, first, 3, 1, fused), norm(first, fused)
        self.layer1 = self._stage(first, first, blocks, 1, fused)
        self.layer2 = self._stage(first, second, blocks, 2, fused)
        self.layer3 = self._stage(second, third, blocks, 2, fused)
        self.fc = Linear(third * (side // 4 // self.pool) ** 2, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, in_channels: int, channels: int, blocks: int, stride: int, fused: bool) -> nn.Sequential:
        first = self.block(in_channels, channels, stride, fused)
        return nn.Sequential(first, *(self.block(channels, channels, 1, fused) for _ in range(blocks - 1)))

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        return residual_channels(self, STAGES)

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after the first conv, each block and the pooling."""
        return [
            Part("stem", lambda x: self.bn1(self.conv1(x)), self.block.activate),
            *residual_parts(self, STAGES),
            Part("pool", lambda x: torch.flatten(pooled(x, self.pool), 1)),
            Part("fc", self.fc),
        ]
