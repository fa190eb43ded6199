"""What the report draws of SANE's results: how well properties are predicted, and sampled nets, fine-tuned."""

from itertools import islice
from typing import Any

import plotly.graph_objects as go

from evaluation.numbers import spaced
from evaluation.plots import LEARNED, PREDICTED, REPRESENTATIONS, TARGET
from evaluation.report.charts import NEUTRAL, Chart, Group, chart_figure, curve, plain

MOST_CHOICES, MOST_ROWS = 50, 60  # of figures to choose from; of representations, methods and epochs in one
LOWEST = -1.0  # R^2 below it is an arrow
SYMBOLS = {"o": "circle", "s": "square", "D": "diamond"}  # plotly's names of matplotlib's markers
METHOD_COLORS = (NEUTRAL, "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")  # Okabe and Ito's
METHOD_SYMBOLS = {"kde": "circle", "sub": "diamond", "boot": "triangle-up"}  # others are baselines
NOVELTY = {
    "distance": "distance to the nearest training net (relative)",
    "error_overlap": "largest overlap of errors with a training net (IoU)",
}
PROPERTIES_NOTE = (
    "R² of test instances, whose nets no probe has seen, with intervals of 95 % over nets. The dotted line is that of the "
    "statistics s(W) of the weights. Names that end in trees are of boosted trees (hollow), the others of ridge regression."
)
FINETUNING_NOTE = (
    "Nets from different starts, trained on the same images in the same order. Right: a sample counts if it is both good and "
    "new; dotted lines are training nets with noise, and training nets beside each other."
)


def result_groups(made: dict[str, dict[str, Any]]) -> list[Group]:
    """Return the charts of those results in `made`, by file name, that have any. They are as evaluation.results checks them."""
    groups = []
    if properties := made.get("predict_properties.json"):
        groups.append(Group("Properties of unseen nets", PROPERTIES_NOTE, property_charts(properties)))
    if finetuning := made.get("sample_finetune.json"):
        charts = [finetuning_chart(finetuning), novelty_chart(finetuning)]
        groups.append(Group("Sampled nets, fine-tuned", FINETUNING_NOTE, charts))
    return [group for group in groups if group.charts]


# Properties


def property_charts(results: dict[str, Any]) -> list[Chart]:
    """Return one chart of predict_properties.json, in which the reader chooses a property, also of other zoos' nets."""
    found = {spaced(name): scores for name, scores in results["properties"].items()}
    for zoo, properties in results.get("transfer", {}).items():
        found |= {f"{zoo}: {spaced(name)}": scores for name, scores in properties.items()}
    choices = {name: property_figure(scores) for name, scores in islice(found.items(), MOST_CHOICES) if scores}
    label = "R² of a property of unseen nets, by what represents them"
    return [Chart.of_choices(choices, label, asks="property")] if choices else []


def property_figure(scores: dict[str, dict[str, Any]]) -> go.Figure:
    """Draw R² of each representation as a point with its interval, the first on top."""
    scores = dict(islice(scores.items(), MOST_ROWS))
    ends = [end for each in scores.values() for end in (each["r2"], *(each["r2_interval"] or [])) if end is not None]
    lowest = min((end for end in ends if end > LOWEST), default=0.0)
    left = lowest - 0.06 * (1 - lowest)
    traces: dict[str, go.Scatter] = {}
    for kind in dict.fromkeys(kind_of(name) for name in scores):
        color, marker, label = kind
        names = [name for name in scores if kind_of(name) == kind]
        values = [scores[name]["r2"] for name in names]
        shown = [value if value is None else max(value, left) for value in values]
        intervals = [scores[name]["r2_interval"] or (value, value) for name, value in zip(names, values)]
        ends = [
            (0, 0) if x is None else (max(x - low, 0), max(high - x, 0)) for x, (low, high) in zip(shown, intervals)
        ]
        ends = [(min(minus, x - left) if x is not None else 0, plus) for x, (minus, plus) in zip(shown, ends)]
        symbols = [symbol_of(name, SYMBOLS[marker], value, left) for name, value in zip(names, values)]
        minus, plus = zip(*ends)
        traces[label] = go.Scatter(
            name=label,
            x=shown,
            y=[plain(spaced(name)) for name in names],
            error_x=dict(
                type="data", symmetric=False, array=plus, arrayminus=minus, thickness=1.5, width=4, color=color
            ),
            mode="markers",
            marker=dict(color=color, symbol=symbols, size=9, line=dict(color=color, width=1.5)),
            text=[score_text(name, scores[name]) for name in names],
            hovertemplate="%{text}<extra></extra>",
        )
    layout: dict[str, Any] = {"height": 120 + 25 * len(scores)}
    first = next(iter(scores.values()))["r2"]
    if first is not None and first > left:
        line = dict(color=NEUTRAL, dash="dot", width=1.5)
        layout["shapes"] = [dict(type="line", x0=first, x1=first, y0=0, y1=1, yref="paper", layer="below", line=line)]
    figure = chart_figure(
        list(traces.values()), f"R² (n = {next(iter(scores.values()))['n']} test instances)", "", **layout
    )
    figure.update_xaxes(range=[left - 0.02 * (1 - left), 1 + 0.02 * (1 - left)], showgrid=True)
    order = [plain(spaced(name)) for name in scores]
    return figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=order, range=[len(order) - 0.5, -0.5], showgrid=False
    )


def kind_of(representation: str) -> tuple[str, str, str]:
    """Return colour, marker and name of what a representation is made of."""
    color, marker, label = REPRESENTATIONS.get(representation.removesuffix("_trees"), LEARNED)
    return (NEUTRAL if color not in (TARGET, PREDICTED) else color), marker, label


def symbol_of(name: str, symbol: str, value: float | None, left: float) -> str:
    """Return the symbol of a point: hollow for trees, an arrow where it lies left of the axis."""
    symbol = "triangle-left" if value is not None and value < left else symbol
    return f"{symbol}-open" if name.endswith("_trees") else symbol


def score_text(name: str, score: dict[str, Any]) -> str:
    """Return a score as the label of its point."""
    r2, tau = ("not defined" if score[each] is None else f"{score[each]:.3f}" for each in ("r2", "kendall_tau"))
    interval = " [{:.3f}, {:.3f}]".format(*score["r2_interval"]) if score["r2_interval"] else ""
    return f"{plain(spaced(name))}<br>R² {r2}{interval}<br>Kendall's τ {tau} · n = {score['n']}"


# Fine-tuning


def method_style(name: str, place: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return marker and line of the method at a place in the results; baselines are dashed, the second round hollow."""
    color, head = METHOD_COLORS[place % len(METHOD_COLORS)], name.split("_")[0]
    symbol = METHOD_SYMBOLS.get(head, "square") + ("-open" if place // len(METHOD_COLORS) % 2 else "")
    line = dict(color=color, dash="solid" if head in METHOD_SYMBOLS else "dash", width=1.6)
    return dict(color=color, symbol=symbol, size=8, line=dict(color=color, width=1.6)), line


def finetuning_chart(results: dict[str, Any]) -> Chart:
    """Draw accuracy over epochs, a line for each method of sample_finetune.json. Epochs are at equal distances."""
    methods = dict(islice(results["methods"].items(), MOST_ROWS))
    traces = []
    for place, (name, found) in enumerate(methods.items()):
        marker, line = method_style(name, place)
        epochs = [str(epoch) for epoch in found["epochs"][:MOST_ROWS]]
        trace = curve(name, epochs, found["accuracy_mean"][:MOST_ROWS], mode="lines+markers", marker=marker, line=line)
        hover = "%{fullData.name}<br>epoch %{x}: %{y:.1f} ± %{customdata:.1f} %<extra></extra>"
        traces.append(trace.update(customdata=found["accuracy_std"][:MOST_ROWS], hovertemplate=hover))
    order = sorted({epoch for found in methods.values() for epoch in found["epochs"][:MOST_ROWS]})
    figure = chart_figure(traces, "epochs of fine-tuning", "test accuracy (%)", height=470)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[str(epoch) for epoch in order])
    figure.update_yaxes(rangemode="tozero")
    return Chart(figure, "Test accuracy over epochs of fine-tuning, by method", "Accuracy over epochs")


def novelty_chart(results: dict[str, Any]) -> Chart:
    """Draw novelty beside accuracy at the first epoch, a point for each method; the reader chooses how novelty is measured."""
    methods = dict(islice(results["methods"].items(), MOST_ROWS))
    first = min((found["epochs"][0] for found in methods.values()), default=0)
    choices = {}
    for measure, title in NOVELTY.items():
        traces = []
        for place, (name, found) in enumerate(methods.items()):
            marker, _ = method_style(name, place)
            hover = f"%{{fullData.name}}<br>{spaced(measure)} %{{x:.3f}}<br>%{{y:.1f}} %<extra></extra>"
            x, y = [found["novelty"][measure]], [found["accuracy_mean"][0]]
            traces.append(
                go.Scatter(
                    name=plain(name), x=x, y=y, mode="markers", marker=marker | {"size": 11}, hovertemplate=hover
                )
            )
        shapes, texts = [], []
        for name, novelty in islice(results["novelty"].items(), MOST_ROWS):
            x = novelty[measure]
            line = dict(color=NEUTRAL, dash="dot", width=1.2)
            shapes.append(dict(type="line", x0=x, x1=x, y0=0, y1=1, yref="paper", layer="below", line=line))
            font = dict(color=NEUTRAL, size=11)
            place = dict(x=x, y=0, yref="paper", xanchor="left", yanchor="bottom", textangle=-90, showarrow=False)
            texts.append(dict(place, text=plain(spaced(name)), font=font))
        layout = dict(shapes=shapes, annotations=texts, height=470)
        figure = chart_figure(traces, title, f"test accuracy at epoch {first} (%)", **layout)
        most = max([0.0, *(each["novelty"][measure] for each in methods.values()), *(shape["x1"] for shape in shapes)])
        figure.update_xaxes(
            range=[-0.04 * (most or 1), 1.08 * (most or 1)]
        )  # markers at 0 and names of lines are whole
        choices[spaced(measure)] = figure.update_yaxes(rangemode="tozero")
    label = "Novelty beside test accuracy before fine-tuning, by method"
    return Chart.of_choices(choices, label, "Novelty beside accuracy", asks="novelty")
