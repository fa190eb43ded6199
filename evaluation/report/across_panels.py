"""What the report draws of compare_systems.py: cells and ablations by a measure, numbers of nets, reordered copies, lines."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import plotly.graph_objects as go

from evaluation.across_tables import COLUMNS, OF_SIZES, OF_SYMMETRY, explanation, title_of
from evaluation.numbers import mean_of
from evaluation.plots import PREDICTED, TARGET
from evaluation.report.charts import NEUTRAL, Chart, Group, chart_figure, curve, plain
from evaluation.report.stitch_panels import style_of

MOST_ROWS = 100
STYLES = {"prep": (PREDICTED, "diamond"), "tokens": (TARGET, "circle")}
LINES = {"weights": "averaged weights", "weights_rebasin": "averaged weights after re-basin"}
CELLS_NOTE = "Cells of the table, then ablations: means over seeds with intervals of 95 % (Student's t). Hollow markers are aligned nets."
SIZES_NOTE = (
    "NetSpace by behaviour and wide tokens by both, measured on the same test nets; means over seeds with intervals."
)
SYMMETRY_NOTE = (
    "Test nets and copies of them whose hidden channels are in another order, which compute the same. Right: accuracy along lines "
    "from weak to strong test nets, means over pairs and seeds."
)


def across_groups(made: dict[str, dict[str, Any]]) -> list[Group]:
    """Return the charts of compare_systems.json, if it is in `made`. It is as evaluation.results checks it."""
    results = made.get("compare_systems.json")
    if not results:
        return []
    rows = list(islice([*results["cells"], *results["ablations"]], MOST_ROWS))
    groups = [
        Group("Two encoders, three objectives", " ".join([CELLS_NOTE, *explanation(results)]), cell_charts(rows)),
        Group("How many nets are needed", SIZES_NOTE, size_charts(results["sizes"])),
        Group(
            "Orders of channels",
            SYMMETRY_NOTE,
            [*copy_charts(results["symmetry"]), *line_charts(results["gamma"], results["lines"])],
        ),
    ]
    return [group for group in groups if group.charts]


def with_interval(row: dict[str, Any], name: str) -> tuple[float | None, float]:
    """Return the mean over seeds, and half of its interval."""
    ends = row["interval"].get(name)
    return mean_of(row[name]), (ends[1] - ends[0]) / 2 if ends else 0.0


def cell_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Draw cells and ablations as rows, one measure at a time; the reader chooses which."""
    named = {title: name for name, (title, _) in COLUMNS.items() if rows and all(name in row for row in rows)}
    choices = {title: cells_figure(rows, name, title) for title, name in named.items()}
    label = "A measure of every cell and ablation, with intervals over seeds"
    return [Chart.of_choices(choices, label, asks="measure")] if choices else []


def cells_figure(rows: Sequence[dict[str, Any]], name: str, title: str) -> go.Figure:
    """Draw one measure: a marker for each cell, the first on top."""
    traces = []
    for encoder, (color, symbol) in STYLES.items():
        mine = [row for row in rows if row["encoder"] == encoder]
        values, halves = zip(*(with_interval(row, name) for row in mine)) if mine else ((), ())
        symbols = [f"{symbol}-open" if row["aligned"] else symbol for row in mine]
        trace = go.Scatter(name=encoder, x=values, y=[plain(title_of(row)) for row in mine], mode="markers")
        trace.update(marker=dict(color=color, symbol=symbols, size=9, line=dict(color=color, width=1.5)))
        trace.update(error_x=dict(type="data", array=halves, thickness=1.4, width=3, color=color))
        texts = [f"{row['name']}, {len(row['seeds'])} seeds" for row in mine]
        traces.append(trace.update(text=texts, hovertemplate="%{text}<br>%{x:.3f}<extra></extra>"))
    figure = chart_figure(traces, title, "", height=130 + 22 * len(rows)).update_xaxes(showgrid=True)
    order = list(dict.fromkeys(plain(title_of(row)) for row in rows))
    return figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=order, range=[len(order) - 0.5, -0.5], showgrid=False
    )


def size_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Draw measures over the number of training nets, a curve for each system; the reader chooses the measure."""
    choices = {}
    for name in OF_SIZES if rows else ():
        traces = []
        for encoder, (color, symbol) in STYLES.items():
            mine = sorted(
                (row for row in rows if row["encoder"] == encoder and name in row), key=lambda row: row["nets"]
            )
            found = [with_interval(row, name) for row in mine]
            marker = dict(color=color, symbol=symbol, size=8)
            line = dict(color=color, width=1.6)
            trace = curve(
                encoder, [row["nets"] for row in mine], [mean for mean, _ in found], "training nets", line=line
            )
            error = dict(type="data", array=[half for _, half in found], thickness=1.2, width=3, color=color)
            traces.append(trace.update(mode="lines+markers", marker=marker, error_y=error))
        title = COLUMNS[name][0]
        sizes = sorted({row["nets"] for row in rows})
        figure = chart_figure(traces, "training nets", title, height=400)
        choices[title] = figure.update_xaxes(type="log", tickvals=sizes, ticktext=list(map(str, sizes)))
    label = "A measure of unseen nets over the number of training nets, by encoder"
    return [Chart.of_choices(choices, label, asks="measure")] if choices else []


def copy_charts(rows: Sequence[dict[str, Any]]) -> list[Chart]:
    """Draw what reordered copies of test nets show, a bar for each cell; the reader chooses the measure."""
    rows, choices = list(islice(rows, MOST_ROWS)), {}
    for name, (title, _) in OF_SYMMETRY.items() if rows else ():
        values, halves = zip(*(with_interval(row, name) for row in rows))
        colors = [STYLES.get(row["encoder"], (NEUTRAL, ""))[0] for row in rows]
        error = dict(type="data", array=halves, thickness=1.2, width=3, color=NEUTRAL)
        bar = go.Bar(x=values, y=[plain(row["name"]) for row in rows], orientation="h", error_x=error)
        bar.update(marker=dict(color=colors), hovertemplate="%{y}<br>%{x:.3f}<extra></extra>", showlegend=False)
        figure = chart_figure([], title, "", height=120 + 34 * len(rows)).add_trace(bar)
        choices[title] = figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    label = "How far reordered copies of a net are apart, by cell"
    return [Chart.of_choices(choices, label, "Reordered copies", asks="measure")] if choices else []


def line_charts(gamma: Sequence[float], lines: dict[str, Any]) -> list[Chart]:
    """Draw accuracy along lines between test nets: latent ones, averaged weights, and these after re-basin."""
    if not lines:
        return []
    traces = [
        curve(LINES.get(name, name), gamma, np.mean(values, axis=0).tolist(), "gamma", **style_of(place))
        for place, (name, values) in enumerate(islice(lines.items(), MOST_ROWS))
    ]
    figure = chart_figure(traces, "interpolation factor γ", "test accuracy (%)", height=430)
    return [Chart(figure.update_yaxes(rangemode="tozero"), "Test accuracy along lines between nets", "Along lines")]
