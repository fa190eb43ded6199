"""Latent space optimization of one ResNet8 (paper Sec. IV "Latent Space Optimization", Table I, "Single-Architecture").

    python train_latspace_single.py                       # photos
    python train_latspace_single.py cifar10 --instance 3  # line 4 of test.txt

Starts at the embedding of a test instance and lets Adam move it, decoder frozen, to make what is decoded behave like the
teacher on training images. Keeps the embedding of highest validation accuracy and stops when that no longer rises.
Needs train_single_arch.py and the teacher of create_nets_dataset_multi.py. Writes runs/<dataset>/single/latspace/.
Run again to resume."""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from data.fingerprints import fingerprint
from data.images import endless_batches
from data.nets import load_teacher
from evaluation.accuracy import accuracy
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from models.prep import unpack
from training.command_line import run_script
from training.latent_search import SavedLatentSearch
from training.losses import distillation_loss


@dataclass(frozen=True)
class Config(EvaluationConfig):
    instance: int | None = None  # place in test.txt, from 0; the least accurate on validation images unless given
    temperature: float = 4.0  # T of eq. 3
    image_batch: int = 128  # B, images shown at a step
    learning_rate: float = 0.01  # Adam's, the original release's; the supplement says 1e-4
    validate_every: int = 100  # steps between validations; a checkpoint is written as often
    patience: int = 10  # validations without a gain, after which the search stops
    min_delta: float = 0.0  # points of validation accuracy that a gain must exceed
    seed: int = 0  # of the images' order and crops


PRESETS = {
    "photos": Config("photos", validate_every=20),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
}


def main(config: Config) -> None:
    experiment = load_experiment(config)
    images, nets, test = experiment.images, experiment.test.nets, experiment.test
    teacher, teacher_row = load_teacher(config.folders, images)
    index = accuracy(nets, test.rows, images.val).argmin().item() if config.instance is None else config.instance
    if index >= len(test):
        raise InputError(f"--instance {index}: test.txt holds {len(test)} instances, give 0 to {len(test) - 1}")
    decoder = experiment.net_space.requires_grad_(False).decoder
    data = {"images": images.fingerprint, "teacher": fingerprint(teacher_row)}
    searching = ("learning_rate", "patience", "min_delta")
    names = ("architecture", "temperature", "image_batch", "validate_every", "seed", *searching)
    constants = {name: getattr(config, name) for name in names} | data | {"instances": [test.paths[index].as_posix()]}
    initial = experiment.encode(test.rows[[index]])  # (1, E)
    how = {name: getattr(config, name) for name in searching}
    search = SavedLatentSearch(config.run_dir / "latspace", constants, initial, **how)

    def val_accuracy() -> Tensor:
        return accuracy(nets, experiment.decode(search.embeddings.detach()), images.val)

    if not search.step:
        search.validate(val_accuracy(), {})
    ends = search.ends_at(config.validate_every)
    bar = tqdm(total=ends, initial=search.step, desc="embedding", unit=" steps", disable=None)
    for x, _ in endless_batches(images.train, (config.seed, 4), config.image_batch, search.step):
        if search.stopped:
            break
        with torch.no_grad():
            target = teacher.run(teacher_row, x)  # (1, B, classes)
        predicted = nets.run(unpack(decoder(search.embeddings), nets.num_parameters), x)
        # The paper names L_kd; the original release takes its KL term alone, as here.
        loss = distillation_loss(predicted, target, config.temperature)
        search.update(loss)
        bar.update()
        if search.step % config.validate_every == 0:
            loss = search.mean_loss(config.validate_every)
            search.validate(val_accuracy(), {"loss": loss})
            bar.total = search.ends_at(config.validate_every)
            bar.set_postfix(loss=f"{loss:.3f}", best=f"{search.best_accuracy.item():.1f} % on validation")
    bar.close()
    print(f"{search.step} steps from {test.paths[index]}: {search.best_accuracy.item():.2f} % on validation images")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
