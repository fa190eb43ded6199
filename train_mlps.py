"""Train NetSpace on SIRENs of many shapes (paper Sec. IV "Single-Architecture SDF regression", eq. 2; supplement Sec. V).

    python train_mlps.py                           # chairs
    python train_mlps.py deepsdf --dataset FOLDER  # the paper's sizes

Needs the SIRENs of create_mlp_dataset.py. Writes runs/<dataset>/mlps/: best.pt (highest closeness: share of the outputs of
predicted SIRENs within 0.01 of their targets', on training instances, at points that are not trained on), last.pt,
scalars.jsonl, tensorboard/, and train_mlps.json with the closeness of every training and held-out instance.
Stops at the goal. Run again to resume from last.pt. chairs takes 8 minutes on 2 CPU cores."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from data.draws import balanced_places, instance_keys
from data.files import write_json
from data.fingerprints import fingerprint
from data.folders import Folders
from data.mlps import load_mlps
from data.nets import meta_batches
from evaluation.closeness import closeness, closeness_of_predicted, outputs_of
from models.errors import InputError
from models.prep import check_prep_shape, pack, unpack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.siren import SirenNets
from models.symmetries import reordering
from training.checkpoints import restore_net_space
from training.command_line import run_script
from training.distributed import hides_bar, is_first, share, sum_over_ranks
from training.losses import sdf_loss
from training.noise import add_noise
from training.provenance import provenance
from training.runs import Run, constants_of_run
from training.runtime import pick_device
from training.schedules import make_scheduler


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: tyro.conf.OmitArgPrefixes[Sizes]
    encoder_start: Literal["paper", "scaled"] = "paper"  # PyTorch's default, or no biases, for PReps' size
    affine_start: Literal["paper", "instance"] = "paper"  # start of the affine map: near zero, or at the closest fit
    affine_scale: float = 0.1  # std of its scale, where it starts at an instance
    prep_noise: float = 0.0  # std of noise on the encoder's input, in units of each PRep's mean absolute value
    reorder_channels: bool = False  # shows targets with hidden units in random order: the same function
    meta_batch: int = 4  # M, target instances per step
    num_points: int = 50_000  # of each target instance's samples, shown at a step
    num_measured: int = 4096  # of each instance's samples, not trained on: closeness is measured there
    num_epochs: int = 4000  # passes over the instances
    goal: float = 0.8  # closeness (share of outputs within 0.01) at which training stops
    learning_rate: float = 1e-4  # Adam's; the peak, where it follows one cycle
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate, over the run
    clip_norm: float = float("inf")  # the gradient's largest norm
    validate_every: int = 5  # epochs between validations; a checkpoint is written as often
    seed: int = 0  # of the start, meta-batches, points and noise
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "chairs": Config(
        "chairs",
        Sizes((8, 568), emb_size=1024, grid=8, row_length=256, row_channels=16),
        encoder_start="scaled",
        affine_start="instance",
        meta_batch=14,
        num_points=512,
        num_measured=1024,
        num_epochs=1200,
        goal=0.95,
        learning_rate=2e-3,
        schedule="one-cycle",
        clip_norm=0.05,
        validate_every=20,
    ),
    "meshes": Config("data/meshes", Sizes((8, 10_000))),
    "deepsdf": Config("data/deepsdf", Sizes((8, 10_000))),
}


def main(config: Config) -> dict[str, list[float]]:
    torch.manual_seed(config.seed)
    device = pick_device()
    train, test = (load_mlps(config.folders, config.dataset, split, device) for split in ("train", "test"))
    nets, prep_shape = train.nets, config.sizes.prep_shape
    check_prep_shape(prep_shape, nets.num_parameters, f"a SIREN of widths {nets.widths}")
    if config.num_measured >= train.samples.shape[1]:
        raise InputError(
            f"--num-measured {config.num_measured}: instances have {train.samples.shape[1]} samples; give fewer"
        )
    train, measured = train.split_samples(config.num_measured)
    points, outputs = train.samples[..., :3], outputs_of(train, train.rows)  # (N, S, 3) and (N, S)
    hidden = nets.net.hidden_channels() if config.reorder_channels else []

    net_space = PrepAutoencoder(config.sizes)
    if config.encoder_start == "scaled":
        net_space.encoder.start_at(train.rows.square().mean().sqrt().item())
    if config.affine_start == "instance":
        closest = closeness(outputs, train.samples[..., 3]).argmax().item()
        net_space.decoder.scalelayer.start_at(pack(train.rows[[closest]], prep_shape)[0, 0].cpu(), config.affine_scale)
    net_space.to(device)
    optimizer = torch.optim.Adam(net_space.parameters(), config.learning_rate, fused=True)
    steps_per_epoch = math.ceil(len(train) / config.meta_batch)
    num_steps = config.num_epochs * steps_per_epoch
    scheduler = make_scheduler(config.schedule, optimizer, config.learning_rate, num_steps)
    run_dir = config.folders.run(config.dataset, "mlps")
    decodes = {"siren_widths": list(nets.widths)}
    constants = constants_of_run(config, instances=fingerprint(train.rows, train.samples, measured.samples))
    run = Run(run_dir, constants, decodes, net_space, optimizer, scheduler, highest_is_best=True)

    instances = instance_keys([(config.seed, 3, i) for i in range(len(train))], device)
    watched: dict[str, str] = {}
    bar = tqdm(total=num_steps, initial=run.step, desc="NetSpace", unit=" steps", disable=hides_bar())
    while run.epoch < config.num_epochs and run.best_score < config.goal:
        chosen = meta_batches(len(train), config.meta_batch, steps_per_epoch, (config.seed, 1, run.epoch)).to(device)
        total_loss = torch.zeros((), device=device)
        for i in run.steps(total_loss, chosen, train.paths):
            rows = shown = train.rows[chosen[i]]  # (M, P)
            if hidden:
                shown = rows[:, reordering(nets.layout, hidden, (config.seed, 3, run.step + i)).to(device)]
            preps = pack(shown, prep_shape)  # (M, 1, H, W)
            preps = add_noise(preps, config.prep_noise, (config.seed, 2, run.step + i))
            mine = chosen[i][share()]  # this rank's m of the M targets
            places = balanced_places(instances[mine], run.step + i, config.num_points, points.shape[1])
            x, target = points[mine[:, None], places], outputs[mine[:, None], places]  # (m, num_points[, 3])
            loss = step_loss(config, net_space, nets, preps[share()], x, target)
            run.descend(loss, config.clip_norm)
            total_loss += loss.detach()
            bar.update()
        run.epoch, run.step = run.epoch + 1, run.step + steps_per_epoch
        mean_loss = sum_over_ranks(total_loss).item() / steps_per_epoch
        scalars = {"loss": mean_loss, "learning_rate": scheduler.get_last_lr()[0]}
        if run.epoch % config.validate_every == 0 or run.epoch == config.num_epochs:
            score = closeness_of_predicted(net_space, measured).mean().item()
            run.log({**scalars, "closeness": score})
            run.save(score)
            watched = {"closeness": f"{score:.3f}", "best": f"{run.best_score:.3f}"}
        bar.set_postfix(loss=f"{mean_loss:.2e}", **watched)
    bar.close()

    if not is_first():
        return {}
    best = restore_net_space(run_dir / "best.pt", "this command", device)
    found = {"train": measured, "test": test.split_samples(config.num_measured)[1]}
    found = {split: closeness_of_predicted(best, each).tolist() for split, each in found.items()}
    results = {"epochs": run.epoch, "steps": run.step, "closeness": found, **provenance(config)}
    write_json(run_dir / "train_mlps.json", results)
    means = {split: sum(each) / len(each) for split, each in found.items()}
    print(
        f"{run.epoch} epochs: closeness of predicted to target SIRENs {means['train']:.3f} on {len(train)} training "
        f"instances, {means['test']:.3f} on {len(test)} held out; best.pt in {run_dir}"
    )
    return found


def step_loss(
    config: Config, net_space: PrepAutoencoder, nets: SirenNets, preps: Tensor, points: Tensor, target: Tensor
) -> Tensor:
    """What this rank's m of the M targets add to the loss of eq. 2, their mean. Without targets, 0.

    Targets are seen as `preps` (m, 1, H, W), and say `target` (m, num_points) at `points` (m, num_points, 3).
    """
    if not len(preps):
        return torch.zeros((), device=points.device, requires_grad=True)
    predicted = nets.run(unpack(net_space(preps), nets.num_parameters), points)
    return sdf_loss(predicted, target) * (len(preps) / config.meta_batch)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
