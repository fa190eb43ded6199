"""The CNNs of published zoos: CNN-s and CNN-l of modelzoos.cc (SANE Sec. 5), and Unterthiner's net (2020).

Modules have the names of the zoos, which count activations, pooling and dropout too. Dropout itself is left out: it has no
parameters, and zoos are read after training.
"""

from torch import nn

from models.layers import Conv2d, Linear
from models.rows import Channels, chain
from models.target_nets.parts import Part, PartedNet, parts_of_modules

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}


class ModuleListNet(PartedNet):
    """Apply the modules of `module_list` in order: a net of modelzoos.cc."""

    def __init__(self, modules: list[nn.Module]):
        super().__init__()
        self.module_list = nn.ModuleList(modules)

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        layers = [i for i, module in enumerate(self.module_list) if isinstance(module, (Conv2d, Linear))]
        return chain([f"module_list.{i}" for i in layers])

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each activation."""
        return parts_of_modules("module_list", list(self.module_list), tuple(ACTIVATIONS.values()))


class CnnSmall(ModuleListNet):
    """CNN-s: map images (B, C, 28, 28) to logits (B, classes). 2,464 parameters on one channel, 2,864 on three."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, activation: str):
        act = ACTIVATIONS[activation]
        super().__init__(
            [
                *(Conv2d(image_shape[0], 8, 5), nn.MaxPool2d(2), act()),  # 28 -> 24 -> 12
                *(Conv2d(8, 6, 5), nn.MaxPool2d(2), act()),  # -> 8 -> 4
                *(Conv2d(6, 4, 2), act(), nn.Flatten()),  # -> 3
                *(Linear(36, 20), act(), Linear(20, num_classes)),
            ]
        )


class CnnLarge(ModuleListNet):
    """CNN-l: map images (B, C, 32, 32) to logits (B, classes). 10,853 parameters on three channels."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, activation: str):
        act = ACTIVATIONS[activation]
        super().__init__(
            [
                *(Conv2d(image_shape[0], 16, 3), nn.MaxPool2d(2), act(), nn.Identity()),  # 32 -> 30 -> 15
                *(Conv2d(16, 32, 3), nn.MaxPool2d(2), act(), nn.Identity()),  # -> 13 -> 6
                *(Conv2d(32, 15, 3), nn.MaxPool2d(2), act(), nn.Identity(), nn.Flatten()),  # -> 4 -> 2
                *(Linear(60, 20), act(), nn.Identity(), Linear(20, num_classes)),
            ]
        )


class Unterthiner(PartedNet):
    """Map images (B, C, S, S) to logits (B, classes): three 3x3 convs of stride 2, the mean of the map, one linear layer.

    4,970 parameters on one channel.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, activation: str):
        super().__init__()
        self.conv1 = Conv2d(image_shape[0], 16, 3, 2)
        self.conv2 = Conv2d(16, 16, 3, 2)
        self.conv3 = Conv2d(16, 16, 3, 2)
        self.fc = Linear(16, num_classes)
        self.activation = ACTIVATIONS[activation]()

    def hidden_channels(self) -> list[Channels]:
        """Return the hidden channels that may be permuted (models/rows.py)."""
        return chain(["conv1", "conv2", "conv3", "fc"])

    def parts(self) -> list[Part]:
        """Return the parts, with a stitch point after each conv."""
        convs = [Part(name, getattr(self, name), self.activation) for name in ("conv1", "conv2", "conv3")]
        return [*convs, Part("fc", lambda x: self.fc(x.mean((2, 3))))]
