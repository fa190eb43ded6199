"""Which nets are stitched, at which points, with which controls: one plan for each transform that is trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data.files import fingerprint
from data.folders import Folders
from data.images import Batches, ImageSet
from data.instance_files import read_instance, registered_row, save_instance
from data.nets import NetsDataset
from evaluation.finetuning import batches_of
from evaluation.metrics import accuracy
from models.conditioning import condition
from models.errors import InputError, brief
from models.instances import TargetNet
from models.matching import Moments, Sums
from models.stitching import Points, StitchedNets, Transform, channels_at, stitchable
from training.ensembles import initial_state
from training.runtime import check_lock, versions
from training.stitches import OUTPUTS, Stitches, StitchTraining
from training.zoo import Plan

Kind = Literal["task_loss", "untrained_front", "untrained_end", "far_point"]
STATISTICS_IMAGES = 500  # training images on which batch norm of untrained nets is measured


@dataclass(frozen=True)
class Pairs:
    """P pairs of a front and an end, and P untrained nets of each architecture.

    `fronts` (F, *) and `ends` (E, *) are rows, with their names; both are the same if the architecture is. The others are
    indices into them, P each.
    """

    front_net: TargetNet
    end_net: TargetNet
    fronts: Tensor
    ends: Tensor
    names: tuple[list[str], list[str]]
    front: list[int]
    end: list[int]
    untrained_front: list[int]
    untrained_end: list[int]

    def __len__(self) -> int:
        return len(self.front)

    @property
    def alike(self) -> bool:
        """Whether fronts and ends are of one architecture."""
        return self.front_net is self.end_net

    def describe(self) -> str:
        """Return how many pairs these are, and of what."""
        names = self.end_net.name if self.alike else f"{self.front_net.name} and {self.end_net.name}"
        return f"{len(self)} pair{'s' * (len(self) > 1)} of {names}"

    def of(self, kind: str) -> list[tuple[int, int]]:
        """Return the front and the end of each pair's stitch of a kind: of a control, or of the pair itself."""
        if kind in ("far_point", "identity"):
            return [(end, end) for end in self.end]
        front = self.untrained_front if kind.startswith("untrained_front") else self.front
        return list(zip(front, self.untrained_end if kind == "untrained_end" else self.end))

    def nets(self, points: Points, pairs: Sequence[tuple[int, int]], before_activation: bool) -> StitchedNets:
        """Return stitched nets of these fronts and ends."""
        return StitchedNets(self.front_net, self.fronts, self.end_net, self.ends, points, pairs, before_activation)

    @cached_property
    def weights(self) -> tuple[list[str], list[str]]:
        """The fingerprints of fronts and of ends."""
        fronts, ends = ([fingerprint(row) for row in rows] for rows in (self.fronts, self.ends))
        return fronts, ends


def strongest_pairs(nets: NetsDataset, number: int, images: ImageSet, seed: int) -> Pairs:
    """Return the nets that are best on validation images, each as the front of the next: as many pairs as nets.

    So each net is a front once and an end once. Raise InputError if there are fewer than two.
    """
    net = nets.nets[0]
    best = accuracy(net, nets.rows, images.val).argsort(descending=True, stable=True)[:number].tolist()
    chosen = nets[best]
    names = [path.stem for path in chosen.paths]
    if len(chosen) < 2 or len(set(names)) < len(names):
        raise InputError(f"{len(chosen)} nets to stitch, {brief(names)}: give two at least, with different file names")
    rows = torch.cat([chosen.rows, untrained(net, len(chosen), images, seed)])
    count, names = len(chosen), names + [f"untrained-{i}" for i in range(len(chosen))]
    others, ends = list(range(count, 2 * count)), [(i + 1) % count for i in range(count)]
    return Pairs(net, net, rows, rows, (names, names), list(range(count)), ends, others, others)


def pair_of_files(front: Path, end: Path, like: TargetNet, images: ImageSet, seed: int) -> Pairs:
    """Return the pair of two files. Raise InputError for nets of other images, or of no registered architecture."""
    found = []
    for flag, path in (("--front", front), ("--end", end)):
        dataset = read_instance(path)[1].get("dataset", images.name)
        if dataset != images.name:
            raise InputError(
                f"{flag} {path} is of {brief(dataset)}, not of {images.name}; give the preset of its images"
            )
        found.append(registered_row(like, path))
    rows = [
        torch.cat([row[None].to(images.train.labels.device), untrained(net, 1, images, seed)]) for net, row in found
    ]
    front_names, end_names = ([path.stem, "untrained-0"] for path in (front, end))
    (front_net, _), (end_net, _) = found
    if front_net is not end_net:
        return Pairs(front_net, end_net, *rows, (front_names, end_names), [0], [0], [1], [1])
    together, names = torch.cat(rows[::-1]), [*end_names, *front_names]
    return Pairs(front_net, end_net, together, together, (names, names), [2], [0], [3], [1])


def untrained(net: TargetNet, number: int, images: ImageSet, seed: int) -> Tensor:
    """Return rows (number, P) of untrained nets. Their batch norm has statistics of their own activations on training images."""
    states = initial_state(net, [(seed, i, 2) for i in range(number)], images.train.labels.device)
    return net.fuse(condition(net, states, batches_of(images.train, STATISTICS_IMAGES, seed)))


# Points


def chosen_points(pairs: Pairs, front_layer: str | None, end_layer: str | None) -> list[Points]:
    """Return the points of the front and the end that correspond: those of the flags, else all that the nets share.

    Raise InputError for points of other heights and widths, or nets of two architectures without flags.
    """
    if front_layer or end_layer:
        points = (front_layer or end_layer or "", end_layer or front_layer or "")
        channels_at(pairs.front_net, points[0], pairs.end_net, points[1])
        return [points]
    if not pairs.alike:
        names = f"{pairs.front_net.name} and {pairs.end_net.name}"
        raise InputError(f"{names} have no layers in common; give --front-layer and --end-layer (--list-layers)")
    return [(point, point) for point in pairs.end_net.points]


def other_points(pairs: Pairs, points: Sequence[Points]) -> list[Points]:
    """Return all pairs of points of one size but these; none if only one pair of points was chosen."""
    every = stitchable(pairs.front_net, pairs.end_net) if pairs.alike and len(points) > 1 else []
    return [each for each in every if each not in points]


def far_point(net: TargetNet, point: str) -> str | None:
    """Return the point farthest from this one, of all that have its height and width; None if there is no other."""
    order = net.points
    others = [i for i, j in stitchable(net, net) if j == point and i != point]
    return max(others, key=lambda other: abs(order.index(other) - order.index(point)), default=None)


def list_layers(nets: Sequence[TargetNet]) -> str:
    """Return the stitch points of nets with their shapes, a line each."""
    return "\n".join(
        f"{net.name} {point} {'x'.join(map(str, net.point_shape(point)))}" for net in nets for point in net.points
    )


# Plans


@dataclass(frozen=True)
class Group:
    """Transforms between two points that train with the same target: a plan for each kind and pair, kind by kind."""

    points: Points
    training: StitchTraining
    kinds: list[Kind]
    plans: list[Plan]

    def stitches(
        self, pairs: Pairs, sums: dict[Points, Sums], chosen: Sequence[Plan], before_activation: bool, seed: int
    ) -> Stitches:
        """Return the chosen of the planned transforms, ready to be trained."""
        fronts_and_ends = [each for kind in self.kinds for each in pairs.of(kind)]
        of = [fronts_and_ends[plan.index] for plan in chosen]
        keys = [(seed, plan.index % len(pairs)) for plan in chosen]  # the same for a control as for the pair
        nets = pairs.nets(self.points, of, before_activation)
        return Stitches(nets, self.training, moments_of(sums[self.points], of), keys)

    def save(self, chosen: Sequence[Plan], stitches: Stitches) -> None:
        """Save transforms that have had their steps, with the accuracies on validation images after each epoch."""
        found = stitches.transform()
        for i, plan in enumerate(chosen):
            if not plan.path.is_file():
                check_lock(plan.path.parent)
                facts = {**plan.facts, "val_accuracy": [each[i] for each in stitches.history], "versions": versions()}
                save_instance(plan.path, {name: value[i] for name, value in found.state().items()}, facts)

    def load(self, kind: str, count: int) -> Transform:
        """Return the saved transforms of a kind, one for each of `count` pairs."""
        start = self.kinds.index(kind) * count
        states = [read_instance(plan.path)[0] for plan in self.plans[start : start + count]]
        weight, bias = (torch.stack([state[name] for state in states]) for name in ("weight", "bias"))
        return Transform(weight, bias)


def moments_of(sums: Sums, pairs: Sequence[tuple[int, int]]) -> Moments:
    """Return the moments of stitches, from the indices of their fronts and ends."""
    return sums.of([front for front, _ in pairs], [end for _, end in pairs])


def plan_groups(
    pairs: Pairs,
    points: Sequence[Points],
    others: Sequence[Points],
    training: StitchTraining,
    controls: bool,
    images: ImageSet,
    folder: Path,
    before_activation: bool,
    seed: int,
) -> list[Group]:
    """Plan the transforms of all pairs at `points`, with their controls, and at `others`, without them.

    A control with an untrained net is trained towards labels if the target would be the untrained net's outputs.
    """
    kinds: dict[tuple[Points, str], list[Kind]] = {}

    def add(at: Points, kind: Kind, untrained_side: str = "") -> None:
        target = "labels" if untrained_side in OUTPUTS[training.target] else training.target
        kinds.setdefault((at, target), []).append(kind)

    for at in points:
        add(at, "task_loss")
        if controls:
            add(at, "untrained_front", "front")
            add(at, "untrained_end", "end")
    for at in others:
        add(at, "task_loss")
    for _, end in points if controls and pairs.alike else ():
        if far := far_point(pairs.end_net, end):
            add((far, end), "far_point")
    per_pass = Batches(images.train, [], training.image_batch).per_pass
    groups = []
    for (at, target), each in kinds.items():
        training.check(*channels_at(pairs.front_net, at[0], pairs.end_net, at[1]))
        own = replace(training, target=target)
        known = {
            "dataset": images.name,
            "images": images.fingerprint,
            "before_activation": before_activation,
            "seed": seed,
        }
        facts = {"front_point": at[0], "end_point": at[1], **known, **asdict(own)}
        plans = [
            plan_one(pairs, kind, front, end, own.num_epochs * per_pass, folder / "-".join((*at, target)), facts)
            for kind in each
            for front, end in pairs.of(kind)
        ]
        groups.append(Group(at, own, each, [replace(plan, index=i) for i, plan in enumerate(plans)]))
    return groups


def plan_one(pairs: Pairs, kind: Kind, front: int, end: int, steps: int, folder: Path, facts: dict[str, Any]) -> Plan:
    """Plan one transform."""
    names, weights = ([each[side][i] for side, i in enumerate((front, end))] for each in (pairs.names, pairs.weights))
    whose = {"architectures": [pairs.front_net.name, pairs.end_net.name], "kind": kind}
    whose |= {"front": names[0], "end": names[1], "front_weights": weights[0], "end_weights": weights[1]}
    return Plan(0, steps, folder / f"{kind}-{names[0]}-{names[1]}.safetensors", {**whose, **facts})


def stitching_folder(folders: Folders, dataset: str, run_name: str) -> Path:
    """Return the folder of a run. Raise InputError unless the name is that of one folder."""
    if Path(run_name).name != run_name:
        raise InputError(f"--run-name {run_name}: give the name of a folder in {folders.run(dataset, '')}")
    return folders.run(dataset, run_name)
