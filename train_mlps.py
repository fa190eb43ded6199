"""Train NetSpace on SIRENs of many shapes (paper Sec. IV "Single-Architecture SDF regression", eq. 2; supplement Sec. V).

    python train_mlps.py                           # chairs
    python train_mlps.py deepsdf --dataset FOLDER  # the paper's sizes
    python train_mlps.py chairs-unseen             # to embed shapes never seen

Needs the SIRENs of create_mlp_dataset.py. Closeness is the fraction of outputs of a predicted SIREN within 0.01 of its
target's, at points that are not trained on. Writes runs/<dataset>/mlps/: best.pt (highest closeness on instances of val.txt,
or without it on training ones), last.pt, scalars.jsonl, tensorboard/, and train_mlps.json, how close every instance is.
Training stops at the goal. Run it again to resume from last.pt."""

from training.command_line import run_script

from dataclasses import dataclass, field

import torch
from torch import Tensor

from data.files import fingerprint
from data.folders import Folders
from data.nets import load_sirens, meta_batch
from data.streams import balanced_indices, device_keys
from data.texts import write_json
from evaluation.metrics import closeness, closeness_to, errors_to, outputs_at_samples
from evaluation.spaces import Space, about_sirens
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.rows import index_on
from training.constants import Count, Flat, Fraction, Optim, Seed, SirenViews, Start, Views
from training.distributed import is_first, rank_slice
from training.graphs import COMPILED_PREP, Graphed
from training.losses import sdf_losses
from training.run import Run, run_constants
from training.runtime import mixed_precision, pick_device, provenance
from training.views import add_noise, move_shapes, reorder, start_at_instances


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: Flat[Sizes]
    optim: Flat[Optim]
    start: Flat[Start] = field(default_factory=Start)
    views: Flat[Views] = field(default_factory=Views)
    moves: Flat[SirenViews] = field(default_factory=SirenViews)
    meta_batch: Count = 4  # M, target instances in a step
    num_points: Count = 50_000  # of each target instance's samples, shown in a step
    num_measured: Count = 4096  # of each instance's samples, not trained on, on which closeness is measured
    goal: Fraction = 0.8  # closeness at which training stops
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PAPER = Optim(num_steps=952_000, validate_every=1190)  # 4000 passes over 950 instances, a validation after every fifth
PRESETS = {
    "chairs": Config(
        "chairs",
        Sizes((8, 568), emb_size=1024, grid=8, row_length=256, row_channels=16),
        Optim(num_steps=4800, learning_rate=2e-3, schedule="one-cycle", clip_norm=0.05, validate_every=80),
        Start(encoder_start="scaled", affine_start="instance"),
        meta_batch=14,
        num_points=512,
        num_measured=1024,
        goal=0.95,
    ),
    "chairs-unseen": Config(
        "chairs-unseen",
        Sizes((8, 568), emb_size=256, grid=8, row_length=256, row_channels=16, encoder="probes"),
        Optim(num_steps=5000, learning_rate=2e-3, schedule="one-cycle", clip_norm=1.0, validate_every=200),
        Start(affine_start="mean", affine_scale=1.0),
        moves=SirenViews(stretch=0.1),
        meta_batch=16,
        num_points=512,
        num_measured=1024,
        goal=1.0,
    ),
    "meshes": Config("data/meshes", Sizes((8, 10_000)), PAPER),
    "deepsdf": Config("data/deepsdf", Sizes((8, 10_000)), PAPER),
}


def main(config: Config) -> dict[str, list[float]]:
    torch.manual_seed(config.seed)
    device, seed = pick_device(), config.seed
    lists = {split: config.folders.input_list(config.dataset, "mlps", split) for split in ("train", "val", "test")}
    loaded = {
        split: load_sirens(config.folders, config.dataset, split, device)
        for split, path in lists.items()
        if split != "val" or path.is_file()  # there is one if shapes are held out to choose the checkpoint
    }
    num_samples = min(each.samples.shape[1] for each in loaded.values())
    if config.num_measured >= num_samples:
        raise InputError(f"--num-measured {config.num_measured}: instances have {num_samples} samples; give fewer")
    measured = {split: each.split_samples(config.num_measured)[1] for split, each in loaded.items()}
    train, chooses = loaded["train"].split_samples(config.num_measured)[0], measured.get("val", measured["train"])
    net, points, outputs = (
        train.nets[0],
        train.samples[..., :3],
        outputs_at_samples(train, train.rows),
    )  # (N, S, 3), (N, S)

    model = PrepAutoencoder(config.sizes, net=net)
    start_at_instances(model, config.start, train.rows, closeness(outputs, train.samples[..., 3]), train.samples)
    about = about_sirens(net.trained.widths)
    space = Space(model.to(device), train.nets, about, {})
    folder = config.folders.run(config.dataset, "mlps")
    val = {"val_instances": fingerprint(chooses.rows, chooses.samples)} if "val" in measured else {}
    instances = fingerprint(train.rows, train.samples, measured["train"].samples)
    constants = run_constants(config, instances=instances, **val)
    run = Run.of(folder, constants, about, model, config.optim, highest_is_best=True)
    precision = mixed_precision(device, config.optim.precision)
    keys = device_keys("points", [(seed, i) for i in range(len(train))], device)

    def loss_of(rows: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return sdf_losses(net.run(model(rows), x), target).sum() / config.meta_batch

    graphed = Graphed(loss_of, model, precision, compiled=model.width >= COMPILED_PREP)
    for step in run.steps(config.optim.num_steps if run.best_score < config.goal else 0):
        chosen = meta_batch(len(train), config.meta_batch, seed, step)
        targets = index_on(device, chosen)
        indices = balanced_indices(keys[targets], step, config.num_points, points.shape[1])
        x, target = points[targets[:, None], indices], outputs[targets[:, None], indices]  # (M, num_points[, 3])
        rows, x = move_shapes(train.rows[targets], x, net, config.moves, seed, step)  # (M, P)
        rows = add_noise(reorder(rows, net, config.views, seed, step), model.width, config.views, seed, step)
        rows, x, target = (each[rank_slice()] for each in (rows, x, target))  # this rank's m of the M targets
        run.descend(graphed(rows, x, target) if len(rows) else None, [train.paths[i] for i in chosen])
        if run.validates():
            score = closeness_to(chooses, space.predict(chooses.rows)).mean().item()
            run.save(score, closeness=score)
            if score >= config.goal:
                break

    if not is_first():
        return {}
    best = Space.of_checkpoint(folder / "best.pt", "this command", train.nets, about).to(device)
    errors = {split: errors_to(each, best.predict(each.rows)) for split, each in measured.items()}
    found = {name: {split: each[name].tolist() for split, each in errors.items()} for name in errors["train"]}
    write_json(folder / "train_mlps.json", {"steps": run.step, **found, **provenance(config)})
    print(f"{run.step} steps; best.pt in {folder}; closeness of predicted to target SIRENs, and relative error, means:")
    names = {"train": "training", "val": "held-out (val), which chose best.pt", "test": "held-out (test)"}
    for split, each in errors.items():
        means = ", ".join(f"{values.mean():.3f}" for values in each.values())
        print(f"  {means} on {len(measured[split])} {names[split]}")
    return found["closeness"]


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
