"""Compare nets at all pairs of stitch points: CKA, CCA, SVCCA, PWCCA, Procrustes, linear regression, l2, correlation, linear probes.

    python compare_nets.py             # photos: every pair of 8 nets
    python compare_nets.py photos --nets seed0-129 seed0-116 --measures cka l2
    python compare_nets.py photos --zoo zoo-resnet8 --num-nets 20

Compares instances of the test list of create_nets_dataset_single.py, or the last checkpoints of a zoo's test nets, on validation
images. Every net stands beside an untrained one and a reordered copy of itself. If stitch_nets.json is there, its nets are compared, and
each measure has its rank correlation with the accuracy of stitches. Writes runs/<dataset>/stitching/compare_nets.{json,md,pdf,png}
and compare_nets_points.{pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from data.files import write_text
from data.folders import Folders, command
from data.images import ImageSet
from data.load import load_images
from data.nets import NetsDataset, load_nets
from data.streams import stream
from data.texts import write_json
from data.zoos import last_checkpoints, load_splits
from evaluation.comparison import (
    ALL_MEASURES,
    MeasureName,
    NetViews,
    chosen_nets,
    comparison_facts,
    measured,
    rank_correlations,
    read_stitches,
    reordered_copies,
    shuffled,
    similarity_table,
)
from evaluation.metrics import accuracy
from evaluation.plots import save_figure
from evaluation.similarity_figures import plot_matrices, plot_over_points
from evaluation.stitches import untrained
from models.errors import InputError
from models.instances import TargetNets
from models.target_nets import architectures_by_class_id, get_architecture
from training.constants import AtLeast2, Count, Flat, Seed
from training.runtime import pick_device, provenance

CONTROLS = 4  # nets that have an untrained one and a reordered copy beside them


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"  # of the nets
    setting: Literal["single", "multi"] = "single"  # whose test list
    nets: tuple[str, ...] = ()  # names or paths; default: those of stitch_nets.json, else the strongest
    num_nets: AtLeast2 = 8  # the strongest on validation images, if none are named
    zoo: str | None = None  # a folder in runs/<dataset>/nets to take nets from, instead of the test list
    measures: tuple[MeasureName, ...] = tuple(ALL_MEASURES)  # in this order
    num_images: Count = 1000  # validation images that activations are compared on
    probe_images: Count = 2000  # training images that linear probes are fitted on
    image_batch: Count = 250  # most images in a batch; minibatch CKA depends on it
    before_activation: bool = False  # compare what the activation function gets
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {"photos": Config("photos")}
PRESETS |= {name: Config(name, before_activation=True) for name in ("cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, Any]:
    if not config.measures:
        raise InputError("--measures: name one or more, or leave the flag out")
    images, seed = load_images(config.dataset, config.folders.data_dir, pick_device()), config.seed
    run_dir = config.folders.run(config.dataset, "stitching")
    stitches = read_stitches(
        run_dir / "stitch_nets.json",
        config.architecture,
        config.before_activation,
        command("stitch_nets.py", config.dataset),
    )
    nets = load_compared(config, images, stitches)
    net, number, some = nets.nets[0], len(nets), range(min(CONTROLS, len(nets)))
    pairs = {"nets": [(i, j) for i in range(number) for j in range(number) if i != j]}
    pairs["reordered_copy"] = [(number + i, i) for i in some]
    pairs["untrained_front"] = [(number + len(some) + i, i) for i in some]
    copies = reordered_copies(net, nets.rows[: len(some)], seed)
    rows = torch.cat([nets.rows, copies, untrained(net, len(some), images, seed)])

    held_out = shuffled(images.val, config.num_images, stream("images that are compared", seed))
    views = NetViews(net, rows, held_out, config.before_activation)
    every = [pair for each in pairs.values() for pair in each]
    found = measured(views, images, every, config.measures, config.image_batch, config.probe_images, seed)
    groups, start = {}, 0
    for group, each in pairs.items():
        groups[group] = {name: values[start : start + len(each)] for name, values in found.items()}
        start += len(each)

    stems = [path.stem for path in nets.paths]  # as stitch_nets.py calls them
    names = [(stems[i], stems[j]) for i, j in pairs["nets"]]
    results = comparison_facts(groups, names, net.points)
    ranks = rank_correlations(groups["nets"], names, net.points, stitches) if stitches else {}
    results |= {"rank_correlation": ranks, "num_images": len(held_out)}
    path = run_dir / "compare_nets"
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    write_text(path.with_suffix(".md"), table := similarity_table(results))
    title = f"{len(names)} pairs of {number} {net.name} on {images.name}"
    figures = save_figure(plot_matrices(results["measures"], net.points, title), path)
    figures += save_figure(plot_over_points(results["measures"], net.points, title), run_dir / "compare_nets_points")
    print(f"{title}\n\n{table}\n{', '.join(map(str, figures))}")
    return results


def load_compared(config: Config, images: ImageSet, stitches: dict[str, Any] | None) -> NetsDataset:
    """Load the nets that are compared. Raise InputError if one is missing or there are fewer than two."""
    if config.zoo:
        folder = config.folders.nets(config.dataset, config.zoo)
        known = last_checkpoints(load_splits(folder, config.architecture, images.train.pixels.device)["test"])
    else:
        several = architectures_by_class_id() if config.setting == "multi" else [get_architecture(config.architecture)]
        nets = TargetNets.on_images(several, images.image_shape, images.num_classes)
        known = load_nets(config.folders, images, config.setting, "test", nets).of_architecture(config.architecture)
    names = list(config.nets)
    if stitches and not names:
        named = dict.fromkeys(pair[side] for pair in stitches["pairs"] for side in ("front", "end"))
        names = [name for name in named if known.index_of(name) is not None]
    if len(names) > 1 or config.nets:
        return chosen_nets(known, names, images.name)
    if len(known) < 2:
        raise InputError(
            f"{len(known)} {config.architecture} to compare; make a nets dataset of two test instances or more"
        )
    order = accuracy(known.nets[0], known.rows, images.val).argsort(descending=True, stable=True)
    return known[order[: config.num_nets]]


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
