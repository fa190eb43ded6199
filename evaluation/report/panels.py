"""What the report computes from a trained space: the map of embeddings, PReps as pictures, and the slider along gamma."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from evaluation.plots import PREDICTED, TARGET, WEIGHTS
from evaluation.report.charts import (
    ARCHITECTURE_STYLES,
    NEUTRAL,
    Chart,
    chart_figure,
    color_bar,
    curve,
    map_figure,
    pca,
    plain,
)
from evaluation.report.embedded import Embedded
from evaluation.report.pictures import (
    DIFFERENCES,
    PARAMETERS,
    Picture,
    Prep,
    block_side,
    line_pictures,
    percentile_range,
    picture,
    png,
)
from evaluation.shape_figures import mesh_trace
from evaluation.surfaces import level_sets
from models.errors import InputError

LATENT_STYLE, WEIGHTS_STYLE = (PREDICTED, "diamond"), (NEUTRAL, "circle")
MOST_GAMMAS = 101  # of the slider; each has its pictures on the page
DECODED, AVERAGED = "decoded from the latent line", "averaged weights"


# The map


def embedding_map(embedded: Embedded, slider: "Slider | None") -> Chart:
    """Draw all embeddings by PCA. A dotted line joins the ends of the slider, and a ring on it is at the slider's gamma.

    Instances are coloured by accuracy if they have one architecture, by architecture if they have several, and by split if
    they are SIRENs. Training instances are faint, validation ones hollow, and test ones outlined.
    """
    coordinates, fractions = pca(embedded.embeddings)
    nets, class_ids = embedded.instances.nets, embedded.instances.class_ids
    by = "split" if not nets.takes_images else "accuracy" if len(nets) == 1 else "architecture"
    traces, layout = [], {}
    for class_id, split in dict.fromkeys(zip(class_ids, embedded.splits)):
        indices = [i for i, each in enumerate(zip(class_ids, embedded.splits)) if each == (class_id, split)]
        x, y = coordinates[indices].round(6).T.tolist()
        style: dict[str, Any] = dict(zip(("color", "symbol"), style_of(class_id)))
        if by == "accuracy":
            style = dict(color=[embedded.values[i] for i in indices], coloraxis="coloraxis", symbol="circle")
        elif by == "split":
            style = dict(color=TARGET, symbol="circle") if split == "train" else dict(color=PREDICTED, symbol="diamond")
        style |= split_style(split, style["symbol"])
        text = dict(text=[hover_text(embedded, i) for i in indices], hovertemplate="%{text}<extra></extra>")
        traces.append(go.Scatter(x=x, y=y, name=split, mode="markers", marker=style, showlegend=by == "split", **text))
    if by != "split":  # entries for what the colours and what the outlines mean
        shown = sorted(set(class_ids)) if by == "architecture" else []
        entries = {nets.names[i]: dict(zip(("color", "symbol"), style_of(i)), size=9) for i in shown}
        entries |= {each: dict(color=NEUTRAL, **split_style(each, "circle")) for each in dict.fromkeys(embedded.splits)}
        nowhere = dict(x=[None], y=[None], mode="markers", hoverinfo="skip")
        traces += [go.Scatter(name=name, marker=style, **nowhere) for name, style in entries.items()]
    if by == "accuracy":
        layout |= color_bar("test accuracy (%)")
    moves = []
    if slider:
        start, end = coordinates[list(slider.ends)].tolist()
        between = dict(
            type="line", x0=start[0], y0=start[1], x1=end[0], y1=end[1], line=dict(dash="dot"), layer="below"
        )
        ring = dict(type="circle", xsizemode="pixel", ysizemode="pixel", x0=-9, x1=9, y0=-9, y1=9)
        layout["shapes"] = [dict(ring, xanchor=start[0], yanchor=start[1]), between]
        for at in slider.gamma:
            x, y = ((1 - at) * a + at * b for a, b in zip(start, end))
            moves.append({"shapes[0].xanchor": x, "shapes[0].yanchor": y})
    return Chart(map_figure(traces, fractions, **layout), "Map of all embeddings on two principal axes", moves=moves)


def style_of(class_id: int) -> tuple[str, str]:
    """Return colour and symbol of an architecture."""
    return ARCHITECTURE_STYLES[class_id % len(ARCHITECTURE_STYLES)]


def split_style(split: str, symbol: str) -> dict[str, Any]:
    """Return what distinguishes the marker of a split; the page gives markers outlines of the text's colour."""
    if split == "train":
        return dict(opacity=0.6, size=9, line_width=0.6)
    return dict(symbol=f"{symbol}-open", size=9, line_width=2) if split == "val" else dict(size=11, line_width=1.3)


def hover_text(embedded: Embedded, index: int) -> str:
    """Return the label of an instance on the map."""
    facts = [embedded.splits[index], embedded.architecture(index)]
    if embedded.values:
        form = "test accuracy {:.1f} %" if embedded.instances.nets.takes_images else "closeness {:.2f}"
        facts.append(form.format(embedded.values[index]))
    return f"{plain(embedded.instances.paths[index].stem)}<br>{' · '.join(facts)}"


# PReps of test instances


def prep_pictures(embedded: Embedded, number: int) -> list[Prep]:
    """Draw the PReps of `number` test instances, spread over their list."""
    test = [i for i, split in enumerate(embedded.splits) if split == "test"]
    chosen = [test[i] for i in np.unique(np.linspace(0, len(test) - 1, number).round().astype(int))]
    class_ids = [embedded.instances.class_ids[i] for i in chosen]
    targets = embedded.parameters(embedded.instances.rows[chosen], class_ids)
    predictions = embedded.parameters(embedded.space.decode(embedded.embeddings[chosen]), class_ids)
    preps = []
    for i, target, predicted in zip(chosen, targets, predictions):
        size = len(target)
        values = [picture(row, size) for row in (target, predicted, predicted - target)]
        low, high = percentile_range(values[:2])
        most = float(np.nanpercentile(np.abs(values[2]), 99))
        scales = ((low, high, PARAMETERS), (low, high, PARAMETERS), (-most, most, DIFFERENCES))
        drawn = [
            Picture(name, png(each, *scale), *scale[:2])
            for name, each, scale in zip(("target", "predicted", "difference"), values, scales)
        ]
        name = embedded.instances.paths[i].stem
        preps.append(Prep(name, embedded.architecture(i), size, block_side(size) ** 2, drawn))
    return preps


# The slider


def line_chart(traces: Sequence[go.Scatter], y: str, gamma: Sequence[float], **axis: Any) -> Chart:
    """Return the chart beside the slider; a vertical line is at the slider's gamma."""
    cursor = dict(type="line", x0=gamma[0], x1=gamma[0], y0=0, y1=1, yref="paper")
    figure = chart_figure(traces, "interpolation factor γ", y, shapes=[cursor]).update_yaxes(**axis)
    return Chart(figure, f"{y} along gamma", moves=[{"shapes[0].x0": at, "shapes[0].x1": at} for at in gamma])


@dataclass(frozen=True)
class Slider:
    """What moves along gamma, K values between two instances.

    Measured values are those in the interpolation scripts' JSON; PReps and shapes are computed here. `readouts` are rows of a
    table, with K texts in each of `columns`; `preps` are K data URIs by name; `meshes` are K lists, each of one mesh for
    every column, as traces of plotly, or empty.
    """

    ends: tuple[int, int]
    names: tuple[str, str]
    gamma: list[float]
    chart: Chart
    columns: list[str]
    readouts: dict[str, list[list[str]]]
    preps: dict[str, list[str]]
    meshes: list[list[dict[str, Any]]] = field(default_factory=list)

    def steps(self) -> list[dict[str, Any]]:
        """Return what the page shows at every gamma, as JSON."""
        steps = []
        for k, gamma in enumerate(self.gamma):
            cells = [texts[k] for row in self.readouts.values() for texts in row]
            names = [f"{name} {column}" for name in self.readouts for column in self.columns]
            spoken = ", ".join([f"{gamma:.2f}", *(f"{name} {text}" for name, text in zip(names, cells))])
            step = {"gamma": f"γ = {gamma:.2f}", "spoken": spoken, "cells": cells}
            step |= {"preps": [sources[k] for sources in self.preps.values()], "chart": self.chart.moves[k]}
            steps.append({**step, "meshes": self.meshes[k]} if self.meshes else step)
        return steps


def ends_of(embedded: Embedded, line: dict[str, Any], made_by: str) -> tuple[tuple[int, int], tuple[str, str]]:
    """Return the indices of a line's ends, and how the page names them. Raise InputError if no input list names one."""
    start, end = (embedded.index_of(line[which], made_by) for which in ("from", "to"))
    first, last = (f"{embedded.instances.paths[i].stem} ({embedded.architecture(i)})" for i in (start, end))
    return (start, end), (first, last)


def thinned(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with at most MOST_GAMMAS of its points, spread evenly, the ends among them."""
    number = len(line["gamma"])
    chosen = np.unique(np.linspace(0, number - 1, min(number, MOST_GAMMAS)).round().astype(int)).tolist()

    def pick(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: pick(each) for name, each in value.items()}
        return [value[i] for i in chosen] if isinstance(value, list) and len(value) == number else value

    return {name: pick(each) for name, each in line.items()}


def texts(values: Sequence[float | None], form: str) -> list[str]:
    """Return values as text, "none" where there is none."""
    return ["none" if value is None else form.format(value) for value in values]


def image_slider(embedded: Embedded, line: dict[str, Any], made_by: str) -> Slider:
    """Return the slider of interpolate_single_arch.json, or of interpolate_multi_arch.json, which has ClassIds.

    Raise InputError if an end of the line is in no input list; `made_by` is the command that measures another line.
    """
    ends, names = ends_of(embedded, line, made_by)
    nets, line = embedded.instances.nets, thinned(line)
    gamma, several = line["gamma"], len(nets) > 1
    accuracies = [line[name] for name in (("accuracy",) if several else ("latent_accuracy", "weight_accuracy"))]
    columns = ["latent", "weights"][: len(accuracies)]
    readouts = {"test accuracy": [texts(values, "{:.1f} %") for values in accuracies]}
    class_ids = line["class_id"] if several else [0] * len(gamma)
    if max(class_ids) >= len(nets):
        raise InputError(f"the line has ClassId {max(class_ids)}, this space has {len(nets)}; run again: {made_by}")
    rows = dict(zip((DECODED, AVERAGED)[: len(columns)], embedded.along(ends, gamma, class_ids)))
    if several:
        (values,) = accuracies
        quiet = dict(mode="lines", line=dict(color=NEUTRAL, width=1), showlegend=False, hoverinfo="skip")
        traces = [go.Scatter(x=gamma, y=values, **quiet)]
        for class_id in sorted(set(class_ids)):
            x, y = zip(*[(a, b) for a, b, each in zip(gamma, values, class_ids) if each == class_id])
            marker = dict(zip(("color", "symbol"), style_of(class_id)), size=7)
            traces.append(curve(nets.names[class_id], x, y, "γ", mode="markers", marker=marker))
        readouts["ClassId"] = [[f"{class_id}, {nets.names[class_id]}" for class_id in class_ids]]
    else:
        styles = {"latent": LATENT_STYLE, "weight": WEIGHTS_STYLE}
        traces = [
            line_and_markers(f"{kind} interpolation", gamma, values, *styles[kind], dash=kind == "weight")
            for kind, values in zip(styles, accuracies)
        ]
    chart = line_chart(traces, "test accuracy (%)", gamma, rangemode="tozero")
    size = max(nets[class_id].num_parameters for class_id in {*class_ids})
    return Slider(ends, names, gamma, chart, columns, readouts, line_pictures(rows, size))


def line_and_markers(
    name: str, gamma: Sequence[float], values: Sequence[float | None], color: str, symbol: str, dash: bool
) -> go.Scatter:
    """Return a line with markers along gamma."""
    style = dict(color=color, dash="dash" if dash else "solid")
    return curve(name, gamma, values, "γ", mode="lines+markers", line=style, marker=dict(symbol=symbol, size=7))


def siren_slider(embedded: Embedded, line: dict[str, Any], resolution: int, made_by: str) -> Slider:
    """Return the slider of interpolate_mlps.json: distances, volume, pieces, PReps and shapes.

    Shapes are meshed on a grid of `resolution` points a side. Raise InputError likewise.
    """
    ends, names = ends_of(embedded, line, made_by)
    line = thinned(line)
    gamma, net, device = line["gamma"], embedded.instances.nets[0], embedded.embeddings.device
    rows = dict(zip((DECODED, AVERAGED), embedded.along(ends, gamma, [0] * len(gamma))))
    columns = ["latent", "weights"]
    traces, meshes = [], []
    for column, each, color, style in zip(columns, rows.values(), (PREDICTED, WEIGHTS), (LATENT_STYLE, WEIGHTS_STYLE)):
        batch = torch.from_numpy(np.stack(each)).to(device)
        surfaces = level_sets(lambda points, batch=batch: net.run(batch, points), resolution, device)
        meshes.append([{"trace": mesh_trace(mesh, color), "empty": not len(mesh.faces)} for mesh in surfaces])
        for which in ("start", "end"):
            distances = line[column][f"chamfer_to_{which}"]
            traces.append(line_and_markers(f"{column}, to the {which}", gamma, distances, *style, dash=which == "end"))
    measured = {
        "volume": ("volume (cubic units)", "{:.3f}"),
        "pieces": ("pieces", "{}"),
        "chamfer_to_start": ("Chamfer distance to the start (units)", "{:.4f}"),
        "chamfer_to_end": ("Chamfer distance to the end (units)", "{:.4f}"),
    }
    readouts = {
        what: [texts(line[column][name], form) for column in columns] for name, (what, form) in measured.items()
    }
    chart = line_chart(traces, "Chamfer distance (units)", gamma, type="log", tickformat="~g")
    preps = line_pictures(rows, net.num_parameters)
    return Slider(ends, names, gamma, chart, columns, readouts, preps, [list(pair) for pair in zip(*meshes)])
