"""The target architectures by name. One of your own is one entry here.

`build(image_shape, num_classes)` gives the net as it is trained, `build(..., fused=True)` as PReps hold it. An entry
without batch norm has one form for both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from models.errors import InputError
from models.lenet_like import SIZES, LeNetLike
from models.resnet import ResNet
from models.vanilla_cnn import VanillaCNN


@dataclass(frozen=True)
class Architecture:
    """What stays the same between instances. `class_id` orders architectures by their number of parameters; a teacher has
    none. `list_entry` is how input lists of the original release spell the architecture: class, then typed arguments."""

    name: str
    class_id: int | None
    list_entry: str
    constructor: Callable[..., nn.Module]
    has_batch_norm: bool = False

    def build(self, image_shape: tuple[int, int, int], num_classes: int, fused: bool = False) -> nn.Module:
        """One net for images of `image_shape` (C, S, S). Raises InputError for a side that has no definition."""
        if image_shape[1] not in SIZES or image_shape[1] != image_shape[2]:
            sides = ", ".join(str(side) for side in SIZES)
            raise InputError(
                f"{self.name} is defined for square images of side {sides}, not {image_shape[1]}x{image_shape[2]}; resize the images"
            )
        form = {"fused": fused} if self.has_batch_norm else {}
        return self.constructor(image_shape, num_classes, **form)


def _resnet(depth: int, class_id: int | None) -> Architecture:
    class_entry = "" if class_id is None else f"d{class_id};"
    return Architecture(
        f"resnet{depth}", class_id, f"resnet_fusedbn;{class_entry}d{depth}", partial(ResNet, depth=depth), True
    )


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        Architecture("lenetlike", 0, "lenetlike;d0", LeNetLike),
        Architecture("vanilla_cnn", 1, "vanilla_cnn;d1", VanillaCNN),
        _resnet(8, 2),
        _resnet(32, 3),
        _resnet(56, None),
    )
}


def get_architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise InputError(f"unknown architecture '{name}'; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def architectures_by_class_id() -> list[Architecture]:
    """Those that have a ClassId, in its order; A of them have the ClassIds 0 ... A-1. Raises InputError otherwise."""
    chosen = sorted(
        (each for each in ARCHITECTURES.values() if each.class_id is not None), key=lambda a: a.class_id or 0
    )
    class_ids = [architecture.class_id for architecture in chosen]
    if class_ids != list(range(len(chosen))):
        raise InputError(f"ClassIds {class_ids} in models/registry.py: number the architectures 0, 1, 2, ... by size")
    return chosen
