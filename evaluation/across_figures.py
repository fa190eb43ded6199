"""The figures of compare_systems.py: cells and ablations as rows, numbers of training nets, symmetry and lines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.across_tables import OF_SYMMETRY, title_of
from evaluation.numbers import mean_of
from evaluation.plots import BY_BOTH, BY_WEIGHTS, PREDICTED, STYLE, TARGET, WEIGHTS, plt

COLORS = {"prep": PREDICTED, "tokens": TARGET}
MARKERS = {"weights": "s", "behaviour": "D", "both": "o"}
PANELS = {
    "agreement": "same class as the target (%)",
    "accuracy_error": "error of accuracy (points)",
    "weight_r2": "R² of weights",
}
LOWEST_R2 = -2.5  # what lies left of it is drawn there
LINES = {"weights": (WEIGHTS, "--", "averaged weights"), "weights_rebasin": ("black", "-.", "after re-basin")}


def plot_cells(cells: Sequence[dict[str, Any]], ablations: Sequence[dict[str, Any]], title: str) -> Figure:
    """Draw cells and ablations as rows: the value of every seed, their mean and its interval. Hollow is aligned."""
    rows = [*cells, *ablations]
    with plt.rc_context({**STYLE, "axes.titlesize": 8}):
        figure, panels = plt.subplots(1, len(PANELS), figsize=(8.2, 1.2 + 0.21 * max(len(rows), 1)), sharey=True)
        for axes, (name, label) in zip(panels, PANELS.items()):
            for place, row in enumerate(rows):
                draw_row(axes, place, row, name)
            if cells and ablations:
                axes.axhline(len(cells) - 0.5, color="black", linewidth=0.8)
            axes.set_xlabel(label, fontsize=8)
            axes.grid(axis="y", visible=False)
        panels[-1].set_xlim(LOWEST_R2 - 0.2, 1.3)  # intervals may be wider
        panels[0].set_yticks(range(len(rows)), [title_of(row) for row in rows], fontsize=7)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        for encoder, color in COLORS.items():
            panels[0].plot([], [], "o", color=color, label=encoder)
        for objective, marker in MARKERS.items():
            panels[0].plot([], [], marker, color="#888888", label=objective)
        figure.suptitle(title, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def draw_row(axes: plt.Axes, place: int, row: dict[str, Any], name: str) -> None:
    """Draw one measure of a cell."""
    values = [max(each, LOWEST_R2) if name == "weight_r2" else each for each in row[name] if each is not None]
    if not values:
        return
    color, ends = COLORS[row["encoder"]], row["interval"].get(name)
    axes.plot(values, [place] * len(values), "|", color=color, markersize=5, alpha=0.6)
    mean = float(np.mean(values))
    if ends and mean > LOWEST_R2:
        half = (ends[1] - ends[0]) / 2
        axes.plot([mean - half, mean + half], [place, place], color=color, linewidth=0.9)
    face = "white" if row["aligned"] else color
    axes.plot(mean, place, MARKERS[row["objective"]], color=color, markerfacecolor=face, markersize=5)


def plot_sizes(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Draw error and correlation over the number of training nets, which is logarithmic, with intervals over seeds."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(6.6, 2.9))
        for axes, name, label in zip(
            panels,
            ("accuracy_error", "accuracy_correlation"),
            ("mean |target - predicted| (points)", "correlation of accuracies"),
        ):
            for encoder, color in COLORS.items():
                mine = [row for row in rows if row["encoder"] == encoder and mean_of(row[name]) is not None]
                means = np.array([mean_of(row[name]) for row in mine], dtype=float)
                halves = [(ends[1] - ends[0]) / 2 if (ends := row["interval"][name]) else 0.0 for row in mine]
                style = dict(color=color, marker="o", markersize=4, linewidth=1.2, elinewidth=0.8, capsize=2)
                axes.errorbar([row["nets"] for row in mine], means, halves, label=encoder, **style)
            axes.set(xscale="log", xlabel="training nets", ylabel=label)
            sizes = sorted({row["nets"] for row in rows})
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
        panels[0].set_ylim(0, None)
        figure.suptitle(title, fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def plot_symmetry(rows: Sequence[dict[str, Any]], gamma: Sequence[float], lines: dict[str, Any], title: str) -> Figure:
    """Draw spreads of embeddings and decoded accuracy of reordered copies, and accuracy along lines, means over seeds."""
    colors = dict(zip([row["name"] for row in rows], (PREDICTED, "#E69F00", BY_BOTH, TARGET, "#56B4E9", BY_WEIGHTS)))
    with plt.rc_context({**STYLE, "axes.titlesize": 8}):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.2, 3.2), width_ratios=(1, 1, 1.4))
        for axes, name in zip((left, middle), ("embedding_spread", "accuracy_spread")):
            for place, row in enumerate(rows):
                axes.barh(place, mean_of(row[name]) or 0, color=colors[row["name"]], height=0.6)
                defined = [each for each in row[name] if each is not None]
                axes.plot(defined, [place] * len(defined), "k|")
            axes.set_xlabel(OF_SYMMETRY[name][0].replace(" / ", " /\n").replace(" (", "\n("), fontsize=7)
            axes.set_yticks(range(len(rows)), [""] * len(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
        left.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=6.5)
        for name, values in lines.items():
            color, style, label = LINES.get(name, (colors.get(name, "#888888"), "-", name))
            right.plot(gamma, np.mean(values, axis=0), linestyle=style, color=color, label=label, linewidth=1.3)
        right.set(xlabel="interpolation factor $\\gamma$", ylabel="test accuracy (%)", ylim=(0, None))
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=6.5)
        figure.suptitle(title, fontsize=9)
    return figure
