"""Predict properties of unseen nets from what represents them: their weights, or embeddings of these (SANE Sec. 5.1).

    python predict_properties.py                          # photos
    python train_single_arch.py photos --instances zoo    # optional: NetSpace
    python predict_properties.py photos --transfer zoo-vanilla_cnn

Needs the zoo of create_nets_dataset_zoo.py and train_sane.py. Statistics of the weights stand first: they predict better than
most embeddings. Probes are fitted on training nets and chosen on validation nets; scores are of test nets. Writes
runs/<dataset>/sane/predict_properties.{json,md,pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.files import write_text
from data.folders import Folders, command
from data.images import ImageSet
from data.load import load_images
from data.nets import NetsDataset
from data.texts import write_json
from data.zoo_folders import ABOUT
from data.zoos import load_splits, load_zoo
from evaluation.plots import plot_properties, save_figure
from evaluation.probes import PROPERTIES, Probes, Representations, Split, fixed_images, probes_table
from evaluation.spaces import Space
from evaluation.zoo_spaces import space_on_zoo
from training.constants import Count, Flat, Seed
from training.runtime import pick_device, provenance


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the zoo was made with
    architecture: str = "resnet8"  # of the nets
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets
    transfer: tuple[str, ...] = ()  # other zoos: folders in runs/<dataset>/nets, or paths of folders
    num_images: Count = 64  # validation images on which logits are taken
    num_resamples: Count = 1000  # of nets, for intervals
    trees: tuple[str, ...] = ("weight_statistics",)  # representations that boosted trees are fitted on too
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10")}


def main(config: Config) -> dict[str, Any]:
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    splits = load_splits(config.folders.nets(config.dataset, config.zoo), config.architecture, device)
    sane = load_space(config, "sane", command("train_sane.py", config.dataset), splits, images)
    by_netspace = command("train_single_arch.py", config.dataset, "--instances zoo")
    there = (config.folders.run(config.dataset, "zoo") / "best.pt").is_file()
    netspace = load_space(config, "zoo", by_netspace, splits, images) if there else None

    seen = fixed_images(images, config.num_images, config.seed)
    represent = Representations.fit(sane.model, netspace, seen, splits["train"], config.seed)
    train, val, test = (Split.of(splits[name], represent) for name in ("train", "val", "test"))
    probes = Probes(train, val, config.trees, config.seed)
    found = probes.measure(test, config.num_resamples)
    moved = transfer(config, probes, represent)
    results = {"properties": found} | ({"transfer": moved} if moved else {})
    path = config.folders.run(config.dataset, "sane") / "predict_properties"
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    number = f"{len(test.nets)} instances of {len(set(test.nets))} unseen {config.architecture} on {images.name}"
    table = f"{number}\n\n{probes_table(found)}"
    table += "".join(f"\n{name}, probes of {config.zoo}\n\n{probes_table(each)}" for name, each in moved.items())
    write_text(path.with_suffix(".md"), table)
    pdf, png = save_figure(plot_properties(found, number), path)
    print(f"{table}{png}, {pdf}")
    return results


def load_space(config: Config, setting: str, made_by: str, splits: dict[str, NetsDataset], images: ImageSet) -> Space:
    """Load a space. Raise InputError if it is missing, or was trained on other nets than the zoo's training nets."""
    return space_on_zoo(config.folders.run(config.dataset, setting) / "best.pt", made_by, splits, images)


def transfer(config: Config, probes: Probes, represent: Representations) -> dict[str, Any]:
    """Return the scores of probes on the test nets of other zoos, by zoo and architecture."""
    found = {}
    for name in config.transfer:
        folder = Path(name) if (Path(name) / ABOUT).is_file() else config.folders.nets(config.dataset, name)
        about = load_zoo(folder).about
        dataset = about.get("config", {}).get("dataset", config.dataset)
        images = load_images(dataset, config.folders.data_dir, pick_device())
        for architecture in about["architectures"]:
            splits = load_splits(folder, architecture, pick_device())
            there = represent.elsewhere(splits["train"], fixed_images(images, config.num_images, config.seed))
            test = Split.of(splits["test"], there)
            found[f"{name} {architecture}"] = probes.measure(test, config.num_resamples, PROPERTIES[:-1])
    return found


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
