"""Bring in nets that others trained: a folder of state dicts becomes a nets dataset with its input lists (S Sec. IV).

    python import_instances.py cifar10 --source FOLDER
    python import_instances.py cifar10 --source FOLDER --accuracies FILE.csv
    python import_instances.py cifar10 --source FOLDER --setting multi
    python import_instances.py deepsdf --source FOLDER  # SIRENs with samples

Files are .pt, .pth or .safetensors of a registered architecture, recognized by names and shapes; batch norm is fused when
they are read. The CSV has the columns file and accuracy (test, percent); it is compared with what is measured here, since
images normalized otherwise would show there. Validation and test instances are drawn so that weak and strong ones are in
both. Writes runs/<dataset>/nets/<architecture>-<source>/*.safetensors and models/input_lists/<dataset>/<setting>/*.txt.
Checkpoints of the original release need no import: NetSpace.load and --checkpoint read them, --lists-dir its lists."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from data.folders import Folders
from data.imports import Found, read_accuracies, recognize
from data.instance_files import is_on_disk, read_instance, save_instance
from data.load import dataset_name, load_images
from data.mlps import Entry as MlpEntry
from data.mlps import row_and_samples, widths_of
from data.nets import Entry, write_lists
from data.plans import split_plans
from evaluation.accuracy import accuracy
from models.errors import InputError
from models.siren import SirenNets
from training.command_line import run_script
from training.runtime import pick_device

SUFFIXES = (".pt", ".pth", ".safetensors")
FAR = 2.0  # points between stated and measured accuracy that are worth a warning


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    setting: Literal["single", "multi", "missing", "mlps"] = "single"  # which lists are written
    source: Path | None = None  # the folder of state dicts
    accuracies: Path | None = None  # a CSV of test accuracies, percent
    num_val: int = 16  # instances of each architecture in val.txt
    num_test: int = 16  # and in test.txt; the others are in train.txt
    seed: int = 0  # of the split
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}
PRESETS |= {"chairs": Config("chairs", "mlps"), "deepsdf": Config("data/deepsdf", "mlps")}


def main(config: Config) -> None:
    if config.source is None or not config.source.is_dir():
        raise InputError(f"--source {config.source} is no folder; name the one with the state dicts")
    files = sorted(path for path in config.source.iterdir() if path.suffix in SUFFIXES)
    if not files:
        raise InputError(
            f"--source {config.source} holds no {', '.join(SUFFIXES)}; name the folder with the state dicts"
        )
    if config.setting == "mlps":
        return import_mlps(config, files)
    images = load_images(config.dataset, config.folders.data_dir, pick_device())
    found = recognize(files, images, config.folders, config.dataset, config.setting != "single")
    stated = read_accuracies(config.accuracies, files) if config.accuracies else {}
    groups: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.nets.architecture.name].append(each)
    if config.setting == "single" and len(groups) > 1:
        raise InputError(
            f"{config.source} holds {', '.join(groups)}; give --setting multi, or a folder of one architecture"
        )
    entries: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    facts = {}
    for name, group in groups.items():
        if len(group) <= config.num_val + config.num_test:
            kept = f"--num-val {config.num_val} and --num-test {config.num_test}"
            raise InputError(
                f"{config.source} holds {len(group)} {name}: with {kept} none is left to train on; give fewer"
            )
        rows = torch.stack([each.row for each in group]).to(images.train.pixels.device)
        measured = accuracy(group[0].nets, rows, images.test)
        compare(name, [stated.get(each.source.name) for each in group], measured.tolist())
        ranked = [group[i] for i in measured.argsort().tolist()]
        for split, chosen in split_plans(ranked, config.num_val, config.num_test, config.seed).items():
            entries[split] += [Entry(each.nets.architecture, images.name, each.path) for each in chosen]
        for each, value in zip(group, measured.tolist()):
            facts[each.path] = {"architecture": name, "dataset": images.name, "imported_from": each.source.as_posix()}
            facts[each.path] |= {"test_accuracy": value}
    write = write_lists(config.folders, config.dataset, config.setting, entries)  # refuses before anything is written
    for each in found:
        known = {name: facts[each.path][name] for name in ("architecture", "imported_from")}
        is_on_disk(each.path, known)  # refuses to write over another instance
        save_instance(each.path, read_instance(each.source)[0], facts[each.path])
    write()
    numbers = ", ".join(f"{len(chosen)} in {split}.txt" for split, chosen in entries.items())
    print(
        f"{len(found)} instances ({', '.join(groups)}): {numbers} of {config.folders.input_list(config.dataset, config.setting, 'train').parent}"
    )


def compare(name: str, stated: list[float | None], measured: list[float]) -> None:
    """Tells how far the accuracies of the CSV are from those measured here, in points."""
    far = [abs(theirs - ours) for theirs, ours in zip(stated, measured) if theirs is not None]
    print(f"{name}: test accuracy {min(measured):.2f} to {max(measured):.2f} %, n = {len(measured)}")
    if far:
        print(f"{name}: stated and measured accuracy differ by {max(far):.2f} points at most, n = {len(far)}")
    if far and max(far) > FAR:
        print(f"{name}: were images normalized with another mean and standard deviation, or is it another test set?")


def import_mlps(config: Config, files: list[Path]) -> None:
    """SIRENs with their samples, the original release's `mlp` and `sdf`: lists train.txt and test.txt."""
    if len(files) <= config.num_test:
        raise InputError(f"{len(files)} SIRENs, with --num-test {config.num_test} none is left to train on; give fewer")
    folder = config.folders.nets(config.dataset, f"siren-{files[0].resolve().parent.name}")
    entries = []
    for file in files:
        widths = widths_of(read_instance(file)[0], file)
        row_and_samples(SirenNets(widths), file)  # refuses what is none
        path = folder / f"{file.stem}.safetensors"
        entries.append((file, MlpEntry(widths, dataset_name(config.dataset), path)))
    order = np.random.default_rng(config.seed).permutation(len(files)).tolist()
    held_out = {files[i] for i in order[: config.num_test]}
    lists = {
        "train": [entry for file, entry in entries if file not in held_out],
        "test": [entry for file, entry in entries if file in held_out],
    }
    write = write_lists(config.folders, config.dataset, "mlps", lists)
    for file, entry in entries:
        facts = {"imported_from": file.as_posix()}
        is_on_disk(entry.path, facts)  # refuses to write over another instance
        save_instance(entry.path, read_instance(file)[0], facts)
    write()
    print(f"{len(files)} SIRENs: {len(lists['train'])} in train.txt, {len(lists['test'])} in test.txt")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
