"""Level sets and their measures against analytic meshes and slow references in float64."""

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import example, given
from hypothesis import strategies as st

from data.streams import stream
from evaluation.surfaces import chamfer_distance, level_set, level_sets, mesh_facts, mesh_of_grid
from models.errors import InputError

CPU = torch.device("cpu")
RESOLUTION = 48
VOXEL = 2 / (RESOLUTION - 1)
LOWER, UPPER = np.array([-0.8, -0.35, 0.1]), np.array([0.1, 0.05, 0.3])  # three lengths, no two centres alike


def sphere(center=(0.0, 0.0, 0.0), radius=0.6):
    return lambda points: (points - torch.tensor(center)).norm(dim=1) - radius


def torus(points):
    around = points[:, :2].norm(dim=1) - 0.6
    return torch.stack([around, points[:, 2]]).norm(dim=0) - 0.2


def box(points):
    center, half = torch.tensor(LOWER + UPPER) / 2, torch.tensor(UPPER - LOWER) / 2
    beyond = (points - center).abs() - half
    return beyond.clamp(min=0).norm(dim=1) + beyond.amax(dim=1).clamp(max=0)


def test_the_grid_is_regular_and_its_axes_keep_their_order():
    for resolution in (2, 7, 10, 33):
        seen = []

        def sdf(points, seen=seen):
            seen.append(points)
            return points[:, 0]

        level_set(sdf, resolution, CPU, chunk=50)
        axis = 2 * np.arange(resolution) / (resolution - 1) - 1
        reference = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        points = torch.cat(seen)
        assert points.dtype == torch.float32
        assert np.array_equal(points.numpy(), reference.astype(np.float32))


@pytest.mark.parametrize(
    ("sdf", "truth"),
    [
        (sphere(), trimesh.creation.icosphere(5, 0.6)),
        (torus, trimesh.creation.torus(0.6, 0.2, major_sections=128, minor_sections=64)),
        (box, trimesh.creation.box(bounds=[LOWER, UPPER])),
    ],
)
def test_level_sets_are_within_a_voxel_of_the_truth_and_closed(sdf, truth):
    mesh = level_set(sdf, RESOLUTION, CPU)
    assert chamfer_distance(mesh, truth, 20_000, (0,)) < VOXEL / 2
    assert np.abs(mesh.bounds - truth.bounds).max() < VOXEL / 2
    facts = mesh_facts(mesh)
    assert facts["volume"] == pytest.approx(truth.volume, abs=truth.area * VOXEL / 4) and facts["volume"] > 0
    assert facts["pieces"] == 1 and facts["faces"] == len(mesh.faces)


def test_no_vertex_of_an_off_centre_box_is_sheared_off_its_surface():
    mesh = level_set(box, RESOLUTION, CPU)
    off = box(torch.tensor(mesh.vertices)).abs()
    assert off.max() < VOXEL / 3  # marching cubes cuts corners and edges
    assert off.median() < 1e-6
    assert np.allclose(mesh.bounds, [LOWER, UPPER], atol=1e-5)


def test_chunks_do_not_change_the_mesh_and_instances_do_not_mix():
    centers = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1]])
    whole = level_sets(lambda points: torch.cdist(centers, points) - 0.5, 20, CPU)
    for chunk in (777, 8000):
        again = level_sets(lambda points: torch.cdist(centers, points) - 0.5, 20, CPU, chunk)
        assert all(np.array_equal(a.faces, b.faces) for a, b in zip(whole, again))
        assert all(np.allclose(a.vertices, b.vertices, atol=1e-6) for a, b in zip(whole, again))
    alone = [level_set(sphere(center, 0.5), 20, CPU) for center in centers.tolist()]
    assert all(np.allclose(a.vertices, b.vertices, atol=1e-5) for a, b in zip(whole, alone))


def test_a_network_is_evaluated_without_gradient():
    net = torch.nn.Linear(3, 1)
    graphs = []

    def sdf(points):
        values = net(points)[:, 0]
        graphs.append(values.requires_grad)
        return values

    level_set(sdf, 4, CPU)
    assert graphs == [False]


def test_without_a_sign_change_the_mesh_is_empty():
    for value in (1.0, 0.0, -1.0):
        mesh = level_set(lambda points, value=value: torch.full((len(points),), value), 5, CPU)
        assert mesh_facts(mesh) == {"volume": 0.0, "pieces": 0, "faces": 0}
        assert np.isnan(chamfer_distance(mesh, trimesh.creation.icosphere(), 10, (0,)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_distances_are_refused_with_the_instance(value):
    def sdfs(points):
        distances = points[:, 0].repeat(3, 1)
        distances[1, :5] = value
        return distances

    with pytest.raises(InputError, match="instance 1 gives NaN or infinity at 5 of 125 points") as refusal:
        level_sets(sdfs, 5, CPU)
    assert "\n" not in str(refusal.value)


def test_a_solid_that_leaves_the_cube_is_closed_at_its_faces():
    half = level_set(lambda points: points[:, 1] - 0.3, 21, CPU)
    assert mesh_facts(half)["volume"] == pytest.approx(2 * 2 * 1.3, rel=1e-5)
    assert np.allclose(half.bounds, [[-1, -1, -1], [1, 0.3, 1]], atol=1e-6)


@given(st.integers(0, 2**32), st.booleans())
@example(65, True)  # Lewiner's marching cubes folds this one
def test_every_level_set_is_closed_and_faces_outwards(seed, with_zeros):
    rng = np.random.default_rng(seed)
    distances = rng.integers(-1, 2, (5, 5, 5)) if with_zeros else rng.standard_normal((5, 5, 5))
    mesh = mesh_of_grid(distances.astype(np.float32))
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert 0 < mesh_facts(mesh)["volume"] < 8


def test_pieces_are_counted_however_small():
    def spheres(points):
        each = [sphere((-0.5, 0, 0), 0.3)(points), sphere((0.5, 0, 0), 0.3)(points), sphere((0, 0.75, 0), 0.05)(points)]
        return torch.stack(each).amin(dim=0)

    facts = mesh_facts(level_set(spheres, RESOLUTION, CPU))
    assert facts["pieces"] == 3
    assert facts["volume"] == pytest.approx(4 / 3 * np.pi * (2 * 0.3**3 + 0.05**3), rel=0.03)


def test_an_open_surface_has_no_volume():
    mesh = trimesh.creation.box()
    open_mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[1:])
    assert np.isnan(mesh_facts(open_mesh)["volume"]) and mesh_facts(open_mesh)["pieces"] == 1


def test_chamfer_is_the_mean_of_both_directions_by_brute_force():
    a, b = trimesh.creation.icosphere(2, 0.5), trimesh.creation.box((0.4, 0.9, 1.3))
    rng = stream("points on surfaces", 3, 1)  # the draws of the key
    p, q = (trimesh.sample.sample_surface(mesh, 300, seed=rng)[0] for mesh in (a, b))
    distances = np.sqrt(((p[:, None].astype(np.float64) - q[None]) ** 2).sum(axis=-1))
    reference = (distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2
    assert chamfer_distance(a, b, 300, (3, 1)) == pytest.approx(reference, rel=1e-12)


def test_chamfer_is_repeatable_and_in_the_unit_of_the_meshes():
    a, b = trimesh.creation.icosphere(4, 0.5), trimesh.creation.icosphere(4, 0.8)
    distance = chamfer_distance(a, b, 5000, (0,))
    assert distance == chamfer_distance(a, b, 5000, (0,)) != chamfer_distance(a, b, 5000, (1,))
    assert distance == pytest.approx(0.3, abs=0.01)
    assert distance == pytest.approx(chamfer_distance(b, a, 5000, (0,)), rel=0.01)


def test_points_are_drawn_by_area_however_a_surface_is_cut_into_triangles():
    coarse = trimesh.creation.box((1, 1, 1))
    right = np.flatnonzero(coarse.triangles_center[:, 0] > 0)
    vertices, faces = coarse.vertices, coarse.faces
    for _ in range(3):
        vertices, faces = trimesh.remesh.subdivide(vertices, faces, np.flatnonzero(vertices[faces].mean(1)[:, 0] > 0))
    uneven = trimesh.Trimesh(vertices, faces, process=False)
    assert len(uneven.faces) > 10 * len(right)
    noise = 0.5 * np.sqrt(6 / 4000)  # the docstring's distance of two drawings of one surface
    for mesh in (coarse, uneven):
        assert chamfer_distance(coarse, mesh, 4000, (0,)) == pytest.approx(noise, rel=0.1)
