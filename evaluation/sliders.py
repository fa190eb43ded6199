"""What the report's sliders move along gamma: measured values, PReps and shapes between two instances.

Values are the interpolation scripts' own, from their JSON; PReps and shapes are computed here.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from evaluation.embedded import Embedded
from evaluation.embedding_map import look_of
from evaluation.plots import PREDICTED, WEIGHTS
from evaluation.prep_images import line_pictures
from evaluation.shape_figures import mesh_trace
from evaluation.surfaces import level_sets
from models.siren import SirenNets

Spec = dict[str, Any]  # what the page's JavaScript draws

ACCURACY = {"label": "test accuracy (%)", "zero": True}
LATENT, AVERAGED = "decoded from the latent line", "averaged weights"


def curve(
    name: str, x: Sequence[float], y: Sequence[float | None], color: str, mark: str | None = None, dash: bool = False
) -> Spec:
    """A line of a chart. Without a name it is in no legend and says nothing; values that are not finite are gaps."""
    finite = [None if value is None or not math.isfinite(value) else value for value in y]
    return {"name": name, "x": list(x), "y": finite, "color": color, "mark": mark, "line": True, "dash": dash}


def slider(
    embedded: Embedded, ends: list[int], y: Spec, curves: list[Spec], moves: Spec, meshes: Sequence[list[Spec]] = ()
) -> Spec:
    """The slider, and the chart beside it, whose vertical axis is `y`.

    `moves` holds `gamma`, K numbers; `columns`, names; `readouts`, rows of a table, each with K texts a column; `preps`.
    `meshes`, K pairs, are what two views show.
    """
    chart = {"x": {"label": "interpolation factor γ", "short": "γ"}, "y": y, "series": curves}
    names = [f"{embedded.paths[i].stem} ({embedded.architectures[i]})" for i in ends]
    return {"ends": ends, "names": names, "chart": chart, "moves": {**moves, "meshes": list(meshes)}}


def as_texts(values: Sequence[float | None], form: str) -> list[str]:
    return ["none" if value is None else form.format(value) for value in values]


def percent(values: Sequence[float]) -> list[str]:
    return as_texts(values, "{:.1f} %")


def single_slider(embedded: Embedded, line: Spec, made_by: str) -> Spec:
    """From interpolate_single_arch.json: accuracies and PReps of both kinds of interpolation."""
    ends = [embedded.place(line[end], made_by) for end in ("from", "to")]
    gamma, size = line["gamma"], embedded.sizes[ends[0]]
    decoded, averaged = embedded.along(ends, gamma, [size] * len(gamma))
    latent, weight = line["latent_accuracy"], line["weight_accuracy"]
    curves = [
        curve("latent interpolation", gamma, latent, "var(--predicted)", "diamond"),
        curve("weight interpolation", gamma, weight, "var(--weights)", "circle", dash=True),
    ]
    moves = {
        "gamma": gamma,
        "columns": ["latent", "weights"],
        "readouts": [{"name": "test accuracy", "values": [percent(latent), percent(weight)]}],
        "preps": line_pictures({LATENT: decoded, AVERAGED: averaged}, size),
    }
    return slider(embedded, ends, ACCURACY, curves, moves)


def multi_slider(embedded: Embedded, sizes: list[int], line: Spec, made_by: str) -> Spec:
    """From interpolate_multi_arch.json: accuracy, ClassId and PRep; `sizes` are the parameters of each ClassId."""
    ends = [embedded.place(line[end], made_by) for end in ("from", "to")]
    gamma, accuracy, names, class_ids = (line[name] for name in ("gamma", "accuracy", "architectures", "class_id"))
    decoded, _ = embedded.along(ends, gamma, [sizes[class_id] for class_id in class_ids])
    curves = [curve("", gamma, accuracy, "var(--line)")]
    for class_id in sorted(set(class_ids)):
        points = [(x, y) for x, y, each in zip(gamma, accuracy, class_ids) if each == class_id]
        curves.append({**curve(names[class_id], *zip(*points), *look_of(class_id)), "line": False})
    moves = {
        "gamma": gamma,
        "columns": ["latent"],
        "readouts": [
            {"name": "test accuracy", "values": [percent(accuracy)]},
            {"name": "ClassId", "values": [[f"{class_id}, {names[class_id]}" for class_id in class_ids]]},
        ],
        "preps": line_pictures({LATENT: decoded}, max(sizes)),
    }
    return slider(embedded, ends, ACCURACY, curves, moves)


def mlp_slider(embedded: Embedded, nets: SirenNets, line: Spec, resolution: int, made_by: str) -> Spec:
    """From interpolate_mlps.json: distances, volume, pieces, PRep and shape of both kinds of interpolation.

    The shapes are meshed anew, on a grid of `resolution` points a side.
    """
    ends = [embedded.place(line[end], made_by) for end in ("from", "to")]
    gamma, size, device = line["gamma"], nets.num_parameters, embedded.embeddings.device
    decoded, averaged = embedded.along(ends, gamma, [size] * len(gamma))
    curves, meshes = [], []
    for space, rows, color, look in (
        ("latent", decoded, PREDICTED, ("var(--predicted)", "diamond")),
        ("weights", averaged, WEIGHTS, ("var(--weights)", "circle")),
    ):
        batch = torch.from_numpy(np.stack(rows)).to(device)
        surfaces = level_sets(lambda points, batch=batch: nets.run(batch, points), resolution, device)
        meshes.append([{"trace": mesh_trace(mesh, color), "empty": not len(mesh.faces)} for mesh in surfaces])
        for which in ("start", "end"):
            far = line[space][f"chamfer_to_{which}"]
            curves.append(curve(f"{space}, to the {which}", gamma, far, *look, dash=which == "end"))
    said = {
        "volume": ("volume (cubic units)", "{:.3f}"),
        "pieces": ("pieces", "{}"),
        "chamfer_to_start": ("Chamfer distance to the start (units)", "{:.4f}"),
        "chamfer_to_end": ("Chamfer distance to the end (units)", "{:.4f}"),
    }
    moves = {
        "gamma": gamma,
        "columns": ["latent", "weights"],
        "readouts": [
            {"name": what, "values": [as_texts(line[space][name], form) for space in ("latent", "weights")]}
            for name, (what, form) in said.items()
        ],
        "preps": line_pictures({LATENT: decoded, AVERAGED: averaged}, size),
    }
    distance = {"label": "Chamfer distance (units)", "log": True}
    return slider(embedded, ends, distance, curves, moves, [list(pair) for pair in zip(*meshes)])
