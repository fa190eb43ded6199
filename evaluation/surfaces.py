"""Surfaces of signed distance functions: zero level sets as meshes, their volume and pieces, and Chamfer distances.

Shapes are normalized to the unit sphere. Its radius is the unit of length. Grids cover the cube [-1, 1]^3 around it.
"""

from collections.abc import Callable

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from torch import Tensor

from data.streams import stream
from evaluation.metrics import correlation
from models.errors import InputError

CHUNK = 32_768  # points evaluated at once: a SIREN needs a few tensors (instances, points, width) of them


def grid_points(start: int, end: int, resolution: int, device: torch.device) -> Tensor:
    """Return points `start` to `end` (exclusive) of the grid, (end - start, 3) float32, the last axis fastest.

    Each axis has `resolution` points from -1 to 1, both included.
    """
    # indices stay integers: divided as floats, they shear the grid
    axis = (2 * torch.arange(resolution, dtype=torch.float64, device=device) / (resolution - 1) - 1).float()
    index = torch.arange(start, end, device=device)
    return torch.stack([axis[i] for i in torch.unravel_index(index, (resolution,) * 3)], dim=1)


@torch.no_grad()
def sample_grid(
    sdfs: Callable[[Tensor], Tensor], resolution: int, device: torch.device, chunk: int = CHUNK
) -> np.ndarray:
    """Return distances (M, R, R, R) float32 of `sdfs`, points (N, 3) to (M, N), on the grid, R = `resolution`."""
    num_points = resolution**3
    starts = range(0, num_points, chunk)
    pieces = [
        sdfs(grid_points(start, min(start + chunk, num_points), resolution, device)).float().cpu() for start in starts
    ]
    return torch.cat(pieces, dim=1).view(-1, *(resolution,) * 3).numpy()


def mesh_of_grid(distances: np.ndarray) -> trimesh.Trimesh:
    """Return the surface of the solid of negative `distances` (R, R, R). Its triangles face outwards.

    A solid that reaches the cube's faces is cut there, so that every surface is closed and has a volume. The mesh has 0
    faces if the distances do not change sign.
    """
    if not distances.min() < 0 <= distances.max():
        return trimesh.Trimesh()
    spacing = 2 / (len(distances) - 1)
    padded = np.pad(distances, 1, constant_values=np.abs(distances).max())
    padded[padded == 0] = 1e-12  # marching cubes tears surfaces that pass through several neighbouring points
    # Where values of neighbouring cells tie, Lewiner's surface may fold onto itself along an edge (1 in 600 grids of
    # random -1, 0 and 1). Lorensen's does not fold there, but it decides ambiguous cells whatever their values are.
    for method in ("lewiner", "lorensen"):
        vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="descent", method=method)
        mesh = trimesh.Trimesh(np.clip((vertices - 1) * spacing - 1, -1, 1), faces, process=False)
        if mesh.is_watertight:
            break
    return mesh


def level_sets(
    sdfs: Callable[[Tensor], Tensor], resolution: int, device: torch.device, chunk: int = CHUNK
) -> list[trimesh.Trimesh]:
    """Return the zero level sets of M signed distance functions (negative inside) on [-1, 1]^3, as M closed meshes.

    `sdfs` maps points (N, 3) float32 on the device to distances (M, N). It gets resolution^3 points, `chunk` at a time.
    An instance without a level set gives a mesh of 0 faces. Raise InputError for NaN or infinity.
    """
    distances = sample_grid(sdfs, resolution, device, chunk)
    for i, each in enumerate(distances):
        if not np.isfinite(each).all():
            wrong = each.size - np.isfinite(each).sum()
            raise InputError(
                f"instance {i} gives NaN or infinity at {wrong:,} of {each.size:,} points, "
                "so it has no surface; train it again"
            )
    return [mesh_of_grid(each) for each in distances]


def level_set(
    sdf: Callable[[Tensor], Tensor], resolution: int, device: torch.device, chunk: int = CHUNK
) -> trimesh.Trimesh:
    """Return the level set of one function, points (N, 3) to distances (N,), as level_sets does."""
    return level_sets(lambda points: sdf(points)[None], resolution, device, chunk)[0]


def mesh_facts(mesh: trimesh.Trimesh) -> dict[str, float | int]:
    """Return the volume (cubic units), the number of connected pieces, however small, and the number of faces.

    All are 0 for an empty mesh. The volume of an open surface is NaN. No level set here is open.
    """
    if not len(mesh.faces):
        return {"volume": 0.0, "pieces": 0, "faces": 0}
    volume = float(mesh.volume) if mesh.is_watertight else float("nan")
    return {"volume": volume, "pieces": int(mesh.body_count), "faces": len(mesh.faces)}


def facts_along(
    meshes: list[trimesh.Trimesh], ends: list[trimesh.Trimesh], chamfer_points: int, key: tuple[int, ...]
) -> dict[str, list]:
    """Return, by gamma, volume, pieces, and Chamfer distance to the surfaces of the two ends (None where one is empty)."""
    facts = [mesh_facts(mesh) for mesh in meshes]
    along: dict[str, list] = {name: [each[name] for each in facts] for name in ("volume", "pieces")}
    for which, end in zip(("start", "end"), ends):
        distances = [chamfer_distance(mesh, end, chamfer_points, key) for mesh in meshes]
        along[f"chamfer_to_{which}"] = [None if np.isnan(each) else each for each in distances]
    return along


def facts_of_lines(lines: list[dict[str, list]], gamma: list[float]) -> dict[str, float | None]:
    """Return, over all pairs, the empty meshes, the pieces, and the mean rank correlation of gamma with the distances.

    Empty meshes have no distance and are left out; a line with fewer than three others has no correlation.
    """
    pieces = np.array([line["pieces"] for line in lines])
    found = {"meshes": pieces.size, "empty": int((pieces == 0).sum()), "pieces": float(pieces.mean())}
    for which in ("start", "end"):
        ranks = []
        for line in lines:
            there = [(g, far) for g, far in zip(gamma, line[f"chamfer_to_{which}"]) if far is not None]
            rank = correlation(*zip(*there), ranks=True) if len(there) > 2 else None
            if rank is not None:
                ranks.append(rank)
        found[which] = float(np.mean(ranks)) if ranks else None
    return found


def chamfer_distance(a: trimesh.Trimesh, b: trimesh.Trimesh, num_points: int, key: tuple[int, ...]) -> float:
    """Return the symmetric Chamfer distance of two surfaces: ½ (mean_p min_q |p - q| + mean_q min_p |q - p|).

    Distances are in units and Euclidean, not squared. p and q are `num_points` points each, drawn uniformly by area on
    a and then on b, from the seed `key`. Two draws on one surface are about ½ √(area / num_points) apart, so that a
    mesh is not at 0 from itself. The distance is NaN if a mesh is empty.
    """
    if not len(a.faces) or not len(b.faces):
        return float("nan")
    # One generator for both: equal draws on similar meshes would give too small a distance.
    rng = stream("points on surfaces", *key)
    p, q = (trimesh.sample.sample_surface(mesh, num_points, seed=rng)[0] for mesh in (a, b))
    return float(cKDTree(q).query(p)[0].mean() + cKDTree(p).query(q)[0].mean()) / 2
