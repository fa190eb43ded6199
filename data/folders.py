"""Where files are, and what a data set is called there."""

import os
from dataclasses import dataclass
from pathlib import Path

from models.errors import InputError

IMAGE_SETS = ("photos", "cifar10", "cifar100", "mnist", "tiny-imagenet-200")  # those that have a preset in every script
KNOWN = (*IMAGE_SETS, "chairs", "chairs-unseen")
LONGEST_NAME = 255  # bytes of a file's name


def dataset_name(dataset: str) -> str:
    """Return the name in lists and run folders: a known data set's, or the last part of a folder's path.

    Only the bare name means a known data set: a folder at another path that is called so, such as `/data/cifar10`, is one of
    your own under the name `cifar10-folder`. Raise InputError for a name that cannot stand in a list.
    """
    if dataset in KNOWN:
        return dataset
    name = "" if "\0" in dataset else Path(os.path.realpath(dataset)).name
    if not name or ";" in name:
        raise InputError(f"a data set of your own cannot be called '{name}'; rename the folder {dataset}")
    check_path_name(name)
    return f"{name}-folder" if name in KNOWN else name


def text_of(name: str | Path) -> str:
    """Return a file's name as the Unicode text that its bytes are in UTF-8, the same in any locale.

    Raise InputError for bytes that are not UTF-8.
    """
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:
        raise InputError(f"{ascii(str(name))} is not UTF-8, which lists are written in; rename it") from None


def name_of(text: str) -> str:
    """Return the file name whose text this is (`text_of`), as this locale spells it."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def check_path_name(path: str | Path) -> None:
    """Raise InputError for a path that a line of an input list cannot hold as it is.

    These are control characters, such as a newline; white space and quotes at its ends; bytes that are not UTF-8; and names that
    no file can have.
    """
    text = Path(text_of(path)).as_posix()
    if any(ord(each) < 32 or each in "\x7f\x85\u2028\u2029" for each in text):
        raise InputError(f"{ascii(text)} has control characters, which a line of an input list cannot hold; rename it")
    if text != text.strip().strip("\"'"):
        raise InputError(
            f"'{text}' begins or ends with white space or quotes, which input lists do not keep; rename it"
        )
    for part in Path(text).parts:
        if len(part.encode()) > LONGEST_NAME:
            raise InputError(
                f"the name {part} has more than {LONGEST_NAME} bytes, which file systems cannot have; shorten it"
            )


def command(script: str, dataset: str, flags: str = "") -> str:
    """Return how a script is run on a data set, for error messages."""
    name = dataset_name(dataset)
    preset = name if name in KNOWN else f"with the preset and --dataset of {name}"
    return f"python {script} {preset} {flags}".rstrip()


@dataclass(frozen=True)
class Folders:
    """The folders of a project, relative to the folder that a script runs in."""

    data_dir: Path = Path("data")  # image sets: cifar10.npz, cifar-100-python/, MNIST/, tiny-imagenet-200/
    lists_dir: Path = Path("models/input_lists")  # input lists: which instances train, validate, test
    runs_dir: Path = Path("runs")  # everything that a run writes

    def __post_init__(self) -> None:
        """Raise InputError for folders that the lines of input lists cannot name."""
        for folder in (self.lists_dir, self.runs_dir):
            check_path_name(folder)

    def run(self, dataset: str, setting: str) -> Path:
        """Return the folder of an experiment's results, `runs/<dataset>/<setting>`."""
        return self.runs_dir / dataset_name(dataset) / setting

    def nets(self, dataset: str, collection: str) -> Path:
        """Return the folder of a collection of instance files."""
        return self.runs_dir / dataset_name(dataset) / "nets" / collection

    def zoo(self, dataset: str, name: str) -> Path:
        """Return the folder of a zoo. Raise InputError for a name that is a path, or that a list cannot hold."""
        if Path(name).name != name or name == "..":
            raise InputError(
                f"'{name}' is no name of a zoo: give one as in zoo-large, its folder is in runs/<dataset>/nets"
            )
        check_path_name(name)
        return self.nets(dataset, name)

    def input_list(self, dataset: str, setting: str, split: str) -> Path:
        """Return the path of an input list."""
        return self.lists_dir / dataset_name(dataset) / setting / f"{split}.txt"
