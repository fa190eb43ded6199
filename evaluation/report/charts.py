"""What all panels of the report are drawn with: charts, colours, and the principal axes of maps."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from torch import Tensor

# Okabe and Ito's colours, each with a symbol: the paper's red and green are alike to many readers.
ARCHITECTURE_STYLES = (
    ("#E69F00", "circle"),
    ("#56B4E9", "square"),
    ("#009E73", "triangle-up"),
    ("#CC79A7", "diamond"),
    ("#D55E00", "circle"),
    ("#0072B2", "square"),
)
NEUTRAL = "#888888"  # visible on the light and on the dark page


@dataclass(frozen=True)
class Chart:
    """A figure of plotly, with a text for those who do not see it.

    `moves` has, for every gamma of the slider, what changes in the figure's layout; it is empty if nothing does. `choices` are
    figures by name, of which the reader chooses one; `figure` is the first of them, and `asks` what is chosen.
    """

    figure: go.Figure
    label: str
    title: str = ""
    moves: list[dict[str, Any]] = field(default_factory=list)
    choices: dict[str, go.Figure] = field(default_factory=dict)
    asks: str = ""
    note: str = ""

    @classmethod
    def of_choices(
        cls, choices: dict[str, go.Figure], label: str, title: str = "", asks: str = "", note: str = ""
    ) -> "Chart":
        """Return a chart of one figure or of several, by name, that the reader chooses from."""
        return cls(next(iter(choices.values())), label, title, choices=choices, asks=asks, note=note)


@dataclass(frozen=True)
class Group:
    """Charts of one subject, under a heading and a text."""

    title: str
    note: str
    charts: Sequence[Chart]


def plain(text: str) -> str:
    """Escape what plotly would read as HTML."""
    return html.escape(text, quote=False)


def curve(name: str, x: Sequence[float], y: Sequence[float | None], x_name: str = "step", **style: Any) -> go.Scatter:
    """Return a line of a chart; values that are not finite are gaps."""
    finite = [value if value is not None and math.isfinite(value) else None for value in y]
    hover = f"%{{fullData.name}}: %{{y:.4~g}}<br>{x_name} %{{x}}<extra></extra>"
    return go.Scatter(name=plain(name), x=list(x), y=finite, hovertemplate=hover, **style)


def chart_figure(traces: Sequence[go.Scatter], x: str, y: str, **layout: Any) -> go.Figure:
    """Return a figure whose axes have these titles. The page gives it its colours, light or dark."""
    named = sum(trace.showlegend is not False for trace in traces)
    figure = go.Figure(list(traces), dict(template=go.layout.Template(), showlegend=named > 1, **layout))
    return figure.update_xaxes(title_text=plain(x)).update_yaxes(title_text=plain(y))


def pca(embeddings: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (N, 2) float64 of embeddings (N, E) on their first two principal axes.

    Also return the fraction of the variance (2,) along each. An axis points to the embedding that lies farthest along it.
    """
    embeddings = embeddings.double().cpu()
    left, lengths, _ = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)
    coordinates = F.pad(left * lengths, (0, 2))[:, :2]  # padded, as one or two embeddings have fewer axes
    farthest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    variances = F.pad(lengths.square(), (0, 2))
    fractions = variances[:2] / variances.sum().clamp_min(1e-300)
    return (coordinates * torch.where(farthest < 0, -1.0, 1.0)).numpy(), fractions.numpy()


def map_figure(traces: Sequence[go.Scatter], fractions: np.ndarray, **layout: Any) -> go.Figure:
    """Return a map on principal axes that have these fractions (2,) of the variance; both axes have one length."""
    titles = (f"principal axis {i} ({100 * each:.0f} % of variance)" for i, each in enumerate(fractions, 1))
    return chart_figure(traces, *titles, **layout).update_yaxes(scaleanchor="x")  # so distances can be compared


def color_bar(title: str) -> dict[str, Any]:
    """Return the layout of a scale of colours, which markers with `coloraxis` have."""
    bar = dict(title=dict(text=plain(title), side="right"), thickness=10, outlinewidth=0)
    return dict(coloraxis=dict(colorscale="Viridis", colorbar=bar))
