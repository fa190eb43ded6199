"""Samples of signed distance functions, in DeepSDF's files and recipe: negative inside, shapes inside the unit sphere.

A shape is a file `NAME.npz` with arrays `pos` and `neg`, (N, 4) float32 = x, y, z, signed distance. `NAME.ply` beside it is the
mesh that was sampled, if it is known.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from data.files import check_regular, written_whole
from data.folders import check_path_name
from data.tensor_files import read_arrays
from data.texts import read_json, write_json
from models.errors import InputError

NEAR_SURFACE = 47 / 50  # fraction of the points; the others are uniform in the cube [-1, 1]^3
VARIANCES = (0.005, 0.0005)  # of the noise on each coordinate, for either half of the points near the surface
RECIPE = 2  # of how points are drawn and chairs are made; shapes of another recipe are not mixed with today's
LONGEST_NAME = 150  # bytes of a shape's name; files' names have 255, and those of its files add to it
MARGIN = 1.03  # the farthest vertex is at radius 1 / MARGIN


@dataclass(frozen=True)
class SdfSamples:
    """Points and signed distances, rows x, y, z, sdf: `positive` (N+, 4) and `negative` (N-, 4), float32."""

    positive: np.ndarray
    negative: np.ndarray


def read_samples(path: Path) -> SdfSamples:
    """Read the samples in a `.npz`, without the rows whose distance is NaN (DeepSDF's files have some).

    Raise InputError if the file is missing or of another kind, has coordinates or distances that are not finite, has no
    positive or no negative row, or has distances of the other sign.
    """
    if not path.exists():
        raise InputError(f"no SDF samples {path}; check the folder, or make them again")
    check_regular(path)
    found = read_arrays(path, ("pos", "neg"))
    samples = SdfSamples(*(clean_rows(found[name], f"{path}: '{name}'") for name in ("pos", "neg")))
    for name, rows, sign in (("pos", samples.positive, 1), ("neg", samples.negative, -1)):
        wrong = int((sign * rows[:, 3] < 0).sum())
        if wrong:
            raise InputError(
                f"{path}: '{name}' has {wrong} distances that are {'negative' if sign > 0 else 'positive'}; distances must be "
                "negative inside the shape and in 'neg', positive outside and in 'pos': turn their signs, or swap the arrays"
            )
    return samples


def has_samples(path: Path) -> bool:
    """Return whether a `.npz` has arrays pos and neg, or is broken, so that reading it says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"pos.npy", "neg.npy"} <= set(archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return True


def clean_rows(rows: np.ndarray, what: str) -> np.ndarray:
    """Return the rows (N, 4) that have a distance, as float32. Raise InputError, naming `what`, for anything else."""
    if rows.ndim != 2 or rows.shape[1] != 4 or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(f"{what} is {rows.shape} {rows.dtype}, expected (N, 4) float32; replace or remove the file")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused
        rows = rows[~np.isnan(rows[:, 3])].astype(np.float32, copy=False)
    if not len(rows):
        raise InputError(f"{what} has no row with a distance; replace or remove the file")
    if not np.isfinite(rows).all():
        raise InputError(f"{what} has coordinates or distances that are not finite; replace or remove the file")
    return rows


def check_both_signs(samples: SdfSamples, what: str) -> None:
    """Raise InputError, naming `what`, unless either sign has a row to fit and one to measure the fit on."""
    fewest = min(len(samples.positive), len(samples.negative))
    if fewest < 2:
        raise InputError(f"{what} has {fewest} samples of one sign; it needs 2 or more, sample it more densely")


def check_names(shapes: Mapping[str, Path]) -> None:
    """Raise InputError if a shape's name, that of its files, cannot stand in an input list or be part of a file's name."""
    for name, path in shapes.items():
        check_path_name(name)
        if len(name.encode()) > LONGEST_NAME:
            raise InputError(f"the name of {path} has more than {LONGEST_NAME} bytes; rename it")


def write_samples(path: Path, samples: SdfSamples) -> None:
    """Write samples as a `.npz`."""
    with written_whole(path) as partial:
        np.savez(partial, pos=samples.positive, neg=samples.negative)


def check_made_with(folder: Path, facts: dict[str, Any]) -> None:
    """Write into a folder what its shapes are made with. Raise InputError if they were made with something else."""
    note = folder / "made_with.json"
    if note.is_file():
        found = read_json(note, f"move {folder} away to have its shapes made again")
        for name, value in facts.items():
            if found.get(name) != value:
                raise InputError(
                    f"the shapes in {folder} were made with {name} {found.get(name)}, not {value}; move the folder away, or use that {name}"
                )
    else:
        write_json(note, facts)


def is_made(path: Path) -> bool:
    """Return whether both files of a shape exist: its samples, `path`, and its mesh."""
    return path.is_file() and path.with_suffix(".ply").is_file()


def split_by_sign(points: np.ndarray, distances: np.ndarray) -> SdfSamples:
    """Return points (N, 3) and signed distances (N,) as samples. A point on the surface counts as inside, as in DeepSDF."""
    rows = np.column_stack([points, distances]).astype(np.float32)
    outside = rows[:, 3] > 0
    return SdfSamples(rows[outside], rows[~outside])


def unit_sphere(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre (3,) and scale that map vertices (N, 3) into the unit sphere: (vertices - centre) * scale.

    The bounding box's centre goes to the origin and the farthest vertex to radius 1 / 1.03, as in DeepSDF.
    """
    centre = (vertices.min(0) + vertices.max(0)) / 2
    return centre, 1 / (MARGIN * np.linalg.norm(vertices - centre, axis=1).max())


def sample_points(mesh: trimesh.Trimesh, num: int, rng: np.random.Generator) -> np.ndarray:
    """Draw DeepSDF's points for a normalized mesh, (num, 3) float32: 47 of 50 near its surface, 3 of 50 anywhere in the cube."""
    near = round(NEAR_SURFACE * num)
    on_surface, _ = trimesh.sample.sample_surface(mesh, near, seed=rng)
    deviation = np.sqrt(np.resize(VARIANCES, (near, 1)))
    near_surface = on_surface + deviation * rng.standard_normal((near, 3))
    anywhere = rng.uniform(-1, 1, (num - near, 3))
    return np.concatenate([near_surface, anywhere]).astype(np.float32)


def balanced(samples: SdfSamples, num: int, rng: np.random.Generator) -> np.ndarray:
    """Draw (num, 4) float32 from the samples: the positive half first, then the negative half (one less if num is odd).

    Rows are drawn without replacement. If there are too few, each comes as often as every other, or once more.
    """
    halves = ((samples.positive, num - num // 2), (samples.negative, num // 2))
    return np.concatenate([rows[evenly_drawn(len(rows), size, rng)] for rows, size in halves])


def evenly_drawn(num_rows: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """Draw indices (num,) below `num_rows`, in random order, each equally often or once more."""
    passes = -(-num // num_rows)
    return np.concatenate([rng.permutation(num_rows) for _ in range(passes)])[:num]


def hold_out(samples: SdfSamples, fraction: float, rng: np.random.Generator) -> tuple[SdfSamples, SdfSamples]:
    """Split samples into two parts, of which the second is a random `fraction` of either sign. Both have rows of each sign.

    Raise InputError if a sign has only one row.
    """
    check_both_signs(samples, "a shape")
    parts = []
    for rows in (samples.positive, samples.negative):
        order = rng.permutation(len(rows))
        num = max(1, round(fraction * len(rows)))
        parts.append((rows[order[num:]], rows[order[:num]]))
    return SdfSamples(*(part[0] for part in parts)), SdfSamples(*(part[1] for part in parts))
