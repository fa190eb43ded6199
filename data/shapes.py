"""Shapes by source, the split into training and held-out ones, and the samples that a SIREN is fitted to and measured on."""

import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data.chairs import make_chairs
from data.files import list_files, report_left_out
from data.meshes import prepare_meshes
from data.sdf_samples import balanced, check_both_signs, check_names, has_samples, hold_out, read_samples
from data.streams import stream
from models.errors import InputError

Source = Literal["chairs", "meshes", "deepsdf"]
MEASURED = 0.1  # fraction of a shape's samples that its SIREN is measured on and not fitted to


def make_shapes(source: Source, dataset: str, folder: Path, num_shapes: int, num_samples: int, seed: int) -> list[Path]:
    """Return the paths of the shapes' samples, `.npz`, by name, at most `num_shapes`; make those of chairs and meshes in `folder`.

    Shapes that cannot be used are left out, and lines on stderr name them. Raise InputError if none can, if a name cannot stand
    in lists, or if two shapes have the same name: instances and lists would have it too.
    """
    if source == "chairs":
        return make_chairs(folder, num_shapes, seed, num_samples)
    if source == "meshes":
        return prepare_meshes(Path(dataset), folder, num_samples, seed)[:num_shapes]
    return find_samples(Path(dataset), num_shapes)


def find_samples(folder: Path, num_shapes: int) -> list[Path]:
    """Return the first `num_shapes` usable `.npz` with samples of a folder and of those below it, and name the others on stderr.

    A `.npz` without pos and neg is no shape. Raise InputError as `make_shapes` does.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; name one that has .npz files with arrays pos and neg")
    listing = list_files(folder, (".npz",), subfolders=True)
    files = [path for path in listing.files if has_samples(path)]
    others = [(path, "no arrays pos and neg") for path in listing.files if path not in set(files)]
    if not files:
        raise InputError(f"{folder} has no .npz with arrays pos and neg; name another folder")
    by_name: dict[str, Path] = {}
    for path in files:
        other = by_name.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other} and {path} would be the same shape {path.stem}; rename or remove one")
    check_names(by_name)
    report_left_out([*listing.left_out, *others])
    usable: list[Path] = []
    for path in files:
        try:
            check_both_signs(read_samples(path), str(path))
            usable.append(path)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
        if len(usable) == num_shapes:
            break
    if not usable:
        raise InputError(f"none of the {len(files)} shapes in {folder} can be used; see the reasons above")
    return usable


def split_shapes(shapes: list[Path], num_test: int, seed: int, num_val: int = 0) -> dict[str, list[Path]]:
    """Split shapes into those that NetSpace is trained on, `train`, and held-out ones, `test` and, if there are any, `val`.

    Raise InputError if none is left to train on.
    """
    if len(shapes) <= num_test + num_val:
        held_out = f"--num-test {num_test}" + (f" and --num-val {num_val}" if num_val else "")
        raise InputError(
            f"there are {len(shapes)} shapes, and {held_out} of them are held out; add shapes, or hold out fewer"
        )
    order = stream("held-out shapes", seed).permutation(len(shapes))
    chosen = {
        "test": order[:num_test],
        "val": order[num_test : num_test + num_val],
        "train": order[num_test + num_val :],
    }
    return {
        split: [shapes[i] for i in sorted(chosen[split])] for split in ("train", "val", "test") if len(chosen[split])
    }


def fit_samples(shape: Path, num_fitted: int, num_measured: int, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return samples (S, 4), positive half first: those that a SIREN is fitted to, and others to measure the fit on."""
    rng = stream("samples of a shape", *key)
    parts, sizes = hold_out(read_samples(shape), MEASURED, rng), (num_fitted, num_measured)
    fitted, measured = (torch.from_numpy(balanced(part, size, rng)) for part, size in zip(parts, sizes))
    return fitted, measured


def first_of_halves(samples: Tensor, num: int) -> Tensor:
    """Return `num` of samples (M, S, 4), positive half first: the first of either half."""
    half = samples.shape[1] - samples.shape[1] // 2
    return torch.cat([samples[:, : num - num // 2], samples[:, half : half + num // 2]], dim=1)
