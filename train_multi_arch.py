"""Train NetSpace on instances of several architectures (paper Sec. III and IV, "Multi-Architecture", eq. 3-12).

    python train_multi_arch.py                           # photos
    python train_multi_arch.py photos --setting missing  # two are never seen
    python train_multi_arch.py cifar10                   # the paper's sizes

With missing, VanillaCNN and ResNet8 are never seen (paper Sec. IV "Sampling of Unseen Architectures"). Needs the instances
of create_nets_dataset_multi.py. Writes runs/<dataset>/multi/ (missing/): best.pt, last.pt, scalars.jsonl and tensorboard/.
best.pt has the highest mean accuracy of predicted instances on validation instances and images, interpolated ones included;
an instance whose ClassId is not the desired one counts 0. Run it again to resume from last.pt."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from data.files import fingerprint
from data.folders import Folders
from data.images import Batches
from data.load import load_images
from data.nets import load_nets, load_teacher, meta_batch, pair_batch
from evaluation.metrics import accuracy, where_right
from evaluation.spaces import Space, about_images
from models.errors import InputError
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.rows import index_on
from models.target_nets import architectures_by_class_id
from training.constants import Count, Flat, Fraction, Optim, Positive, Seed, Start, Views, with_precision
from training.distributed import rank_slice
from training.graphs import Graphs, read_later
from training.losses import Teacher, boundary_pairs, class_id_losses, interpolate_boundaries, teacher_losses
from training.run import Run, run_constants
from training.runtime import mixed_precision, pick_device
from training.views import add_noise, start_at_instances


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    sizes: Flat[Sizes]
    optim: Flat[Optim] = field(default_factory=Optim)
    start: Flat[Start] = field(default_factory=Start)
    views: Flat[Views] = field(default_factory=Views)
    setting: Literal["multi", "missing"] = "multi"  # all architectures, or only the lowest and the highest ClassId
    temperature: Positive = 4.0  # T of eq. 3 and 8
    alpha: Fraction = 0.9  # of eq. 5 and 10: weight of the teacher, against the labels
    meta_batch: Count = 2  # M, target instances in a step; with missing, pairs of both ClassIds
    image_batch: Count = 128  # B, images shown to each of them
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config(
        "photos",
        Sizes((32, 936), emb_size=1024, grid=32, row_length=128, row_channels=32),
        Optim(5880, 3e-3, "one-cycle", final_fraction=0.15, clip_norm=1.0, validate_every=490),
        Start(affine_start="instance"),
        Views(prep_noise=0.3),
        temperature=2.0,
        image_batch=64,
    ),
    **{name: Config(name, Sizes((88, 10_000))) for name in ("cifar10", "cifar100", "mnist")},
    "tiny-imagenet-200": Config("tiny-imagenet-200", Sizes((88, 10_000)), Optim(625_000, validate_every=3125)),
}


def main(config: Config) -> None:
    if config.setting == "missing" and config.meta_batch != 2:
        raise InputError(f"--meta-batch {config.meta_batch}: the missing setting shows pairs, it must be 2")
    torch.manual_seed(config.seed)
    device, seed = pick_device(), config.seed
    config = with_precision(config, device)
    images = load_images(config.dataset, config.folders.data_dir, device)
    batches = Batches(images.train, [(seed,)], config.image_batch)
    nets = TargetNets.on_images(architectures_by_class_id(), images.image_shape, images.num_classes)
    train, val = (load_nets(config.folders, images, config.setting, split, nets) for split in ("train", "val"))
    teacher_net = load_teacher(config.folders, images)
    last = len(nets) - 1

    model = PrepAutoencoder(config.sizes, len(nets))
    largest = train[train.indices_of(last)].rows
    start_at_instances(model, config.start, largest, accuracy(nets[last], largest, images.val))
    space = Space(model.to(device), nets, about_images(nets, images), {})
    folder = config.folders.run(config.dataset, config.setting)
    shown = fingerprint(train.rows, val.rows, torch.tensor([*train.class_ids, *val.class_ids]))
    data = {"instances": shown, "teacher": fingerprint(teacher_net.rows), "images": images.fingerprint}
    run = Run.of(folder, run_constants(config, **data), space.about, model, config.optim, highest_is_best=True)
    precision = mixed_precision(device, config.optim.precision)
    teacher, graphs = Teacher(teacher_net, images.train, precision), Graphs(model, nets, precision)
    # Validated beside each instance: those between the i-th of the lowest and the i-th of the highest ClassId.
    val_pairs = list(zip(val.indices_of(0), val.indices_of(last)))

    for step in run.steps(config.optim.num_steps):
        x, labels = batches.shared(step)  # (B, C, S, S), (B,)
        if config.setting == "missing":
            targets = train[pair_batch(train.class_ids, seed, step)]
        else:
            targets = train[meta_batch(len(train), config.meta_batch, seed, step)]
        rows = add_noise(targets.rows, model.width, config.views, seed, step)  # (M, P)
        logits = teacher.logits(batches, step, x)  # (B, classes)
        loss, terms = step_losses(config, graphs, rows, targets.class_ids, x, labels, logits)
        run.descend(loss, targets.paths, **terms)
        if run.validates():
            embeddings = space.encode(val.rows)
            between, between_ids = interpolate_boundaries(embeddings, val_pairs, len(nets))
            class_ids, found = space.accuracy(torch.cat([embeddings, between]), images.val)
            score = where_right(found, class_ids, [*val.class_ids, *between_ids]).mean().item()  # percent
            run.save(score, val_accuracy=score)
    best = f"mean accuracy of predicted instances on validation is {run.best_score:.2f} %"
    print(f"{run.step} steps: {best}; best.pt in {folder}")


def step_losses(
    config: Config, graphs: Graphs, rows: Tensor, class_ids: tuple[int, ...], x: Tensor, labels: Tensor, teacher: Tensor
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Return the loss of targets (M, P) and of the instances between their boundary pairs; and its terms, to be logged.

    L_kd and L_class are SUMS over instances, pairs and gammas, as the text of eq. 11 and 12 says and as the original does in
    this setting. An instance is built with the architecture that the classifier predicts, so its L_kd means nothing until
    that is right. Of the M + pairs*(A-2) embeddings a rank computes its part; for one between two targets it encodes both.
    """
    num_class_ids = len(graphs.nets)
    pairs = boundary_pairs(list(class_ids), num_class_ids)
    made_of = [(i,) for i in range(len(rows))] + [pair for pair in pairs for _ in range(num_class_ids - 2)]
    needed = sorted({i for sources in made_of[rank_slice()] for i in sources})
    if not needed:
        nothing = torch.zeros((), device=x.device)
        return None, {"kd_loss": nothing, "class_id_loss": nothing, "right_class_ids": nothing}
    needed_here = index_on(x.device, needed)
    encoded = graphs.encode(rows[needed_here])
    embeddings = encoded.new_zeros(len(rows), encoded.shape[1]).index_copy(0, needed_here, encoded)  # (M, E)
    between, between_ids = interpolate_boundaries(embeddings, pairs, num_class_ids)
    embeddings, desired = torch.cat([embeddings, between])[rank_slice()], [*class_ids, *between_ids][rank_slice()]
    class_logits = graphs.classify(embeddings)
    read, predicted = read_later(class_logits.argmax(1)), graphs.decode(embeddings)
    predicted_ids = read()  # the one value that a step reads back from the device
    logits = graphs.run(predicted, predicted_ids, x)
    kd = teacher_losses(logits, teacher, labels, config.temperature, config.alpha).sum()
    class_id = class_id_losses(class_logits, desired).sum()
    right = sum(mine == theirs for mine, theirs in zip(predicted_ids, desired)) / len(made_of)
    return kd + class_id, {"kd_loss": kd, "class_id_loss": class_id, "right_class_ids": kd.new_tensor(right)}


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
