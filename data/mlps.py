"""Nets datasets of SIRENs: instance files that carry SDF samples, and the lists that name them."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from data.files import read_text
from data.folders import Folders
from data.instance_files import check_numbers, read_instance, siren_row
from data.nets import split_line
from models.errors import InputError
from models.siren import SirenNets


@dataclass(frozen=True)
class SdfNetsDataset:
    """SIRENs of one size, and the points at which they are compared, on the device.

    `rows` (N, P) float32; `samples` (N, S, 4) float32, each x, y, z and the true signed distance, positive half first.
    """

    nets: SirenNets
    rows: Tensor
    samples: Tensor
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def split_samples(self, num: int) -> tuple["SdfNetsDataset", "SdfNetsDataset"]:
        """The same instances with all but `num` of their samples each, and with those `num`: the last of either half."""
        size = self.samples.shape[1]
        rest, half = size - num, size - size // 2
        places = torch.arange(size, device=self.samples.device)
        kept = (places < rest - rest // 2) | (places >= half) & (places < half + rest // 2)
        return replace(self, samples=self.samples[:, kept]), replace(self, samples=self.samples[:, ~kept])


@dataclass(frozen=True)
class Entry:
    """One line of an input list, `siren;l3,256,256,1;schairs;PATH`: the widths, the data set, the instance."""

    widths: tuple[int, ...]
    dataset: str
    path: Path

    def line(self) -> str:
        return f"siren;l{','.join(map(str, self.widths))};s{self.dataset};{self.path.as_posix()}"


def read_entry(line: str, place: str) -> Entry:
    """Raises InputError, naming the place, for a line that names no SIREN."""
    kind, arguments, dataset, path = split_line(line, place)
    widths = re.fullmatch(r"l\[?(\d+(?:,\d+)*)\]?", ";".join(arguments))
    if kind != "siren" or not widths:
        raise InputError(f"{place}: '{line}' names no SIREN; expected siren;lWIDTHS;sDATASET;PATH")
    return Entry(tuple(int(width) for width in widths[1].split(",")), dataset, path)


def widths_of(state: dict[str, Tensor], path: Path) -> tuple[int, ...]:
    """The widths of the SIREN whose state dict this is. Raises InputError if it is none's."""
    weights = [value for name, value in state.items() if re.fullmatch(r"mlp\.\d+\.weight", name)]
    if not weights or any(weight.dim() != 2 for weight in weights):
        raise InputError(f"{path} is no SIREN: it has no matrices mlp.0.weight, mlp.2.weight, ...; check what it is")
    return (weights[0].shape[1], *(len(weight) for weight in weights))


def row_and_samples(nets: SirenNets, path: Path) -> tuple[Tensor, Tensor]:
    """An instance file as a row (P,) and samples (S, 4). Raises InputError if it is no such SIREN."""
    state, _ = read_instance(path)
    samples = state.pop("sdf", None)
    row = siren_row(nets, state, path)
    if samples is None or samples.dim() != 2 or samples.shape[1] != 4 or not len(samples):
        raise InputError(f"{path} has no samples 'sdf' (S, 4); make it again with create_mlp_dataset.py")
    check_numbers(samples, f"{path}: 'sdf'")
    return row, samples.float()


def load_mlps(folders: Folders, dataset: str, split: str, device: torch.device) -> SdfNetsDataset:
    """The SIRENs of an input list, `train` or `test`. Raises InputError if it or one of them is missing or wrong."""
    path = folders.input_list(dataset, "mlps", split)
    made_by = f"python create_mlp_dataset.py, with the preset or --dataset of {path.parent.parent.name}"
    if not path.is_file():
        raise InputError(f"no input list {path}; make it with: {made_by}")
    lines = [line.strip() for line in read_text(path).splitlines()]
    entries = [read_entry(line, f"{path}, line {i}") for i, line in enumerate(lines, start=1) if line]
    if not entries:
        raise InputError(f"input list {path} is empty; delete it and make it again with: {made_by}")
    for entry in entries:
        if entry.widths != entries[0].widths:
            raise InputError(
                f"{path}: {entry.path} has widths {entry.widths}, others {entries[0].widths}; list one size"
            )
    nets = SirenNets(entries[0].widths)
    rows, samples = zip(*(row_and_samples(nets, entry.path) for entry in entries))
    for entry, each in zip(entries, samples):
        if len(each) != len(samples[0]):
            raise InputError(f"{entry.path} holds {len(each)} samples, others {len(samples[0])}; make them alike")
    paths = tuple(entry.path for entry in entries)
    return SdfNetsDataset(nets, torch.stack(rows).to(device), torch.stack(samples).to(device), paths)
