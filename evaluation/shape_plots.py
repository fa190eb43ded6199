"""Fig. 4: rows of meshes, drawn from one camera and written for other programs. y is up, z towards the viewer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import trimesh
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from data.files import written_whole
from evaluation.plots import STYLE

AZIMUTH, ELEVATION = 35.0, 22.0  # degrees, of the camera: to the right of z, above the ground
KEY_LIGHT, FILL_LIGHT = (-0.5, 0.65, 0.6), (0.9, 0.1, 0.3)  # directions in the camera's axes: right, up, to the viewer
AMBIENT, KEY, FILL = 0.45, 0.62, 0.12  # shares of the colour
TINT = 0.35  # share of white in it
MARGIN = 0.08  # units
PANEL, GAP = 1.0, 0.04  # inches, a column's width, of it the space between columns
LABELS = 0.24  # inches, beside the rows and below the columns


@dataclass(frozen=True)
class ShapeRow:
    """A row of the figure: meshes in the unit sphere, one a gamma."""

    label: str
    meshes: Sequence[trimesh.Trimesh]
    color: str


def camera_axes(azimuth: float, elevation: float) -> np.ndarray:
    """Rows right, up and towards the viewer, (3, 3), of a camera that looks at the origin; angles in degrees."""
    azimuth, elevation = np.radians([azimuth, elevation])
    viewer = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    return np.stack([right, np.cross(viewer, right), viewer])


CAMERA = camera_axes(AZIMUTH, ELEVATION)


def tinted(color: str) -> np.ndarray:
    """The colour of a surface, RGB in [0, 1]: the figures' colours, made for lines, are too dark to be shaded."""
    return TINT + (1 - TINT) * np.array(to_rgb(color))


def project(mesh: trimesh.Trimesh, color: str) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (F, 3, 2) that face the camera, the farthest first, and their shaded colours (F, 3).

    Parallel projection, Lambert's shading by vertex normals. Painting them in order hides what lies behind only if
    triangles are small against the shape, as a level set's are.
    """
    corners = mesh.vertices[mesh.faces] @ CAMERA.T
    normals = mesh.vertex_normals[mesh.faces].mean(axis=1) @ CAMERA.T
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0
    order = np.flatnonzero(facing)[np.argsort(corners[facing, :, 2].mean(axis=1))]
    light = AMBIENT
    for share, direction in ((KEY, KEY_LIGHT), (FILL, FILL_LIGHT)):
        light = light + share * np.clip(normals @ (direction / np.linalg.norm(direction)), 0, None)
    shaded = tinted(color) * light[:, None]
    return corners[order, :, :2], np.clip(shaded[order], 0, 1)


def plot_shape_rows(rows: Sequence[ShapeRow], gamma: np.ndarray) -> Figure:
    """Rows of meshes from one camera at one scale, gamma below each column; an empty mesh is a box that says so.

    The frame is what the ends of the rows need, in the unit sphere, and MARGIN more: what a mesh between them has
    farther out is cut off there. Shapes are pixels in the PDF, labels are text.
    """
    projected = [[project(mesh, row.color) for mesh in row.meshes] for row in rows]
    ends = np.concatenate([line[i][0].reshape(-1, 2) for line in projected for i in (0, -1)])
    ends = np.clip(ends, -1, 1) if len(ends) else np.array([[-1, -1], [1, 1]])
    (left, bottom), (right, top) = ends.min(axis=0) - MARGIN, ends.max(axis=0) + MARGIN
    panel_height = (PANEL - GAP) * (top - bottom) / (right - left)
    width, height = LABELS + len(gamma) * PANEL, len(rows) * panel_height + LABELS
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False, "font.size": 11}):
        figure = plt.figure(figsize=(width, height))
        for r, (row, line) in enumerate(zip(rows, projected)):
            y = 1 - (r + 1) * panel_height / height
            figure.text(
                LABELS / 2 / width, y + panel_height / 2 / height, row.label, rotation=90, ha="center", va="center"
            )
            for c, (corners, colors) in enumerate(line):
                axes = figure.add_axes(((LABELS + c * PANEL) / width, y, (PANEL - GAP) / width, panel_height / height))
                axes.set(xlim=(left, right), ylim=(bottom, top))
                axes.set_axis_off()
                if len(row.meshes[c].faces):
                    # edges in the faces' colours close the seams that antialiasing leaves between triangles
                    axes.add_collection(
                        PolyCollection(corners, facecolors=colors, edgecolors=colors, linewidths=0.3, rasterized=True)
                    )
                else:
                    draw_empty(axes)
        for c, value in enumerate(gamma):
            name = f"$\\gamma$ = {value:g}" if c == 0 else f"{value:g}"
            figure.text((LABELS + (c + 0.5) * PANEL) / width, LABELS / 2 / height, name, ha="center", va="center")
    return figure


def draw_empty(axes: plt.Axes) -> None:
    box = dict(facecolor="none", edgecolor="#999999", linestyle="--", linewidth=0.8)
    axes.add_patch(plt.Rectangle((0.12, 0.12), 0.76, 0.76, transform=axes.transAxes, **box))
    axes.text(0.5, 0.5, "empty", transform=axes.transAxes, ha="center", va="center", color="#666666")


def write_meshes(folder: Path, rows: Sequence[ShapeRow], gamma: np.ndarray, name: str) -> list[Path]:
    """`folder`/row<r>-<label>-gamma<value>.ply for every mesh, 0 faces included, and `name`.glb with all in a grid.

    In the .glb, columns run along x and rows down y, 2.2 units apart; it has no empty meshes, which the format lacks.
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
