"""The figures of stitching: accuracy over layers with its controls, and between all layers of one size."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.plots import BY_BOTH, BY_WEIGHTS, PREDICTED, STYLE, TARGET, WEIGHTS, plt

STYLES = {  # colour, marker, line
    "task_loss": (PREDICTED, "D", "-"),
    "least_squares": (TARGET, "o", "-"),
    "orthogonal": (BY_WEIGHTS, "^", "-"),
    "far_point": (BY_BOTH, "s", "--"),
    "untrained_front": (WEIGHTS, "v", "--"),
    "untrained_end": ("#E69F00", "x", "--"),
    "untrained_front_least_squares": ("#56B4E9", "v", "--"),
    "constant": ("black", "", ":"),
}
NAMES = {
    "far_point": "task loss, far layer of the same net",
    "untrained_front": "task loss, untrained front",
    "untrained_end": "task loss, untrained end",
    "untrained_front_least_squares": "least squares, untrained front",
    "constant": "mean activations alone",
}


def plot_stitching(summary: dict[str, dict[str, list[Any]]], points: list[str], title: str) -> Figure:
    """Draw Fig. 2: accuracy relative to the end net over layers, mean over pairs with 95 % intervals; controls are dashed."""
    shown = [kind for kind in STYLES if kind in summary]
    place = np.arange(len(points), dtype=float)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(max(4.5, 1.5 + 0.3 * len(points)), 4.0))
        axes.axhline(1, color="#BBBBBB", linewidth=0.8)
        for number, kind in enumerate(shown):
            color, marker, line = STYLES[kind]
            means = np.array([np.nan if each is None else each for each in summary[kind]["relative_accuracy"]])
            ends = [each or [mean, mean] for each, mean in zip(summary[kind]["interval"], means)]
            far = np.abs(np.array(ends).T - means)
            shift = 0.04 * (number - len(shown) / 2)
            axes.errorbar(
                place + shift,
                means,
                far,
                color=color,
                marker=marker,
                linestyle=line,
                markersize=4,
                linewidth=1.2,
                elinewidth=0.8,
                label=NAMES.get(kind, kind.replace("_", " ")),
            )
        axes.set(ylabel="accuracy relative to the end net", ylim=(0, None), title=title)
        axes.set_xticks(place, points, rotation=0 if len(points) < 8 else 60)
        figure.legend(loc="outside lower center", ncols=2, fontsize=7.5)
    return figure


def plot_matrix(matrices: dict[str, np.ndarray], points: list[str], title: str) -> Figure:
    """Draw accuracy relative to the end net for each front layer (rows) and end layer (columns), a panel for each kind.

    Matrices are means over pairs, NaN where layers differ in size.
    """
    size = 1.3 + (0.34 if len(points) < 12 else 0.24) * len(points)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, panels = plt.subplots(1, len(matrices), figsize=(len(matrices) * size + 1.2, size + 0.7), squeeze=False)
        for axes, (kind, matrix) in zip(panels[0], matrices.items()):
            axes.set_facecolor("#EEEEEE")
            image = axes.imshow(np.ma.masked_invalid(matrix), cmap="viridis", vmin=0, vmax=1)
            for (i, j), value in np.ndenumerate(matrix):
                if np.isfinite(value) and len(points) < 12:
                    color = "white" if value < 0.6 else "black"
                    axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
            axes.set_xticks(range(len(points)), points, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(points)), points)
            axes.set(xlabel="end layer", title=kind.replace("_", " "))
            axes.tick_params(labelsize=7.5)
        panels[0][0].set_ylabel("front layer")
        figure.colorbar(image, ax=panels, shrink=0.8, extend="max", label="relative accuracy")
        figure.suptitle(title, fontsize=9)
    return figure
