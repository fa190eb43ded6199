"""What the report draws of a space that was trained on a zoo: a map, PReps, and of SANE the latents of layers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.colors import LinearSegmentedColormap, to_hex

from data.folders import Folders
from data.load import load_images
from data.nets import NetsDataset
from data.zoos import load_splits
from evaluation.plots import PREDICTED, TARGET
from evaluation.probes import properties_of
from evaluation.report.charts import NEUTRAL, Chart, Group, chart_figure, color_bar, curve, map_figure, pca, plain
from evaluation.report.embedded import Embedded
from evaluation.report.page import Panels
from evaluation.report.panels import embedding_map, prep_pictures, split_style
from evaluation.spaces import Space
from evaluation.zoo_spaces import LayersOverSteps, latents_of_layers, space_on_zoo, spectral_norms
from models.errors import brief
from models.token_autoencoder import TokenAutoencoder
from training.runtime import pick_device

OVER_STEPS = LinearSegmentedColormap.from_list("", (TARGET, "#9A8F99", PREDICTED))  # visible on light and dark pages
PROPERTY_TITLES = {
    "test_accuracy": "test accuracy (%)",
    "log_steps": "training steps",
    "generalization_gap": "gap, train − test accuracy (points)",
}
LAYERS_NOTE = (
    "Standard deviation of the latents of a layer's tokens, beside the spectral norm of its weights; means over validation and "
    "test nets, from the first checkpoint to the last."
)
MAP_NOTE = (
    "Two principal axes of the mean latents of every layer's tokens, of validation and test nets. Thin lines join the checkpoints "
    "of a net."
)


def zoo_panels(
    folders: Folders, dataset: str, checkpoint: Path, constants: dict[str, Any], made_by: str, num_preps: int
) -> Panels:
    """Return the map and PReps of a space that was trained on a zoo, or of SANE its map and the charts of layers.

    `constants` are those of the checkpoint, which name the zoo. Raise InputError if something is missing, with what makes it.
    """
    architecture = brief(constants.get("architecture", "resnet8"))
    folder = folders.nets(dataset, brief(constants.get("zoo", f"zoo-{architecture}")))
    splits = load_splits(folder, architecture, pick_device())
    space = space_on_zoo(checkpoint, made_by, splits, load_images(dataset, folders.data_dir))
    if isinstance(space.model, TokenAutoencoder):
        return token_panels(space, splits)
    embedded = embed_zoo(space, splits)
    return Panels(None, embedding_map(embedded, None), prep_pictures(embedded, num_preps))


def embed_zoo(space: Space, splits: dict[str, NetsDataset]) -> Embedded:
    """Embed the instances of a zoo, by split; their test accuracy is a fact of the zoo."""
    values = [value for each in splits.values() for value in each.column("test_accuracy")]
    known = all(isinstance(value, (int, float)) for value in values)
    return Embedded.of(space, splits, values if known else None)


def token_panels(space: Space, splits: dict[str, NetsDataset]) -> Panels:
    """Return the map of validation and test nets by SANE's latents, and the charts of their layers."""
    unseen = {name: splits[name] for name in ("val", "test")}
    rows = torch.cat([each.rows for each in unseen.values()])
    means, deviations = latents_of_layers(space.model, rows)
    tokens = space.model.tokens
    steps = [step for each in unseen.values() for step in each.column("step")]
    layers = LayersOverSteps.of(tokens, steps, deviations, spectral_norms(tokens, rows))
    group = Group("Latents of layers", layers_note(layers), layer_charts(layers))
    return Panels(map=zoo_map(unseen, *pca(means.flatten(1))), groups=[group])


def zoo_map(sets: dict[str, NetsDataset], coordinates: np.ndarray, fractions: np.ndarray) -> Chart:
    """Draw instances of several splits, one split after the other, at coordinates (N, 2); the reader chooses their colour.

    A line joins the checkpoints of a net. Validation instances are hollow, test ones outlined.
    """
    facts = [each for nets in sets.values() for each in nets.facts]
    splits = [split for split, nets in sets.items() for _ in range(len(nets))]
    hover = [map_text(split, each) for split, each in zip(splits, facts)]
    coordinates = coordinates.round(6)
    properties = [properties_of(nets) for nets in sets.values()]
    choices = {}
    for name, title in PROPERTY_TITLES.items():
        if not all(name in each for each in properties):
            continue
        values = np.concatenate([each[name][:, 0] for each in properties])
        traces = [paths_of_nets(facts, coordinates)]
        for split in sets:
            mine = np.array([each == split for each in splits])
            marker = dict(color=values[mine].round(4).tolist(), coloraxis="coloraxis", symbol="circle")
            x, y = coordinates[mine].T.tolist()
            text = [each for each, chosen in zip(hover, mine) if chosen]
            style = dict(mode="markers", marker=marker | split_style(split, "circle"), showlegend=False)
            traces.append(go.Scatter(name=split, x=x, y=y, text=text, hovertemplate="%{text}<extra></extra>", **style))
            entry = dict(color=NEUTRAL, symbol="circle") | split_style(split, "circle")
            traces.append(go.Scatter(name=split, x=[None], y=[None], mode="markers", hoverinfo="skip", marker=entry))
        layout = color_bar(title)
        if name == "log_steps":  # ticks at steps
            steps = sorted({each["step"] for each in facts})
            steps = [
                steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 9)).round().astype(int))
            ]
            ticks = dict(tickvals=[math.log1p(step) for step in steps], ticktext=[str(step) for step in steps])
            layout["coloraxis"]["colorbar"] |= ticks
        choices[title] = map_figure(traces, fractions, **layout)
    choices = choices or {"nothing": map_figure([paths_of_nets(facts, coordinates)], fractions)}
    label = "Map of the zoo's unseen nets on two principal axes of SANE's latents"
    return Chart.of_choices(choices, label, "Unseen nets", asks="colour", note=MAP_NOTE)


def paths_of_nets(facts: Sequence[dict[str, Any]], coordinates: np.ndarray) -> go.Scatter:
    """Return thin lines that join the checkpoints of each net, in the order of their steps."""
    of_net: dict[Any, list[int]] = {}
    for i, each in enumerate(facts):
        of_net.setdefault(each["net"], []).append(i)
    x: list[float | None] = []
    y: list[float | None] = []
    for members in of_net.values():
        at = coordinates[sorted(members, key=lambda i: facts[i]["step"])]
        x += [*at[:, 0].tolist(), None]
        y += [*at[:, 1].tolist(), None]
    style = dict(mode="lines", line=dict(color=NEUTRAL, width=0.9), opacity=0.6, showlegend=False, hoverinfo="skip")
    return go.Scatter(x=x, y=y, **style)


def map_text(split: str, facts: dict[str, Any]) -> str:
    """Return the label of an instance on the map."""
    lines = [plain(str(facts["net"])), f"{split} · step {facts['step']}"]
    known = [
        ("test accuracy {:.1f} %", facts.get("test_accuracy")),
        ("gap {:.1f} points", facts.get("generalization_gap")),
    ]
    measured = [form.format(value) for form, value in known if isinstance(value, (int, float))]
    return "<br>".join([*lines, *([" · ".join(measured)] if measured else [])])


# Layers


def layers_note(layers: LayersOverSteps) -> str:
    """Return what the charts of layers show, and how the two correlate."""
    known = [each for each in layers.correlations if each is not None]
    if not known:
        return LAYERS_NOTE
    low, middle, high = np.quantile(known, (0, 0.5, 1))
    return (
        f"{LAYERS_NOTE} Spearman's correlation of the two, over all these instances, is {middle:.2f} in the median layer, "
        f"{low:.2f} in the lowest and {high:.2f} in the highest."
    )


def layer_charts(layers: LayersOverSteps) -> list[Chart]:
    """Draw both quantities over the layers, a line for each checkpoint, from blue, the first, to orange, the last."""
    charts = []
    for title, axis, values in (
        ("Latents", "standard deviation of latents", layers.deviations),
        ("Weights", "spectral norm of weights", layers.norms),
    ):
        traces = []
        for k, step in enumerate(layers.steps):
            color = to_hex(OVER_STEPS(k / max(len(layers.steps) - 1, 1)))
            style = dict(mode="lines+markers", line=dict(color=color, width=1.6), marker=dict(color=color, size=6))
            positive = [value if value > 0 else None for value in values[k].tolist()]
            names = [plain(name) for name in layers.names]
            traces.append(curve(f"step {step}", names, positive, "layer", **style))
        figure = chart_figure(traces, "layer", axis, height=400)
        figure.update_yaxes(type="log", dtick="D2", tickformat="~g").update_xaxes(type="category")
        charts.append(Chart(figure, f"{axis.capitalize()}, by layer and checkpoint", title))
    return charts
