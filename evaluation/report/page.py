"""The report as one HTML file, which loads nothing else: training curves, figures, tables, provenance, and the panels."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from matplotlib.colors import Colormap, to_hex
from PIL import Image
from plotly.offline import get_plotlyjs

from data.files import list_files, write_text
from data.texts import read_text
from evaluation.plots import BY_WEIGHTS, PREDICTED, TARGET
from evaluation.report.charts import ARCHITECTURE_STYLES, NEUTRAL, Chart, Group, chart_figure, curve
from evaluation.report.panels import Slider
from evaluation.report.pictures import DIFFERENCES, PARAMETERS, Prep, data_uri
from evaluation.shape_figures import SCRIPT as VIEWS_SCRIPT
from evaluation.shape_figures import SLIDER_SCRIPT
from evaluation.summary import PAPER, Part, as_text, numbers_of
from models.errors import InputError, brief
from models.target_nets import ARCHITECTURES
from training.run import read_scalars

LARGEST_FIGURE, MOST_PIXELS = 1 << 25, 1 << 26  # bytes, pixels
MOST_POINTS = 5000  # of a curve
TEMPLATE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.html", "page.js"))
ALTERNATIVES = {
    "eval_single": "Accuracy of unseen test instances, sorted, and of the instances predicted from their embeddings",
    "interpolate_single_arch": "Accuracy along gamma, decoded from the latent line and of averaged weights",
    "visualize_prep": "PRep of a target instance beside that of its predicted instance",
    "eval_multi": "Accuracy of unseen test instances, by architecture, and of the instances predicted from their embeddings",
    "interpolate_multi_arch": "Accuracy and architecture along the line from the lowest to the highest ClassId",
    "eval_latspace_single": "Validation accuracy over the steps of latent space optimization",
    "eval_latspace_multi": "Validation accuracy of each architecture over the steps of latent space optimization",
    "interpolate_mlps": "Rows of shapes along gamma, decoded from the latent line and of averaged weights",
    "predict_properties": "R² of properties of unseen nets, by what represents the nets, with intervals",
    "sample_finetune": "Test accuracy over epochs of fine-tuning, by where the nets start from",
    "stitch_nets": "Accuracy of stitched nets relative to the end net over points, by how they are stitched, with intervals",
    "stitch_matrix": "Accuracy of stitched nets relative to the end net, for all pairs of points of one size",
    "compare_nets": "Measures of similarity for all pairs of points of two nets",
    "compare_nets_points": "Measures of similarity at the same point of two nets, of reordered copies and untrained fronts",
    "compare_systems": "Agreement, error of accuracy and R² of weights of cells and ablations, every seed with mean and interval",
    "compare_systems_sizes": "Error and correlation of accuracy over the number of training nets, by encoder",
    "compare_systems_symmetry": "Spread of embeddings and of decoded accuracy over reordered copies, and accuracy along lines",
    "inside_similarity": "Similarity of pairs of nets over points, by the kind of pair, with intervals",
}
# Title, vertical axis, whether it is logarithmic, and the curves' names in scalars.jsonl.
CURVES = (
    ("Training loss", "loss", True, ("loss", "kd_loss", "class_id_loss")),
    ("Reconstruction", "squared error (variances of a layer)", True, ("reconstruction",)),
    ("Contrast of two views", "NT-Xent (nats)", False, ("contrast",)),
    ("Behaviour of decoded nets", "squared error of logits", True, ("behaviour",)),
    ("Validation error", "mean |target − predicted| (points)", False, ("val_accuracy_error",)),
    ("Validation error of the weights", "squared error (mean instance: 1)", False, ("val_weight_error",)),
    ("Validation R² of the weights", "R² (mean instance: 0)", False, ("val_weight_r2",)),
    (
        "Validation accuracy",
        "accuracy (%)",
        False,
        ("val_accuracy", "best_val_accuracy", *(f"val_accuracy_{name}" for name in ARCHITECTURES)),
    ),
    ("Closeness to the SIRENs that choose", "fraction within 0.01", False, ("closeness",)),
    ("ClassIds right in training", "fraction", False, ("right_class_ids",)),
    ("Learning rate", "learning rate", True, ("learning_rate",)),
)
CURVE_STYLES = ((PREDICTED, "solid"), (TARGET, "dash"), (NEUTRAL, "dot"), (BY_WEIGHTS, "dashdot"))
SCHEMES = {  # text, faint text, grid, page
    "light": ("#1b1c1d", "#5f6468", "#dcdedf", "#fbfbfa"),
    "dark": ("#ececec", "#a3a8ad", "#383c41", "#16181b"),
}


@dataclass(frozen=True)
class Table:
    """Numbers of one result: what each is, the paper's and ours, as text."""

    title: str
    rows: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Figure:
    """A PNG of a run folder as a data URI, and its size in CSS pixels."""

    name: str
    source: str
    alternative: str
    width: int
    height: int


@dataclass(frozen=True)
class Panels:
    """What is computed from a trained space, and groups of charts of results."""

    slider: Slider | None = None
    map: Chart | None = None
    preps: Sequence[Prep] = ()
    groups: Sequence[Group] = ()


@dataclass(frozen=True)
class Section:
    """What the page shows of a setting. `missing` are what is missing and the commands that make it."""

    name: str
    title: str
    about: str
    tables: list[Table]
    panels: Panels
    curves: list[Chart]
    figures: list[Figure]
    missing: list[tuple[str, list[str]]]
    provenance: list[dict[str, Any]]


def training_curves(run_dir: Path) -> list[Chart]:
    """Draw `scalars.jsonl` and `latspace/scalars.jsonl`. Raise InputError if one is broken."""
    charts = []
    for folder, prefix in ((run_dir, ""), (run_dir / "latspace", "Latent space optimization: ")):
        lines = read_scalars(folder / "scalars.jsonl")
        if not all(0 <= line["step"] < 2**53 for line in lines):
            raise InputError(f"{folder / 'scalars.jsonl'} has steps that no run reaches; move it away")
        for title, axis, log, names in CURVES:
            traces = []
            for name, (color, dash) in zip(names, styles_of(names)):
                points = [(line["step"], line[name]) for line in lines if is_value(line.get(name))]
                points = points[:: len(points) // MOST_POINTS + 1]
                if points:
                    style = dict(line=dict(color=color, dash=dash), marker=dict(color=color, size=5))
                    architecture = name.removeprefix("val_accuracy_")
                    known = architecture if architecture in ARCHITECTURES else name.replace("_", " ")
                    traces.append(curve(known, *zip(*points), **style))
            if traces:
                log = log and all(value is None or value > 0 for trace in traces for value in trace.y)
                title = f"{prefix}{title.lower().removeprefix('training ')}" if prefix else title
                figure = chart_figure(traces, "step", axis)
                if log:
                    figure.update_yaxes(type="log", tickformat="~g")
                charts.append(Chart(figure, title, title))
    return charts


def is_value(value: Any) -> bool:
    """Return whether a scalar can be drawn; NaN and infinity are gaps."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def styles_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return colour and dash of the curves of a chart; those of architectures have the map's colours."""
    others = iter(CURVE_STYLES)
    colors = {
        f"val_accuracy_{name}": ARCHITECTURE_STYLES[i % len(ARCHITECTURE_STYLES)][0]
        for i, name in enumerate(ARCHITECTURES)
    }
    return [(colors[name], "solid") if name in colors else next(others) for name in names]


def script_of(figure: Path) -> str:
    """Return the name of the script that made a figure; the figure of held-out shapes has a name of its own."""
    return figure.stem.removesuffix("_test")


def figures(run_dir: Path) -> list[Figure]:
    """Return every PNG of a run folder. Raise InputError for one that is none, or too large for a page."""
    known = list(ALTERNATIVES)

    def order(path: Path) -> tuple[int, Path]:
        return known.index(script_of(path)) if script_of(path) in known else len(known), path

    found = []
    for path in sorted(list_files(run_dir, (".png",)).files, key=order):
        width, height = size_of_png(path)
        alternative = ALTERNATIVES.get(script_of(path), f"figure {path.stem}")
        # of 200 pixels an inch, shown at 96 CSS pixels to the inch, a little larger
        source = data_uri(path.read_bytes())
        found.append(Figure(path.name, source, alternative, round(width * 0.6), round(height * 0.6)))
    return found


def size_of_png(path: Path) -> tuple[int, int]:
    """Return width and height of a PNG, pixels. Raise InputError if the file is none, is cut short, or is too large."""
    try:
        if path.stat().st_size > LARGEST_FIGURE:
            raise InputError(f"{path} has {path.stat().st_size} bytes; move it away, figures are smaller")
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
            if width * height <= MOST_PIXELS:
                image.verify()
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels ({error}); move it away") from None
    except Exception as error:  # a broken file may raise anything
        raise InputError(f"{path} is no PNG ({type(error).__name__}); delete it, or make it again") from None
    if width * height > MOST_PIXELS:
        raise InputError(f"{path} has {width}x{height} pixels; move it away, figures are smaller")
    return width, height


def tables(dataset: str, run_dir: Path, parts: dict[Part, dict[str, Any]]) -> list[Table]:
    """Return every result's numbers, each with the paper's, or a dash where it has none."""
    paper = PAPER.get((dataset, run_dir.name), {})
    return [
        Table(
            part.title,
            [
                (name, as_text(paper[name]) if name in paper else "–", as_text(value))
                for name, value in numbers_of(part, results, run_dir).items()
            ],
        )
        for part, results in parts.items()
    ]


def provenance_rows(made: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the seed and the versions of each file, by name."""
    rows = []
    for name, facts in made.items():
        versions, config = (facts.get(key) or {} for key in ("versions", "config"))
        if isinstance(versions, dict) and isinstance(config, dict):
            row = {"file": name, "seed": config.get("seed", "–")}
            row |= {key: versions.get(key, "–") for key in ("commit", "torch", "numpy", "python")}
            rows.append({key: brief(value) for key, value in row.items()})
    return rows


def template(ink: str, faint: str, grid: str, page: str) -> go.layout.Template:
    """Return the colours and the style of all charts."""
    axis = dict(
        automargin=True,
        color=faint,
        exponentformat="power",
        fixedrange=True,  # a finger on a chart scrolls the page
        gridcolor=grid,
        linecolor=faint,
        tickfont_size=12,
        title=dict(font=dict(color=ink, size=12.5), standoff=8),
        zeroline=False,
    )
    layout = dict(
        xaxis=dict(axis, showgrid=False, showline=True, ticks="outside"),
        yaxis=dict(axis),
        coloraxis_colorbar=dict(tickfont=dict(color=faint, size=12), title_font=dict(color=ink, size=12.5)),
        dragmode=False,
        font=dict(family="system-ui, sans-serif", size=12.5),
        hoverlabel=dict(bgcolor=ink, bordercolor=ink, font_color=page, namelength=-1),
        hovermode="closest",
        legend=dict(
            orientation="h", x=0, y=1.02, yanchor="bottom", font_color=faint, itemclick=False, itemdoubleclick=False
        ),
        margin=dict(l=10, r=10, t=10, b=10),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        shapedefaults=dict(line=dict(color=ink, width=1.5)),
    )
    return go.layout.Template(layout=layout, data=dict(scatter=[dict(marker_line_color=ink)]))


def css_stops(colors: Colormap) -> str:
    """Return a colour map as the stops of a gradient in CSS."""
    return ", ".join(to_hex(colors(i / 8)) for i in range(9))


def as_json(figure: Any) -> Any:
    """Return a figure or a part of one as plain values."""
    return json.loads(figure.to_json() if isinstance(figure, go.Figure) else json.dumps(figure.to_plotly_json()))


def write_report(path: Path, dataset: str, sections: list[Section], not_run: list[tuple[str, list[str]]]) -> None:
    """Write the page. What comes from file names and results is escaped. plotly's JavaScript (4.8 MB) is part of it."""
    scripts = [get_plotlyjs(), *(read_text(script) for script in (VIEWS_SCRIPT, SLIDER_SCRIPT, SCRIPT))]
    environment = jinja2.Environment(autoescape=True)
    environment.filters["figure"] = as_json
    page = environment.from_string(read_text(TEMPLATE)).render(
        dataset=dataset,
        sections=sections,
        not_run=not_run,
        scripts=scripts,
        templates={scheme: as_json(template(*colors)) for scheme, colors in SCHEMES.items()},
        parameters=css_stops(PARAMETERS),
        differences=css_stops(DIFFERENCES),
    )
    write_text(path, page)
