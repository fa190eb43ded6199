"""Train instances of several architectures to their best, and a teacher (paper Sec. IV "Multi-Architecture", supplement Sec. IV).

    python create_nets_dataset_multi.py                           # photos
    python create_nets_dataset_multi.py cifar10                   # the paper
    python create_nets_dataset_multi.py cifar10 --dataset FOLDER  # your images

FOLDER holds train/CLASS/IMAGE and test/CLASS/IMAGE, square images of 32 or 64 pixels a side.
Writes runs/<dataset>/nets/<architecture>-sgd/*.safetensors and nets/teacher/, and the lists that name them:
models/input_lists/<dataset>/multi/{train,val,test,teacher}.txt, and missing/{train,val,test}.txt, in which only the lowest
and the highest ClassId are, taken from the same instances. Kept is what does best on validation images.
Run again to resume: an instance on disk is not trained again. photos takes 10 minutes on 2 CPU cores."""

import itertools
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from data.folders import Folders
from data.images import Epoch, ImageSet, check_batch
from data.load import load_images
from data.nets import Entry, write_lists
from data.plans import Plan, deal_alike, plan_instances
from evaluation.accuracy import accuracy
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES, Architecture, architectures_by_class_id, get_architecture
from training.command_line import run_script
from training.distributed import hides_bar, is_first
from training.ensembles import BestStates, Ensemble
from training.runtime import pick_device
from training.stacks import (
    StackCheckpoint,
    constants_of_stack,
    fresh_state,
    of_this_rank,
    save_instances,
    train_missing,
    wait_for_instances,
)


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    teacher: str = "resnet56"  # its architecture, a name in models/registry.py
    num_train: tuple[int, ...] = (60, 50, 60, 100)  # instances of ClassId 0, 1, 2, 3 in multi/train.txt
    num_train_missing: tuple[int, int] = (40, 80)  # of the lowest and of the highest ClassId in missing/train.txt
    num_val: int = 16  # of each ClassId in val.txt
    num_test: int = 16  # of each ClassId in test.txt
    num_epochs: tuple[int, ...] = (300, 300, 300, 300)  # of instances of ClassId 0, 1, 2, 3
    teacher_epochs: int = 300  # of the teacher
    learning_rate: float = 0.05  # SGD's, at the start
    lr_drops: tuple[float, ...] = (1 / 2, 3 / 5, 7 / 10)  # share of the epochs after which it is multiplied by 0.1
    momentum: float = 0.9  # SGD's
    weight_decay: float = 5e-4  # SGD's
    image_batch: int = 128  # B, images that an instance sees a step
    look_from: float = 2 / 3  # share of the epochs after which validation accuracy is looked at first
    look_every: int = 10  # epochs; the last one is looked at as well
    side_by_side: int = 16  # instances of one architecture trained at once; fewer need less memory
    checkpoint_seconds: float = 60.0  # how often a checkpoint of what is being trained is written
    seed: int = 0  # of initializations and image orders
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


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
        look_every=1,
        side_by_side=14,  # half of an architecture: two ranks share the work
    ),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
}


def main(config: Config) -> None:
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    check_batch(images.train, config.image_batch)
    pool, teacher = architectures_by_class_id(), get_architecture(config.teacher)
    check_counts(config, pool)
    plans, entries = {}, {"multi": {}, "missing": {}}
    for architecture, num_train, num_epochs in zip(pool, config.num_train, config.num_epochs):
        folder = config.folders.nets(config.dataset, f"{architecture.name}-sgd")
        total = num_train + config.num_val + config.num_test
        plans[architecture] = plan_all(config, images, architecture, folder, total, num_epochs)
        splits = deal_alike(plans[architecture], train=num_train, val=config.num_val, test=config.num_test)
        unseen = architecture not in (pool[0], pool[-1])
        missing_train = 0 if unseen else config.num_train_missing[architecture == pool[-1]]
        for split, chosen in splits.items():
            lines = [Entry(architecture, images.name, each.path) for each in chosen]
            entries["multi"][split] = [*entries["multi"].get(split, []), *lines]
            seen = lines[:missing_train] if split == "train" else [] if unseen else lines
            entries["missing"][split] = [*entries["missing"].get(split, []), *seen]
    folder = config.folders.nets(config.dataset, "teacher")
    teacher_plans = plan_all(config, images, teacher, folder, 1, config.teacher_epochs)
    entries["multi"]["teacher"] = [Entry(teacher, images.name, teacher_plans[0].path)]
    # Refuses now, not after hours of training.
    writes = [write_lists(config.folders, config.dataset, setting, lists) for setting, lists in entries.items()]

    turns = itertools.count()
    for architecture, planned in [(teacher, teacher_plans), *plans.items()]:
        nets = ArchitectureOnImages(architecture, images.image_shape, images.num_classes)
        train = partial(train_side_by_side, config, images, nets)
        trained = train_missing(planned, turns, constants_of_stack(config), config.side_by_side, train)
        trained_now = f"{trained} of them trained now{of_this_rank()}"
        print(f"{len(planned)} instances of {architecture.name} in {planned[0].path.parent}, {trained_now}")
    if is_first():
        everything = [*teacher_plans, *itertools.chain(*plans.values())]
        wait_for_instances(everything, config.checkpoint_seconds)
        for write in writes:
            write()


def check_counts(config: Config, pool: list[Architecture]) -> None:
    for flag, numbers in (("--num-train", config.num_train), ("--num-epochs", config.num_epochs)):
        if len(numbers) != len(pool):
            names = ", ".join(architecture.name for architecture in pool)
            raise InputError(f"{flag} {len(numbers)} numbers: give {len(pool)}, one for each of {names}")
    for few, all_of_them in zip(config.num_train_missing, (config.num_train[0], config.num_train[-1])):
        if few > all_of_them:
            raise InputError(f"--num-train-missing {few}: it takes from the {all_of_them} of --num-train, give fewer")


def plan_all(
    config: Config, images: ImageSet, architecture: Architecture, folder: Path, total: int, num_epochs: int
) -> list[Plan]:
    sgd = ("learning_rate", "lr_drops", "momentum", "weight_decay")
    facts = {name: getattr(config, name) for name in (*sgd, "image_batch", "look_from", "look_every")}
    facts = {**facts, "lr_drops": list(config.lr_drops), "dataset": images.name, "architecture": architecture.name}
    facts |= {"num_epochs": num_epochs, "images": images.fingerprint}
    steps = num_epochs * (len(images.train) // config.image_batch)
    return plan_instances(total, [steps], folder, facts, config.seed)


def train_side_by_side(
    config: Config,
    images: ImageSet,
    nets: ArchitectureOnImages,
    plans: list[Plan],
    checkpoint: Path,
    saved: dict[str, Any] | None,
) -> None:
    """Trains the planned instances at once, and saves each as it was when it did best. `saved` resumes."""
    device = images.train.pixels.device
    keys = [(config.seed, list(ARCHITECTURES).index(nets.architecture.name), plan.index) for plan in plans]
    rates = dict(lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    sgd = partial(torch.optim.SGD, **rates, fused=True)
    ensemble = Ensemble(nets, fresh_state(nets, [(*key, 2) for key in keys], device), sgd)
    steps_per_epoch = len(images.train) // config.image_batch
    epoch, start, best = 0, 0, BestStates(ensemble.state())
    if saved:
        ensemble.load_state_dict(saved["ensemble"])
        best.load_state_dict(saved["best"])
        epoch, start = divmod(saved["steps"], steps_per_epoch)
    stack = StackCheckpoint(checkpoint, constants_of_stack(config), config.checkpoint_seconds)
    num_epochs = plans[0].facts["num_epochs"]
    drops, look_from = [round(share * num_epochs) for share in config.lr_drops], round(config.look_from * num_epochs)
    what, watched = f"{len(plans)} {nets.architecture.name}", {}
    bar = tqdm(total=num_epochs, initial=epoch, desc=what, unit=" epochs", disable=hides_bar())
    while epoch < num_epochs:
        draws = Epoch(images.train, [(*key, 3, epoch) for key in keys], config.image_batch)
        ensemble.set_learning_rate(config.learning_rate * 0.1 ** sum(epoch >= drop for drop in drops))
        for i in range(start, steps_per_epoch):
            if stack.due:
                stack.save(plans, epoch * steps_per_epoch + i, ensemble, best=best.state_dict())
            losses = ensemble.step(*draws.batch(i))
        epoch, start = epoch + 1, 0
        looked = epoch >= look_from and (epoch - look_from) % config.look_every == 0
        if looked or epoch == num_epochs:
            state = ensemble.state()
            best.look(state, accuracy(nets, nets.fuse(state), images.val))
            watched["best"] = f"{best.accuracy.mean():.1f} % on validation"
        bar.set_postfix(loss=f"{losses.mean():.3f}", **watched)
        bar.update()
    bar.close()
    ensemble.refuse_divergence([plan.path for plan in plans])
    save_instances(plans, best.state, best.accuracy)
    stack.remove()


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
