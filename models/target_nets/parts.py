"""Nets in parts. Between two parts is a stitch point: there a net can be cut into a front and an end."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from models.errors import InputError


def unchanged(x: Tensor) -> Tensor:
    """Return x: the `finish` of a part without an activation."""
    return x


class Part(NamedTuple):
    """Layers up to a stitch point of this name. The last part of a net ends in its outputs, which are no stitch point.

    `compute` ends just before the activation: after a conv or linear layer, or a residual sum. It begins with a pooling or
    flattening of what the part before gives, and does not overwrite its input. `finish` is the activation, which may.
    """

    name: str
    compute: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Tensor] = unchanged


class PartedNet(nn.Module):
    """A net whose forward pass can begin and end at stitch points. Its architecture says its parts in order."""

    def parts(self) -> list[Part]:
        """Return the parts, the last of which gives the outputs."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        after: str | None = None,
        until: str | Sequence[str] | None = None,
        before_activation: bool = False,
    ) -> Tensor | list[Tensor]:
        """Return the outputs of the net for inputs x.

        With `after`, x are activations at this point, and only what follows is computed. With `until`, return the
        activations at this point, or a list of those at several. They are those after the activation, or with
        `before_activation` those before it. Raise InputError for a point that the net does not have.
        """
        parts = self.parts()
        start = 0
        if after is not None:
            start = find_point(parts, after) + 1
            if before_activation:
                x = parts[start - 1].finish(x.clone())  # an activation in place must not change what was given
        if until is None:
            for part in parts[start:]:
                x = part.finish(part.compute(x))
            return x
        stops = [find_point(parts, point) for point in ([until] if isinstance(until, str) else until)]
        if min(stops) < start:
            raise InputError(f"point '{parts[min(stops)].name}' does not come after point '{after}'")
        found: dict[int, Tensor] = {}
        for i in range(start, max(stops) + 1):
            x = parts[i].compute(x)
            if before_activation and i in stops:
                found[i] = x
                if i == max(stops):
                    break
                x = x.clone()  # the activation may be in place
            x = parts[i].finish(x)
            if i in stops and not before_activation:
                found[i] = x
        return found[stops[0]] if isinstance(until, str) else [found[i] for i in stops]


def points_of(parts: Sequence[Part]) -> list[str]:
    """Return the names of the stitch points in order."""
    return [part.name for part in parts[:-1]]


def find_point(parts: Sequence[Part], point: str) -> int:
    """Return the index of the part that ends at a point. Raise InputError for a point that is not there."""
    points = points_of(parts)
    if point not in points:
        raise InputError(f"there is no point '{point}'; choose one of {', '.join(points)}")
    return points.index(point)


def parts_of_modules(prefix: str, modules: Sequence[nn.Module], activations: tuple[type[nn.Module], ...]) -> list[Part]:
    """Return the parts of modules that follow one another. A part ends with each activation, and has its name."""
    parts, begin = [], 0
    for i, module in enumerate(modules):
        if isinstance(module, activations):
            parts.append(Part(f"{prefix}.{i}", partial(_apply, modules[begin:i]), module))
            begin = i + 1
    return [*parts, Part(f"{prefix}.{len(modules) - 1}", partial(_apply, modules[begin:]))]


def _apply(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x
