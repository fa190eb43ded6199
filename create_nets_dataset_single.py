"""Train many instances of one architecture to different accuracies (paper Sec. IV "Single-Architecture", supplement Sec. IV).

    python create_nets_dataset_single.py                           # photos
    python create_nets_dataset_single.py cifar10                   # the paper
    python create_nets_dataset_single.py cifar10 --dataset FOLDER  # your images

FOLDER holds train/CLASS/IMAGE and test/CLASS/IMAGE, square images of 32 or 64 pixels a side.
Writes runs/<dataset>/nets/<architecture>-adam/*.safetensors and models/input_lists/<dataset>/single/{train,val,test}.txt.
Instances train side by side, each from its own initialization, on its own order and augmentation of the images.
Run again to resume: an instance on disk is not trained again. photos takes 2 minutes on 2 CPU cores."""

import itertools
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from data.folders import Folders
from data.images import Epoch, ImageSet, check_batch
from data.load import load_images
from data.nets import Entry, write_lists
from data.plans import Plan, plan_instances, split_plans
from evaluation.accuracy import accuracy
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import get_architecture
from training.command_line import run_script
from training.distributed import hides_bar, is_first
from training.ensembles import Ensemble
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

# How long instances train: the original release's 186 candidates, in epochs.
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
# Numbers on the command line; --help does not show these many.
LENGTHS = tyro.conf.arg(help_behavior_hint="(default: the preset's, in this file)")


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    architecture: str = "resnet8"  # of all instances, a name in models/registry.py
    num_train: int = 100  # instances in train.txt
    num_val: int = 16  # in val.txt
    num_test: int = 16  # in test.txt
    lengths: Annotated[tuple[int, ...], LENGTHS] = PAPER_EPOCHS  # how long instances train, dealt to them evenly
    lengths_in: Literal["epochs", "steps"] = "epochs"  # their unit
    image_batch: int = 128  # B, images that an instance sees a step
    learning_rate: float = 1e-4  # Adam's, constant
    classifier_start: Literal["paper", "zero"] = "paper"  # PyTorch's default initialization of the last layer, or zeros
    side_by_side: int = 132  # instances trained at once; fewer need less memory
    checkpoint_seconds: float = 60.0  # how often a checkpoint of what is being trained is written
    seed: int = 0  # of initializations, training lengths, image orders and the split
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config("photos", lengths=PHOTOS_STEPS, lengths_in="steps", learning_rate=2e-3, classifier_start="zero"),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
}


def main(config: Config) -> None:
    if not config.lengths:
        raise InputError("--lengths: give at least one number of epochs or steps")
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    check_batch(images.train, config.image_batch)
    nets = ArchitectureOnImages(get_architecture(config.architecture), images.image_shape, images.num_classes)
    folder = config.folders.nets(config.dataset, f"{config.architecture}-adam")
    steps_of = 1 if config.lengths_in == "steps" else len(images.train) // config.image_batch
    facts = {
        name: getattr(config, name) for name in ("architecture", "image_batch", "learning_rate", "classifier_start")
    }
    total = config.num_train + config.num_val + config.num_test
    steps = [length * steps_of for length in config.lengths]
    of_images = {"dataset": images.name, "images": images.fingerprint}
    plans = plan_instances(total, steps, folder, {**of_images, **facts}, config.seed)
    splits = split_plans(plans, config.num_val, config.num_test, config.seed)
    entries = {
        split: [Entry(nets.architecture, images.name, plan.path) for plan in chosen] for split, chosen in splits.items()
    }
    write = write_lists(config.folders, config.dataset, "single", entries)  # refuses now, not after hours of training

    train = partial(train_side_by_side, config, images, nets)
    trained = train_missing(plans, itertools.count(), constants_of_stack(config), config.side_by_side, train)
    if is_first():
        wait_for_instances(plans, config.checkpoint_seconds)
        write()
    print(f"{len(plans)} instances of {config.architecture} in {folder}, {trained} of them trained now{of_this_rank()}")


def train_side_by_side(
    config: Config,
    images: ImageSet,
    nets: ArchitectureOnImages,
    plans: list[Plan],
    checkpoint: Path,
    saved: dict[str, Any] | None,
) -> None:
    """Trains the planned instances at once; each is saved when it has had its steps, and leaves. `saved` resumes."""
    device = images.train.pixels.device
    start = fresh_state(nets, [(config.seed, 2, plan.index) for plan in plans], device)
    if config.classifier_start == "zero":
        for name in nets.trained_layout.names[-2:]:  # weight and bias
            start[name].zero_()
    ensemble = Ensemble(nets, start, lambda rows: torch.optim.Adam(rows, config.learning_rate, fused=True))
    steps = 0
    if saved:
        ensemble.load_state_dict(saved["ensemble"])
        steps = saved["steps"]
    stack = StackCheckpoint(checkpoint, constants_of_stack(config), config.checkpoint_seconds)
    bar = tqdm(
        total=sum(plan.steps for plan in plans),
        initial=steps * len(plans),
        desc=f"{len(plans)} instances",
        unit=" steps",
        disable=hides_bar(),
    )
    steps_per_epoch, watched = len(images.train) // config.image_batch, {}
    while plans:
        epoch, start = divmod(steps, steps_per_epoch)
        draws = Epoch(images.train, [(config.seed, 3, plan.index, epoch) for plan in plans], config.image_batch)
        rows = torch.arange(len(plans), device=device)  # of the draws, for those still in training
        for i in range(start, steps_per_epoch):
            if stack.due:
                stack.save(plans, steps, ensemble)
            losses = ensemble.step(*draws.batch(i, rows))
            steps += 1
            bar.update(len(plans))
            if plans[0].steps == steps:  # shortest first
                done = sum(plan.steps == steps for plan in plans)
                ensemble.refuse_divergence([plan.path for plan in plans])
                val_accuracy = save_finished(ensemble, nets, images, plans[:done])
                watched["val"] = f"{val_accuracy.mean():.1f} % after {steps} steps"
                plans, rows = plans[done:], rows[done:]
                if not plans:
                    break
                ensemble.keep(slice(done, None))
        bar.set_postfix(loss=f"{losses.mean():.3f}", **watched)
    bar.close()
    stack.remove()


def save_finished(ensemble: Ensemble, nets: ArchitectureOnImages, images: ImageSet, plans: list[Plan]) -> Tensor:
    """Saves the first len(plans) instances of the ensemble. Returns their accuracy on validation images (len(plans),)."""
    state = {name: value[: len(plans)] for name, value in ensemble.state().items()}
    val_accuracy = accuracy(nets, nets.fuse(state), images.val)
    save_instances(plans, state, val_accuracy)
    return val_accuracy


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
