"""`chairs`: procedural chairs of random parts and sizes, with the exact signed distance of their boxes' union.

Boxes are (K, 2, 3) float64: lower and upper corners; x points right, y up, z to the front. One unit is about half a
metre until `chair_boxes` normalizes it. Every part and every gap is at least 0.12 units wide, which is 0.08 of the unit
sphere's radius: SIRENs as small as those of `chairs` lose thinner parts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from manifold3d import Manifold, OpType
from tqdm import tqdm

from data.files import written_whole
from data.meshes import signed_distance
from data.sdf_samples import RECIPE, check_made_with, is_made, sample_points, split_by_sign, unit_sphere, write_samples
from data.streams import stream

THIN, THICK = 0.12, 0.2  # units, the limits of many parts' widths
ARMS = 0.45  # fraction of the chairs that have arm rests
STEP = 2.0**-20  # of a union's coordinates


@dataclass(frozen=True)
class Seat:
    """The seat of a chair, in units."""

    half_width: float
    half_depth: float
    under: float  # height of its lower face
    top: float


def union_mesh(boxes: np.ndarray) -> trimesh.Trimesh:
    """Return the surface of a union of boxes (K, 2, 3): closed, normals outward, vertices float64.

    Coordinates are rounded to multiples of STEP, 1e-6. Boxes may touch, overlap or contain each other.
    """
    # On multiples of STEP, Manifold's sums are exact. An error of one bit parts two faces that touch, which leaves a
    # wall inside the union. trimesh's own union rounds to float32 and has triangles too thin for a normal.
    lower, upper = np.moveaxis(np.round(boxes / STEP) * STEP, 1, 0)
    solids = [Manifold.cube(tuple(size)).translate(tuple(corner)) for size, corner in zip(upper - lower, lower)]
    # as_original lets simplify join the flat faces of different boxes
    union = Manifold.batch_boolean(solids, OpType.Add).as_original().simplify(0).to_mesh64()
    return trimesh.Trimesh(union.vert_properties, union.tri_verts.astype(np.int64), process=False)


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    """Return a box (2, 3) from its extent along each axis."""
    return np.array([x, y, z], dtype=np.float64).T


def both_sides(part: np.ndarray) -> list[np.ndarray]:
    """Return a part and its mirror image across x = 0."""
    mirrored = part.copy()
    mirrored[:, 0] = -part[::-1, 0]
    return [part, mirrored]


def legs(seat: Seat, rng: np.random.Generator) -> list[np.ndarray]:
    """Return four legs. A bar half way up or a runner on the floor may join the two of either side."""
    side, inset = rng.uniform((THIN, 0), (THICK, 0.1))
    x = (seat.half_width - inset - side, seat.half_width - inset)
    z = seat.half_depth - inset
    parts = both_sides(box(x, (0, seat.top), (-z, side - z))) + both_sides(box(x, (0, seat.top), (z - side, z)))
    joined = rng.integers(3)
    if joined:
        bottom = (joined - 1) * seat.under / 2.5
        parts += both_sides(box(x, (bottom, bottom + THIN), (-z, z)))
    return parts


def pedestal(seat: Seat, rng: np.random.Generator) -> list[np.ndarray]:
    """Return a column on a plate or on a cross."""
    column, reach, thick = rng.uniform((0.08, 0.65, THIN), (0.16, 0.95, 0.16))
    x, z = reach * seat.half_width, reach * seat.half_depth
    feet = [(x, z)] if rng.integers(2) else [(x, column), (column, z)]
    parts = [box((-column, column), (0, seat.top), (-column, column))]
    return parts + [box((-x, x), (0, thick), (-z, z)) for x, z in feet]


def side_panels(seat: Seat, rng: np.random.Generator) -> list[np.ndarray]:
    """Return a panel on either side, from the floor to the seat."""
    thick = rng.uniform(THIN, THICK)
    z = seat.half_depth * rng.uniform(0.7, 1)
    return both_sides(box((seat.half_width - thick, seat.half_width), (0, seat.top), (-z, z)))


def solid_back(x: float, y: tuple[float, float], z: tuple[float, float], rng: np.random.Generator) -> list[np.ndarray]:
    """Return one panel."""
    return [box((-x, x), y, z)]


def ladder_back(x: float, y: tuple[float, float], z: tuple[float, float], rng: np.random.Generator) -> list[np.ndarray]:
    """Return two posts and slats across. The last slat is at the top."""
    post, gap = rng.uniform((THIN, THIN), (0.18, 0.25))
    tops = np.arange(y[1], y[0] + gap + THIN, -(gap + THIN))
    posts = both_sides(box((x - post, x), y, z))
    return posts + [box((-x, x), (top - THIN, top), z) for top in tops]


def spindle_back(
    x: float, y: tuple[float, float], z: tuple[float, float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Return two posts, a rail at the top, and as many upright slats as fit between the posts."""
    post, rail = rng.uniform((THIN, THIN), (0.16, 0.25))
    between = 2 * (x - post)
    num = int((between - THIN) / (2 * THIN))
    centres = (x - post) * (2 * np.arange(1, num + 1) / (num + 1) - 1)
    parts = both_sides(box((x - post, x), y, z)) + [box((-x, x), (y[1] - rail, y[1]), z)]
    return parts + [box((centre - THIN / 2, centre + THIN / 2), y, z) for centre in centres]


def raised_back(x: float, y: tuple[float, float], z: tuple[float, float], rng: np.random.Generator) -> list[np.ndarray]:
    """Return a panel above a gap, on two posts or on one in the middle."""
    bottom = y[0] + rng.uniform(0.35, 0.6) * (y[1] - y[0])
    panel = box((-x, x), (bottom, y[1]), z)
    post = rng.uniform(THIN, THICK)
    if rng.integers(2):
        return [panel, box((-post, post), y, z)]
    return [panel, *both_sides(box((x - post, x), y, z))]


def arm_rests(seat: Seat, rng: np.random.Generator) -> list[np.ndarray]:
    """Return two arm rests from the back forward: panels down to the seat, or bars on a post at the front."""
    thick, height, reach = rng.uniform((THIN, 0.32, 0.5), (0.18, 0.48, 0.95))
    x = (seat.half_width - thick, seat.half_width)
    back, front, top = -seat.half_depth, reach * seat.half_depth, seat.top + height
    if rng.integers(2):
        return both_sides(box(x, (seat.under, top), (back, front)))
    rest = both_sides(box(x, (top - THIN, top), (back, front)))
    return rest + both_sides(box(x, (seat.under, top), (front - thick, front)))


BASES = (legs, legs, pedestal, side_panels)
BACKS = (solid_back, ladder_back, spindle_back, raised_back)


def chair_boxes(rng: np.random.Generator) -> np.ndarray:
    """Return a random chair, (K, 2, 3) float64, normalized to the unit sphere: one piece, symmetric left-right."""
    half_width, half_depth, under, thick = rng.uniform((0.36, 0.36, 0.4, THIN), (0.62, 0.58, 0.9, 0.22))
    seat = Seat(half_width, half_depth, under, under + thick)
    has_arms = rng.random() < ARMS
    width_of_back, height_of_back, depth_of_back = rng.uniform((0.75, 0.6, THIN), (1, 1.15, THICK))
    back = BACKS[rng.integers(len(BACKS))](
        half_width if has_arms else half_width * width_of_back,  # arm rests reach the back
        (seat.top, seat.top + height_of_back),
        (-half_depth, depth_of_back - half_depth),
        rng,
    )
    base = BASES[rng.integers(len(BASES))](seat, rng)
    parts = [box((-half_width, half_width), (seat.under, seat.top), (-half_depth, half_depth)), *back, *base]
    boxes = np.array(parts + (arm_rests(seat, rng) if has_arms else []))
    centre, scale = unit_sphere(union_mesh(boxes).vertices)
    return (boxes - centre) * scale


def make_chairs(folder: Path, num: int, seed: int, num_samples: int) -> list[Path]:
    """Write the `chair-000.npz` and `.ply`, ... that the folder lacks. Return the paths of all `num` `.npz`.

    A chair depends on the seed and on its number, not on how many chairs there are. The unit of distances is the radius
    of the sphere that the chair is normalized to. Raise InputError if the folder's chairs were made with another seed
    or number of samples.
    """
    check_made_with(folder, {"recipe": RECIPE, "seed": seed, "num_samples": num_samples})
    paths = [folder / f"chair-{i:03d}.npz" for i in range(num)]
    missing = [i for i, path in enumerate(paths) if not is_made(path)]
    for i in tqdm(missing, "chairs", leave=False, disable=None):
        rng = stream("chair", seed, i)
        mesh = union_mesh(chair_boxes(rng))
        points = sample_points(mesh, num_samples, rng)
        with written_whole(paths[i].with_suffix(".ply")) as partial:
            mesh.export(partial)
        write_samples(paths[i], split_by_sign(points, signed_distance(mesh, points, clean=True)))
    return paths
