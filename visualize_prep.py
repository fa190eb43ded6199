"""S Fig. 5 and 6: the PReps of a target and of its predicted instance as images.

    python visualize_prep.py                       # photos (S Fig. 5)
    python visualize_prep.py cifar10 --instance 3  # line 4 of test.txt
    python visualize_prep.py --setting multi       # ResNet32 (S Fig. 6)

Shown is the test instance that is most accurate on test images; with several architectures, among those of the highest
ClassId, ResNet32. Needs train_single_arch.py, or train_multi_arch.py with the same setting. Writes
runs/<dataset>/<setting>/visualize_prep.{pdf,png}. Takes 5 seconds on photos, 2 CPU cores."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.load import dataset_name
from evaluation.multi import MultiConfig, load_multi_experiment
from evaluation.plots import plot_preps, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from models.prep import pack, unpack
from training.command_line import run_script


@dataclass(frozen=True)
class Config(EvaluationConfig):
    setting: Literal["single", "multi", "missing"] = "single"  # which NetSpace: one architecture, all, or only two seen
    instance: int | None = None  # position in test.txt, from 0; the most accurate on test images unless given


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> None:
    target, predicted, path, architecture = (of_one if config.setting == "single" else of_several)(config)
    images = (prep[0, 0].cpu().numpy() for prep in (target, predicted))
    figure = plot_preps(*images, f"{architecture} on {dataset_name(config.dataset)}, {path.stem}")
    pdf, png = save_figure(figure, config.folders.run(config.dataset, config.setting) / "visualize_prep")
    print(f"target and predicted PRep of {path}; {png}, {pdf}")


def of_one(config: Config) -> tuple[Tensor, Tensor, Path, str]:
    """PReps (1, 1, H, W) of a target and of its predicted instance, the target's file and architecture."""
    experiment = load_experiment(config)
    test = experiment.test
    index = chosen(config, len(test), lambda: experiment.test_accuracy(test.rows))
    target = test.rows[[index]]
    predicted = experiment.decode(experiment.encode(target))
    preps = (pack(rows, experiment.prep_shape) for rows in (target, predicted))
    return *preps, test.paths[index], config.architecture


def of_several(config: Config) -> tuple[Tensor, Tensor, Path, str]:
    """The same where there are several architectures."""
    experiment = load_multi_experiment(MultiConfig(config.dataset, config.setting, config.checkpoint, config.folders))
    test, pool, net_space = experiment.test, experiment.pool, experiment.net_space

    def of_highest_class_id() -> Tensor:
        return experiment.target_accuracy(test).masked_fill(torch.tensor(test.class_ids) < len(pool) - 1, -1)

    index = chosen(config, len(test), of_highest_class_id)
    target = test.preps[[index]]
    nets = pool[test.class_ids[index]]
    # Without what the decoder puts into the target's padding, which is no parameter of it.
    predicted = pack(unpack(net_space.decode(net_space.encode(target)), nets.num_parameters), pool.prep_shape)
    return target, predicted, test.paths[index], nets.architecture.name


def chosen(config: Config, number: int, accuracies: Callable[[], Tensor]) -> int:
    index = accuracies().argmax().item() if config.instance is None else config.instance
    if index >= number:
        raise InputError(f"--instance {index}: test.txt holds {number} instances, give 0 to {number - 1}")
    return index


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
