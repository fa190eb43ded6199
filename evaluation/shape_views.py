"""Shapes on an HTML page, drawn by plotly: their traces, and the JavaScript that turns several together."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import trimesh
from matplotlib.colors import to_hex

from evaluation.shape_plots import tinted

SCRIPT, SLIDER_SCRIPT = (Path(__file__).with_name(name) for name in ("shape_views.js", "slider.js"))
LIGHTING = dict(ambient=0.45, diffuse=0.65, specular=0.05, roughness=0.7, fresnel=0.0)
LIGHT_POSITION = dict(x=-50, y=80, z=0.5)  # right, up and depth in the picture's own coordinates, chosen by eye


def mesh_trace(mesh: trimesh.Trimesh, color: str) -> dict:
    """A mesh for plotly, whose vertical axis is z: (x, y, z) becomes (x, -z, y). Arrays are base64."""
    x, y, z = mesh.vertices.astype(np.float32).T
    # the narrowest integers that hold the indices: they are half of the page
    i, j, k = mesh.faces.astype(np.min_scalar_type(len(mesh.vertices))).T
    corners = dict(x=x, y=-z, z=y, i=i, j=j, k=k)
    trace = go.Mesh3d(
        **corners, color=to_hex(tinted(color)), lighting=LIGHTING, lightposition=LIGHT_POSITION, hoverinfo="skip"
    )
    return json.loads(go.Figure(trace).to_json())["data"][0]
