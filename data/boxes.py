"""A union of axis-aligned boxes: its exact signed distance, and its surface as a mesh.

The planes of all box faces cut space into a grid of cells, each inside the union or outside. The union's surface is the
set of cell faces between an inside and an outside cell. The minimum over the boxes' own signed distances is exact outside
only: inside, it takes faces that another box covers for surface.

Boxes are (K, 2, 3) float64: lower and upper corner of each.
"""

from dataclasses import dataclass

import numpy as np
import trimesh

CHUNK = 1 << 14  # points at a time, so that what they need stays in the processor's cache


@dataclass(frozen=True)
class Cells:
    """The grid of a union of boxes. `planes`: ascending coordinates per axis, (X,), (Y,), (Z,).
    `inside` (X+1, Y+1, Z+1) bool: the cells, with a border of outside ones, so that cell i lies above plane i-1."""

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    inside: np.ndarray

    @classmethod
    def of(cls, boxes: np.ndarray) -> "Cells":
        x, y, z = (np.unique(boxes[:, :, axis]) for axis in range(3))
        planes = x, y, z
        inside = np.zeros([len(each) + 1 for each in planes], dtype=bool)
        for lower, upper in boxes:
            first, last = (
                [np.searchsorted(planes[axis], corner[axis]) + 1 for axis in range(3)] for corner in (lower, upper)
            )
            inside[tuple(slice(a, b) for a, b in zip(first, last))] = True
        return cls(planes, inside)

    def faces(self, axis: int) -> np.ndarray:
        """Cell faces on the planes across `axis`, that axis first and the two others in order: 1 where the surface's
        outward normal points along the axis, -1 where against it, 0 where there is no surface."""
        return -np.diff(np.moveaxis(self.inside.astype(np.int8), axis, 0), axis=0)[:, 1:-1, 1:-1]


def merged(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Rectangles, as first row, last row, first column, last column (ends excluded), that cover a mask (R, C) exactly."""
    left, rectangles = mask.copy(), []
    while left.any():
        row, column = np.argwhere(left)[0]
        width = np.argmin(np.append(left[row, column:], False))
        height = np.argmin(np.append(left[row:, column : column + width].all(1), False))
        rectangles.append((row, row + height, column, column + width))
        left[row : row + height, column : column + width] = False
    return rectangles


def surface_rectangles(cells: Cells) -> np.ndarray:
    """The union's surface as flat boxes (R, 2, 3)."""
    rectangles = []
    for axis in range(3):
        u, v = (other for other in range(3) if other != axis)
        for plane, faces in zip(cells.planes[axis], cells.faces(axis)):
            for row, row_end, column, column_end in merged(faces != 0):
                corners = np.empty((2, 3))
                corners[:, axis] = plane
                corners[:, u] = cells.planes[u][[row, row_end]]
                corners[:, v] = cells.planes[v][[column, column_end]]
                rectangles.append(corners)
    return np.array(rectangles)


def squared_distances(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From each point (N, 3) to the nearest of some boxes, which may be flat: (N,), 0 within one."""
    nearest = np.full(len(points), np.inf)
    x = np.ascontiguousarray(points.T)
    for lower, upper in boxes:
        squared = np.zeros(len(points))
        for axis in range(3):
            beyond = np.clip(x[axis], lower[axis], upper[axis])
            beyond -= x[axis]
            beyond *= beyond
            squared += beyond
        np.minimum(nearest, squared, out=nearest)
    return nearest


def union_distance(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Exact signed distance (N,) float64 of points (N, 3) to the surface of a union of boxes, negative inside."""
    boxes, points = np.asarray(boxes, np.float64), np.asarray(points, np.float64)
    surface = surface_rectangles(Cells.of(boxes))
    distances = np.empty(len(points))
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        squared = squared_distances(boxes, chunk)  # the boxes are fewer than the rectangles, and exact outside
        inside = squared == 0
        signed = np.sqrt(squared)
        signed[inside] = -np.sqrt(squared_distances(surface, chunk[inside]))
        distances[start : start + CHUNK] = signed
    return distances


def union_mesh(boxes: np.ndarray) -> trimesh.Trimesh:
    """The surface of a union of boxes, normals outward, two triangles a cell face.

    All faces have corners of the one grid, so that no corner lies within another's edge. Watertight, unless two boxes
    meet in an edge alone.
    """
    cells = Cells.of(np.asarray(boxes, np.float64))
    quads = []
    for axis in range(3):
        faces = cells.faces(axis)
        plane, row, column = np.nonzero(faces)
        around = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
        corners = np.stack([np.insert(np.stack(uv, 1), axis, plane, axis=1) for uv in around], axis=1)  # (F, 4, 3)
        # u, v run anticlockwise around x and z, clockwise around y
        backward = (faces[plane, row, column] < 0) != (axis == 1)
        corners[backward] = corners[backward, ::-1]
        quads.append(corners)
    grid_points, index = np.unique(np.concatenate(quads).reshape(-1, 3), axis=0, return_inverse=True)
    vertices = np.stack([cells.planes[axis][grid_points[:, axis]] for axis in range(3)], axis=1)
    corner = index.reshape(-1, 4)
    triangles = np.concatenate([corner[:, [0, 1, 2]], corner[:, [0, 2, 3]]])
    return trimesh.Trimesh(vertices, triangles, process=False)
