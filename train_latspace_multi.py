"""Latent space optimization with several architectures (paper Sec. IV "Latent Space Optimization", Table I, "Multi-Architecture").

    python train_latspace_multi.py                        # photos
    python train_latspace_multi.py cifar10 --per-class 4

Starts at the embeddings of test instances. Adam moves them, with decoder and ClassId classifier frozen, by L_kd and by
L_class of the ClassId that each began with. Each embedding with the highest validation accuracy is saved (0 if the ClassId is
not the desired one), and the search stops when none gains. Needs train_multi_arch.py with the same setting. Writes
runs/<dataset>/<setting>/latspace/. Run it again to resume."""

from training.command_line import run_script

from dataclasses import dataclass, field

import torch

from data.files import fingerprint
from data.folders import IMAGE_SETS
from data.images import Batches
from data.nets import load_teacher
from evaluation.metrics import where_right
from evaluation.spaces import MultiConfig, load_experiment
from models.errors import InputError
from training.constants import Count, Flat, Search
from training.latent_search import LatentSearch
from training.run import Run
from training.runtime import constants_of, mixed_precision


@dataclass(frozen=True)
class Config(MultiConfig):
    search: Flat[Search] = field(default_factory=lambda: Search(alpha=0.9))
    per_class: Count = 1  # test instances of each architecture, the first in test.txt; optimized side by side


PRESETS = {
    # T is below NetSpace's own 2: a loss that it has not minimized, and nearer to accuracy.
    "photos": Config(
        "photos",
        search=Search(temperature=1.0, alpha=0.9, learning_rate=0.01, validate_every=20, min_delta=0.5),
        per_class=4,
    ),
    **{name: Config(name) for name in IMAGE_SETS[1:]},
}


def main(config: Config) -> None:
    images, space, test = load_experiment(config)
    teacher, names = load_teacher(config.folders, images), space.nets.names
    chosen: list[int] = []  # indices in test.txt
    for class_id in sorted(set(test.class_ids)):
        mine = test.indices_of(class_id)
        if len(mine) < config.per_class:
            raise InputError(f"--per-class {config.per_class}: the test list has {len(mine)} {names[class_id]}")
        chosen += mine[: config.per_class]
    targets = test[chosen]
    desired = list(targets.class_ids)
    space.model.requires_grad_(False)
    initial = space.encode(targets.rows)  # (N, E)
    search = LatentSearch(initial, config.search.patience, config.search.min_delta).to(initial.device)
    data = {"images": images.fingerprint, "teacher": fingerprint(teacher.rows), "netspace": space.fingerprint}
    instances = [path.as_posix() for path in targets.paths]
    constants = {**constants_of(config), "checkpoint": None, **data}
    about = {"instances": instances, "class_ids": desired}
    adam = torch.optim.Adam(search.parameters(), config.search.learning_rate)
    run = Run(config.run_dir / "latspace", constants, about, search, adam, validate_every=config.search.validate_every)
    batches = Batches(images.train, [(config.search.seed,)], config.search.image_batch)
    precision = mixed_precision(initial.device, config.search.precision)

    def validate() -> None:
        class_ids, found = space.accuracy(search.embeddings.detach(), images.val)
        found = where_right(found, class_ids, desired)
        search.update(found)
        each = {names[i]: found[torch.tensor(desired) == i].mean().item() for i in sorted(set(desired))}
        means = {"val_accuracy": found.mean().item(), "best_val_accuracy": search.best_accuracy.mean().item()}
        run.save(**means, **{f"val_accuracy_{name}": value for name, value in each.items()})

    if not search.validated:
        validate()
    for step in run.steps():
        if search.stopped:
            break
        x, labels = batches.shared(step)
        with torch.no_grad(), precision:
            logits = teacher.nets[0].run(teacher.rows, x)[0]  # (B, classes)
        losses = space.search_losses(search.embeddings, desired, x, labels, logits, config.search)
        run.descend(losses.sum(), targets.paths, loss=losses.mean())
        if run.validates():
            validate()
    print(f"{run.step} steps: {search.best_accuracy.mean():.2f} % on validation images, mean of {len(chosen)}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
