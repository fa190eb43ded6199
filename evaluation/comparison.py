"""Nets of one architecture compared at their stitch points, many at once, and how measures rank stitched nets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data.images import Images, ImageSet
from data.nets import Entry, NetsDataset, load_entries
from data.streams import stream
from data.texts import read_json
from evaluation.cka import Views
from evaluation.metrics import INSTANCES_AT_ONCE, correlation
from evaluation.point_probes import channel_means, divergences, probe_predictions
from evaluation.results import check_result
from evaluation.similarity import MEASURES, Measure, compare
from models.errors import InputError
from models.instances import TargetNet
from models.rows import reordering

ALL_MEASURES = MEASURES | {"probe_kl": Measure("KL of linear probes", larger_is_alike=False, symmetric=False)}
MeasureName = Literal[tuple(ALL_MEASURES)]  # type: ignore[valid-type]
MATCHINGS = ("least_squares", "task_loss")  # of stitch_nets.json, by point
Pairs = Sequence[tuple[int, int]]  # indices of front and end
LEAST_PAIRS = 3  # at one point, for a rank correlation


@dataclass(frozen=True)
class NetViews:
    """N nets, rows (N, P), at their L points on images: K = N*L views, net by net, for `similarity.compare`."""

    net: TargetNet
    rows: Tensor
    images: Images
    before_activation: bool = False

    @torch.no_grad()
    def __call__(self, start: int, stop: int) -> Views:
        """Return activations of images start ... stop-1: K tensors (B, C, H, W) or (B, F)."""
        x, points = self.images.plain(start, stop), self.net.points
        parts = self.rows.split(INSTANCES_AT_ONCE)
        found = [self.net.run_points(part, x, points, self.before_activation) for part in parts]
        return [at_point[i] for part in found for i in range(len(part[0])) for at_point in part]

    def on(self, images: Images) -> "NetViews":
        """Return the same nets on other images."""
        return replace(self, images=images)

    def wanted(self, pairs: Pairs, all_points: bool = True) -> Tensor:
        """Return which pairs of views are those of pairs of nets, (K, K) bool: at all pairs of points, or at the same points."""
        nets, points = len(self.rows), len(self.net.points)
        chosen = torch.zeros(nets, nets)
        chosen[tuple(torch.tensor(pairs).T)] = 1
        return torch.kron(chosen, torch.ones(points, points) if all_points else torch.eye(points)).bool()

    def blocks(self, values: Tensor, pairs: Pairs) -> np.ndarray:
        """Return the parts of a measure (K, K) that are of pairs of nets: (pairs, L, L), points of the front in rows."""
        nets, points = len(self.rows), len(self.net.points)
        by_net = values.view(nets, points, nets, points).transpose(1, 2)
        fronts, ends = zip(*pairs)
        return by_net[list(fronts), list(ends)].numpy()


def shuffled(images: Images, number: int, rng: np.random.Generator) -> Images:
    """Return at most `number` images, in random order: image sets are in the order of their classes."""
    index = torch.from_numpy(rng.permutation(len(images))[:number]).to(images.labels.device)
    return replace(images, pixels=images.pixels[index], labels=images.labels[index])


def measured(
    views: NetViews, images: ImageSet, pairs: Pairs, measures: Sequence[str], batch: int, probe_images: int, seed: int
) -> dict[str, np.ndarray]:
    """Return every measure of pairs of nets: (pairs, L, L), NaN where it is not defined. `probe_kl` needs training images."""
    n = len(views.images)
    of_activations = [name for name in measures if name in MEASURES]
    found = compare(views, n, batch, of_activations, views.wanted(pairs)) if of_activations else {}
    if "probe_kl" in measures:
        train = shuffled(images.train, probe_images, stream("images of linear probes", seed))
        features = [channel_means(each, len(each.images), batch) for each in (views.on(train), views)]
        found["probe_kl"] = divergences(probe_predictions(features[0], train.labels.cpu().numpy(), features[1]))
    return {name: views.blocks(found[name], pairs) for name in measures}


def reordered_copies(net: TargetNet, rows: Tensor, seed: int) -> Tensor:
    """Return rows (N, P) with hidden channels in random orders, each its own: the same functions."""
    rngs = (stream("reordered copies", seed, i) for i in range(len(rows)))
    index = torch.stack([reordering(net.layout, net.hidden_channels(), rng) for rng in rngs])
    return rows[:, : net.num_parameters].gather(1, index.to(rows.device))


def chosen_nets(known: NetsDataset, names: Sequence[str], dataset: str) -> NetsDataset:
    """Return instances by name or path, also those of other files. Raise InputError for one that is not there, or of others."""
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"--nets {' '.join(names)}: name two different nets or more")
    indices = [known.index_of(name) for name in names]
    if None not in indices:
        return known[[i for i in indices if i is not None]]
    architecture, paths = known.nets[0].architecture, [known.paths[i] if i is not None else None for i in indices]
    entries = [Entry(architecture, dataset, path or Path(name), "--nets") for path, name in zip(paths, names)]
    return load_entries(entries, known.nets, dataset, known.rows.device)


# Measures and stitches


def read_stitches(path: Path, architecture: str, before_activation: bool, made_by: str) -> dict[str, Any] | None:
    """Return the results of stitch_nets.py, None if there are none of this architecture.

    Raise InputError if they are broken (`made_by` is the command that makes them), or of activations at another place.
    """
    if not path.is_file():
        return None
    stitches = read_json(path, f"make it again with: {made_by}")
    check_result(stitches, path, f"make it again with: {made_by}")
    made_with = stitches.get("config")
    made_with = made_with if isinstance(made_with, dict) else {}
    if made_with.get("architecture", architecture) != architecture:
        return None
    if made_with.get("before_activation", before_activation) != before_activation:
        flag = "--no-before-activation" if before_activation else "--before-activation"
        raise InputError(f"{path} is of activations that are not compared here; give {flag}, or move it away")
    return stitches


def rank_correlations(
    blocks: dict[str, np.ndarray], pairs: Sequence[tuple[str, str]], points: Sequence[str], stitches: dict[str, Any]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return Spearman's rank correlation of measures with stitched accuracy, relative to the end's, by measure and matching.

    `blocks` are (pairs, L, L) by measure, of pairs of names; `stitches` is stitch_nets.json. `rho` is over all n pairs and points
    that both have, `rho_at_one_point` the mean over points of those over pairs. They are None where they are not defined.
    """
    number = {pair: i for i, pair in enumerate(pairs)}
    at = [(points.index(point), k) for k, point in enumerate(stitches["points"]) if point in points]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, values in blocks.items():
        for matching in MATCHINGS:
            by_point: list[list[tuple[float, float]]] = [[] for _ in at]
            for each in stitches["pairs"]:
                i = number.get((each["front"], each["end"]))
                for place, (point, k) in enumerate(at if i is not None and matching in each else ()):
                    pair = float(values[i, point, point]), each[matching][k]
                    if pair[1] is not None and np.isfinite(pair).all():
                        by_point[place].append(pair)
            together = [pair for pairs_at in by_point for pair in pairs_at]
            if together:
                ranks = [spearman(each) for each in by_point if len(each) >= LEAST_PAIRS]
                defined = [rank for rank in ranks if rank is not None]
                mean = float(np.mean(defined)) if defined else None
                facts = {"rho": spearman(together), "rho_at_one_point": mean, "n": len(together)}
                found.setdefault(name, {})[matching] = facts
    return found


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation of pairs of numbers, None if it is not defined."""
    one, other = zip(*pairs)
    return correlation(one, other, ranks=True) if len(pairs) >= LEAST_PAIRS else None


def identified(values: np.ndarray, larger_is_alike: bool) -> float | None:
    """Return the percentage of fronts' points whose most similar point of the end is the same one, of (pairs, L, L).

    None if no row is defined throughout.
    """
    values = values if larger_is_alike else -values
    whole = np.isfinite(values).all(2)
    right = values.argmax(2) == np.arange(values.shape[1])
    return 100 * float(right[whole].mean()) if whole.any() else None


def as_lists(values: np.ndarray) -> list[Any]:
    """Return an array as lists for JSON, None for what is not defined."""
    return np.where(np.isfinite(values), values, None).tolist()


# The results


def mean_over_pairs(values: np.ndarray) -> np.ndarray:
    """Return the mean (L, L) over the pairs of (pairs, L, L) where a measure is defined, NaN where it is for none."""
    defined = np.isfinite(values)
    return np.where(defined, values, 0).sum(0) / np.where(defined.any(0), defined.sum(0), np.nan)


def comparison_facts(
    groups: dict[str, dict[str, np.ndarray]], names: Sequence[tuple[str, str]], points: Sequence[str]
) -> dict[str, Any]:
    """Return the results of compare_nets.py, for JSON.

    `groups` are measures (pairs, L, L) of the pairs of nets, "nets", whose names are given, and of their controls.
    """
    found = {}
    for name, values in groups["nets"].items():
        means = {group: as_lists(mean_over_pairs(each[name])) for group, each in groups.items()}
        # The others' rows are pixels or spatial means, which correlate more: their entries in one row cannot be compared.
        comparable = ALL_MEASURES[name].of_pair is None
        share = identified(values, ALL_MEASURES[name].larger_is_alike) if comparable else None
        found[name] = {"mean": means.pop("nets"), **means, "identified": share}
    pairs = []
    for i, (front, end) in enumerate(names):
        by_point = {name: as_lists(values[i].diagonal()) for name, values in groups["nets"].items()}
        pairs.append({"front": front, "end": end, **by_point})
    return {"points": list(points), "measures": found, "pairs": pairs}


def similarity_table(results: dict[str, Any]) -> str:
    """Return compare_nets.json as a Markdown table with a line for each measure: means over corresponding points."""
    groups = {"mean": "pairs", "reordered_copy": "reordered copy", "untrained_front": "untrained front"}
    heads = ["mean at the same point", *groups.values(), "same point found (%)"]
    heads += (
        [f"ρ with {matching.replace('_', ' ')}, at one point" for matching in MATCHINGS]
        if results["rank_correlation"]
        else []
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in results["measures"].items():
        means = [np.array(found[group], dtype=float).diagonal() for group in groups]
        cells = [text_of(float(np.nanmean(each)) if np.isfinite(each).any() else None) for each in means]
        cells.append(text_of(found["identified"], 0))
        for matching in MATCHINGS if results["rank_correlation"] else ():
            rank = results["rank_correlation"].get(name, {}).get(matching)
            each = [text_of(rank[name], 2) for name in ("rho", "rho_at_one_point")] if rank else []
            cells.append(f"{each[0]}, {each[1]} (n = {rank['n']})" if rank else "–")
        lines.append(f"| {ALL_MEASURES[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def text_of(value: float | None, digits: int = 3) -> str:
    """Return a number as text, a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"
