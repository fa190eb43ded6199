"""Nets that others trained: which files are recognized, and the accuracies stated for them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from data.folders import Folders
from data.images import ImageSet
from data.instance_files import find_net, read_instance, row_of
from data.texts import read_text
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES

SUFFIXES = (".pt", ".pth", ".safetensors")
FAR = 2.0  # points between stated and measured accuracy that are worth a warning


@dataclass(frozen=True)
class Imported:
    """A file that was recognized, the net in it, and the path that it is written to."""

    source: Path
    net: TargetNet
    row: Tensor  # (P,)
    path: Path


def list_state_dicts(source: Path | None) -> list[Path]:
    """Return the files of state dicts in a folder, by name. Raise InputError if there are none."""
    if source is None or not source.is_dir():
        raise InputError(f"--source {source} is not a folder; name the one with the state dicts")
    files = sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise InputError(f"--source {source} holds no {', '.join(SUFFIXES)}; name the folder with the state dicts")
    return files


def recognize(
    files: list[Path], images: ImageSet, folders: Folders, dataset: str, with_class_id: bool
) -> list[Imported]:
    """Read and check every file; each goes to `<architecture>-<source folder>/`.

    Raise InputError for the first that is of no registered architecture, or has no ClassId though one is needed, and for two
    files of one name.
    """
    known = [TargetNet(each, images.image_shape, images.num_classes) for each in ARCHITECTURES.values()]
    found = []
    for file in files:
        state, _ = read_instance(file)
        net = find_net(known, state, file)
        if with_class_id and net.architecture.class_id is None:
            raise InputError(f"{file} is a {net.name}, which has no ClassId; take it out of this folder")
        folder = folders.nets(dataset, f"{net.name}-{file.resolve().parent.name}")
        found.append(Imported(file, net, row_of(net, state, file), folder / f"{file.stem}.safetensors"))
    paths = [each.path for each in found]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise InputError(f"{files[0].parent} holds {twice.stem} with two suffixes; keep one")
    return found


def read_accuracies(path: Path, files: list[Path]) -> dict[str, float]:
    """Return test accuracies (percent) by file name. Raise InputError, naming the line, for a value that is not one."""
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
            raise InputError(f"{path}, line {i}: accuracy {line['accuracy']} is not a percentage; write 0 to 100")
        if Path(line["file"]).name not in names:
            raise InputError(f"{path}, line {i}: there is no {line['file']} in the source folder; correct its name")
        stated[Path(line["file"]).name] = value
    return stated


def report_differences(name: str, stated: list[float | None], measured: list[float]) -> None:
    """Print how far the stated accuracies are from those measured here, in points."""
    far = [abs(theirs - ours) for theirs, ours in zip(stated, measured) if theirs is not None]
    print(f"{name}: test accuracy {min(measured):.2f} to {max(measured):.2f} %, n = {len(measured)}")
    if far:
        print(f"{name}: stated and measured accuracy differ by {max(far):.2f} points at most, n = {len(far)}")
    if far and max(far) > FAR:
        print(f"{name}: were images normalized with another mean and standard deviation, or is it another test set?")
