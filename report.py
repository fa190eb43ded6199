"""Everything that has been run on a data set, as one HTML page, and its numbers in the terminal.

    python report.py             # photos: single, multi and missing, whichever are there
    python report.py chairs
    python report.py cifar10 --dataset FOLDER

The page has the numbers beside the paper's, all figures, training curves, PReps of test instances, a slider along gamma and a
map of all embeddings; what is missing is named with the command that makes it. It opens without a network. Needs any of
the other scripts' results. Writes runs/<dataset>/report.html. Takes 10 seconds on photos (single), 2 CPU cores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from data.folders import Folders
from data.load import dataset_name
from evaluation import panels
from evaluation.multi import MultiConfig
from evaluation.report_page import empty_section, figures, provenance_rows, tables, training_curves, write_report
from evaluation.single import EvaluationConfig
from evaluation.summary import SETTINGS, print_summary, read_parts
from models.errors import InputError
from training.checkpoints import load_checkpoint, restore_net_space
from training.command_line import run_script
from training.runtime import pick_device

SettingName = Literal["single", "multi", "missing", "mlps"]


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    settings: tuple[SettingName, ...] = ("single", "multi", "missing")  # in this order; those that were run
    num_preps: int = 4  # test instances whose PReps are shown
    resolution: int = 48  # of the grid that shapes are meshed on, points a side
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "photos": Config("photos"),
    "cifar10": Config("cifar10"),
    "tiny-imagenet-200": Config("tiny-imagenet-200"),
    "chairs": Config("chairs", ("mlps",)),
    "meshes": Config("data/meshes", ("mlps",)),
    "deepsdf": Config("data/deepsdf", ("mlps",)),
}


def main(config: Config) -> Path:
    run_dirs = {name: config.folders.run(config.dataset, name) for name in config.settings}
    there = [name for name, run_dir in run_dirs.items() if was_run(run_dir)]
    not_run = [
        (SETTINGS[name].title, commands(config, SETTINGS[name].training)) for name in run_dirs if name not in there
    ]
    if not there:
        first = " and ".join(not_run[0][1])
        raise InputError(f"nothing has been run on {config.dataset} in {config.folders.runs_dir}; start with: {first}")
    sections = [section(config, name, run_dirs[name]) for name in there]
    path = config.folders.run(config.dataset, "report.html")
    write_report(path, dataset_name(config.dataset), sections, not_run)
    for name in there:
        print_summary(run_dirs[name])
    for what, how in [*(missing for each in sections for missing in each["missing"]), *not_run]:
        print(f"not there yet: {what}; {'; '.join(how)}")
    print(f"\n{path}")
    return path


def was_run(run_dir: Path) -> bool:
    return run_dir.is_dir() and (bool(read_parts(run_dir)) or (run_dir / "best.pt").is_file())


def commands(config: Config, templates: tuple[str, ...]) -> list[str]:
    """Commands for this data set: of its preset, or of another one and `--dataset`."""
    preset = next((name for name, each in PRESETS.items() if each.dataset == config.dataset), None)
    like = "meshes" if "mlps" in config.settings else "cifar10"
    return [each.format(preset=preset or f"{like} --dataset {config.dataset}") for each in templates]


def section(config: Config, name: str, run_dir: Path) -> dict[str, Any]:
    """What the page shows of a setting. Panels that cannot be computed are named among what is missing, with the reason."""
    parts = read_parts(run_dir)
    results = {part.name: found for part, found in parts.items()}
    made = {f"{part}.json": found for part, found in results.items()}
    shown = empty_section(name)
    shown["missing"] = [
        (part.title, commands(config, part.commands)) for part in SETTINGS[name].parts if part not in parts
    ]
    try:
        checkpoint = checkpoint_of(results, run_dir)
        saved = load_checkpoint(checkpoint, commands(config, SETTINGS[name].training)[-1])
        constants = saved.get("constants", {})
        made[checkpoint.name] = {"config": constants, "versions": saved.get("versions")}
        if name == "single":
            of_single(config, shown, results, checkpoint, constants)
        elif name == "mlps":
            of_mlps(config, shown, results, checkpoint)
        else:
            of_several(config, name, shown, results, checkpoint)
    except InputError as error:
        shown["missing"].append((str(error), []))
    return {
        **shown,
        "tables": tables(dataset_name(config.dataset), run_dir, parts),
        "curves": training_curves(run_dir),
        "figures": figures(run_dir),
        "provenance": provenance_rows(made),
    }


def checkpoint_of(results: dict[str, dict[str, Any]], run_dir: Path) -> Path:
    """The checkpoint that results were made with: best.pt, unless --checkpoint named another."""
    configs = [each.get("config") for each in results.values()]
    named = [config["checkpoint"] for config in configs if isinstance(config, dict) and config.get("checkpoint")]
    return Path(named[0]) if named else run_dir / "best.pt"


def of_single(
    config: Config, shown: dict[str, Any], results: dict[str, Any], checkpoint: Path, constants: dict[str, Any]
) -> None:
    architecture = constants.get("architecture", "resnet8")
    instances = panels.single_instances(EvaluationConfig(config.dataset, architecture, checkpoint, config.folders))
    line, made_by = results.get("interpolate_single_arch"), commands(config, SETTINGS["single"].parts[1].commands)[0]
    slider = panels.single_slider(instances, line, made_by) if line else None
    add_panels(config, shown, instances, slider, "accuracy", accuracies(instances))


def of_several(config: Config, name: str, shown: dict[str, Any], results: dict[str, Any], checkpoint: Path) -> None:
    multi = MultiConfig(config.dataset, name, checkpoint, config.folders)
    instances, sizes = panels.multi_instances(multi)
    line, made_by = results.get("interpolate_multi_arch"), commands(config, SETTINGS[name].parts[1].commands)[0]
    slider = panels.multi_slider(instances, sizes, line, made_by) if line else None
    add_panels(config, shown, instances, slider, "architecture", accuracies(instances))


def of_mlps(config: Config, shown: dict[str, Any], results: dict[str, Any], checkpoint: Path) -> None:
    device = pick_device()
    net_space = restore_net_space(checkpoint, commands(config, SETTINGS["mlps"].training)[-1], device)
    instances, nets = panels.mlp_instances(config.folders, config.dataset, net_space, device)
    line, made_by = results.get("interpolate_mlps"), commands(config, SETTINGS["mlps"].parts[2].commands)[0]
    slider = panels.mlp_slider(instances, nets, line, config.resolution, made_by) if line else None
    measured = results.get("train_mlps", {}).get("closeness", {})
    values = [value for split in ("train", "test") for value in measured.get(split, [])]
    known = len(values) == len(instances.paths)
    numbers = [f"closeness {value:.2f}" for value in values] if known else [""] * len(instances.paths)
    add_panels(config, shown, instances, slider, "split", numbers)


def accuracies(instances: panels.Instances) -> list[str]:
    return [
        f"{name} · test accuracy {percent:.1f} %"
        for name, percent in zip(instances.architectures, instances.accuracies)
    ]


def add_panels(
    config: Config,
    shown: dict[str, Any],
    instances: panels.Instances,
    slider: dict[str, Any] | None,
    color_by: str,
    numbers: list[str],
) -> None:
    ends = slider["ends"] if slider else []
    if slider:
        slider["from_to"] = [instances.paths[i].stem for i in ends]
    shown["slider"] = slider
    shown["map"] = panels.embedding_map(instances, color_by, numbers, ends)
    shown["preps"] = panels.prep_pictures(instances, config.num_preps)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
