"""Are nets that behave alike also alike inside? Kinds of pairs of nets, and how similar they are at every stitch point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.images import Images, ImageSet
from data.nets import NetsDataset
from data.streams import stream
from evaluation.comparison import NetViews, as_lists, reordered_copies, text_of
from evaluation.finetuning import FineTuning, batches_of, key_of
from evaluation.metrics import accuracy, interpolate, percentage, predicted_classes
from evaluation.probes import INTERVAL
from evaluation.sampling import add_noise
from evaluation.similarity import compare
from evaluation.spaces import Space
from evaluation.stitches import untrained
from models.conditioning import renormalized
from models.instances import TargetNet
from models.matching import sum_activations
from models.stitching import StitchedNets

OF_ACTIVATIONS = ("cka_unbiased", "procrustes", "same_channel")
AT_POINTS = ("cka_unbiased", "procrustes", "least_squares", "same_channel")  # what is measured at every point
IMAGES_AT_ONCE = 250
STATISTICS = 500  # training images on which copies get their batch norm back before they are trained
LINE = {"line_quarter": 0.75, "line_half": 0.5, "line_whole": 0.0}  # gamma; the other net is at gamma 1


@dataclass(frozen=True)
class Kind:
    """N pairs of nets of one kind, rows (N, P) each; transforms are fitted from the fronts' activations to the ends'."""

    about: str
    fronts: Tensor
    ends: Tensor


# Kinds


def neighbours(accuracies: Tensor) -> tuple[list[int], list[int]]:
    """Return the indices of nets in pairs of nearly the same accuracy (N,), no net in two pairs: the weaker and the stronger."""
    order = accuracies.argsort(stable=True).tolist()
    return order[0::2][: len(order) // 2], order[1::2]


def predicted_kinds(space: Space, rows: Tensor, accuracies: Tensor) -> dict[str, Kind]:
    """Return pairs with instances that a space predicts: from targets, rows (N, P), with their accuracies (N,), and on lines."""
    embeddings = space.encode(rows)
    predicted = space.decode(embeddings)
    low, high = neighbours(accuracies)
    order = accuracies.argsort(stable=True).tolist()
    weak, strong = embeddings[order[: len(low)]], embeddings[order[len(order) - len(low) :]]
    swapped = [high + low, low + high]
    kinds = {
        "target_predicted": Kind("instances predicted from embeddings, and their targets", predicted, rows),
        "target_other": Kind(
            "instances predicted from another target of nearly the same accuracy",
            predicted[swapped[0]],
            rows[swapped[1]],
        ),
        "predicted": Kind(
            "two predicted instances, their targets of nearly the same accuracy", predicted[low], predicted[high]
        ),
    }
    for name, gamma in LINE.items():
        at = interpolate(weak, strong, torch.tensor([gamma, 1.0], device=rows.device))
        about = f"instances at gamma {gamma:g} and at the end of lines from weak to strong targets"
        kinds[name] = Kind(about, space.decode(at[:, 0]), space.decode(at[:, 1]))
    return kinds


def start_kind(space: Space, train: NetsDataset, images: Images, predicted: Tensor) -> dict[str, Kind]:
    """Return predicted instances (N, P) beside the training instance that the decoder started at, if it did."""
    constants = space.trained.get("constants")
    if not isinstance(constants, dict) or constants.get("affine_start") != "instance":
        return {}
    order = accuracy(train.nets[0], train.rows, images).argsort()  # as training/views.py chooses it
    first = train.rows[order[int(constants["affine_quantile"] * (len(train) - 1))]]
    about = "predicted instances, and the training instance that the decoder started at"
    return {"start_predicted": Kind(about, predicted, first.expand(len(predicted), -1))}


def decoded_kinds(sane: Space, rows: Tensor, accuracies: Tensor) -> dict[str, Kind]:
    """Return a zoo's nets, rows (N, P), beside those that SANE decodes from their latents, and beside each other."""
    low, high = neighbours(accuracies)
    return {
        "target_sane": Kind("nets that SANE decodes, and their targets in a zoo", sane.predict(rows), rows),
        "independent_zoo": Kind("two of these targets of nearly the same accuracy", rows[low], rows[high]),
    }


def control_kinds(
    net: TargetNet,
    rows: Tensor,
    accuracies: Tensor,
    images: ImageSet,
    noise: float,
    tuning: FineTuning,
    epochs: int,
    seed: int,
) -> dict[str, Kind]:
    """Return targets, rows (N, P), beside others of their accuracy (N,), copies of themselves, and nets that were never trained."""
    low, high = neighbours(accuracies)
    keys = [key_of(seed, i) for i in range(len(rows))]
    states = renormalized(net, rows, batches_of(images.train, STATISTICS, seed))
    (tuned,) = tuning.epochs_of(net, states, keys, images.train, [epochs])
    noisy = add_noise(net, rows, noise, stream("noisy copies of targets", seed))
    fresh = untrained(net, len(rows), images, seed)
    return {
        "independent": Kind("two targets of nearly the same accuracy, trained apart", rows[low], rows[high]),
        "reordered_copy": Kind("a copy with its channels in another order", reordered_copies(net, rows, seed), rows),
        "fine_tuned_copy": Kind(f"a copy trained for {epochs} more epochs", net.fuse(tuned), rows),
        "noisy_copy": Kind(f"a copy with noise of {noise:g} of each layer's standard deviation", noisy, rows),
        "untrained": Kind("a net that was never trained", fresh, rows),
    }


# What is measured


def stitched_accuracy(net: TargetNet, kind: Kind, images: ImageSet) -> Tensor:
    """Return the accuracy (L, N) of stitched nets on test images, the transform fitted by least squares on training images."""
    n, found = len(kind.fronts), []
    points = [(point, point) for point in net.points]
    sums = sum_activations(net, kind.fronts, net, kind.ends, points, batches(images.train))
    each = list(range(n))
    for pair in points:
        stitched = StitchedNets(net, kind.fronts, net, kind.ends, pair, list(zip(each, each)))
        transform = sums[pair].of(each, each).least_squares().to(kind.fronts)
        classes = torch.cat([stitched.run(transform, x).argmax(-1) for x in batches(images.test)], 1)
        found.append(percentage(classes == images.test.labels))
    return torch.stack(found)


def batches(images: Images) -> Iterator[Tensor]:
    """Yield all images, plain, some at a time."""
    for start in range(0, len(images), IMAGES_AT_ONCE):
        yield images.plain(start, min(start + IMAGES_AT_ONCE, len(images)))


@torch.no_grad()
def measure_kind(
    net: TargetNet, kind: Kind, images: ImageSet, of_activations: Sequence[str] = OF_ACTIVATIONS
) -> dict[str, Tensor]:
    """Return what is measured of each pair on test images, float64 on the CPU.

    The accuracies of the two nets, their agreement and the stitched accuracies are percentages, (N,) and at L points (L, N):
    `least_squares` is relative to the end's accuracy, as a fraction. So are measures of similarity (L, N).
    """
    n = len(kind.fronts)
    fronts, ends = (each[:, : net.num_parameters] for each in (kind.fronts, kind.ends))
    views, pairs = NetViews(net, torch.cat([fronts, ends]), images.test), [(i, n + i) for i in range(n)]
    classes = [predicted_classes(net, rows, images.test) for rows in (fronts, ends)]
    front, end = (percentage(each == images.test.labels) for each in classes)
    found = {"agreement": percentage(classes[0] == classes[1]), "front_accuracy": front, "end_accuracy": end}
    wanted = views.wanted(pairs, all_points=False)
    values = compare(views, len(images.test), IMAGES_AT_ONCE, of_activations, wanted)
    for name, each in values.items():
        found[name] = torch.from_numpy(views.blocks(each, pairs)).diagonal(dim1=1, dim2=2).T
    right_at_least_once = end.clamp(min=100 / len(images.test))
    found["least_squares"] = stitched_accuracy(net, Kind(kind.about, fronts, ends), images) / right_at_least_once
    return {name: each.double() for name, each in found.items()}


def kind_facts(kind: Kind, found: dict[str, Tensor], resamples: int, seed: int) -> dict[str, Any]:
    """Return what was found of a kind for JSON: means over pairs, and intervals of 95 % over resampled pairs.

    Pairs at which a measure is not defined are left out there. None if there are no others, and for an interval of one pair.
    """
    n = len(kind.fronts)
    drawn = torch.from_numpy(stream("resamples of pairs", seed).integers(n, size=(resamples, n)))
    facts: dict[str, Any] = {"about": kind.about, "n": n}
    for name, values in found.items():
        means, resampled = values.nanmean(-1), values[..., drawn].nanmean(-1)
        ends = np.stack([resampled.nanquantile(end / 100, dim=-1).numpy() for end in INTERVAL], -1)
        intervals = [each if n > 1 and np.isfinite(each).all() else None for each in ends.reshape(-1, 2).tolist()]
        several = values.dim() > 1
        facts[name] = {"mean": as_lists(means.numpy()), "interval": intervals if several else intervals[0]}
    return facts


def inside_table(results: dict[str, Any]) -> str:
    """Return inside_similarity.json as Markdown: for each measure, a line for each kind of pairs."""
    parts = []
    for name in AT_POINTS:
        heads = [name.replace("_", " "), "n", "agreement (%)", *results["points"]]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for kind, found in results["kinds"].items():
            cells = [kind.replace("_", " "), str(found["n"]), f"{found['agreement']['mean']:.1f}"]
            for mean, ends in zip(found[name]["mean"], found[name]["interval"]):
                cells.append(text_of(mean, 2) + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""))
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
