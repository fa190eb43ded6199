"""Fit one SIREN to the signed distances of each of many shapes (paper Sec. IV "Single-Architecture SDF", supplement Sec. V).

    python create_mlp_dataset.py                           # chairs
    python create_mlp_dataset.py meshes --dataset FOLDER   # .obj .ply .off ...
    python create_mlp_dataset.py deepsdf --dataset FOLDER  # DeepSDF's .npz
    python create_mlp_dataset.py chairs-unseen             # to embed others

chairs are procedural and fitted with small SIRENs; meshes (.obj .ply .off .glb .gltf .stl) and deepsdf with the paper's. Writes
runs/<dataset>/shapes/ (samples of the signed distance, true meshes), runs/<dataset>/nets/siren-adam/*.safetensors, the lists
models/input_lists/<dataset>/mlps/{train,test}.txt, and runs/<dataset>/mlps/create_mlp_dataset.json: how close each fit is.
SIRENs are fitted side by side on their own points, in chairs-unseen by SGD from one initialization. Run it again to resume."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Literal

import torch

from data.folders import Folders
from data.instance_files import read_instance
from data.nets import write_lists
from data.shapes import Source, fit_samples, make_shapes
from data.streams import balanced_indices, device_keys
from data.texts import write_json
from evaluation.fits import describe_fits, fits_in, save_fits
from models.instances import TargetNet
from models.target_nets import siren
from training.constants import AtLeast2, Count, Flat, Fraction, Index, Positive, Seed, SideBySide
from training.distributed import is_first
from training.ensembles import initial_state, repeated
from training.fits import Init, ensemble_of, nets_folder, plan_fits, start_of
from training.runtime import lock_folder, mixed_precision, pick_device, provenance
from training.zoo import Zoo


@dataclass(frozen=True)
class Config:
    dataset: str  # chairs, or a folder of meshes or of .npz
    source: Source  # what the shapes are made from
    hidden: tuple[Count, ...] = (256, 256)  # widths of the hidden layers
    num_shapes: Count = 1000  # the first ones, by name, if there are more
    num_test: Count = 50  # of them, held out from NetSpace
    num_val: Index = 0  # others of them, held out to choose its checkpoint
    num_samples: Count = 500_000  # signed distances sampled of each chair or mesh
    init: Init = "random"  # of a SIREN: its own, one for all, or one for all that is fitted to all training shapes
    init_steps: Count = 2000  # of Adam, for the initialization that is fitted
    optimizer: Literal["adam", "sgd"] = "adam"  # SGD, with momentum 0.9, adds less noise to weights
    num_steps: Count = 10_000  # of the optimizer, for each SIREN
    num_points: Count = 20_000  # samples that a SIREN sees in a step, half of them outside its shape
    learning_rate: Positive = 1e-4  # at the start
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
    "chairs-unseen": Config(
        "chairs-unseen",
        "chairs",
        hidden=(64, 64),
        num_shapes=1280,
        num_test=128,
        num_val=128,
        num_samples=20_000,
        init="mean",
        optimizer="sgd",
        num_steps=1000,
        num_points=512,
        learning_rate=0.05,
        lr_every=20,
        num_stored=8192,
        resolution=64,
        chamfer_points=10_000,
        sides=SideBySide(64),
    ),
    "meshes": Config("data/meshes", "meshes"),
    "deepsdf": Config("data/deepsdf", "deepsdf"),
}


def main(config: Config) -> dict[str, dict[str, float]]:
    device, seed = pick_device(), config.seed
    net = TargetNet(siren((3, *config.hidden, 1)))
    if is_first():  # before anything is made: another run's shapes would be mixed with these
        lock_folder(nets_folder(config))
    shapes_dir = config.folders.run(config.dataset, "shapes")
    shapes = make_shapes(config.source, config.dataset, shapes_dir, config.num_shapes, config.num_samples, seed)
    plans, lists, train = plan_fits(config, net, shapes)  # refuses now, not after hours of fitting

    zoo, precision = Zoo(config), mixed_precision(device, config.sides.precision or "tf32")
    shared = start_of(config, net, zoo, plans, train, device)
    for stack in zoo.stacks(plans):
        keys = [(seed, plan.index) for plan in stack.plans]
        pairs = [fit_samples(shapes[i], config.num_samples, config.num_stored, (seed, i)) for _, i in keys]
        samples, measured = (torch.stack(each).to(device) for each in zip(*pairs))
        start = initial_state(net, keys, device) if shared is None else repeated(shared, len(keys))
        ensemble = stack.start(ensemble_of(config, net, start, precision))
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


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
