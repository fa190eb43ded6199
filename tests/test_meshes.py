"""Mesh files as other programs write them, their names, and which way triangles face: against the exact distance to boxes."""

import contextlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from data.mesh_files import OTHER_SUFFIXES, list_meshes, parse_mesh, read_content
from data.meshes import prepare_meshes, read_mesh, signed_distance
from data.sdf_samples import check_names, read_samples
from models.errors import InputError

POINTS = np.random.default_rng(0).uniform(-1, 1, (1500, 3))
UNIT = [((-0.5,) * 3, (0.5,) * 3)]
INNER = [((-0.25,) * 3, (0.25,) * 3)]
L_CORNERS = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]


def to_box(lower, upper, points):
    away = np.abs(points - (lower + upper) / 2) - (upper - lower) / 2
    return np.linalg.norm(np.maximum(away, 0), axis=1) + np.minimum(away.max(axis=1), 0)


def check_distances(mesh, bounds, boxes, cavities=()):
    """Compare with boxes that are apart, and cavities in them, in the units of the file, whose bounds are (2, 3)."""
    lower, upper = np.array(bounds, np.float64)
    centre, scale = (lower + upper) / 2, 1 / (1.03 * np.linalg.norm(upper - lower) / 2)

    def to(pair):
        return to_box(*((np.array(each) - centre) * scale for each in pair), POINTS)

    expected = np.min([to(pair) for pair in boxes], axis=0)
    for pair in cavities:
        expected = np.maximum(expected, -to(pair))
    assert np.abs(signed_distance(mesh, POINTS) - expected).max() < 1e-6


def polygons_of(kind):
    """Return vertices and polygons of a cube of four-sided faces, or of a prism over a concave L."""
    square = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    corners, low, high = (square, -0.5, 0.5) if kind == "cube" else (L_CORNERS, 0, 1)
    num = len(corners)
    vertices = [(x, y, z) for z in (low, high) for x, y in corners]
    sides = [[i, (i + 1) % num, (i + 1) % num + num, i + num] for i in range(num)]
    return vertices, [list(range(num))[::-1], list(range(num, 2 * num)), *sides]


def lines(rows):
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


def text_of(suffix, vertices, polygons):
    """Return a mesh file's text, with a comment whose letters are not ASCII."""
    counted = lines([len(each), *each] for each in polygons)
    if suffix == ".obj":
        faces = lines(["f", *(f"{i + 1}/1/1" for i in each)] for each in polygons)
        return (
            "# Möbel\nmtllib ü.mtl\no Würfel\n"
            + lines(["v", *each] for each in vertices)
            + "vt 0 0\nvn 0 0 1\n"
            + faces
        )
    if suffix == ".off":
        return f"OFF\n# Möbel\n{len(vertices)} {len(polygons)} 0\n" + lines(vertices) + counted
    if suffix == ".ply":
        header = f"ply\nformat ascii 1.0\ncomment Möbel\nelement vertex {len(vertices)}\n"
        header += "".join(f"property float {axis}\n" for axis in "xyz")
        return (
            f"{header}element face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n"
            + lines(vertices)
            + counted
        )
    mesh = trimesh.Trimesh(vertices, [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)])
    return (
        trimesh.exchange.stl.export_stl_ascii(mesh)
        .replace("solid", "solid Möbel")
        .replace("endsolid Möbel", "endsolid")
    )


WRITTEN = {
    "in UTF-8": lambda text: text.encode(),
    "in latin-1": lambda text: text.encode("latin-1"),
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "in UTF-16": lambda text: text.encode("utf-16"),
    "with tabs": lambda text: text.replace(" ", "\t").encode(),
    "with spaces around": lambda text: text.replace("\n", "  \n \t ").encode(),
    "with blank lines": lambda text: text.replace("\n", "\n\n").encode(),
    "with lines ended as on Windows": lambda text: text.replace("\n", "\r\n").encode("latin-1"),
    "with lines ended as on old Macs": lambda text: text.replace("\n", "\r").encode(),
    "without a last newline": lambda text: text.rstrip().encode(),
}


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".stl"])
@pytest.mark.parametrize("how", WRITTEN)
def test_a_cube_of_text_is_a_cube_however_it_is_written(tmp_path, suffix, how):
    (tmp_path / f"a{suffix}").write_bytes(WRITTEN[how](text_of(suffix, *polygons_of("cube"))))
    mesh = read_mesh(tmp_path / f"a{suffix}")
    assert len(mesh.vertices) == 8 and len(mesh.faces) == 12
    check_distances(mesh, UNIT[0], UNIT)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply"])
def test_concave_polygons_have_no_triangle_outside_them(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_text(text_of(suffix, *polygons_of("L")), encoding="utf-8")
    mesh = read_mesh(tmp_path / f"a{suffix}")
    assert len(mesh.faces) == 20 and mesh.is_watertight
    scale = 1 / (1.03 * np.linalg.norm([1, 1, 0.5]))
    assert mesh.volume == pytest.approx(3 * scale**3) and mesh.area == pytest.approx(14 * scale**2)  # a fan's is 15


@given(st.integers(3, 12), st.integers(0, 99), st.booleans())
def test_polygons_are_cut_into_triangles_of_their_area_that_turn_as_they_do(num, seed, clockwise):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.permutation(3 * num)[:num]) * 2 * np.pi / (3 * num)
    radius = rng.uniform(0.2, 1, num)  # a star, mostly concave, which may not have its centre in it
    if np.diff(np.append(angles, angles[0] + 2 * np.pi)).max() >= np.pi:
        return
    flat = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)[:: -1 if clockwise else 1]
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    corners = flat @ axes + rng.normal(size=3)
    text = lines(["v", *each] for each in corners) + lines([["f", *range(1, num + 1)]])
    vertices, faces = parse_mesh(Path("a.obj"), text.encode())
    crosses = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]) / 2
    area = abs(np.sum(flat[:, 0] * np.roll(flat[:, 1], -1) - flat[:, 1] * np.roll(flat[:, 0], -1))) / 2
    normal = np.cross(*axes) * (-1 if clockwise else 1)
    assert len(faces) == num - 2
    assert np.linalg.norm(crosses, axis=1).sum() == pytest.approx(area)
    assert np.allclose(crosses.sum(axis=0), area * normal)


def test_an_obj_written_part_by_part_with_negative_indices_is_all_its_parts(tmp_path):
    vertices, polygons = polygons_of("cube")
    parts = []
    for shift in (0, 3):
        parts.append(lines(["v", x + shift, y, z] for x, y, z in vertices))
        parts.append(lines(["f", *(i - 8 for i in each)] for each in polygons))
    (tmp_path / "a.obj").write_text("".join(parts))
    mesh = read_mesh(tmp_path / "a.obj")
    assert mesh.body_count == 2
    check_distances(mesh, ((-0.5,) * 3, (3.5, 0.5, 0.5)), [*UNIT, ((2.5, -0.5, -0.5), (3.5, 0.5, 0.5))])


def test_other_lines_of_an_obj_do_not_count_and_long_ones_may_be_split(tmp_path):
    vertices, polygons = polygons_of("cube")
    text = lines(["v", *each, 1, 0.5, 0.5, 0.5] for each in vertices)  # w, and colours
    text += "l 1 2\np 1\ns off\nusemtl ü\ng a b\ncall x.obj\n"
    text += "".join("f " + " \\\n ".join(f"{i + 1}//3" for i in each) + " # side\n" for each in polygons)
    (tmp_path / "a.OBJ").write_text(text, encoding="latin-1")
    check_distances(read_mesh(tmp_path / "a.OBJ"), UNIT[0], UNIT)


@pytest.mark.parametrize(
    ("line", "number"), [("f 1 2 9", 4), ("f 1 2 -4", 4), ("f 0 1 2", 4), ("f 1 2", 4), ("f a b c", 4), ("v 1 2", 4)]
)
def test_a_bad_line_of_an_obj_is_named_by_its_number(tmp_path, line, number):
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\n{line}\nf 1 2 3\n")
    with pytest.raises(InputError, match=rf"a\.obj, line {number}\b"):
        read_mesh(tmp_path / "a.obj")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_binary_ply_of_polygons_and_other_elements_is_read(tmp_path, order):
    vertices, polygons = polygons_of("L")
    kind = "little" if order == "<" else "big"
    header = (
        f"ply\r\nformat binary_{kind}_endian 1.0\r\ncomment Möbel\r\nelement tag 2\r\nproperty list uint8 short of\r\n"
    )
    header += f"element vertex {len(vertices)}\r\nproperty uchar red\r\n"
    header += "".join(f"property double {axis}\r\n" for axis in "zxy")
    header += f"element face {len(polygons)}\r\nproperty list uchar float uv\r\nproperty list int uint vertex_index\r\n"
    content = header.encode("latin-1") + b"end_header\r\n" + b"\x00" + b"\x01" + np.array([7], order + "i2").tobytes()
    for x, y, z in vertices:
        content += b"\xff" + np.array([z, x, y], order + "f8").tobytes()
    for each in polygons:
        content += b"\x02" + np.array([0, 1], order + "f4").tobytes()
        content += np.array([len(each), *each], order + "u4").tobytes()
    (tmp_path / "a.ply").write_bytes(content)
    mesh = read_mesh(tmp_path / "a.ply")
    assert mesh.is_watertight and mesh.volume * (1.03 * 1.5) ** 3 == pytest.approx(3)
    (tmp_path / "a.ply").write_bytes(content[:-1])
    with pytest.raises(InputError, match="a.ply cannot be read"):
        read_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize("size", [1e-170, 1e170, 1e308])
def test_coordinates_that_squares_cannot_hold_are_refused_by_name(tmp_path, size):
    vertices, polygons = polygons_of("cube")
    text = text_of(".obj", [[size * x for x in each] for each in vertices], polygons)
    (tmp_path / "a.obj").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="a.obj"):
        read_mesh(tmp_path / "a.obj")


# .gltf


def write_gltf(folder, mesh, name="a"):
    """Write `a.gltf` and its buffers, one of them with a space in its name."""
    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene([mesh]))
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        if file.endswith(".gltf"):
            content, file = content.replace(b"gltf_buffer_0.bin", b"the%20first.bin"), f"{name}.gltf"
        (folder / file.replace("gltf_buffer_0", "the first")).write_bytes(content)


def test_a_gltf_is_read_with_the_buffers_beside_it(tmp_path):
    write_gltf(tmp_path, trimesh.creation.box())
    check_distances(read_mesh(tmp_path / "a.gltf"), UNIT[0], UNIT)
    (tmp_path / "the first.bin").unlink()
    with pytest.raises(InputError, match="a.gltf .*the first.bin"):
        read_mesh(tmp_path / "a.gltf")
    os.mkfifo(tmp_path / "the first.bin")  # would never end
    with pytest.raises(InputError, match="a.gltf .*the first.bin"):
        read_mesh(tmp_path / "a.gltf")
    (tmp_path / "a.gltf").write_text('{"buffers": [3]}')
    with pytest.raises(InputError, match="a.gltf cannot be read"):
        read_mesh(tmp_path / "a.gltf")


# Which way triangles face


def cube(centre=(0, 0, 0), side=1.0, times=0, inward=False):
    mesh = trimesh.creation.box((side,) * 3)
    for _ in range(times):
        mesh = mesh.subdivide()
    mesh.apply_translation(centre)
    if inward:
        mesh.invert()
    return mesh


def turned(mesh, which):
    faces = mesh.faces.copy()
    faces[which] = faces[which][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def joined(*meshes):
    return trimesh.util.concatenate(meshes)


def read(folder, mesh):
    text = lines(["v", *each] for each in mesh.vertices.tolist())
    (folder / "a.obj").write_text(text + lines(["f", *each] for each in (mesh.faces + 1).tolist()))
    return read_mesh(folder / "a.obj")


HOLLOW = joined(cube(), cube(side=0.5, inward=True))
SOLID = joined(cube(), cube(side=0.5))
EVERY_OTHER = slice(None, None, 2)
MESHES = {
    "every other triangle turned": (turned(cube(), EVERY_OTHER), UNIT, []),
    "triangles turned at random": (turned(cube(times=2), np.random.default_rng(0).random(192) < 0.4), UNIT, []),
    "all turned": (cube(inward=True), UNIT, []),
    "two, one of them inward": (
        joined(cube(), cube((3, 0, 0), inward=True)),
        [*UNIT, ((2.5, -0.5, -0.5), (3.5, 0.5, 0.5))],
        [],
    ),
    "a cavity": (HOLLOW, UNIT, INNER),
    "a cavity, all turned": (joined(cube(inward=True), cube(side=0.5)), UNIT, INNER),
    "a cavity, every other triangle turned": (turned(HOLLOW, EVERY_OTHER), UNIT, INNER),
    "a cavity, one triangle of either cube turned": (turned(HOLLOW, [0, 14]), UNIT, INNER),
    "double-sided": (joined(cube(), cube(inward=True)), UNIT, []),
    "double-sided, each triangle beside its reverse": (
        trimesh.Trimesh(
            cube().vertices, np.stack([cube().faces, cube().faces[:, ::-1]], axis=1).reshape(-1, 3), process=False
        ),
        UNIT,
        [],
    ),
    "double-sided, with a cavity": (joined(HOLLOW, turned(HOLLOW, slice(None))), UNIT, INNER),
    "half of the sides double": (joined(cube(), turned(cube(), slice(None)).submesh([range(6)])[0]), UNIT, []),
}


@pytest.mark.parametrize("what", MESHES)
def test_signs_are_right_whichever_way_the_triangles_were_turned(tmp_path, what):
    mesh, boxes, cavities = MESHES[what]
    check_distances(read(tmp_path, mesh), mesh.bounds, boxes, cavities)


@pytest.mark.parametrize("inward", [False, True])
def test_cubes_that_overlap_are_inside_in_the_overlap_too(tmp_path, inward):
    mesh = joined(cube(), cube((0.5, 0.5, 0.5), inward=inward))
    overlap = np.array([(0.24, 0.24, 0.24), (-0.2, -0.2, -0.2), (0.6, 0.6, 0.6), (0.9, -0.4, 0.9)])
    points = (overlap - 0.25) / (1.03 * np.linalg.norm([0.75] * 3))
    assert np.sign(signed_distance(read(tmp_path, mesh), points)).tolist() == [-1, -1, -1, 1]


def test_a_solid_in_a_solid_stays_one(tmp_path):
    for mesh in (SOLID, turned(SOLID, [0, 14])):
        assert signed_distance(read(tmp_path, mesh), np.zeros((1, 3)))[0] < 0


@pytest.mark.parametrize("twice", [False, True])
def test_a_sphere_with_a_hole_keeps_its_inside_when_triangles_are_turned(tmp_path, twice):
    whole = trimesh.creation.icosphere(3)
    whole.update_faces(whole.triangles_center[:, 1] < 0.9)
    whole.remove_unreferenced_vertices()
    mixed = turned(whole, np.random.default_rng(0).random(len(whole.faces)) < 0.5)
    if twice:
        mixed = joined(mixed, turned(mixed, slice(None)))
    expected, found = (signed_distance(read(tmp_path, mesh), POINTS) for mesh in (whole, mixed))
    assert (expected < 0).mean() > 0.3
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_cubes_that_share_a_wall_of_two_sides_stay_solid(tmp_path):
    mesh = read(tmp_path, joined(cube(), cube((1, 0, 0))))
    centres = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0.5, 0.8, 0)]) / (1.03 * np.linalg.norm([1, 0.5, 0.5]))
    assert np.sign(signed_distance(mesh, centres)).tolist() == [-1, -1, 1]


def moebius():
    vertices, faces, num = [], [], 40
    for angle in np.linspace(0, 2 * np.pi, num, endpoint=False):
        for across in (-0.3, 0.3):
            radius = 1 + across * np.cos(angle / 2)
            vertices.append((radius * np.cos(angle), radius * np.sin(angle), across * np.sin(angle / 2)))
    for i in range(num):
        ahead = (2 * i + 2, 2 * i + 3) if i < num - 1 else (1, 0)
        faces += [(2 * i, 2 * i + 1, ahead[0]), (2 * i + 1, ahead[1], ahead[0])]
    return trimesh.Trimesh(vertices, faces, process=False)


def test_a_moebius_strip_is_left_out_because_it_has_one_side(tmp_path):
    with pytest.raises(InputError, match=r"a\.obj .*one side"):
        read(tmp_path, moebius())


# Which files, and their names


def found(folder):
    files, left_out = list_meshes(folder, folder.parent / "out")
    return {name: path.relative_to(folder).as_posix() for name, path in files.items()}, {
        path.name for path, _ in left_out
    }


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_shapes_below_folders_are_named_by_what_tells_their_paths_apart(tmp_path):
    shapenet = tmp_path / "shapenet"
    touch(shapenet, *(f"{each}/models/model_normalized.{end}" for each in "ab" for end in ("obj", "mtl", "json")))
    assert found(shapenet)[0] == {each: f"{each}/models/model_normalized.obj" for each in "ab"}
    touch(tmp_path / "kinds", "chairs/a.obj", "chairs/b.obj", "tables/a.obj", "lamp.ply")
    expected = {"chairs-a": "chairs/a.obj", "chairs-b": "chairs/b.obj", "tables-a": "tables/a.obj", "lamp": "lamp.ply"}
    assert found(tmp_path / "kinds")[0] == expected
    touch(tmp_path / "one", "models/model.obj")
    assert found(tmp_path / "one")[0] == {"model": "models/model.obj"}
    touch(tmp_path / "twice", "a/model.obj", "b/model.obj", "a.obj")
    with pytest.raises(InputError, match="same shape a"):
        found(tmp_path / "twice")


def test_whatever_else_may_be_a_mesh_is_named_as_left_out(tmp_path):
    folder = tmp_path / "meshes"
    touch(folder, "a.obj", "._a.obj", "__MACOSX/a.obj", "notes.txt", "a.mtl", *(f"b{end}" for end in OTHER_SUFFIXES))
    os.mkfifo(folder / "c.obj")
    (folder / "d.ply").mkdir()
    files, left_out = found(folder)
    assert files == {"a": "a.obj"}
    others = {f"b{end}" for end in OTHER_SUFFIXES}
    assert {"._a.obj", "__MACOSX", "c.obj", *others} <= left_out and not {"notes.txt", "a.mtl"} & left_out
    shutil.rmtree(folder)
    touch(folder, "chair.fbx")
    with pytest.raises(InputError, match="chair.fbx"):
        found(folder)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", " a", "a ", "a\u2028b", os.fsdecode(b"a\xff"), "a" * 200])
def test_names_that_lists_cannot_have_are_refused_before_anything_is_made(tmp_path, name):
    folder = tmp_path / "meshes"
    folder.mkdir()
    trimesh.creation.box().export(folder / "good.ply")
    (folder / f"{name}.ply").write_bytes((folder / "good.ply").read_bytes())
    with pytest.raises(InputError, match="rename it"):
        prepare_meshes(folder, tmp_path / "out", num_samples=100, seed=0, workers=1)
    assert not (tmp_path / "out").exists()


def test_usual_names_are_accepted(tmp_path):
    check_names(dict.fromkeys(("chair;1", "Stuhl für Gäste", "lr=0.1", "a.b", "椅子", "-1"), tmp_path))


# Made again


def prepared(source, out):
    with contextlib.redirect_stderr(io.StringIO()):
        return prepare_meshes(source, out, num_samples=1000, seed=0, workers=1)


def test_shapes_below_their_meshes_are_no_meshes(tmp_path):
    trimesh.creation.box().export(tmp_path / "a.ply")
    out = tmp_path / "runs/meshes/shapes"
    assert prepared(tmp_path, out) == [out / "a.npz"]
    (tmp_path / "runs/meshes/mlps").mkdir()
    trimesh.creation.box().export(tmp_path / "runs/meshes/mlps/level-set.ply")
    assert prepared(tmp_path, out) == [out / "a.npz"]


def test_a_shape_is_made_again_when_a_buffer_of_its_mesh_changes_or_it_was_not_finished(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    write_gltf(source, trimesh.creation.box())
    content = read_content(source / "a.gltf")
    (path,) = prepared(source, out)
    cube_samples = path.read_bytes()
    written = path.stat().st_mtime_ns
    assert prepared(source, out) == [path] and path.stat().st_mtime_ns == written
    write_gltf(source, trimesh.creation.icosphere(3))
    for each in source.iterdir():
        os.utime(each, (0, 0))  # as an archive leaves it
    assert read_content(source / "a.gltf") != content
    prepared(source, out)
    assert path.read_bytes() != cube_samples
    samples = read_samples(path)
    rows = np.concatenate([samples.positive, samples.negative])
    assert np.abs(np.linalg.norm(rows[:, :3], axis=1) - 1 / 1.03 - rows[:, 3]).max() < 0.01
    right = path.read_bytes()
    path.write_bytes(cube_samples)  # samples of the cube beside the sphere: what is written last is the mesh
    path.with_suffix(".ply").write_bytes(trimesh.creation.box().export(file_type="ply"))
    prepared(source, out)
    assert path.read_bytes() == right


# Files of one kind that look like another, and vertices that do not count


def test_parts_that_were_rounded_apart_face_the_same_way(tmp_path):
    """Each face of a cube has corners of its own, up to 1e-7 from its neighbours', and every other one is turned over."""
    vertices, polygons = polygons_of("cube")
    corners = np.concatenate([np.asarray(vertices)[each] for each in polygons])
    corners += 1e-7 * np.random.default_rng(0).uniform(-1, 1, corners.shape)
    faces = [[4 * i + j for j in range(4)][:: -1 if i % 2 else 1] for i in range(len(polygons))]
    (tmp_path / "a.obj").write_text(text_of(".obj", corners.tolist(), faces), encoding="utf-8")
    check_distances(read_mesh(tmp_path / "a.obj"), UNIT[0], UNIT)


@pytest.mark.parametrize("word", ["nan", "inf", "1e400"])
def test_vertices_of_no_triangle_need_not_be_finite(tmp_path, word):
    text = text_of(".obj", *polygons_of("cube")) + f"v {word} 0 0\n"
    (tmp_path / "a.obj").write_text(text, encoding="utf-8")
    check_distances(read_mesh(tmp_path / "a.obj"), UNIT[0], UNIT)


def test_a_comment_may_name_the_end_of_a_ply_header(tmp_path):
    text = text_of(".ply", *polygons_of("cube")).replace("comment Möbel", "comment before end_header")
    (tmp_path / "a.ply").write_text(text)
    check_distances(read_mesh(tmp_path / "a.ply"), UNIT[0], UNIT)


@pytest.mark.parametrize("after", [b"", b"\0\0", b"\n"])
def test_a_binary_stl_may_begin_with_solid_and_end_later(tmp_path, after):
    content = trimesh.Trimesh(*read_faces("cube")).export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(b"solid cube".ljust(80) + content[80:] + after)
    check_distances(read_mesh(tmp_path / "a.stl"), UNIT[0], UNIT)


def read_faces(name):
    vertices, polygons = polygons_of(name)
    return vertices, [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("a.stl", lambda text: text[: len(text) // 2], "too early"),
        ("a.stl", lambda text: "v 0 0 0\n" * 30, "triangles"),
        ("a.obj", lambda text: "<html></html>", "v and f"),
        ("a.off", lambda text: text[: len(text) // 2], "fewer lines"),
    ],
)
def test_a_mesh_file_that_is_cut_or_of_another_kind_is_refused_with_a_true_reason(tmp_path, name, change, match):
    (tmp_path / name).write_text(change(text_of(name[1:], *polygons_of("cube"))), encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}.*({match})"):
        read_mesh(tmp_path / name)


@pytest.mark.parametrize("promised", [0, 11, 13, 2**32 - 1])
def test_an_stl_with_another_number_of_triangles_than_it_promises_is_refused(tmp_path, promised):
    content = trimesh.Trimesh(*read_faces("cube")).export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(content[:80] + promised.to_bytes(4, "little") + content[84:])
    with pytest.raises(InputError, match=f"a.stl.*{promised}"):
        read_mesh(tmp_path / "a.stl")
