"""Train many instances of one architecture to different accuracies (paper Sec. IV "Single-Architecture", supplement Sec. IV).

    python create_nets_dataset_single.py                           # photos
    python create_nets_dataset_single.py cifar10                   # the paper
    python create_nets_dataset_single.py cifar10 --dataset FOLDER  # your images

FOLDER has train/CLASS/IMAGE and test/CLASS/IMAGE, square images of 32 or 64 pixels a side. Writes
runs/<dataset>/nets/<architecture>-<optimizer>/*.safetensors and models/input_lists/<dataset>/single/{train,val,test}.txt.
Instances train side by side, each from its own initialization, on its own order and augmentation of the images. Run it again
to resume: an instance on disk is not trained again."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from data.folders import IMAGE_SETS, Folders
from data.images import Batches
from data.load import load_images
from data.nets import Entry, list_texts, split_alike, write_lists
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import get_architecture
from training.constants import Count, Flat, NonNegative, Positive, Seed, SideBySide
from training.distributed import is_first
from training.ensembles import Ensemble, initial_state, optimizer_of
from training.runtime import mixed_precision, pick_device
from training.zoo import Zoo, plan_instances, save_instances

# How long instances train, in epochs: the original release's 186 candidates.
PAPER_EPOCHS = (
    *range(1, 101),
    *range(102, 201, 2),
    *range(205, 301, 5),
    *range(310, 401, 10),
    *range(425, 501, 25),
    550,
    600,
)
# In steps of 128 images, of which 49 are an epoch of photos: from 0.3 to 18 epochs, denser towards the long end, where
# accuracy rises slowly.
PHOTOS_STEPS = tuple(round(15 * 60 ** (i / 32) ** 0.65) for i in range(33))
# Numbers on the command line; --help does not print these many.
LENGTHS = tyro.conf.arg(help_behavior_hint="(default: the preset's, in this file)")


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    architecture: str = "resnet8"  # of all instances, a name in models/target_nets
    num_train: Count = 100  # instances in train.txt
    num_val: Count = 16  # in val.txt
    num_test: Count = 16  # in test.txt
    lengths: Annotated[tuple[Count, ...], LENGTHS] = PAPER_EPOCHS  # how long instances train, each for equally many
    lengths_in: Literal["epochs", "steps"] = "epochs"  # the unit of lengths
    image_batch: Count = 128  # B, images that an instance sees in a step
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd has momentum 0.9
    learning_rate: Positive = 1e-4  # the optimizer's, at the start
    schedule: Literal["constant", "thirds"] = "constant"  # thirds: learning rate / 10 after 1/3 and 2/3 of the steps
    weight_decay: NonNegative = 0.0  # the optimizer's
    classifier_start: Literal["paper", "zero"] = "paper"  # PyTorch's default initialization of the last layer, or zeros
    sides: Flat[SideBySide] = field(default_factory=lambda: SideBySide(132))
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config("photos", lengths=PHOTOS_STEPS, lengths_in="steps", learning_rate=2e-3, classifier_start="zero"),
    **{name: Config(name) for name in IMAGE_SETS[1:]},
}


def main(config: Config) -> None:
    if not config.lengths:
        raise InputError("--lengths: give at least one number of epochs or steps")
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    per_epoch = Batches(images.train, [], config.image_batch).per_pass
    net = TargetNet(get_architecture(config.architecture), images.image_shape, images.num_classes)
    folder = config.folders.nets(config.dataset, f"{config.architecture}-{config.optimizer}")
    optimization = ("optimizer", "learning_rate", "schedule", "weight_decay")
    protocol = ("architecture", "image_batch", *optimization, "classifier_start")
    facts = {"dataset": images.name, "images": images.fingerprint, **{name: getattr(config, name) for name in protocol}}
    steps = [length * (per_epoch if config.lengths_in == "epochs" else 1) for length in config.lengths]
    if config.schedule != "constant" and len(set(steps)) > 1:
        raise InputError(f"--schedule {config.schedule}: all instances need one length; give one number as --lengths")
    total = config.num_train + config.num_val + config.num_test
    plans = plan_instances(total, steps, folder, facts, config.seed)
    splits = split_alike(plans, config.num_val, config.num_test, config.seed)
    entries = {
        split: [Entry(net.architecture, images.name, plan.path) for plan in chosen] for split, chosen in splits.items()
    }
    lists = list_texts(config.folders, config.dataset, "single", entries)  # refuses now, not after hours of training

    zoo, precision = Zoo(config), mixed_precision(device, config.sides.precision)
    for stack in zoo.stacks(plans):
        keys = [(config.seed, plan.index) for plan in stack.plans]
        start = initial_state(net, keys, device)
        if config.classifier_start == "zero":
            for name in net.trained_layout.names[-2:]:  # weight and bias
                start[name].zero_()
        optimizer = optimizer_of(config.optimizer, config.learning_rate, config.weight_decay)
        ensemble = stack.start(Ensemble(net, start, optimizer, precision=precision))
        batches = Batches(images.train, keys, config.image_batch)
        for step in stack.steps():
            if config.schedule == "thirds":
                ensemble.set_learning_rate(config.learning_rate / 10 ** (3 * step // steps[0]))
            ensemble.step(*batches.batch(step))
            done = stack.finished()  # each instance is saved at its last step and leaves the batch
            if done:
                state = ensemble.state(len(done))
                val_accuracy = accuracy(net, net.fuse(state), images.val)
                save_instances(done, state, val_accuracy)
                stack.show(val=f"{val_accuracy.mean():.1f} % after {step + 1} steps")
                stack.remove(len(done))
                batches.remove(len(done))
        stack.finish()
    zoo.report(plans)
    if is_first():
        zoo.wait(plans)
        write_lists(lists)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
