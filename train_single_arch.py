"""Train NetSpace on many instances of one architecture (paper Sec. III and IV, "Single-Architecture", eq. 1).

    python train_single_arch.py                           # photos
    python train_single_arch.py cifar10                   # the paper's sizes
    python train_single_arch.py --objective weights       # instead of behaviour
    python train_single_arch.py --instances zoo           # instead of lists

Needs the instances of create_nets_dataset_single.py. Writes runs/<dataset>/single/ (the folder of another objective has its
name, that of a zoo is zoo/): best.pt, with the smallest mean |target - predicted accuracy| on validation instances and images, last.pt,
scalars.jsonl and tensorboard/. Run it again to resume from last.pt."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Literal

import torch
from tyro.extras import literal_type_from_choices

from data.files import fingerprint
from data.folders import Folders
from data.images import Batches
from data.load import load_images
from data.nets import load_nets
from data.zoos import load_splits
from evaluation.metrics import accuracy
from evaluation.spaces import Space, about_images
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import get_architecture
from training.autoencoders import PrepObjective
from training.constants import Count, Flat, Optim, Positive, Seed, Start, Views, with_precision
from training.losses import OBJECTIVE_FOLDERS, OBJECTIVES, weight_losses
from training.run import Run, run_constants
from training.runtime import pick_device
from training.views import start_at_instances


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: Flat[Sizes]
    optim: Flat[Optim] = field(default_factory=Optim)
    start: Flat[Start] = field(default_factory=Start)
    views: Flat[Views] = field(default_factory=Views)
    architecture: str = "resnet8"  # of the instances
    instances: Literal["list", "zoo"] = "list"  # of input lists, or of zoo-<architecture>, split by net
    objective: literal_type_from_choices(list(OBJECTIVES)) = "behaviour"  # eq. 1, error of the weights, or their sum
    temperature: Positive = 4.0  # T of eq. 1
    meta_batch: Count = 8  # M, target instances in a step
    image_batch: Count = 128  # B, images shown to each of them
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        Sizes((32, 160), emb_size=1024, grid=32, row_length=256, row_channels=32),
        Optim(num_steps=2940, learning_rate=3e-3, schedule="one-cycle", clip_norm=1.0, validate_every=98),
        Start(affine_start="instance"),
        Views(prep_noise=0.3, reorder_channels=True),
        temperature=1.0,
        image_batch=64,
    ),
    "cifar10": Config("cifar10", Sizes((8, 10_000))),
    "cifar100": Config("cifar100", Sizes((12, 10_000))),
    "mnist": Config("mnist", Sizes((8, 10_000))),
    "tiny-imagenet-200": Config("tiny-imagenet-200", Sizes((16, 10_000)), Optim(625_000, validate_every=3125)),
}


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    device, seed = pick_device(), config.seed
    config = with_precision(config, device)
    images = load_images(config.dataset, config.folders.data_dir, device)
    batches = Batches(images.train, [(seed,)], config.image_batch)
    nets = TargetNets.on_images([get_architecture(config.architecture)], images.image_shape, images.num_classes)
    net = nets[0]
    if config.instances == "zoo":
        zoo = config.folders.nets(config.dataset, f"zoo-{config.architecture}")
        train, val, _ = load_splits(zoo, config.architecture, device).values()
    else:
        train, val = (load_nets(config.folders, images, "single", split, nets) for split in ("train", "val"))

    model = PrepAutoencoder(config.sizes)
    start_at_instances(model, config.start, train.rows, accuracy(net, train.rows, images.val))
    space = Space(model.to(device), nets, about_images(nets, images), {})
    setting = "zoo" if config.instances == "zoo" else OBJECTIVE_FOLDERS[config.objective]
    folder = config.folders.run(config.dataset, setting)
    data = {"instances": fingerprint(train.rows, val.rows), "images": images.fingerprint}
    run = Run.of(folder, run_constants(config, **data), space.about, model, config.optim)
    val_accuracy = accuracy(net, val.rows, images.val)
    objective = PrepObjective(config, model, net, train.rows, batches)

    for step in run.steps(config.optim.num_steps):
        found = objective.at(step)  # of M targets, as they are shown at this step
        run.descend(found.loss, [train.paths[i] for i in found.chosen])
        if run.validates():
            predicted = space.predict(val.rows)
            error = (accuracy(net, predicted, images.val) - val_accuracy).abs().mean().item()  # points
            weight_error = weight_losses(predicted, val.rows, objective.scales).mean().item()
            run.save(error, val_accuracy_error=error, val_weight_error=weight_error)
    best = f"mean |target - predicted accuracy| is {run.best_score:.2f} points"
    print(f"{run.step} steps: on validation, {best}; best.pt in {folder}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
