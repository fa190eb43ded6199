"""Fit one SIREN to the signed distances of each of many shapes (paper Sec. IV "Single-Architecture SDF", supplement Sec. V).

    python create_mlp_dataset.py                           # chairs
    python create_mlp_dataset.py meshes --dataset FOLDER   # .obj .ply .off ...
    python create_mlp_dataset.py deepsdf --dataset FOLDER  # DeepSDF's .npz

chairs are procedural, fitted with small SIRENs; meshes (.obj .ply .off .glb .stl) and deepsdf with the paper's.
Writes runs/<dataset>/shapes/ (samples of the signed distance, true meshes), runs/<dataset>/nets/siren-adam/*.safetensors,
the lists models/input_lists/<dataset>/mlps/{train,test}.txt, and runs/<dataset>/mlps/create_mlp_dataset.json: how close each
fit is. SIRENs are fitted side by side, each from its own initialization and on points of its own.
Run again to resume: a shape on disk is not fitted again. chairs takes 4 minutes on 2 CPU cores."""

import itertools
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from data.draws import balanced_places, instance_keys
from data.files import write_json
from data.fingerprints import fingerprint_of_file
from data.folders import Folders
from data.instance_files import save_instance
from data.load import dataset_name
from data.mlps import Entry
from data.nets import write_lists
from data.plans import Plan
from data.shapes import Source, deal_shapes, first_of_halves, make_shapes, samples_of
from evaluation.closeness import describe_fits, measure_fit, read_fits
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

SHOWN_EVERY = 100  # steps between losses on the bar, each of which is read back from the device


@dataclass(frozen=True)
class Config:
    dataset: str  # chairs, or a folder of meshes or of .npz
    source: Source  # what the shapes are made from
    hidden: tuple[int, ...] = (256, 256)  # widths of the hidden layers
    num_shapes: int = 1000  # the first ones, by name, where there are more
    num_test: int = 50  # of them, held out from NetSpace
    num_samples: int = 500_000  # signed distances sampled of each chair or mesh
    num_steps: int = 10_000  # of Adam, for each SIREN
    num_points: int = 20_000  # samples a SIREN sees a step, half of them outside its shape
    learning_rate: float = 1e-4  # Adam's, at the start
    lr_decay: float = 0.9  # what it is multiplied by
    lr_every: int = 1000  # every so many steps
    num_kept: int = 50_000  # samples kept with each SIREN, to compare it with predicted ones
    resolution: int = 128  # of the grid on which fits are meshed, points a side
    chamfer_points: int = 30_000  # on each surface, for the distance between a fit's and the true one
    side_by_side: int = 16  # SIRENs fitted at once; fewer need less memory
    checkpoint_seconds: float = 60.0  # how often a checkpoint of what is being trained is written
    seed: int = 0  # of shapes, their samples, initializations and the split
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
    shapes_dir = config.folders.run(config.dataset, "shapes")
    shapes = make_shapes(config.source, config.dataset, shapes_dir, config.num_shapes, config.num_samples, config.seed)
    train, test = deal_shapes(shapes, config.num_test, config.seed)
    folder = config.folders.nets(config.dataset, "siren-adam")
    protocol = ("num_steps", "num_points", "learning_rate", "lr_decay", "lr_every", "num_kept", "seed")
    facts = {"dataset": dataset, "hidden": list(config.hidden), **{name: getattr(config, name) for name in protocol}}
    plans = []
    for i, shape in enumerate(shapes):
        of_shape = {"shape": shape.stem, "samples": fingerprint_of_file(shape)}
        path = folder / f"seed{config.seed}-{shape.stem}.safetensors"
        plans.append(Plan(i, config.num_steps, path, {**facts, **of_shape}))
    paths = {shape: plan.path for shape, plan in zip(shapes, plans)}
    lists = {"train": train, "test": test}
    entries = {split: [Entry(nets.widths, dataset, paths[shape]) for shape in lists[split]] for split in lists}
    write = write_lists(config.folders, config.dataset, "mlps", entries)  # refuses now, not after hours of fitting

    fit = partial(fit_side_by_side, config, nets, shapes, device)
    fitted = train_missing(plans, itertools.count(), constants_of_stack(config), config.side_by_side, fit)
    if not is_first():
        return {}
    wait_for_instances(plans, config.checkpoint_seconds)
    write()
    print(f"{len(plans)} SIRENs in {folder}, {fitted} of them fitted now{of_this_rank()}")
    fits = read_fits(plans)
    results = {"fits": fits, **provenance(config)}
    write_json(config.folders.run(config.dataset, "mlps") / "create_mlp_dataset.json", results)
    print(describe_fits(fits))
    return fits


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
    sizes = (config.num_samples, config.num_kept)
    pairs = [samples_of(shape, *sizes, (config.seed, 4, plan.index)) for shape, plan in zip(shapes, plans)]
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
        losses = ensemble.step(drawn[..., :3], drawn[..., 3])
        step += 1
        bar.update()
        if step % SHOWN_EVERY == 0:
            bar.set_postfix(loss=f"{losses.mean():.1e}")
    bar.close()
    ensemble.refuse_divergence([plan.path for plan in plans])
    save_fits(config, plans, shapes, ensemble, samples, measured)
    stack.remove()


def save_fits(
    config: Config,
    plans: list[Plan],
    shapes: list[Path],
    ensemble: SirenEnsemble,
    samples: Tensor,
    measured: Tensor,
) -> None:
    """Saves SIRENs with `num_kept` of their samples (M, S, 4) and, among their facts, how close they are to their shapes."""
    sdf, state = first_of_halves(samples, config.num_kept), ensemble.state()
    bar = tqdm(list(zip(plans, shapes)), "fits measured", leave=False, disable=hides_bar())
    for i, (plan, shape) in enumerate(bar):
        row = ensemble.rows[[i]].detach()
        keyed = (config.chamfer_points, (config.seed, plan.index))
        fit = measure_fit(ensemble.nets, row, measured[i], shape.with_suffix(".ply"), config.resolution, *keyed)
        bar.set_postfix({name: f"{value:.3f}" for name, value in fit.items()})
        facts = {**plan.facts, **fit, "versions": versions()}
        save_instance(plan.path, {**{name: value[i] for name, value in state.items()}, "sdf": sdf[i]}, facts)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
