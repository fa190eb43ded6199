"""S Fig. 5: the PReps of a target and of its predicted instance as images.

    python visualize_prep.py                       # photos, the strongest test instance
    python visualize_prep.py cifar10 --instance 3  # line 4 of test.txt

Needs train_single_arch.py. Writes runs/<dataset>/single/visualize_prep.{pdf,png}. Takes 5 seconds on photos, 2 CPU cores."""

from dataclasses import dataclass

from evaluation.plots import plot_preps, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from models.prep import pack
from training.command_line import run_script


@dataclass(frozen=True)
class Config(EvaluationConfig):
    instance: int | None = None  # position in test.txt, from 0; the most accurate on test images unless given


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: Config) -> None:
    experiment = load_experiment(config)
    test = experiment.test
    index = experiment.test_accuracy(test.rows).argmax().item() if config.instance is None else config.instance
    if index >= len(test):
        raise InputError(f"--instance {index}: test.txt holds {len(test)} instances, give 0 to {len(test) - 1}")
    target = test.rows[[index]]
    predicted = experiment.decode(experiment.encode(target))
    target_prep, predicted_prep = (
        pack(rows, experiment.prep_shape)[0, 0].cpu().numpy() for rows in (target, predicted)
    )
    figure = plot_preps(
        target_prep, predicted_prep, f"{config.architecture} on {experiment.images.name}, {test.paths[index].stem}"
    )
    pdf, png = save_figure(figure, config.run_dir / "visualize_prep")
    print(f"target and predicted PRep of {test.paths[index]}; {png}, {pdf}")


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
