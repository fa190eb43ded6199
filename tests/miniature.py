"""Every script's configuration in miniature: real data and code, few and short instances."""

import contextlib
import functools
import io
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

import compare_nets
import compare_objectives
import compare_systems
import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
import create_nets_dataset_zoo
import eval_latspace_multi
import eval_latspace_single
import eval_multi
import eval_single
import export
import import_instances
import inside_similarity
import interpolate_mlps
import interpolate_multi_arch
import interpolate_single_arch
import predict_properties
import report
import retrieve_mlps
import sample_finetune
import stitch_nets
import train_latspace_multi
import train_latspace_single
import train_mlps
import train_multi_arch
import train_sane
import train_single_arch
import visualize_prep
from data.folders import Folders
from data.images import ImageSet
from data.photos import load_photos
from models.instances import TargetNets
from models.prep_autoencoder import Sizes
from models.target_nets import architectures_by_class_id
from models.token_autoencoder import TokenSizes

Config = TypeVar("Config")
Runs = list[tuple[Any, Any]]  # scripts, each with its config

HERE = Path()
SETTINGS = ("multi", "missing")


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
    """Return the folders of a project."""
    return Folders(root / "data", root / "lists", root / "runs")


@functools.cache
def few_photos() -> ImageSet:
    """Return 1,024 / 200 / 200 of the photos' tiles. Tests put it into data.load.LOADERS."""
    images = load_photos()

    def some(split, number):
        index = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:number]
        return replace(split, pixels=split.pixels[index], labels=split.labels[index])

    return replace(images, train=some(images.train, 1024), val=some(images.val, 200), test=some(images.test, 200))


# However many architectures are registered


def of_each(at_ends: int, between: int) -> tuple[int, ...]:
    """Return numbers by ClassId: one for the lowest and the highest, one for those between."""
    return (at_ends, *[between] * (len(architectures_by_class_id()) - 2), at_ends)


def multi_sizes() -> Sizes:
    """Return small sizes whose PReps have room for every architecture on photos."""
    pool = TargetNets.on_images(architectures_by_class_id(), (1, 8, 8), 10)
    width = 16 * -(-max(pool.num_parameters.values()) // (8 * 16))
    return Sizes((8, width), emb_size=256, grid=16, row_length=64, row_channels=32)


# Configs, for a project in `root`


def config_of(script, root: Path, **changes):
    """Return the config of a script that needs no smaller constants."""
    return changed(script.PRESETS["photos"], folders=folders(root), **changes)


def create_config(root: Path, **changes) -> create_nets_dataset_single.Config:
    small = dict(num_train=6, num_val=3, num_test=4, lengths=(2, 30, 80), seed=5)
    return changed(create_nets_dataset_single.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def train_config(root: Path, **changes) -> train_single_arch.Config:
    sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
    small = dict(sizes=sizes, image_batch=128, num_steps=48, validate_every=16)
    return changed(train_single_arch.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def create_multi_config(root: Path, **changes) -> create_nets_dataset_multi.Config:
    small = dict(num_train=of_each(3, 2), num_train_missing=(2, 3), num_val=2, num_test=2, side_by_side=4, seed=5)
    short = dict(num_epochs=of_each(4, 4), teacher_epochs=4, lr_drops=(0.5, 0.75), validate_from=0.5, validate_every=1)
    preset = create_nets_dataset_multi.PRESETS["photos"]
    return changed(preset, **{**small, **short, "image_batch": 128, "folders": folders(root), **changes})


def train_multi_config(root: Path, **changes) -> train_multi_arch.Config:
    small = dict(sizes=multi_sizes(), image_batch=128, num_steps=24, validate_every=8)
    return changed(train_multi_arch.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def search_config(script, root: Path, **changes):
    """Return the config of a latent space optimization."""
    per_class = {"per_class": 2} if script is train_latspace_multi else {}
    return config_of(script, root, **{"validate_every": 4, "patience": 2, **per_class, **changes})


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


def retrieve_mlps_config(root: Path, **changes) -> retrieve_mlps.Config:
    small = dict(near=2, resolution=16, chamfer_points=100)
    return changed(retrieve_mlps.PRESETS["chairs"], **{**small, "folders": folders(root), **changes})


def create_zoo_config(root: Path, **changes) -> create_nets_dataset_zoo.Config:
    small = dict(num_nets=10, num_checkpoints=4, first_step=4, last_step=60, side_by_side=10, seed=5)
    return changed(create_nets_dataset_zoo.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def train_sane_config(root: Path, **changes) -> train_sane.Config:
    small = dict(sizes=TokenSizes(latent_size=8, width=32, layers=1), windows=4, meta_batch=2, image_batch=32)
    small |= dict(num_steps=12, validate_every=4)
    return changed(train_sane.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def predict_config(root: Path, **changes) -> predict_properties.Config:
    small = dict(transfer=("zoo-lenetlike",), num_images=16, num_resamples=50)
    return config_of(predict_properties, root, **{**small, **changes})


def systems_config(root: Path, **changes) -> compare_systems.Config:
    """Return the config of a few cells; the large zoo is the small one."""
    only = ("prep-weights", "tokens-both-aligned", "sizes", "symmetry")
    prep = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
    sizes = compare_systems.SystemSizes(prep, TokenSizes(73, 6, 16, 1, 2, 24, 2, alignment="none"))
    small: dict[str, Any] = dict(sizes=sizes, large_zoo="zoo-resnet8", only=only)
    small |= dict(seeds=(0,), train_nets=(2, 3), num_steps=4, meta_batch=2, image_batch=32)
    return config_of(compare_systems, root, **{**small, **changes})


def sample_config(root: Path, **changes) -> sample_finetune.Config:
    small = dict(num_anchors=4, num_draws=4, num_nets=2, rounds=1, condition_images=32, epochs=(0, 1))
    return config_of(sample_finetune, root, **{**small, **changes})


def stitch_config(root: Path, **changes) -> stitch_nets.Config:
    return config_of(stitch_nets, root, **{"num_nets": 2, "num_epochs": 1, **changes})


def compare_nets_config(root: Path, **changes) -> compare_nets.Config:
    small = dict(num_nets=3, num_images=100, probe_images=200, image_batch=50)
    return config_of(compare_nets, root, **{**small, **changes})


def import_config(root: Path, **changes) -> import_instances.Config:
    """Return the config that imports the project's own instances into another project, `imports` in it."""
    source = root / "runs" / "photos" / "nets" / "resnet8-adam"
    preset = import_instances.PRESETS["photos"]
    small = dict(source=source, num_val=2, num_test=2, folders=folders(root / "imports"))
    return changed(preset, **{**small, **changes})


# A project, in parts that need nothing of each other, and what needs them all


def single_runs(root: Path) -> Runs:
    runs: Runs = [(create_nets_dataset_single, create_config(root))]
    runs += [(train_single_arch, train_config(root, objective=each)) for each in ("behaviour", "weights", "both")]
    scripts = (eval_single, interpolate_single_arch, visualize_prep, compare_objectives)
    runs += [(script, config_of(script, root)) for script in scripts]
    return [*runs, (stitch_nets, stitch_config(root))]


def multi_runs(root: Path) -> Runs:
    runs: Runs = [(create_nets_dataset_multi, create_multi_config(root))]
    for setting in SETTINGS:
        runs.append((train_multi_arch, train_multi_config(root, setting=setting)))
        runs.append((train_latspace_multi, search_config(train_latspace_multi, root, setting=setting)))
        scripts = (eval_multi, interpolate_multi_arch, visualize_prep, eval_latspace_multi)
        runs += [(script, config_of(script, root, setting=setting)) for script in scripts]
    return runs


def shape_runs(root: Path) -> Runs:
    scripts = (create_mlp_dataset, train_mlps, interpolate_mlps, retrieve_mlps)
    configs = (
        create_mlp_config(root),
        train_mlps_config(root),
        interpolate_mlps_config(root),
        retrieve_mlps_config(root),
    )
    held_out = dict(dataset="chairs-unseen", num_shapes=5, num_val=1, num_test=1, num_steps=20, init_steps=20)
    sizes = replace(train_mlps_config(root).sizes, encoder="probes", num_probes=30)
    unseen = [
        (create_mlp_dataset, create_mlp_config(root, **held_out, init="mean", optimizer="sgd")),
        (train_mlps, train_mlps_config(root, dataset="chairs-unseen", sizes=sizes, num_steps=4)),
    ]
    return [*zip(scripts, configs), *unseen]


def zoo_runs(root: Path) -> Runs:
    other = create_zoo_config(root, architectures="lenetlike", num_nets=6, num_checkpoints=2, side_by_side=6)
    return [
        (create_nets_dataset_zoo, create_zoo_config(root)),
        (create_nets_dataset_zoo, other),
        (train_sane, train_sane_config(root)),
        (train_single_arch, train_config(root, instances="zoo", num_steps=8, validate_every=4)),
        (predict_properties, predict_config(root)),
        (sample_finetune, sample_config(root)),
        (compare_systems, systems_config(root)),
    ]


def last_runs(root: Path) -> Runs:
    runs: Runs = [(train_latspace_single, search_config(train_latspace_single, root))]
    runs += [(eval_latspace_single, config_of(eval_latspace_single, root))]
    runs += [
        (compare_nets, compare_nets_config(root)),
        (inside_similarity, config_of(inside_similarity, root, num_resamples=50)),
        (report, config_of(report, root)),
        (export, config_of(export, root, what="interpolated")),
        (import_instances, import_config(root)),
    ]
    return runs


PARTS = {"single": single_runs, "multi": multi_runs, "shapes": shape_runs, "zoo": zoo_runs, "last": last_runs}


class Terminal(io.StringIO):
    """Takes progress bars."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ran:
    """What a script wrote: its progress bar, to stderr, and its files, relative to the project."""

    stderr: str
    files: dict[str, bytes]


def modified(root: Path) -> dict[Path, int]:
    """Return when each file was modified, but for locks."""
    return {
        path: path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.name not in (".lock", ".locked-by")
    }


def run_scripts(runs: Runs, root: Path) -> dict[str, Ran]:
    """Run scripts in the project in `root`; return what each wrote, by its name."""
    ran: dict[str, Ran] = {}
    before = modified(root)
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
