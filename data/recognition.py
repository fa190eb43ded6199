"""Which architecture a state dict is of: by names and shapes, without building nets that it cannot be.

Names and shapes do not tell activations. Where several architectures have them, a name decides (`prefer`): one that was asked
for, one that the file states, or one that a space is for. Otherwise the state dict is refused.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from data.state_dicts import describe_names
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, Architecture, architectures_for

NUMBERED = re.compile(r"(layers|module_list)\.(\d{1,6})\.(\w+)")
OF_SIREN = re.compile(r"mlp\.(\d{1,6})\.(weight|bias)")

T = TypeVar("T")
Shapes = dict[str, tuple[int, ...]]


def shapes_of(state: dict[str, Tensor]) -> Shapes:
    """Return shapes by name, without batch norm's counters, which nothing reads."""
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}


def names_fit(names: Iterable[str]) -> bool:
    """Return whether these are the names of a registered architecture's state dict, or of a SIREN's."""
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    if unnumbered(names) in known_names(*ARCHITECTURES.values()):
        return True
    of_mlp = [name for name in names if name != "sdf"]
    return bool(of_mlp) and all(map(OF_SIREN.fullmatch, of_mlp))


@cache
def known_names(*architectures: Architecture) -> set[tuple[str, ...]]:
    """Return the names in state dicts of architectures, without the numbers of `layers.{i}`."""
    found = set()
    for architecture in architectures:
        side = (architecture.sides or (8,))[0]
        found |= {unnumbered(form) for form in forms(architecture, (1, side, side), 2)}
    return found


def unnumbered(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in order, without the numbers of `layers.{i}`, which implementations count differently."""
    return tuple(sorted(NUMBERED.sub(r"\1.\3", name) for name in names))


def renumbered(state: dict[str, T], expected: Shapes) -> dict[str, T]:
    """Rename `layers.{i}` and `module_list.{i}` to our own i, in the same order: others count activations differently."""
    theirs, ours = (
        sorted({int(found[2]) for name in names if (found := NUMBERED.fullmatch(name))}) for names in (state, expected)
    )
    if len(theirs) != len(ours):
        return state
    number = dict(zip(theirs, ours))

    def ours_of(name: str) -> str:
        found = NUMBERED.fullmatch(name)
        return f"{found[1]}.{number[int(found[2])]}.{found[3]}" if found else name

    return {ours_of(name): value for name, value in state.items()}


@cache
def forms(architecture: Architecture, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Shapes, Shapes]:
    """Return the names and shapes of the form that is trained and of the fused one, which may be the same."""
    trained = outline(architecture, input_shape, num_outputs, False)
    return trained, outline(architecture, input_shape, num_outputs, True) if architecture.has_batch_norm else trained


def outline(architecture: Architecture, input_shape: tuple[int, ...], num_outputs: int, fused: bool) -> Shapes:
    """Return the names and shapes of a net, which is not built if it can be outlined on the meta device."""
    with torch.random.fork_rng(devices=[]):  # building a net draws numbers
        try:
            with torch.device("meta"):
                net = architecture.build(input_shape, num_outputs, fused)
        except InputError:
            raise
        except Exception:  # an architecture of one's own may compute something when it is built
            net = architecture.build(input_shape, num_outputs, fused)
    return shapes_of(net.state_dict())


def form_of(net: TargetNet, names: Iterable[str]) -> tuple[bool, Shapes]:
    """Return whether a state dict of these names has batch norm, and the names and shapes it should have."""
    with_norm, fused = forms(net.architecture, net.input_shape, net.num_outputs)
    unfused = bool(set(names) & (set(with_norm) - set(fused)))
    return unfused, with_norm if unfused else fused


def fitting(
    architectures: Iterable[Architecture], shapes: Shapes, input_shape: tuple[int, ...], num_outputs: int
) -> list[Architecture]:
    """Return the architectures that have these names and shapes, with batch norm or fused, for inputs of this shape."""
    return [
        each
        for each in architectures
        if any(renumbered(shapes, form) == form for form in forms(each, input_shape, num_outputs))
    ]


def find_net(
    candidates: Sequence[TargetNet], state: dict[str, Tensor], where: Path | str, prefer: Iterable[str | None] = ()
) -> TargetNet:
    """Return the candidate whose state dict this is; of several, the one that `prefer` names first.

    Raise InputError if there is none, or several and no name decides. A single candidate is returned in any case.
    """
    if len(candidates) == 1:
        return candidates[0]  # `row_of` names the difference
    like, shapes = candidates[0], shapes_of(state)
    found = fitting((net.architecture for net in candidates), shapes, like.input_shape, like.num_outputs)
    if not found:
        raise InputError(not_one_of([net.architecture for net in candidates], state, like.input_shape, where))
    chosen = choose(found, where, prefer)
    return next(net for net in candidates if net.architecture is chosen)


def registered_net(
    state: dict[str, Tensor],
    input_shape: tuple[int, ...],
    num_outputs: int,
    where: Path | str,
    prefer: Iterable[str | None] = (),
) -> TargetNet:
    """Return the registered architecture, for inputs of this shape, that a state dict is of.

    Of several, it is the one that `prefer` names first. Raise InputError if there is none, or several and no name decides.
    """
    known = architectures_for(input_shape)
    found = fitting(known, shapes_of(state), input_shape, num_outputs)
    if not found:
        raise InputError(not_one_of(known, state, input_shape, where))
    return target_net(choose(found, where, prefer), input_shape, num_outputs)


def choose(found: list[Architecture], where: Path | str, prefer: Iterable[str | None]) -> Architecture:
    """Return the one that is found, or named first in `prefer`. Raise InputError if there are several and none is named."""
    by_name = {each.name: each for each in found}
    named = [by_name[name] for name in prefer if name in by_name]
    if len(found) > 1 and not named:
        raise InputError(
            f"{where} fits {', '.join(by_name)}, which differ in what has no parameters; import it with --architecture, as in "
            f"--architecture {found[0].name}, or save it as .safetensors with 'architecture' among its facts"
        )
    return (named or found)[0]


def not_one_of(
    known: list[Architecture], state: dict[str, Tensor], input_shape: tuple[int, ...], where: Path | str
) -> str:
    """Return what to say of a state dict of another architecture."""
    names = f"none of {', '.join(each.name for each in known)}" if known else "of no registered architecture"
    return (
        f"{where} is {names} for images of {input_shape}: it has {describe_names(state)}; check what it was saved from"
    )


@cache
def target_net(architecture: Architecture, input_shape: tuple[int, ...], num_outputs: int) -> TargetNet:
    """Return the architecture's TargetNet, the same one each time."""
    return TargetNet(architecture, input_shape, num_outputs)
