"""What compare_objectives.py measures of NetSpaces that were trained by different objectives, and its table."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.nets import NetsDataset
from evaluation.accuracy import agreement
from evaluation.correlation import correlation
from evaluation.interpolation import interpolate
from evaluation.single import Experiment
from models.errors import InputError
from training.checkpoints import load_checkpoint, restore_net_space
from training.losses import parameter_scales, weight_losses
from training.provenance import as_json

# What a comparison holds fixed; rate, schedule, noise and the order of channels may be each objective's own.
ALIKE = ("architecture", "sizes", "meta_batch", "affine_start", "affine_quantile", "affine_scale", "seed", "steps")


def load_trained(experiment: Experiment, run_dir: Path, made_by: str) -> tuple[dict[str, Experiment], dict[str, Any]]:
    """A run's best and last NetSpace, and the constants that it was trained with, with its steps and their epochs.

    Raises InputError where one is missing or cannot be read (`made_by` is the command that makes it).
    """
    experiments, saved = {}, {}
    for kept in ("best", "last"):
        path = run_dir / f"{kept}.pt"
        saved[kept] = load_checkpoint(path, made_by, ("constants", "epoch", "step"))
        if not isinstance(saved[kept]["constants"], dict):
            raise InputError(f"{path} does not say with which constants it was made; delete it and run: {made_by}")
        device = experiment.test.rows.device
        experiments[kept] = replace(experiment, net_space=restore_net_space(path, made_by, device))
    constants = {name: as_json(value) for name, value in saved["last"]["constants"].items()}
    epochs = {kept: each["epoch"] for kept, each in saved.items()}
    return experiments, {**constants, "steps": saved["last"]["step"], "epochs": epochs}


def refuse_unlike(run_dir: Path, one: dict[str, Any], other_dir: Path, other: dict[str, Any]) -> None:
    """Raises InputError, naming the first of ALIKE in which two runs' constants differ."""
    for name in ALIKE:
        if one.get(name) != other.get(name):
            raise InputError(
                f"{other_dir} was trained with {name} {other.get(name)}, {run_dir} with {one.get(name)}; "
                "train both with the same, to the end"
            )


@dataclass(frozen=True)
class Comparison:
    """Instances, and what is known of them whatever predicts them."""

    experiment: Experiment
    train: NetsDataset
    target_accuracy: Tensor  # (N,), percent of the test images
    train_accuracy: Tensor  # of training instances on the test images
    scales: Tensor  # (P,), units of weight errors

    @classmethod
    def of(cls, experiment: Experiment, train: NetsDataset) -> "Comparison":
        accuracies = (experiment.test_accuracy(rows) for rows in (experiment.test.rows, train.rows))
        return cls(experiment, train, *accuracies, parameter_scales(train.nets.layout, train.rows))

    def measure(self, predicted: Tensor, predicted_train: Tensor) -> dict[str, Any]:
        """Of rows predicted for the test instances and for the training instances."""
        test, images = self.experiment.test, self.experiment.images.test
        train_accuracy = self.experiment.test_accuracy(predicted_train)
        return {
            "predicted_accuracy": self.experiment.test_accuracy(predicted).tolist(),
            "agreement": agreement(test.nets, test.rows, predicted, images).tolist(),
            "weight_error": weight_losses(predicted, test.rows, self.scales).tolist(),
            "train_accuracy_error": (self.train_accuracy - train_accuracy).abs().mean().item(),
            "train_weight_error": weight_losses(predicted_train, self.train.rows, self.scales).mean().item(),
        }

    def measure_net_space(self, experiment: Experiment, ends: list[int], gamma: Tensor) -> dict[str, Any]:
        """The same of a NetSpace, with accuracies on the line between the embeddings of two test instances."""
        predicted, predicted_train = (
            experiment.decode(experiment.encode(rows)) for rows in (experiment.test.rows, self.train.rows)
        )
        start, end = experiment.encode(experiment.test.rows[ends])
        line = experiment.test_accuracy(experiment.decode(interpolate(start, end, gamma)))
        return {**self.measure(predicted, predicted_train), "line_accuracy": line.tolist()}

    def measure_one_for_all(self, row: Tensor) -> dict[str, Any]:
        """The same of one row (P,) that is predicted for every instance."""
        return self.measure(row.expand_as(self.experiment.test.rows), row.expand_as(self.train.rows))


def objectives_table(results: dict[str, Any]) -> str:
    """compare_objectives.json as Markdown, a line for each predictor."""
    target, gamma = results["target_accuracy"], results["gamma"]
    columns = [
        "predicted by",
        "epoch",
        "mean abs. error of accuracy (points)",
        "correlation of accuracies",
        "same class as the target (%)",
        "squared weight error / variance",
        "line: mean accuracy (%)",
        "line: Spearman with gamma",
        "training instances: error of accuracy (points)",
        "training instances: weight error",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in results["predicted"].items():
        line = found.get("line_accuracy")
        values = [
            np.abs(np.subtract(target, found["predicted_accuracy"])).mean(),
            correlation(target, found["predicted_accuracy"]),
            np.mean(found["agreement"]),
            np.mean(found["weight_error"]),
            np.mean(line) if line else None,
            correlation(gamma, line, ranks=True) if line else None,
            found["train_accuracy_error"],
            found["train_weight_error"],
        ]
        cells = ["–" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {' | '.join([name, str(found.get('epoch', '–')), *cells])} |")
    return "\n".join(lines) + "\n"
