"""Train instances of several architectures to their best, and a teacher (paper Sec. IV "Multi-Architecture", supplement Sec. IV).

    python create_nets_dataset_multi.py                           # photos
    python create_nets_dataset_multi.py cifar10                   # the paper
    python create_nets_dataset_multi.py cifar10 --dataset FOLDER  # your images

FOLDER has train/CLASS/IMAGE and test/CLASS/IMAGE, square images of 32 or 64 pixels a side. Writes
runs/<dataset>/nets/<architecture>-sgd/*.safetensors and nets/teacher/, each instance at its best validation accuracy, and
input lists: models/input_lists/<dataset>/multi/{train,val,test,teacher}.txt, and missing/{train,val,test}.txt with the lowest
and the highest ClassId alone. Run it again to resume: an instance on disk is not trained again."""

from training.command_line import run_script

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from data.folders import IMAGE_SETS, Folders
from data.images import Batches, ImageSet
from data.load import load_images
from data.nets import Entry, list_texts, write_lists
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, Architecture, architectures_by_class_id, get_architecture
from training.constants import Count, Flat, Fraction, NonNegative, Positive, Seed, SideBySide
from training.distributed import is_first
from training.ensembles import Ensemble, initial_state
from training.runtime import as_json, mixed_precision, pick_device
from training.zoo import Plan, Zoo, plan_instances, save_instances


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
    lr_drops: tuple[Fraction, ...] = (0.5, 0.6, 0.7)  # fractions of the epochs after which it is multiplied by 0.1
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
    **{name: Config(name) for name in IMAGE_SETS[1:]},
}


def main(config: Config) -> None:
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    pool, teacher = architectures_by_class_id(), get_architecture(config.teacher)
    plans, lists = plan_all(config, images, pool, teacher)  # refuses now, not after hours of training

    rates = {name: getattr(config, name) for name in ("momentum", "weight_decay")}
    sgd = partial(torch.optim.SGD, **rates, fused=True)
    zoo, precision = Zoo(config), mixed_precision(device, config.sides.precision)
    for architecture, planned in plans:
        net = TargetNet(architecture, images.image_shape, images.num_classes)
        num_epochs = planned[0].facts["num_epochs"]
        per_epoch = planned[0].steps // num_epochs
        first, *drops = (round(fraction * num_epochs) for fraction in (config.validate_from, *config.lr_drops))
        for stack in zoo.stacks(planned):
            keys = [(config.seed, list(ARCHITECTURES).index(architecture.name), plan.index) for plan in stack.plans]
            ensemble = stack.start(Ensemble(net, initial_state(net, keys, device), sgd, precision=precision))
            batches = Batches(images.train, keys, config.image_batch)
            for step in stack.steps():
                fallen = sum(step >= drop * per_epoch for drop in drops)
                ensemble.set_learning_rate(config.learning_rate * 0.1**fallen)
                ensemble.step(*batches.batch(step))
                epoch = (step + 1) / per_epoch
                if epoch == num_epochs or epoch >= first and (epoch - first) % config.validate_every == 0:
                    ensemble.update_best(accuracy(net, net.fuse(ensemble.state()), images.val))
                    stack.show(best=f"{ensemble.best_accuracy.mean():.1f} % on validation")
            save_instances(stack.plans, ensemble.best_state, ensemble.best_accuracy)
            stack.finish()
        zoo.report(planned)
    if is_first():
        zoo.wait([plan for _, planned in plans for plan in planned])
        for texts in lists:
            write_lists(texts)


def plan_all(
    config: Config, images: ImageSet, pool: list[Architecture], teacher: Architecture
) -> tuple[list[tuple[Architecture, list[Plan]]], list[dict[Path, str]]]:
    """Return the planned instances, the teacher first, and the input lists of both settings.

    Raise InputError unless each architecture has a number, or if lists exist with other instances.
    """
    for flag, numbers in (("--num-train", config.num_train), ("--num-epochs", config.num_epochs)):
        if len(numbers) != len(pool):
            names = ", ".join(architecture.name for architecture in pool)
            raise InputError(f"{flag} {len(numbers)} numbers: give {len(pool)}, one for each of {names}")
    for few, total in zip(config.num_train_missing, (config.num_train[0], config.num_train[-1])):
        if few > total:
            raise InputError(f"--num-train-missing {few}: it takes from the {total} of --num-train, give fewer")
    protocol = ("lr_drops", "momentum", "weight_decay", "image_batch", "validate_from", "validate_every")
    facts = {"dataset": images.name, "images": images.fingerprint}
    facts |= {name: as_json(getattr(config, name)) for name in ("learning_rate", *protocol)}
    per_epoch = Batches(images.train, [], config.image_batch).per_pass
    counts = [{"train": number, "val": config.num_val, "test": config.num_test} for number in config.num_train]
    made = [(teacher, "teacher", {"teacher": 1}, config.teacher_epochs)]
    made += [(each, f"{each.name}-sgd", *of) for each, *of in zip(pool, counts, config.num_epochs)]
    plans, entries = [], {"multi": {}, "missing": {}}
    for architecture, collection, numbers, num_epochs in made:
        folder = config.folders.nets(config.dataset, collection)
        known = {**facts, "architecture": architecture.name, "num_epochs": num_epochs}
        planned = plan_instances(sum(numbers.values()), [num_epochs * per_epoch], folder, known, config.seed)
        plans.append((architecture, planned))
        lines = [Entry(architecture, images.name, each.path) for each in planned]
        for split, number in numbers.items():  # instances differ by chance alone: the first ones train
            chosen, lines = lines[:number], lines[number:]
            entries["multi"].setdefault(split, []).extend(chosen)
            if split != "teacher" and architecture in (pool[0], pool[-1]):
                seen = config.num_train_missing[architecture == pool[-1]] if split == "train" else number
                entries["missing"].setdefault(split, []).extend(chosen[:seen])
    return plans, [list_texts(config.folders, config.dataset, setting, each) for setting, each in entries.items()]


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
