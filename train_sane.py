"""Train SANE on a zoo: nets as sequences of tokens, reconstructed window by window (SANE Sec. 2 and 3).

    python train_sane.py                          # photos
    python train_sane.py cifar10                  # ResNet8 of 77,706 parameters
    python train_sane.py photos --behaviour 0     # the paper's loss

Needs the zoo of create_nets_dataset_zoo.py. Writes runs/<dataset>/sane/: best.pt (of validation: the smallest mean |target -
predicted accuracy|, or without behaviour the highest R^2 of the weights), last.pt, scalars.jsonl and tensorboard/. Run it
again to resume. The result is a space: netspace.NetSpace.load, export.py and the other scripts read it."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Literal

import torch

from data.files import fingerprint
from data.folders import Folders
from data.images import Batches
from data.load import load_images
from data.zoo_folders import read_about
from data.zoos import load_splits, strongest
from evaluation.metrics import accuracy, r_squared
from evaluation.spaces import Space
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from training.autoencoders import BehaviourLoss, Structure, TokenObjective
from training.constants import Count, Flat, Fraction, NonNegative, Optim, Positive, Seed, TokenStart, TokenViews
from training.run import Run, run_constants
from training.runtime import pick_device
from training.views import start_tokens


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the zoo was made with
    sizes: TokenSizes = field(default_factory=TokenSizes)
    optim: Flat[Optim] = field(default_factory=Optim)
    start: Flat[TokenStart] = field(default_factory=TokenStart)
    views: Flat[TokenViews] = field(default_factory=TokenViews)
    architecture: str = "resnet8"  # of the nets
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets
    windows: Count = 16  # B, windows in a step, each of another instance, in two views
    contrast: Fraction = 0.05  # g, weight of the contrastive loss against the others
    behaviour: Fraction = 0.9  # 1 - beta, weight of the behaviour of whole decoded nets against reconstruction
    behaviour_loss: BehaviourLoss = "logits"  # their squared difference, or eq. 1 of NetSpace
    structure: Structure = "windows"  # what is reconstructed: windows, in two views that are contrasted, or whole nets
    decoded: Literal["nets", "windows"] = "nets"  # what behaves: whole decoded nets, or targets with one decoded window
    meta_batch: Count = 4  # M, whole nets in a step
    image_batch: Count = 64  # images shown to them
    recon: Literal["parameters", "grid"] = "parameters"  # what the error is divided by; the reference's is the grid
    contrast_temperature: Positive = 0.1  # of NT-Xent
    weight_decay: NonNegative = 3e-9  # AdamW's, on matrices
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        TokenSizes(37, 36, 128, 2, 4, 48, 8, (256, 16, 32)),
        Optim(1000, 5e-4, "one-cycle", final_fraction=4e-6, clip_norm=1.0, validate_every=100),
        behaviour=0.1,
    ),
    "cifar10": Config(
        "cifar10",
        TokenSizes(145, 64, 512, 4, 8, 128, 16, (1024, 32, 64)),
        Optim(20_000, 3e-4, "one-cycle", final_fraction=4e-6, clip_norm=1.0, validate_every=1000),
        windows=32,
    ),
}


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    device, seed = pick_device(), config.seed
    folder = config.folders.nets(config.dataset, config.zoo)
    splits, for_images = load_splits(folder, config.architecture, device), read_about(folder)["images"]
    train, val, net = splits["train"], splits["val"], splits["train"].nets[0]
    # Without behaviour no images are needed: a zoo of others may have none here.
    images = load_images(config.dataset, config.folders.data_dir, device) if config.behaviour else None
    data = {"instances": fingerprint(train.rows, val.rows)} | ({"images": images.fingerprint} if images else {})

    model = TokenAutoencoder(config.sizes, net.layout, net.hidden_channels())
    rows = start_tokens(model, config.start, train.rows, strongest(train))
    rows, val_rows = rows.to(device), model.to(device).aligned(val.rows)
    about = {"architectures": [net.name], **for_images}
    space = Space(model, train.nets, about, {})
    run_dir = config.folders.run(config.dataset, "sane")
    optim, started = config.optim, config.optim.start(model, config.weight_decay)
    run = Run(run_dir, run_constants(config, **data), about, model, *started, optim.validate_every, optim.clip_norm)
    batches = Batches(images.train, [(seed,)], config.image_batch) if images else None
    objective = TokenObjective(config, model, net, rows, batches)

    for step in run.steps(optim.num_steps):
        found = objective.at(step)  # of windows, and of whole nets
        run.descend(found.loss, [train.paths[i] for i in found.chosen], **found.terms)
        if run.validates():
            predicted = space.predict(val_rows)
            fit = r_squared(model.standardized(predicted), model.standardized(val_rows), model.mask)
            scalars, score = {"val_weight_r2": fit}, -fit
            if images:
                error = accuracy(net, predicted, images.val) - accuracy(net, val_rows, images.val)
                scalars["val_accuracy_error"] = score = error.abs().mean().item()  # points
            run.save(score, **scalars)
    print(f"{run.step} steps: on validation, the best score is {run.best_score:.3f}; best.pt in {run_dir}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
