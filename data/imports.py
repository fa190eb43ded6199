"""Nets that others trained: what their files are, and what is said of them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data.files import read_text
from data.folders import Folders
from data.images import ImageSet
from data.instance_files import find_nets, fused_row, read_instance
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES


@dataclass(frozen=True)
class Found:
    """A file that was recognized."""

    source: Path
    nets: ArchitectureOnImages
    row: Tensor  # (P,)
    path: Path  # where it goes


def recognize(files: list[Path], images: ImageSet, folders: Folders, dataset: str, with_class_id: bool) -> list[Found]:
    """Every file, read and checked, and where it goes: `<architecture>-<source folder>/`.

    Raises InputError for the first that is of no registered architecture, or has no ClassId though one is needed, and for
    two files of one name.
    """
    known = [ArchitectureOnImages(each, images.image_shape, images.num_classes) for each in ARCHITECTURES.values()]
    found = []
    for file in files:
        state, _ = read_instance(file)
        nets = find_nets(known, state, file)
        if with_class_id and nets.architecture.class_id is None:
            raise InputError(f"{file} is a {nets.architecture.name}, which has no ClassId; take it out of this folder")
        folder = folders.nets(dataset, f"{nets.architecture.name}-{file.resolve().parent.name}")
        found.append(Found(file, nets, fused_row(nets, state, file), folder / f"{file.stem}.safetensors"))
    stems = [each.path for each in found]
    twice = next((path for path in stems if stems.count(path) > 1), None)
    if twice:
        raise InputError(f"{files[0].parent} holds {twice.stem} with two suffixes; keep one")
    return found


def read_accuracies(path: Path, files: list[Path]) -> dict[str, float]:
    """Test accuracies, percent, by file name. Raises InputError, naming the line, for what is not one."""
    lines = list(csv.DictReader(read_text(path).splitlines()))
    if not lines or not {"file", "accuracy"} <= set(lines[0]):
        raise InputError(f"{path} has no columns 'file' and 'accuracy'; write them in its first line")
    names, stated = {file.name for file in files}, {}
    for i, line in enumerate(lines, start=2):
        try:
            value = float(line["accuracy"])
        except (TypeError, ValueError):
            value = float("nan")
        if not 0 <= value <= 100:
            raise InputError(f"{path}, line {i}: accuracy {line['accuracy']} is no percentage; write 0 to 100")
        if Path(line["file"]).name not in names:
            raise InputError(f"{path}, line {i}: there is no {line['file']} in the source folder; correct its name")
        stated[Path(line["file"]).name] = value
    return stated
