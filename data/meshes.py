"""SDF samples of a folder of meshes, in parallel over the files.

Meshes may have holes, self-intersections and loose pieces: inside is where the winding number is above a half, after the
triangles of each surface were made to face the same way (data/orientation.py). The distance is to the nearest triangle, even
if that triangle lies within the shape. Meshes are not rotated. Figures show y upward.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import igl
import numpy as np
import trimesh
from tqdm import tqdm

from data.files import report_left_out, written_whole
from data.mesh_files import fingerprint_of_content, list_meshes, parse_mesh, read_content
from data.orientation import OneSidedError, faces_alike, welded
from data.sdf_samples import (
    RECIPE,
    check_both_signs,
    check_made_with,
    check_names,
    is_made,
    sample_points,
    split_by_sign,
    unit_sphere,
    write_samples,
)
from data.streams import stream
from models.errors import InputError

ORIGIN = b"made of "  # in the header of a shape's .ply, before the fingerprint of its mesh file


def read_mesh(path: Path, content: bytes | None = None) -> trimesh.Trimesh:
    """Return all meshes of a file as one, normalized to the unit sphere as in DeepSDF, without triangles of no area.

    The triangles of one surface face the same way, those of closed surfaces outward. `content` is the file's if it is read.
    Raise InputError if the file is unreadable, has no triangles, has vertices that are not finite, has no area, or if a surface
    has one side.
    """
    vertices, faces = parse_mesh(path, read_content(path) if content is None else content)
    chosen, faces = np.unique(faces, return_inverse=True)  # vertices of no triangle do not count
    used, faces = vertices[chosen], faces.reshape(-1, 3)
    if not np.isfinite(used).all():
        raise InputError(f"{path} has vertices that are not finite; replace or remove it")
    if not np.ptp(used, axis=0).any():
        raise InputError(f"{path} has no area; replace or remove it")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        centre, scale = unit_sphere(used)
    if not (np.isfinite(centre).all() and 0 < scale < np.inf):
        raise InputError(f"{path} has coordinates too large or too small to compute with; scale or remove it")
    mesh = trimesh.Trimesh((used - centre) * scale, faces, process=False)
    mesh.merge_vertices()  # .stl repeats each corner for each triangle
    mesh.faces = welded(mesh.vertices, mesh.faces)
    mesh.update_faces((np.diff(np.sort(mesh.faces, axis=1), axis=1) > 0).all(axis=1))  # three corners each
    if len(mesh.faces):
        try:
            mesh.faces = faces_alike(mesh.vertices, mesh.faces)
        except OneSidedError:
            raise InputError(f"{path} has a surface of one side, as a Möbius strip is; replace or remove it") from None
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    if not len(mesh.faces):
        raise InputError(f"{path} has no area; replace or remove it")
    return mesh


def signed_distance(mesh: trimesh.Trimesh, points: np.ndarray, clean: bool = False) -> np.ndarray:
    """Return the distance of points (N, 3) to the nearest triangle, (N,) float64, negative inside.

    A point is inside where the absolute winding number is above a half. `clean` says that the mesh is closed, faces
    outward and does not cross itself. The sign then comes from the normal at the nearest point, which is exact for
    such a mesh and several times faster.
    """
    points = np.asarray(points, np.float64)
    triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if clean:
        return igl.signed_distance(points, *triangles, sign_type=igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL)[0]
    # libigl's signs by winding number multiply the distance by 1 - 2|w|, which is not -1 in an overlap or near a hole
    distances, *_ = igl.signed_distance(points, *triangles, sign_type=igl.SIGNED_DISTANCE_TYPE_UNSIGNED)
    winding = igl.fast_winding_number(*triangles, points)
    return np.where(np.abs(winding) > 0.5, -distances, distances)


def prepare_mesh(source: Path, target: Path, num_samples: int, seed: int) -> None:
    """Write the samples and the normalized mesh of one file. The name of `target` is the shape's.

    Raise InputError like read_mesh, and if too few samples are inside or outside.
    """
    content = read_content(source)
    mesh = read_mesh(source, content)
    rng = stream("points of a mesh", seed, zlib.crc32(target.stem.encode()))
    points = sample_points(mesh, num_samples, rng)
    samples = split_by_sign(points, signed_distance(mesh, points))
    if not len(samples.negative):
        raise InputError(f"{source} has no inside; close the mesh or remove it")
    check_both_signs(samples, str(source))
    write_samples(target, samples)
    with written_whole(target.with_suffix(".ply")) as partial:  # the last: it says that both are made of this content
        mesh.export(partial)
        note_origin(partial, fingerprint_of_content(content))


def note_origin(ply: Path, fingerprint: str) -> None:
    """Write into a .ply's header which content it was made of."""
    start, end = ply.read_bytes().split(b"\n", 1)
    ply.write_bytes(b"\n".join([start, b"comment " + ORIGIN + fingerprint.encode(), end]))


def is_made_of(path: Path, source: Path) -> bool:
    """Return whether a shape's files exist and were made of a mesh file's present content, whenever it was written."""
    if not is_made(path):
        return False
    with path.with_suffix(".ply").open("rb") as file:
        found = re.search(rb"^comment " + ORIGIN + rb"(\S+)$", file.read(1 << 12), re.MULTILINE)
    try:
        return found is not None and found[1].decode() == fingerprint_of_content(read_content(source))
    except InputError:  # the worker that reads it says so
        return False


def prepare_worker() -> None:
    """Set up a worker process: one thread for libigl, no answer to Ctrl-C, an end with its parent.

    Otherwise every worker would use all cores and print a traceback at Ctrl-C, and all would outlive a killed script.
    """
    os.environ["IGL_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the parent process, then end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def prepare_meshes(source: Path, out: Path, num_samples: int, seed: int, workers: int | None = None) -> list[Path]:
    """Write `NAME.npz` and `NAME.ply` to `out` for the meshes of a folder. Return the paths of the `.npz`, by name.

    Names are those of `list_meshes`. A shape that was made of its mesh's present content is not made again. A file that cannot
    be used is left out, and a line on stderr names it with the reason. A shape depends on the seed and on its name and its
    file's content, not on the other files nor on the number of worker processes. There are as many workers as cores unless
    `workers` is given.

    Raise InputError if no file can be used, if a name cannot stand in lists or two are the same, if `out` is the folder itself,
    or if the shapes in `out` were made with another seed or number of samples.
    """
    files, left_out = list_meshes(source, out)
    check_names(files)
    if Path(os.path.realpath(out)) == Path(os.path.realpath(source)):
        raise InputError(f"the shapes would be written over the meshes in {source}; name another folder for them")
    check_made_with(out, {"recipe": RECIPE, "seed": seed, "num_samples": num_samples})
    report_left_out(left_out)
    targets = {name: out / f"{name}.npz" for name in files}
    missing = [name for name, file in files.items() if not is_made_of(targets[name], file)]
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads may hang
    most = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    pool = ProcessPoolExecutor(most, context, prepare_worker)
    refused = set()
    try:
        jobs = [pool.submit(prepare_mesh, files[name], targets[name], num_samples, seed) for name in missing]
        for name, job in zip(missing, tqdm(jobs, "meshes", leave=False, disable=None)):
            try:
                job.result()
            except BrokenProcessPool:
                raise InputError(
                    f"a process that made samples of a mesh in {source} was ended, perhaps because memory ran out; "
                    f"{files[name].name} or one soon after it is too large: remove it"
                ) from None
            except InputError as error:
                tqdm.write(f"left out: {error}", file=sys.stderr)
                refused.add(name)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the other files
    if len(refused) == len(files):
        raise InputError(f"none of the {len(files)} meshes in {source} can be used; see the reasons above")
    return [targets[name] for name in files if name not in refused]
