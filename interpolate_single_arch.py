"""Fig. 3b/3d: instances decoded along the line between two embeddings, beside instances of interpolated weights.

    python interpolate_single_arch.py             # photos
    python interpolate_single_arch.py cifar10 --num-points 21

The line in the figure runs from the weakest to the strongest test instance. One line says little, so the rank correlation of
accuracy with gamma is also measured on all pairs of the weakest and the strongest third of the test instances. Needs
train_single_arch.py. Writes runs/<dataset>/single/interpolate_single_arch.{json,pdf,png}."""

from training.command_line import run_script

from dataclasses import dataclass
from typing import Any

import torch

from data.folders import IMAGE_SETS
from data.texts import write_json
from evaluation.lines import over_pairs, pairs_of_ends
from evaluation.metrics import accuracy, accuracy_of, interpolate
from evaluation.plots import plot_interpolation, save_figure
from evaluation.spaces import SingleConfig, load_experiment
from training.constants import AtLeast2
from training.runtime import provenance


@dataclass(frozen=True)
class Config(SingleConfig):
    num_points: AtLeast2 = 11  # values of gamma from 0 to 1, ends included


PRESETS = {name: Config(name) for name in IMAGE_SETS}


def main(config: Config) -> dict[str, Any]:
    images, space, test = load_experiment(config)
    ranked = accuracy_of(test, images.test).argsort().tolist()
    weakest, strongest = ranked[0], ranked[-1]
    gamma = torch.linspace(0, 1, config.num_points, device=test.rows.device)
    embeddings = space.encode(test.rows)
    _, latent = space.accuracy(interpolate(embeddings[weakest], embeddings[strongest], gamma), images.test)
    weights = accuracy(test.nets[0], interpolate(test.rows[weakest], test.rows[strongest], gamma), images.test)
    results = {"gamma": gamma.tolist(), "latent_accuracy": latent.tolist(), "weight_accuracy": weights.tolist()}
    ends = {"from": test.paths[weakest].as_posix(), "to": test.paths[strongest].as_posix()}
    pairs = pairs_of_ends(ranked, max(1, len(test) // 3))
    all_pairs = over_pairs(space, test, images.test, embeddings, pairs, gamma)
    results_all = {**results, **ends, "all_pairs": all_pairs, **provenance(config)}
    write_json(config.run_dir / "interpolate_single_arch.json", results_all)

    title = f"{config.architecture} on {images.name}"
    figure = plot_interpolation(gamma.cpu().numpy(), latent.numpy(), weights.numpy(), 100 / images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "interpolate_single_arch")
    print(f"mean accuracy on the line: {latent.mean():.1f} % from embeddings, {weights.mean():.1f} % from weights")
    if all_pairs["rank_correlation_mean"] is not None:
        mean, std = all_pairs["rank_correlation_mean"], all_pairs["rank_correlation_std"]
        behind = all_pairs["end_below_strongest_mean"]
        print(
            f"{len(pairs)} pairs: rank correlation with gamma {mean:.3f} ± {std:.3f}, end {behind:.2f} points below its target"
        )
    print(f"{png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
