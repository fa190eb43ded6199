"""Every script's configuration in miniature: real data and code, few and short instances."""

import contextlib
import io
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

import compare_objectives
import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
import eval_latspace_multi
import eval_latspace_single
import eval_multi
import eval_single
import export
import import_instances
import interpolate_mlps
import interpolate_multi_arch
import interpolate_single_arch
import report
import train_latspace_multi
import train_latspace_single
import train_mlps
import train_multi_arch
import train_single_arch
import visualize_prep
from data.folders import Folders
from data.images import ImageSet
from data.photos import load_photos
from models.prep_autoencoder import Sizes


Config = TypeVar("Config")


def changed(config: Config, **changes: Any) -> Config:
    """Return a config with other constants, whatever group they are in."""
    own = {field.name for field in fields(config)}
    groups = {name: getattr(config, name) for name in own - {"folders", "sizes"} if is_dataclass(getattr(config, name))}
    direct = {name: changes.pop(name) for name in own & set(changes)}
    for name, group in groups.items():
        inside = {field.name: changes.pop(field.name) for field in fields(group) if field.name in changes}
        direct.setdefault(name, replace(group, **inside))
    assert not changes, f"{type(config).__module__} has no {', '.join(changes)}"
    return replace(config, **direct)


def folders(root: Path) -> Folders:
    return Folders(root / "data", root / "lists", root / "runs")


def create_config(root: Path, **changes) -> create_nets_dataset_single.Config:
    small = dict(num_train=6, num_val=3, num_test=4, lengths=(2, 30, 80), seed=5)
    return changed(create_nets_dataset_single.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def train_config(root: Path, **changes) -> train_single_arch.Config:
    sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
    small = dict(sizes=sizes, image_batch=128, num_steps=98, validate_every=49)
    return changed(train_single_arch.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def look_config(script, root: Path, **changes):
    return changed(script.PRESETS["photos"], folders=folders(root), **changes)


def few_photos() -> ImageSet:
    """1,024 / 200 / 200 of the photos' tiles, for what trains deep nets. Tests put it into data.load.LOADERS."""
    images = load_photos()

    def some(split, number):
        index = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:number]
        return replace(split, pixels=split.pixels[index], labels=split.labels[index])

    return replace(images, train=some(images.train, 1024), val=some(images.val, 200), test=some(images.test, 200))


def create_multi_config(root: Path, **changes) -> create_nets_dataset_multi.Config:
    small = dict(num_train=(3, 2, 2, 3), num_train_missing=(2, 3), num_val=2, num_test=2, side_by_side=4, seed=5)
    short = dict(
        num_epochs=(4, 4, 4, 4),
        teacher_epochs=4,
        lr_drops=(0.5, 0.75),
        validate_from=0.5,
        validate_every=1,
        image_batch=128,
    )
    preset = create_nets_dataset_multi.PRESETS["photos"]
    return changed(preset, **{**small, **short, "folders": folders(root), **changes})


def train_multi_config(root: Path, **changes) -> train_multi_arch.Config:
    sizes = Sizes((8, 3696), emb_size=256, grid=16, row_length=64, row_channels=32)
    small = dict(sizes=sizes, image_batch=128, num_steps=24, validate_every=8)
    return changed(train_multi_arch.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def search_config(script, root: Path, **changes):
    per_class = {"per_class": 2} if script is train_latspace_multi else {}
    return look_config(script, root, **{"validate_every": 4, "patience": 2, **per_class, **changes})


def run_all_multi(root: Path) -> Path:
    """Runs every script of the multi-architecture experiments, seen and unseen, and returns the dataset's run folder."""
    create_nets_dataset_single.main(create_config(root))
    train_single_arch.main(train_config(root, num_steps=980, validate_every=98))
    create_nets_dataset_multi.main(create_multi_config(root))
    for setting in ("multi", "missing"):
        train_multi_arch.main(train_multi_config(root, setting=setting))
        for script in (eval_multi, interpolate_multi_arch, visualize_prep):
            script.main(look_config(script, root, setting=setting))
        train_latspace_multi.main(search_config(train_latspace_multi, root, setting=setting))
        eval_latspace_multi.main(look_config(eval_latspace_multi, root, setting=setting))
    train_latspace_single.main(search_config(train_latspace_single, root))
    for script in (eval_single, interpolate_single_arch, eval_latspace_single):
        script.main(look_config(script, root))
    return root / "runs" / "photos"


def create_mlp_config(root: Path, **changes) -> create_mlp_dataset.Config:
    small = dict(hidden=(16, 16), num_shapes=6, num_test=2, num_samples=800, num_steps=120, num_points=64, lr_every=8)
    small |= dict(learning_rate=1e-2, num_stored=200, resolution=16, chamfer_points=500, side_by_side=4)
    return changed(create_mlp_dataset.PRESETS["chairs"], **{**small, "folders": folders(root), **changes})


def train_mlps_config(root: Path, **changes) -> train_mlps.Config:
    sizes = Sizes((8, 48), emb_size=64, grid=4, row_length=32, row_channels=8)
    small = dict(sizes=sizes, meta_batch=2, num_points=64, num_measured=50, num_steps=12, validate_every=4)
    return changed(train_mlps.PRESETS["chairs"], **{**small, "folders": folders(root), **changes})


def interpolate_mlps_config(root: Path, **changes) -> interpolate_mlps.Config:
    small = dict(num_pairs=2, num_gammas=3, resolution=16, chamfer_points=500)
    return changed(interpolate_mlps.PRESETS["chairs"], **{**small, "folders": folders(root), **changes})


def run_all_mlps(root: Path) -> Path:
    """Runs the three scripts of signed distance functions and returns the run folder."""
    create_mlp_dataset.main(create_mlp_config(root))
    train_mlps.main(train_mlps_config(root))
    interpolate_mlps.main(interpolate_mlps_config(root))
    return root / "runs" / "chairs" / "mlps"


def run_comparison(root: Path) -> dict:
    """Train by weights what `run_all` trained by behaviour, and compare."""
    train_single_arch.main(train_config(root, objective="weights"))
    return compare_objectives.main(look_config(compare_objectives, root))


class Terminal(io.StringIO):
    """Takes progress bars."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """What a script wrote: its progress bar, to stderr, and its files, relative to the root."""

    stderr: str
    files: dict[str, bytes]


def modified(root: Path) -> dict[Path, int]:
    """When each file was, but for locks."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def import_config(root: Path, **changes) -> import_instances.Config:
    """Instances that are there come in once more, into a project of their own."""
    source = root / "runs" / "photos" / "nets" / "resnet8-adam"
    preset = import_instances.PRESETS["photos"]
    small = dict(source=source, num_val=2, num_test=2, folders=folders(root / "imports"))
    return changed(preset, **{**small, **changes})


def run_each_script(root: Path) -> dict[str, Ran]:
    """Runs every script, shorter still; by name."""
    few = dict(num_train=(1, 1, 1, 1), num_train_missing=(1, 1), num_val=1, num_test=1)
    short = dict(num_epochs=(2, 2, 2, 2), teacher="lenetlike", teacher_epochs=2)
    search = dict(validate_every=2, patience=1)
    runs = [
        (create_nets_dataset_single, create_config(root)),
        (train_single_arch, train_config(root)),
        (eval_single, look_config(eval_single, root)),
        (interpolate_single_arch, look_config(interpolate_single_arch, root)),
        (visualize_prep, look_config(visualize_prep, root)),
        (train_single_arch, train_config(root, objective="weights")),
        (compare_objectives, look_config(compare_objectives, root)),
        (create_nets_dataset_multi, create_multi_config(root, **few, **short)),
        (train_multi_arch, train_multi_config(root, num_steps=8)),
        (eval_multi, look_config(eval_multi, root)),
        (interpolate_multi_arch, look_config(interpolate_multi_arch, root, num_points=5)),
        (train_latspace_single, search_config(train_latspace_single, root, **search)),
        (eval_latspace_single, look_config(eval_latspace_single, root)),
        (train_latspace_multi, search_config(train_latspace_multi, root, **search, per_class=1)),
        (eval_latspace_multi, look_config(eval_latspace_multi, root)),
        (create_mlp_dataset, create_mlp_config(root)),
        (train_mlps, train_mlps_config(root)),
        (interpolate_mlps, interpolate_mlps_config(root)),
        (report, look_config(report, root)),
        (export, look_config(export, root, what="interpolated")),
        (import_instances, import_config(root)),
    ]
    ran: dict[str, Ran] = {}
    before: dict[Path, int] = {}
    for script, config in runs:
        with contextlib.redirect_stderr(Terminal()) as stderr:
            script.main(config)
        after, project = modified(root), config.folders.runs_dir.parent
        written = [path for path, time in after.items() if before.get(path) != time]
        files = {path.relative_to(project).as_posix(): path.read_bytes() for path in written}
        twice = ran.get(script.__name__, Ran("", {}))
        ran[script.__name__] = Ran(twice.stderr + stderr.getvalue(), {**twice.files, **files})
        before = after
    return ran


def run_all(root: Path) -> Path:
    """Runs the five scripts and returns the run folder."""
    create_nets_dataset_single.main(create_config(root))
    train_single_arch.main(train_config(root))
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(look_config(script, root))
    return root / "runs" / "photos" / "single"
