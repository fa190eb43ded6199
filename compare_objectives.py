"""Why behaviour: NetSpaces trained by eq. 1 and by the error of the weights, side by side (paper Sec. III).

    python train_single_arch.py photos
    python train_single_arch.py photos --objective weights --learning-rate 3e-4
    python train_single_arch.py photos --objective both       # optional
    python compare_objectives.py

Compares accuracies of the test instances and along the line from the weakest to the strongest, as in Fig. 3, and how far
predicted weights are from the targets'. Needs train_single_arch.py with both objectives, for as many steps each; the flags of
the second are the best for photos (docs/netspace.md) and were not tried with the other presets. Writes
runs/<dataset>/compare_objectives.{json,md,pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from data.files import write_text
from data.folders import IMAGE_SETS, Folders
from data.nets import load_nets
from data.texts import write_json
from evaluation.metrics import accuracy, interpolate, median_index
from evaluation.objectives import Comparison, load_trained, objectives_table, refuse_unlike
from evaluation.plots import plot_objectives, save_figure
from evaluation.spaces import SingleConfig, load_experiment
from training.constants import AtLeast2, Flat
from training.losses import OBJECTIVE_FOLDERS, OBJECTIVES
from training.runtime import provenance

FLAGS = {("photos", "weights"): " --learning-rate 3e-4"}  # docs/netspace.md


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"  # of the instances
    num_gammas: AtLeast2 = 11  # points on the line from 0 to 1, ends included
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in IMAGE_SETS}


def main(config: Config) -> dict[str, Any]:
    images, space, test = load_experiment(SingleConfig(config.dataset, config.architecture, folders=config.folders))
    made_by = f"python train_single_arch.py {config.dataset}"
    commands = {each: f"{made_by} --objective {each}{FLAGS.get((config.dataset, each), '')}" for each in OBJECTIVES}
    run_dirs = {
        objective: config.folders.run(config.dataset, folder) for objective, folder in OBJECTIVE_FOLDERS.items()
    }
    needed = ("behaviour", "weights")
    compared = [each for each in OBJECTIVES if each in needed or (run_dirs[each] / "best.pt").is_file()]
    trained = {each: load_trained(space, run_dirs[each], commands[each]) for each in compared}
    for each in compared[1:]:
        refuse_unlike(run_dirs["behaviour"], trained["behaviour"][1], run_dirs[each], trained[each][1])

    net = test.nets[0]
    train = load_nets(config.folders, images, "single", "train", test.nets)
    comparison = Comparison.of(images, test, train)
    target = comparison.target_accuracy
    ends = [target.argmin().item(), target.argmax().item()]
    gamma = torch.linspace(0, 1, config.num_gammas, device=test.rows.device)
    predicted = {
        f"{objective}, {which}": {
            "step": constants["checkpoints"][which],
            **comparison.measure_space(each, ends, gamma),
        }
        for objective, (spaces, constants) in trained.items()
        for which, each in spaces.items()
    }
    median = median_index(accuracy(net, train.rows, images.val))
    one_for_all = {
        "median training instance, for all": comparison.measure_one_for_all(train.rows[median]),
        "mean of the training instances, for all": comparison.measure_one_for_all(train.rows.mean(0)),
    }
    averaged = accuracy(net, interpolate(test.rows[ends[0]], test.rows[ends[1]], gamma), images.test)
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

    # Of objectives that work, the last checkpoint is like the best.
    drawn = [name for name in predicted if name.endswith("best") or name == "weights, last"]
    shown = {name: {key: np.array(value) for key, value in predicted[name].items()} for name in drawn}
    mean_error = np.mean(one_for_all["mean of the training instances, for all"]["weight_error"]).item()
    chance, title = 100 / images.num_classes, f"{config.architecture} on {images.name}"
    figure = plot_objectives(target.numpy(), gamma.cpu().numpy(), averaged.numpy(), shown, mean_error, chance, title)
    pdf, png = save_figure(figure, path)
    print(f"{table}{png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
