"""Shapes by source, which of them are held out, and the samples that a SIREN is fitted to and measured on."""

from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.chairs import make_chairs
from data.meshes import prepare_meshes
from data.sdf_samples import balanced, hold_out, read_samples
from models.errors import InputError

Source = Literal["chairs", "meshes", "deepsdf"]
MEASURED = 0.1  # share of a shape's samples that its SIREN is not fitted to, but measured on


def make_shapes(source: Source, dataset: str, folder: Path, num_shapes: int, num_samples: int, seed: int) -> list[Path]:
    """Paths of samples, `.npz`, one a shape, by name, at most `num_shapes`. `folder` gets those that are made here.

    Raises InputError if two have the same name, which instances and lists would share.
    """
    if source == "chairs":
        return make_chairs(folder, num_shapes, seed, num_samples)
    if source == "meshes":
        return prepare_meshes(Path(dataset), folder, num_samples, seed)[:num_shapes]
    shapes = sorted(Path(dataset).rglob("*.npz"))
    for name, times in Counter(shape.stem for shape in shapes).items():
        if times > 1:
            raise InputError(f"{dataset} holds {times} files {name}.npz; give every shape a name of its own")
    return shapes[:num_shapes]


def deal_shapes(shapes: list[Path], num_test: int, seed: int) -> tuple[list[Path], list[Path]]:
    """Shapes to train NetSpace on, and `num_test` held-out ones. Raises InputError if none is left to train on."""
    if len(shapes) <= num_test:
        raise InputError(
            f"there are {len(shapes)} shapes, and --num-test {num_test} of them are held out; add shapes, or hold out fewer"
        )
    order = np.random.default_rng((seed, 0)).permutation(len(shapes))
    return [shapes[i] for i in sorted(order[num_test:])], [shapes[i] for i in sorted(order[:num_test])]


def samples_of(shape: Path, num_fitted: int, num_measured: int, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Samples (S, 4), positive half first: those that a SIREN is fitted to, and others, on which its fit is measured."""
    rng = np.random.default_rng(key)
    parts, sizes = hold_out(read_samples(shape), MEASURED, rng), (num_fitted, num_measured)
    fitted, measured = (torch.from_numpy(balanced(part, size, rng)) for part, size in zip(parts, sizes))
    return fitted, measured


def first_of_halves(samples: Tensor, num: int) -> Tensor:
    """`num` of samples (M, S, 4), positive half first: the first of either half."""
    half = samples.shape[1] - samples.shape[1] // 2
    return torch.cat([samples[:, : num - num // 2], samples[:, half : half + num // 2]], dim=1)
