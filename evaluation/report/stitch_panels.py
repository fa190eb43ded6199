"""What the report draws of stitching: stitched accuracy over points, similarity of pairs of points, and kinds of pairs inside."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import plotly.graph_objects as go

from evaluation.comparison import ALL_MEASURES, MATCHINGS
from evaluation.numbers import spaced
from evaluation.report.charts import NEUTRAL, Chart, Group, chart_figure, curve, plain

MOST_ROWS = 60  # of kinds and measures
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", NEUTRAL)  # Okabe and Ito's
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "triangle-down")
DASHES = ("solid", "dash", "dot")
GROUPS = {"mean": "pairs of nets", "reordered_copy": "reordered copy", "untrained_front": "untrained front"}
INSIDE = {
    "cka_unbiased": "CKA, unbiased",
    "procrustes": "Procrustes distance",
    "least_squares": "accuracy stitched by least squares, relative to the end's",
    "same_channel": "correlation of the same channels",
}
STITCHED_NOTE = (
    "Accuracy of the front of one net, a transform, and the end of another, relative to the end net: means over pairs with intervals of "
    "95 %. What is above an untrained front is what the front has learned."
)
COMPARED_NOTE = (
    "Means over pairs of nets on validation images; darker is less alike. CKA compares images. The others compare pixels if both points "
    "have equally many, else spatial means, which correlate more: only points of one size can be compared by them. The last chart says "
    "how well each measure ranks stitched nets; distances should be below 0."
)
INSIDE_NOTE = (
    "Pairs of nets of each kind at every point: means over pairs with intervals of 95 %. Kinds of controls say what to expect of nets "
    "trained apart, and of copies."
)


def stitching_groups(made: dict[str, dict[str, Any]]) -> list[Group]:
    """Return the charts of those results in `made`, by file name, that have any. They are as evaluation.results checks them."""
    groups = []
    if stitched := made.get("stitch_nets.json"):
        groups.append(Group("Stitched nets", STITCHED_NOTE, [stitched_chart(stitched)]))
    if compared := made.get("compare_nets.json"):
        charts = [*matrix_charts(compared), *point_charts(compared), *rank_charts(compared)]
        groups.append(Group("Similarity of stitch points", COMPARED_NOTE, charts))
    if inside := made.get("inside_similarity.json"):
        groups.append(Group("Behave alike, alike inside?", INSIDE_NOTE, inside_charts(inside)))
    return [group for group in groups if group.charts]


def style_of(place: int) -> dict[str, Any]:
    """Return colour, symbol and dash of the curve at a place; no two of the first 42 are alike."""
    color, symbol = COLORS[place % len(COLORS)], SYMBOLS[place % len(SYMBOLS)]
    line = dict(color=color, dash=DASHES[place // len(COLORS) % len(DASHES)], width=1.6)
    return dict(mode="lines+markers", marker=dict(color=color, symbol=symbol, size=8), line=line)


def with_intervals(
    name: str, points: Sequence[str], means: Sequence[float | None], intervals: Sequence[Any], n: Any, place: int
) -> go.Scatter:
    """Return a curve over points with its intervals, where there are any."""
    trace = curve(name, list(map(plain, points)), means, "at", **style_of(place))
    ends = [(mean or 0, mean or 0) if pair is None else pair for mean, pair in zip(means, intervals)]
    above = [max(high - (mean or 0), 0) for mean, (_, high) in zip(means, ends)]
    below = [max((mean or 0) - low, 0) for mean, (low, _) in zip(means, ends)]
    color = trace.line.color
    error = dict(type="data", symmetric=False, array=above, arrayminus=below, thickness=1.2, width=3, color=color)
    numbers = n if isinstance(n, list) else [n] * len(points)
    hover = "%{fullData.name}<br>%{x}: %{y:.3f}, n = %{customdata}<extra></extra>"
    return trace.update(error_y=error, customdata=numbers, hovertemplate=hover)


def over_points(traces: Sequence[go.Scatter], points: Sequence[str], y: str, height: int = 430) -> go.Figure:
    """Return a figure of curves over points, in the net's order."""
    order = list(map(plain, points))
    return chart_figure(traces, "point", y, height=height).update_xaxes(
        type="category", categoryorder="array", categoryarray=order
    )


def stitched_chart(results: dict[str, Any]) -> Chart:
    """Draw the summary of stitch_nets.json: relative accuracy over points, a curve for each kind."""
    points, traces = results["points"], []
    for place, (kind, found) in enumerate(islice(results["summary"].items(), MOST_ROWS)):
        means = found["relative_accuracy"], found["interval"], found["n"]
        traces.append(with_intervals(spaced(kind), points, *means, place))
    figure = over_points(traces, points, "accuracy relative to the end net").update_yaxes(rangemode="tozero")
    return Chart(figure, "Accuracy of stitched nets over points, by how they are stitched", "Stitched accuracy")


def measures_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the measures of compare_nets.json under their titles."""
    named = {name: ALL_MEASURES[name].title if name in ALL_MEASURES else spaced(name) for name in results["measures"]}
    return {named[name]: found for name, found in islice(results["measures"].items(), MOST_ROWS)}


def matrix_charts(results: dict[str, Any]) -> list[Chart]:
    """Draw the mean of a measure of compare_nets.json for all pairs of points; the reader chooses the measure."""
    points, choices = list(map(plain, results["points"])), {}
    distances = {each.title for each in ALL_MEASURES.values() if not each.larger_is_alike}
    for title, found in measures_of(results).items():
        heat = go.Heatmap(
            z=found["mean"],
            x=points,
            y=points,
            colorscale="Viridis",
            reversescale=title in distances,
            colorbar=dict(thickness=10, outlinewidth=0),
            texttemplate="%{z:.2f}" if len(points) < 12 else None,
            hovertemplate="front at %{y}, end at %{x}: %{z:.3f}<extra></extra>",
        )
        figure = chart_figure([], "point of the end", "point of the front", height=430).add_trace(heat)
        figure.update_xaxes(type="category")
        choices[title] = figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    label = "A measure of similarity at all pairs of points of two nets"
    return [Chart.of_choices(choices, label, "Pairs of points", asks="measure")] if choices else []


def point_charts(results: dict[str, Any]) -> list[Chart]:
    """Draw a measure of compare_nets.json at corresponding points, beside its controls; the reader chooses the measure."""
    points, choices = results["points"], {}
    for title, found in measures_of(results).items():
        traces = []
        for place, (group, name) in enumerate(GROUPS.items()):
            diagonal = [row[i] for i, row in enumerate(found[group])]
            traces.append(curve(name, list(map(plain, points)), diagonal, "at", **style_of(place)))
        choices[title] = over_points(traces, points, title)
    label = "A measure of similarity at the same point of two nets, of reordered copies and of untrained fronts"
    return [Chart.of_choices(choices, label, "The same point", asks="measure")] if choices else []


def rank_charts(results: dict[str, Any]) -> list[Chart]:
    """Draw the rank correlation of every measure of compare_nets.json with the accuracy of stitched nets, if it is known."""
    ranks = dict(islice(results["rank_correlation"].items(), MOST_ROWS))
    if not ranks:
        return []
    named = {name: plain(ALL_MEASURES[name].title if name in ALL_MEASURES else spaced(name)) for name in ranks}
    traces = []
    for place, matching in enumerate(MATCHINGS):
        mine = {named[name]: each[matching] for name, each in ranks.items() if matching in each}
        style, n = style_of(place), [found["n"] for found in mine.values()]
        hover = "%{y}<br>%{fullData.name}: %{x:.3f}, n = %{customdata}<extra></extra>"
        values = [found["rho"] for found in mine.values()]
        trace = go.Scatter(name=spaced(matching), x=values, y=list(mine), customdata=n, hovertemplate=hover)
        traces.append(trace.update(mode="markers", marker=style["marker"]))
    height = 120 + 25 * len(named)
    figure = chart_figure(traces, "rank correlation", "", height=height)
    figure.update_xaxes(range=[-1.05, 1.05], showgrid=True)
    order = list(named.values())
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=order, range=[len(order) - 0.5, -0.5])
    return [Chart(figure, "How well each measure ranks stitched nets", "Measures and stitches")]


def inside_charts(results: dict[str, Any]) -> list[Chart]:
    """Draw every kind of pairs of inside_similarity.json over points; the reader chooses the measure."""
    points, kinds = results["points"], dict(islice(results["kinds"].items(), MOST_ROWS))
    choices = {}
    for name, title in INSIDE.items() if kinds else ():
        traces = []
        for place, (kind, found) in enumerate(kinds.items()):
            called = f"{spaced(kind)} ({found['agreement']['mean']:.0f} % agree)"
            at_points = found[name]["mean"], found[name]["interval"]
            traces.append(with_intervals(called, points, *at_points, found["n"], place))
        choices[title] = over_points(traces, points, title, height=560)
    label = "Similarity inside pairs of nets over points, by the kind of pair"
    return [Chart.of_choices(choices, label, asks="measure")] if choices else []
