"""Train NetSpace on many instances of one architecture (paper Sec. III and IV, "Single-Architecture", eq. 1).

    python train_single_arch.py                           # photos
    python train_single_arch.py cifar10 --num-epochs 300  # the paper's sizes; every constant below is a flag

Needs the instances of create_nets_dataset_single.py. Writes runs/<dataset>/single/: best.pt (smallest mean
|target - predicted accuracy| on validation instances and images), last.pt, scalars.jsonl and tensorboard/.
Run again to resume from last.pt. photos takes 2 minutes on 2 CPU cores."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from data.folders import Folders
from data.images import Epoch
from data.load import load_images
from data.nets import load_nets, meta_batches, read_list
from evaluation.accuracy import accuracy
from models.instances import ArchitectureOnImages
from models.netspace import NetSpace
from models.prep import check_prep_shape, pack, unpack
from models.registry import get_architecture
from training.checkpoints import load_checkpoint, load_net_space, net_space_state, refuse_other_constants, save_checkpoint
from training.command_line import run_script
from training.logs import ScalarLog
from training.losses import distillation_loss
from training.runtime import pick_device

MADE_BY = "python create_nets_dataset_single.py"


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    prep_shape: tuple[int, int]  # H, W; H a multiple of 4, W of 8
    architecture: str = "resnet8"
    emb_size: int = 4096  # E
    grid: int = 64  # g, the embedding is viewed as E/g^2 maps of g x g
    row_length: int = 2048  # L, and
    row_channels: int = 128  # C1: the decoder's first conv gives (C1, H, L)
    affine_start: Literal["paper", "instance"] = "paper"  # the decoder's affine map starts near zero, or at an instance
    affine_scale: float = 0.1  # std of its scale, where it starts at an instance
    temperature: float = 4.0  # T of eq. 1
    meta_batch: int = 8  # M, target instances per step
    image_batch: int = 128  # B, images shown to each of them
    num_epochs: int = 1000  # passes over the images
    learning_rate: float = 1e-4  # Adam's; the peak, where it follows one cycle
    schedule: Literal["constant", "one-cycle"] = "constant"
    clip_norm: float = float("inf")  # of the gradient
    validate_every: int = 5  # epochs; a checkpoint is written as often
    seed: int = 0
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos", (8, 640), emb_size=1024, grid=32, row_length=128, row_channels=64, affine_start="instance",
        num_epochs=36, learning_rate=2e-3, schedule="one-cycle", clip_norm=1.0, validate_every=2,
    ),
    "cifar10": Config("cifar10", (8, 10_000)),
    "tiny-imagenet-200": Config("tiny-imagenet-200", (16, 10_000)),
}  # fmt: skip


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    nets = ArchitectureOnImages(get_architecture(config.architecture), images.image_shape, images.num_classes)
    check_prep_shape(config.prep_shape, nets.num_parameters, config.architecture)
    train, val = (
        load_nets(read_list(config.folders.input_list(config.dataset, "single", split), f"{MADE_BY} {config.dataset}"), nets, images.name, device)
        for split in ("train", "val")
    )
    preps, val_preps = pack(train.rows, config.prep_shape), pack(val.rows, config.prep_shape)  # (N, 1, H, W)
    val_accuracy = accuracy(nets, val.rows, images.val)

    sizes = {name: getattr(config, name) for name in ("emb_size", "prep_shape", "grid", "row_length", "row_channels")}
    net_space = NetSpace(**sizes)
    if config.affine_start == "instance":
        median = accuracy(nets, train.rows, images.val).argsort()[len(train) // 2]
        net_space.decoder.scalelayer.start_at(preps[median, 0].cpu(), config.affine_scale)
    net_space.to(device)
    optimizer = torch.optim.Adam(net_space.parameters(), config.learning_rate)
    steps_per_epoch = len(images.train) // config.image_batch
    scheduler = make_scheduler(config, optimizer, config.num_epochs * steps_per_epoch)

    run_dir = config.folders.run(config.dataset, "single")
    epoch, best_score, last = 0, float("inf"), run_dir / "last.pt"
    if last.is_file():
        saved = load_checkpoint(last, "python train_single_arch.py")
        refuse_other_constants(last, saved["constants"], constants(config))
        load_net_space(net_space, saved, last)
        optimizer.load_state_dict(saved["2"])
        scheduler.load_state_dict(saved["scheduler"])
        epoch, best_score = saved["epoch"], saved["best_score"]
        if epoch >= config.num_epochs:
            print(f"already trained for {epoch} epochs; best.pt in {run_dir}: within {best_score:.2f} points on validation")
            return
    log = ScalarLog(run_dir, epoch * steps_per_epoch)

    bar = tqdm(total=config.num_epochs * steps_per_epoch, initial=epoch * steps_per_epoch, desc="NetSpace", unit=" steps", disable=None)
    while epoch < config.num_epochs:
        draws = Epoch(images.train, [(config.seed, 0, epoch)], config.image_batch)
        chosen = meta_batches(len(train), config.meta_batch, len(draws), (config.seed, 1, epoch)).to(device)
        total_loss = torch.zeros((), device=device)
        for i in range(len(draws)):
            x = draws.batch(i)[0][0]  # (B, C, S, S), the same for all instances
            with torch.no_grad():
                target = nets.run(train.rows[chosen[i]], x)  # (M, B, classes)
            predicted = nets.run(unpack(net_space(preps[chosen[i]]), nets.num_parameters), x)
            loss = distillation_loss(predicted, target, config.temperature)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net_space.parameters(), config.clip_norm)
            optimizer.step()
            scheduler.step()
            total_loss += loss.detach()
            bar.update()
        epoch += 1
        scalars = {"loss": total_loss.item() / len(draws), "learning_rate": scheduler.get_last_lr()[0]}
        if epoch % config.validate_every == 0 or epoch == config.num_epochs:
            with torch.no_grad():
                predicted_rows = unpack(net_space(val_preps), nets.num_parameters)
            score = (accuracy(nets, predicted_rows, images.val) - val_accuracy).abs().mean().item()
            scalars["val_accuracy_error"] = score  # points
            state = {"constants": constants(config), "sizes": sizes, "epoch": epoch, "best_score": min(score, best_score), **net_space_state(net_space)}
            if score < best_score:
                best_score = score
                save_checkpoint(run_dir / "best.pt", state)
            log.write(epoch * steps_per_epoch, scalars)
            save_checkpoint(last, {**state, "2": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
        else:
            log.write(epoch * steps_per_epoch, scalars)
        bar.set_postfix(loss=f"{scalars['loss']:.3f}", best=f"{best_score:.2f} points")
    bar.close()
    log.close()
    print(f"trained for {epoch} epochs; best.pt in {run_dir}: predicted accuracy within {best_score:.2f} points of the target's on validation")


def make_scheduler(config: Config, optimizer: torch.optim.Optimizer, num_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=num_steps + 1)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def constants(config: Config) -> dict[str, Any]:
    """What must agree for a run to be resumed; at a constant rate it may also go on for longer."""
    free = {"folders", "validate_every"} | ({"num_epochs"} if config.schedule == "constant" else set())
    return {name: value for name, value in asdict(config).items() if name not in free}


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
