"""Latent space optimization of one ResNet8 (paper Sec. IV "Latent Space Optimization", Table I, "Single-Architecture").

    python train_latspace_single.py                       # photos
    python train_latspace_single.py cifar10 --instance 3  # line 4 of test.txt

Starts at the embedding of a test instance. Adam moves it, with the decoder frozen, so that the decoded instance behaves like
the teacher on training images. The embedding with the highest validation accuracy is saved, and the search stops when this
no longer rises. Needs train_single_arch.py and the teacher of create_nets_dataset_multi.py. Writes
runs/<dataset>/single/latspace/. Run it again to resume."""

from training.command_line import run_script

from dataclasses import dataclass, field

import torch

from data.files import fingerprint
from data.folders import IMAGE_SETS
from data.images import Batches
from data.nets import load_teacher
from evaluation.metrics import accuracy_of
from evaluation.spaces import SingleConfig, load_experiment
from models.errors import InputError
from training.constants import Flat, Index, Search
from training.latent_search import LatentSearch
from training.run import Run
from training.runtime import constants_of, mixed_precision


@dataclass(frozen=True)
class Config(SingleConfig):
    # The paper names L_kd; alpha 1 is its KL term alone, as in the original release, whose rate of 0.01 is taken too: the
    # supplement says 1e-4.
    search: Flat[Search] = field(default_factory=lambda: Search(alpha=1.0, learning_rate=0.01))
    instance: Index | None = None  # index in test.txt; default: the least accurate on validation images


PRESETS = {
    "photos": Config("photos", search=Search(alpha=1.0, learning_rate=0.01, validate_every=20)),
    **{name: Config(name) for name in IMAGE_SETS[1:]},
}


def main(config: Config) -> None:
    images, space, test = load_experiment(config)
    teacher = load_teacher(config.folders, images)
    index = accuracy_of(test, images.val).argmin().item() if config.instance is None else config.instance
    if index >= len(test):
        raise InputError(f"--instance {index}: test.txt holds {len(test)} instances, give 0 to {len(test) - 1}")
    space.model.requires_grad_(False)
    initial = space.encode(test.rows[[index]])  # (1, E)
    search = LatentSearch(initial, config.search.patience, config.search.min_delta).to(initial.device)
    data = {"images": images.fingerprint, "teacher": fingerprint(teacher.rows), "netspace": space.fingerprint}
    constants = {**constants_of(config), "checkpoint": None, "instance": index, **data}
    about = {"instances": [test.paths[index].as_posix()]}
    adam = torch.optim.Adam(search.parameters(), config.search.learning_rate)
    run = Run(config.run_dir / "latspace", constants, about, search, adam, validate_every=config.search.validate_every)
    batches = Batches(images.train, [(config.search.seed,)], config.search.image_batch)
    precision = mixed_precision(initial.device, config.search.precision)

    def validate() -> None:
        _, found = space.accuracy(search.embeddings.detach(), images.val)
        search.update(found)
        run.save(val_accuracy=found.item(), best_val_accuracy=search.best_accuracy.item())

    if not search.validated:
        validate()
    for step in run.steps():
        if search.stopped:
            break
        x, labels = batches.shared(step)
        with torch.no_grad(), precision:
            logits = teacher.nets[0].run(teacher.rows, x)[0]  # (B, classes)
        losses = space.search_losses(search.embeddings, [0], x, labels, logits, config.search)
        run.descend(losses.sum(), [test.paths[index]])
        if run.validates():
            validate()
    print(f"{run.step} steps from {test.paths[index]}: {search.best_accuracy.item():.2f} % on validation images")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
