"""Retrieval: distances, neighbours and ranks against slow references."""

import numpy as np
import pytest
import torch
import trimesh

from data.streams import stream
from evaluation.retrieval import chamfer_distances, nearest_by, points_on, ranks_of
from evaluation.surfaces import chamfer_distance

SHAPES = [trimesh.creation.icosphere(2), trimesh.creation.box((1, 2, 1.5)), trimesh.creation.torus(1, 0.4)]


def test_chamfer_distances_of_all_pairs():
    ours, others = (points_on([*SHAPES, trimesh.Trimesh()], 50, which) for which in (0, 1))
    found = chamfer_distances(ours, others)
    for i, j in np.ndindex(3, 3):
        between = np.linalg.norm(ours[i][:, None] - others[j][None], axis=2)
        assert found[i, j] == pytest.approx((between.min(1).mean() + between.min(0).mean()) / 2)
    assert np.isinf(found[3]).all() and np.isinf(found[:, 3]).all()
    assert (found[:3, :3].argmin(1) == range(3)).all()


def test_distances_are_those_of_figures_but_for_the_points_drawn():
    ours, others = (points_on(SHAPES, 2000, which) for which in (0, 1))
    expected = chamfer_distance(SHAPES[0], SHAPES[1], 2000, (0,))
    assert chamfer_distances(ours, others)[0, 1] == pytest.approx(expected, rel=0.03)


def test_neighbours_and_ranks():
    rng = stream("embeddings of a test")
    ours, others = (torch.from_numpy(rng.standard_normal((n, 4))) for n in (5, 9))
    assert nearest_by(ours, others) == torch.cdist(ours, others).argmin(1).tolist()
    # products would lose such differences
    near = torch.tensor([[1e4, 0.0], [1e4 + 1, 0.0]])
    assert nearest_by(near + 0.25, near) == [0, 1]
    distances = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, np.inf]])
    assert ranks_of([0, 1], distances) == [3, 1] and ranks_of([2, 2], distances) == [2, 3]
