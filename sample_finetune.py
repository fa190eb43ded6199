"""Sample nets from SANE's latents and fine-tune them, beside nets of other origins (SANE Sec. 4).

    python sample_finetune.py
    python sample_finetune.py photos --target-architecture lenetlike  # transfer

Needs the zoo of create_nets_dataset_zoo.py and the SANE of train_sane.py. Samples are drawn around latents of the best training nets,
the best of many are kept, and all train with the same images in the same order, beside fresh nets, the anchors, these with noise
and their mean. With a target, the anchors are trained on it for some epochs instead. Writes runs/<dataset>/sane/
sample_finetune.{json,md,pdf,png}; with a target, sample_finetune_<target>_<architecture>."""

from training.command_line import run_script

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from data.files import write_text
from data.folders import IMAGE_SETS, Folders, command, dataset_name
from data.images import ImageSet
from data.load import load_images
from data.streams import stream
from data.texts import write_json
from data.zoos import last_checkpoints, load_zoo, split_zoo
from evaluation.finetuning import FineTuning, batches_of, check_epochs, key_of
from evaluation.novelty import TrainingNets
from evaluation.plots import plot_finetuning, save_figure
from evaluation.sampling import Kind, Sampler, Samples, add_noise, bootstrap, draw, method_facts, sampling_table
from evaluation.spaces import Space, about_images
from evaluation.transfer import anchors_on_target, best_first
from models.conditioning import norms_of, renormalized
from models.instances import TargetNet
from models.target_nets import get_architecture
from models.token_autoencoder import TokenAutoencoder
from training.constants import AtLeast2, Count, Flat, Index, NonNegative, Positive, Seed
from training.ensembles import initial_state
from training.runtime import pick_device, provenance


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the zoo was made with
    architecture: str = "resnet8"  # of the zoo's nets
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets
    num_anchors: AtLeast2 = 28  # the best training nets at their last checkpoint: 30 % of 92
    kinds: tuple[Kind, ...] = ("token", "net", "joint", "pca")  # how samples are drawn around anchors
    chosen: Kind = "joint"  # the kind whose samples are selected
    selected_form: Literal["conditioned", "fused"] = "conditioned"  # of these; nets without batch norm are as decoded
    bandwidth: NonNegative = 0.1  # of the kernels, times the anchors' standard deviation
    gauss_std: Positive = 1.0  # of latents drawn without anchors, times that of all the anchors' numbers
    num_draws: Count = 50  # of which the best on validation images are kept
    num_nets: AtLeast2 = 10  # of every method
    rounds: Count = 3  # of bootstrapping
    condition_images: Count = 500  # training images on which batch norm's statistics are measured
    epochs: tuple[Index, ...] = (0, 1, 2, 5, 10)  # after which accuracy is measured
    tuning: Flat[FineTuning] = field(default_factory=FineTuning)
    target_dataset: str | None = None  # transfer to other images: a data set's name or a folder
    target_architecture: str | None = None  # transfer to other nets
    target_epochs: Count = 2  # of training the anchors on the target
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {"photos": Config("photos")}
LARGE = FineTuning(learning_rate=1e-3, side_by_side=33)
PRESETS |= {name: Config(name, tuning=LARGE) for name in IMAGE_SETS[1:]}


def main(config: Config) -> dict[str, Any]:
    device, seed = pick_device(), config.seed
    check_epochs(config.epochs)
    images = load_images(config.dataset, config.folders.data_dir, device)
    zoo = load_zoo(config.folders.nets(config.dataset, config.zoo), device)
    zoo.check_images(images)
    nets = split_zoo(zoo.nets)["train"].of_architecture(config.architecture)
    run_dir = config.folders.run(config.dataset, "sane")
    about, made_by = about_images(nets.nets, images), command("train_sane.py", config.dataset)
    space = Space.of_checkpoint(run_dir / "best.pt", made_by, nets.nets, about).to(device)
    net, model, path = nets.nets[0], space.model, run_dir / "sample_finetune"
    if config.target_dataset or config.target_architecture:
        dataset, architecture = config.target_dataset or config.dataset, config.target_architecture or net.name
        path = run_dir / f"sample_finetune_{dataset_name(dataset)}_{architecture}"
        images = load_images(dataset, config.folders.data_dir, device)
        net = TargetNet(get_architecture(architecture), images.image_shape, images.num_classes)
        model, rows = anchors_on_target(
            model, net, images, config.num_anchors, config.target_epochs, config.tuning, seed
        )
    else:
        rows = model.aligned(best_first(net, last_checkpoints(nets).rows, images))

    batches = batches_of(images.train, config.condition_images, seed)
    states = {"scratch": initial_state(net, [key_of(seed, i) for i in range(config.num_nets)], device)}
    for name, each in sampled(config, model, net, rows, images, batches).items():
        states[name] = renormalized(net, each, batches)
    found = config.tuning.accuracies(net, states, images.train, images.test, config.epochs, seed)
    training, copies = TrainingNets.of(net, rows[0], rows, images.test), noisy(net, rows[: config.num_nets], 0.02, seed)
    novelty = {"noise_0.02": training.novelty(copies), "training_nets": training.novelty(training.rows, among=True)}
    methods = {
        name: method_facts(config.epochs, each, training.novelty(net.fuse(states[name])))
        for name, each in found.items()
    }
    results = {"methods": methods, "novelty": novelty, **provenance(config)}
    write_json(path.with_suffix(".json"), results)
    write_text(path.with_suffix(".md"), table := sampling_table(results))
    figure = plot_finetuning(methods, 100 / images.num_classes, f"{net.name} on {images.name}")
    print(table + ", ".join(map(str, save_figure(figure, path))))
    return results


def sampled(
    config: Config, model: TokenAutoencoder, net: TargetNet, known: Tensor, images: ImageSet, batches: list[Tensor]
) -> dict[str, Tensor]:
    """Return the rows (N, P) of every method but `scratch`, from training nets (K, P), aligned, best first."""
    anchors, number, kind, seed = known[: config.num_anchors], config.num_nets, config.chosen, config.seed
    plain = Sampler(model, net, anchors, images.val)
    conditioned = replace(plain, statistics=tuple(batches)) if norms_of(net) else plain
    selected = conditioned if config.selected_form == "conditioned" else plain

    def drawn(kind: Kind, size: int) -> Tensor:
        return draw(kind, plain.latents, size, config.bandwidth, stream(f"samples by {kind}", seed))

    def bootstrapped(sampler: Sampler, first: Samples) -> Tensor:
        how = (kind, config.rounds, config.num_draws, number, config.bandwidth, (seed,))
        return bootstrap(sampler, first, *how).rows

    many = selected(drawn(kind, config.num_draws))
    normal = stream("latents", seed).standard_normal(many.latents.shape, dtype="float32")
    noise = config.gauss_std * plain.latents.std() * torch.from_numpy(normal).to(many.latents)
    found = {
        "anchors": anchors[:number],
        "noise_0.04": noisy(net, anchors[:number], 0.04, seed),
        "mean_of_anchors": anchors.mean(0).expand(number, -1),
        **{f"kde_{each}": plain(drawn(each, number)).rows for each in config.kinds},
    }
    if norms_of(net):
        found[f"kde_{kind}_conditioned"] = conditioned(drawn(kind, number)).rows
    found[f"sub_{kind}"] = many.best(number).rows
    found[f"boot_{kind}"] = bootstrapped(selected, many)
    found["boot_gauss"] = bootstrapped(plain, plain(noise))
    return found


def noisy(net: TargetNet, rows: Tensor, size: float, seed: int) -> Tensor:
    """Return rows (N, P) with noise, in units of each tensor's standard deviation."""
    return add_noise(net, rows, size, stream("noisy copies", seed))


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
