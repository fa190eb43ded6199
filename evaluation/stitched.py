"""What stitched nets are measured by: accuracy relative to the end net, agreement with it, and distance from its activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor

from data.files import write_safetensors
from data.images import Images
from evaluation.metrics import percentage
from evaluation.stitches import Group, Pairs, far_point, moments_of
from models.instances import TargetNet
from models.matching import Sums, sum_activations
from models.stitching import Points, Transform
from training.losses import log_probabilities
from training.stitches import StitchTraining, chunks, images_at_once, logits_on

MATCHINGS = ("task_loss", "least_squares", "orthogonal")  # of which everything is measured
TRAINED_CONTROLS = ("untrained_front", "untrained_end", "far_point")
KINDS = (*MATCHINGS, "identity", *TRAINED_CONTROLS, "untrained_front_least_squares", "constant")
DISTANCES = ("relative_error", "mean_distance", "std_distance")
HITS = (("end", "task_loss"), ("end", "least_squares"), ("task_loss", "least_squares"))
LEVEL = 0.95  # of intervals

Transforms = dict[str, Transform]  # by kind, of P pairs


@dataclass(frozen=True)
class Measured:
    """P stitched nets on N test images: right (P, N) bool, and the rest (P,)."""

    right: Tensor
    same_class: Tensor  # as the end net, percent
    cross_entropy: Tensor  # with the end net's probabilities
    largest_difference: Tensor  # of logits from the end net's

    @property
    def accuracy(self) -> Tensor:
        """Percent."""
        return percentage(self.right)


def sums_on(pairs: Pairs, points: Sequence[Points], images: Images, before_activation: bool) -> dict[Points, Sums]:
    """Return the sums of all activations on all images, plain, from one pass."""
    (front_net, fronts), (end_net, ends) = (pairs.front_net, pairs.fronts), (pairs.end_net, pairs.ends)
    several = 2 * len(points)  # of all points at once, in float64
    size = images_at_once([(front_net, several * len(fronts)), (end_net, several * len(ends))])
    batches = chunks(images, size, fronts)
    return sum_activations(front_net, fronts, end_net, ends, points, batches, before_activation)


def transforms_between(
    pairs: Pairs,
    points: Points,
    groups: Sequence[Group],
    sums: Sums,
    training: StitchTraining,
    corresponding: bool,
    seed: int,
) -> Transforms:
    """Return the transforms of all pairs between two points by kind: the trained ones, and those by direct matching.

    Where the points correspond, those of controls that need no training are among them.
    """
    keys, found = [(seed, i) for i in range(len(pairs))], {}
    for kind in ("least_squares", "untrained_front_least_squares") if corresponding else ("least_squares",):
        moments = moments_of(sums, pairs.of(kind))
        found[kind] = training.direct(moments, training.masks(moments, keys))
    if corresponding:
        moments = moments_of(sums, pairs.of("orthogonal"))
        found |= {"orthogonal": moments.orthogonal(), "constant": moments.constant()}
    if corresponding and points[0] == points[1] and pairs.alike:
        c = found["constant"].bias.shape[1]
        found["identity"] = Transform(torch.eye(c).expand(len(pairs), c, c), torch.zeros(len(pairs), c))
    for group in groups:
        if group.points == points:
            found |= {kind: group.load(kind, len(pairs)) for kind in group.kinds}
    return {kind: each.to(pairs.fronts) for kind, each in found.items()}


def measure(
    pairs: Pairs, points: Points, transforms: Transforms, images: Images, end: Tensor, before_activation: bool
) -> dict[str, Measured]:
    """Return what is measured of every kind of stitched nets; `end` are the logits (P, N, classes) of the ends."""
    found = {}
    for kind, each in transforms.items():
        nets = pairs.nets(points, pairs.of(kind), before_activation)
        found[kind] = compare(logits_on(nets, each, images), end, images.labels)
    return found


@torch.no_grad()
def logits_alone(net: TargetNet, rows: Tensor, images: Images) -> Tensor:
    """Return the logits (M, N, classes) of nets on all images, plain."""
    size = images_at_once([(net, len(rows))])
    return torch.cat([net.run(rows, x) for x in chunks(images, size, rows)], 1)


def compare(logits: Tensor, end: Tensor, labels: Tensor) -> Measured:
    """Return how logits (P, N, classes) of stitched nets compare with those of their ends."""
    entropy = -(log_probabilities(end, 1.0).exp() * log_probabilities(logits, 1.0)).sum(2).mean(1)
    classes, expected = logits.argmax(2), end.argmax(2)
    return Measured(classes == labels, percentage(classes == expected), entropy, (logits - end).abs().amax((1, 2)))


# The results


class Results:
    """Everything that is measured on test images: at `points`, which correspond, and between all others that were stitched.

    `measured` and `distances` have, by points and kind, what is known of P pairs.
    """

    def __init__(
        self,
        pairs: Pairs,
        points: list[Points],
        transforms: dict[Points, Transforms],
        images: Images,
        before_activation: bool,
    ):
        self.pairs, self.points = pairs, points
        self.far = [far_point(pairs.end_net, end) if pairs.alike else None for _, end in points]
        fronts = logits_alone(pairs.front_net, pairs.fronts[pairs.front], images)
        ends = logits_alone(pairs.end_net, pairs.ends[pairs.end], images)
        self.front_right, self.end_right = (each.argmax(2) == images.labels for each in (fronts, ends))
        self.measured = {
            each: measure(pairs, each, kinds, images, ends, before_activation) for each, kinds in transforms.items()
        }
        self.distances: dict[Points, dict[str, dict[str, list[float]]]] = {}
        for each, sums in sums_on(pairs, points, images, before_activation).items():
            moments = moments_of(sums, pairs.of("task_loss"))
            self.distances[each] = {}
            for kind in MATCHINGS:
                values = (moments.relative_errors(transforms[each][kind]), *moments.distances(transforms[each][kind]))
                self.distances[each][kind] = dict(zip(DISTANCES, (value.tolist() for value in values)))

    def relative(self, points: Points, kind: str) -> list[float | None] | None:
        """Return the accuracies relative to the end nets, for each pair; None for what was not stitched."""
        found = self.measured.get(points, {}).get(kind)
        if found is None:
            return None
        of_end = percentage(self.end_right).tolist()
        return [one / end if end > 0 else None for one, end in zip(found.accuracy.tolist(), of_end)]

    def column(self, kind: str) -> list[list[float | None] | None]:
        """Return the same for each of the points."""
        if kind == "far_point":
            return [self.relative((i, j), kind) if i else None for i, (_, j) in zip(self.far, self.points)]
        return [self.relative(each, kind) for each in self.points]

    @property
    def kinds(self) -> list[str]:
        """What was stitched at any of the points."""
        return [kind for kind in KINDS if any(each is not None for each in self.column(kind))]

    def as_json(self) -> dict[str, Any]:
        """Return everything that is measured."""
        return {
            "points": [front if front == end else f"{front} to {end}" for front, end in self.points],
            "pairs": [self.pair(k) for k in range(len(self.pairs))],
            "summary": self.summary(),
            "far_points": self.far,
            "num_images": self.end_right.shape[1],
        }

    def mean_matrices(self) -> dict[str, np.ndarray]:
        """Return the means over pairs of relative accuracies between all points, NaN where sizes differ."""
        found = {}
        for kind in MATCHINGS[:2]:
            values = [self.matrix(kind, k) for k in range(len(self.pairs))]
            found[kind] = np.array(values, dtype=float).mean(0)  # None becomes NaN
        return found

    def pair(self, k: int) -> dict[str, Any]:
        """Return what is known of one pair, for JSON."""
        columns = {kind: [None if each is None else each[k] for each in self.column(kind)] for kind in self.kinds}
        found: dict[str, Any] = {"front": self.pairs.names[0][self.pairs.front[k]]}
        found |= {"end": self.pairs.names[1][self.pairs.end[k]]}
        found |= {"front_accuracy": percentage(self.front_right)[k].item(), **columns}
        found |= {"end_accuracy": percentage(self.end_right)[k].item()}
        for name in ("same_class", "cross_entropy"):
            found[name] = {
                kind: [getattr(self.measured[each][kind], name)[k].item() for each in self.points] for kind in MATCHINGS
            }
        for name in DISTANCES:
            found[name] = {kind: [self.distances[each][kind][name][k] for each in self.points] for kind in MATCHINGS}
        if "identity" in self.kinds:
            identities = [self.measured[each]["identity"] for each in self.points]
            found["identity_difference"] = [each.largest_difference[k].item() for each in identities]
        found["hits"] = {
            f"{one}_{other}": [self._hits(each, one, other, k) for each in self.points] for one, other in HITS
        }
        found["matrix"] = {kind: self.matrix(kind, k) for kind in MATCHINGS[:2]}
        return found

    def matrix(self, kind: str, k: int) -> list[list[float | None]]:
        """Return relative accuracies of one pair, front points by end points; None where sizes differ."""
        rows, columns = (list(dict.fromkeys(each[side] for each in self.points)) for side in (0, 1))
        found = [[self.relative((i, j), kind) for j in columns] for i in rows]
        return [[None if each is None else each[k] for each in row] for row in found]

    def summary(self) -> dict[str, dict[str, list[Any]]]:
        """Return the mean relative accuracy of every kind at every point, its interval, and the number of pairs."""
        found = {}
        for kind in self.kinds:
            columns = [[each for each in column or [] if each is not None] for column in self.column(kind)]
            means = [float(np.mean(each)) if each else None for each in columns]
            found[kind] = {
                "relative_accuracy": means,
                "interval": [interval(each) for each in columns],
                "n": [*map(len, columns)],
            }
        return found

    def _hits(self, points: Points, one: str, other: str, k: int) -> list[int]:
        right = {"end": self.end_right} | {kind: each.right for kind, each in self.measured[points].items()}
        return hits(right[one][k], right[other][k])


def save_transforms(path: Path, transforms: dict[Points, Transforms]) -> None:
    """Write all transforms in one file: FRONT_POINT.END_POINT.KIND.weight (P, C2, C1) and .bias (P, C2), pairs in order."""
    tensors = {
        f"{front}.{end}.{kind}.{name}": value.cpu().contiguous()
        for (front, end), kinds in transforms.items()
        for kind, each in kinds.items()
        for name, value in each.state().items()
    }
    write_safetensors(path, tensors, {})


def hits(one: Tensor, other: Tensor) -> list[int]:
    """Return how many images both, the first alone, the second alone and neither classify right, of (N,) bool each."""
    return [int(each.sum()) for each in (one & other, one & ~other, ~one & other, ~one & ~other)]


def interval(values: Sequence[float]) -> list[float] | None:
    """Return the 95 % confidence interval of the mean by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = float(student_t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def stitching_table(results: dict[str, Any]) -> str:
    """Return the summary of stitch_nets.json as a Markdown table, a line for each kind."""
    lines = [f"| accuracy relative to the end net [95 %] | {' | '.join(results['points'])} |"]
    lines.append("|---" * (1 + len(results["points"])) + "|")
    for kind, found in results["summary"].items():
        cells = [
            "–" if mean is None else f"{mean:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
            for mean, ends in zip(found["relative_accuracy"], found["interval"])
        ]
        lines.append(f"| {' | '.join([kind.replace('_', ' '), *cells])} |")
    return "\n".join(lines) + "\n"
