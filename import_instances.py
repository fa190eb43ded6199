"""Import nets that others trained: a folder of state dicts becomes a nets dataset with its input lists (S Sec. IV).

    python import_instances.py cifar10 --source FOLDER
    python import_instances.py cifar10 --source FOLDER --accuracies FILE.csv
    python import_instances.py cifar10 --source FOLDER --setting multi
    python import_instances.py deepsdf --source FOLDER  # SIRENs with samples
    python import_instances.py cifar10 --dataset svhn --source ZOO

Files are .pt, .pth, .pth.tar, .ckpt or .safetensors of a registered architecture, recognized by names and shapes, in FOLDER or
below; batch norm is fused when they are read. The CSV has the columns file and accuracy (test, percent). It is compared with
what is measured here, since images that were normalized differently would show there. Validation and test instances are drawn
so that weak and strong ones are in both. Writes runs/<dataset>/nets/<architecture>-<source>/*.safetensors and
models/input_lists/<dataset>/<setting>/*.txt, all or nothing. A zoo of modelzoos.cc or Unterthiner's, known by its files,
becomes runs/<dataset>/nets/zoo-<source>/; its images are not needed, and what is left out is named. Checkpoints of the original
release need no import: NetSpace.load and --checkpoint read them, --lists-dir its lists."""

from training.command_line import run_script

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from data.files import folder_written_whole, report_left_out
from data.folders import IMAGE_SETS, Folders, dataset_name, text_of
from data.foreign_zoos import LayoutName, ZooOptions, summary_of, write_foreign_zoo
from data.imports import (
    Imported,
    check_targets,
    layout_of,
    list_state_dicts,
    read_accuracies,
    read_zoo,
    recognize,
    recognize_sirens,
    report_differences,
    write_all,
)
from data.load import load_images
from data.nets import Entry, list_texts, split_alike
from data.streams import stream
from evaluation.metrics import accuracy
from models.errors import InputError
from training.constants import Count, Flat, Seed
from training.runtime import pick_device, provenance


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    setting: Literal["single", "multi", "missing", "mlps"] = "single"  # which lists are written
    source: Path | None = None  # the folder of state dicts
    accuracies: Path | None = None  # a CSV of test accuracies, percent
    num_val: Count = 16  # instances of each architecture in val.txt
    num_test: Count = 16  # and in test.txt; the others are in train.txt
    seed: Seed = 0  # random seed
    zoo: Flat[ZooOptions] = field(default_factory=ZooOptions)
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in IMAGE_SETS}
PRESETS |= {"chairs": Config("chairs", "mlps")}
PRESETS |= {name: Config(f"data/{name}", "mlps") for name in ("meshes", "deepsdf")}


def main(config: Config) -> None:
    layout = layout_of(config.source, config.zoo)
    if layout is not None and config.source is not None:
        return import_zoo(config, config.source, layout)
    listing = list_state_dicts(config.source)
    if config.setting == "mlps":
        found, entries = choose_sirens(config, listing.files)
    else:
        found, entries = choose_nets(config, listing.files)
    lists = list_texts(config.folders, config.dataset, config.setting, entries)
    check_targets(found)  # before the first is written
    write_all(found, lists)
    report_left_out(listing.left_out)
    numbers = ", ".join(f"{len(chosen)} in {split}.txt" for split, chosen in entries.items())
    kinds = ", ".join(dict.fromkeys(each.net.name for each in found))
    print(f"{len(found)} instances ({kinds}): {numbers} of {next(iter(lists)).parent}")


def import_zoo(config: Config, source: Path, layout: LayoutName) -> None:
    """Import a zoo of others into one folder, with what it says of its nets."""
    dataset = dataset_name(config.dataset)
    folder = config.folders.nets(config.dataset, f"zoo-{source.resolve().name}")
    with folder_written_whole(folder) as partial:
        sources, left_out = read_zoo(source, layout, dataset, config.zoo)
        made_with = {**provenance(config), "source": text_of(source.as_posix()), "layout": layout}
        write_foreign_zoo(partial, sources, left_out, dataset, config.zoo, made_with)
    print(f"{folder}: {summary_of(sources, left_out)}")
    size, (mean, std) = "x".join(map(str, sources[0].net.input_shape)), (config.zoo.mean, config.zoo.std)
    print(f"images {size}, normalized with mean {mean} and std {std}: check --mean and --std")


def choose_nets(config: Config, files: list[Path]) -> tuple[list[Imported], dict[str, list[Entry]]]:
    """Return nets of images with their accuracy among their facts, and the entries of train, val and test."""
    assert config.source is not None
    stated = read_accuracies(config.accuracies, config.source, files) if config.accuracies else {}
    images = load_images(config.dataset, config.folders.data_dir, pick_device())
    with_class_id = config.setting != "single"
    wanted = config.zoo.architecture
    found = recognize(config.source, files, images, config.folders, config.dataset, with_class_id, wanted)
    groups: dict[str, list[Imported]] = defaultdict(list)
    for each in found:
        groups[each.net.name].append(each)
    if config.setting == "single" and len(groups) > 1:
        raise InputError(
            f"{config.source} holds {', '.join(groups)}; give --setting multi, or a folder of one architecture"
        )
    entries: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    chosen: list[Imported] = []
    for name, group in groups.items():
        if len(group) <= config.num_val + config.num_test:
            numbers = f"--num-val {config.num_val} and --num-test {config.num_test}"
            raise InputError(
                f"{config.source} holds {len(group)} {name}: with {numbers} none is left to train on; give fewer"
            )
        rows = torch.stack([each.row for each in group]).to(images.train.pixels.device)
        measured = accuracy(group[0].net, rows, images.test)
        report_differences(name, [stated.get(each.source) for each in group], measured.tolist())
        ranked = [group[i] for i in measured.argsort(stable=True).tolist()]
        for split, members in split_alike(ranked, config.num_val, config.num_test, config.seed).items():
            entries[split] += [Entry(each.net.architecture, images.name, each.path) for each in members]
        for each, value in zip(group, measured.tolist()):
            facts = {"architecture": name, "dataset": images.name, "test_accuracy": value}
            chosen.append(replace(each, facts=facts))
    return chosen, entries


def choose_sirens(config: Config, files: list[Path]) -> tuple[list[Imported], dict[str, list[Entry]]]:
    """Return SIRENs with their samples, as the original release's `mlp` and `sdf`, and the entries of train and test."""
    assert config.source is not None
    if len(files) <= config.num_test:
        raise InputError(f"{len(files)} SIRENs, with --num-test {config.num_test} none is left to train on; give fewer")
    found = recognize_sirens(config.source, files, config.folders, config.dataset)
    order = stream("held-out shapes", config.seed).permutation(len(files)).tolist()
    entries: dict[str, list[Entry]] = {"train": [], "test": []}
    held_out = set(order[: config.num_test])
    for i, each in enumerate(found):
        split = "test" if i in held_out else "train"
        entries[split].append(Entry(each.net.architecture, dataset_name(config.dataset), each.path))
    return found, entries


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
