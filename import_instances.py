"""Import nets that others trained: a folder of state dicts becomes a nets dataset with its input lists (S Sec. IV).

    python import_instances.py cifar10 --source FOLDER
    python import_instances.py cifar10 --source FOLDER --accuracies FILE.csv
    python import_instances.py cifar10 --source FOLDER --setting multi
    python import_instances.py deepsdf --source FOLDER  # SIRENs with samples

Files are .pt, .pth or .safetensors of a registered architecture, recognized by names and shapes; batch norm is fused when
they are read. The CSV has the columns file and accuracy (test, percent). It is compared with what is measured here, since
images that were normalized differently would show there. Validation and test instances are drawn so that weak and strong
ones are in both. Writes runs/<dataset>/nets/<architecture>-<source>/*.safetensors and
models/input_lists/<dataset>/<setting>/*.txt. Checkpoints of the original release need no import: NetSpace.load and
--checkpoint read them, --lists-dir its lists."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from data.folders import Folders, dataset_name
from data.imports import Imported, list_state_dicts, read_accuracies, recognize, report_differences
from data.instance_files import is_on_disk, read_instance, row_of, samples_of, save_instance, siren_widths
from data.load import load_images
from data.nets import Entry, list_texts, split_alike, write_lists
from data.streams import stream
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import siren
from training.command_line import run_script
from training.constants import Count, Flat, Seed
from training.runtime import pick_device


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or a folder with train/CLASS/IMAGE and test/CLASS/IMAGE
    setting: Literal["single", "multi", "missing", "mlps"] = "single"  # which lists are written
    source: Path | None = None  # the folder of state dicts
    accuracies: Path | None = None  # a CSV of test accuracies, percent
    num_val: Count = 16  # instances of each architecture in val.txt
    num_test: Count = 16  # and in test.txt; the others are in train.txt
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}
PRESETS |= {"chairs": Config("chairs", "mlps")}
PRESETS |= {name: Config(f"data/{name}", "mlps") for name in ("meshes", "deepsdf")}


def main(config: Config) -> None:
    files = list_state_dicts(config.source)
    if config.setting == "mlps":
        return import_sirens(config, files)
    images = load_images(config.dataset, config.folders.data_dir, pick_device())
    found = recognize(files, images, config.folders, config.dataset, config.setting != "single")
    stated = read_accuracies(config.accuracies, files) if config.accuracies else {}
    groups: dict[str, list[Imported]] = defaultdict(list)
    for each in found:
        groups[each.net.name].append(each)
    if config.setting == "single" and len(groups) > 1:
        raise InputError(
            f"{config.source} holds {', '.join(groups)}; give --setting multi, or a folder of one architecture"
        )
    entries: dict[str, list[Entry]] = {"train": [], "val": [], "test": []}
    facts: dict[Path, dict[str, Any]] = {}
    for name, group in groups.items():
        if len(group) <= config.num_val + config.num_test:
            numbers = f"--num-val {config.num_val} and --num-test {config.num_test}"
            raise InputError(
                f"{config.source} holds {len(group)} {name}: with {numbers} none is left to train on; give fewer"
            )
        rows = torch.stack([each.row for each in group]).to(images.train.pixels.device)
        measured = accuracy(group[0].net, rows, images.test)
        report_differences(name, [stated.get(each.source.name) for each in group], measured.tolist())
        ranked = [group[i] for i in measured.argsort().tolist()]
        for split, chosen in split_alike(ranked, config.num_val, config.num_test, config.seed).items():
            entries[split] += [Entry(each.net.architecture, images.name, each.path) for each in chosen]
        for each, value in zip(group, measured.tolist()):
            facts[each.path] = {"architecture": name, "dataset": images.name, "imported_from": each.source.as_posix()}
            facts[each.path] |= {"test_accuracy": value}
    write_all(config, entries, [(each.source, each.path, facts[each.path]) for each in found])
    numbers = ", ".join(f"{len(chosen)} in {split}.txt" for split, chosen in entries.items())
    lists = config.folders.input_list(config.dataset, config.setting, "train").parent
    print(f"{len(found)} instances ({', '.join(groups)}): {numbers} of {lists}")


def import_sirens(config: Config, files: list[Path]) -> None:
    """Import SIRENs with their samples, as the original release's `mlp` and `sdf`: lists train.txt and test.txt."""
    if len(files) <= config.num_test:
        raise InputError(f"{len(files)} SIRENs, with --num-test {config.num_test} none is left to train on; give fewer")
    folder = config.folders.nets(config.dataset, f"siren-{files[0].resolve().parent.name}")
    order = stream("held-out shapes", config.seed).permutation(len(files)).tolist()
    entries: dict[str, list[Entry]] = {"train": [], "test": []}
    found = []
    for i, file in enumerate(files):
        state, _ = read_instance(file)
        architecture = siren(siren_widths(state, file))
        samples_of(state, file)
        row_of(TargetNet(architecture), {name: value for name, value in state.items() if name != "sdf"}, file)
        path = folder / f"{file.stem}.safetensors"
        split = "test" if i in order[: config.num_test] else "train"
        entries[split].append(Entry(architecture, dataset_name(config.dataset), path))
        found.append((file, path, {"imported_from": file.as_posix()}))
    write_all(config, entries, found)
    print(f"{len(files)} SIRENs: {len(entries['train'])} in train.txt, {len(entries['test'])} in test.txt")


def write_all(config: Config, entries: dict[str, list[Entry]], found: list[tuple[Path, Path, dict[str, Any]]]) -> None:
    """Write instances, each (source, path, facts), and the lists. Raise InputError rather than replace others."""
    lists = list_texts(config.folders, config.dataset, config.setting, entries)
    for source, path, facts in found:
        is_on_disk(path, {name: facts[name] for name in ("architecture", "imported_from") if name in facts})
        save_instance(path, read_instance(source)[0], facts)
    write_lists(lists)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
