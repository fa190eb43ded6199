"""Nets datasets: input lists that name instance files, and the matrix of rows (N, P) that these become.

An input list has one instance a line, in the original release's format: class, typed arguments, data set, path, as in
`resnet_fusedbn;d2;d8;scifar10;PATH` or `siren;l3,256,256,1;schairs;PATH`. The path is what follows the data set, `;` or not,
relative to the folder that the scripts run in. Lists are UTF-8 in any locale. As editors leave them, they may have blank lines,
lines that begin with `#`, white space around fields, quotes around a line or a path, and paths with backslashes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.files import is_regular, write_text
from data.folders import Folders, check_path_name, command, name_of, text_of
from data.images import ImageSet
from data.instance_files import read_instance, row_of, samples_of, siren_widths
from data.streams import stream
from data.texts import read_lines, read_text
from models.errors import InputError, brief
from models.instances import TargetNet, TargetNets
from models.target_nets import ARCHITECTURES, Architecture, siren

T = TypeVar("T")
MAKERS = {"mlps": "create_mlp_dataset.py", "missing": "create_nets_dataset_multi.py"}  # by setting; others by its name
ARGUMENT_TYPES: dict[str, Callable[[str], Any]] = {
    "d": int,
    "f": float,
    "s": str,
    "l": lambda text: [float(item) for item in text.strip("[]()").split(",")],
}


@dataclass(frozen=True)
class NetsDataset:
    """Instances, and what is known of them.

    `rows` (N, P) float32 are their fused parameters on the device, padded with zeros to the largest architecture. `class_ids`
    are indices into `nets`. `facts` are those in the instance files' headers; a `.pt` has none. SIRENs have `samples`
    (N, S, 4) float32: x, y, z and the true signed distance, the positive half first.
    """

    nets: TargetNets
    rows: Tensor
    class_ids: tuple[int, ...]
    facts: tuple[dict[str, Any], ...]
    paths: tuple[Path, ...]
    samples: Tensor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: Sequence[int] | slice | np.ndarray | Tensor) -> "NetsDataset":
        """Return the instances at indices, in a slice, or where a mask is true."""
        if not isinstance(chosen, slice):
            chosen = torch.as_tensor(chosen).cpu() if len(chosen) else slice(0)
        index = torch.arange(len(self))[chosen].tolist()
        return NetsDataset(
            self.nets,
            self.rows[index],
            tuple(self.class_ids[i] for i in index),
            tuple(self.facts[i] for i in index),
            tuple(self.paths[i] for i in index),
            None if self.samples is None else self.samples[index],
        )

    def filter(self, condition: Callable[[dict[str, Any]], bool]) -> "NetsDataset":
        """Return the instances whose facts meet a condition."""
        return self[[i for i, facts in enumerate(self.facts) if condition(facts)]]

    def column(self, fact: str) -> list[Any]:
        """Return one fact of every instance, None where it is unknown."""
        return [facts.get(fact) for facts in self.facts]

    def split(self, fractions: dict[str, float], seed: int, by: str | None = None) -> dict[str, "NetsDataset"]:
        """Split at random into named parts, whose fractions sum to 1. Instances that agree in the fact `by` stay together."""
        groups = list(range(len(self))) if by is None else self.column(by)
        names = list(dict.fromkeys(groups))
        order = stream("split of a nets dataset", seed).permutation(len(names))
        ends = np.rint(np.cumsum([0, *fractions.values()]) * len(names)).astype(int)
        parts = {}
        for part, start, end in zip(fractions, ends, ends[1:]):
            members = {names[i] for i in order[start:end]}
            parts[part] = self[[i for i, group in enumerate(groups) if group in members]]
        return parts

    def of_architecture(self, name: str) -> "NetsDataset":
        """Return the instances of one architecture, and no other in `nets`. Raise InputError if there is no such architecture."""
        if name not in self.nets.names:
            raise InputError(f"there is no {name} among {', '.join(self.nets.names)}; choose one of them")
        found = self[self.indices_of(self.nets.names.index(name))]
        net = self.nets[self.nets.names.index(name)]
        return replace(
            found, nets=TargetNets([net]), rows=found.rows[:, : net.num_parameters], class_ids=(0,) * len(found)
        )

    def indices_of(self, class_id: int) -> list[int]:
        """Return the indices of the instances of one architecture."""
        return [i for i, each in enumerate(self.class_ids) if each == class_id]

    def index_of(self, path: str) -> int | None:
        """Return the index of an instance by its path or its name, None if it is not here."""
        return next((i for i, each in enumerate(self.paths) if path in (each.as_posix(), each.stem)), None)

    def split_samples(self, num: int) -> tuple["NetsDataset", "NetsDataset"]:
        """Return the same instances twice: without `num` of their samples, and with these, the last of either half."""
        assert self.samples is not None
        size = self.samples.shape[1]
        rest, half = size - num, size - size // 2
        index = torch.arange(size, device=self.samples.device)
        first = (index < rest - rest // 2) | (index >= half) & (index < half + rest // 2)
        return replace(self, samples=self.samples[:, first]), replace(self, samples=self.samples[:, ~first])


# Input lists


@dataclass(frozen=True)
class Entry:
    """One line of an input list. `where` is "FILE, line N" if it was read."""

    architecture: Architecture
    dataset: str
    path: Path
    where: str = ""

    def line(self) -> str:
        """Return the line. Raise InputError if it cannot hold the path, or the data set's name."""
        check_path_name(self.path)
        if self.dataset.strip() != self.dataset:
            raise InputError(f"the data set '{brief(self.dataset)}' begins or ends with white space; rename its folder")
        return f"{self.architecture.list_entry};s{text_of(self.dataset)};{text_of(self.path.as_posix())}"


def parse_line(line: str, where: str) -> Entry:
    """Read one line. Raise InputError, naming `where`, if it is not an instance that this project knows."""
    kind, *fields = [field.strip() for field in unquoted(line).split(";")]
    number = next((i for i, field in enumerate(fields) if field.startswith("s")), None)  # of the data set
    typed = fields[:-1] if number is None else fields[:number]
    path = "" if number is None else unquoted(";".join(unquoted(line).split(";")[number + 2 :]))
    if len(fields) < 2 or not fields[-1] or (number is not None and not path):
        raise InputError(
            f"{where}: '{brief(line)}' is not CLASS;ARGUMENTS;sDATASET;PATH, as in resnet_fusedbn;d2;d8;scifar10;PATH"
        )
    for argument in typed:
        try:
            ARGUMENT_TYPES[argument[:1]](argument[1:])
        except (KeyError, ValueError):
            raise InputError(
                f"{where}: argument '{brief(argument)}' is not typed; write d for int, f for float, s for string, l for list, then "
                "the value"
            ) from None
    if number is None:
        raise InputError(f"{where}: the last argument '{brief(typed[-1])}' should be the data set, as in scifar10")
    architecture = architecture_of(kind, typed, where)
    return Entry(architecture, name_of(fields[number][1:]), path_of(path), where)


def unquoted(text: str) -> str:
    """Return a text without white space and one pair of quotes around it."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if quoted else text


def path_of(text: str) -> Path:
    """Return the path that a line names. Backslashes are separators if only then there is such a file."""
    path = Path(name_of(text))
    if "\\" in text and not is_regular(path):
        other = Path(name_of(text.replace("\\", "/")))
        return other if is_regular(other) else path
    return path


def architecture_of(kind: str, arguments: list[str], where: str) -> Architecture:
    """Return the architecture that a line spells. Raise InputError if there is none."""
    spelled = ";".join([kind, *arguments])
    if kind == "siren":
        widths = re.fullmatch(r"l\[?(\d{1,9}(?:, *\d{1,9})*)\]?", ";".join(arguments))
        if not widths:
            raise InputError(f"{where}: {brief(spelled)} is not a SIREN; expected siren;lWIDTHS;sDATASET;PATH")
        try:
            return siren(tuple(int(width) for width in widths[1].split(",")))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    known = {architecture.list_entry: architecture for architecture in ARCHITECTURES.values()}
    if spelled not in known:
        raise InputError(f"{where}: unknown architecture '{brief(spelled)}'; known are {' '.join(known)}")
    return known[spelled]


def read_list(folders: Folders, dataset: str, setting: str, split: str) -> list[Entry]:
    """Return the entries of an input list. Raise InputError, with the command that makes it, if it is missing or wrong."""
    path = folders.input_list(dataset, setting, split)
    made_by = command(MAKERS.get(setting, f"create_nets_dataset_{setting}.py"), dataset)
    if not path.is_file():
        raise InputError(f"no input list {path}; make it with: {made_by}")
    lines = [(number, line) for number, line in read_lines(path) if not line.startswith("#")]
    entries = [parse_line(line, f"{path}, line {number}") for number, line in lines]
    if not entries:
        raise InputError(f"input list {path} is empty; fill it, or move it away and make it again with: {made_by}")
    return entries


def list_texts(folders: Folders, dataset: str, setting: str, entries: dict[str, list[Entry]]) -> dict[Path, str]:
    """Return the input lists of a setting, path to text. `entries` are by split.

    Raise InputError if a list exists with another text: it may be edited by hand.
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
    return texts


def write_lists(texts: dict[Path, str]) -> None:
    """Write input lists."""
    for path, text in texts.items():
        write_text(path, text)


# Loading


def load_entries(entries: list[Entry], nets: TargetNets, dataset: str, device: torch.device) -> NetsDataset:
    """Load the instances of a list. Raise InputError for one that is missing, broken or of no architecture in `nets`."""
    rows, class_ids, facts, samples = [], [], [], []
    width = max(nets.num_parameters.values())
    for entry in entries:
        class_id = next((i for i, net in enumerate(nets) if net.architecture == entry.architecture), None)
        if class_id is None or entry.dataset != dataset:
            raise InputError(unexpected(entry, nets, dataset))
        state, known = read_listed(entry)
        if not nets.takes_images:
            samples.append(samples_of(state, entry.path))
            del state["sdf"]
            if len(samples[-1]) != len(samples[0]):
                raise InputError(
                    f"{entry.path} holds {len(samples[-1])} samples, others {len(samples[0])}; make them alike"
                )
        row = row_of(nets[class_id], state, entry.path)
        rows.append(F.pad(row, (0, width - len(row))))
        class_ids.append(class_id)
        facts.append({**known, "id": entry.path.stem})
    return NetsDataset(
        nets,
        torch.stack(rows).to(device),
        tuple(class_ids),
        tuple(facts),
        tuple(entry.path for entry in entries),
        torch.stack(samples).to(device) if samples else None,
    )


def read_listed(entry: Entry) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict and facts of an instance in a list. Raise InputError if it is missing or broken."""
    if not is_regular(entry.path):
        remedy = "correct the path, or run the script that made the list again, it creates what is missing"
        raise InputError(f"{entry.where}: no instance file {entry.path}; {remedy}")
    return read_instance(entry.path)


def unexpected(entry: Entry, nets: TargetNets, dataset: str) -> str:
    """Return the message for an entry of another architecture or data set."""
    expected = " or ".join(nets.names)
    remedy = "put it in another list"
    if not nets.takes_images:
        expected, remedy = nets[0].architecture.list_entry, "list one size"
    elif len(nets) == 1 and entry.architecture.sides and entry.architecture != nets[0].architecture:
        remedy = f"give --architecture {entry.architecture.name}, or {remedy}"
    name = entry.architecture.name if entry.architecture.sides else entry.architecture.list_entry
    return f"{entry.where}: {name} on {entry.dataset}, expected {expected} on {dataset}; {remedy}"


def load_nets(folders: Folders, images: ImageSet, setting: str, split: str, nets: TargetNets) -> NetsDataset:
    """Load the instances of an input list for these images, onto their device.

    Raise InputError if the list or an instance is missing or wrong; the list of `missing` holds the lowest and the highest
    ClassId, and no other.
    """
    entries = read_list(folders, images.name, setting, split)
    found = load_entries(entries, nets, images.name, images.train.pixels.device)
    ends = (0, len(nets) - 1)
    if setting == "missing" and set(found.class_ids) != set(ends):
        path = folders.input_list(images.name, setting, split)
        names = ", ".join(nets.names[class_id] for class_id in sorted(set(found.class_ids)))
        expected = " and ".join(nets.names[class_id] for class_id in ends)
        raise InputError(f"{path} holds {names}; with unseen architectures it must hold {expected}, and no other")
    return found


def load_teacher(folders: Folders, images: ImageSet) -> NetsDataset:
    """Load the one instance that `teacher.txt` names. Raise InputError if it is missing, wrong or not alone."""
    entry, *more = read_list(folders, images.name, "multi", "teacher")
    if more:
        raise InputError(f"{more[0].where}: there is one teacher; leave one line in the list")
    nets = TargetNets([TargetNet(entry.architecture, images.image_shape, images.num_classes)])
    return load_entries([entry], nets, images.name, images.train.pixels.device)


def load_sirens(folders: Folders, dataset: str, split: str, device: torch.device) -> NetsDataset:
    """Load the SIRENs of an input list, `train` or `test`, all of one size, with their samples. Raise InputError likewise."""
    entries = read_list(folders, dataset, "mlps", split)
    if entries[0].architecture.sides is not None:
        raise InputError(f"{entries[0].where} is not a SIREN; expected siren;lWIDTHS;sDATASET;PATH")
    # What a list claims is compared with a file before a net of that size is built.
    first, claimed = read_listed(entries[0])[0], entries[0].architecture.list_entry
    found = siren(siren_widths(first, entries[0].path)).list_entry
    if found != claimed:
        raise InputError(f"{entries[0].path} is a {found}, {entries[0].where} says {claimed}; correct the list")
    return load_entries(entries, TargetNets([TargetNet(entries[0].architecture)]), entries[0].dataset, device)


# Which instances train, and which are targets at a step


def split_alike(ranked: Sequence[T], num_val: int, num_test: int, seed: int) -> dict[str, list[T]]:
    """Split instances so that val and test hold weak and strong ones alike, whatever the seed.

    The instances, weakest (or shortest trained) first, are cut into as many runs of neighbours as a split needs, and one is
    drawn from each.
    """
    rng = stream("split of instances", seed)
    split_of = np.full(len(ranked), "train", dtype=object)
    for split, number in (("test", num_test), ("val", num_val)):
        free = np.flatnonzero(split_of == "train")
        split_of[[rng.choice(neighbours) for neighbours in np.array_split(free, number)]] = split
    return {split: [each for each, of in zip(ranked, split_of) if of == split] for split in ("train", "val", "test")}


def meta_batch(num_nets: int, size: int, seed: int, step: int) -> list[int]:
    """Return the targets of a step: every instance once, in random order, then again in another."""
    positions = range(step * size, (step + 1) * size)
    orders = {
        number: stream("meta-batches", seed, number).permutation(num_nets) for number in passes(positions, num_nets)
    }
    return [int(orders[position // num_nets][position % num_nets]) for position in positions]


def passes(positions: range, length: int) -> Iterable[int]:
    """Return the numbers of the passes, of `length` each, that positions lie in."""
    return range(positions.start // length, (positions.stop - 1) // length + 1)


def pair_batch(class_ids: Sequence[int], seed: int, step: int) -> list[int]:
    """Return the targets of a step where there are two ClassIds: one of each, in random pairs and order.

    Every instance is shown once, then again in other pairs. Those left over are paired with each other; an odd one is alone.
    """
    low, high = (
        [i for i, each in enumerate(class_ids) if (each == min(class_ids)) == first] for first in (True, False)
    )
    paired = min(len(low), len(high))
    per_pass = paired + -(-(max(len(low), len(high)) - paired) // 2)
    number, position = divmod(step, per_pass)
    rng = stream("pairs", seed, number)
    low, high = rng.permutation(low).tolist(), rng.permutation(high).tolist()
    left = low[paired:] + high[paired:]  # one of the two is empty
    pairs = [list(pair) for pair in zip(low, high)] + [left[i : i + 2] for i in range(0, len(left), 2)]
    return pairs[rng.permutation(per_pass)[position]]
