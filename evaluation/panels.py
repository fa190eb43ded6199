"""What the report computes of a trained NetSpace: embeddings of all instances, PReps as images, lines along gamma, a map."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from PIL import Image
from torch import Tensor

from data.folders import Folders
from data.mlps import load_mlps
from data.nets import load_mixed_split, load_split
from evaluation.accuracy import accuracy, mixed_accuracy
from evaluation.interpolation import interpolate
from evaluation.meshes import level_sets
from evaluation.multi import MultiConfig, load_multi_experiment
from evaluation.plots import PREDICTED, TARGET, WEIGHTS
from evaluation.shape_views import caption, mesh_trace
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from models.prep import pack, unpack
from models.prep_autoencoder import PrepAutoencoder
from models.registry import get_architecture
from models.siren import SirenNets

Spec = dict[str, Any]  # what the page's JavaScript draws

SPLITS = ("train", "val", "test")
PREP_SIDE = 128  # pixels at most, of a PRep's image; a larger PRep is averaged in blocks
PARAMETERS, DIFFERENCES = colormaps["viridis"], LinearSegmentedColormap.from_list("", (TARGET, "#F7F7F7", PREDICTED))
ACCURACY = {"label": "test accuracy (%)", "zero": True}
TRANSPARENT = 255  # in the images' palettes, for what is no parameter
# Okabe and Ito's, a shape for each beside it; the paper's red and green are alike to many.
ARCHITECTURE_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
ARCHITECTURE_MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Instances:
    """A setting's instances in its NetSpace, train, val and test after each other."""

    net_space: PrepAutoencoder
    preps: Tensor  # (N, 1, H, W) float32, of targets
    sizes: list[int]  # parameters of each
    embeddings: Tensor  # (N, E)
    paths: list[Path]
    splits: list[str]
    architectures: list[str]
    accuracies: list[float] | None  # percent of the test images, of targets

    def place(self, path: str, made_by: str) -> int:
        """Position of an instance that results name. Raises InputError if the lists no longer have it."""
        for i, each in enumerate(self.paths):
            if path in (each.as_posix(), each.stem):
                return i
        raise InputError(f"{path}, an end of the line, is in no input list any more; run again: {made_by}")

    def places_of(self, split: str) -> list[int]:
        return [i for i, each in enumerate(self.splits) if each == split]


def instances_of(
    net_space: PrepAutoencoder,
    preps: Tensor,
    sizes: list[int],
    paths: dict[str, Sequence[Path]],
    architectures: list[str],
    accuracies: Tensor | None,
) -> Instances:
    splits = [split for split in paths for _ in paths[split]]
    every = [path for split in paths for path in paths[split]]
    percent = None if accuracies is None else accuracies.tolist()
    return Instances(net_space, preps, sizes, net_space.encode(preps), every, splits, architectures, percent)


def single_instances(config: EvaluationConfig) -> Instances:
    """Raises InputError where something is missing, naming the command that makes it."""
    experiment = load_experiment(config)
    nets, images = experiment.test.nets, experiment.images
    sets = {split: load_split(config.folders, images, "single", split, nets) for split in SPLITS[:2]}
    sets["test"] = experiment.test
    rows = torch.cat([each.rows for each in sets.values()])
    return instances_of(
        experiment.net_space,
        pack(rows, experiment.prep_shape),
        [nets.num_parameters] * len(rows),
        {split: each.paths for split, each in sets.items()},
        [config.architecture] * len(rows),
        accuracy(nets, rows, images.test),
    )


def multi_instances(config: MultiConfig) -> tuple[Instances, list[int]]:
    """Those of several architectures, and how many parameters each architecture has, by ClassId. Raises InputError likewise."""
    experiment = load_multi_experiment(config)
    pool, images = experiment.pool, experiment.images
    sets = {split: load_mixed_split(config.folders, images, config.setting, split, pool) for split in SPLITS[:2]}
    sets["test"] = experiment.test
    preps = torch.cat([each.preps for each in sets.values()])
    class_ids = [class_id for each in sets.values() for class_id in each.class_ids]
    sizes = [nets.num_parameters for nets in pool.nets]
    instances = instances_of(
        experiment.net_space,
        preps,
        [sizes[class_id] for class_id in class_ids],
        {split: each.paths for split, each in sets.items()},
        [pool.names[class_id] for class_id in class_ids],
        mixed_accuracy(pool, preps, class_ids, images.test),
    )
    return instances, sizes


def mlp_instances(
    folders: Folders, dataset: str, net_space: PrepAutoencoder, device: torch.device
) -> tuple[Instances, SirenNets]:
    """SIRENs, which have no validation split and no accuracy. Raises InputError likewise."""
    sets = {split: load_mlps(folders, dataset, split, device) for split in ("train", "test")}
    rows, nets = torch.cat([each.rows for each in sets.values()]), sets["test"].nets
    preps = pack(rows, net_space.sizes.prep_shape)
    paths = {split: each.paths for split, each in sets.items()}
    sizes, names = [nets.num_parameters] * len(rows), ["siren"] * len(rows)
    return instances_of(net_space, preps, sizes, paths, names, None), nets


# PReps as images


def predict(net_space: PrepAutoencoder, embeddings: Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
    """Parameters (P_i,) decoded from embeddings (N, E), without what the decoder puts into the padding."""
    rows = net_space.decode(embeddings).flatten(1).cpu().numpy()
    return [row[:size] for row, size in zip(rows, sizes)]


def picture(row: np.ndarray, size: int) -> np.ndarray:
    """Parameters (P,) as a near-square (h, w) for `size` of them, at most PREP_SIDE a side: NaN where there are none.

    A larger one is averaged in square blocks.
    """
    side = math.ceil(math.sqrt(size))
    square = np.full((math.ceil(size / side), side), np.nan, np.float32)
    square.ravel()[: len(row)] = row
    return np.asarray(Image.fromarray(square).reduce(math.ceil(side / PREP_SIDE)))


def png(values: np.ndarray, low: float, high: float, colors: Colormap) -> str:
    """An image (h, w), NaN transparent, as a data URI."""
    share = (np.nan_to_num(values) - low) / max(high - low, 1e-12)
    indices = np.where(np.isnan(values), TRANSPARENT, (share.clip(0, 1) * (TRANSPARENT - 1)).round())
    image = Image.fromarray(indices.astype(np.uint8), "P")
    palette = colors(np.linspace(0, 1, TRANSPARENT))[:, :3]
    image.putpalette((255 * palette).round().astype(np.uint8).tobytes() + b"\0\0\0")
    file = io.BytesIO()
    image.save(file, "png", optimize=True, transparency=TRANSPARENT)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def percentile_range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """1st and 99th percentile of what images show."""
    low, high = np.nanpercentile(np.concatenate([image.ravel() for image in images]), (1, 99))
    return float(low), float(high)


def prep_pictures(instances: Instances, number: int) -> list[dict[str, Any]]:
    """`number` test instances, spread over their list: target, predicted and difference, as data URIs with their ranges."""
    test = instances.places_of("test")
    chosen = [test[i] for i in np.unique(np.linspace(0, len(test) - 1, number).round().astype(int))]
    sizes = [instances.sizes[i] for i in chosen]
    predicted = predict(instances.net_space, instances.embeddings[chosen], sizes)
    shown = []
    for i, size, row in zip(chosen, sizes, predicted):
        target = unpack(instances.preps[[i]], size)[0].cpu().numpy()
        images = [picture(each, size) for each in (target, row, row - target)]
        low, high = percentile_range(images[:2])
        most = float(np.nanpercentile(np.abs(images[2]), 99))
        ranges = ((low, high, PARAMETERS), (low, high, PARAMETERS), (-most, most, DIFFERENCES))
        names = ("target", "predicted", "predicted − target")
        shown.append(
            {
                "name": instances.paths[i].stem,
                "architecture": instances.architectures[i],
                "parameters": size,
                "block": math.ceil(math.ceil(math.sqrt(size)) / PREP_SIDE) ** 2,
                "images": [
                    {"name": name, "source": png(image, *scale), "low": scale[0], "high": scale[1]}
                    for name, image, scale in zip(names, images, ranges)
                ],
            }
        )
    return shown


def line_pictures(lines: dict[str, list[np.ndarray]], size: int) -> list[dict[str, Any]]:
    """Parameters along gamma, K of them by name, each as K data URIs; all on one range."""
    images = {name: [picture(row, size) for row in rows] for name, rows in lines.items()}
    low, high = percentile_range([image for each in images.values() for image in each])
    return [
        {"name": name, "sources": [png(image, low, high, PARAMETERS) for image in each]}
        for name, each in images.items()
    ]


# Along gamma


def percent(values: Sequence[float]) -> list[str]:
    return [f"{value:.1f} %" for value in values]


def single_slider(instances: Instances, line: dict[str, Any], made_by: str) -> Spec:
    """From interpolate_single_arch.json: accuracies of both kinds of interpolation, their PReps along gamma."""
    ends = [instances.place(line[end], made_by) for end in ("from", "to")]
    gamma, size = line["gamma"], instances.sizes[ends[0]]
    decoded, averaged = along(instances, ends, gamma, [size] * len(gamma))
    both = {"latent": line["latent_accuracy"], "weight": line["weight_accuracy"]}
    curves = [
        series("latent interpolation", gamma, both["latent"], "var(--predicted)", "diamond"),
        series("weight interpolation", gamma, both["weight"], "var(--weights)", "circle", dash=True),
    ]
    readouts = [{"name": f"{name} accuracy", "values": percent(values)} for name, values in both.items()]
    preps = line_pictures({"decoded from the latent line": decoded, "averaged weights": averaged}, size)
    return slider(ends, gamma, ACCURACY, curves, readouts, preps)


def multi_slider(instances: Instances, sizes: list[int], line: dict[str, Any], made_by: str) -> Spec:
    """From interpolate_multi_arch.json: accuracy, ClassId and PRep along gamma; sizes of the architectures by ClassId."""
    ends = [instances.place(line[end], made_by) for end in ("from", "to")]
    gamma, names, class_ids = line["gamma"], line["architectures"], line["class_id"]
    decoded, _ = along(instances, ends, gamma, [sizes[class_id] for class_id in class_ids])
    curves = [series("", gamma, line["accuracy"], "var(--line)", None)]
    for class_id in sorted(set(class_ids)):
        mine = [i for i, each in enumerate(class_ids) if each == class_id]
        points = [gamma[i] for i in mine], [line["accuracy"][i] for i in mine]
        curves.append({**series(names[class_id], *points, *look_of(class_id)), "line": False})
    readouts = [
        {"name": "accuracy", "values": percent(line["accuracy"])},
        {"name": "ClassId", "values": [f"{class_id}, {names[class_id]}" for class_id in class_ids]},
    ]
    preps = line_pictures({"decoded from the latent line": decoded}, max(sizes))
    return slider(ends, gamma, ACCURACY, curves, readouts, preps)


def mlp_slider(instances: Instances, nets: SirenNets, line: dict[str, Any], resolution: int, made_by: str) -> Spec:
    """From interpolate_mlps.json: distances, volume, pieces, PRep and shape along gamma, of both kinds of interpolation.

    The shapes are meshed anew, on a grid of `resolution` points a side.
    """
    ends = [instances.place(line[end], made_by) for end in ("from", "to")]
    gamma, size, device = line["gamma"], nets.num_parameters, instances.embeddings.device
    lines = dict(zip(("latent", "weights"), along(instances, ends, gamma, [size] * len(gamma))))
    curves, readouts, meshes = [], [], []
    for space, look in (("latent", ("var(--predicted)", "diamond")), ("weights", ("var(--weights)", "circle"))):
        rows = torch.from_numpy(np.stack(lines[space])).to(device)
        surfaces = level_sets(lambda points, rows=rows: nets.run(rows, points), resolution, device)
        meshes.append([mesh_trace(mesh, PREDICTED if space == "latent" else WEIGHTS) for mesh in surfaces])
        found = line[space]
        facts = zip(found["volume"], found["pieces"])
        readouts.append(
            {"name": space, "values": [caption(dict(volume=v, pieces=pieces, faces=pieces)) for v, pieces in facts]}
        )
        for which in ("start", "end"):
            name = f"{space}, to the {which}"
            far = found[f"chamfer_to_{which}"]
            curves.append(series(name, gamma, far, *look, dash=which == "end"))
            said = ["none" if each is None else f"{each:.4f}" for each in far]
            readouts.append({"name": f"{space}: Chamfer distance to the {which}", "values": said})
    preps = line_pictures({"decoded from the latent line": lines["latent"], "averaged weights": lines["weights"]}, size)
    distance = {"label": "Chamfer distance (unit sphere's radius 1)", "log": True}
    return slider(ends, gamma, distance, curves, readouts, preps, [list(pair) for pair in zip(*meshes)])


def slider(
    ends: list[int],
    gamma: Sequence[float],
    y: Spec,
    curves: list[Spec],
    readouts: list[Spec],
    preps: list[Spec],
    meshes: Sequence[list[Spec]] = (),
) -> Spec:
    """What moves with gamma, and the chart beside it, whose vertical axis is `y`."""
    chart = {"x": {"label": "interpolation factor γ", "short": "γ"}, "y": y, "series": curves}
    moves = {"gamma": gamma, "readouts": readouts, "preps": preps, "meshes": meshes}
    return {"ends": ends, "chart": chart, "moves": moves}


def along(
    instances: Instances, ends: list[int], gamma: Sequence[float], sizes: Sequence[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Parameters decoded from embeddings between two instances, and averaged between them: K rows (P_k,) each."""
    factors = torch.tensor(gamma, device=instances.embeddings.device)
    decoded = predict(instances.net_space, interpolate(*instances.embeddings[ends], factors), sizes)
    averaged = interpolate(*instances.preps[ends].flatten(1), factors).cpu().numpy()
    return decoded, [row[:size] for row, size in zip(averaged, sizes)]


def look_of(class_id: int) -> tuple[str, str]:
    """Colour and mark of an architecture."""
    return (
        ARCHITECTURE_COLORS[class_id % len(ARCHITECTURE_COLORS)],
        ARCHITECTURE_MARKS[class_id % len(ARCHITECTURE_MARKS)],
    )


def series(
    name: str, x: Sequence[float], y: Sequence[float | None], color: str, mark: str | None, dash: bool = False
) -> Spec:
    """A line of the page's charts. Values that are not finite are gaps."""
    finite = [None if value is None or not math.isfinite(value) else value for value in y]
    return {"name": name, "x": list(x), "y": finite, "color": color, "mark": mark, "line": True, "dash": dash}


# The map


def pca(embeddings: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, 2) of embeddings (N, E) along their first two principal axes, and each axis's share of the variance.

    An axis points to where the farthest embedding lies.
    """
    centred = (embeddings - embeddings.mean(0)).double().cpu()
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    left, values = (torch.nn.functional.pad(each, (0, 2)) for each in (left, values))  # a single embedding has one axis
    places = left[:, :2] * values[:2]
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))
    signs = torch.where(farthest < 0, -1.0, 1.0)
    shares = values[:2].square() / values.square().sum().clamp_min(1e-300)
    return (places * signs).numpy(), shares.numpy()


def embedding_map(instances: Instances, color_by: str, numbers: Sequence[str], ends: Sequence[int] = ()) -> Spec:
    """All embeddings in two dimensions, coloured by "accuracy", "architecture" or "split".

    `numbers` (N) is what the page says of an instance beside its name, `ends` two that the line along gamma joins.
    """
    places, shares = pca(instances.embeddings)
    names = sorted(set(instances.architectures), key=instances.architectures.index)
    percent = instances.accuracies or [0.0] * len(places)
    low, high = min(percent), max(percent)

    def look(i: int) -> tuple[str, str]:
        if color_by == "accuracy":
            return to_hex(PARAMETERS((percent[i] - low) / max(high - low, 1e-12))), "circle"
        if color_by == "architecture":
            return look_of(get_architecture(instances.architectures[i]).class_id)
        return ("var(--target)", "circle") if instances.splits[i] == "train" else ("var(--predicted)", "diamond")

    points = [
        {
            "x": round(float(x), 6),
            "y": round(float(y), 6),
            "color": color,
            "mark": mark,
            "split": instances.splits[i],
            "label": f"{instances.paths[i].stem}\n{instances.splits[i]} · {numbers[i]}",
        }
        for i, (x, y) in enumerate(places)
        for color, mark in [look(i)]
    ]
    legend = []
    if color_by == "architecture":
        first = [instances.architectures.index(name) for name in names]
        legend = [{"name": name, "color": look(i)[0], "mark": look(i)[1]} for name, i in zip(names, first)]
    for split in sorted(set(instances.splits), key=SPLITS.index):
        color, mark = look(instances.splits.index(split)) if color_by == "split" else ("var(--faint)", "circle")
        legend.append({"name": split, "color": color, "mark": mark, "split": split})
    axes = [
        {"label": f"principal axis {i + 1} ({100 * share:.0f} % of the variance)"} for i, share in enumerate(shares)
    ]
    scale = {"low": low, "high": high, "label": "test accuracy (%)"} if color_by == "accuracy" else None
    return {
        "x": axes[0],
        "y": axes[1],
        "points": points,
        "legend": legend,
        "ends": list(ends),
        "scale": scale,
    }
