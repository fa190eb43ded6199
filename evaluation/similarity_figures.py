"""Figures of similarity inside nets: matrices of points, curves over points, and kinds of pairs."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from evaluation.comparison import ALL_MEASURES
from evaluation.inside import AT_POINTS
from evaluation.plots import BY_BOTH, BY_WEIGHTS, PREDICTED, STYLE, TARGET, WEIGHTS

COLUMNS = 4  # of panels
MOST_NUMBERED = 7  # points of a matrix whose cells have their numbers
GROUPS = {  # of compare_nets.json: how they are called and drawn
    "mean": ("pairs of nets", dict(color=TARGET, linestyle="-", marker="o")),
    "reordered_copy": ("reordered copy", dict(color="#009E73", linestyle="--", marker="^")),
    "untrained_front": ("untrained front", dict(color=WEIGHTS, linestyle=":", marker="s")),
}
KIND_STYLES: dict[
    str, dict[str, Any]
] = {  # of inside_similarity.json; lines of predicted nets are solid, of controls dashed
    "target_predicted": dict(color=PREDICTED, marker="D"),
    "target_other": dict(color=PREDICTED, marker="x", linestyle="--"),
    "target_sane": dict(color=BY_BOTH, marker="D"),
    "predicted": dict(color=PREDICTED, marker="o", markerfacecolor="white"),
    "start_predicted": dict(color="#E69F00", marker="P"),
    "line_quarter": dict(color="#56B4E9", marker="^"),
    "line_half": dict(color="#56B4E9", marker=">", markerfacecolor="white"),
    "line_whole": dict(color="#56B4E9", marker="v"),
    "independent": dict(color=TARGET, marker="s", linestyle="--"),
    "independent_zoo": dict(color=TARGET, marker="s", linestyle=":", markerfacecolor="white"),
    "reordered_copy": dict(color=BY_WEIGHTS, marker="o", linestyle="--"),
    "fine_tuned_copy": dict(color=BY_WEIGHTS, marker="x", linestyle="--"),
    "noisy_copy": dict(color=BY_WEIGHTS, marker="+", linestyle=":"),
    "untrained": dict(color=WEIGHTS, marker="X", linestyle=":"),
}
INSIDE_TITLES = {
    "cka_unbiased": "CKA, unbiased",
    "procrustes": "Procrustes distance",
    "least_squares": "stitched by least squares, relative accuracy",
    "same_channel": "same-channel correlation",
}


def grid(number: int, height: float) -> tuple[Figure, list[plt.Axes]]:
    """Return a figure of panels, `height` inches each, as many as there are numbers."""
    rows = -(-number // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(7.2, height * rows + 0.5), squeeze=False)
    for each in axes.flat[number:]:
        each.set_axis_off()
    return figure, list(axes.flat[:number])


def name_points(axes: plt.Axes, points: list[str], named: bool) -> None:
    """Give the x axis a tick for every point, with its name in the lowest panel of a column."""
    axes.set_xticks(range(len(points)), points if named else [""] * len(points), rotation=90, fontsize=6)


def plot_matrices(measures: dict[str, dict[str, Any]], points: list[str], title: str) -> Figure:
    """Draw the mean of each measure of compare_nets.json for all points of the front, in rows, and of the end.

    Yellow is alike in every panel: colours of distances run the other way.
    """
    with plt.rc_context({**STYLE, "axes.grid": False, "axes.titlesize": 8}):
        figure, panels = grid(len(measures), 1.75)
        for place, (axes, (name, found)) in enumerate(zip(panels, measures.items())):
            values, measure = np.array(found["mean"], dtype=float), ALL_MEASURES[name]
            image = axes.imshow(values, cmap="viridis" if measure.larger_is_alike else "viridis_r")
            axes.set_title(measure.title)
            name_points(axes, points, place + COLUMNS >= len(measures))
            axes.set_yticks(range(len(points)), points if place % COLUMNS == 0 else [""] * len(points), fontsize=6)
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if len(points) <= MOST_NUMBERED:
                for (i, j), value in np.ndenumerate(values):
                    if np.isfinite(value):
                        light = sum(image.cmap(image.norm(value))[:3]) > 1.5
                        text = f"{value:.2f}" if value < 9.995 else f"{value:.0f}"
                        axes.text(j, i, text, ha="center", va="center", fontsize=5, color="black" if light else "white")
        figure.supylabel("point of the front", fontsize=8)
        figure.supxlabel("point of the end", fontsize=8)
        figure.suptitle(title, fontsize=9)
    return figure


def plot_over_points(measures: dict[str, dict[str, Any]], points: list[str], title: str) -> Figure:
    """Draw each measure of compare_nets.json at corresponding points: means over pairs of nets, and of the controls."""
    with plt.rc_context({**STYLE, "axes.titlesize": 8}):
        figure, panels = grid(len(measures), 1.6)
        for place, (axes, (name, found)) in enumerate(zip(panels, measures.items())):
            for group, (label, style) in GROUPS.items():
                values = np.array(found[group], dtype=float).diagonal()
                axes.plot(range(len(points)), values, markersize=3.5, linewidth=1.2, label=label, **style)
            axes.set_title(ALL_MEASURES[name].title)
            name_points(axes, points, place + COLUMNS >= len(measures))
            axes.tick_params(axis="y", labelsize=7)
            axes.grid(axis="x", visible=False)
            axes.margins(y=0.12)
        figure.suptitle(title, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def plot_inside(kinds: dict[str, dict[str, Any]], points: list[str], title: str) -> Figure:
    """Draw what inside_similarity.json has of each kind of pairs over points: means and intervals of 95 % over pairs."""
    with plt.rc_context({**STYLE, "axes.titlesize": 8}):
        figure, panels = plt.subplots(2, 2, figsize=(7.2, 6.4))
        for axes, name in zip(panels.flat, AT_POINTS):
            for place, (kind, found) in enumerate(kinds.items()):
                means = np.array(found[name]["mean"], dtype=float)
                ends = np.array([each or [np.nan, np.nan] for each in found[name]["interval"]], dtype=float)
                position = np.arange(len(points)) + 0.5 * ((place + 0.5) / len(kinds) - 0.5)  # beside each other
                style = dict(linestyle="-", markersize=4, linewidth=0.9, elinewidth=0.8) | KIND_STYLES.get(kind, {})
                label = f"{kind.replace('_', ' ')} ({found['agreement']['mean']:.0f} %)"
                axes.errorbar(position, means, np.abs(ends.T - means), label=label, **style)
            axes.set_title(INSIDE_TITLES[name])
            axes.set_xticks(range(len(points)), points, rotation=45, fontsize=7)
            axes.grid(axis="x", visible=False)
        figure.suptitle(title, fontsize=9)
        handles = panels.flat[0].get_legend_handles_labels()
        figure.legend(
            *handles, loc="outside lower center", ncols=4, fontsize=7, title="kinds (agreement of predictions)"
        )
    return figure
