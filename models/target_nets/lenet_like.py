"""LeNetLike (supplement Fig. 3, top left): two or three 5x5 convs and three fully connected layers."""

import torch
import torch.nn.functional as F

from models.layers import Conv2d, Linear
from models.rows import Channels, chain
from models.target_nets.parts import Part, PartedNet

# side of the image: convs as (out channels, kernel, stride, padding), then the widths of the hidden FC layers.
# 8 pixels is our small relative for `photos`, the others are the paper's.
SIZES = {
    8: ([(2, 3, 2, 1), (4, 3, 2, 1)], [12, 10]),
    32: ([(6, 5, 2, 0), (16, 5, 2, 0)], [120, 84]),
    64: ([(4, 5, 2, 2), (8, 5, 2, 0), (16, 5, 2, 0)], [120, 84]),
}


class LeNetLike(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes), for sides S = 8, 32, 64. Its ClassId is 0."""

    fc1: Linear
    fc2: Linear
    fc3: Linear

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        channels, side, _ = image_shape
        convs, hidden = SIZES[side]
        for i, (out, kernel, stride, padding) in enumerate(convs, start=1):
            setattr(self, f"conv{i}", Conv2d(channels, out, kernel, stride, padding))
            channels, side = out, (side + 2 * padding - kernel) // stride + 1
        features = channels * side * side
        for i, out in enumerate([*hidden, num_classes], start=1):
            setattr(self, f"fc{i}", Linear(features, out))
            features = out
        self.num_convs = len(convs)

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        layers = [*(f"conv{i}" for i in range(1, self.num_convs + 1)), "fc1", "fc2", "fc3"]
        return chain(layers)

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each layer."""
        convs = [f"conv{i}" for i in range(1, self.num_convs + 1)]
        return [
            *(Part(name, getattr(self, name), F.leaky_relu_) for name in convs),
            Part("fc1", lambda x: self.fc1(torch.flatten(x, 1)), F.leaky_relu_),
            Part("fc2", self.fc2, F.leaky_relu_),
            Part("fc3", self.fc3),
        ]
