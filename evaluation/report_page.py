"""The report as one HTML file that asks for nothing else when it is opened."""

from pathlib import Path
from typing import Any

import jinja2
from matplotlib.colors import Colormap, to_hex
from PIL import Image
from plotly.offline import get_plotlyjs

from data.files import read_text, write_text
from evaluation.prep_images import DIFFERENCES, PARAMETERS, data_uri
from evaluation.shape_figures import SCRIPT as VIEWS_SCRIPT
from evaluation.shape_figures import SLIDER_SCRIPT
from evaluation.sliders import curve
from evaluation.summary import PAPER, Part, as_text, numbers_of
from models.errors import InputError
from training.logs import read_scalars

FOLDER = Path(__file__).parent
ALTERNATIVES = {
    "eval_single": "Accuracy of unseen test instances, sorted, and of the instances predicted from their embeddings",
    "interpolate_single_arch": "Accuracy along gamma, decoded from the latent line and of averaged weights",
    "visualize_prep": "PRep of a target instance beside that of its predicted instance",
    "eval_multi": "Accuracy of unseen test instances, by architecture, and of the instances predicted from their embeddings",
    "interpolate_multi_arch": "Accuracy and architecture along the line from the lowest to the highest ClassId",
    "eval_latspace_single": "Validation accuracy over the steps of latent space optimization",
    "eval_latspace_multi": "Validation accuracy of each architecture over the steps of latent space optimization",
    "interpolate_mlps": "Rows of shapes along gamma, decoded from the latent line and of averaged weights",
}
# Title, name of the vertical axis, whether it is logarithmic, and what the curves are called in scalars.jsonl.
CURVES = (
    ("Training loss", "loss", True, ("loss", "kd_loss", "class_id_loss")),
    (
        "Validation error",
        "mean |target − predicted| (points)",
        False,
        ("val_accuracy_error",),
    ),
    ("Validation accuracy", "accuracy (%)", False, ("val_accuracy", "best_val_accuracy")),
    ("Closeness to training SIRENs", "share within 0.01", False, ("closeness",)),
    ("ClassIds right in training", "share", False, ("right_class_ids",)),
    ("Learning rate", "learning rate", True, ("learning_rate",)),
)
CURVE_LOOKS = (("var(--predicted)", False), ("var(--target)", True), ("var(--weights)", False))


def training_curves(run_dir: Path) -> list[dict[str, Any]]:
    """The charts of `scalars.jsonl`, and of `latspace/scalars.jsonl`. Raises InputError if one is broken."""
    charts = []
    for folder, prefix in ((run_dir, ""), (run_dir / "latspace", "Latent space optimization: ")):
        lines = read_scalars(folder / "scalars.jsonl")
        for title, axis, log, names in CURVES:
            curves = []
            for name, (color, dash) in zip(names, CURVE_LOOKS):
                points = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]
                if points:
                    curves.append(curve(name.replace("_", " "), *zip(*points), color, None, dash))
            if curves:
                log = log and all(value is None or value > 0 for curve in curves for value in curve["y"])
                title = f"{prefix}{title.lower()}" if prefix else title
                charts.append(
                    {"title": title, "x": {"label": "step"}, "y": {"label": axis, "log": log}, "series": curves}
                )
    return charts


def kind(figure: Path) -> str:
    """Which script's it is; that of held-out shapes has a name of its own."""
    return figure.stem.removesuffix("_test")


def figures(run_dir: Path) -> list[dict[str, Any]]:
    """Every PNG of a run folder as a data URI. Raises InputError for one that is none."""
    found = []
    known = list(ALTERNATIVES)
    paths = sorted(
        run_dir.glob("*.png"), key=lambda path: (known.index(kind(path)) if kind(path) in known else len(known), path)
    )
    for path in paths:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except OSError:
            raise InputError(f"{path} is no image; delete it, or make it again") from None
        source = data_uri(path.read_bytes())
        alternative = ALTERNATIVES.get(kind(path), f"figure {path.stem}")
        # of 200 pixels an inch, shown at 96 CSS pixels to the inch, a little larger
        size = {"width": round(width * 0.6), "height": round(height * 0.6)}
        found.append({"name": path.name, "source": source, "alt": alternative, **size})
    return found


def tables(dataset: str, run_dir: Path, parts: dict[Part, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every result's numbers, each with the paper's, or a dash where it has none."""
    paper = PAPER.get((dataset, run_dir.name), {})
    return [
        {
            "title": part.title,
            "rows": [
                (name, as_text(paper[name]) if name in paper else "–", as_text(value))
                for name, value in numbers_of(part, results, run_dir).items()
            ],
        }
        for part, results in parts.items()
    ]


def provenance_rows(made: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """What each file, by name, says of its seed and versions."""
    rows = []
    for name, facts in made.items():
        versions, config = (facts.get(key) or {} for key in ("versions", "config"))
        if isinstance(versions, dict) and isinstance(config, dict):
            row = {"file": name, "seed": config.get("seed", "–")}
            rows.append({**row, **{key: versions.get(key, "–") for key in ("commit", "torch", "numpy", "python")}})
    return rows


def css_stops(colors: Colormap) -> str:
    return ", ".join(to_hex(colors(i / 8)) for i in range(9))


def write_report(
    path: Path, dataset: str, sections: list[dict[str, Any]], not_run: list[tuple[str, list[str]]]
) -> None:
    """Writes the page. Whatever comes from file names or results is escaped.

    plotly's JavaScript (4.8 MB) is part of it only where there are shapes.
    """
    shapes = any(section["slider"] and section["slider"]["moves"]["meshes"] for section in sections)
    scripts = {
        "report": read_text(FOLDER / "report_page.js"),
        "views": read_text(VIEWS_SCRIPT),
        "slider": read_text(SLIDER_SCRIPT),
        "plotly": get_plotlyjs() if shapes else None,
    }
    template = jinja2.Environment(autoescape=True).from_string(read_text(FOLDER / "report_page.html"))
    page = template.render(
        dataset=dataset,
        sections=sections,
        not_run=not_run,
        scripts=scripts,
        parameters=css_stops(PARAMETERS),
        differences=css_stops(DIFFERENCES),
    )
    write_text(path, page)
