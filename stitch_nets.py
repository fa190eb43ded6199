"""Stitch nets: is the front of one of use to the end of another? (Csiszarik et al., NeurIPS 2021, Fig. 2 and Sec. 4, 5)

    python stitch_nets.py                # pairs of strong nets of photos
    python stitch_nets.py photos --front FILE --end FILE --front-layer stem
    python stitch_nets.py --list-layers

Needs the nets of create_nets_dataset_single.py, or two files. A transform of channels between front and end is fitted to the
end's activations (least squares, orthogonal), and trained by the task's loss. Controls stand beside every number: an untrained front,
an untrained end, a far layer of the same net, nothing but mean activations, and the net itself. Writes runs/<dataset>/stitching/
stitch_nets.{json,md,pdf,png}, stitch_matrix.{pdf,png} and transforms. Run it again to resume: what is on disk is not trained again."""

from training.command_line import run_script

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from data.files import write_text
from data.folders import Folders
from data.images import ImageSet
from data.instance_files import registered_row
from data.load import load_images
from data.nets import load_nets
from data.texts import write_json
from evaluation.plots import save_figure
from evaluation.stitch_figures import plot_matrix, plot_stitching
from evaluation.stitched import Results, Transforms, save_transforms, stitching_table, sums_on, transforms_between
from evaluation.stitches import (
    Pairs,
    chosen_points,
    list_layers,
    other_points,
    pair_of_files,
    plan_groups,
    stitching_folder,
    strongest_pairs,
)
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.stitching import Points
from models.target_nets import architectures_by_class_id, get_architecture
from training.constants import AtLeast2, Flat, Seed, SideBySide
from training.distributed import is_first
from training.runtime import pick_device, provenance
from training.stitches import StitchTraining, Views
from training.zoo import Zoo


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the nets were made with
    architecture: str = "resnet8"  # of the nets of the test list
    setting: Literal["single", "multi"] = "single"  # whose test list
    num_nets: AtLeast2 = 8  # the best of the list on validation images, each stitched to the next
    front: Path | None = None  # the file of a front instead, with --end
    end: Path | None = None  # the file of an end
    front_layer: str | None = None  # one layer of the front instead of all
    end_layer: str | None = None  # one layer of the end; by default the front's
    list_layers: bool = False  # print the layers and their shapes, and end
    before_activation: bool = False  # stitch before the activation functions, as the paper does
    matrix: Literal["none", "least-squares", "all"] = "all"  # between other layers of one size; all: trained too
    controls: bool = True  # train those with untrained nets and far layers
    training: Flat[StitchTraining] = field(default_factory=StitchTraining)
    sides: Flat[SideBySide] = field(default_factory=lambda: SideBySide(64))
    run_name: str = "stitching"  # the folder in runs/<dataset>
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PAPER = StitchTraining(target="end")
PRESETS = {"photos": Config("photos", training=replace(PAPER, num_epochs=10, learning_rate=1e-2))}
PRESETS |= {name: Config(name, before_activation=True, training=PAPER) for name in ("cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, Any] | None:
    device, training, before, seed = pick_device(), config.training, config.before_activation, config.seed
    images = load_images(config.dataset, config.folders.data_dir, device)
    net = TargetNet(get_architecture(config.architecture), images.image_shape, images.num_classes)
    if config.list_layers:
        files = [each for each in (config.front, config.end) if each]
        print(list_layers([registered_row(net, each)[0] for each in files] or [net]))
        return None
    pairs = chosen_pairs(config, net, images)
    folder = stitching_folder(config.folders, config.dataset, config.run_name)
    points = chosen_points(pairs, config.front_layer, config.end_layer)
    others = other_points(pairs, points) if config.matrix != "none" else []
    trained = others if config.matrix == "all" else []
    groups = plan_groups(pairs, points, trained, training, config.controls, images, folder / "transforms", before, seed)

    used = list(dict.fromkeys([*points, *others, *(group.points for group in groups)]))
    sums, zoo = sums_on(pairs, used, images.train, before), Zoo(config)
    for group in groups:
        for stack in zoo.stacks(group.plans):
            stitches = stack.start(group.stitches(pairs, sums, stack.plans, before, seed))
            views = Views(stitches.nets, group.training, images.train, (seed,))
            for step in stack.steps():
                stitches.set_learning_rate(training.rate(step, stack.plans[0].steps))
                stitches.step(*views.batch(step))
                if (step + 1) % views.per_pass == 0:
                    stack.show(val=f"{stitches.validate(images.val):.1f} %")
            group.save(stack.plans, stitches)
            stack.finish()
    if not is_first():
        return None
    zoo.wait([plan for group in groups for plan in group.plans])
    transforms = {
        each: transforms_between(pairs, each, groups, sums[each], training, each in points, seed) for each in used
    }
    return report(config, images, Results(pairs, points, transforms, images.test, before), transforms, folder)


def chosen_pairs(config: Config, net: TargetNet, images: ImageSet) -> Pairs:
    """Return the pair of the flags, or those of the test list. Raise InputError if one flag is missing."""
    if config.front and config.end:
        return pair_of_files(config.front, config.end, net, images, config.seed)
    if config.front or config.end:
        raise InputError("give both --front and --end, or neither to stitch pairs of the test list")
    architectures = architectures_by_class_id() if config.setting == "multi" else [net.architecture]
    nets = TargetNets.on_images(architectures, images.image_shape, images.num_classes)
    listed = load_nets(config.folders, images, config.setting, "test", nets).of_architecture(config.architecture)
    return strongest_pairs(listed, config.num_nets, images, config.seed)


def report(
    config: Config, images: ImageSet, found: Results, transforms: dict[Points, Transforms], folder: Path
) -> dict[str, Any]:
    """Write results, transforms, table and figures; print where they are."""
    files = [each.stem for each in (config.front, config.end) if each]
    path, matrix = (folder / "_".join([name, *files]) for name in ("stitch_nets", "stitch_matrix"))
    results = {**found.as_json(), **provenance(config)}
    title = f"{found.pairs.describe()} on {images.name}, {len(images.test)} test images"
    table = f"{title}, seed {config.seed}\n\n{stitching_table(results)}"
    write_json(path.with_suffix(".json"), results)
    save_transforms(path.with_suffix(".safetensors"), transforms)
    write_text(path.with_suffix(".md"), table)
    figures = save_figure(plot_stitching(results["summary"], results["points"], title), path)
    if len(found.points) > 1 and config.matrix != "none":
        figures += save_figure(plot_matrix(found.mean_matrices(), results["points"], title), matrix)
    print(f"{table}{', '.join(map(str, figures))}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__, split_over_ranks=True)
