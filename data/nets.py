"""Nets datasets: input lists that name instance files, and the matrix (N, P) that those become.

An input list has one instance a line, in the original's format: class, typed arguments, data set, path, as in
`resnet_fusedbn;d2;d8;scifar10;PATH`. Paths are relative to the folder that the scripts run in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import read_text, write_text
from data.folders import Folders
from data.images import ImageSet
from data.instance_files import fused_row, read_instance
from data.load import command
from models.architecture_pool import ArchitecturePool
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.prep import pack
from models.registry import ARCHITECTURES, Architecture

MULTI_MAKER = "create_nets_dataset_multi.py"
ARGUMENT_TYPES: dict[str, Callable[[str], Any]] = {
    "d": int,
    "f": float,
    "s": str,
    "l": lambda text: [float(item) for item in text.strip("[]()").split(",")],
}


@dataclass(frozen=True)
class Entry:
    """One line of an input list."""

    architecture: Architecture
    dataset: str
    path: Path
    place: str = ""  # "FILE, line N", where it was read

    def line(self) -> str:
        return f"{self.architecture.list_entry};s{self.dataset};{self.path.as_posix()}"


@dataclass(frozen=True)
class NetsDataset:
    """Instances of one architecture. `rows` (N, P) float32 are their fused parameters, on the device."""

    nets: ArchitectureOnImages
    rows: Tensor
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class MixedNetsDataset:
    """Instances of several architectures. `preps` (N, 1, H, W) float32, zero padded, are on the device."""

    preps: Tensor
    class_ids: tuple[int, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def of_class_id(self, class_id: int) -> list[int]:
        """Positions of the instances of one architecture."""
        return [i for i, each in enumerate(self.class_ids) if each == class_id]


def split_line(line: str, place: str) -> tuple[str, list[str], str, Path]:
    """Class, typed arguments, data set and path of a line. Raises InputError, naming the place, if it has no such form."""
    kind, *arguments, path = line.split(";") if ";" in line else ("", "")
    if not arguments or not path:
        raise InputError(
            f"{place}: '{line}' is not CLASS;ARGUMENTS;sDATASET;PATH, as in resnet_fusedbn;d2;d8;scifar10;PATH"
        )
    for argument in arguments:
        try:
            ARGUMENT_TYPES[argument[:1]](argument[1:])
        except (KeyError, ValueError):
            raise InputError(
                f"{place}: argument '{argument}' is not typed; write d for int, f for float, s for string, l for list, then the value"
            ) from None
    *spelled, dataset = arguments
    if dataset[0] != "s":
        raise InputError(f"{place}: the last argument '{dataset}' should be the data set, as in scifar10")
    return kind, spelled, dataset[1:], Path(path)


def parse_line(line: str, place: str) -> Entry:
    """Raises InputError, naming the place, for a line that is not an instance that this project knows."""
    kind, spelled, dataset, path = split_line(line, place)
    entry = ";".join([kind, *spelled])
    known = {architecture.list_entry: architecture for architecture in ARCHITECTURES.values()}
    if entry not in known:
        raise InputError(f"{place}: unknown architecture '{entry}'; known are {' '.join(known)}")
    return Entry(known[entry], dataset, path, place)


def read_list(path: Path, made_by: str) -> list[Entry]:
    """The entries of an input list. Raises InputError if it is missing (`made_by` is the command that makes it), empty or wrong."""
    if not path.is_file():
        raise InputError(f"no input list {path}; make it with: {made_by}")
    lines = read_text(path).splitlines()
    entries = [parse_line(line.strip(), f"{path}, line {i}") for i, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise InputError(f"input list {path} is empty; delete it and make it again with: {made_by}")
    return entries


def listed_paths(folders: Folders, dataset: str, setting: str, split: str) -> list[Path]:
    """The instance files that an input list names, whatever they hold. Raises InputError if it is missing, empty or wrong."""
    path = folders.input_list(dataset, setting, split)
    scripts = {"mlps": "create_mlp_dataset.py", "missing": MULTI_MAKER}
    made_by = command(scripts.get(setting, f"create_nets_dataset_{setting}.py"), dataset)
    if not path.is_file():
        raise InputError(f"no input list {path}; make it with: {made_by}")
    lines = enumerate(read_text(path).splitlines(), start=1)
    paths = [split_line(line.strip(), f"{path}, line {i}")[3] for i, line in lines if line.strip()]
    if not paths:
        raise InputError(f"input list {path} is empty; delete it and make it again with: {made_by}")
    return paths


def write_lists(folders: Folders, dataset: str, setting: str, entries: dict[str, list[Entry]]) -> Callable[[], None]:
    """A function that writes the input lists of a setting, `{train,val,test}.txt`.

    Raises InputError at once if lists are there already that say something else: they may be edited by hand.
    """
    texts = {
        folders.input_list(dataset, setting, split): "".join(entry.line() + "\n" for entry in lines)
        for split, lines in entries.items()
    }
    for path, text in texts.items():
        if path.is_file() and read_text(path) != text:
            raise InputError(
                f"input list {path} names other instances than these constants make; move {path.parent} away to have it written anew"
            )

    def write() -> None:
        for path, text in texts.items():
            write_text(path, text)

    return write


def load_nets(entries: list[Entry], nets: ArchitectureOnImages, dataset: str, device: torch.device) -> NetsDataset:
    """The instances of a list, all of one architecture. Raises InputError for a missing or foreign one."""
    rows = []
    for entry in entries:
        if entry.architecture != nets.architecture or entry.dataset != dataset:
            remedy = "put it in another list"
            if entry.architecture != nets.architecture:
                remedy = f"give --architecture {entry.architecture.name}, or {remedy}"
            raise InputError(
                f"{entry.place}: {entry.architecture.name} on {entry.dataset}, expected {nets.architecture.name} on {dataset}; {remedy}"
            )
        rows.append(fused_row(nets, read_instance(entry.path)[0], entry.path))
    return NetsDataset(nets, torch.stack(rows).to(device), tuple(entry.path for entry in entries))


def load_split(folders: Folders, images: ImageSet, setting: str, split: str, nets: ArchitectureOnImages) -> NetsDataset:
    """The instances of an input list of these images, on their device. Raises InputError like read_list and load_nets."""
    made_by = command(f"create_nets_dataset_{setting}.py", images.name)
    entries = read_list(folders.input_list(images.name, setting, split), made_by)
    return load_nets(entries, nets, images.name, images.train.pixels.device)


def load_mixed_nets(
    entries: list[Entry], pool: ArchitecturePool, dataset: str, device: torch.device
) -> MixedNetsDataset:
    """The instances of a list, of any architectures that have a ClassId. Raises InputError for a missing or foreign one."""
    preps, class_ids = [], []
    for entry in entries:
        name, class_id = entry.architecture.name, entry.architecture.class_id
        if entry.dataset != dataset or class_id is None:
            raise InputError(
                f"{entry.place}: {name} on {entry.dataset}, expected one of {', '.join(pool.names)} on {dataset}; put it in another list"
            )
        row = fused_row(pool[class_id], read_instance(entry.path)[0], entry.path)
        preps.append(pack(row[None], pool.prep_shape)[0])
        class_ids.append(class_id)
    return MixedNetsDataset(torch.stack(preps).to(device), tuple(class_ids), tuple(entry.path for entry in entries))


def load_mixed_split(
    folders: Folders, images: ImageSet, setting: str, split: str, pool: ArchitecturePool
) -> MixedNetsDataset:
    """The instances of an input list of these images, `multi` or `missing`, on their device.

    Raises InputError like read_list and load_mixed_nets, and unless `missing` holds the lowest and the highest ClassId
    and no other.
    """
    path = folders.input_list(images.name, setting, split)
    nets = load_mixed_nets(
        read_list(path, command(MULTI_MAKER, images.name)), pool, images.name, images.train.pixels.device
    )
    ends = (0, len(pool) - 1)
    if setting == "missing" and set(nets.class_ids) != set(ends):
        names = ", ".join(pool.names[class_id] for class_id in sorted(set(nets.class_ids)))
        wanted = " and ".join(pool.names[class_id] for class_id in ends)
        raise InputError(f"{path} holds {names}; with unseen architectures it must hold {wanted}, and no other")
    return nets


def load_teacher(folders: Folders, images: ImageSet) -> tuple[ArchitectureOnImages, Tensor]:
    """The instance that `teacher.txt` names, for these images: its nets and its row (1, P). Raises InputError like load_nets."""
    made_by = command(MULTI_MAKER, images.name)
    entry, *others = read_list(folders.input_list(images.name, "multi", "teacher"), made_by)
    if others:
        raise InputError(f"{others[0].place}: there is one teacher; leave one line in the list")
    nets = ArchitectureOnImages(entry.architecture, images.image_shape, images.num_classes)
    return nets, load_nets([entry], nets, images.name, images.train.pixels.device).rows


def meta_batches(num_nets: int, meta_batch: int, num_steps: int, key: tuple[int, ...]) -> Tensor:
    """Which instances are targets at each step, (num_steps, meta_batch): every one once, in random order, then again."""
    rng = np.random.default_rng(key)
    passes = -(-num_steps * meta_batch // num_nets)
    order = np.concatenate([rng.permutation(num_nets) for _ in range(passes)])
    return torch.from_numpy(order[: num_steps * meta_batch].reshape(num_steps, meta_batch))


def pair_batches(class_ids: Sequence[int], num_steps: int, key: tuple[int, ...]) -> list[list[int]]:
    """Which two instances are targets at each step, where there are two ClassIds: one of each, in random pairs and order.

    Every instance is shown once, then again in other pairs. Those left over are paired alike; an odd one is alone.
    """
    rng = np.random.default_rng(key)
    batches: list[list[int]] = []
    while len(batches) < num_steps:
        shuffled = rng.permutation(len(class_ids)).tolist()
        low = [i for i in shuffled if class_ids[i] == min(class_ids)]
        high = [i for i in shuffled if class_ids[i] != min(class_ids)]
        paired = min(len(low), len(high))
        left = low[paired:] + high[paired:]  # one of the two is empty
        pairs = [list(pair) for pair in zip(low, high)] + [left[i : i + 2] for i in range(0, len(left), 2)]
        batches += [pairs[i] for i in rng.permutation(len(pairs))]
    return batches[:num_steps]
