"""Where files are, and what a data set is called there."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError

IMAGE_SETS = ("photos", "cifar10", "tiny-imagenet-200")  # those that have a preset in every script
KNOWN = (*IMAGE_SETS, "chairs")


def dataset_name(dataset: str) -> str:
    """Return the name in lists and run folders: a known data set's, or the last part of a folder's path.

    Only the bare name means a known data set: a folder at another path that is called so, such as `/data/cifar10`, is one of
    your own under the name `cifar10-folder`. Raise InputError for a name that cannot stand in a list.
    """
    if dataset in KNOWN:
        return dataset
    name = "" if "\0" in dataset else Path(os.path.realpath(dataset)).name
    # Control characters, ends of lines, and what stands for bytes that are not UTF-8.
    if not name or ";" in name or any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in name):
        raise InputError(f"a data set of your own cannot be called '{name}'; rename the folder {dataset}")
    return f"{name}-folder" if name in KNOWN else name


def command(script: str, dataset: str, flags: str = "") -> str:
    """Return how a script is run on a data set, for error messages."""
    name = dataset_name(dataset)
    preset = name if name in KNOWN else f"with the preset and --dataset of {name}"
    return f"python {script} {preset} {flags}".rstrip()


@dataclass(frozen=True)
class Folders:
    """The folders of a project, relative to the folder that a script runs in."""

    data_dir: Path = Path("data")  # image sets: cifar10.npz, tiny-imagenet-200/
    lists_dir: Path = Path("models/input_lists")  # input lists: which instances train, validate, test
    runs_dir: Path = Path("runs")  # everything that a run writes

    def run(self, dataset: str, setting: str) -> Path:
        """Return the folder of an experiment's results, `runs/<dataset>/<setting>`."""
        return self.runs_dir / dataset_name(dataset) / setting

    def nets(self, dataset: str, collection: str) -> Path:
        """Return the folder of a collection of instance files."""
        return self.runs_dir / dataset_name(dataset) / "nets" / collection

    def input_list(self, dataset: str, setting: str, split: str) -> Path:
        """Return the path of an input list."""
        return self.lists_dir / dataset_name(dataset) / setting / f"{split}.txt"
