"""The paper's figures, as PDF and PNG.

Colours are Okabe and Ito's, safe for colour-blind readers. Those of several architectures are the paper's."""

import math
from pathlib import Path

import matplotlib
import numpy as np

from data.files import written_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first)
from matplotlib.figure import Figure  # noqa: E402

TARGET, PREDICTED, WEIGHTS, BY_WEIGHTS, BY_BOTH = "#0072B2", "#D55E00", "#666666", "#009E73", "#CC79A7"
OKABE_ITO = ("#000000", "#666666", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
}
CLASS_COLORS = ("red", "blue", "green", "fuchsia", "orange", "saddlebrown")  # the paper's four by ClassId, and two more
WIDE = (4.5, 3.1)
SIZE = (3.5, 2.8)  # inches: one column of a two-column paper


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write `path` with .pdf and with .png, and return both."""
    paths = [path.with_suffix(suffix) for suffix in (".pdf", ".png")]
    for each in paths:
        with written_whole(each) as partial:
            figure.savefig(partial, dpi=200)
    plt.close(figure)
    return paths


def plot_targets_and_predicted(target: np.ndarray, predicted: np.ndarray, chance: float, title: str) -> Figure:
    """Draw Fig. 3a/3c: accuracies (percent) of target and predicted instances, sorted by the target's."""
    order = np.argsort(target)
    position = np.arange(1, len(target) + 1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE)
        axes.vlines(position, target[order], predicted[order], color="#BBBBBB", linewidth=1.2, zorder=1)
        axes.plot(position, target[order], "o", color=TARGET, markersize=5, label="target")
        axes.plot(position, predicted[order], "D", color=PREDICTED, markersize=4.5, label="predicted")
        draw_chance(axes, chance)
        axes.set(
            xlabel="test instances, sorted by target accuracy", ylabel="test accuracy (%)", title=title, ylim=(0, None)
        )
        axes.set_xticks(position[:: max(1, math.ceil(len(position) / 16))])
        axes.grid(axis="x", visible=False)
        axes.tick_params(axis="x", labelsize=7)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_interpolation(gamma: np.ndarray, latent: np.ndarray, weights: np.ndarray, chance: float, title: str) -> Figure:
    """Draw Fig. 3b/3d: accuracies (percent) along the line from the weakest to the strongest test instance."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE)
        axes.plot(gamma, latent, "-D", color=PREDICTED, markersize=4, label="latent")
        axes.plot(gamma, weights, "--o", color=WEIGHTS, markersize=4, label="weight")
        draw_chance(axes, chance)
        axes.set(
            xlabel="interpolation factor $\\gamma$",
            ylabel="test accuracy (%)",
            title=title,
            xlim=(-0.03, 1.03),
            ylim=(0, None),
        )
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_objectives(
    target: np.ndarray,
    gamma: np.ndarray,
    averaged: np.ndarray,
    predicted: dict[str, dict[str, np.ndarray]],
    mean_error: float,
    chance: float,
    title: str,
) -> Figure:
    """Draw NetSpaces of several objectives: their test instances, the line, and the error of accuracy against that of weights.

    `target` are the targets' accuracies (percent), `averaged` those of averaged weights at `gamma`. `predicted` has, by name,
    "predicted_accuracy", "weight_error" and "line_accuracy": that trained by behaviour, the best and the last trained by
    weights, and that trained by both, if there is one. `mean_error` is the weight error of the mean training instance.
    """
    order = np.argsort(target)
    position = np.arange(1, len(target) + 1)
    styles = (
        dict(color=PREDICTED, marker="D", markersize=4),
        dict(color=BY_WEIGHTS, marker="^", markersize=5, markerfacecolor="none"),
        dict(color=BY_WEIGHTS, marker="v", markersize=4.5),
        dict(color=BY_BOTH, marker="x", markersize=4.5),
    )
    with plt.rc_context({**STYLE, "axes.titlesize": 9}):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.9))
        left.plot(position, target[order], "o", color=TARGET, markersize=4.5, label="target")
        for (name, found), style in zip(predicted.items(), styles):
            left.plot(position, found["predicted_accuracy"][order], linestyle="", label=name, **style)
            middle.plot(gamma, found["line_accuracy"], **style)
            error = np.abs(target - found["predicted_accuracy"])
            right.plot(found["weight_error"], error, linestyle="", **style)
        middle.plot(gamma, averaged, "--s", color=WEIGHTS, markersize=3)
        left.plot([], [], "--s", color=WEIGHTS, markersize=3, label="averaged weights")
        for axes in (left, middle):
            axes.set(ylabel="test accuracy (%)", ylim=(0, 1.1 * target.max()))
            axes.axhline(chance, color="black", linewidth=0.8, linestyle=":")
        right.axvline(mean_error, color="black", linewidth=0.8, linestyle="-.")
        for name, linestyle in (("chance", ":"), ("mean instance", "-.")):
            left.plot([], [], color="black", linewidth=0.8, linestyle=linestyle, label=name)
        left.set(xlabel="test instances, sorted", title="predicted instances")
        left.set_xticks(position[:: max(1, math.ceil(len(position) / 4))])
        left.grid(axis="x", visible=False)
        middle.set(xlabel="interpolation factor $\\gamma$", xlim=(-0.04, 1.04), title="from weakest to strongest")
        right.set(xlabel="weight error$^2$ / variance", ylabel="accuracy error (points)", title="each instance")
        right.set(xlim=(0, None), ylim=(0, None))
        figure.suptitle(title, fontsize=9)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


REPRESENTATIONS = {  # what a representation is made of: colour, marker, and how it is called
    "weight_statistics": (TARGET, "o", "weights"),
    "weights": (TARGET, "o", "weights"),
    "pca": (TARGET, "o", "weights"),
    "logit_statistics": (WEIGHTS, "s", "outputs on images"),
    "logits": (WEIGHTS, "s", "outputs on images"),
}
LEARNED = (PREDICTED, "D", "learned embedding")  # all others


def plot_properties(properties: dict[str, dict[str, dict]], title: str) -> Figure:
    """Draw R^2 with its interval for each representation, a panel for each of three properties.

    `properties` are those of predict_properties.json. What lies left of an axis is an arrow at its end, with the number.
    """
    panels = [name for name in ("test_accuracy", "generalization_gap", "log_steps") if properties.get(name)]
    names = list(next(iter(properties.values()), {}))
    with plt.rc_context({**STYLE, "axes.titlesize": 9}):
        figure, drawn = plt.subplots(
            1, max(1, len(panels)), figsize=(7.2, 1.3 + 0.2 * len(names)), sharey=True, squeeze=False
        )
        for axes, name in zip(drawn[0], panels):
            scores = [properties[name][each] for each in names]
            ends = [end for score in scores for end in (score["r2"], *(score["r2_interval"] or [])) if end is not None]
            lowest = min((end for end in ends if end > -1), default=0.0)
            left = lowest - 0.06 * (1 - lowest)
            for place, (each, score) in enumerate(zip(names, scores)):
                color, marker, _ = REPRESENTATIONS.get(each.removesuffix("_trees"), LEARNED)
                value, (low, high) = score["r2"], score["r2_interval"] or (left, left)
                if value is None:
                    axes.text(left, place, " not defined", va="center", fontsize=7, color=color)
                elif value < left:
                    axes.plot(left, place, "<", color=color, markersize=5, clip_on=False)
                    axes.text(left, place, f"   {value:.1f}", va="center", fontsize=7, color=color)
                else:
                    axes.plot([max(low, left), max(high, left)], [place, place], "-|", color=color, markersize=5)
                    axes.plot(value, place, marker, color=color, markersize=4.5)
            axes.set(xlim=(left, 1 + 0.06 * (1 - lowest)), xlabel="$R^2$", title=name.replace("_", " "))
        drawn[0][0].set_yticks(range(len(names)), [each.replace("_", " ") for each in names])
        drawn[0][0].set_ylim(len(names) - 0.5, -0.5)
        for color, marker, label in dict.fromkeys([*REPRESENTATIONS.values(), LEARNED]):
            drawn[0][0].plot([], [], marker, color=color, markersize=5, label=label)
        figure.suptitle(title, fontsize=9)
        figure.legend(*drawn[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_chance(axes: plt.Axes, chance: float) -> None:
    """Draw the accuracy of guessing (percent)."""
    axes.axhline(chance, color="black", linewidth=0.8, linestyle=":", label="chance")


def near_square(num_elements: int) -> tuple[int, int]:
    """Return the factors of `num_elements` nearest to each other, (rows, columns), rows <= columns."""
    rows = next(rows for rows in range(math.isqrt(num_elements), 0, -1) if num_elements % rows == 0)
    return rows, num_elements // rows


def plot_preps(target: np.ndarray, predicted: np.ndarray, title: str) -> Figure:
    """Draw S Fig. 5 and 6: a target and its predicted PRep (H, W), each reshaped to near-square, on one colour range.

    The range runs from the 1st to the 99th percentile of what this figure shows.
    """
    low, high = np.percentile(np.concatenate([target.ravel(), predicted.ravel()]), (1, 99))
    shape = near_square(target.size)
    with plt.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, panels = plt.subplots(1, 2, figsize=(7.0, 3.1))
        for axes, prep, name in zip(panels, (target, predicted), ("target", "predicted")):
            image = axes.imshow(
                prep.reshape(shape), cmap="viridis", vmin=low, vmax=high, interpolation="nearest", aspect="auto"
            )
            axes.set(title=f"{name} PRep", xticks=[], yticks=[], box_aspect=shape[0] / shape[1])
        figure.colorbar(image, ax=panels, extend="both", label="parameter value", shrink=0.85)
        figure.suptitle(title, fontsize=9)
    return figure


def color_of(class_id: int) -> str:
    """Return the colour of an architecture."""
    return CLASS_COLORS[class_id % len(CLASS_COLORS)]


def plot_several_architectures(
    class_ids: np.ndarray,
    predicted_class_ids: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray,
    names: list[str],
    chance: float,
    title: str,
) -> Figure:
    """Draw Fig. 5 left: accuracies (percent) of target and predicted instances, sorted by ClassId, in the architecture's colour.

    A predicted instance has the colour of its predicted ClassId, and a cross where that is wrong.
    """
    order = np.lexsort((target, class_ids))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=WIDE)
        position = np.arange(1, len(target) + 1)
        axes.vlines(position, target[order], predicted[order], color="#BBBBBB", linewidth=1.0, zorder=1)
        for class_id in sorted({*class_ids.tolist(), *predicted_class_ids.tolist()}):
            name, color = names[class_id], color_of(class_id)
            mine, built = class_ids[order] == class_id, predicted_class_ids[order] == class_id
            axes.plot(position[mine], target[order][mine], "o", color=color, mfc="none", markersize=5)
            axes.plot(position[built], predicted[order][built], "D", color=color, markersize=4)
            axes.plot([], [], "s", color=color, label=name)
        axes.plot([], [], "o", color="black", mfc="none", markersize=5, label="target")
        axes.plot([], [], "D", color="black", markersize=4, label="predicted")
        wrong = (class_ids != predicted_class_ids)[order]
        if wrong.any():
            axes.plot(position[wrong], predicted[order][wrong], "kx", markersize=8, label="wrong ClassId")
        draw_chance(axes, chance)
        axes.set(xlabel="test instances, sorted by ClassId", ylabel="test accuracy (%)", title=title, ylim=(0, None))
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
    return figure


def plot_line_of_architectures(
    gamma: np.ndarray,
    class_ids: np.ndarray,
    accuracies: np.ndarray,
    star_gamma: np.ndarray,
    star_class_ids: np.ndarray,
    star_accuracies: np.ndarray,
    names: list[str],
    chance: float,
    title: str,
) -> Figure:
    """Draw Fig. 5 centre and right: accuracy (percent) along a line of embeddings, in the predicted architecture's colour.

    Circles are the ends, stars the gammas of the interpolation loss.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=WIDE)
        axes.plot(gamma, accuracies, color="#CCCCCC", linewidth=1.0, zorder=1)
        for class_id in sorted(set(class_ids.tolist())):
            mine = class_ids == class_id
            axes.plot(gamma[mine], accuracies[mine], ".", color=color_of(class_id), markersize=4, label=names[class_id])
        ends = [0, -1]
        for marker, size, label, x, ids, y in (
            ("o", 60, "test instances", gamma[ends], class_ids[ends], accuracies[ends]),
            ("*", 120, "$\\gamma$ of the loss", star_gamma, star_class_ids, star_accuracies),
        ):
            colors = [color_of(class_id) for class_id in ids]
            axes.scatter(x, y, size, colors, marker=marker, edgecolors="black", linewidths=0.7, zorder=3)
            axes.plot([], [], marker, color="white", mec="black", mew=0.7, markersize=size**0.5, label=label)
        draw_chance(axes, chance)
        axes.set(
            xlabel="interpolation factor $\\gamma$",
            ylabel="test accuracy (%)",
            title=title,
            xlim=(-0.03, 1.03),
            ylim=(0, None),
        )
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
    return figure


def plot_search(curves: dict[str, tuple[np.ndarray, np.ndarray]], colors: list[str], title: str) -> Figure:
    """Draw latent space optimization: validation accuracy (percent) over steps, one curve (steps, accuracies) a name."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE)
        for (name, (steps, accuracies)), color in zip(curves.items(), colors):
            axes.plot(steps, accuracies, color=color, linewidth=1.4, label=name)
        axes.set(xlabel="step of latent space optimization", ylabel="validation accuracy (%)", title=title)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_finetuning(methods: dict[str, dict[str, list[float]]], chance: float, title: str) -> Figure:
    """Draw accuracies (percent) over epochs: a line with markers for each method, "epochs" and "accuracy_mean" in each.

    Epochs are at equal distances. Baselines are dashed; of samples, the marker shows how they were selected.
    """
    markers = {"kde": "o", "sub": "D", "boot": "^"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.4, 3.6))
        for i, (name, found) in enumerate(methods.items()):
            position, head = range(len(found["epochs"])), name.split("_")[0]
            style = (
                {"linestyle": "-", "marker": markers[head]} if head in markers else {"linestyle": "--", "marker": "s"}
            )
            color, width = OKABE_ITO[i % len(OKABE_ITO)], 1.0 if head == "kde" else 1.6
            filled = {} if i < len(OKABE_ITO) else {"markerfacecolor": "none"}
            axes.plot(
                position,
                found["accuracy_mean"],
                color=color,
                linewidth=width,
                markersize=4.5,
                label=name,
                **style,
                **filled,
            )
        draw_chance(axes, chance)
        axes.set(xlabel="epochs of fine-tuning", ylabel="test accuracy (%)", title=title, ylim=(0, None))
        axes.set_xticks(position, [str(epoch) for epoch in found["epochs"]])
        figure.legend(loc="outside right center", fontsize=7.5)
    return figure
