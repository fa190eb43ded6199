"""Two encoders, three objectives, nets aligned or not: NetSpace and SANE trained alike on the same nets, and measured alike.

    python compare_systems.py                      # photos, everything
    python compare_systems.py photos --only tokens-behaviour-aligned --seeds 0
    python compare_systems.py photos --only sizes

A cell is an encoder (prep: NetSpace's; tokens: SANE's) with an objective, on a zoo's nets as they are or aligned. Ablations say what
makes training by behaviour alone work; sizes, how many nets are needed; symmetry, what an order of channels changes. Needs the zoo of
create_nets_dataset_zoo.py, for sizes a large one. Writes runs/<dataset>/across/compare_systems.{json,md,pdf,png}, and figures of sizes
and symmetry. A finished cell is on disk and is not trained again; one that was stopped resumes."""

from training.command_line import run_script

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import train_sane
import train_single_arch
from data.files import write_text
from data.folders import Folders
from data.load import load_images
from data.texts import write_json
from evaluation.across import Experiment
from evaluation.across_figures import plot_cells, plot_sizes, plot_symmetry
from evaluation.across_tables import across_table
from evaluation.cells import changed, choose
from evaluation.plots import save_figure
from models.prep_autoencoder import Sizes
from models.token_autoencoder import TokenSizes
from training.constants import Count, Flat, Positive, Seed
from training.runtime import pick_device, provenance


@dataclass(frozen=True)
class SystemSizes:
    """The shapes of both systems."""

    prep: Sizes  # of NetSpace
    tokens: TokenSizes  # of SANE


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the zoo was made with
    sizes: SystemSizes
    only: tuple[str, ...] = ()  # cells by name, or table, ablations, sizes, symmetry; by default all
    seeds: tuple[Seed, ...] = (0, 1, 2)  # of splits, initialization and draws
    equal: Literal["steps", "seconds"] = "steps"  # what is the same for all cells; seconds depend on the machine
    num_steps: Count = 300  # optimizer steps of every cell
    seconds: Positive = 30.0  # of every cell, with --equal seconds
    meta_batch: Count = 8  # M, nets in a step
    image_batch: Count = 64  # B, images shown to them
    train_nets: tuple[Count, ...] = (12, 25, 50, 100, 200, 400)  # numbers of them, of sizes
    architecture: str = "resnet8"  # of the nets
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets
    large_zoo: str = "zoo-large"  # the same, for sizes
    folders: Flat[Folders] = field(default_factory=Folders)


# An embedding of tokens has 6 numbers for each of 166: 996 for a net, where NetSpace's has 1,024. A window holds more of a net
# than SANE's, and a step has as many windows as nets, so that all objectives of tokens see as many nets, and tokens, in a step.
PRESETS = {
    "photos": Config(
        "photos",
        SystemSizes(
            train_single_arch.PRESETS["photos"].sizes,
            TokenSizes(37, 6, 96, 2, 4, 96, 6, (256, 16, 32), alignment="none"),
        ),
    )
}


def main(config: Config) -> dict[str, Any]:
    chosen, folders = choose(config.only, config.train_nets), config.folders
    images = load_images(config.dataset, folders.data_dir, pick_device())
    experiment = Experiment(
        folders.run(config.dataset, "across"),
        folders.zoo(config.dataset, config.zoo),
        folders.zoo(config.dataset, config.large_zoo),
        config.architecture,
        images,
        systems(config),
        config.seeds,
        config.seconds if config.equal == "seconds" else None,
    )
    experiment.run(chosen)

    results = experiment.collect(config.train_nets)
    path = experiment.folder / "compare_systems"
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    write_text(path.with_suffix(".md"), table := across_table(results))
    print(f"{table}\n{', '.join(map(str, figures(results, path, f'{config.architecture} on {images.name}')))}")
    return results


def systems(config: Config) -> dict[str, Any]:
    """Return the constants of both systems: those of their scripts, with as many nets, images and steps."""
    alike = dict(meta_batch=config.meta_batch, image_batch=config.image_batch, num_steps=config.num_steps)
    alike |= dict(architecture=config.architecture, dataset=config.dataset)
    prep, tokens = (script.PRESETS["photos"] for script in (train_single_arch, train_sane))
    of_tokens = dict(sizes=config.sizes.tokens, windows=config.meta_batch, behaviour_loss="distillation")
    systems = {
        "prep": changed(prep, alike | dict(sizes=config.sizes.prep)),
        "tokens": changed(tokens, alike | of_tokens),
    }
    return {encoder: replace(each, folders=config.folders) for encoder, each in systems.items()}


def figures(results: dict[str, Any], path: Path, title: str) -> list[Path]:
    """Draw what there is. Return the files."""
    found: list[Path] = []
    if results["cells"] or results["ablations"]:
        found += save_figure(plot_cells(results["cells"], results["ablations"], title), path)
    if results["sizes"]:
        found += save_figure(plot_sizes(results["sizes"], title), path.with_name("compare_systems_sizes"))
    if results["symmetry"]:
        figure = plot_symmetry(results["symmetry"], results["gamma"], results["lines"], title)
        found += save_figure(figure, path.with_name("compare_systems_symmetry"))
    return found


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
