"""Are nets that behave alike also alike inside? Targets beside the instances that NetSpace predicts from them.

    python inside_similarity.py             # photos
    python inside_similarity.py photos --checkpoint runs/photos/weights/best.pt

Each stitch point of the test instances is compared with that of predicted ones: by CKA, the Procrustes distance, and the accuracy
of nets that are stitched by least squares. Beside them are instances along lines, what SANE decodes if train_sane.py was run, and
controls: other targets of the same accuracy, reordered, fine-tuned and noisy copies, untrained nets. Needs train_single_arch.py.
Writes runs/<dataset>/stitching/inside_similarity.{json,md,pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass, field
from typing import Any

from data.files import write_text
from data.folders import command
from data.images import ImageSet
from data.nets import load_nets
from data.texts import write_json
from data.zoos import last_checkpoints, load_splits
from evaluation.finetuning import FineTuning
from evaluation.inside import (
    Kind,
    control_kinds,
    decoded_kinds,
    inside_table,
    kind_facts,
    measure_kind,
    predicted_kinds,
    start_kind,
)
from evaluation.metrics import accuracy
from evaluation.plots import save_figure
from evaluation.similarity_figures import plot_inside
from evaluation.spaces import SingleConfig, load_experiment
from evaluation.zoo_spaces import space_on_zoo
from training.constants import Count, Flat, NonNegative, Seed
from training.runtime import provenance


@dataclass(frozen=True)
class Config(SingleConfig):
    zoo: str = "zoo-resnet8"  # the folder in runs/<dataset>/nets that SANE was trained on
    noise: NonNegative = 0.1  # of noisy copies, in standard deviations of each layer
    tuning_epochs: Count = 1  # passes over the training images that fine-tuned copies see
    tuning: Flat[FineTuning] = field(default_factory=FineTuning)
    num_resamples: Count = 1000  # of pairs, for intervals
    seed: Seed = 0  # random seed


PRESETS = {"photos": Config("photos")}
LARGE = FineTuning(learning_rate=1e-3, side_by_side=33)
PRESETS |= {name: Config(name, tuning=LARGE) for name in ("cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, Any]:
    images, space, test = load_experiment(config)
    net, accuracies = test.nets[0], accuracy(test.nets[0], test.rows, images.test)
    kinds = predicted_kinds(space, test.rows, accuracies)
    train = load_nets(config.folders, images, config.setting, "train", test.nets)
    kinds |= start_kind(space, train, images.val, kinds["target_predicted"].fronts)
    kinds |= kinds_of_sane(config, images)
    noise, epochs = config.noise, config.tuning_epochs
    kinds |= control_kinds(net, test.rows, accuracies, images, noise, config.tuning, epochs, config.seed)

    kinds = {name: kind for name, kind in kinds.items() if len(kind.fronts)}  # of one test instance, there are no pairs
    found = {name: measure_kind(net, kind, images) for name, kind in kinds.items()}
    facts = {name: kind_facts(kinds[name], each, config.num_resamples, config.seed) for name, each in found.items()}
    results = {"points": net.points, "kinds": facts}
    path = config.folders.run(config.dataset, "stitching") / "inside_similarity"
    write_json(path.with_suffix(".json"), {**results, **provenance(config)})
    write_text(path.with_suffix(".md"), table := inside_table(results))
    title = f"{len(test)} test instances of {net.name} on {images.name}, inside"
    pdf, png = save_figure(plot_inside(facts, net.points, title), path)
    print(f"{title}\n\n{table}\n{png}, {pdf}")
    return results


def kinds_of_sane(config: Config, images: ImageSet) -> dict[str, Kind]:
    """Return the test nets of the zoo, at their last checkpoint, beside what SANE decodes; nothing if there is no SANE.

    Raise InputError if it was trained on another zoo.
    """
    checkpoint = config.folders.run(config.dataset, "sane") / "best.pt"
    if not checkpoint.is_file():
        return {}
    folder = config.folders.nets(config.dataset, config.zoo)
    splits = load_splits(folder, config.architecture, images.train.pixels.device)
    sane = space_on_zoo(checkpoint, command("train_sane.py", config.dataset), splits, images)
    test = last_checkpoints(splits["test"])
    return decoded_kinds(sane, test.rows, accuracy(test.nets[0], test.rows, images.test))


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
