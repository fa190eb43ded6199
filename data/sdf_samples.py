"""Samples of signed distance functions, in DeepSDF's files and recipe: negative inside, shapes inside the unit sphere.

A shape is a file `NAME.npz` with arrays `pos` and `neg`, (N, 4) float32 = x, y, z, signed distance, and beside it
`NAME.ply`, the mesh that it was sampled from, where we have it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from data.files import read_json, write_json, written_whole
from models.errors import InputError

NEAR_SURFACE = 47 / 50  # share of the points; the others are uniform in the cube [-1, 1]^3
VARIANCES = (0.005, 0.0005)  # of the noise on each coordinate, for either half of the points near the surface
RECIPE = 2  # of how points are drawn and chairs are made; shapes of another recipe are not mixed with today's
MARGIN = 1.03  # the farthest vertex is at radius 1 / MARGIN


@dataclass(frozen=True)
class SdfSamples:
    """Points and signed distances, rows x, y, z, sdf: `positive` (N+, 4) and `negative` (N-, 4), float32."""

    positive: np.ndarray
    negative: np.ndarray


def read_samples(path: Path) -> SdfSamples:
    """The samples in a `.npz`, without the rows whose distance is NaN (DeepSDF's files have some).

    Raises InputError if the file is missing, no such file, has coordinates or distances that are not finite, or has no
    positive or no negative row.
    """
    if not path.is_file():
        raise InputError(f"no SDF samples {path}; check the folder, or make them again")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("pos", "neg")}
    except Exception as error:  # what a file that is no .npz raises depends on its bytes
        raise InputError(
            f"{path} cannot be read as a .npz with arrays pos and neg ({type(error).__name__}); replace or remove it"
        ) from None
    return SdfSamples(*(clean_rows(found[name], f"{path}: '{name}'") for name in ("pos", "neg")))


def clean_rows(rows: np.ndarray, what: str) -> np.ndarray:
    if rows.ndim != 2 or rows.shape[1] != 4 or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(f"{what} is {rows.shape} {rows.dtype}, expected (N, 4) float32; replace or remove the file")
    rows = rows[~np.isnan(rows[:, 3])].astype(np.float32, copy=False)
    if not len(rows):
        raise InputError(f"{what} holds no row with a distance; replace or remove the file")
    if not np.isfinite(rows).all():
        raise InputError(f"{what} holds coordinates or distances that are not finite; replace or remove the file")
    return rows


def write_samples(path: Path, samples: SdfSamples) -> None:
    with written_whole(path) as partial:
        np.savez(partial, pos=samples.positive, neg=samples.negative)


def check_made_with(folder: Path, facts: dict[str, Any]) -> None:
    """Notes in a folder what its shapes are made with. Raises InputError if they were made with something else."""
    note = folder / "made_with.json"
    if note.is_file():
        found = read_json(note, f"move {folder} away to have its shapes made anew")
        for name, value in facts.items():
            if found.get(name) != value:
                raise InputError(
                    f"the shapes in {folder} were made with {name} {found.get(name)}, not {value}; move the folder away, or use that {name}"
                )
    else:
        write_json(note, facts)


def is_made(path: Path) -> bool:
    """Whether both files of a shape are there: its samples, `path`, and its mesh."""
    return path.is_file() and path.with_suffix(".ply").is_file()


def split_by_sign(points: np.ndarray, distances: np.ndarray) -> SdfSamples:
    """Points (N, 3) and signed distances (N,) as samples; a point on the surface counts as inside, as in DeepSDF."""
    rows = np.column_stack([points, distances]).astype(np.float32)
    outside = rows[:, 3] > 0
    return SdfSamples(rows[outside], rows[~outside])


def unit_sphere(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and scale that take vertices (N, 3) into the unit sphere by (vertices - centre) * scale.

    The bounding box's centre goes to the origin and the farthest vertex to radius 1 / 1.03, as in DeepSDF.
    """
    centre = (vertices.min(0) + vertices.max(0)) / 2
    return centre, 1 / (MARGIN * np.linalg.norm(vertices - centre, axis=1).max())


def sample_points(mesh: trimesh.Trimesh, num: int, rng: np.random.Generator) -> np.ndarray:
    """DeepSDF's points for a normalized mesh, (num, 3) float32: 47 of 50 near its surface, 3 of 50 anywhere in the cube."""
    near = round(NEAR_SURFACE * num)
    on_surface, _ = trimesh.sample.sample_surface(mesh, near, seed=rng)
    deviation = np.sqrt(np.resize(VARIANCES, (near, 1)))
    near_surface = on_surface + deviation * rng.standard_normal((near, 3))
    anywhere = rng.uniform(-1, 1, (num - near, 3))
    return np.concatenate([near_surface, anywhere]).astype(np.float32)


def balanced(samples: SdfSamples, num: int, rng: np.random.Generator) -> np.ndarray:
    """(num, 4) float32 drawn from the samples: the positive half first, then the negative half (one less if num is odd).

    Without replacement; where there are fewer rows than that, every row comes as often as every other, give or take one.
    """
    halves = ((samples.positive, num - num // 2), (samples.negative, num // 2))
    return np.concatenate([rows[evenly_drawn(len(rows), wanted, rng)] for rows, wanted in halves])


def evenly_drawn(num_rows: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """(wanted,) positions below `num_rows`, in random order."""
    passes = -(-wanted // num_rows)
    return np.concatenate([rng.permutation(num_rows) for _ in range(passes)])[:wanted]


def hold_out(samples: SdfSamples, share: float, rng: np.random.Generator) -> tuple[SdfSamples, SdfSamples]:
    """All samples but a random `share` of either sign, and that share; at least one row of each sign is in both.

    Raises InputError where a sign has one row alone.
    """
    parts = []
    for rows in (samples.positive, samples.negative):
        if len(rows) < 2:
            raise InputError(f"a shape has {len(rows)} samples of one sign; it needs 2 or more, sample it more densely")
        order = rng.permutation(len(rows))
        held = max(1, round(share * len(rows)))
        parts.append((rows[order[held:]], rows[order[:held]]))
    return SdfSamples(*(part[0] for part in parts)), SdfSamples(*(part[1] for part in parts))
