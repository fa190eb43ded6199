"""Retrieval: whether the nearest shape by embedding is among the nearest by Chamfer distance between surfaces."""

from collections.abc import Sequence

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from data.streams import stream

Points = np.ndarray | None  # (K, 3) on a surface; None of an empty mesh


def points_on(meshes: Sequence[trimesh.Trimesh], num: int, *key: int) -> list[Points]:
    """Return `num` points on each surface, drawn uniformly by area, (num, 3); None for a mesh of no faces."""
    found: list[Points] = []
    for i, mesh in enumerate(meshes):
        rng = stream("points of shapes to be found", *key, i)
        found.append(trimesh.sample.sample_surface(mesh, num, seed=rng)[0] if len(mesh.faces) else None)
    return found


def chamfer_distances(ours: Sequence[Points], others: Sequence[Points]) -> np.ndarray:
    """Return the Chamfer distances (N, N') between all pairs of surfaces, as `chamfer_distance`; infinite where one is empty."""
    trees = [[None if each is None else cKDTree(each) for each in points] for points in (ours, others)]
    distances = np.full((len(ours), len(others)), np.inf)
    for i, (a, tree_a) in enumerate(zip(tqdm(ours, "shapes compared", leave=False, disable=None), trees[0])):
        for j, (b, tree_b) in enumerate(zip(others, trees[1])):
            if tree_a is not None and tree_b is not None:
                distances[i, j] = (tree_b.query(a)[0].mean() + tree_a.query(b)[0].mean()) / 2
    return distances


def nearest_by(ours: Tensor, others: Tensor) -> list[int]:
    """Return the index of the nearest of `others` (N', D) to each of `ours` (N, D), by Euclidean distance."""
    # Differences, not products: embeddings that are close together are far from 0.
    return [(others - each).double().square().sum(1).argmin().item() for each in ours]


def ranks_of(chosen: Sequence[int], distances: np.ndarray) -> list[int]:
    """Return the rank of each chosen column in its row of distances (N, N'): 1 is the nearest. Ties have the lowest rank."""
    ranks = rankdata(distances, method="min", axis=1)
    return [int(ranks[i, column]) for i, column in enumerate(chosen)]
