"""Shapes as pictures and files: Fig. 4's rows of meshes, the same as .ply and .glb, and a page with a slider.

In every mesh y points up, and z points to the front. Shapes are in the unit sphere.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import trimesh
from matplotlib.colors import LightSource, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D, Bbox, TransformedBbox
from mpl_toolkits.mplot3d import Axes3D, proj3d
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from plotly.offline import get_plotlyjs

from data.files import write_text, written_whole
from evaluation.plots import STYLE
from evaluation.surfaces import mesh_facts

AZIMUTH, ELEVATION = 35.0, 22.0  # degrees: the camera is to the right of the z axis and above the ground
# matplotlib's angles take z for up: here azdeg turns from y (up) to x (right), and altdeg rises from there to z (front)
LIGHT = LightSource(azdeg=-16, altdeg=32)
TINT = 0.35  # fraction of white in a surface's colour
SPHERE = 1.65  # zoom at which the unit sphere fills a square of axes
MARGIN = 0.08  # of the sphere's radius, around the shapes
PANEL, GAP, LABELS = 1.0, 0.04, 0.24  # inches: a column's width, the space in it, a strip of labels
DASHED = dict(facecolor="none", edgecolor="#999999", linestyle="--", linewidth=0.8)

TEMPLATE, SCRIPT, SLIDER_SCRIPT = (
    Path(__file__).with_name(name) for name in ("shape_page.html", "shape_views.js", "slider.js")
)
SECTION = Template(
    '  <section><h2>$label</h2><p></p><div class="view"></div><div class="empty" hidden>empty</div></section>'
)
LIGHTING = dict(ambient=0.45, diffuse=0.65, specular=0.05, roughness=0.7, fresnel=0.0)
LIGHT_POSITION = dict(x=-50, y=80, z=0.5)  # right, up and depth in the picture's coordinates, chosen by eye


@dataclass(frozen=True)
class ShapeRow:
    """A row of the figure: its label, one mesh per gamma, and the colour of its surfaces."""

    label: str
    meshes: Sequence[trimesh.Trimesh]
    color: str


def tinted(color: str) -> np.ndarray:
    """Return a surface's colour, RGB (3,) in [0, 1]. The figures' colours are for lines and too dark to be shaded."""
    return TINT + (1 - TINT) * np.array(to_rgb(color))


def plot_shape_rows(rows: Sequence[ShapeRow], gamma: np.ndarray) -> Figure:
    """Draw rows of meshes from one camera at one scale, with gamma (K,) below the columns.

    An empty mesh is a dashed box that says "empty". A panel is as wide and as high as the meshes at the rows' ends
    need, at most the unit sphere. It cuts off what the meshes between them have farther out. Shapes are pixels in the
    PDF, and labels are text.
    """
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False, "font.size": 11}):
        figure = plt.figure()
        views = [[draw_mesh(figure, mesh, row.color) for mesh in row.meshes] for row in rows]
        half_width, half_height = needed_frame(rows, views[0][0])
        side = (PANEL - GAP) / half_width  # inches, of the square that the unit sphere fills
        panel_height = half_height * side
        width, height = LABELS + len(gamma) * PANEL, LABELS + len(rows) * panel_height
        figure.set_size_inches(width, height)
        inches = Affine2D().scale(1 / width, 1 / height)  # from the figure's lower left corner, to fractions of it
        on_figure = inches + figure.transFigure
        text = dict(ha="center", va="center", transform=on_figure)
        for r, (row, line) in enumerate(zip(rows, views)):
            y = height - (r + 0.5) * panel_height
            figure.text(LABELS / 2, y, row.label, rotation=90, **text)
            for c, (mesh, axes) in enumerate(zip(row.meshes, line)):
                x = LABELS + (c + 0.5) * PANEL
                axes.set_position(around(x, y, side, side).transformed(inches))
                for surface in axes.collections:
                    panel = around(x, y, PANEL - GAP, panel_height)
                    surface.set_clip_box(TransformedBbox(panel, on_figure))
                if not len(mesh.faces):
                    box = around(x, y, 0.76 * (PANEL - GAP), 0.76 * panel_height)
                    figure.add_artist(plt.Rectangle(box.min, *box.size, transform=on_figure, **DASHED))
                    figure.text(x, y, "empty", color="#666666", **text)
        for c, value in enumerate(gamma):
            name = f"$\\gamma$ = {value:g}" if c == 0 else f"{value:g}"
            figure.text(LABELS + (c + 0.5) * PANEL, LABELS / 2, name, **text)
    return figure


def around(x: float, y: float, width: float, height: float) -> Bbox:
    """Return the box of a width and height whose centre is (x, y)."""
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)


def draw_mesh(figure: Figure, mesh: trimesh.Trimesh, color: str) -> Axes3D:
    """Draw a mesh on new axes whose square the unit sphere fills, and return the axes.

    Triangles must be small against the shape, as a level set's are: matplotlib sorts them by their centres' depth.
    """
    axes = figure.add_axes((0, 0, 1, 1), projection="3d", proj_type="ortho")
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=SPHERE)
    axes.view_init(elev=ELEVATION, azim=AZIMUTH, vertical_axis="y")
    axes.set_axis_off()
    axes.patch.set_visible(False)  # the squares of neighbours overlap
    if len(mesh.faces):
        # edges in the faces' colours close the seams that antialiasing leaves between triangles
        colors = dict(facecolors=tinted(color), edgecolors=tinted(color), shade=True, lightsource=LIGHT)
        axes.add_collection3d(Poly3DCollection(mesh.triangles, linewidths=0.3, rasterized=True, **colors))
    return axes


def needed_frame(rows: Sequence[ShapeRow], axes: Axes3D) -> tuple[float, float]:
    """Return the half width and half height that the meshes at the rows' ends need, as fractions of the square axes."""
    ends = np.concatenate([row.meshes[i].vertices.reshape(-1, 3) for row in rows for i in (0, -1)])
    if not len(ends):
        return 1.0, 1.0
    drawn = proj3d.proj_transform(*ends.T, axes.get_proj())[:2]
    radius = axes.viewLim.width / 2
    x, y = (np.abs(each).max() / radius + MARGIN for each in drawn)
    return min(x, 1.0), min(y, 1.0)


def write_meshes(folder: Path, rows: Sequence[ShapeRow], gamma: np.ndarray, name: str) -> list[Path]:
    """Write `folder`/row<r>-<label>-gamma<value>.ply for every mesh, and `name`.glb with all meshes in a grid.

    In the .glb, columns run along x and rows down y, 2.2 units apart. A mesh of 0 faces is in a .ply only: the format
    .glb has no empty meshes. Return the paths, the .glb last.
    """
    scene, paths = trimesh.Scene(), []
    for r, row in enumerate(rows):
        for c, (mesh, value) in enumerate(zip(row.meshes, gamma)):
            stem = f"row{r}-{row.label}-gamma{value:g}"
            paths.append(folder / f"{stem}.ply")
            with written_whole(paths[-1]) as partial:
                mesh.export(partial, file_type="ply")
            if len(mesh.faces):
                colored = trimesh.Trimesh(mesh.vertices + [2.2 * c, -2.2 * r, 0], mesh.faces, process=False)
                material = trimesh.visual.material.PBRMaterial(
                    baseColorFactor=[*tinted(row.color), 1.0], metallicFactor=0.0, roughnessFactor=0.8
                )
                colored.visual = trimesh.visual.TextureVisuals(material=material)
                scene.add_geometry(colored, node_name=stem, geom_name=stem)
    paths.append(folder / f"{name}.glb")
    with written_whole(paths[-1]) as partial:
        scene.export(partial, file_type="glb", include_normals=True)
    return paths


def mesh_trace(mesh: trimesh.Trimesh, color: str) -> dict:
    """Return a mesh as a trace of plotly, whose vertical axis is z: (x, y, z) becomes (x, -z, y). Arrays are base64."""
    x, y, z = mesh.vertices.astype(np.float32).T
    # the indices are half of the page: the narrowest integers that are wide enough
    i, j, k = mesh.faces.astype(np.min_scalar_type(len(mesh.vertices))).T
    corners = dict(x=x, y=-z, z=y, i=i, j=j, k=k)
    trace = go.Mesh3d(
        **corners, color=to_hex(tinted(color)), lighting=LIGHTING, lightposition=LIGHT_POSITION, hoverinfo="skip"
    )
    return json.loads(go.Figure(trace).to_json())["data"][0]


def caption(facts: dict[str, float]) -> str:
    """Return the page's caption of a mesh, from its mesh_facts."""
    if not facts["faces"]:
        return "empty: no zero level set"
    pieces = f"{facts['pieces']} piece" + "s" * (facts["pieces"] != 1)
    return f"volume {facts['volume']:.3f} · {pieces}"


def write_shape_page(path: Path, title: str, gamma: np.ndarray, rows: Sequence[ShapeRow]) -> None:
    """Write one HTML file in which a slider morphs shapes along gamma (K,), each row of K meshes in a view of its own.

    The file contains plotly's JavaScript (4.8 MB) and about 16 bytes a face, and loads nothing else.
    """
    steps = [
        {
            "gamma": float(value),
            "meshes": [mesh_trace(row.meshes[k], row.color) for row in rows],
            "captions": [caption(mesh_facts(row.meshes[k])) for row in rows],
            "empty": [not len(row.meshes[k].faces) for row in rows],
        }
        for k, value in enumerate(gamma)
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        sections="\n".join(SECTION.substitute(label=html.escape(row.label)) for row in rows),
        last=len(steps) - 1,
        plotly=get_plotlyjs(),
        views=SCRIPT.read_text(encoding="utf-8"),
        slider=SLIDER_SCRIPT.read_text(encoding="utf-8"),
        steps=json.dumps(steps),
    )
    write_text(path, page)
