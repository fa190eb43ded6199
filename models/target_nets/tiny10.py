"""Tiny10: eight convs, the mean of the map and one linear layer (Csiszarik et al. 2021, arXiv 2110.14633)."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import BatchNorm2d, Conv2d, Linear
from models.rows import Channels, chain
from models.target_nets.parts import Part, PartedNet

# side of the image: (widths of the convs, padding of those of 3x3). 8 pixels is our small relative for `photos`, where convs
# without padding would leave nothing.
SIZES = {
    8: ((4, 4, 8, 8, 8, 16, 16, 16), 1),
    32: ((16, 16, 32, 32, 32, 64, 64, 64), 0),
    64: ((16, 16, 32, 32, 32, 64, 64, 64), 0),
}
STRIDES = (1, 1, 2, 1, 1, 2, 1, 1)
KERNELS = (3, 3, 3, 3, 3, 3, 3, 1)


class Tiny10(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes), for sides S = 8, 32, 64. 86,778 parameters on CIFAR-10.

    Convs have a bias in the form with batch norm too: without it, the paper's number of parameters would be 320 less. It
    changes no output.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, fused: bool = False):
        super().__init__()
        channels, side, _ = image_shape
        widths, padding = SIZES[side]
        self.convs = [f"conv{i}" for i in range(1, len(widths) + 1)]
        for name, out, kernel, stride in zip(self.convs, widths, KERNELS, STRIDES):
            setattr(self, name, Conv2d(channels, out, kernel, stride, padding if kernel > 1 else 0))
            setattr(self, name.replace("conv", "bn"), nn.Identity() if fused else BatchNorm2d(out))
            channels = out
        self.fc = Linear(channels, num_classes)

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        return chain([*self.convs, "fc"])

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each conv."""

        def part(name: str) -> Part:
            conv, norm = getattr(self, name), getattr(self, name.replace("conv", "bn"))

            def compute(x: Tensor) -> Tensor:
                return norm(conv(x))

            return Part(name, compute, F.relu_)

        return [*map(part, self.convs), Part("fc", lambda x: self.fc(x.mean((2, 3))))]
