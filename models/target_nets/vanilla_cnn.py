"""VanillaCNN (supplement Fig. 3, bottom left): five 3x3 convs and one fully connected layer."""

from torch import nn

from models.layers import Conv2d, Linear
from models.rows import Channels, chain
from models.target_nets.parts import Part, PartedNet, parts_of_modules

# side of the image: convs as (out channels, stride). 8 pixels is our small relative for `photos`.
SIZES = {
    8: [(4, 2), (4, 1), (8, 2), (16, 1), (8, 1)],
    32: [(8, 2), (8, 1), (32, 2), (64, 1), (64, 2)],
    64: [(8, 2), (16, 2), (32, 2), (64, 2), (64, 2)],
}


class VanillaCNN(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes), for sides S = 8, 32, 64. Its ClassId is 1."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        channels, side, _ = image_shape
        layers: list[nn.Module] = []
        for out, stride in SIZES[side]:
            layers += [Conv2d(channels, out, 3, stride, 1), nn.LeakyReLU(inplace=True)]
            channels, side = out, (side - 1) // stride + 1
        self.layers = nn.Sequential(*layers, nn.Flatten(), Linear(channels * side * side, num_classes))

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        return chain([f"layers.{i}" for i, layer in enumerate(self.layers) if isinstance(layer, (Conv2d, Linear))])

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each conv."""
        return parts_of_modules("layers", list(self.layers), (nn.LeakyReLU,))
