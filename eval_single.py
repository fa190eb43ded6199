"""Fig. 3a/3c: accuracy of target and predicted instances on test images, for test instances that NetSpace never saw.

    python eval_single.py             # photos
    python eval_single.py cifar10

Needs train_single_arch.py. Writes runs/<dataset>/single/eval_single.{json,pdf,png}. Takes 5 seconds on photos, 2 CPU cores."""

import numpy as np

from data.files import write_json
from evaluation.correlation import correlation
from evaluation.plots import plot_targets_and_predicted, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from training.command_line import run_script
from training.provenance import provenance

PRESETS = {name: EvaluationConfig(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: EvaluationConfig) -> dict[str, list[float]]:
    experiment = load_experiment(config)
    target = experiment.test.rows
    predicted = experiment.decode(experiment.encode(target))
    results = {
        "target_accuracy": experiment.test_accuracy(target).tolist(),
        "predicted_accuracy": experiment.test_accuracy(predicted).tolist(),
    }
    write_json(
        config.run_dir / "eval_single.json",
        {**results, "instances": [path.as_posix() for path in experiment.test.paths], **provenance(config)},
    )

    targets, predictions = (np.array(accuracies) for accuracies in results.values())
    title = f"{config.architecture} on {experiment.images.name}"
    figure = plot_targets_and_predicted(targets, predictions, 100 / experiment.images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "eval_single")
    r = correlation(targets, predictions)
    told = "" if r is None else f", correlation {r:.3f}"
    print(
        f"{len(targets)} test instances: mean |target - predicted| {np.abs(targets - predictions).mean():.2f} points{told}; {png}, {pdf}"
    )
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
