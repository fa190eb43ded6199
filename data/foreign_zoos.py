"""Zoos that others made, for their readers (data/modelzoos.py, data/unterthiner.py): what is taken, and written as our own.

A reader yields a Source for each architecture: facts of the instances that are taken, and their states, part by part. It reads
everything once to check it, and again while the zoo is written, so that neither all states nor a half-written zoo are there.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import Tensor

from data.zoo_folders import Facts, Stack, States, numbered, write_zoo
from models.errors import InputError, Limits, one_line
from models.instances import TargetNet
from models.target_nets import Architecture, get_architecture

LayoutName = Literal["modelzoos", "unterthiner"]
Above0 = Annotated[float, Limits(0, above=True)]
LONGEST_FACT = 100  # characters


@dataclass(frozen=True)
class ZooOptions:
    """What a foreign zoo does not say of itself."""

    layout: LayoutName | None = None  # of a zoo; None: as its files tell, else single nets
    architecture: str | None = None  # if nets fit several, such as cnn_s-relu and cnn_s-tanh; None: as the zoo says
    image_side: Annotated[int, Limits(1)] | None = None  # of a zoo's images; None: 28 for mnist, else 32
    mean: tuple[Annotated[float, Limits(0, 1)], ...] = (0.5,)  # of a zoo's images; both 0.5: pixels from -1 to 1
    std: tuple[Above0, ...] = (0.5,)  # the same
    largest_weight: Above0 = 100.0  # instances of a zoo with a larger one are left out


@dataclass
class LeftOut:
    """What is not taken, by reason."""

    numbers: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, reason: str, times: int = 1) -> None:
        """Count one, or several of which `what` is the first."""
        self.numbers[reason] += times
        self.first.setdefault(reason, what)

    def __str__(self) -> str:
        """Return one line, bounded."""
        # A path's end says more than its beginning.
        reasons = [f"{count} {reason} ({self.first[reason][-90:]})" for reason, count in self.numbers.most_common()]
        return one_line(f"left out {self.numbers.total()}: {', '.join(reasons)}")


@dataclass(frozen=True)
class Source:
    """Instances of one architecture in a foreign zoo, with a line of facts each. `parts` reads their states anew."""

    net: TargetNet
    facts: Facts
    parts: Callable[[], Iterator[States]]

    def stack(self) -> Stack:
        """Return their states as the zoo's file has them."""
        state = self.net.trained.state_dict()
        integers = frozenset(name for name, value in state.items() if not value.is_floating_point())
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        return Stack(len(self.facts), shapes, self.parts(), integers)


def side_of(dataset: str, options: ZooOptions) -> int:
    """Return the side of the images that a zoo's nets are for, where their shapes leave it open."""
    return options.image_side or (28 if "mnist" in dataset.lower() else 32)


def with_activation(candidates: list[Architecture], said: Any, wanted: str | None) -> Architecture | str:
    """Return the candidate that is wanted, or has the activation that the zoo says; else the reason why there is none."""
    if not candidates:
        return "of no registered architecture"
    if wanted is not None:
        chosen = get_architecture(wanted)
        return chosen if chosen in candidates else f"not of {wanted}"
    if len(candidates) == 1:
        return candidates[0]
    activation = str(said).lower().replace("_", "").replace(" ", "")
    named = [each for each in candidates if each.name.rpartition("-")[2] == activation]
    return named[0] if named else "without a known activation (give --architecture)"


def has_larger(state: dict[str, Tensor], largest_weight: float) -> bool:
    """Return whether a weight is above a limit. Running statistics may be."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return any(
        value.numel() and value.abs().max() > largest_weight
        for name, value in state.items()
        if not name.endswith(statistics)
    )


def percentage_of(fraction: Any) -> float | None:
    """Return a fraction from 0 to 1, a number or its text, in percent; None if it is none."""
    try:
        value = float(fraction) if not isinstance(fraction, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return round(100 * value, 4) if 0 <= value <= 1 else None


def accuracies(test: Any, train: Any, val: Any = None) -> dict[str, float] | None:
    """Return the facts of accuracy from fractions, None without that on test images."""
    percent = {"train": percentage_of(train), "val": percentage_of(val), "test": percentage_of(test)}
    if percent["test"] is None:
        return None
    facts = {f"{split}_accuracy": value for split, value in percent.items() if value is not None}
    if percent["train"] is not None:
        facts["generalization_gap"] = round(percent["train"] - percent["test"], 4)
    return facts


def scalars(values: dict[str, Any], prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Return the constants whose names begin in one of these ways, as facts: numbers, and short texts in one line."""
    facts: dict[str, Any] = {}
    for name, value in values.items():
        if (
            name.startswith(prefixes)
            and len(name) <= LONGEST_FACT
            and name.replace("::", "").replace(".", "").isidentifier()
        ):
            if isinstance(value, (bool, int, float)) and math.isfinite(value):
                facts[name.lower()] = value
            elif isinstance(value, str) and value.strip():
                facts[name.lower()] = one_line(value[:LONGEST_FACT])
    return facts


def net_name(text: str) -> str:
    """Return a net's name in one line, without slashes."""
    return one_line(text[-200:]).replace("/", "-").replace("\\", "-").strip("- ") or "net"


def write_foreign_zoo(
    folder: Path, sources: list[Source], left_out: LeftOut, dataset: str, options: ZooOptions, made_with: dict[str, Any]
) -> None:
    """Write a zoo's files into a folder. Raise InputError if they cannot be, or for another number of means than channels."""
    net = sources[0].net
    images = {
        "dataset": dataset,
        "image_shape": list(net.input_shape),
        "class_names": numbered(net.num_outputs),
        **{name: per_channel(name, getattr(options, name), net.input_shape[0]) for name in ("mean", "std")},
    }
    states = {each.net.name: each.stack() for each in sources}
    facts = {each.net.name: each.facts for each in sources}
    write_zoo(folder, states, facts, images, {**made_with, "left_out": dict(left_out.numbers)})


def summary_of(sources: list[Source], left_out: LeftOut) -> str:
    """Return, for people, how many instances are taken, of how many nets, with which accuracies, and what is left out."""
    facts = [line for each in sources for line in each.facts]
    names, nets = ", ".join(each.net.name for each in sources), len({line["net"] for line in facts})
    accuracy = [line["test_accuracy"] for line in facts]
    return (
        f"{len(facts)} instances of {nets} nets ({names}), test accuracy {min(accuracy):.2f} to {max(accuracy):.2f} % "
        f"as the zoo says; {left_out}"
    )


def per_channel(flag: str, values: tuple[float, ...], channels: int) -> list[float]:
    """Return a value for each channel from one or as many. Raise InputError for another number of them."""
    if len(values) not in (1, channels):
        raise InputError(f"--{flag} {' '.join(map(str, values))}: give one number, or {channels}, one for each channel")
    return list(values) * channels if len(values) == 1 else list(values)
