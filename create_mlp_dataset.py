"""Fit one SIREN to the signed distances of each of many shapes (paper Sec. IV "Single-Architecture SDF", supplement Sec. V).

    python create_mlp_dataset.py                           # chairs
    python create_mlp_dataset.py meshes --dataset FOLDER   # .obj .ply .off ...
    python create_mlp_dataset.py deepsdf --dataset FOLDER  # DeepSDF's .npz

chairs are procedural and fitted with small SIRENs; meshes (.obj .ply .off .glb .gltf .stl) and deepsdf with the paper's. Writes
runs/<dataset>/shapes/ (samples of the signed distance, true meshes), runs/<dataset>/nets/siren-adam/*.safetensors, the lists
models/input_lists/<dataset>/mlps/{train,test}.txt, and runs/<dataset>/mlps/create_mlp_dataset.json: how close each fit is.
SIRENs are fitted side by side, each from its own initialization and on its own points. Run it again to resume."""

from training.command_line import run_script

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data.files import fingerprint_of_file
from data.folders import Folders, dataset_name
from data.instance_files import read_instance, save_instance
from data.nets import Entry, list_texts, write_lists
from data.shapes import Source, first_of_halves, fit_samples, make_shapes, split_shapes
from data.streams import balanced_indices, device_keys
from data.texts import write_json
from evaluation.metrics import describe_fits, fits_in, measure_fit
from models.instances import TargetNet
from models.target_nets import siren
from training.constants import AtLeast2, Count, Flat, Fraction, Positive, Seed, SideBySide
from training.distributed import hide_bar, is_first
from training.ensembles import Ensemble, initial_state, squared_errors
from training.runtime import lock_folder, mixed_precision, pick_device, provenance, versions
from training.zoo import Plan, Zoo


@dataclass(frozen=True)
class Config:
    dataset: str  # chairs, or a folder of meshes or of .npz
    source: Source  # what the shapes are made from
    hidden: tuple[Count, ...] = (256, 256)  # widths of the hidden layers
    num_shapes: Count = 1000  # the first ones, by name, if there are more
    num_test: Count = 50  # of them, held out from NetSpace
    num_samples: Count = 500_000  # signed distances sampled of each chair or mesh
    num_steps: Count = 10_000  # of Adam, for each SIREN
    num_points: Count = 20_000  # samples that a SIREN sees in a step, half of them outside its shape
    learning_rate: Positive = 1e-4  # Adam's, at the start
    lr_decay: Fraction = 0.9  # factor of the learning rate
    lr_every: Count = 1000  # steps after which it is applied again
    num_stored: Count = 50_000  # samples stored with each SIREN, to compare it with predicted ones
    resolution: AtLeast2 = 128  # of the grid on which fits are meshed, points a side
    chamfer_points: Count = 30_000  # on each surface, for the distance between a fit's and the true one
    sides: Flat[SideBySide] = field(default_factory=SideBySide)
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


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
        num_stored=8192,
        resolution=64,
        sides=SideBySide(64),
    ),
    "meshes": Config("data/meshes", "meshes"),
    "deepsdf": Config("data/deepsdf", "deepsdf"),
}


def main(config: Config) -> dict[str, dict[str, float]]:
    device, seed = pick_device(), config.seed
    net = TargetNet(siren((3, *config.hidden, 1)))
    if is_first():  # before anything is made: another run's shapes would be mixed with these
        lock_folder(config.folders.nets(config.dataset, "siren-adam"))
    shapes_dir = config.folders.run(config.dataset, "shapes")
    shapes = make_shapes(config.source, config.dataset, shapes_dir, config.num_shapes, config.num_samples, seed)
    plans, lists = plan_all(config, net, shapes)  # refuses now, not after hours of fitting

    zoo, precision = Zoo(config), mixed_precision(device, config.sides.precision or "float32")
    for stack in zoo.stacks(plans):
        keys = [(seed, plan.index) for plan in stack.plans]
        pairs = [fit_samples(shapes[i], config.num_samples, config.num_stored, (seed, i)) for _, i in keys]
        samples, measured = (torch.stack(each).to(device) for each in zip(*pairs))
        start, adam = initial_state(net, keys, device), partial(torch.optim.Adam, lr=config.learning_rate, fused=True)
        ensemble = stack.start(Ensemble(net, start, adam, squared_errors, precision))
        draws = device_keys("points of a fit", keys, device)
        for step in stack.steps():
            ensemble.set_learning_rate(config.learning_rate * config.lr_decay ** (step // config.lr_every))
            indices = balanced_indices(draws, step, config.num_points, config.num_samples)
            points = samples.gather(1, indices[..., None].expand(-1, -1, 4))  # (M, num_points, 4)
            ensemble.step(points[..., :3], points[..., 3])
        save_fits(config, stack.plans, shapes, ensemble, samples, measured)
        stack.finish()
    zoo.report(plans)
    if not is_first():
        return {}
    zoo.wait(plans)
    write_lists(lists)
    fits, folder = fits_in([read_instance(plan.path)[1] for plan in plans]), config.folders.run(config.dataset, "mlps")
    write_json(folder / "create_mlp_dataset.json", {"fits": fits, **provenance(config)})
    print(describe_fits(fits))
    return fits


def plan_all(config: Config, net: TargetNet, shapes: list[Path]) -> tuple[list[Plan], dict[Path, str]]:
    """Return a planned SIREN for each shape, and the input lists."""
    dataset, folder = dataset_name(config.dataset), config.folders.nets(config.dataset, "siren-adam")
    protocol = ("num_steps", "num_points", "learning_rate", "lr_decay", "lr_every", "num_stored", "seed")
    facts = {"dataset": dataset, "hidden": list(config.hidden), **{name: getattr(config, name) for name in protocol}}
    plans = []
    for i, shape in enumerate(shapes):
        path = folder / f"seed{config.seed}-{shape.stem}.safetensors"
        of_shape = {"shape": shape.stem, "samples": fingerprint_of_file(shape)}
        plans.append(Plan(i, config.num_steps, path, {**facts, **of_shape}))
    paths = {shape: plan.path for shape, plan in zip(shapes, plans)}
    splits = zip(("train", "test"), split_shapes(shapes, config.num_test, config.seed))
    entries = {split: [Entry(net.architecture, dataset, paths[shape]) for shape in chosen] for split, chosen in splits}
    return plans, list_texts(config.folders, config.dataset, "mlps", entries)


def save_fits(
    config: Config, plans: list[Plan], shapes: list[Path], ensemble: Ensemble, samples: Tensor, measured: Tensor
) -> None:
    """Save SIRENs with `num_stored` of their samples (M, S, 4) and, among their facts, how close they are to their shapes."""
    sdf, state = first_of_halves(samples, config.num_stored), ensemble.state()
    bar = tqdm(plans, "fits measured", leave=False, disable=hide_bar())
    for i, plan in enumerate(bar):
        if plan.path.is_file():  # it trained again because of others in its stack
            continue
        row, mesh = ensemble.rows[[i]].detach(), shapes[plan.index].with_suffix(".ply")
        key = (config.seed, plan.index)
        fit = measure_fit(ensemble.net, row, measured[i], mesh, config.resolution, config.chamfer_points, key)
        bar.set_postfix({name: f"{value:.3f}" for name, value in fit.items()})
        facts = {**plan.facts, **fit, "versions": versions()}
        save_instance(plan.path, {**{name: value[i] for name, value in state.items()}, "sdf": sdf[i]}, facts)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
