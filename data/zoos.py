"""Zoos: nets in training with several checkpoints each, in one folder (data/zoo_folders.py) that opens in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.images import ImageSet
from data.nets import NetsDataset
from data.recognition import forms
from data.zoo_folders import FACTS, REMEDY, Facts, States, label, numbered, read_about, read_facts, read_stack
from models.errors import InputError, brief
from models.instances import TargetNet, TargetNets
from models.target_nets import get_architecture

PARTS = {"train": 0.7, "val": 0.15, "test": 0.15}
SPLIT_SEED = 0
MOST_PADDING = 8  # times the files' size that rows may take once they are padded to the largest architecture
ALWAYS_FITS = 1 << 28  # bytes of rows
AT_ONCE = 1 << 24  # numbers that are fused at once


@dataclass(frozen=True)
class Zoo:
    """A zoo's instances as fused rows, and their states with batch norm."""

    nets: NetsDataset
    states: dict[str, States]  # by architecture, entries (N, *shape)
    about: dict[str, Any]

    def check_images(self, images: ImageSet) -> None:
        """Raise InputError if the nets are for other images. Classes that the zoo has no names for may have any."""
        for name, value in images.facts().items():
            own = self.about["images"].get(name)
            unnamed = name == "class_names" and own == numbered(len(value))
            if own != value and not unnamed:
                raise InputError(
                    f"the zoo's nets are for images of {name} {brief(own)}, these have {brief(value)}; {REMEDY}"
                )


def load_zoo(folder: Path, device: torch.device | str = "cpu") -> Zoo:
    """Load a zoo.

    Raise InputError if files are missing, broken, or not those that `zoo.json` was written with. What `zoo.json` says of nets is
    compared with the headers of the files before a net is built or a tensor is read.
    """
    about = read_about(folder)
    numbers: dict[str, int] = about["architectures"]
    shape, num_classes = tuple(about["images"]["image_shape"]), len(about["images"]["class_names"])
    facts = read_facts(folder / FACTS, numbers)
    states = {}
    for name, number in numbers.items():
        outline = forms(get_architecture(name), shape, num_classes)[0]
        states[name] = read_stack(folder / f"{name}.safetensors", number, outline)
    nets = TargetNets([TargetNet(get_architecture(name), shape, num_classes) for name in numbers])
    rows = fused_rows(folder, nets, states, facts).to(device)
    class_ids = tuple(i for i, name in enumerate(numbers) for _ in range(numbers[name]))
    paths = tuple(folder / label(line) for line in facts)
    return Zoo(NetsDataset(nets, rows, class_ids, tuple(facts), paths), states, about)


def fused_rows(folder: Path, nets: TargetNets, states: dict[str, States], facts: Facts) -> Tensor:
    """Return rows (N, P) of all instances, padded to the largest architecture, fused a few at a time.

    Raise InputError, naming the first instance, if one has NaN or infinity then; and if padding would take far more than the
    files have.
    """
    width = max(net.num_parameters for net in nets)
    held = sum(value.nbytes for state in states.values() for value in state.values())
    if 4 * width * len(facts) > max(ALWAYS_FITS, MOST_PADDING * held):
        raise InputError(
            f"{folder} has {len(facts)} instances, which would be padded to {width} numbers each; split it into zoos of "
            "architectures of alike size"
        )
    rows = torch.zeros(len(facts), width)
    start = 0
    for net in nets:
        state = states[net.name]
        counters = {name for name in net.trained.state_dict() if name.endswith("num_batches_tracked")} - set(state)
        number = len(next(iter(state.values())))
        state |= {name: torch.zeros(number, dtype=torch.int64) for name in counters}
        at_once = max(1, AT_ONCE // net.num_parameters)
        for first in range(0, number, at_once):
            part = net.fuse({name: value[first : first + at_once] for name, value in state.items()})
            finite = part.isfinite().all(1)
            if not finite.all():
                broken = label(facts[start + first + int(finite.int().argmin())])
                raise InputError(
                    f"{folder / net.name}.safetensors: {broken} has NaN or infinity once batch norm is fused; {REMEDY}"
                )
            rows[start + first : start + first + len(part), : net.num_parameters] = part
        start += number
    return rows


def split_zoo(nets: NetsDataset, seed: int = SPLIT_SEED, parts: Mapping[str, float] = PARTS) -> dict[str, NetsDataset]:
    """Split a zoo's instances into train, val and test, 70 / 15 / 15 percent of the nets; no net is in two of them."""
    return nets.split(dict(parts), seed, by="net")


def last_checkpoints(nets: NetsDataset) -> NetsDataset:
    """Return the last checkpoint of every net, in the nets' order."""
    last: dict[str, int] = {}
    for i, facts in enumerate(nets.facts):
        known = last.get(facts["net"])
        if known is None or facts["step"] > nets.facts[known]["step"]:
            last[facts["net"]] = i
    return nets[list(last.values())]


def load_splits(
    folder: Path,
    architecture: str,
    device: torch.device | str = "cpu",
    seed: int = SPLIT_SEED,
    parts: Mapping[str, float] = PARTS,
) -> dict[str, NetsDataset]:
    """Load a zoo's instances of one architecture as train, val and test. Raise InputError if one of them is empty."""
    zoo = load_zoo(folder, device).nets
    splits = {name: each.of_architecture(architecture) for name, each in split_zoo(zoo, seed, parts).items()}
    if not all(map(len, splits.values())):
        numbers = ", ".join(f"{len(each)} {name}" for name, each in splits.items())
        raise InputError(f"{folder} has too few nets of {architecture}: {numbers} instances; make a zoo of at least 6")
    return splits


def strongest(nets: NetsDataset) -> int:
    """Return the index of the instance of the highest accuracy on validation images; zoos of others have test accuracy alone."""
    known = "val_accuracy" if None not in nets.column("val_accuracy") else "test_accuracy"
    accuracies = nets.column(known)
    return max(range(len(nets)), key=lambda i: accuracies[i] or 0.0)


def recalls(right: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the percentage of each class's images that are right: (N, images) bool to (N, classes)."""
    return torch.stack([100 * right[:, labels == label].double().mean(1) for label in range(num_classes)], 1).float()


def facts_of_checkpoints(steps: Sequence[int], **values: Tensor) -> Facts:
    """Return facts of one net's K checkpoints from values (K,) or (K, classes), the latter as NAME_0, NAME_1, ..."""
    facts = []
    for k, step in enumerate(steps):
        line: dict[str, Any] = {"step": step}
        for name, value in values.items():
            each = value[k].tolist()
            line |= {f"{name}_{i}": item for i, item in enumerate(each)} if isinstance(each, list) else {name: each}
        facts.append({key: round(item, 4) if isinstance(item, float) else item for key, item in line.items()})
    return facts
