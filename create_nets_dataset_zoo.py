"""Train nets and save each several times on the way: a zoo, which SANE and NetSpace learn from (SANE Sec. 5).

    python create_nets_dataset_zoo.py                               # photos
    python create_nets_dataset_zoo.py cifar10
    python create_nets_dataset_zoo.py photos --architectures all  # four

Writes one folder, runs/<dataset>/nets/zoo-<architectures> or --name: stacked states, facts.csv, zoo.json and a data set card
(README.md). `data.zoos.load_zoo` opens it. Facts of every checkpoint: net, step, accuracies, generalization gap, recall of every class.
Nets train side by side, each from its own initialization. Run it again to resume."""

from training.command_line import run_script

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.folders import IMAGE_SETS, Folders
from data.images import Batches, ImageSet
from data.instance_files import read_instance, save_instance
from data.load import load_images
from data.texts import read_json
from data.zoo_folders import ABOUT, Facts, States, write_zoo
from data.zoos import facts_of_checkpoints, recalls
from evaluation.metrics import percentage, predicted_classes
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import architectures_by_class_id, get_architecture
from training.checkpoints import refuse_other_constants
from training.constants import AtLeast2, Count, Flat, Positive, Seed, SideBySide
from training.distributed import is_first
from training.ensembles import Trajectories, initial_state
from training.runtime import as_json, constants_of, mixed_precision, pick_device, provenance
from training.zoo import Plan, Zoo


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    architectures: str = "resnet8"  # a name in models/target_nets, or all: those with a ClassId
    name: str | None = None  # the folder in runs/<dataset>/nets; by default zoo-<architectures>
    num_nets: Count = 132  # of each architecture
    num_checkpoints: AtLeast2 = 8  # of each net, geometric in steps
    first_step: Count = 15  # of the first checkpoint
    last_step: Count = 900  # of the last one
    image_batch: Count = 128  # B, images that a net sees in a step
    learning_rate: Positive = 2e-3  # Adam's, constant
    sides: Flat[SideBySide] = field(default_factory=lambda: SideBySide(132))
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


FREE = ("side_by_side", "checkpoint_seconds")  # constants that change nothing
LARGE = {"first_step": 100, "last_step": 15_600, "learning_rate": 1e-3, "sides": SideBySide(33)}
PRESETS = {"photos": Config("photos")}
PRESETS |= {name: Config(name, **LARGE) for name in IMAGE_SETS[1:]}


def checkpoint_steps(config: Config) -> list[int]:
    """Return the steps at which nets are saved. Raise InputError if two of them would be the same."""
    steps = np.rint(np.geomspace(config.first_step, config.last_step, config.num_checkpoints)).astype(int).tolist()
    if len(set(steps)) < len(steps) or steps != sorted(steps):
        raise InputError(
            f"{config.num_checkpoints} checkpoints from --first-step {config.first_step} to --last-step {config.last_step} "
            "are not all at different steps; make fewer, or the steps farther apart"
        )
    return steps


def main(config: Config) -> None:
    device, steps = pick_device(), checkpoint_steps(config)
    images = load_images(config.dataset, config.folders.data_dir, device)
    every = config.architectures == "all"
    chosen = architectures_by_class_id() if every else [get_architecture(config.architectures)]
    folder = config.folders.zoo(config.dataset, config.name or f"zoo-{config.architectures}")
    zoo, plans, precision = Zoo(config), {}, mixed_precision(device, config.sides.precision)
    for architecture in chosen:
        facts = {name: getattr(config, name) for name in ("image_batch", "learning_rate", "seed")}
        facts |= {"architecture": architecture.name, "dataset": images.name, "images": images.fingerprint}
        facts |= {"checkpoints": steps}
        names = [folder / f"{architecture.name}-{i:03d}.safetensors" for i in range(config.num_nets)]
        plans[architecture.name] = [Plan(i, steps[-1], path, {**facts, "net": i}) for i, path in enumerate(names)]
    if (folder / ABOUT).is_file():
        return report_made(folder, plans, config)
    for name, planned in plans.items():
        net = TargetNet(get_architecture(name), images.image_shape, images.num_classes)
        for stack in zoo.stacks(planned):
            keys = [(config.seed, plan.index) for plan in stack.plans]
            adam = partial(torch.optim.Adam, lr=config.learning_rate, fused=True)
            nets = stack.start(Trajectories(net, initial_state(net, keys, device), adam, precision=precision))
            batches = Batches(images.train, keys, config.image_batch)
            for step in stack.steps():
                nets.step(*batches.batch(step))
                if step + 1 in steps:
                    nets.save_states()
            for plan, states in zip(stack.plans, nets.by_net()):  # entries (K, *shape)
                save_instance(plan.path, states, {**plan.facts, "measured": measure(net, states, steps, images)})
            stack.finish()
        zoo.report(planned)
    if is_first():
        for each in plans.values():
            zoo.wait(each)
        collect(folder, plans, images, provenance(config))


def measure(net: TargetNet, states: States, steps: list[int], images: ImageSet) -> Facts:
    """Return the facts of one net's checkpoints, states of entries (K, *shape)."""
    rows = net.fuse(states)
    right = {
        split: predicted_classes(net, rows, getattr(images, split)) == getattr(images, split).labels
        for split in ("train", "val", "test")
    }
    values = {f"{split}_accuracy": percentage(each) for split, each in right.items()}
    gap = values["train_accuracy"] - values["test_accuracy"]
    recall = recalls(right["test"], images.test.labels, images.num_classes)
    return facts_of_checkpoints(steps, **values, generalization_gap=gap, recall=recall)


def collect(folder: Path, plans: dict[str, list[Plan]], images: ImageSet, made_with: dict[str, Any]) -> None:
    """Write the zoo's folder from the files of its nets, which it replaces."""
    states, facts = {}, {}
    for name, planned in plans.items():
        parts = [read_instance(plan.path) for plan in planned]
        states[name] = {entry: torch.cat([state[entry] for state, _ in parts]) for entry in parts[0][0]}
        facts[name] = [
            {"architecture": name, "net": f"{name}-{known['net']:03d}", "seed": known["seed"], **line}
            for _, known in parts
            for line in known["measured"]
        ]
    write_zoo(folder, states, facts, images.facts(), made_with)
    for plan in (each for planned in plans.values() for each in planned):
        plan.path.unlink()
    accuracy = [line["test_accuracy"] for each in facts.values() for line in each]
    print(f"{len(accuracy)} instances in {folder}: test accuracy {min(accuracy):.1f} to {max(accuracy):.1f} %")


def report_made(folder: Path, plans: dict[str, list[Plan]], config: Config) -> None:
    """Print that a zoo is there. Raise InputError if it was made with other constants."""
    about = read_json(folder / ABOUT, f"move {folder} away to have it made again")
    now = {name: each for name, each in as_json(constants_of(config)).items() if name not in FREE}
    refuse_other_constants(folder, about.get("config"), now)
    for plan in (each for planned in plans.values() for each in planned):
        plan.path.unlink(missing_ok=True)  # if it was stopped just before
    print(f"{folder} is there already: {sum(about['architectures'].values())} instances")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
