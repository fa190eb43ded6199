"""Fig. 3b/3d: instances decoded along the line between two embeddings, beside instances of interpolated weights.

    python interpolate_single_arch.py             # photos
    python interpolate_single_arch.py cifar10 --num-points 21

The line runs from the weakest to the strongest test instance. Needs train_single_arch.py. Writes
runs/<dataset>/single/interpolate_single_arch.{json,pdf,png}. Takes 5 seconds on photos, 2 CPU cores."""

from dataclasses import dataclass

import torch

from data.files import write_json
from evaluation.interpolation import interpolate
from evaluation.plots import plot_interpolation, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from training.command_line import run_script
from training.provenance import provenance


@dataclass(frozen=True)
class Config(EvaluationConfig):
    num_points: int = 11  # values of gamma from 0 to 1, ends included


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> dict[str, list[float]]:
    if config.num_points < 2:
        raise InputError(f"--num-points {config.num_points}: a line has two ends, give at least 2")
    experiment = load_experiment(config)
    rows = experiment.test.rows
    target_accuracy = experiment.test_accuracy(rows)
    weakest, strongest = target_accuracy.argmin().item(), target_accuracy.argmax().item()
    gamma = torch.linspace(0, 1, config.num_points, device=rows.device)
    embeddings = experiment.encode(rows[[weakest, strongest]])
    latent = experiment.test_accuracy(experiment.decode(interpolate(embeddings[0], embeddings[1], gamma)))
    weights = experiment.test_accuracy(interpolate(rows[weakest], rows[strongest], gamma))
    results = {"gamma": gamma.tolist(), "latent_accuracy": latent.tolist(), "weight_accuracy": weights.tolist()}
    ends = {"from": experiment.test.paths[weakest].as_posix(), "to": experiment.test.paths[strongest].as_posix()}
    write_json(config.run_dir / "interpolate_single_arch.json", {**results, **ends, **provenance(config)})

    title = f"{config.architecture} on {experiment.images.name}"
    figure = plot_interpolation(
        gamma.cpu().numpy(), latent.numpy(), weights.numpy(), 100 / experiment.images.num_classes, title
    )
    pdf, png = save_figure(figure, config.run_dir / "interpolate_single_arch")
    print(
        f"mean accuracy on the line: {latent.mean():.1f} % from embeddings, {weights.mean():.1f} % from weights; {png}, {pdf}"
    )
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
