"""Train NetSpace on instances of several architectures (paper Sec. III and IV, "Multi-Architecture", eq. 3-12).

    python train_multi_arch.py                           # photos
    python train_multi_arch.py photos --setting missing  # two are never seen
    python train_multi_arch.py cifar10                   # the paper's sizes

With missing, VanillaCNN and ResNet8 are never seen (paper Sec. IV "Sampling of Unseen Architectures").
Needs the instances of create_nets_dataset_multi.py. Writes runs/<dataset>/multi/ (missing/): best.pt (highest mean
accuracy of predicted instances on validation instances and images, interpolated ones included; one whose ClassId is not
the wished one counts 0), last.pt, scalars.jsonl and tensorboard/. Run again to resume from last.pt.
photos takes 6 minutes on 2 CPU cores."""

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
from data.nets import load_mixed_split, load_teacher, meta_batches, pair_batches
from evaluation.accuracy import accuracy_of_embeddings, mixed_accuracy, where_right
from models.architecture_pool import ArchitecturePool
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from training.command_line import run_script
from training.distributed import hides_bar, share, sum_over_ranks
from training.losses import (
    boundary_pairs,
    class_id_losses,
    interpolate_boundaries,
    interpolation_factors,
    teacher_losses,
)
from training.noise import add_noise
from training.runs import Run, constants_of_run
from training.runtime import Precision, mixed_precision, pick_device
from training.schedules import make_scheduler
from training.teacher import Teacher


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: tyro.conf.OmitArgPrefixes[Sizes]
    setting: Literal["multi", "missing"] = "multi"  # all architectures, or only the lowest and the highest ClassId
    affine_start: Literal["paper", "instance"] = "paper"  # affine map: near zero, or the best of the highest ClassId
    affine_scale: float = 0.1  # std of its scale, where it starts at an instance
    prep_noise: float = 0.0  # std of noise on the encoder's input, in units of each PRep's mean absolute value
    temperature: float = 4.0  # T of eq. 3 and 8
    alpha: float = 0.9  # of eq. 5 and 10: how much the teacher counts, against the labels
    meta_batch: int = 2  # M, target instances per step; pairs of both ClassIds in the missing setting
    image_batch: int = 128  # B, images shown to each of them
    num_epochs: int = 1000  # passes over the images
    learning_rate: float = 1e-4  # Adam's; the peak, where it follows one cycle
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate, over the run
    final_share: float = 0.0  # of the peak, at the end of one cycle
    clip_norm: float = float("inf")  # the gradient's largest norm
    precision: Precision | None = None  # of convs and matrix products; None: bfloat16 on a GPU, else float32
    validate_every: int = 5  # epochs between validations; a checkpoint is written as often
    seed: int = 0  # of the start, meta-batches, images and noise
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        Sizes((32, 936), emb_size=1024, grid=32, row_length=128, row_channels=32),
        affine_start="instance",
        prep_noise=0.3,
        temperature=2.0,
        image_batch=64,
        num_epochs=60,
        learning_rate=3e-3,
        schedule="one-cycle",
        final_share=0.15,
        clip_norm=1.0,
    ),
    "cifar10": Config("cifar10", Sizes((88, 10_000))),
    "tiny-imagenet-200": Config("tiny-imagenet-200", Sizes((88, 10_000))),
}


def main(config: Config) -> None:
    if config.setting == "missing" and config.meta_batch != 2:
        raise InputError(f"--meta-batch {config.meta_batch}: the missing setting shows pairs, it must be 2")
    torch.manual_seed(config.seed)
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    check_batch(images.train, config.image_batch)
    pool = ArchitecturePool(images.image_shape, images.num_classes, config.sizes.prep_shape)
    train, val = (load_mixed_split(config.folders, images, config.setting, split, pool) for split in ("train", "val"))
    teacher_nets, teacher_row = load_teacher(config.folders, images)
    # Beside each validation instance's embedding, those between the i-th of the lowest and of the highest ClassId.
    val_pairs = list(zip(val.of_class_id(0), val.of_class_id(len(pool) - 1)))

    net_space = PrepAutoencoder(config.sizes, len(pool))
    if config.affine_start == "instance":
        highest = train.of_class_id(len(pool) - 1)
        ranked = mixed_accuracy(pool, train.preps[highest], [len(pool) - 1] * len(highest), images.val)
        net_space.decoder.scalelayer.start_at(train.preps[highest[ranked.argmax()], 0].cpu(), config.affine_scale)
    net_space.to(device)
    optimizer = torch.optim.Adam(net_space.parameters(), config.learning_rate, fused=True)
    num_steps = config.num_epochs * (len(images.train) // config.image_batch)
    scheduler = make_scheduler(config.schedule, optimizer, config.learning_rate, num_steps, config.final_share)
    run_dir = config.folders.run(config.dataset, config.setting)
    decodes = {"architectures": pool.names, **images.facts()}
    shown = fingerprint(train.preps, val.preps, torch.tensor([*train.class_ids, *val.class_ids]))
    data = {"instances": shown, "teacher": fingerprint(teacher_row), "images": images.fingerprint}
    run = Run(run_dir, constants_of_run(config, **data), decodes, net_space, optimizer, scheduler, highest_is_best=True)
    if run.epoch >= config.num_epochs:
        print(f"already trained for {run.epoch} epochs; best.pt in {run_dir}")

    precision, watched = mixed_precision(device, config.precision), {}
    teacher = Teacher(teacher_nets, teacher_row, images.train, precision)
    bar = tqdm(total=num_steps, initial=run.step, desc="NetSpace", unit=" steps", disable=hides_bar())
    while run.epoch < config.num_epochs:
        draws = Epoch(images.train, [(config.seed, 0, run.epoch)], config.image_batch)
        key = (config.seed, 1, run.epoch)
        if config.setting == "missing":
            chosen = pair_batches(train.class_ids, len(draws), key)
        else:
            chosen = meta_batches(len(train), config.meta_batch, len(draws), key).tolist()
        sums = torch.zeros(5, device=device)  # of losses, embeddings, right ClassIds
        for i in run.steps(sums, chosen, train.paths):
            x, labels = (draw[0] for draw in draws.batch(i))  # (B, C, S, S) and (B,), the same for all instances
            teacher_logits = teacher.logits(draws, i, x)  # (B, classes)
            preps = add_noise(train.preps[chosen[i]], config.prep_noise, (config.seed, 2, run.step + i))
            asked = [train.class_ids[j] for j in chosen[i]]
            with precision:
                kd, class_id, predicted_ids, wished = step_losses(
                    config, net_space, pool, preps, asked, x, labels, teacher_logits
                )
            loss = kd + class_id
            run.descend(loss, config.clip_norm)
            right = sum(mine == theirs for mine, theirs in zip(predicted_ids, wished))
            sums += torch.stack([loss, kd, class_id, *sums.new_tensor([len(wished), right])]).detach()
            bar.update()
        run.epoch, run.step = run.epoch + 1, run.step + len(draws)
        *losses, shown, right = sum_over_ranks(sums).tolist()
        means = {name: value / len(draws) for name, value in zip(("loss", "kd_loss", "class_id_loss"), losses)}
        scalars = {**means, "right_class_ids": right / shown, "learning_rate": scheduler.get_last_lr()[0]}
        if run.epoch % config.validate_every == 0 or run.epoch == config.num_epochs:
            embeddings = net_space.encode(val.preps)
            between, between_ids = interpolate_boundaries(embeddings, val_pairs, len(pool))
            found = accuracy_of_embeddings(net_space, pool, torch.cat([embeddings, between]), images.val)
            score = where_right(found[1], found[0], [*val.class_ids, *between_ids]).mean().item()
            run.log({**scalars, "val_accuracy": score})  # percent
            run.save(score)
            watched = {"val": f"{score:.1f} %", "best": f"{run.best_score:.1f} %"}
        else:
            run.log(scalars)
        bar.set_postfix(loss=f"{means['loss']:.2f}", ids=f"{right / shown:.0%}", **watched)
    bar.close()
    print(f"{run.epoch} epochs: mean accuracy of predicted instances on validation is {run.best_score:.2f} %")


def step_losses(
    config: Config,
    net_space: PrepAutoencoder,
    pool: ArchitecturePool,
    preps: Tensor,
    class_ids: list[int],
    x: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """L_kd and L_class, scalars, of targets (M, 1, H, W) and of what lies between their boundary pairs; images (B, C, S, S).

    Both are SUMS over instances, pairs and gammas, as the text of eq. 11 and 12 says and the original does in this setting.
    An instance is built with the architecture that the classifier predicts, so its L_kd says nothing until that is right.
    Also returns predicted and wished ClassIds.

    All are of this rank's share of the M + pairs*(A-2) embeddings alone; for one between two targets it encodes both.
    """
    pairs = boundary_pairs(class_ids, len(pool))
    made_of = [(i,) for i in range(len(preps))] + [pair for pair in pairs for _ in interpolation_factors(len(pool))]
    needed = sorted({i for targets in made_of[share()] for i in targets})
    if not needed:
        nothing = torch.zeros(2, device=x.device, requires_grad=True)
        return nothing[0], nothing[1], [], []
    encoded = net_space.encoder(preps[needed])
    embeddings = encoded.new_zeros(len(preps), encoded.shape[1])  # (M, E)
    embeddings = embeddings.index_copy(0, torch.tensor(needed, device=x.device), encoded)
    between, between_ids = interpolate_boundaries(embeddings, pairs, len(pool))
    embeddings, wished = torch.cat([embeddings, between])[share()], (class_ids + between_ids)[share()]
    class_logits = net_space.classifier(embeddings)
    predicted_ids = class_logits.argmax(1).tolist()  # what a step reads back from the device
    predicted = pool.run(net_space.decoder(embeddings), predicted_ids, x)
    kd = teacher_losses(predicted, teacher_logits, labels, config.temperature, config.alpha)
    return kd.sum(), class_id_losses(class_logits, wished).sum(), predicted_ids, wished


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
