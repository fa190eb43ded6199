"""OBJ, OFF, PLY and STL: vertices and triangles, as other programs write them, in any encoding, with any white space and line ends.

Polygons may be concave, and an OBJ's negative indices count back from where the face stands: trimesh's readers do neither.
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import manifold3d
import numpy as np

from models.errors import InputError, brief

UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
Triangles = tuple[np.ndarray, np.ndarray]  # vertices (V, 3) float64, triangles (F, 3) int64
Properties = dict[
    str, tuple[str, str]
]  # of a PLY's element: types of the values and, for a list, of its length; else ""
PLY_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
PLY_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
PLY_TYPES |= {"float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"}


def decode(content: bytes) -> str:
    """Return a text in UTF-8, UTF-16 with a byte order mark, or latin-1, without the mark, with lines ended by newlines."""
    try:
        text = content.decode("utf-16" if content[:2] in UTF_16 else "utf-8-sig")
    except UnicodeError:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_stl(path: Path, content: bytes) -> Triangles:
    """Return the vertices, each corner of a triangle one, and triangles of an STL, text or binary.

    A binary one has the triangles that its header promises; the header may begin with "solid", as the text does.
    """
    promised = struct.unpack("<I", content[80:84])[0] if len(content) >= 84 else 0
    if promised and promised == (len(content) - 84) // 50:
        table = np.frombuffer(content, np.dtype([("numbers", "<f4", 12), ("colour", "<u2")]), promised, 84)
        corners = table["numbers"][:, 3:].astype(np.float64)
    else:
        words = decode(content).lower().split() if content[:2] in UTF_16 or b"\0" not in content[:1024] else []
        if words[:1] != ["solid"]:
            has = f"its header promises {promised} triangles, its size is that of {max(len(content) - 84, 0) // 50}"
            raise InputError(f"{path} cannot be read as a mesh ({has}); replace or remove it")
        if not any(word.startswith("endsolid") for word in words):
            raise InputError(f"{path} ends too early (without 'endsolid'); replace or remove it")
        starts = [i for i, word in enumerate(words) if word == "vertex"]
        corners = np.array([words[i + 1 : i + 4] for i in starts], np.float64)
    corners = corners.reshape(-1, 3)
    if len(corners) % 3:
        raise InputError(f"{path} has {len(corners)} corners, not three for each triangle; replace or remove it")
    return corners, np.arange(len(corners)).reshape(-1, 3)


def parse_obj(path: Path, content: bytes) -> Triangles:
    """Return the vertices and triangles of an OBJ; normals, textures, groups, materials, lines and points are ignored."""
    vertices: list[list[float]] = []
    polygons: list[list[int]] = []
    lines: list[int] = []
    for number, words in obj_lines(decode(content)):
        try:
            if words[0] == "v":
                vertices.append([float(word) for word in words[1:4]])
                if len(words) < 4:
                    raise ValueError
            elif words[0] in ("f", "fo"):  # fo: what f was called once
                indices = [int(word.split("/")[0]) for word in words[1:]]
                if 0 in indices or len(indices) < 3:
                    raise ValueError
                polygons.append([i - 1 if i > 0 else len(vertices) + i for i in indices])
                lines.append(number)
        except ValueError:
            what = "a vertex" if words[0] == "v" else "a face"
            raise InputError(f"{path}, line {number}: '{brief(' '.join(words))}' is not {what}; replace it") from None
    if not vertices and not polygons:
        raise InputError(f"{path} has no lines that begin with v and f, as those of an OBJ do; replace or remove it")
    for number, polygon in zip(lines, polygons):
        if min(polygon) < 0 or max(polygon) >= len(vertices):
            raise InputError(f"{path}, line {number}: a face of vertices that are not there; replace or remove it")
    return as_triangles(np.array(vertices, np.float64).reshape(-1, 3), polygons)


def obj_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of each line with its number, without comments; a line that ends in a backslash goes on in the next."""
    before: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.split("#", 1)[0].rstrip()
        before += line.removesuffix("\\").split()
        if not line.endswith("\\"):
            if before:
                yield number, before
            before = []
    if before:
        yield number, before


def parse_off(path: Path, content: bytes) -> Triangles:
    """Return the vertices and triangles of an OFF, which may have colours, normals and texture coordinates."""
    lines = [words for line in decode(content).split("\n") if (words := line.split("#", 1)[0].split())]
    kind = re.fullmatch(r"(ST)?C?N?OFF(.*)", lines[0][0].upper()) if lines else None
    if not kind or lines[0][1:2] == ["BINARY"]:
        raise InputError(f"{path} cannot be read as a mesh (it is no OFF of text); replace or remove it")
    first = [word for word in (kind[2], *lines[0][1:]) if word]
    rows = [first, *lines[1:]] if first else lines[1:]
    num_vertices, num_faces = (int(word) for word in rows[0][:2])
    if num_vertices < 0 or num_faces < 0 or len(rows) < 1 + num_vertices + num_faces:
        raise InputError(f"{path} has fewer lines than vertices and faces; replace or remove it")
    vertices = np.array([row[:3] for row in rows[1 : 1 + num_vertices]], np.float64).reshape(num_vertices, 3)
    polygons = []
    for row in rows[1 + num_vertices : 1 + num_vertices + num_faces]:
        polygons.append([int(word) for word in row[1 : 1 + int(row[0])]])
        if not polygons[-1] and row[0] == "0":
            continue
        if len(polygons[-1]) != int(row[0]) or min(polygons[-1]) < 0 or max(polygons[-1]) >= num_vertices:
            raise InputError(f"{path} has a face of vertices that are not there; replace or remove it")
    return as_triangles(vertices, [polygon for polygon in polygons if len(polygon) > 2])


def parse_ply(path: Path, content: bytes) -> Triangles:
    """Return the vertices and triangles of a PLY, text or binary; colours, normals and other elements are ignored."""
    if content[:2] in UTF_16:
        content = decode(content).encode()
    end = re.search(rb"(?<=[\r\n])[ \t]*end_header[ \t]*(\r\n|\n|\r)", content, re.IGNORECASE)
    if not end or not decode(content[:16]).lstrip().lower().startswith("ply"):
        raise InputError(
            f"{path} cannot be read as a mesh (it does not begin with the header of a PLY); replace or remove it"
        )
    order, elements = parse_ply_header(decode(content[: end.start()]))
    body = content[end.end() :]
    data = np.frombuffer(body, np.uint8) if order else np.array(decode(body).split(), np.float64)
    vertices, polygons = np.zeros((0, 3)), []
    for name, count, properties in elements:
        columns, data = read_element(data, count, properties, order)
        if name == "vertex":
            vertices = np.stack([np.asarray(columns[axis], np.float64) for axis in "xyz"], axis=1)
        elif name == "face":
            lists = [each for each, (_, length) in properties.items() if length]
            chosen = next((each for each in ("vertex_indices", "vertex_index") if each in lists), lists[0])
            polygons = [indices.tolist() for indices in columns[chosen] if len(indices) > 2]
    numbers = [[int(i) for i in polygon] for polygon in polygons]
    if numbers and (min(map(min, numbers)) < 0 or max(map(max, numbers)) >= len(vertices)):
        raise InputError(f"{path} has faces of vertices that are not there; replace or remove it")
    return as_triangles(vertices, numbers)


def parse_ply_header(header: str) -> tuple[str, list[tuple[str, int, Properties]]]:
    """Return the byte order ("" for text) and the elements: name, count, properties. Anything may be raised for a broken one."""
    order, elements = "", []
    for words in (line.lower().split() for line in header.split("\n")):
        if words[:1] == ["format"]:
            order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), Properties()))
        elif words[:2] == ["property", "list"]:
            elements[-1][2][words[4]] = (PLY_TYPES[words[3]], PLY_TYPES[words[2]])
        elif words[:1] == ["property"]:
            elements[-1][2][words[2]] = (PLY_TYPES[words[1]], "")
    return order, elements


def read_element(
    data: np.ndarray, count: int, properties: Properties, order: str
) -> tuple[dict[str, list[np.ndarray] | np.ndarray], np.ndarray]:
    """Return a PLY element's columns, a list's one array a row, and the data after it: bytes, or the numbers of a text.

    Raise ValueError if the data ends before.
    """
    types = {
        name: [np.dtype(order + each if order else "f8") for each in pair if each] for name, pair in properties.items()
    }

    def read_row(start: int) -> tuple[dict[str, np.ndarray], int]:
        row = {}
        for name, (kind, *of_length) in types.items():
            number = 1
            for each in of_length:
                end = start + each.itemsize // data.itemsize
                number, start = int(data[start:end].view(each)[0]), end
            end = start + number * kind.itemsize // data.itemsize
            if not start <= end <= len(data):
                raise ValueError(f"'{name}' ends too early")
            row[name], start = data[start:end].view(kind), end
        return row, start

    if not count or not types:
        return {name: [] for name in types}, data
    first, _ = read_row(0)
    fields: list[tuple] = []  # of a row like the first: most files have nothing but triangles
    for name, (kind, *of_length) in types.items():
        fields += [(f"{name} length", each) for each in of_length]
        fields.append((name, kind, (len(first[name]),)) if of_length else (name, kind))
    size = np.dtype(fields).itemsize * count // data.itemsize
    if size <= len(data):
        table = data[:size].view(np.dtype(fields))
        if all((table[f"{name} length"] == len(first[name])).all() for name, each in types.items() if len(each) > 1):
            return {name: table[name] for name in types}, data[size:]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in types}
    start = 0
    for _ in range(count):
        row, start = read_row(start)
        for name, values in row.items():
            columns[name].append(values)
    return {name: values if len(types[name]) > 1 else np.concatenate(values) for name, values in columns.items()}, data[
        start:
    ]


def as_triangles(vertices: np.ndarray, polygons: list[list[int]]) -> Triangles:
    """Return the vertices, and the polygons as triangles (F, 3): fans, where a polygon is convex.

    A fan of a concave polygon would have triangles outside it, and distances to these would be wrong.
    """
    parts = []
    for size in sorted({len(polygon) for polygon in polygons}):
        group = np.array([polygon for polygon in polygons if len(polygon) == size], np.int64)  # (K, size)
        fan = np.stack([np.zeros(size - 2, np.int64), np.arange(1, size - 1), np.arange(2, size)], axis=1)
        cut = group[:, fan]  # (K, size - 2, 3)
        if size > 3:
            with np.errstate(over="ignore", invalid="ignore"):  # coordinates that are not finite are refused later
                corners = vertices[group] - vertices[group[:, :1]]  # (K, size, 3)
                edges = np.roll(corners, -1, axis=1) - corners
                turns = np.cross(edges, np.roll(edges, -1, axis=1))  # along the normal where convex
                normals = np.cross(corners, np.roll(corners, -1, axis=1)).sum(axis=1)
                signs = np.einsum("kni,ki->kn", turns, normals)
                concave = (signs.min(axis=1) < -1e-9 * np.abs(signs).max(axis=1)) & np.isfinite(signs).all(axis=1)
            for k in np.flatnonzero(concave):
                triangles = cut_concave(corners[k], normals[k])
                if len(triangles) == size - 2:
                    cut[k] = group[k][triangles]
        parts.append(cut.reshape(-1, 3))
    return vertices, np.concatenate(parts) if parts else np.zeros((0, 3), np.int64)


def cut_concave(corners: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return a polygon, whose corners (N, 3) turn about a normal, as triangles (N - 2, 3) of their indices."""
    normal = normal / np.linalg.norm(normal)
    right = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    right /= np.linalg.norm(right)
    plane = np.stack([right, np.cross(normal, right)], axis=1)  # counterclockwise about the normal
    return np.asarray(manifold3d.triangulate([corners @ plane]), np.int64)


PARSERS: dict[str, Callable[[Path, bytes], Triangles]] = {
    ".obj": parse_obj,
    ".off": parse_off,
    ".ply": parse_ply,
    ".stl": parse_stl,
}
