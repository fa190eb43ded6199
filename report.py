"""Everything that has been run on a data set, as one HTML page, and its numbers in the terminal.

    python report.py             # photos
    python report.py chairs
    python report.py cifar10 --dataset FOLDER

The page has the numbers beside the paper's, all figures, training curves, PReps of test instances, a slider along gamma and a
map of all embeddings; of SANE also properties, samples and latents of layers, of stitching what is alike inside, and both systems
beside each other. It names what is missing, and the command for it, and opens without a network. Needs results of any other script.
Writes runs/<dataset>/report.html."""

from training.command_line import run_script

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from data.folders import Folders, dataset_name
from evaluation.report.across_panels import across_groups
from evaluation.report.embedded import embed_images, embed_sirens
from evaluation.report.page import (
    Panels,
    Section,
    figures,
    provenance_rows,
    tables,
    training_curves,
    write_report,
)
from evaluation.report.panels import embedding_map, image_slider, prep_pictures, siren_slider
from evaluation.report.sane_panels import result_groups
from evaluation.report.stitch_panels import stitching_groups
from evaluation.report.zoo_panels import zoo_panels
from evaluation.spaces import MultiConfig, SingleConfig
from evaluation.summary import SETTINGS, print_summary, read_parts
from models.errors import InputError, brief
from training.checkpoints import load_checkpoint
from training.constants import AtLeast2, Count, Flat

SettingName = Literal["single", "multi", "missing", "zoo", "sane", "stitching", "across", "mlps"]
OF_IMAGES: tuple[SettingName, ...] = ("single", "multi", "missing", "zoo", "sane", "stitching", "across")
WITHOUT_SANE: tuple[SettingName, ...] = ("single", "multi", "missing", "zoo", "stitching")


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    settings: tuple[SettingName, ...] = OF_IMAGES  # in this order; those that were run
    num_preps: Count = 4  # test instances whose PReps are shown
    resolution: AtLeast2 = 48  # of the grid that shapes are meshed on, points a side
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10")}
PRESETS |= {name: Config(name, WITHOUT_SANE) for name in ("cifar100", "mnist", "tiny-imagenet-200")}
PRESETS |= {name: Config(name, ("mlps",)) for name in ("chairs", "chairs-unseen")}
PRESETS |= {name: Config(f"data/{name}", ("mlps",)) for name in ("meshes", "deepsdf")}


def main(config: Config) -> Path:
    run_dirs = {name: config.folders.run(config.dataset, name) for name in config.settings}
    found = [name for name, run_dir in run_dirs.items() if was_run(run_dir)]
    not_run = [
        (SETTINGS[name].title, commands(config, SETTINGS[name].training)) for name in run_dirs if name not in found
    ]
    if not found:
        first = " and ".join(not_run[0][1])
        raise InputError(f"nothing has been run on {config.dataset} in {config.folders.runs_dir}; start with: {first}")
    sections = [section_of(config, name, run_dirs[name]) for name in found]
    path = config.folders.run(config.dataset, "report.html")
    write_report(path, dataset_name(config.dataset), sections, not_run)
    for name in found:
        print_summary(run_dirs[name])
    for what, how in [*(missing for each in sections for missing in each.missing), *not_run]:
        print(f"not there yet: {what}; {'; '.join(how)}" if how else f"not there yet: {what}")
    print(f"\n{path}")
    return path


def was_run(run_dir: Path) -> bool:
    """Return whether a run folder has a result or a trained space."""
    return run_dir.is_dir() and (bool(read_parts(run_dir)) or (run_dir / "best.pt").is_file())


def commands(config: Config, templates: tuple[str, ...]) -> list[str]:
    """Return commands for this data set: with its preset, or with another one and `--dataset`."""
    preset = next((name for name, each in PRESETS.items() if each.dataset == config.dataset), None)
    like = "meshes" if "mlps" in config.settings else "cifar10"
    return [each.format(preset=preset or f"{like} --dataset {config.dataset}") for each in templates]


def section_of(config: Config, name: str, run_dir: Path) -> Section:
    """Return what the page shows of a setting. Panels that cannot be computed are missing, with the reason."""
    setting, parts = SETTINGS[name], read_parts(run_dir)
    numbers = tables(dataset_name(config.dataset), run_dir, parts)
    missing = [(part.title, commands(config, part.commands)) for part in setting.parts if part not in parts]
    made = {f"{part.name}.json": results for part, results in parts.items()}
    panels = Panels(groups=[*result_groups(made), *stitching_groups(made), *across_groups(made)])
    try:
        if name not in ("stitching", "across"):  # which have no space of their own
            checkpoint = checkpoint_of(made, run_dir)
            saved = load_checkpoint(checkpoint, commands(config, setting.training)[-1])
            constants = saved.get("constants")  # the original release's checkpoints have none
            constants = constants if isinstance(constants, dict) else {}
            made[checkpoint.name] = {"config": constants, "versions": saved.get("versions")}
            computed = panels_of(config, name, checkpoint, made)
            panels = replace(computed, groups=[*panels.groups, *computed.groups])
    except InputError as error:
        missing.append((str(error), []))
    curves, images, provenance = training_curves(run_dir), figures(run_dir), provenance_rows(made)
    return Section(name, setting.title, setting.about, numbers, panels, curves, images, missing, provenance)


def checkpoint_of(made: dict[str, dict[str, Any]], run_dir: Path) -> Path:
    """Return the checkpoint that results were made with: best.pt, unless --checkpoint named another."""
    configs = [results.get("config") for results in made.values()]
    named = [config["checkpoint"] for config in configs if isinstance(config, dict) and config.get("checkpoint")]
    if named and not isinstance(named[0], str):
        raise InputError(f"a result in {run_dir} was made with the checkpoint {brief(named[0])}, which is no path")
    return Path(named[0]) if named else run_dir / "best.pt"


def panels_of(config: Config, name: str, checkpoint: Path, made: dict[str, dict[str, Any]]) -> Panels:
    """Return slider, map and PReps of a setting. Raise InputError if something is missing, with what makes it."""
    setting, slider = SETTINGS[name], None
    if name in ("zoo", "sane"):
        constants, train = made[checkpoint.name]["config"], commands(config, setting.training)[-1]
        return zoo_panels(config.folders, config.dataset, checkpoint, constants, train, config.num_preps)
    part = next(each for each in setting.parts if each.name.startswith("interpolate"))
    line, made_by = made.get(f"{part.name}.json"), commands(config, part.commands)[0]
    if name == "mlps":
        closeness = made.get("train_mlps.json", {}).get("closeness", {})
        values = [*closeness.get("train", []), *closeness.get("test", [])]
        train = commands(config, setting.training)[-1]
        embedded = embed_sirens(config.folders, config.dataset, checkpoint, train, values)
        slider = siren_slider(embedded, line, config.resolution, made_by) if line else None
    else:
        architecture = brief(made[checkpoint.name]["config"].get("architecture", "resnet8"))
        single = SingleConfig(config.dataset, architecture, checkpoint, config.folders)
        multi = MultiConfig(config.dataset, name, checkpoint, config.folders)
        embedded = embed_images(single if name == "single" else multi)
        slider = image_slider(embedded, line, made_by) if line else None
    return Panels(slider, embedding_map(embedded, slider), prep_pictures(embedded, config.num_preps))


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
