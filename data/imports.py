"""Nets that others trained: which files are recognized, the accuracies stated for them, and writing all of them or none."""

import contextlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.files import Listing, fingerprint, list_files
from data.folders import Folders, check_path_name, text_of
from data.foreign_zoos import LayoutName, LeftOut, Source, ZooOptions
from data.images import ImageSet
from data.instance_files import read_instance, row_of, samples_of, save_instance, siren_widths, stated_architecture
from data.modelzoos import is_modelzoos, read_modelzoos
from data.nets import write_lists
from data.recognition import registered_net
from data.state_dicts import is_other_kind
from data.tensor_files import TENSOR_SUFFIXES
from data.texts import read_table
from data.unterthiner import is_unterthiner, read_unterthiner
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import get_architecture, siren

PERCENTAGE = re.compile(
    r"((?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?) ?%?"
)  # with either decimal sign
FAR = 2.0  # points between stated and measured accuracy that are worth a warning


@dataclass(frozen=True)
class Imported:
    """A file that was recognized, the net in it, the path that it is written to, and the facts for its header."""

    source: Path
    net: TargetNet
    row: Tensor  # (P,)
    path: Path
    samples: Tensor | None = None  # (S, 4), of a SIREN
    facts: dict[str, Any] = field(default_factory=dict)


def layout_of(source: Path | None, options: ZooOptions) -> LayoutName | None:
    """Return the layout of a foreign zoo, None for a folder of single nets. Raise InputError for one that is not as given."""
    if source is None or not source.is_dir():
        return None
    fits: dict[LayoutName, Callable[[Path], bool]] = {"unterthiner": is_unterthiner, "modelzoos": is_modelzoos}
    if options.layout is None:
        return next((layout for layout in fits if fits[layout](source)), None)
    if not fits[options.layout](source):
        needed = {"unterthiner": "weights.npy and layout.csv", "modelzoos": "folders with params.json and result.json"}
        raise InputError(f"--source {source} has no {needed[options.layout]}; check it, or --layout {options.layout}")
    return options.layout


def read_zoo(source: Path, layout: LayoutName, dataset: str, options: ZooOptions) -> tuple[list[Source], LeftOut]:
    """Read a foreign zoo: a Source for each architecture, and what is left out. Raise InputError if nothing can be taken."""
    readers = {"modelzoos": read_modelzoos, "unterthiner": read_unterthiner}
    sources, left_out = readers[layout](source, dataset, options)
    if not sources:
        raise InputError(f"--source {source}: no instance can be read; {left_out}")
    return sources, left_out


def list_state_dicts(source: Path | None) -> Listing:
    """Return the files of state dicts in a folder and its subfolders, by name, and those left out.

    Left out are hidden files, folders with such a name, and files of something else, as an optimizer's state. Raise InputError
    if none is left, or if one is broken.
    """
    if source is None or not source.is_dir():
        raise InputError(f"--source {source} is not a folder; name the one with the state dicts")
    found = list_files(source, TENSOR_SUFFIXES, subfolders=True)
    others = {path for path in found.files if path.suffix != ".safetensors" and is_other_kind(path)}
    left_out = [*found.left_out, *((path, "no state dict in it") for path in found.files if path in others)]
    files = [path for path in found.files if path not in others]
    if not files:
        there = f": {left_out[0][0]} is left out ({left_out[0][1]})" if left_out else ""
        kinds = ", ".join(TENSOR_SUFFIXES)
        raise InputError(
            f"--source {source} holds no {kinds} of a state dict{there}; name the folder with the state dicts"
        )
    return Listing(files, left_out)


def name_in(source: Path, file: Path) -> str:
    """Return an instance's name: its path in the source folder, with - for /, without suffix: run0/best.pt is run0-best."""
    name = "-".join(file.relative_to(source).parts)
    suffixes = [suffix for suffix in TENSOR_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -max(map(len, suffixes))]


def recognize(
    source: Path,
    files: list[Path],
    images: ImageSet,
    folders: Folders,
    dataset: str,
    with_class_id: bool,
    architecture: str | None = None,
) -> list[Imported]:
    """Read and check every file; each goes to `<architecture>-<source folder>/`. `architecture` is taken if several fit.

    Raise InputError for the first that is of no registered architecture, or has no ClassId though one is needed.
    """
    wanted = None if architecture is None else get_architecture(architecture).name
    found = []
    for file in files:
        state, facts = read_instance(file)
        prefer = [wanted, stated_architecture(facts)]
        net = registered_net(state, images.image_shape, images.num_classes, file, prefer)
        if with_class_id and net.architecture.class_id is None:
            raise InputError(f"{file} is a {net.name}, which has no ClassId; take it out of this folder")
        folder = folders.nets(dataset, f"{net.name}-{Path(os.path.realpath(source)).name}")
        found.append(Imported(file, net, row_of(net, state, file), folder / f"{name_in(source, file)}.safetensors"))
    return found


def recognize_sirens(source: Path, files: list[Path], folders: Folders, dataset: str) -> list[Imported]:
    """Read and check the SIRENs in files, with their samples; all go to `siren-<source folder>/`.

    Raise InputError for the first that is none, or of another size than the first one.
    """
    folder = folders.nets(dataset, f"siren-{Path(os.path.realpath(source)).name}")
    found: list[Imported] = []
    for file in files:
        state, _ = read_instance(file)
        widths, samples = siren_widths(state, file), samples_of(state, file)
        sizes = (widths, len(samples))
        first = (found[0].net.trained.widths, len(found[0].samples)) if found else sizes  # type: ignore[arg-type]
        if sizes != first:
            raise InputError(
                f"{file} is a SIREN of widths {widths} with {len(samples)} samples, {files[0]} of {first[0]} with {first[1]}; "
                "NetSpace is trained on one size, import them from two folders under two names"
            )
        net = found[0].net if found else TargetNet(siren(widths))
        row = row_of(net, {name: value for name, value in state.items() if name != "sdf"}, file)
        found.append(Imported(file, net, row, folder / f"{name_in(source, file)}.safetensors", samples))
    return found


def check_targets(found: Sequence[Imported]) -> None:
    """Check, before anything is written, that all instances can be.

    Raise InputError for two files of one name, also if a file system takes two names for one; for two files that hold one net,
    which could train and test; for paths that lists cannot hold; and for a file that is there and holds another net.
    """
    names: dict[str, Path] = {}
    contents: dict[str, Path] = {}
    for each in found:
        check_path_name(each.path)
        name = unicodedata.normalize("NFC", str(each.path)).casefold()
        if name in names:
            raise InputError(
                f"{names[name]} and {each.source} are {each.path.stem} with two suffixes or spellings; keep one"
            )
        content = fingerprint(each.row)
        if content in contents:
            raise InputError(f"{contents[content]} and {each.source} hold the same net; keep one")
        names[name] = contents[content] = each.source
    for each in found:
        if each.path.is_file() and not is_same(each):
            raise InputError(
                f"{each.path} holds another net than {each.source}; move it away, or rename the source folder"
            )


def is_same(each: Imported) -> bool:
    """Return whether the instance on disk holds this net, whatever it was imported from. Raise InputError if it is broken."""
    state, _ = read_instance(each.path)
    try:
        samples = None if each.samples is None else samples_of(state, each.path)
        row = row_of(each.net, {name: value for name, value in state.items() if name != "sdf"}, each.path)
    except InputError:
        return False
    same = samples is None or each.samples is None or torch.equal(samples, each.samples)
    return same and torch.equal(row, each.row)


def write_all(found: Sequence[Imported], lists: dict[Path, str]) -> None:
    """Write the instances that are not on disk, and the lists. If one cannot be written, none is: those before are removed."""
    with removed_on_failure() as written:
        for each in found:
            if not each.path.is_file():
                written.append(each.path)
                state, _ = read_instance(each.source)
                facts = {**each.facts, "imported_from": text_of(each.source.as_posix())}
                save_instance(each.path, state, facts)
        missing = {path: text for path, text in lists.items() if not path.is_file()}
        written += missing
        write_lists(missing)


@contextlib.contextmanager
def removed_on_failure() -> Iterator[list[Path]]:
    """Yield a list of paths; if the block does not end well, files there are removed, and folders that are empty then."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in {path.parent for path in written}:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise


def read_accuracies(path: Path, source: Path, files: list[Path]) -> dict[Path, float]:
    """Return test accuracies (percent) by file. A line names a file by its path in the source folder, or by its name alone.

    Raise InputError, naming the line, for a value that is not a percentage, and for a file that is not there or is unclear.
    """
    by_path = {text_of(file.relative_to(source).as_posix()): file for file in files}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(text_of(file.name), []).append(file)
    stated: dict[Path, float] = {}
    signs = 0
    for number, line in read_table(path, ("file", "accuracy")):
        text = line["accuracy"]
        found = PERCENTAGE.fullmatch(text)
        value = float(found[1].replace(",", ".")) if found else float("nan")
        signs += text.endswith("%")
        if not 0 <= value <= 100:
            raise InputError(f"{path}, line {number}: accuracy {line['accuracy']} is not a percentage; write 0 to 100")
        name = line["file"].replace("\\", "/")
        meant = [by_path[name]] if name in by_path else by_name.get(name.rpartition("/")[2], [])
        if len(meant) != 1:
            problem = "there is no" if not meant else "several files are called"
            raise InputError(f"{path}, line {number}: {problem} {line['file']} in the source folder; correct its name")
        if stated.setdefault(meant[0], value) != value:
            raise InputError(f"{path}, line {number}: {line['file']} has another accuracy in a line above; keep one")
    if not signs and 0 < max(stated.values(), default=0) <= 1:
        raise InputError(
            f"{path}: no accuracy is above 1, so they seem to be fractions; write percentages, 0 to 100, with % if they are so low"
        )
    return stated


def report_differences(name: str, stated: list[float | None], measured: list[float]) -> None:
    """Print how far the stated accuracies are from those measured here, in points."""
    far = [abs(theirs - ours) for theirs, ours in zip(stated, measured) if theirs is not None]
    print(f"{name}: test accuracy {min(measured):.2f} to {max(measured):.2f} %, n = {len(measured)}")
    if far:
        print(f"{name}: stated and measured accuracy differ by {max(far):.2f} points at most, n = {len(far)}")
    if far and max(far) > FAR:
        print(f"{name}: were images normalized with another mean and standard deviation, or is it another test set?")
