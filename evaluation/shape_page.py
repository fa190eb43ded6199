"""One HTML file in which a slider morphs two shapes along gamma, latent and weight interpolation side by side."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np
import trimesh
from plotly.offline import get_plotlyjs

from data.files import write_text
from evaluation.plots import PREDICTED, WEIGHTS
from evaluation.shape_views import SCRIPT, SLIDER_SCRIPT, mesh_trace

TEMPLATE = Path(__file__).with_name("shape_page.html")


def caption(facts: dict[str, float]) -> str:
    """What the page says of a mesh, from its mesh_facts."""
    if not facts["faces"]:
        return "empty: no zero level set"
    pieces = f"{facts['pieces']} piece" + "s" * (facts["pieces"] != 1)
    return f"volume {facts['volume']:.3f} · {pieces}"


def write_shape_page(
    path: Path,
    title: str,
    gamma: np.ndarray,
    latent: Sequence[trimesh.Trimesh],
    weights: Sequence[trimesh.Trimesh],
    latent_facts: Sequence[dict[str, float]],
    weight_facts: Sequence[dict[str, float]],
) -> None:
    """Writes the page: one mesh and its mesh_facts per gamma and kind of interpolation.

    The file holds plotly's JavaScript (4.8 MB) and some 16 bytes a face and asks for nothing else when it is opened.
    """
    steps = [
        {
            "gamma": float(value),
            "meshes": [mesh_trace(pair[0], PREDICTED), mesh_trace(pair[1], WEIGHTS)],
            "captions": [caption(each) for each in facts],
            "empty": [not len(mesh.faces) for mesh in pair],
        }
        for value, pair, facts in zip(gamma, zip(latent, weights), zip(latent_facts, weight_facts))
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        last=len(steps) - 1,
        plotly=get_plotlyjs(),
        views=SCRIPT.read_text(encoding="utf-8"),
        slider=SLIDER_SCRIPT.read_text(encoding="utf-8"),
        steps=json.dumps(steps),
    )
    write_text(path, page)
