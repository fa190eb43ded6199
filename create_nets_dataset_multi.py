"""Train instances of several architectures to their best, and a teacher (paper Sec. IV "Multi-Architecture", supplement Sec. IV).

    python create_nets_dataset_multi.py                           # photos
    python create_nets_dataset_multi.py cifar10                   # the paper
    python create_nets_dataset_multi.py cifar10 --dataset FOLDER  # your images

FOLDER holds train/CLASS/IMAGE and test/CLASS/IMAGE, square images of 32 or 64 pixels a side.
Writes runs/<dataset>/nets/<architecture>-sgd/*.safetensors and nets/teacher/, and the lists that name them:
models/input_lists/<dataset>/multi/{train,val,test,teacher}.txt, and missing/{train,val,test}.txt, which hold the lowest and
the highest ClassId alone, from the same instances. Of each instance, the state with the best validation accuracy is saved.
Run it again to resume: an instance on disk is not trained again."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.folders import Folders
from data.images import Batches, ImageSet
from data.load import load_images
from data.nets import Entry, list_texts, write_lists
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, Architecture, architectures_by_class_id, get_architecture
from training.command_line import run_script
from training.constants import Count, Flat, Fraction, NonNegative, Positive, Seed, SideBySide
from training.distributed import is_first
from training.runtime import pick_device
from training.zoo import Ensemble, Plan, Zoo, initial_state, plan_instances, save_instances


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    teacher: str = "resnet56"  # its architecture, a name in models/target_nets
    num_train: tuple[Count, ...] = (60, 50, 60, 100)  # instances of ClassId 0, 1, 2, 3 in multi/train.txt
    num_train_missing: tuple[Count, Count] = (40, 80)  # of the lowest and of the highest ClassId in missing/train.txt
    num_val: Count = 16  # of each ClassId in val.txt
    num_test: Count = 16  # of each ClassId in test.txt
    num_epochs: tuple[Count, ...] = (300, 300, 300, 300)  # of instances of ClassId 0, 1, 2, 3
    teacher_epochs: Count = 300  # of the teacher
    learning_rate: Positive = 0.05  # SGD's, at the start
    lr_drops: tuple[Fraction, ...] = (
        1 / 2,
        3 / 5,
        7 / 10,
    )  # fractions of the epochs after which it is multiplied by 0.1
    momentum: Fraction = 0.9  # SGD's
    weight_decay: NonNegative = 5e-4  # SGD's
    image_batch: Count = 128  # B, images that an instance sees in a step
    validate_from: Fraction = 2 / 3  # fraction of the epochs after which validation begins
    validate_every: Count = 10  # epochs between validations; the last epoch is validated too
    sides: Flat[SideBySide] = field(default_factory=SideBySide)
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        num_train=(16, 16, 16, 16),
        num_train_missing=(16, 16),
        num_val=4,
        num_test=8,
        num_epochs=(20, 20, 10, 20),
        teacher_epochs=20,
        lr_drops=(0.6, 0.8, 0.95),
        image_batch=64,
        validate_every=1,
        sides=SideBySide(14),  # half of an architecture: two ranks split the work
    ),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
}


def main(config: Config) -> None:
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    pool, teacher = architectures_by_class_id(), get_architecture(config.teacher)
    check_counts(config, pool)
    plans, lists = plan_all(config, images, pool, teacher)  # refuses now, not after hours of training

    per_epoch = Batches(images.train, [], config.image_batch).per_pass
    rates = dict(lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    sgd = partial(torch.optim.SGD, **rates, fused=True)
    zoo = Zoo(config)
    for architecture, planned in plans:
        net = TargetNet(architecture, images.image_shape, images.num_classes)
        num_epochs = planned[0].facts["num_epochs"]
        first = round(config.validate_from * num_epochs)
        drops = [round(fraction * num_epochs) for fraction in config.lr_drops]
        for stack in zoo.stacks(planned):
            kind = list(ARCHITECTURES).index(architecture.name)
            keys = [(config.seed, kind, plan.index) for plan in stack.plans]
            ensemble = stack.start(Ensemble(net, initial_state(net, keys, device), sgd))
            batches = Batches(images.train, keys, config.image_batch)
            for step in stack.steps():
                fallen = sum(step >= drop * per_epoch for drop in drops)
                ensemble.set_learning_rate(config.learning_rate * 0.1**fallen)
                ensemble.step(*batches.batch(step))
                epoch = (step + 1) / per_epoch
                due = epoch >= first and (epoch - first) % config.validate_every == 0
                if due or epoch == num_epochs:
                    ensemble.update_best(accuracy(net, net.fuse(ensemble.state()), images.val))
            save_instances(stack.plans, ensemble.best_state, ensemble.best_accuracy)
            stack.finish()
        zoo.report(planned)
    if is_first():
        zoo.wait([plan for _, planned in plans for plan in planned])
        for texts in lists:
            write_lists(texts)


def check_counts(config: Config, pool: list[Architecture]) -> None:
    """Raise InputError unless there is a number for each architecture."""
    for flag, numbers in (("--num-train", config.num_train), ("--num-epochs", config.num_epochs)):
        if len(numbers) != len(pool):
            names = ", ".join(architecture.name for architecture in pool)
            raise InputError(f"{flag} {len(numbers)} numbers: give {len(pool)}, one for each of {names}")
    for few, all_of_them in zip(config.num_train_missing, (config.num_train[0], config.num_train[-1])):
        if few > all_of_them:
            raise InputError(f"--num-train-missing {few}: it takes from the {all_of_them} of --num-train, give fewer")


def plan_all(
    config: Config, images: ImageSet, pool: list[Architecture], teacher: Architecture
) -> tuple[list[tuple[Architecture, list[Plan]]], list[dict[Path, str]]]:
    """Return the planned instances, the teacher first, and the input lists of both settings."""
    plans, entries = [], {"multi": {}, "missing": {}}
    for i, architecture in enumerate(pool):
        numbers = {"train": config.num_train[i], "val": config.num_val, "test": config.num_test}
        folder = config.folders.nets(config.dataset, f"{architecture.name}-sgd")
        planned = plan(config, images, architecture, folder, sum(numbers.values()), config.num_epochs[i])
        plans.append((architecture, planned))
        ends = np.cumsum([0, *numbers.values()]).tolist()  # instances differ by chance alone: the first ones train
        for split, start, end in zip(numbers, ends, ends[1:]):
            lines = [Entry(architecture, images.name, each.path) for each in planned[start:end]]
            entries["multi"].setdefault(split, []).extend(lines)
            seen = config.num_train_missing[i > 0] if split == "train" else len(lines)
            entries["missing"].setdefault(split, []).extend(lines[:seen] if i in (0, len(pool) - 1) else [])
    planned = plan(config, images, teacher, config.folders.nets(config.dataset, "teacher"), 1, config.teacher_epochs)
    entries["multi"]["teacher"] = [Entry(teacher, images.name, planned[0].path)]
    lists = [list_texts(config.folders, config.dataset, setting, each) for setting, each in entries.items()]
    return [(teacher, planned), *plans], lists


def plan(
    config: Config, images: ImageSet, architecture: Architecture, folder: Path, total: int, num_epochs: int
) -> list[Plan]:
    """Return `total` planned instances of one architecture."""
    protocol = ("learning_rate", "momentum", "weight_decay", "image_batch", "validate_from", "validate_every")
    facts = {"lr_drops": list(config.lr_drops), **{name: getattr(config, name) for name in protocol}}
    facts |= {"dataset": images.name, "architecture": architecture.name}
    facts |= {"num_epochs": num_epochs, "images": images.fingerprint}
    steps = num_epochs * Batches(images.train, [], config.image_batch).per_pass
    return plan_instances(total, [steps], folder, facts, config.seed)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
