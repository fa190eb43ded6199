"""Chairs and meshes as signed distances: against slow references in float64; surfaces closed; bad files named."""

import contextlib
import io
import itertools
import os
import re

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from data.chairs import STEP, chair_boxes, make_chairs, union_mesh
from data.mesh_files import SUFFIXES
from data.meshes import prepare_mesh, prepare_meshes, read_mesh, signed_distance
from data.sdf_samples import read_samples, sample_points
from data.shapes import make_shapes
from data.streams import stream
from models.errors import InputError

SIDE = 5  # of the grid that boxes lie on


@st.composite
def boxes_on_a_grid(draw) -> np.ndarray:
    """1 to 4 boxes with whole corners from 0 to SIDE: they often overlap, touch and contain each other."""
    corners = []
    for _ in range(draw(st.integers(1, 4))):
        ends = [sorted(draw(st.lists(st.integers(0, SIDE), min_size=2, max_size=2, unique=True))) for _ in range(3)]
        corners.append(np.array(ends, dtype=np.float64).T)
    return np.array(corners)


def is_inside(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) bool: whether points (N, 3) are in one of the boxes."""
    return ((points[:, None] > boxes[:, 0]) & (points[:, None] < boxes[:, 1])).all(axis=2).any(axis=1)


def surface_rectangles(boxes: np.ndarray) -> np.ndarray:
    """The surface of a union as flat boxes (R, 2, 3).

    The planes of all faces cut space into cells. The surface is between a cell inside and one outside.
    """
    planes = [np.unique(boxes[:, :, axis]) for axis in range(3)]
    planes = [np.concatenate([[each[0] - 1], each, [each[-1] + 1]]) for each in planes]
    shape = [len(each) - 1 for each in planes]
    centres = np.stack(np.meshgrid(*((each[1:] + each[:-1]) / 2 for each in planes), indexing="ij"), axis=-1)
    inside = is_inside(boxes, centres.reshape(-1, 3)).reshape(shape)
    rectangles = []
    for cell in np.argwhere(inside):
        for axis, step in itertools.product(range(3), (0, 1)):
            beyond = cell.copy()
            beyond[axis] += 2 * step - 1
            if not inside[tuple(beyond)]:
                ends = np.array([[planes[k][cell[k]], planes[k][cell[k] + 1]] for k in range(3)]).T
                ends[:, axis] = ends[step, axis]
                rectangles.append(ends)
    return np.array(rectangles)


def slow_distance(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Signed distance (N,) of points (N, 3) to a union of boxes: to the nearest rectangle of the surface."""
    nearest = np.full(len(points), np.inf)
    for lower, upper in surface_rectangles(boxes):
        away = points - np.clip(points, lower, upper)
        nearest = np.minimum(nearest, np.linalg.norm(away, axis=1))
    return np.where(is_inside(boxes, points), -nearest, nearest)


def slow_volume(boxes: np.ndarray) -> float:
    """Layer by layer between all coordinates of one axis: each layer's area likewise, and so on down to points."""
    if boxes.shape[2] == 0:
        return float(len(boxes) > 0)
    planes = np.unique(boxes[:, :, 0])
    return sum(
        (above - below) * slow_volume(boxes[(boxes[:, 0, 0] <= below) & (boxes[:, 1, 0] >= above)][:, :, 1:])
        for below, above in itertools.pairwise(planes)
    )


def slow_area(boxes: np.ndarray) -> float:
    sides = np.diff(surface_rectangles(boxes), axis=1)[:, 0]
    return sum(np.prod(np.delete(each, each.argmin())) for each in sides)


@pytest.mark.parametrize("clean", [False, True])
@settings(max_examples=40)
@given(boxes=boxes_on_a_grid(), seed=st.integers(0, 99))
def test_distance_to_a_unions_mesh_is_that_to_the_nearest_rectangle_of_its_surface(clean, boxes, seed):
    points = np.random.default_rng(seed).uniform(-1, SIDE + 1, (100, 3))
    distances = signed_distance(union_mesh(boxes), points, clean)
    assert np.allclose(distances, slow_distance(boxes, points), rtol=0, atol=1e-12)


@settings(max_examples=60)
@given(boxes_on_a_grid(), st.floats(0.1, 0.3), st.floats(-1, 0))
def test_the_mesh_of_a_union_is_closed_and_has_no_walls_inside(boxes, scale, offset):
    boxes = boxes * scale + offset  # coordinates with all bits in use: rounding must not part faces that touch
    rounded = np.round(boxes / STEP) * STEP
    mesh = union_mesh(boxes)
    assert mesh.vertices.dtype == np.float64
    assert mesh.is_watertight and mesh.is_winding_consistent  # also where boxes meet in an edge alone
    assert mesh.volume == pytest.approx(slow_volume(rounded), rel=1e-12)
    assert mesh.area == pytest.approx(slow_area(rounded), rel=1e-12)
    on_surface = np.concatenate([mesh.vertices, mesh.triangles_center])
    assert np.abs(slow_distance(rounded, on_surface)).max() < 1e-12
    assert np.abs(rounded - boxes).max() < 1e-6


def test_distance_inside_is_to_the_union_not_to_a_face_that_another_box_covers():
    touching = np.array([[[0, 0, 0], [1, 2, 2]], [[1, 0, 0], [2, 2, 2]]], dtype=np.float64)
    middle = np.array([[1.0, 1.0, 1.0]])  # on the face where the two boxes touch
    assert [signed_distance(union_mesh(each[None]), middle)[0] for each in touching] == [0, 0]
    assert signed_distance(union_mesh(touching), middle)[0] == -1


def chair(i: int) -> np.ndarray:
    return chair_boxes(stream("chair", 0, i))


@pytest.mark.parametrize("clean", [False, True])
def test_distance_to_chairs_is_that_of_a_slow_reference(clean):
    for i in range(8):
        mesh = union_mesh(chair(i))
        points = sample_points(mesh, 500, np.random.default_rng(i)).astype(np.float64)
        distances = signed_distance(mesh, points, clean)
        assert distances.dtype == np.float64
        assert np.allclose(distances, slow_distance(chair(i), points), rtol=0, atol=1e-6)


@pytest.mark.parametrize("i", range(40))
def test_chairs_are_normalized_symmetric_thick_and_in_one_piece(i):
    boxes = chair(i)
    mesh = union_mesh(boxes)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    assert mesh.volume == pytest.approx(slow_volume(boxes), rel=1e-4)
    assert mesh.area == pytest.approx(slow_area(boxes), rel=1e-4)
    assert np.allclose(mesh.bounds[0], -mesh.bounds[1], rtol=0, atol=1e-6)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(1 / 1.03, abs=1e-6)
    assert (boxes[:, 1] - boxes[:, 0]).min() > 0.08
    points = np.random.default_rng(i).uniform(-1, 1, (500, 3))
    mirrored = points * (-1, 1, 1)
    assert np.allclose(signed_distance(mesh, points), signed_distance(mesh, mirrored), rtol=0, atol=1e-6)
    assert np.array_equal(boxes, chair(i))


def test_chairs_differ():
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (4000, 3))
    inside = np.array([is_inside(chair(i), points) for i in range(16)])
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


def test_chair_files_contain_the_distances_of_their_mesh(tmp_path):
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
FACET = 0.002  # how far the sphere's triangles are inside it


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
    assert np.abs(np.abs(distances) - np.abs(each).min(0)).max() < FACET  # to the nearest triangle, even one inside


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
    (folder / "notes.txt").write_text("no mesh")
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
        assert np.allclose(slow_distance(np.array([[-half, half]]), rows[:, :3]), rows[:, 3], atol=1e-6)


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
    os.utime(source / "b.ply", (0, 0))  # as an archive leaves it: the content counts
    os.utime(source / "a.ply")
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
    refused("no meshes", "source")
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


# DeepSDF's files


def rows(num, sign=1, dtype=np.float32):
    distances = sign * np.linspace(0.01, 0.1, num)
    return np.column_stack([np.zeros((num, 3)), distances]).astype(dtype)


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


UNUSABLE = {
    "neg is empty": ({"pos": rows(9), "neg": rows(0)}, "'neg'"),
    "neg has one row": ({"pos": rows(9), "neg": rows(1, -1)}, "1 samples of one sign"),
    "another shape": ({"pos": rows(9)[:, :3], "neg": rows(9, -1)}, r"'pos' is \(9, 3\)"),
    "integers": ({"pos": rows(9).astype(int), "neg": rows(9, -1)}, "int64"),
    "infinite": ({"pos": np.append(rows(9), [[0, 0, 0, np.inf]], axis=0), "neg": rows(9, -1)}, "not finite"),
    "too large for float32": ({"pos": rows(9, 1e300, np.float64), "neg": rows(9, -1)}, "not finite"),
    "the other sign": ({"pos": rows(9, -1), "neg": rows(9)}, "'pos' .*negative inside"),
    "one of the other sign": (
        {"pos": rows(9), "neg": np.append(rows(9, -1), rows(1), axis=0)},
        "'neg' has 1 .*positive",
    ),
    "pickled": ({"pos": np.array([Trap()], object), "neg": rows(9, -1)}, "cannot be read"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_samples_that_cannot_be_used_are_named_and_the_other_shapes_go_on(tmp_path, monkeypatch, capfd, what):
    arrays, reason = UNUSABLE[what]
    monkeypatch.chdir(tmp_path)
    for name in ("a", "c"):
        np.savez(f"{name}.npz", pos=rows(9, 1, np.float64), neg=rows(9, -1, np.float16))
    np.savez("b.npz", **arrays)
    assert [path.name for path in make_shapes("deepsdf", ".", tmp_path / "out", 9, 100, 0)] == ["a.npz", "c.npz"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("left out: ") and re.search(rf"b\.npz.*{reason}", line)
    for name in ("a", "c"):
        os.remove(f"{name}.npz")
    with pytest.raises(InputError, match="none of the 1"):
        make_shapes("deepsdf", ".", tmp_path / "out", 9, 100, 0)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_files_beside_deepsdfs_samples_are_no_shapes(tmp_path, capfd):
    for name in ("a", "b"):
        for kind, arrays in (
            ("SdfSamples", {"pos": rows(9), "neg": rows(9, -1)}),
            ("NormalizationParameters", {"offset": np.zeros(3), "scale": np.ones(1)}),
        ):
            (tmp_path / kind / "ShapeNetV2/03001627").mkdir(parents=True, exist_ok=True)
            np.savez(tmp_path / kind / f"ShapeNetV2/03001627/{name}.npz", **arrays)
    samples = tmp_path / "SdfSamples/ShapeNetV2/03001627"
    (samples / "._a.npz").write_bytes(b"a Mac's")
    os.mkfifo(samples / "fifo.npz")  # would never end
    (samples / "folder.npz").mkdir()
    (samples / "broken.npz").write_bytes((samples / "a.npz").read_bytes()[:300])
    found = make_shapes("deepsdf", str(tmp_path), tmp_path / "out", 9, 100, 0)
    assert found == [samples / "a.npz", samples / "b.npz"]
    printed = capfd.readouterr().err
    assert len(printed.splitlines()) == 2 and "broken.npz" in printed and "NormalizationParameters" in printed
    assert make_shapes("deepsdf", str(tmp_path), tmp_path / "out", 1, 100, 0) == [samples / "a.npz"]
    np.savez(tmp_path / "a.npz", pos=rows(9), neg=rows(9, -1))
    with pytest.raises(InputError, match="same shape a"):
        make_shapes("deepsdf", str(tmp_path), tmp_path / "out", 9, 100, 0)


@pytest.mark.parametrize("name", ["a\nb", " a", os.fsdecode(b"a\xff")])
def test_names_of_samples_that_lists_cannot_have_are_refused(tmp_path, name):
    np.savez(tmp_path / "good.npz", pos=rows(9), neg=rows(9, -1))
    (tmp_path / f"{name}.npz").write_bytes((tmp_path / "good.npz").read_bytes())
    with pytest.raises(InputError, match="rename it"):
        make_shapes("deepsdf", str(tmp_path), tmp_path / "out", 9, 100, 0)
