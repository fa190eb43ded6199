"""Why distillation: NetSpaces trained by eq. 1 and by mean squared error of the weights, side by side (paper Sec. III).

    python train_single_arch.py photos
    python train_single_arch.py photos --objective weights --learning-rate 3e-4
    python compare_objectives.py
    python compare_objectives.py cifar10

Accuracies of the test instances and along the line from the weakest to the strongest, as in Fig. 3, and how far predicted
weights are from the targets'. Needs train_single_arch.py with both objectives, for as many steps each; the flags of the
second are the best for photos, docs/compare_objectives.md, and were not tried with the other presets. Writes
runs/<dataset>/compare_objectives.{json,md,pdf,png}. Takes 30 seconds on photos, 2 CPU cores."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import tyro

from data.files import write_json, write_text
from data.folders import Folders
from data.nets import load_split
from evaluation.accuracy import accuracy
from evaluation.interpolation import interpolate, median_place
from evaluation.objectives import Comparison, load_trained, objectives_table, refuse_unlike
from evaluation.plots import plot_objectives, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from training.command_line import run_script
from training.provenance import provenance
from training.runs import SETTINGS

FLAGS_OF_WEIGHTS = {"photos": " --learning-rate 3e-4"}  # docs/compare_objectives.md


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"  # of the instances
    num_gammas: int = 11  # points on the line from 0 to 1, ends included
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, Any]:
    experiment = load_experiment(EvaluationConfig(config.dataset, config.architecture, folders=config.folders))
    made_by = f"python train_single_arch.py {config.dataset}"
    by_weights = f"{made_by} --objective weights{FLAGS_OF_WEIGHTS.get(config.dataset, '')}"
    commands = {"distillation": made_by, "weights": by_weights}
    run_dirs = {objective: config.folders.run(config.dataset, setting) for objective, setting in SETTINGS.items()}
    trained = {each: load_trained(experiment, run_dirs[each], commands[each]) for each in SETTINGS}
    refuse_unlike(*(part for each in SETTINGS for part in (run_dirs[each], trained[each][1])))

    images, test = experiment.images, experiment.test
    train = load_split(config.folders, images, "single", "train", test.nets)
    comparison = Comparison.of(experiment, train)
    target = comparison.target_accuracy
    ends = [target.argmin().item(), target.argmax().item()]
    gamma = torch.linspace(0, 1, config.num_gammas, device=test.rows.device)
    predicted = {
        f"{objective}, {kept}": {
            "epoch": constants["epochs"][kept],
            **comparison.measure_net_space(each, ends, gamma),
        }
        for objective, (experiments, constants) in trained.items()
        for kept, each in experiments.items()
    }
    median = median_place(accuracy(train.nets, train.rows, images.val))
    one_for_all = {
        "median training instance, for all": comparison.measure_one_for_all(train.rows[median]),
        "mean of the training instances, for all": comparison.measure_one_for_all(train.rows.mean(0)),
    }
    averaged = experiment.test_accuracy(interpolate(test.rows[ends[0]], test.rows[ends[1]], gamma))
    results = {
        "target_accuracy": target.tolist(),
        "gamma": gamma.tolist(),
        "averaged_weights_accuracy": averaged.tolist(),
        "predicted": {**predicted, **one_for_all},
        "instances": [path.as_posix() for path in test.paths],
        "from": test.paths[ends[0]].as_posix(),
        "to": test.paths[ends[1]].as_posix(),
        "trained": {objective: constants for objective, (_, constants) in trained.items()},
    }
    path = config.folders.run(config.dataset, "compare_objectives")
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    table = objectives_table(results)
    write_text(path.with_suffix(".md"), table)

    shown = {name: {key: np.array(value) for key, value in predicted[name].items()} for name in predicted}
    del shown["distillation, last"]  # it looks like the best
    mean_error = np.mean(one_for_all["mean of the training instances, for all"]["weight_error"]).item()
    chance, title = 100 / images.num_classes, f"{config.architecture} on {images.name}"
    figure = plot_objectives(target.numpy(), gamma.cpu().numpy(), averaged.numpy(), shown, mean_error, chance, title)
    pdf, png = save_figure(figure, path)
    print(f"{table}{png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
