"""Fit one SIREN to the signed distances of each of many shapes (paper Sec. IV "Single-Architecture SDF", supplement Sec. V).

    python create_mlp_dataset.py                           # chairs: procedural ones, small SIRENs
    python create_mlp_dataset.py meshes --dataset FOLDER   # .obj .ply .off .glb .stl, the paper's SIRENs
    python create_mlp_dataset.py deepsdf --dataset FOLDER  # DeepSDF's .npz, the paper's SIRENs

Writes runs/<dataset>/shapes/ (samples of the signed distance, true meshes), runs/<dataset>/nets/siren-adam/*.safetensors,
the lists models/input_lists/<dataset>/mlps/{train,test}.txt, and runs/<dataset>/mlps/create_mlp_dataset.json: how close each
fit is. SIRENs are fitted side by side, each from its own initialization and on points of its own.
Run again to resume: a shape on disk is not fitted again. chairs takes 4 minutes on 2 CPU cores."""

import itertools
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
import tyro
from torch import Tensor
from tqdm import tqdm

from data.chairs import make_chairs
from data.draws import balanced_places, instance_keys
from data.files import write_json
from data.folders import Folders
from data.load import dataset_name
from data.meshes import prepare_meshes
from data.mlps import Entry
from data.nets import read_instance, save_instance, write_lists
from data.plans import Plan
from data.sdf_samples import balanced, hold_out, read_samples
from evaluation.accuracy import closeness
from evaluation.meshes import chamfer_distance, level_set
from models.errors import InputError
from models.siren import SirenNets
from training.command_line import run_script
from training.distributed import hides_bar, is_first
from training.ensembles import SirenEnsemble
from training.provenance import provenance, versions
from training.runtime import pick_device
from training.stacks import (
    StackCheckpoint,
    constants_of_stack,
    fresh_state,
    of_this_rank,
    train_missing,
    wait_for_instances,
)

MEASURED = 0.1  # share of a shape's samples that its SIREN is not fitted to, but measured on


@dataclass(frozen=True)
class Config:
    dataset: str  # chairs, or a folder of meshes or of .npz
    source: Literal["chairs", "meshes", "deepsdf"]
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    num_shapes: int = 1000  # the first ones, by name, where there are more
    num_test: int = 50  # of them, held out from NetSpace
    num_samples: int = 500_000  # signed distances sampled of each chair or mesh
    num_steps: int = 10_000
    num_points: int = 20_000  # at a step, half of them outside
    learning_rate: float = 1e-4  # Adam's, multiplied by
    lr_decay: float = 0.9  # this
    lr_every: int = 1000  # every so many steps
    num_kept: int = 50_000  # samples kept with each SIREN, to compare it with predicted ones
    resolution: int = 128  # of the grid on which fits are meshed, points a side
    chamfer_points: int = 30_000  # on each surface, for the distance between a fit's and the true one
    side_by_side: int = 16  # SIRENs fitted at once; fewer need less memory
    checkpoint_seconds: float = 60.0
    seed: int = 0
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "chairs": Config(
        "chairs",
        "chairs",
        hidden=(64, 64),
        num_shapes=64,
        num_test=8,
        num_samples=20_000,
        num_steps=3500,
        num_points=512,
        learning_rate=2e-3,
        lr_every=85,
        num_kept=8192,
        resolution=64,
        side_by_side=64,
    ),
    "meshes": Config("data/meshes", "meshes"),
    "deepsdf": Config("data/deepsdf", "deepsdf"),
}


def main(config: Config) -> dict[str, dict[str, float]]:
    device = pick_device()
    dataset = dataset_name(config.dataset)
    nets = SirenNets((3, *config.hidden, 1))
    shapes = make_shapes(config)
    train, test = deal_shapes(shapes, config.num_test, config.seed)
    folder = config.folders.nets(config.dataset, "siren-adam")
    protocol = ("num_steps", "num_points", "learning_rate", "lr_decay", "lr_every", "num_kept", "seed")
    facts = {"dataset": dataset, "hidden": list(config.hidden), **{name: getattr(config, name) for name in protocol}}
    plans = [
        Plan(
            i, config.num_steps, folder / f"seed{config.seed}-{shape.stem}.safetensors", {**facts, "shape": shape.stem}
        )
        for i, shape in enumerate(shapes)
    ]
    of_shape = {shape: plan.path for shape, plan in zip(shapes, plans)}
    lists = {"train": train, "test": test}
    entries = {split: [Entry(nets.widths, dataset, of_shape[shape]) for shape in lists[split]] for split in lists}
    write = write_lists(config.folders, config.dataset, "mlps", entries)  # refuses now, not after hours of fitting

    fit = partial(fit_side_by_side, config, nets, shapes, device)
    fitted = train_missing(plans, itertools.count(), constants_of_stack(config), config.side_by_side, fit)
    if not is_first():
        return {}
    wait_for_instances(plans)
    write()
    print(f"{len(plans)} SIRENs in {folder}, {fitted} of them fitted now{of_this_rank()}")
    return report_fits(config, plans)


def make_shapes(config: Config) -> list[Path]:
    """Paths of samples, `.npz`, one a shape, by name. Raises InputError if there are too few."""
    folder = config.folders.run(config.dataset, "shapes")
    if config.source == "chairs":
        return make_chairs(folder, config.num_shapes, config.seed, config.num_samples)
    if config.source == "meshes":
        shapes = prepare_meshes(Path(config.dataset), folder, config.num_samples, config.seed)
    else:
        shapes = sorted(Path(config.dataset).rglob("*.npz"))
    if len(shapes) <= config.num_test:
        raise InputError(
            f"{config.dataset} holds {len(shapes)} shapes, and --num-test {config.num_test} of them are held out; "
            f"add shapes, or hold out fewer"
        )
    return shapes[: config.num_shapes]


def deal_shapes(shapes: list[Path], num_test: int, seed: int) -> tuple[list[Path], list[Path]]:
    """Shapes to train NetSpace on, and held-out ones."""
    order = np.random.default_rng((seed, 0)).permutation(len(shapes))
    return [shapes[i] for i in sorted(order[num_test:])], [shapes[i] for i in sorted(order[:num_test])]


def samples_of(shape: Path, config: Config, index: int) -> tuple[Tensor, Tensor]:
    """Samples (S, 4), positive half first: those that a SIREN is fitted to, and others, on which its fit is measured."""
    rng = np.random.default_rng((config.seed, 4, index))
    parts, sizes = hold_out(read_samples(shape), MEASURED, rng), (config.num_samples, config.num_kept)
    fitted, measured = (torch.from_numpy(balanced(part, size, rng)) for part, size in zip(parts, sizes))
    return fitted, measured


def fit_side_by_side(
    config: Config,
    nets: SirenNets,
    shapes: list[Path],
    device: torch.device,
    plans: list[Plan],
    checkpoint: Path,
    saved: dict[str, Any] | None,
) -> None:
    """Fits the planned SIRENs at once, and saves them with samples of their shapes. `saved` resumes."""
    shapes = [shapes[plan.index] for plan in plans]
    pairs = [samples_of(shape, config, plan.index) for shape, plan in zip(shapes, plans)]
    samples, measured = (torch.stack(each).to(device) for each in zip(*pairs))
    start = fresh_state(nets, [(config.seed, 2, plan.index) for plan in plans], device)
    ensemble = SirenEnsemble(nets, start, lambda rows: torch.optim.Adam(rows, config.learning_rate, fused=True))
    keys = instance_keys([(config.seed, 3, plan.index) for plan in plans], device)
    step = 0
    if saved:
        ensemble.load_state_dict(saved["ensemble"])
        step = saved["steps"]
    stack = StackCheckpoint(checkpoint, constants_of_stack(config), config.checkpoint_seconds)
    bar = tqdm(total=config.num_steps, initial=step, desc=f"{len(plans)} SIRENs", unit=" steps", disable=hides_bar())
    while step < config.num_steps:
        if stack.due:
            stack.save(plans, step, ensemble)
        ensemble.set_learning_rate(config.learning_rate * config.lr_decay ** (step // config.lr_every))
        places = balanced_places(keys, step, config.num_points, config.num_samples)
        drawn = samples.gather(1, places[..., None].expand(-1, -1, 4))  # (M, num_points, 4)
        ensemble.step(drawn[..., :3], drawn[..., 3])
        step += 1
        bar.update()
    bar.close()
    ensemble.refuse_divergence([plan.path for plan in plans])
    save_fits(config, nets, plans, shapes, ensemble, samples, measured)
    stack.remove()


@torch.no_grad()
def save_fits(
    config: Config,
    nets: SirenNets,
    plans: list[Plan],
    shapes: list[Path],
    ensemble: SirenEnsemble,
    samples: Tensor,
    measured: Tensor,
) -> None:
    """Saves SIRENs with `num_kept` of their samples and, among their facts, how close they are to their shapes."""
    device, half = samples.device, samples.shape[1] - samples.shape[1] // 2
    kept = config.num_kept - config.num_kept // 2, config.num_kept // 2
    sdf = torch.cat([samples[:, : kept[0]], samples[:, half : half + kept[1]]], dim=1)
    state = ensemble.state()
    for i, (plan, shape) in enumerate(zip(plans, shapes)):
        row = ensemble.rows[[i]]
        distances = nets.run(row, measured[i, :, :3])[0]
        facts = {**plan.facts, "closeness": closeness(distances, measured[i, :, 3]).item()}
        if shape.with_suffix(".ply").is_file():
            fit = level_set(lambda points, row=row: nets.run(row, points)[0], config.resolution, device)
            truth = trimesh.load(shape.with_suffix(".ply"))
            facts["chamfer"] = chamfer_distance(fit, truth, config.chamfer_points, (config.seed, plan.index))
        facts["versions"] = versions()
        save_instance(plan.path, {**{name: value[i] for name, value in state.items()}, "sdf": sdf[i]}, facts)


def report_fits(config: Config, plans: list[Plan]) -> dict[str, dict[str, float]]:
    """Writes and prints how close the SIRENs are to their shapes; those from samples alone have no Chamfer distance."""
    facts = {plan.facts["shape"]: read_instance(plan.path)[1] for plan in plans}
    fits = {
        shape: {name: each[name] for name in ("closeness", "chamfer") if name in each} for shape, each in facts.items()
    }
    path = config.folders.run(config.dataset, "mlps") / "create_mlp_dataset.json"
    write_json(path, {"fits": fits, **provenance(config)})
    for name, what in (
        ("closeness", "share of distances within 0.01"),
        ("chamfer", "Chamfer distance to the true mesh"),
    ):
        values = np.array([fit[name] for fit in fits.values() if name in fit])
        if len(values):
            print(
                f"{what}: median {np.median(values):.4f}, {values.min():.4f} to {values.max():.4f}, n = {len(values)}"
            )
    return fits


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
