"""Train NetSpace on many instances of one architecture (paper Sec. III and IV, "Single-Architecture", eq. 1).

    python train_single_arch.py                           # photos
    python train_single_arch.py cifar10 --num-epochs 300  # the paper's sizes
    python train_single_arch.py --objective weights       # instead of behaviour

Needs the instances of create_nets_dataset_single.py. Writes runs/<dataset>/single/, or weights/: best.pt (smallest mean
|target - predicted accuracy| on validation instances and images), last.pt, scalars.jsonl and tensorboard/.
Run again to resume from last.pt. photos takes 4 minutes on 2 CPU cores."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from data.fingerprints import fingerprint
from data.folders import Folders
from data.images import Epoch, check_batch
from data.load import load_images
from data.nets import load_split, meta_batches
from evaluation.accuracy import accuracy
from models.instances import ArchitectureOnImages
from models.prep import check_prep_shape, pack, unpack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import get_architecture
from models.symmetries import reordering
from training.command_line import run_script
from training.distributed import hides_bar, share, sum_over_ranks
from training.losses import distillation_loss, parameter_scales, weight_losses
from training.noise import add_noise
from training.runs import SETTINGS, Run, constants_of_run
from training.runtime import Precision, mixed_precision, pick_device
from training.schedules import make_scheduler


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: tyro.conf.OmitArgPrefixes[Sizes]
    architecture: str = "resnet8"  # of the instances
    objective: Literal["distillation", "weights"] = "distillation"  # eq. 1, or mean squared error of the weights
    affine_start: Literal["paper", "instance"] = "paper"  # start of the affine map: near zero, or at an instance
    affine_quantile: float = 0.8  # which instance it starts at: 0 is the weakest on validation images, 1 the strongest
    affine_scale: float = 0.1  # std of its scale, where it starts at an instance
    prep_noise: float = 0.0  # std of noise on the encoder's input, in units of each PRep's mean absolute value
    reorder_channels: bool = False  # shows targets with hidden channels in random order: the same function
    temperature: float = 4.0  # T of eq. 1
    meta_batch: int = 8  # M, target instances per step
    image_batch: int = 128  # B, images shown to each of them
    num_epochs: int = 1000  # passes over the images
    learning_rate: float = 1e-4  # Adam's; the peak, where it follows one cycle
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate, over the run
    clip_norm: float = float("inf")  # the gradient's largest norm
    precision: Precision | None = None  # of convs and matrix products; None: bfloat16 on a GPU, else float32
    validate_every: int = 5  # epochs between validations; a checkpoint is written as often
    seed: int = 0  # of the start, meta-batches, images and noise
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        Sizes((32, 160), emb_size=1024, grid=32, row_length=256, row_channels=32),
        affine_start="instance",
        prep_noise=0.3,
        reorder_channels=True,
        image_batch=64,
        num_epochs=30,
        learning_rate=3e-3,
        schedule="one-cycle",
        clip_norm=1.0,
        validate_every=1,
    ),
    "cifar10": Config("cifar10", Sizes((8, 10_000))),
    "tiny-imagenet-200": Config("tiny-imagenet-200", Sizes((16, 10_000))),
}


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    check_batch(images.train, config.image_batch)
    nets = ArchitectureOnImages(get_architecture(config.architecture), images.image_shape, images.num_classes)
    prep_shape = config.sizes.prep_shape
    check_prep_shape(prep_shape, nets.num_parameters, config.architecture)
    train, val = (load_split(config.folders, images, "single", split, nets) for split in ("train", "val"))
    val_accuracy = accuracy(nets, val.rows, images.val)
    scales = parameter_scales(nets.layout, train.rows)
    hidden = nets.hidden_channels() if config.reorder_channels else []

    net_space = PrepAutoencoder(config.sizes)
    if config.affine_start == "instance":
        ranked = accuracy(nets, train.rows, images.val).argsort()
        start = ranked[int(config.affine_quantile * (len(train) - 1))].item()
        net_space.decoder.scalelayer.start_at(pack(train.rows[[start]], prep_shape)[0, 0].cpu(), config.affine_scale)
    net_space.to(device)
    optimizer = torch.optim.Adam(net_space.parameters(), config.learning_rate, fused=True)
    num_steps = config.num_epochs * (len(images.train) // config.image_batch)
    scheduler = make_scheduler(config.schedule, optimizer, config.learning_rate, num_steps)
    run_dir = config.folders.run(config.dataset, SETTINGS[config.objective])
    decodes = {"architectures": [config.architecture], **images.facts()}
    data = {"instances": fingerprint(train.rows, val.rows), "images": images.fingerprint}
    run = Run(run_dir, constants_of_run(config, **data), decodes, net_space, optimizer, scheduler)
    if run.epoch >= config.num_epochs:
        print(f"already trained for {run.epoch} epochs; best.pt in {run_dir}")

    precision, watched = mixed_precision(device, config.precision), {}
    bar = tqdm(total=num_steps, initial=run.step, desc="NetSpace", unit=" steps", disable=hides_bar())
    while run.epoch < config.num_epochs:
        draws = Epoch(images.train, [(config.seed, 0, run.epoch)], config.image_batch)
        chosen = meta_batches(len(train), config.meta_batch, len(draws), (config.seed, 1, run.epoch)).to(device)
        total_loss = torch.zeros((), device=device)
        for i in run.steps(total_loss, chosen, train.paths):
            x = draws.batch(i)[0][0]  # (B, C, S, S), the same for all instances
            rows = shown = train.rows[chosen[i]]  # (M, P)
            if hidden:
                shown = rows[:, reordering(nets.layout, hidden, (config.seed, 3, run.step + i)).to(device)]
            preps = pack(shown, prep_shape)  # (M, 1, H, W)
            preps = add_noise(preps, config.prep_noise, (config.seed, 2, run.step + i))
            with precision:
                if config.objective == "distillation":
                    loss = step_loss(config, net_space, nets, preps[share()], rows[share()], x)
                else:
                    loss = step_weight_loss(config, net_space, preps[share()], shown[share()], scales)
            run.descend(loss, config.clip_norm)
            total_loss += loss.detach()
            bar.update()
        run.epoch, run.step = run.epoch + 1, run.step + len(draws)
        mean_loss = sum_over_ranks(total_loss).item() / len(draws)
        scalars = {"loss": mean_loss, "learning_rate": scheduler.get_last_lr()[0]}
        if run.epoch % config.validate_every == 0 or run.epoch == config.num_epochs:
            predicted_preps = net_space.decode(net_space.encode(pack(val.rows, prep_shape)))
            predicted_rows = unpack(predicted_preps, nets.num_parameters)
            error = (accuracy(nets, predicted_rows, images.val) - val_accuracy).abs().mean().item()
            weight_error = weight_losses(predicted_rows, val.rows, scales).mean().item()
            # In points, and relative to how much the weights of a layer vary.
            run.log({**scalars, "val_accuracy_error": error, "val_weight_error": weight_error})
            run.save(error)
            watched = {"val_error": f"{error:.2f} points", "best": f"{run.best_score:.2f}"}
        else:
            run.log(scalars)
        bar.set_postfix(loss=f"{mean_loss:.3f}", **watched)
    bar.close()
    print(f"{run.epoch} epochs: on validation, mean |target - predicted accuracy| is {run.best_score:.2f} points")


def step_loss(
    config: Config, net_space: PrepAutoencoder, nets: ArchitectureOnImages, preps: Tensor, rows: Tensor, x: Tensor
) -> Tensor:
    """What this rank's m of the M targets add to the loss of eq. 1, their mean; images (B, C, S, S).

    `preps` (m, 1, H, W) is what the encoder sees of the targets in `rows` (m, P). Without targets, 0.
    """
    if not len(rows):
        return torch.zeros((), device=x.device, requires_grad=True)
    with torch.no_grad():
        target = nets.run(rows, x)  # (m, B, classes)
    predicted = nets.run(unpack(net_space(preps), nets.num_parameters), x)
    return distillation_loss(predicted, target, config.temperature) * (len(rows) / config.meta_batch)


def step_weight_loss(
    config: Config, net_space: PrepAutoencoder, preps: Tensor, shown: Tensor, scales: Tensor
) -> Tensor:
    """What this rank's m of the M targets add to the mean squared error of their weights, in units of `scales` (P,).

    `shown` (m, P) is what `preps` (m, 1, H, W) hold, channels in the same order, before the noise. Without targets, 0.
    """
    if not len(shown):
        return torch.zeros((), device=preps.device, requires_grad=True)
    predicted = unpack(net_space(preps), shown.shape[1])
    return weight_losses(predicted, shown, scales).sum() / config.meta_batch


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
