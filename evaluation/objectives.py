"""What compare_objectives.py measures of NetSpaces that were trained by different objectives, and its table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.images import ImageSet
from data.nets import NetsDataset
from evaluation.metrics import accuracy, accuracy_of, agreement, correlation, interpolate
from evaluation.spaces import Space
from models.errors import InputError
from training.losses import parameter_scales, weight_losses
from training.runtime import as_json

# What must agree between the runs. Rate, schedule, noise and the order of channels may be each objective's own.
ALIKE = ("architecture", "sizes", "meta_batch", "affine_start", "affine_quantile", "affine_scale", "seed", "steps")


def load_trained(like: Space, run_dir: Path, made_by: str) -> tuple[dict[str, Space], dict[str, Any]]:
    """Return a run's best and last space, and its constants with its steps and those of its checkpoints.

    Raise InputError if a checkpoint is missing or broken (`made_by` is the command that makes it).
    """
    spaces = {
        which: Space.of_checkpoint(run_dir / f"{which}.pt", made_by, like.nets, like.about).to(like.device)
        for which in ("best", "last")
    }
    for which, space in spaces.items():
        if not isinstance(space.trained.get("constants"), dict) or "step" not in space.trained:
            raise InputError(
                f"{run_dir / which}.pt does not say with which constants it was made; delete it and run: {made_by}"
            )
    constants = {name: as_json(value) for name, value in spaces["last"].trained["constants"].items()}
    steps = {which: space.trained["step"] for which, space in spaces.items()}
    return spaces, {**constants, "steps": steps["last"], "checkpoints": steps}


def refuse_unlike(run_dir: Path, one: dict[str, Any], other_dir: Path, other: dict[str, Any]) -> None:
    """Raise InputError, naming the first of ALIKE in which two runs' constants differ."""
    for name in ALIKE:
        if one.get(name) != other.get(name):
            raise InputError(
                f"{other_dir} was trained with {name} {other.get(name)}, {run_dir} with {one.get(name)}; "
                "train both with the same, to the end"
            )


@dataclass(frozen=True)
class Comparison:
    """Instances, and what is known of them whatever predicts them."""

    images: ImageSet
    test: NetsDataset
    train: NetsDataset
    target_accuracy: Tensor  # (N,), percent of the test images
    train_accuracy: Tensor  # of the training instances, on the test images
    scales: Tensor  # (P,), units of weight errors

    @classmethod
    def of(cls, images: ImageSet, test: NetsDataset, train: NetsDataset) -> "Comparison":
        """Measure the targets."""
        accuracies = (accuracy_of(each, images.test) for each in (test, train))
        return cls(images, test, train, *accuracies, parameter_scales(train.nets[0].layout, train.rows))

    def accuracy(self, rows: Tensor) -> Tensor:
        """Return the accuracy of rows on the test images."""
        return accuracy(self.test.nets[0], rows, self.images.test)

    def measure(self, predicted: Tensor, predicted_train: Tensor) -> dict[str, Any]:
        """Measure rows predicted for the test instances and for the training instances."""
        test, net = self.test, self.test.nets[0]
        return {
            "predicted_accuracy": self.accuracy(predicted).tolist(),
            "agreement": agreement(net, test.rows, predicted, self.images.test).tolist(),
            "weight_error": weight_losses(predicted, test.rows, self.scales).tolist(),
            "train_accuracy_error": (self.train_accuracy - self.accuracy(predicted_train)).abs().mean().item(),
            "train_weight_error": weight_losses(predicted_train, self.train.rows, self.scales).mean().item(),
        }

    def measure_space(self, space: Space, ends: list[int], gamma: Tensor) -> dict[str, Any]:
        """Measure what a space predicts, and its accuracy on the line between the embeddings of two test instances."""
        predicted, predicted_train = (space.predict(each.rows) for each in (self.test, self.train))
        line = self.accuracy(space.decode(interpolate(*space.encode(self.test.rows[ends]), gamma)))
        return {**self.measure(predicted, predicted_train), "line_accuracy": line.tolist()}

    def measure_one_for_all(self, row: Tensor) -> dict[str, Any]:
        """Measure one row (P,) that is predicted for every instance."""
        return self.measure(row.expand_as(self.test.rows), row.expand_as(self.train.rows))


def objectives_table(results: dict[str, Any]) -> str:
    """Return compare_objectives.json as a Markdown table with a line for each predictor."""
    target, gamma = results["target_accuracy"], results["gamma"]
    columns = [
        "predicted by",
        "step",
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
        lines.append(f"| {' | '.join([name, str(found.get('step', '–')), *cells])} |")
    return "\n".join(lines) + "\n"
