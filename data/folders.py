"""Where things are, relative to the folder that a script runs in."""

from dataclasses import dataclass
from pathlib import Path

from data.load import dataset_name


@dataclass(frozen=True)
class Folders:
    """Where things are; relative to the folder that the script runs in."""

    data_dir: Path = Path("data")  # of image sets: cifar10.npz, tiny-imagenet-200/
    lists_dir: Path = Path("models/input_lists")  # of input lists: which instances train, validate, test
    runs_dir: Path = Path("runs")  # everything that a run writes

    def run(self, dataset: str, setting: str) -> Path:
        """The folder of an experiment's results, `runs/<dataset>/<setting>`."""
        return self.runs_dir / dataset_name(dataset) / setting

    def nets(self, dataset: str, collection: str) -> Path:
        """The folder of a collection of instance files."""
        return self.runs_dir / dataset_name(dataset) / "nets" / collection

    def input_list(self, dataset: str, setting: str, split: str) -> Path:
        return self.lists_dir / dataset_name(dataset) / setting / f"{split}.txt"
