"""Fig. 5 centre and right: instances decoded along the line from the lowest ClassId to the highest, LeNetLike to ResNet32.

    python interpolate_multi_arch.py                           # photos
    python interpolate_multi_arch.py photos --setting missing  # two were seen
    python interpolate_multi_arch.py cifar10 --num-points 21

The figure shows the pair of median target accuracies. ClassIds, and accuracies at the gammas of the interpolation loss, are
also measured on all pairs of test instances of these two architectures. Needs train_multi_arch.py with the same setting.
Writes runs/<dataset>/<setting>/interpolate_multi_arch.{json,pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.folders import IMAGE_SETS
from data.images import Images
from data.nets import load_nets
from data.texts import write_json
from evaluation.metrics import accuracy_of, fraction_out_of_order, interpolate, median_index
from evaluation.plots import plot_line_of_architectures, save_figure
from evaluation.spaces import MultiConfig, Space, load_experiment
from models.errors import InputError
from training.constants import AtLeast2
from training.losses import interpolation_factors
from training.runtime import provenance


@dataclass(frozen=True)
class Config(MultiConfig):
    num_points: AtLeast2 = 100  # values of gamma from 0 to 1, ends included


PRESETS = {name: Config(name) for name in IMAGE_SETS}


def main(config: Config) -> dict[str, list[Any]]:
    images, space, test = load_experiment(config)
    names = space.nets.names
    low, high = (test.indices_of(end) for end in (0, len(names) - 1))
    if not low or not high:
        raise InputError(f"the test list has no {names[-1 if low else 0]}; make it with one, the line ends there")
    # Trained instances to compare with, of the unseen architectures too: the test instances of the multi setting.
    trained = load_nets(config.folders, images, "multi", "test", space.nets)
    trained_accuracy = accuracy_of(trained, images.test)
    embeddings = space.encode(test.rows)
    gamma = torch.linspace(0, 1, config.num_points, device=embeddings.device)
    stars = torch.tensor(interpolation_factors(len(names)), device=embeddings.device)

    target = accuracy_of(test, images.test)
    start, end = (indices[median_index(target[indices])] for indices in (low, high))
    class_ids, found = space.accuracy(interpolate(embeddings[start], embeddings[end], gamma), images.test)
    star_ids, star_found = space.accuracy(interpolate(embeddings[start], embeddings[end], stars), images.test)
    results = {"gamma": gamma.tolist(), "class_id": class_ids, "accuracy": found.tolist()}
    at_stars = {"gamma": stars.tolist(), "class_id": star_ids, "accuracy": star_found.tolist()}
    ends = {"from": test.paths[start].as_posix(), "to": test.paths[end].as_posix()}
    all_pairs = over_all_pairs(space, images.test, embeddings, [(i, j) for i in low for j in high], gamma, stars)
    for class_id, at in all_pairs["at_gamma"].items():
        at["trained_accuracy_mean"] = trained_accuracy[trained.indices_of(int(class_id))].mean().item()
    more = {"architectures": names, **ends, "stars": at_stars, "all_pairs": all_pairs}
    write_json(config.run_dir / "interpolate_multi_arch.json", {**results, **more, **provenance(config)})

    arrays = [np.array(values) for values in (*results.values(), *at_stars.values())]
    title = f"{images.name}, {config.setting}"
    figure = plot_line_of_architectures(*arrays, names, 100 / images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "interpolate_multi_arch")
    print(
        f"median pair: {100 * fraction_out_of_order(class_ids):.1f} % of {len(gamma)} points out of order; "
        f"all {all_pairs['pairs']} pairs: {100 * all_pairs['out_of_order_mean']:.1f} %, "
        f"and every architecture appears on {100 * all_pairs['all_appear']:.0f} % of the lines"
    )
    for class_id, at in all_pairs["at_gamma"].items():
        print(
            f"{names[int(class_id)]} at gamma {at['gamma']:.2f}: decoded from {100 * at['right_class_ids']:.0f} % of the pairs, "
            f"{at['accuracy_mean']:.1f} %, trained ones have {at['trained_accuracy_mean']:.1f} %"
        )
    print(f"{png}, {pdf}")
    return results


def over_all_pairs(
    space: Space, images: Images, embeddings: Tensor, pairs: list[tuple[int, int]], gamma: Tensor, stars: Tensor
) -> dict[str, Any]:
    """Measure the lines between pairs of indices into embeddings (N, E).

    At `gamma`: how often every architecture appears, and the points out of order. At each of `stars`, by desired ClassId: the
    accuracy of the decoded instances (mean and standard deviation), and how often the ClassId is the desired one.
    """
    lines = [interpolate(embeddings[i], embeddings[j], gamma) for i, j in pairs]
    class_ids = [space.class_ids(line) for line in lines]
    out_of_order = np.array([fraction_out_of_order(each) for each in class_ids])
    at_gamma = {}
    for class_id, star in enumerate(stars, start=1):
        points = torch.cat([interpolate(embeddings[i], embeddings[j], star[None]) for i, j in pairs])
        predicted_ids, found = space.accuracy(points, images)
        at_gamma[str(class_id)] = {
            "gamma": star.item(),
            "right_class_ids": float(np.mean([each == class_id for each in predicted_ids])),
            "accuracy_mean": found.mean().item(),
            "accuracy_std": found.std(correction=0).item(),
        }
    return {
        "pairs": len(pairs),
        "all_appear": float(np.mean([len(set(each)) == len(space.nets) for each in class_ids])),
        "out_of_order_mean": out_of_order.mean(),
        "out_of_order_std": out_of_order.std(),
        "at_gamma": at_gamma,
    }


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
