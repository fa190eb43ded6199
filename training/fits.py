"""SIRENs that are fitted to shapes: their plans and input lists, and the initialization that they share, if they do."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data.files import fingerprint_of_file
from data.folders import dataset_name
from data.instance_files import is_on_disk, read_instance, save_instance
from data.nets import Entry, list_texts
from data.shapes import fit_samples, split_shapes
from data.streams import balanced_indices, device_keys
from models.instances import TargetNet
from training.distributed import is_first
from training.ensembles import Ensemble, initial_state, optimizer_of, squared_errors
from training.runtime import MixedPrecision, versions
from training.zoo import Plan, Zoo

# Where a SIREN starts: at random numbers of its own; all at the same; all at one SIREN fitted to the training shapes together.
Init = Literal["random", "shared", "mean"]
MEAN_SAMPLES = 4096  # of each training shape, for the SIREN that is fitted to all of them
MEAN_POINTS, MEAN_RATE = 4096, 2e-3  # samples that it sees in a step, and Adam's rate at the start
MEAN_DECAYS = 50  # times that the rate is multiplied by 0.9
COMPILED_WIDTH = 128  # units of a SIREN's widest layer, from which on a GPU's steps are compiled


def plan_fits(config: Any, net: TargetNet, shapes: list[Path]) -> tuple[list[Plan], dict[Path, str], list[Path]]:
    """Return a planned SIREN for each shape, the input lists, and the shapes that train NetSpace.

    `config` is that of create_mlp_dataset.py.
    """
    dataset, folder = dataset_name(config.dataset), nets_folder(config)
    protocol = ("num_steps", "num_points", "learning_rate", "lr_decay", "lr_every", "num_stored", "seed")
    facts = {"dataset": dataset, "hidden": list(config.hidden), **{name: getattr(config, name) for name in protocol}}
    split = split_shapes(shapes, config.num_test, config.seed, config.num_val)
    samples = {shape: fingerprint_of_file(shape) for shape in shapes}
    # The instances of older versions do not say that they start at random and are fitted by Adam.
    if config.init != "random":
        facts["init"] = config.init
    if config.init == "mean":
        seen = hashlib.sha256(" ".join(samples[shape] for shape in split["train"]).encode()).hexdigest()
        facts |= {"init_steps": config.init_steps, "init_shapes": f"sha256:{seen[:16]}"}
    if config.optimizer != "adam":
        facts["optimizer"] = config.optimizer
    plans = []
    for i, shape in enumerate(shapes):
        path = folder / f"seed{config.seed}-{shape.stem}.safetensors"
        plans.append(Plan(i, config.num_steps, path, {**facts, "shape": shape.stem, "samples": samples[shape]}))
    paths = {shape: plan.path for shape, plan in zip(shapes, plans)}
    entries = {name: [Entry(net.architecture, dataset, paths[shape]) for shape in each] for name, each in split.items()}
    return plans, list_texts(config.folders, config.dataset, "mlps", entries), split["train"]


def nets_folder(config: Any) -> Path:
    """Return the folder of the SIRENs."""
    return config.folders.nets(config.dataset, f"siren-{config.optimizer}")


def start_of(
    config: Any, net: TargetNet, zoo: Zoo, plans: list[Plan], train: list[Path], device: torch.device
) -> dict[str, Tensor] | None:
    """Return the initialization that all SIRENs share, entries (1, *shape); None if each has its own.

    One that is fitted to the training shapes is saved beside the instances, and read if it is there.
    """
    if config.init == "random":
        return None
    if config.init == "shared":
        return initial_state(net, [(config.seed,)], device)
    known = {name: plans[0].facts[name] for name in ("dataset", "hidden", "seed", "init", "init_steps", "init_shapes")}
    plan = Plan(0, config.init_steps, nets_folder(config) / f"init{config.seed}.safetensors", known)
    if is_first() and not is_on_disk(plan.path, plan.facts):
        state = fit_to_all(net, train, config.init_steps, config.seed, device)
        save_instance(
            plan.path, {name: value[0] for name, value in state.items()}, {**plan.facts, "versions": versions()}
        )
    zoo.wait([plan])
    is_on_disk(plan.path, plan.facts)  # refuses another one, on every rank
    return {name: value[None].to(device) for name, value in read_instance(plan.path)[0].items()}


def ensemble_of(config: Any, net: TargetNet, start: dict[str, Tensor], precision: MixedPrecision) -> Ensemble:
    """Return SIRENs to be fitted, from where they start. Compiling pays for wide ones, and they all stay to the end."""
    optimizer = optimizer_of(config.optimizer, config.learning_rate)
    return Ensemble(net, start, optimizer, squared_errors, precision, compiled=max(config.hidden) >= COMPILED_WIDTH)


def fit_to_all(
    net: TargetNet, shapes: list[Path], num_steps: int, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """Return one SIREN, entries (1, *shape), fitted to the samples of all shapes at once: near the mean of their distances."""
    found = [fit_samples(shape, MEAN_SAMPLES, 2, (seed, i))[0] for i, shape in enumerate(shapes)]
    halves = zip(*(each.split(MEAN_SAMPLES // 2) for each in found))  # positive, negative
    samples = torch.cat([torch.cat(half) for half in halves])[None].to(device)  # (1, shapes * MEAN_SAMPLES, 4)
    adam = partial(torch.optim.Adam, lr=MEAN_RATE, fused=True)
    ensemble = Ensemble(net, initial_state(net, [(seed,)], device), adam, squared_errors)
    draws = device_keys("points of the shared initialization", [(seed,)], device)
    every = max(num_steps // MEAN_DECAYS, 1)
    for step in range(num_steps):
        ensemble.set_learning_rate(MEAN_RATE * 0.9 ** (step // every))
        points = samples[:, balanced_indices(draws, step, MEAN_POINTS, samples.shape[1])[0]]  # (1, MEAN_POINTS, 4)
        ensemble.step(points[..., :3], points[..., 3])
    return {name: value.clone() for name, value in ensemble.state().items()}
