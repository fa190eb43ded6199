"""Boxes, chairs and meshes: distances against slow, obvious ones; surfaces closed; what cannot be used is named."""

import contextlib
import io
import itertools
import re

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from data.boxes import union_distance, union_mesh
from data.chairs import chair_boxes, make_chairs
from data.meshes import SUFFIXES, prepare_mesh, prepare_meshes, read_mesh, signed_distance
from data.sdf_samples import read_samples, sample_points
from models.errors import InputError

SIDE = 5  # of the grid of unit cubes that the boxes of the slow reference lie on


@st.composite
def boxes_on_a_grid(draw) -> np.ndarray:
    """1 to 4 boxes with whole corners from 0 to SIDE: they overlap, touch and contain each other often."""
    corners = []
    for _ in range(draw(st.integers(1, 4))):
        ends = [sorted(draw(st.lists(st.integers(0, SIDE), min_size=2, max_size=2, unique=True))) for _ in range(3)]
        corners.append(np.array(ends, dtype=np.float64).T)
    return np.array(corners)


def cubes_of(boxes: np.ndarray) -> set[tuple[int, int, int]]:
    """The unit cubes of a union, each by its lower corner."""
    return {
        cube
        for cube in itertools.product(range(SIDE), repeat=3)
        if any(all(lower <= cube) and all(cube < upper) for lower, upper in boxes)
    }


def slow_distance(cubes: set[tuple[int, int, int]], points: np.ndarray) -> np.ndarray:
    """To the nearest square between a cube of the union and one that is not; negative in a cube of the union."""
    nearest = np.full(len(points), np.inf)
    for cube in cubes:
        for axis, step in itertools.product(range(3), (0, 1)):
            beyond = np.array(cube)
            beyond[axis] += 2 * step - 1
            if tuple(beyond) not in cubes:
                lower, upper = np.array(cube), np.array(cube) + 1
                lower[axis] = upper[axis] = cube[axis] + step
                away = points - np.clip(points, lower, upper)
                nearest = np.minimum(nearest, np.linalg.norm(away, axis=1))
    inside = [tuple(point) in cubes for point in np.floor(points).astype(int)]
    return np.where(inside, -nearest, nearest)


@settings(max_examples=40)
@given(boxes_on_a_grid(), st.integers(0, 99))
def test_distance_of_a_union_is_that_to_its_nearest_unit_square(boxes, seed):
    points = np.random.default_rng(seed).uniform(-1, SIDE + 1, (100, 3))
    assert np.allclose(union_distance(boxes, points), slow_distance(cubes_of(boxes), points), rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(boxes_on_a_grid())
def test_the_surface_of_a_union_is_closed_and_holds_its_volume(boxes):
    mesh = union_mesh(boxes)
    assert mesh.volume == pytest.approx(len(cubes_of(boxes)))
    # every edge is met as often in one direction as in the other, also where boxes meet in an edge alone
    edges = np.concatenate([mesh.faces[:, [i, (i + 1) % 3]] for i in range(3)])
    assert sorted(map(tuple, edges)) == sorted(map(tuple, edges[:, ::-1]))
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)


def test_the_least_of_the_boxes_own_distances_is_wrong_inside():
    touching = np.array([[[0, 0, 0], [1, 2, 2]], [[1, 0, 0], [2, 2, 2]]])
    middle = np.array([[1.0, 1.0, 1.0]])  # on the face that the two share
    assert min(union_distance(each[None], middle)[0] for each in touching) == 0
    assert union_distance(touching, middle)[0] == -1


def test_distance_of_chairs_is_libigls_to_their_mesh():
    rng = np.random.default_rng(0)
    for i in range(3):
        boxes = chair_boxes((0, i))
        mesh = union_mesh(boxes)
        points = sample_points(mesh, 5000, rng)
        assert np.allclose(union_distance(boxes, points), signed_distance(mesh, points), rtol=0, atol=1e-9)


def volume_of(boxes: np.ndarray) -> float:
    """Layer by layer between all coordinates of one axis: each layer's area likewise, and so on down to points."""
    if boxes.shape[2] == 0:
        return float(len(boxes) > 0)
    planes = np.unique(boxes[:, :, 0])
    return sum(
        (above - below) * volume_of(boxes[(boxes[:, 0, 0] <= below) & (boxes[:, 1, 0] >= above)][:, :, 1:])
        for below, above in itertools.pairwise(planes)
    )


@pytest.mark.parametrize("i", range(40))
def test_chairs_are_normalized_symmetric_thick_and_in_one_piece(i):
    boxes = chair_boxes((0, i))
    mesh = union_mesh(boxes)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    assert mesh.volume == pytest.approx(volume_of(boxes))
    assert np.allclose(mesh.bounds[0], -mesh.bounds[1])
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1 / 1.03)
    assert (boxes[:, 1] - boxes[:, 0]).min() > 0.08
    points = np.random.default_rng(i).uniform(-1, 1, (500, 3))
    assert np.allclose(union_distance(boxes, points), union_distance(boxes, points * (-1, 1, 1)))
    assert np.array_equal(boxes, chair_boxes((0, i)))


def test_chairs_differ():
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (4000, 3))
    inside = np.array([union_distance(chair_boxes((0, i)), points) < 0 for i in range(16)])
    for a, b in itertools.combinations(inside, 2):
        assert (a & b).sum() < 0.85 * (a | b).sum()


def test_chairs_are_made_once_and_do_not_depend_on_how_many_there_are(tmp_path):
    few = make_chairs(tmp_path / "few", 2, seed=3, num_samples=2000)
    many = make_chairs(tmp_path / "many", 3, seed=3, num_samples=2000)
    assert [path.name for path in many] == ["chair-000.npz", "chair-001.npz", "chair-002.npz"]
    for a, b in zip(few, many):
        assert a.read_bytes() == b.read_bytes()
        assert a.with_suffix(".ply").read_bytes() == b.with_suffix(".ply").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "few").glob("chair*")}
    few[1].unlink()
    assert make_chairs(tmp_path / "few", 2, seed=3, num_samples=2000) == few
    again = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {few[1], few[1].with_suffix(".ply")}
    with pytest.raises(InputError, match="made with seed 3, not 4"):
        make_chairs(tmp_path / "few", 2, seed=4, num_samples=2000)


def test_chair_files_hold_the_distances_of_their_mesh(tmp_path):
    (path,) = make_chairs(tmp_path, 1, seed=0, num_samples=3000)
    samples, mesh = read_samples(path), trimesh.load_mesh(path.with_suffix(".ply"))
    assert len(samples.positive) + len(samples.negative) == 3000
    for rows, sign in ((samples.positive, 1), (samples.negative, -1)):
        assert (sign * rows[:, 3] >= 0).all()
        assert np.allclose(signed_distance(mesh, rows[:, :3]), rows[:, 3], rtol=0, atol=1e-6)


def sphere(centre: tuple[float, float, float] = (0, 0, 0), radius: float = 1) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    mesh.apply_translation(centre)
    return mesh


def to_sphere(points: np.ndarray, centre: tuple[float, float, float] = (0, 0, 0), radius: float = 1) -> np.ndarray:
    return np.linalg.norm(points - centre, axis=1) - radius


POINTS = np.random.default_rng(0).uniform(-1.2, 1.2, (4000, 3))
FACET = 0.002  # how far the sphere's triangles lie within it


@pytest.mark.parametrize("inverted", [False, True])
def test_distance_to_a_sphere_whichever_way_its_triangles_turn(inverted):
    mesh = sphere()
    if inverted:
        mesh.invert()
    assert np.abs(signed_distance(mesh, POINTS) - to_sphere(POINTS)).max() < FACET


def test_distance_to_a_sphere_with_a_hole():
    mesh = sphere()
    mesh.update_faces(mesh.triangles_center[:, 1] < 0.9)
    mesh.remove_unreferenced_vertices()
    assert not mesh.is_watertight
    away = np.linalg.norm(POINTS - (0, 1, 0), axis=1) > 0.9  # the hole's rim is 0.44 from its axis
    assert np.abs(signed_distance(mesh, POINTS) - to_sphere(POINTS))[away].max() < FACET


def test_distance_to_spheres_that_overlap():
    ends = ((-0.3, 0, 0), (0.3, 0, 0))
    mesh = trimesh.util.concatenate([sphere(centre, 0.6) for centre in ends])
    distances = signed_distance(mesh, POINTS)
    each = np.array([to_sphere(POINTS, centre, 0.6) for centre in ends])
    clear = np.abs(each).min(0) > FACET
    assert np.array_equal((distances < 0)[clear], (each.min(0) < 0)[clear])
    assert np.abs(np.abs(distances) - np.abs(each).min(0)).max() < FACET  # to the nearest triangle, though it be within


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of every kind of file that can be used, and of some that cannot."""
    folder = tmp_path_factory.mktemp("meshes")
    for suffix in SUFFIXES:
        mesh = trimesh.creation.box((1, 2, 3))
        mesh.apply_translation((5, 6, 7))
        mesh.export(folder / f"box-{suffix[1:]}{suffix}")
    scene = trimesh.Scene([sphere()])
    scene.add_geometry(sphere(), transform=trimesh.transformations.translation_matrix((3, 0, 0)))
    scene.export(folder / "two.glb")
    (folder / "unreadable.glb").write_bytes(b"no mesh")
    (folder / "empty.ply").write_bytes(b"")
    (folder / "no_triangles.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    (folder / "zero_area.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    (folder / "point.obj").write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    (folder / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "notes.txt").write_text("no mesh, and no business of ours")
    return folder


def prepared(source, out, workers):
    """The paths, and the lines on stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        paths = prepare_meshes(source, out, num_samples=2000, seed=0, workers=workers)
    return paths, stderr.getvalue().splitlines()


@pytest.fixture(scope="module")
def shapes(source, tmp_path_factory):
    return prepared(source, tmp_path_factory.mktemp("shapes"), workers=2)


def test_meshes_of_every_kind_are_normalized_and_sampled(shapes):
    paths, _ = shapes
    assert [path.name for path in paths] == [f"box-{suffix[1:]}.npz" for suffix in SUFFIXES] + ["two.npz"]
    half = np.array([0.5, 1, 1.5]) / np.linalg.norm([0.5, 1, 1.5]) / 1.03
    for path in paths[:-1]:
        samples, mesh = read_samples(path), trimesh.load_mesh(path.with_suffix(".ply"))
        assert len(samples.positive) + len(samples.negative) == 2000
        assert np.allclose(mesh.bounds, [-half, half], atol=1e-6)
        assert mesh.is_watertight and len(mesh.vertices) == 8
        rows = np.concatenate([samples.positive, samples.negative])
        assert np.allclose(union_distance(np.array([[-half, half]]), rows[:, :3]), rows[:, 3], atol=1e-6)


def test_all_meshes_of_a_scene_count(shapes):
    mesh = trimesh.load_mesh(shapes[0][-1].with_suffix(".ply"))
    assert mesh.body_count == 2
    assert np.allclose(mesh.extents * 2.5 * 1.03, (5, 2, 2), atol=1e-3)


def test_meshes_that_cannot_be_used_are_named_with_the_reason_and_left_out(shapes):
    paths, lines = shapes
    reasons = {
        "empty.ply": "cannot be read",
        "flat.obj": "no inside",
        "nan.obj": "not finite",
        "no_triangles.obj": "no triangles",
        "point.obj": "no area",
        "unreadable.glb": "cannot be read",
        "zero_area.obj": "no area",
    }
    assert len(lines) == len(reasons)
    for line, (name, reason) in zip(lines, reasons.items()):
        assert re.search(f"{name} .*{reason}.*; .*remove it", line)
    assert {path.stem for path in paths[0].parent.glob("*.npz")} == {path.stem for path in paths}


def test_shapes_do_not_depend_on_the_other_files_nor_on_the_workers(source, shapes, tmp_path):
    for path in shapes[0]:
        (file,) = source.glob(f"{path.stem}.*")
        prepare_mesh(file, tmp_path / path.name, num_samples=2000, seed=0)  # in this process, alone
        for suffix in (".npz", ".ply"):
            assert (tmp_path / path.name).with_suffix(suffix).read_bytes() == path.with_suffix(suffix).read_bytes()


def test_shapes_are_made_once_and_again_when_their_mesh_changes(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b"):
        sphere().export(source / f"{name}.ply")
        prepare_mesh(source / f"{name}.ply", out / f"{name}.npz", num_samples=2000, seed=0)
    first = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    trimesh.creation.box().export(source / "b.ply")
    paths, _ = prepared(source, out, workers=None)
    assert paths == [out / "a.npz", out / "b.npz"]
    assert {path.name for path, time in first.items() if path.stat().st_mtime_ns != time} == {"b.npz", "b.ply"}
    assert len(trimesh.load_mesh(out / "b.ply").faces) == 12


def test_folders_that_give_no_shapes_are_refused(tmp_path):
    def refused(match, source, out="out"):
        with pytest.raises(InputError, match=match) as refusal:
            prepared(tmp_path / source, tmp_path / out, workers=1)
        assert "\n" not in str(refusal.value)

    refused("no folder .*source", "source")
    (tmp_path / "source").mkdir()
    refused("holds no meshes", "source")
    (tmp_path / "source" / "a.obj").write_bytes(b"")
    refused("over the meshes", "source", "source")
    refused("none of the 1 meshes", "source")
    (tmp_path / "source" / "a.STL").write_bytes(b"")
    refused("a.STL and .*a.obj would be the same shape a", "source")


def test_triangles_of_no_area_and_vertices_of_no_triangle_do_not_count(tmp_path):
    box = trimesh.creation.box((1, 2, 3))
    far = np.concatenate([box.vertices, [[100, 0, 0]]])
    faces = np.concatenate([box.faces, [[0, 0, 1], [2, 2, 2]]])
    trimesh.Trimesh(far, faces, process=False).export(tmp_path / "a.off")
    mesh = read_mesh(tmp_path / "a.off")
    assert len(mesh.faces) == 12 and len(mesh.vertices) == 8
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1 / 1.03)
