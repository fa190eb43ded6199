"""The folder of a zoo: nets in training with several checkpoints each. Written, and checked when it is read.

ARCHITECTURE.safetensors  the states of all its instances, stacked: every entry (N, *shape), batch norm included
facts.csv                 a line for each instance, in the same order: architecture, net, step, accuracies, ...
zoo.json                  what the nets are for, what they were made with, fingerprints of the files
README.md                 the same for people: a data set card

What `zoo.json` says is compared with the other files before anything of that size is built.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.files import check_regular, fingerprint_of_file, is_regular, write_safetensors, write_text, written_whole
from data.tensor_files import open_safetensors
from data.texts import read_json, read_table, write_json
from models.errors import InputError, brief
from models.target_nets import ARCHITECTURES

FORMAT = 1
ABOUT, FACTS, CARD = "zoo.json", "facts.csv", "README.md"
GAP = "generalization_gap"
REMEDY = "make the zoo again, or copy all of its files"
LARGEST = 512  # channels, and pixels a side, of images
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}

Facts = list[dict[str, Any]]
States = dict[str, Tensor]


@dataclass(frozen=True)
class Stack:
    """The states of `number` instances, entries (N, *shape), which come in parts, entries (M, *shape), in order.

    `shapes` are those of one instance's entries. Floating point numbers are float32, the others int64.
    """

    number: int
    shapes: dict[str, tuple[int, ...]]
    parts: Iterable[dict[str, Tensor]]
    integers: frozenset[str] = frozenset()  # entries that are int64

    def write(self, path: Path) -> None:
        """Write the file. Raise InputError if it cannot be written, ValueError if the parts are not N instances in all."""
        dtype = {name: "I64" if name in self.integers else "F32" for name in self.shapes}
        header: dict[str, dict[str, Any]] = {}
        end = 0
        for name, shape in self.shapes.items():
            start, end = end, end + self.number * math.prod(shape) * DTYPES[dtype[name]].itemsize
            header[name] = {"dtype": dtype[name], "shape": [self.number, *shape], "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors are aligned
        with written_whole(path) as partial, partial.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            base = file.tell()
            file.truncate(base + end)
            first = 0
            for part in self.parts:
                for name, shape in self.shapes.items():
                    kind = DTYPES[dtype[name]]
                    values = part[name].reshape(-1, *shape).numpy().astype(kind)
                    file.seek(base + header[name]["data_offsets"][0] + first * math.prod(shape) * kind.itemsize)
                    file.write(np.ascontiguousarray(values).data)
                first += len(values)
            if first != self.number:
                raise ValueError(f"{first} instances, expected {self.number}")


def read_stack(path: Path, number: int, shapes: dict[str, tuple[int, ...]]) -> States:
    """Return the states of `number` instances, entries (N, *shape), and their batch norms' counters if the file has them.

    The header is compared with what is expected before a tensor is read. Raise InputError for other names, shapes or types.
    """
    expected = {name: ("F32", (number, *shape)) for name, shape in shapes.items()}
    with open_safetensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        found = {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
        counters = {name: ("I64", (number,)) for name in found if is_counter(name, shapes)}
        for name in sorted({*found, *expected}):
            wanted = {**expected, **counters}.get(name)
            if found.get(name) != wanted:
                raise InputError(
                    f"{path}: '{brief(name)}' is {brief(found.get(name))}, expected {brief(wanted)}; {REMEDY}"
                )
        return {name: file.get_tensor(name) for name in found}


def is_counter(name: str, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Return whether this is the counter of a batch norm that has running statistics."""
    norm, _, last = name.rpartition(".")
    return last == "num_batches_tracked" and f"{norm}.running_var" in shapes


def write_zoo(
    folder: Path,
    states: Mapping[str, States | Stack],
    facts: dict[str, Facts],
    images: dict[str, Any],
    made_with: dict[str, Any],
) -> None:
    """Write the instances of each architecture, entries (N, *shape), with N facts each. A Stack is written part by part.

    `images` is what the nets are for (ImageSet.facts), `made_with` the constants and versions. `zoo.json` is written last: a
    folder without it is not a zoo yet.
    """
    for name, state in states.items():
        path = folder / f"{name}.safetensors"
        if isinstance(state, Stack):
            state.write(path)
        else:
            write_safetensors(path, {key: value.detach().cpu().contiguous() for key, value in state.items()})
    lines = [each for name in states for each in facts[name]]
    write_text(folder / FACTS, as_csv(lines))
    numbers = {name: len(each) for name, each in facts.items()}
    files = {path: fingerprint_of_file(folder / path) for path in (*(f"{name}.safetensors" for name in states), FACTS)}
    write_text(folder / CARD, card(folder.name, numbers, lines, images, made_with))
    about = {"format": FORMAT, "architectures": numbers, "images": images, "files": files, **made_with}
    write_json(folder / ABOUT, about)


def as_csv(lines: Facts) -> str:
    """Return facts as a CSV; a fact that some instances lack is empty there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def card(name: str, numbers: dict[str, int], lines: Facts, images: dict[str, Any], made_with: dict[str, Any]) -> str:
    """Return the data set card, in Markdown."""
    rows = []
    for column in dict.fromkeys(each for line in lines for each in line):
        values = [line[column] for line in lines if column in line]
        numeric = [value for value in values if isinstance(value, (int, float))]
        span = (
            f"{min(numeric):.6g} to {max(numeric):.6g}" if numeric else ", ".join(sorted({str(v) for v in values})[:4])
        )
        rows.append(f"| {column} | {span} |")
    constants = "\n".join(f"| {key} | {value} |" for key, value in made_with.get("config", {}).items())
    kinds = "\n".join(f"| {architecture} | {number} |" for architecture, number in numbers.items())
    shape = "x".join(map(str, images["image_shape"]))
    return f"""# {name}: a zoo of nets on {images["dataset"]}

Nets for images of {shape} in {len(images["class_names"])} classes ({", ".join(images["class_names"][:10])}), normalized with
mean {images["mean"]} and standard deviation {images["std"]} (for pixels from 0 to 1), saved several times in training.

| architecture | instances |
|---|---|
{kinds}

Open it with `data.zoos.load_zoo(Path("{name}"))`, or read each `ARCHITECTURE.safetensors` (entries are stacked, (N, *shape))
beside `facts.csv` (a line for each instance, in the same order). Split it by `net`: checkpoints of one net are alike.

| fact | values |
|---|---|
{chr(10).join(rows)}

Accuracies are percentages. Made with:

| constant | value |
|---|---|
{constants}
"""


def numbered(num_classes: int) -> list[str]:
    """Return class names for images whose classes are known by number alone."""
    return [str(i) for i in range(num_classes)]


def read_about(folder: Path) -> dict[str, Any]:
    """Return what `zoo.json` says. Raise InputError for a folder without it, values that no zoo has, and other files."""
    path = folder / ABOUT
    if not is_regular(path):
        begun = folder.is_dir() and any(each.suffix in (".safetensors", ".csv", ".pt") for each in folder.iterdir())
        if begun:
            raise InputError(f"{folder} is still being made, or half copied: it has no {ABOUT} yet; {REMEDY}")
        raise InputError(f"{folder} is no zoo (it has no {ABOUT}); make one with create_nets_dataset_zoo.py")
    about = read_json(path, REMEDY)
    if about.get("format") != FORMAT:
        raise InputError(f"{path}: format {brief(about.get('format'))}, this version reads {FORMAT}; {REMEDY}")
    numbers, files = about.get("architectures"), about.get("files")
    if not isinstance(numbers, dict) or not numbers or not all(is_count(each, 2**31) for each in numbers.values()):
        raise InputError(f"{path}: architectures {brief(numbers)} are not names with numbers of instances; {REMEDY}")
    for name in numbers:
        if name not in ARCHITECTURES:
            raise InputError(f"{path}: architecture '{brief(name)}', known are {', '.join(ARCHITECTURES)}; {REMEDY}")
    shape = image_shape_of(about.get("images"), path)
    for name in numbers:
        if not ARCHITECTURES[name].takes(tuple(shape)):
            raise InputError(f"{path}: a {name} takes no images of {shape}; {REMEDY}")
    if not isinstance(about.get("config", {}), dict):
        raise InputError(f"{path}: config {brief(about['config'])} is no object; {REMEDY}")
    expected = {FACTS, *(f"{name}.safetensors" for name in numbers)}
    if not isinstance(files, dict) or set(files) != expected:
        raise InputError(f"{path}: files {brief(files)} are not {', '.join(sorted(expected))}; {REMEDY}")
    for name, fingerprint in files.items():
        check_file(folder / name, fingerprint)
    return about


def image_shape_of(images: Any, path: Path) -> list[int]:
    """Return the shape of images. Raise InputError unless `zoo.json` says what they are, in numbers that images may have."""
    known = images if isinstance(images, dict) else {}
    shape, classes = known.get("image_shape"), known.get("class_names")
    if not isinstance(shape, list) or len(shape) != 3 or not all(is_count(each, LARGEST) for each in shape):
        raise InputError(f"{path}: image_shape {brief(shape)} is not [channels, side, side]; {REMEDY}")
    if not isinstance(classes, list) or not classes or not all(isinstance(each, str) for each in classes):
        raise InputError(f"{path}: class_names {brief(classes)} are not a list of names; {REMEDY}")
    if not isinstance(known.get("dataset"), str):
        raise InputError(f"{path}: dataset {brief(known.get('dataset'))} is no name; {REMEDY}")
    for name, lowest in (("mean", -math.inf), ("std", 0)):
        values = known.get(name)
        listed = values if isinstance(values, list) else []
        if len(listed) != shape[0] or not all(is_finite(each) and each > lowest for each in listed):
            raise InputError(
                f"{path}: {name} {brief(values)} is not a number for each of {shape[0]} channels; {REMEDY}"
            )
    return shape


def is_count(value: Any, largest: int) -> bool:
    """Return whether a value from JSON is an integer from 1 to `largest`."""
    return type(value) is int and 1 <= value <= largest


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def check_file(path: Path, fingerprint: Any) -> None:
    """Raise InputError unless there is the file that `zoo.json` was written with."""
    if not path.exists():
        raise InputError(f"{path} is missing, the zoo is half copied; {REMEDY}")
    check_regular(path)
    try:
        found = fingerprint_of_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from None
    if found != fingerprint:
        raise InputError(f"{path} is not the file that {ABOUT} was written with; {REMEDY}")


def read_facts(path: Path, numbers: dict[str, int]) -> Facts:
    """Return the facts of every instance, in the order of `zoo.json`.

    Raise InputError, naming the line, for another number or order of instances, for two of one net and step, and for facts that
    are not what their column says.
    """
    table = read_table(path, ("architecture", "net", "step", "test_accuracy"))
    if len(table) != sum(numbers.values()):
        raise InputError(f"{path} has {len(table)} lines, {ABOUT} {sum(numbers.values())} instances; {REMEDY}")
    facts, seen = [], set()
    order = (name for name, number in numbers.items() for _ in range(number))
    for (position, line), architecture in zip(table, order):
        known, where = typed(line), f"{path}, line {position}"
        if known["architecture"] != architecture:
            raise InputError(
                f"{where} is of '{brief(known['architecture'])}', not {architecture} as in {ABOUT}; {REMEDY}"
            )
        if type(known["step"]) is not int or known["step"] < 0:
            raise InputError(f"{where}: step {brief(line['step'])} is no number of steps; {REMEDY}")
        for name, value in known.items():
            low = 0 if name.endswith("_accuracy") or name.startswith("recall_") else -100 if name == GAP else None
            if low is not None and not (is_finite(value) and low <= value <= 100):
                raise InputError(f"{where}: {brief(name)} {brief(value)} is no percentage; {REMEDY}")
        if "/" in known["net"] or len(known["net"]) > 255 or label(known) in seen:
            raise InputError(f"{where}: net '{brief(known['net'])}' is there twice at this step, or no name; {REMEDY}")
        seen.add(label(known))
        facts.append(known)
    return facts


def label(facts: dict[str, Any]) -> str:
    """Return an instance's name."""
    return f"{facts['architecture']}-{facts['net']}-step{facts['step']}"


def typed(line: dict[str, str]) -> dict[str, Any]:
    """Return a line of facts with numbers as numbers, but for names; what is empty is left out."""
    return {name: text if name in ("architecture", "net") else number(text) for name, text in line.items() if text}


def number(text: str) -> int | float | str:
    """Return a finite int or float, or the text itself."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if abs(value) < (2**63 if kind is int else math.inf):
            return value
    return text
