"""SDF samples of a folder of meshes, in parallel over the files.

Meshes may have holes, self-intersections and loose pieces: inside is where the winding number is above a half. The
distance is to the nearest triangle, even if that triangle lies within the shape. Meshes are not rotated. Figures show y
upward.
"""

import multiprocessing
import os
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

from data.files import written_whole
from data.sdf_samples import RECIPE, check_made_with, is_made, sample_points, split_by_sign, unit_sphere, write_samples
from data.streams import stream
from models.errors import InputError

SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl")


def read_mesh(path: Path) -> trimesh.Trimesh:
    """Return all meshes of a file as one, normalized to the unit sphere as in DeepSDF, without triangles of no area.

    Raise InputError if the file is unreadable, has no triangles, has vertices that are not finite, or has no area.
    """
    try:
        mesh = trimesh.load_scene(path, process=False, skip_materials=True).to_mesh()
    except Exception as error:  # what a broken file raises depends on its bytes
        raise InputError(f"{path} cannot be read as a mesh ({type(error).__name__}); replace or remove it") from None
    if not len(mesh.faces):
        raise InputError(f"{path} has no triangles; replace or remove it")
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{path} has vertices that are not finite; replace or remove it")
    vertices = mesh.vertices[np.unique(mesh.faces)]  # vertices of no triangle do not count
    if not np.ptp(vertices, axis=0).any():
        raise InputError(f"{path} has no area; replace or remove it")
    centre, scale = unit_sphere(vertices)
    mesh = trimesh.Trimesh((mesh.vertices - centre) * scale, mesh.faces, process=False)
    mesh.merge_vertices()  # .stl repeats each corner for each triangle
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
    """Write the samples and the normalized mesh of one file.

    Raise InputError like read_mesh, and if no sample is inside.
    """
    mesh = read_mesh(source)
    rng = stream("points of a mesh", seed, zlib.crc32(source.stem.encode()))
    points = sample_points(mesh, num_samples, rng)
    samples = split_by_sign(points, signed_distance(mesh, points))
    if not len(samples.negative):
        raise InputError(f"{source} has no inside; close the mesh or remove it")
    with written_whole(target.with_suffix(".ply")) as partial:
        mesh.export(partial)
    write_samples(target, samples)


def list_meshes(source: Path) -> list[Path]:
    """Return the mesh files of a folder by name. Raise InputError if there are none or two would have one name."""
    if not source.is_dir():
        raise InputError(f"no folder {source}; name one that has {' '.join(SUFFIXES)} files")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{source} has no meshes ({' '.join(SUFFIXES)}); add some or name another folder")
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other} and {path} would be the same shape {path.stem}; rename or remove one")
    return files


def is_newer(path: Path, than: Path) -> bool:
    """Return whether a file is as new as another or newer."""
    return path.stat().st_mtime >= than.stat().st_mtime


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

    A shape that exists and is newer than its mesh is not made again. A file that cannot be used is left out, and a line
    on stderr names it with the reason. A shape depends on the seed and on its file's name and content, not on the other
    files nor on the number of worker processes. There are as many workers as cores unless `workers` is given.

    Raise InputError if no file can be used, if two have the same name, if `out` is the folder itself, or if the shapes
    in `out` were made with another seed or number of samples.
    """
    files = list_meshes(source)
    if out.resolve() == source.resolve():
        raise InputError(f"the shapes would be written over the meshes in {source}; name another folder for them")
    check_made_with(out, {"recipe": RECIPE, "seed": seed, "num_samples": num_samples})
    targets = {file: out / f"{file.stem}.npz" for file in files}
    missing = [file for file in files if not (is_made(targets[file]) and is_newer(targets[file], file))]
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads may hang
    most = min(workers or os.cpu_count() or 1, max(len(missing), 1))
    pool = ProcessPoolExecutor(most, context, prepare_worker)
    refused = set()
    try:
        jobs = [pool.submit(prepare_mesh, file, targets[file], num_samples, seed) for file in missing]
        for file, job in zip(missing, tqdm(jobs, "meshes", leave=False, disable=None)):
            try:
                job.result()
            except BrokenProcessPool:
                raise InputError(
                    f"a process that made samples of a mesh in {source} was ended, perhaps because memory ran out; "
                    f"{file.name} or one soon after it is too large: remove it"
                ) from None
            except InputError as error:
                tqdm.write(f"left out: {error}", file=sys.stderr)
                refused.add(file)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the other files
    if len(refused) == len(files):
        raise InputError(f"none of the {len(files)} meshes in {source} can be used; see the reasons above")
    return [targets[file] for file in files if file not in refused]
