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
from torch import Tensor

from data.files import fingerprint
from data.folders import Folders
from data.images import Batches
from data.load import load_images
from data.nets import meta_batch
from data.zoo_folders import read_about
from data.zoos import load_splits, strongest
from evaluation.metrics import accuracy, r_squared
from evaluation.spaces import Space
from models.instances import TargetNet
from models.token_autoencoder import TokenAutoencoder, TokenSizes, TokenTransformer
from training.constants import Count, Flat, Fraction, NonNegative, Optim, Positive, Seed, TokenViews
from training.distributed import rank_slice
from training.losses import contrastive_losses, logit_losses, reconstruction_losses
from training.run import Run, run_constants
from training.runtime import mixed_precision, pick_device
from training.views import Windows, draw_windows


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the zoo was made with
    sizes: TokenSizes = field(default_factory=TokenSizes)
    optim: Flat[Optim] = field(default_factory=Optim)
    views: Flat[TokenViews] = field(default_factory=TokenViews)
    architecture: str = "resnet8"  # of the nets
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets
    windows: Count = 16  # B, windows in a step, each of another instance, in two views
    contrast: Fraction = 0.05  # g, weight of the contrastive loss against the others
    behaviour: Fraction = 0.9  # 1 - beta, weight of the behaviour of whole decoded nets against reconstruction
    linear_start: Literal["paper", "components"] = "components"  # N(0, 0.02), or the tokens' principal components
    meta_batch: Count = 4  # M, whole nets in a step, for behaviour
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
    rows = model.fit(train.rows.cpu(), train.rows[strongest(train)].cpu())
    if config.linear_start == "components":
        model.transformer.start_at(model.standardized(rows))
    rows, val_rows = rows.to(device), model.to(device).aligned(val.rows)
    about = {"architectures": [net.name], **for_images}
    space = Space(model, train.nets, about, {})
    run_dir = config.folders.run(config.dataset, "sane")
    optim, started = config.optim, config.optim.start(model, config.weight_decay)
    run = Run(run_dir, run_constants(config, **data), about, model, *started, optim.validate_every, optim.clip_norm)
    precision = mixed_precision(device, optim.precision)
    batches = Batches(images.train, [(seed,)], config.image_batch) if images else None
    weights = loss_weights(config)

    for step in run.steps(optim.num_steps):
        chosen = meta_batch(len(train), config.windows, seed, step)
        seen = draw_windows(model, rows[chosen], config.views, seed, step).part(rank_slice())
        with precision:
            terms = window_terms(model.transformer, seen, config)
            if batches:
                x, _ = batches.shared(step)
                whole = rows[meta_batch(len(train), config.meta_batch, seed + 1, step)][rank_slice()]
                terms["behaviour"] = behaviour_term(model, net, whole, x) / config.meta_batch
            loss = sum(weights[name] * term for name, term in terms.items())
        run.descend(loss, [train.paths[i] for i in chosen], **terms)
        if run.validates():
            predicted = space.predict(val_rows)
            fit = r_squared(model.standardized(predicted), model.standardized(val_rows), model.mask)
            scalars, score = {"val_weight_r2": fit}, -fit
            if images:
                error = accuracy(net, predicted, images.val) - accuracy(net, val_rows, images.val)
                scalars["val_accuracy_error"] = score = error.abs().mean().item()  # points
            run.save(score, **scalars)
    print(f"{run.step} steps: on validation, the best score is {run.best_score:.3f}; best.pt in {run_dir}")


def loss_weights(config: Config) -> dict[str, float]:
    """Return the weights of the terms of the loss: g L_c + (1 - g) ((1 - b) L_rec + b L_B)."""
    others, b = 1 - config.contrast, config.behaviour
    return {"contrast": config.contrast, "reconstruction": others * (1 - b), "behaviour": others * b}


def window_terms(model: TokenTransformer, seen: Windows, config: Config) -> dict[str, Tensor]:
    """Return this rank's part of the mean losses of windows. Windows of other ranks are not contrasted with its own."""
    views = 2 * config.windows
    latents = model.encode(seen.shown, seen.positions)
    decoded = model.decode(latents, seen.positions)
    structure = reconstruction_losses(decoded, seen.target, seen.mask, config.recon).sum() / views
    contrast = contrastive_losses(model.project(latents), config.contrast_temperature).sum() / views
    return {"reconstruction": structure, "contrast": contrast}


def behaviour_term(model: TokenAutoencoder, net: TargetNet, rows: Tensor, x: Tensor) -> Tensor:
    """Return the sum of the squared differences of logits of whole decoded nets and of their targets, rows (M, P)."""
    if not len(rows):
        return rows.new_zeros(())
    with torch.no_grad():
        target = net.run(rows, x)
    return logit_losses(net.run(model.decode(model.encode_aligned(rows)), x), target).sum()


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
