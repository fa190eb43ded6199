"""ResNet18 for small images, as in SANE's zoos: torchvision's, with a first conv of 3x3 and no max pool."""

import torch.nn.functional as F
from torch import nn

from models.layers import Conv2d, Linear
from models.rows import Channels
from models.target_nets.parts import Part, PartedNet
from models.target_nets.resnet import ReluBlock, conv, norm, residual_channels, residual_parts

STAGES = ("layer1", "layer2", "layer3", "layer4")


class ResNet18(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes). 11.2 million parameters at the width of 64.

    `fused=True` builds the form that rows hold: every conv has a bias, and there is no batch norm.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, fused: bool = False, width: int = 64
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(image_shape[0], width, 3, 1, fused), norm(width, fused)
        channels = width
        for i, stage in enumerate(STAGES):
            out, stride = width * 2**i, 2 if i else 1
            blocks = [ReluBlock(channels, out, stride, fused), ReluBlock(out, out, 1, fused)]
            self.add_module(stage, nn.Sequential(*blocks))
            channels = out
        self.fc = Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        return residual_channels(self, STAGES)

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after the first conv, each block and the pooling."""
        return [
            Part("stem", lambda x: self.bn1(self.conv1(x)), F.relu_),
            *residual_parts(self, STAGES),
            Part("pool", lambda x: x.mean((2, 3))),
            Part("fc", self.fc),
        ]
