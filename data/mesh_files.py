"""Mesh files: which ones a folder has, what each shape is called, and what is in them.

OBJ, OFF, PLY and STL are read by data/mesh_formats.py, glTF by trimesh.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import trimesh

from data.files import check_regular, list_files
from data.mesh_formats import PARSERS, Triangles, decode
from data.texts import parse_json
from models.errors import InputError

SUFFIXES = (".glb", ".gltf", ".obj", ".off", ".ply", ".stl")
# Other programs' meshes: not read, but named, so that no shape is missing unnoticed.
OTHER_SUFFIXES = (
    *(
        ".3dm",
        ".3ds",
        ".3mf",
        ".abc",
        ".amf",
        ".blend",
        ".brep",
        ".ctm",
        ".dae",
        ".dxf",
        ".fbx",
        ".iges",
        ".igs",
        ".lwo",
    ),
    *(".max", ".mesh", ".msh", ".obj.gz", ".off.gz", ".ply.gz", ".pmx", ".skp", ".step", ".stl.gz", ".stp", ".usd"),
    *(".usda", ".usdc", ".usdz", ".vrml", ".vtk", ".vtp", ".vtu", ".wrl", ".x3d", ".x_t", ".zip"),
)


# Which files, and their names


def list_meshes(folder: Path, out: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """Return the mesh files of a folder and of those below it, by the shape's name, and what is left out, with the reason.

    What lies beside or below `out`, where shapes are written, does not count.

    A file in the folder itself is named after its name without the suffix. One below it is named after its path: the parts at
    which all such paths agree, counted from the end, are dropped and the others joined by '-'. So ShapeNet's
    `ID/models/model_normalized.obj` are called ID, and `chairs/a.obj` and `tables/a.obj` are called chairs and tables.

    Raise InputError if there are no meshes, or if two would have one name.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; name one that has {' '.join(SUFFIXES)} files")
    listing = list_files(folder, (*SUFFIXES, *OTHER_SUFFIXES), subfolders=True)
    top = Path(os.path.realpath(folder))
    written = [
        each for each in (Path(os.path.realpath(out)), Path(os.path.realpath(out)).parent) if top in each.parents
    ]
    found = [
        path for path in listing.files if not any(each in Path(os.path.realpath(path)).parents for each in written)
    ]
    files = [path for path in found if path.suffix.lower() in SUFFIXES]
    others = [(path, f"not one of {' '.join(SUFFIXES)}") for path in found if path.suffix.lower() not in SUFFIXES]
    if not files:
        some = f", but {others[0][0].name}" if others else ""
        raise InputError(
            f"{folder} has no meshes ({' '.join(SUFFIXES)}){some}; add or convert some, or name another folder"
        )
    by_name: dict[str, Path] = {}
    for path, name in zip(files, names_of(folder, files)):
        other = by_name.setdefault(name, path)
        if other != path:
            raise InputError(f"{other} and {path} would be the same shape {name}; rename or remove one")
    return by_name, [*listing.left_out, *others]


def names_of(folder: Path, files: Sequence[Path]) -> list[str]:
    """Return the shapes' names, as `list_meshes` describes them."""
    parts = [[*file.relative_to(folder).parts[:-1], file.stem][::-1] for file in files]  # the file's own name first
    below = [each for each in parts if len(each) > 1]
    depth = max(map(len, below), default=0)
    at = [{each[i] if i < len(each) else None for each in below} for i in range(depth)]
    differing = {i for i in range(depth) if len(at[i]) > 1}
    names = []
    for each in parts:
        kept = [part for i, part in enumerate(each) if i in differing] if len(each) > 1 else each
        names.append("-".join(kept[::-1]) or each[0])
    return names


# Their content


def read_content(path: Path) -> bytes:
    """Return the bytes of a mesh file; a `.gltf` comes with its buffers in it and without images.

    Raise InputError if it, or a file that it needs, is missing or no regular file.
    """
    check_regular(path)
    try:
        content = path.read_bytes()
        return with_buffers(path, content) if path.suffix.lower() == ".gltf" else content
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); replace or remove it") from None


def with_buffers(path: Path, content: bytes) -> bytes:
    """Return a `.gltf` whose buffers, files beside it, are part of the text. Raise InputError if one is missing."""
    try:
        tree = parse_json(decode(content))
        buffers = tree.get("buffers", [])
        for buffer in buffers:
            uri = buffer["uri"]
            if not uri.startswith("data:"):
                beside = path.parent / unquote(uri)
                check_regular(beside)
                buffer["uri"] = "data:;base64," + base64.b64encode(beside.read_bytes()).decode("ascii")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path} needs another file: {error}") from None
        raise InputError(f"{path} cannot be read as a mesh ({type(error).__name__}); replace or remove it") from None
    return json.dumps({name: value for name, value in tree.items() if name not in ("images", "textures")}).encode()


def fingerprint_of_content(content: bytes) -> str:
    """Return the beginning of the SHA-256 of a mesh file's content, that of its buffers included."""
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


def parse_mesh(path: Path, content: bytes) -> Triangles:
    """Return all meshes of a file as one. Raise InputError if it is broken, or has no triangles."""
    suffix = path.suffix.lower()
    try:
        if suffix in PARSERS:
            vertices, faces = PARSERS[suffix](path, content)
        else:
            file = trimesh.util.wrap_as_stream(content)
            mesh = trimesh.load_scene(file, file_type=suffix[1:], process=False, skip_materials=True).to_mesh()
            vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except InputError:
        raise
    except Exception as error:  # what a broken file raises depends on its bytes
        raise InputError(f"{path} cannot be read as a mesh ({type(error).__name__}); replace or remove it") from None
    if not len(faces):
        raise InputError(f"{path} has no triangles; replace or remove it")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{path} has faces of vertices that are not there; replace or remove it")
    return vertices, faces
