"""S Fig. 5 and 6: the PReps of a target and of its predicted instance as images.

    python visualize_prep.py                       # photos (S Fig. 5)
    python visualize_prep.py cifar10 --instance 3  # line 4 of test.txt
    python visualize_prep.py --setting multi       # ResNet32 (S Fig. 6)

Shows the test instance that is most accurate on test images; with several architectures, among those of the highest ClassId,
ResNet32. Needs train_single_arch.py, or train_multi_arch.py with the same setting. Writes
runs/<dataset>/<setting>/visualize_prep.{pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data.folders import IMAGE_SETS, Folders, dataset_name
from evaluation.metrics import accuracy_of
from evaluation.plots import plot_preps, save_figure
from evaluation.spaces import MultiConfig, SingleConfig, load_experiment
from models.errors import InputError
from models.prep import pack
from training.constants import Flat, Index


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    setting: Literal["single", "multi", "missing"] = "single"  # which NetSpace: one architecture, all, or two seen
    architecture: str = "resnet8"  # of the instances, with single
    checkpoint: Path | None = None  # default: runs/<dataset>/<setting>/best.pt; the original release's are read too
    instance: Index | None = None  # index in test.txt; default: the most accurate on test images
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in IMAGE_SETS}


def main(config: Config) -> None:
    if config.setting == "single":
        trained = SingleConfig(config.dataset, config.architecture, config.checkpoint, config.folders)
    else:
        trained = MultiConfig(config.dataset, config.setting, config.checkpoint, config.folders)
    images, space, test = load_experiment(trained)
    index = config.instance
    if index is None:
        largest = test.indices_of(max(test.class_ids))
        index = largest[accuracy_of(test[largest], images.test).argmax().item()]
    if index >= len(test):
        raise InputError(f"--instance {index}: test.txt holds {len(test)} instances, give 0 to {len(test) - 1}")
    target = test[[index]]
    net = target.nets[target.class_ids[0]]
    # Without what the decoder writes into the target's padding, which is not a parameter.
    rows = (each[:, : net.num_parameters] for each in (target.rows, space.predict(target.rows)))
    preps = (pack(each, space.model.prep_shape)[0, 0].cpu().numpy() for each in rows)
    figure = plot_preps(*preps, f"{net.name} on {dataset_name(config.dataset)}, {target.paths[0].stem}")
    pdf, png = save_figure(figure, trained.run_dir / "visualize_prep")
    print(f"target and predicted PRep of {target.paths[0]}; {png}, {pdf}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
