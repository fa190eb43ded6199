"""The target architectures by name. To add one, write its module and one entry here.

`build(input_shape, num_outputs)` returns the net in the form that is trained, `build(..., fused=True)` in the form that a row
holds. An architecture without batch norm has one form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from torch import nn

from models.errors import InputError
from models.target_nets.cnn import ACTIVATIONS, CnnLarge, CnnSmall, Unterthiner
from models.target_nets.lenet_like import LeNetLike
from models.target_nets.resnet import ReluBlock, ResNet
from models.target_nets.resnet18 import ResNet18
from models.target_nets.siren import Siren, check_widths
from models.target_nets.tiny10 import Tiny10
from models.target_nets.vanilla_cnn import VanillaCNN


@dataclass(frozen=True)
class Architecture:
    """A kind of net. Instances of one architecture differ in their parameters alone.

    `class_id` orders architectures by their number of parameters; the teacher has none, nor has an architecture of other zoos.
    `list_entry` is the architecture in an input list of the original release: class, then typed arguments. `sides` are the
    image sides that it is defined for; None if it does not take images.
    """

    name: str
    class_id: int | None
    list_entry: str
    constructor: Callable[..., nn.Module]
    has_batch_norm: bool = False
    sides: Sequence[int] | None = (8, 32, 64)

    def takes(self, input_shape: tuple[int, ...]) -> bool:
        """Return whether the architecture is defined for images of this shape."""
        square = len(input_shape) == 3 and input_shape[1] == input_shape[2]
        return self.sides is not None and square and input_shape[1] in self.sides

    def build(self, input_shape: tuple[int, ...], num_outputs: int, fused: bool = False) -> nn.Module:
        """Return one net for inputs of `input_shape`, (C, S, S) for images.

        Raise InputError for images of a side that the architecture is not defined for.
        """
        if self.sides is not None and not self.takes(input_shape):
            size = "x".join(map(str, input_shape[1:]))
            some = isinstance(self.sides, range) and len(self.sides) > 2
            sides = f"{self.sides[0]} to {self.sides[-1]}" if some else ", ".join(map(str, self.sides))
            raise InputError(f"{self.name} is defined for square images of side {sides}, not {size}; resize the images")
        form = {"fused": fused} if self.has_batch_norm else {}
        return self.constructor(input_shape, num_outputs, **form)


def _resnet(depth: int, class_id: int | None) -> Architecture:
    class_entry = "" if class_id is None else f"d{class_id};"
    list_entry = f"resnet_fusedbn;{class_entry}d{depth}"
    return Architecture(f"resnet{depth}", class_id, list_entry, partial(ResNet, depth=depth), has_batch_norm=True)


def _resnet20(width: int) -> Architecture:
    name = "resnet20" if width == 1 else f"resnet20x{width}"
    constructor = partial(ResNet, depth=20, width=width, block=ReluBlock)
    return Architecture(name, None, name, constructor, has_batch_norm=True)


def _with_activations(
    name: str, constructor: Callable[..., nn.Module], sides: tuple[int, ...]
) -> tuple[Architecture, ...]:
    return tuple(
        Architecture(f"{name}-{each}", None, f"{name}-{each}", partial(constructor, activation=each), sides=sides)
        for each in ACTIVATIONS
    )


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("lenetlike", 0, "lenetlike;d0", LeNetLike),
        Architecture("vanilla_cnn", 1, "vanilla_cnn;d1", VanillaCNN),
        _resnet(8, 2),
        _resnet(32, 3),
        _resnet(56, None),
        Architecture("resnet18", None, "resnet18;d18", ResNet18, has_batch_norm=True, sides=range(16, 513)),
        *_with_activations("cnn_s", CnnSmall, (28,)),
        *_with_activations("cnn_l", CnnLarge, (32,)),
        *_with_activations("unterthiner", Unterthiner, (28, 32)),
        Architecture("tiny10", None, "tiny10", Tiny10, has_batch_norm=True),
        *(_resnet20(width) for width in range(1, 6)),
    )
}


def get_architecture(name: str) -> Architecture:
    """Return a registered architecture. Raise InputError for another name."""
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture '{name}'; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def architectures_for(input_shape: tuple[int, ...]) -> list[Architecture]:
    """Return the registered architectures that are defined for images of this shape."""
    return [architecture for architecture in ARCHITECTURES.values() if architecture.takes(input_shape)]


def architectures_by_class_id() -> list[Architecture]:
    """Return the A architectures with the ClassIds 0 ... A-1, in this order. Raise InputError if the ClassIds are others."""
    chosen = sorted(
        (each for each in ARCHITECTURES.values() if each.class_id is not None), key=lambda each: each.class_id or 0
    )
    class_ids = [architecture.class_id for architecture in chosen]
    if class_ids != list(range(len(chosen))):
        raise InputError(
            f"ClassIds {class_ids} in models/target_nets/__init__.py: number the architectures 0, 1, 2, ... by size"
        )
    return chosen


@cache
def siren(widths: tuple[int, ...] = (3, 256, 256, 1)) -> Architecture:
    """Return the SIREN of these widths, which takes points (3,). Raise InputError for widths that are not a SIREN's."""
    check_widths(widths)
    list_entry = f"siren;l{','.join(map(str, widths))}"
    return Architecture("siren", None, list_entry, lambda *_: Siren(widths), sides=None)
