"""Everything that has been run on a data set, as one HTML page, and its numbers in the terminal.

    python report.py             # photos: single, multi, missing
    python report.py chairs
    python report.py cifar10 --dataset FOLDER

The page has the numbers beside the paper's, all figures, training curves, PReps of test instances, a slider along gamma and a
map of all embeddings; what is missing is named with the command that makes it. It opens without a network. Needs any of
the other scripts' results. Writes runs/<dataset>/report.html. Takes 20 seconds of one CPU core on photos (single, multi)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from evaluation.embedded import embed_mlps, embed_multi, embed_single
from evaluation.embedding_map import embedding_map
from evaluation.multi import MultiConfig
from evaluation.prep_images import prep_pictures
from evaluation.report_page import figures, provenance_rows, tables, training_curves, write_report
from evaluation.single import EvaluationConfig
from evaluation.sliders import mlp_slider, multi_slider, single_slider

from data.folders import Folders
from data.load import dataset_name
from evaluation.summary import SETTINGS, print_summary, read_parts
from models.errors import InputError
from training.checkpoints import load_checkpoint
from training.command_line import run_script

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
    """What the page shows of a setting. Panels that cannot be computed are named, with the reason, as missing."""
    setting, parts = SETTINGS[name], read_parts(run_dir)
    numbers = tables(dataset_name(config.dataset), run_dir, parts)
    missing = [(part.title, commands(config, part.commands)) for part in setting.parts if part not in parts]
    made = {f"{part.name}.json": results for part, results in parts.items()}
    computed: dict[str, Any] = dict.fromkeys(("slider", "map", "preps"))
    try:
        checkpoint = checkpoint_of(made, run_dir)
        saved = load_checkpoint(checkpoint, commands(config, setting.training)[-1])
        constants = saved.get("constants")  # the original release's checkpoints have none
        constants = constants if isinstance(constants, dict) else {}
        made[checkpoint.name] = {"config": constants, "versions": saved.get("versions")}
        computed = panels(config, name, checkpoint, made)
    except InputError as error:
        missing.append((str(error), []))
    return {
        "name": name,
        "title": setting.title,
        "about": setting.about,
        "tables": numbers,
        **computed,
        "curves": training_curves(run_dir),
        "figures": figures(run_dir),
        "missing": missing,
        "provenance": provenance_rows(made),
    }


def checkpoint_of(made: dict[str, dict[str, Any]], run_dir: Path) -> Path:
    """The checkpoint that results were made with: best.pt, unless --checkpoint named another."""
    configs = [results.get("config") for results in made.values()]
    named = [config["checkpoint"] for config in configs if isinstance(config, dict) and config.get("checkpoint")]
    return Path(named[0]) if named else run_dir / "best.pt"


def panels(config: Config, name: str, checkpoint: Path, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Slider, map and PReps of a setting. Raises InputError where something is missing, naming what makes it."""
    setting, slider = SETTINGS[name], None
    if name == "single":
        architecture = made[checkpoint.name]["config"].get("architecture", "resnet8")
        embedded = embed_single(EvaluationConfig(config.dataset, architecture, checkpoint, config.folders))
        line, color_by = made.get("interpolate_single_arch.json"), "accuracy"
        if line:
            slider = single_slider(embedded, line, commands(config, setting.parts[1].commands)[0])
    elif name == "mlps":
        closeness = made.get("train_mlps.json", {}).get("closeness", {})
        values = [*closeness.get("train", []), *closeness.get("test", [])]
        train = commands(config, setting.training)[-1]
        embedded, nets = embed_mlps(config.folders, config.dataset, checkpoint, train, values)
        line, color_by = made.get("interpolate_mlps.json"), "split"
        if line:
            made_by = commands(config, setting.parts[2].commands)[0]
            slider = mlp_slider(embedded, nets, line, config.resolution, made_by)
    else:
        embedded, sizes = embed_multi(MultiConfig(config.dataset, name, checkpoint, config.folders))
        line, color_by = made.get("interpolate_multi_arch.json"), "architecture"
        if line:
            slider = multi_slider(embedded, sizes, line, commands(config, setting.parts[1].commands)[0])
    return {
        "slider": slider,
        "map": embedding_map(embedded, color_by, slider["ends"] if slider else []),
        "preps": prep_pictures(embedded, config.num_preps),
    }


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
