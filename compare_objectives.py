"""Why distillation: NetSpaces trained by eq. 1 and by mean squared error of the weights, side by side (paper Sec. III).

    python train_single_arch.py photos --objective weights
    python compare_objectives.py             # photos
    python compare_objectives.py cifar10

Accuracies of the test instances and along the line from the weakest to the strongest, as in Fig. 3, and how far predicted
weights are from the targets'. Needs train_single_arch.py with both objectives, for as many steps each. Writes
runs/<dataset>/compare_objectives.{json,md,pdf,png}. Takes 20 seconds on photos, 2 CPU cores."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import tyro
from scipy.stats import spearmanr
from torch import Tensor

from data.files import write_json, write_text
from data.folders import Folders
from data.nets import load_split
from evaluation.accuracy import agreement
from evaluation.interpolation import interpolate
from evaluation.plots import plot_objectives, save_figure
from evaluation.single import EvaluationConfig, Experiment, load_experiment
from models.errors import InputError
from training.checkpoints import load_checkpoint, restore_net_space
from training.command_line import run_script
from training.losses import parameter_scales, weight_losses
from training.provenance import as_json, provenance
from training.runs import SETTINGS

COMMANDS = {
    "distillation": "python train_single_arch.py {}",
    "weights": "python train_single_arch.py {} --objective weights",
}
# What a comparison holds fixed; rates, schedules, noise and the order of channels may be each objective's own.
ALIKE = ("sizes", "meta_batch", "affine_start", "affine_quantile", "affine_scale", "seed")


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"
    num_gammas: int = 11  # points on the line from 0 to 1, ends included
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, Any]:
    experiments, trained = load_both(config)
    experiment = experiments["distillation", "best"]
    test, images = experiment.test, experiment.images
    train = load_split(config.folders, images, "single", "train", test.nets)
    scales = parameter_scales(test.nets.layout, train.rows)
    target, train_target = experiment.test_accuracy(test.rows), experiment.test_accuracy(train.rows)
    weakest, strongest = target.argmin().item(), target.argmax().item()
    gamma = torch.linspace(0, 1, config.num_gammas, device=test.rows.device)

    def measured(predicted: Tensor, predicted_train: Tensor) -> dict[str, Any]:
        """Of instances (N, P) predicted for the test targets, and for the training targets."""
        return {
            "predicted_accuracy": experiment.test_accuracy(predicted).tolist(),
            "agreement": agreement(test.nets, test.rows, predicted, images.test).tolist(),
            "weight_error": weight_losses(predicted, test.rows, scales).tolist(),
            "train_accuracy_error": (experiment.test_accuracy(predicted_train) - train_target).abs().mean().item(),
            "train_weight_error": weight_losses(predicted_train, train.rows, scales).mean().item(),
        }

    found = {}
    for (objective, kept), each in experiments.items():
        ends = each.encode(test.rows[[weakest, strongest]])
        line = each.test_accuracy(each.decode(interpolate(ends[0], ends[1], gamma)))
        predicted = (each.decode(each.encode(rows)) for rows in (test.rows, train.rows))
        epoch = trained[objective]["best_epoch" if kept == "best" else "epochs"]
        found[f"{objective}, {kept}"] = {"epoch": epoch, **measured(*predicted), "line_accuracy": line.tolist()}
    mean = train.rows.mean(0)
    found["mean instance"] = measured(mean.expand_as(test.rows), mean.expand_as(train.rows))
    averaged = experiment.test_accuracy(interpolate(test.rows[weakest], test.rows[strongest], gamma))
    results = {
        "target_accuracy": target.tolist(),
        "gamma": gamma.tolist(),
        "averaged_weights_accuracy": averaged.tolist(),
        "predicted": found,
        "instances": [path.as_posix() for path in test.paths],
        "from": test.paths[weakest].as_posix(),
        "to": test.paths[strongest].as_posix(),
        "trained": trained,
    }
    path = config.folders.run(config.dataset, "compare_objectives")
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    table = markdown_table(results)
    write_text(path.with_suffix(".md"), table)

    shown = {"distillation": found["distillation, best"], "weights": found["weights, best"]}
    figure = plot_objectives(
        target.numpy(),
        gamma.cpu().numpy(),
        averaged.numpy(),
        {f"by {name}": {key: np.array(value) for key, value in each.items()} for name, each in shown.items()},
        float(np.mean(found["mean instance"]["weight_error"])),
        100 / images.num_classes,
        f"{config.architecture} on {images.name}",
    )
    pdf, png = save_figure(figure, path)
    print(f"{table}{png}, {pdf}")
    return results


def load_both(config: Config) -> tuple[dict[tuple[str, str], Experiment], dict[str, dict[str, Any]]]:
    """Each objective's best and last NetSpace, and the constants that it was trained with.

    Raises InputError, with the command that makes it, where one is missing or was not trained like the other.
    """
    experiment = load_experiment(EvaluationConfig(config.dataset, config.architecture, folders=config.folders))
    experiments, trained = {}, {}
    for objective, setting in SETTINGS.items():
        run_dir, command = config.folders.run(config.dataset, setting), COMMANDS[objective].format(config.dataset)
        for kept in ("best", "last"):
            net_space = restore_net_space(run_dir / f"{kept}.pt", command, experiment.test.rows.device)
            experiments[objective, kept] = replace(experiment, net_space=net_space)
        best, last = (
            load_checkpoint(run_dir / f"{kept}.pt", command, ("constants", "epoch", "step"))
            for kept in ("best", "last")
        )
        if not isinstance(last["constants"], dict):
            raise InputError(f"{run_dir / 'last.pt'} does not say with which constants it was made; delete it, then: {command}")
        constants = {name: as_json(value) for name, value in last["constants"].items()}
        trained[objective] = {**constants, "steps": last["step"], "best_epoch": best["epoch"], "epochs": last["epoch"]}
    one, other = trained.values()
    for name in (*ALIKE, "steps"):
        if one.get(name) != other.get(name):
            raise InputError(
                f"{run_dir} was trained with {name} {other.get(name)}, the NetSpace of distillation with {one.get(name)}; "
                f"train both alike: {command}"
            )
    return experiments, trained


def correlation(one: list[float], other: list[float]) -> float | None:
    """None where it is not defined: of less than two points, or where all of one side are the same."""
    if min(len(set(one)), len(set(other))) < 2:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def markdown_table(results: dict[str, Any]) -> str:
    """One row for each NetSpace, and one for the mean of the training instances."""
    target = np.array(results["target_accuracy"])
    lines = [
        "| NetSpace | epoch | test: mean \\|target - predicted\\| (points) | correlation | same class as the target (%) "
        "| squared error of the weights | on the line: mean accuracy (%) | Spearman with gamma "
        "| training: mean \\|target - predicted\\| (points) | squared error of the weights |",
        "|---" * 10 + "|",
    ]
    for name, found in results["predicted"].items():
        line = found.get("line_accuracy")
        values = [
            found.get("epoch"),
            np.abs(target - found["predicted_accuracy"]).mean(),
            correlation(results["target_accuracy"], found["predicted_accuracy"]),
            np.mean(found["agreement"]),
            np.mean(found["weight_error"]),
            np.mean(line) if line else None,
            spearmanr(results["gamma"], line).statistic if line and len(set(line)) > 1 else None,
            found["train_accuracy_error"],
            found["train_weight_error"],
        ]
        cells = ["–" if v is None else str(v) if isinstance(v, int) else f"{v:.2f}" for v in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
