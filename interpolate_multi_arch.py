"""Fig. 5 centre and right: instances decoded along the line from the lowest ClassId to the highest, LeNetLike to ResNet32.

    python interpolate_multi_arch.py                           # photos
    python interpolate_multi_arch.py photos --setting missing  # two were seen
    python interpolate_multi_arch.py cifar10 --num-points 21

The figure shows the pair of median target accuracies; ClassIds and accuracies at the interpolation loss's gammas are
also measured on all pairs of test instances of these two. Needs train_multi_arch.py with the same setting. Writes
runs/<dataset>/<setting>/interpolate_multi_arch.{json,pdf,png}."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import write_json
from data.nets import load_mixed_split
from evaluation.interpolation import interpolate, median_place, share_out_of_order
from evaluation.multi import MultiConfig, MultiExperiment, load_multi_experiment
from evaluation.plots import plot_line_of_architectures, save_figure
from models.errors import InputError
from training.command_line import run_script
from training.losses import interpolation_factors
from training.provenance import provenance


@dataclass(frozen=True)
class Config(MultiConfig):
    num_points: int = 100  # values of gamma from 0 to 1, ends included


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, list[Any]]:
    if config.num_points < 2:
        raise InputError(f"--num-points {config.num_points}: a line has two ends, give at least 2")
    experiment = load_multi_experiment(config)
    test, pool = experiment.test, experiment.pool
    low, high = (test.of_class_id(end) for end in (0, len(pool) - 1))
    if not low or not high:
        raise InputError(f"the test list has no {pool.names[-1 if low else 0]}; make it with one, the line ends there")
    # Trained instances to compare with, of the unseen architectures too: the test instances of the multi setting.
    trained = load_mixed_split(config.folders, experiment.images, "multi", "test", pool)
    trained_accuracy = experiment.target_accuracy(trained)
    embeddings = experiment.net_space.encode(test.preps)
    gamma = torch.linspace(0, 1, config.num_points, device=embeddings.device)
    stars = torch.tensor(interpolation_factors(len(pool)), device=embeddings.device)

    target = experiment.target_accuracy(test)
    start, end = (places[median_place(target[places])] for places in (low, high))
    class_ids, accuracy = experiment.predict(interpolate(embeddings[start], embeddings[end], gamma))
    star_ids, star_accuracy = experiment.predict(interpolate(embeddings[start], embeddings[end], stars))
    results = {"gamma": gamma.tolist(), "class_id": class_ids, "accuracy": accuracy.tolist()}
    at_stars = {"gamma": stars.tolist(), "class_id": star_ids, "accuracy": star_accuracy.tolist()}
    ends = {"from": test.paths[start].as_posix(), "to": test.paths[end].as_posix()}
    all_pairs = over_all_pairs(experiment, embeddings, [(i, j) for i in low for j in high], gamma, stars)
    for class_id, at in all_pairs["at_gamma"].items():
        mine = trained_accuracy[trained.of_class_id(int(class_id))]
        at["trained_accuracy_mean"] = mine.mean().item()
    write_json(
        config.run_dir / "interpolate_multi_arch.json",
        {
            **results,
            "architectures": pool.names,
            **ends,
            "stars": at_stars,
            "all_pairs": all_pairs,
            **provenance(config),
        },
    )

    arrays = [np.array(values) for values in (*results.values(), *at_stars.values())]
    title = f"{experiment.images.name}, {config.setting}"
    figure = plot_line_of_architectures(*arrays, pool.names, 100 / experiment.images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "interpolate_multi_arch")
    print(
        f"median pair: {100 * share_out_of_order(class_ids):.1f} % of {len(gamma)} points out of order; "
        f"all {all_pairs['pairs']} pairs: {100 * all_pairs['out_of_order_mean']:.1f} %, "
        f"and every architecture appears on {100 * all_pairs['all_appear']:.0f} % of the lines"
    )
    for class_id, at in all_pairs["at_gamma"].items():
        print(
            f"{pool.names[int(class_id)]} at gamma {at['gamma']:.2f}: comes out of {100 * at['right_class_ids']:.0f} % of the pairs, "
            f"{at['accuracy_mean']:.1f} %, trained ones have {at['trained_accuracy_mean']:.1f} %"
        )
    print(f"{png}, {pdf}")
    return results


def over_all_pairs(
    experiment: MultiExperiment, embeddings: Tensor, pairs: list[tuple[int, int]], gamma: Tensor, stars: Tensor
) -> dict[str, Any]:
    """What the line gives, mean and standard deviation over pairs of positions in `embeddings` (N, E).

    At `gamma`, how often every architecture appears, and points out of order; at each of `stars`, by wished ClassId, the
    accuracy of what comes out there and how often its ClassId is the wished one.
    """
    lines = [interpolate(embeddings[i], embeddings[j], gamma) for i, j in pairs]
    class_ids = [experiment.net_space.class_ids(line) for line in lines]
    out_of_order = np.array([share_out_of_order(each) for each in class_ids])
    summary = {
        "pairs": len(pairs),
        "all_appear": float(np.mean([len(set(each)) == len(experiment.pool) for each in class_ids])),
        "out_of_order_mean": out_of_order.mean(),
        "out_of_order_std": out_of_order.std(),
    }
    at_gamma = {}
    for class_id, star in enumerate(stars, start=1):
        points = torch.cat([interpolate(embeddings[i], embeddings[j], star[None]) for i, j in pairs])
        predicted_ids, accuracy = experiment.predict(points)
        at_gamma[str(class_id)] = {
            "gamma": star.item(),
            "right_class_ids": float(np.mean([each == class_id for each in predicted_ids])),
            "accuracy_mean": accuracy.mean().item(),
            "accuracy_std": accuracy.std(correction=0).item(),
        }
    return {**summary, "at_gamma": at_gamma}


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
