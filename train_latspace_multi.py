"""Latent space optimization with several architectures (paper Sec. IV "Latent Space Optimization", Table I, "Multi-Architecture").

    python train_latspace_multi.py                        # photos
    python train_latspace_multi.py cifar10 --per-class 4

Starts at the embeddings of test instances and lets Adam move them, decoder and ClassId classifier frozen, by L_kd and by
L_class for the ClassId that each began with. Keeps each embedding where validation accuracy is highest (0 where the
ClassId is not the wished one) and stops when none gains. Needs train_multi_arch.py with the same setting. Writes
runs/<dataset>/<setting>/latspace/. Run again to resume."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from data.fingerprints import fingerprint
from data.images import endless_batches
from data.nets import load_teacher
from evaluation.accuracy import accuracy_of_embeddings, where_right
from evaluation.multi import MultiConfig, load_multi_experiment
from models.errors import InputError
from training.command_line import run_script
from training.latent_search import SavedLatentSearch
from training.losses import class_id_losses, teacher_losses


@dataclass(frozen=True)
class Config(MultiConfig):
    per_class: int = 1  # test instances of each architecture, the first in test.txt; optimized side by side
    temperature: float = 4.0  # T of eq. 3
    alpha: float = 0.9  # of eq. 5: how much the teacher counts, against the labels
    image_batch: int = 128  # B, images shown at a step
    learning_rate: float = 1e-4  # Adam's
    validate_every: int = 100  # steps between validations; a checkpoint is written as often
    patience: int = 10  # validations without a gain of any embedding, after which the search stops
    min_delta: float = 0.0  # points of validation accuracy that a gain must exceed
    seed: int = 0  # of the images' order and crops


PRESETS = {
    # T below NetSpace's own 2: a loss that it has not minimized yet, and nearer to accuracy.
    "photos": Config("photos", per_class=4, temperature=1.0, learning_rate=0.01, validate_every=20, min_delta=0.5),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
}


def main(config: Config) -> None:
    experiment = load_multi_experiment(config)
    images, pool, test = experiment.images, experiment.pool, experiment.test
    teacher, teacher_row = load_teacher(config.folders, images)
    chosen: list[int] = []  # positions in test.txt
    for class_id in sorted(set(test.class_ids)):
        mine = test.of_class_id(class_id)
        if len(mine) < config.per_class:
            raise InputError(f"--per-class {config.per_class}: the test list has {len(mine)} {pool.names[class_id]}")
        chosen += mine[: config.per_class]
    wished = [test.class_ids[i] for i in chosen]
    net_space = experiment.net_space.requires_grad_(False)
    data = {"images": images.fingerprint, "teacher": fingerprint(teacher_row)}
    searching = ("learning_rate", "patience", "min_delta")
    names = ("temperature", "alpha", "image_batch", "validate_every", "seed", *searching)
    constants = {
        **{name: getattr(config, name) for name in names},
        **data,
        "instances": [test.paths[i].as_posix() for i in chosen],
        "class_ids": wished,
    }
    initial = net_space.encode(test.preps[chosen])  # (N, E)
    how = {name: getattr(config, name) for name in searching}
    search = SavedLatentSearch(config.run_dir / "latspace", constants, initial, **how)

    def validate(scalars: dict[str, float]) -> None:
        found = accuracy_of_embeddings(net_space, pool, search.embeddings.detach(), images.val)
        accuracy = where_right(found[1], found[0], wished)
        each = {pool.names[i]: accuracy[torch.tensor(wished) == i].mean().item() for i in sorted(set(wished))}
        search.validate(accuracy, {**scalars, **{f"val_accuracy_{name}": value for name, value in each.items()}})

    if not search.step:
        validate({})
    ends = search.ends_at(config.validate_every)
    bar = tqdm(total=ends, initial=search.step, desc=f"{len(chosen)} embeddings", unit=" steps", disable=None)
    for x, labels in endless_batches(images.train, (config.seed, 5), config.image_batch, search.step):
        if search.stopped:
            break
        with torch.no_grad():
            teacher_logits = teacher.run(teacher_row, x)[0]  # (B, classes)
        class_logits = net_space.classifier(search.embeddings)
        predicted_ids = class_logits.argmax(1).tolist()  # what the step reads back from the device
        predicted = pool.run(net_space.decoder(search.embeddings), predicted_ids, x)
        losses = teacher_losses(predicted, teacher_logits, labels, config.temperature, config.alpha)
        losses = losses + class_id_losses(class_logits, wished)  # (N,)
        search.update(losses)
        bar.update()
        if search.step % config.validate_every == 0:
            loss = search.mean_loss(config.validate_every)
            validate({"loss": loss})
            bar.total = search.ends_at(config.validate_every)
            bar.set_postfix(loss=f"{loss:.3f}", best=f"{search.best_accuracy.mean():.1f} % on validation")
    bar.close()
    print(f"{search.step} steps: {search.best_accuracy.mean():.2f} % on validation images, mean of {len(chosen)}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
