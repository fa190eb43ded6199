"""`chairs`: procedural chairs of random parts and sizes, with the exact signed distance of their boxes' union.

Boxes are (K, 2, 3): lower and upper corners; x to the right, y up, z to the front.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.boxes import union_distance, union_mesh
from data.files import written_whole
from data.sdf_samples import sample_points, split_by_sign, unit_sphere, write_samples


def box(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    return np.array([x, y, z]).T


def both_sides(part: np.ndarray) -> list[np.ndarray]:
    """A part and its mirror image across x = 0."""
    mirrored = part.copy()
    mirrored[:, 0] = -part[::-1, 0]
    return [part, mirrored]


def chair_boxes(key: tuple[int, ...]) -> np.ndarray:
    """The chair of a key, (K, 2, 3) float64, normalized to the unit sphere: one piece, symmetric left-right."""
    rng = np.random.default_rng(key)
    half_width, half_depth, height, thick = rng.uniform((0.4, 0.4, 0.5, 0.12), (0.6, 0.6, 0.9, 0.2))
    parts = [
        box((-half_width, half_width), (height, height + thick), (-half_depth, half_depth)),
        box((-half_width, half_width), (height, height + rng.uniform(0.7, 1.1)), (-half_depth, thick - half_depth)),
    ]
    for z in (-half_depth, half_depth - thick):
        parts += both_sides(box((half_width - thick, half_width), (0, height), (z, z + thick)))
    boxes = np.array(parts)
    centre, scale = unit_sphere(union_mesh(boxes).vertices)
    return (boxes - centre) * scale


def make_chairs(folder: Path, num: int, seed: int, num_samples: int) -> list[Path]:
    """Writes `chair-000.npz` and `.ply`, ..., unless both are there, and returns the paths of the `.npz`.

    A chair depends on the seed and on its own number, not on how many there are.
    """
    paths = [folder / f"chair-{i:03d}.npz" for i in range(num)]
    missing = [i for i, path in enumerate(paths) if not (path.is_file() and path.with_suffix(".ply").is_file())]
    for i in tqdm(missing, "chairs", leave=False, disable=None):
        boxes = chair_boxes((seed, i))
        mesh = union_mesh(boxes)
        points = sample_points(mesh, num_samples, np.random.default_rng((seed, i, 1)))
        with written_whole(paths[i].with_suffix(".ply")) as partial:
            mesh.export(partial)
        write_samples(paths[i], split_by_sign(points, union_distance(boxes, points)))
    return paths
