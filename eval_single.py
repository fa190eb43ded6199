"""Fig. 3a/3c: accuracy of target and predicted instances on test images, for test instances that NetSpace never saw.

    python eval_single.py             # photos
    python eval_single.py cifar10

Needs train_single_arch.py. Writes runs/<dataset>/single/eval_single.{json,pdf,png}."""

from training.command_line import run_script

from data.folders import IMAGE_SETS
from data.texts import write_json
from evaluation.metrics import accuracy_of, correlation
from evaluation.plots import plot_targets_and_predicted, save_figure
from evaluation.spaces import SingleConfig, load_experiment
from training.runtime import provenance

PRESETS = {name: SingleConfig(name) for name in IMAGE_SETS}


def main(config: SingleConfig) -> dict[str, list[float]]:
    images, space, test = load_experiment(config)
    target = accuracy_of(test, images.test)
    _, predicted = space.accuracy(space.encode(test.rows), images.test)
    results = {"target_accuracy": target.tolist(), "predicted_accuracy": predicted.tolist()}
    names = [path.as_posix() for path in test.paths]
    write_json(config.run_dir / "eval_single.json", {**results, "instances": names, **provenance(config)})

    title = f"{config.architecture} on {images.name}"
    figure = plot_targets_and_predicted(target.numpy(), predicted.numpy(), 100 / images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "eval_single")
    error = (target - predicted).abs().mean()
    r = correlation(*results.values())
    known = "" if r is None else f", correlation {r:.3f}"
    print(f"{len(test)} test instances: mean |target - predicted| {error:.2f} points{known}; {png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
