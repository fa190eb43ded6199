"""Table I, "Single-Architecture": test accuracy before and after latent space optimization, and its accuracy curve.

    python eval_latspace_single.py             # photos
    python eval_latspace_single.py cifar10

Initial is the instance decoded from the embedding of a test instance, optimized the one decoded from the best embedding on
validation images; test images are looked at here alone. Needs train_latspace_single.py. Writes
runs/<dataset>/single/eval_latspace_single.{json,md,pdf,png}."""

from data.files import write_json, write_text
from data.load import command
from data.nets import load_teacher
from evaluation.accuracy import accuracy
from evaluation.latspace import load_search, markdown_table, read_curve
from evaluation.plots import PREDICTED, plot_search, save_figure
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from training.command_line import run_script
from training.provenance import provenance

PRESETS = {name: EvaluationConfig(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: EvaluationConfig) -> dict[str, float]:
    experiment = load_experiment(config)
    test = experiment.test
    teacher, teacher_row = load_teacher(config.folders, experiment.images)
    search = load_search(config.run_dir, command("train_latspace_single.py", config.dataset))
    curve = {config.architecture: read_curve(config.run_dir, "val_accuracy")}
    (instance,) = search["constants"]["instances"]
    paths = [path.as_posix() for path in test.paths]
    if instance not in paths:
        raise InputError(f"{instance}, which was optimized, is not in test.txt; run train_latspace_single.py again")
    initial, optimized = (
        experiment.test_accuracy(experiment.decode(search[name].to(test.rows.device))).item()
        for name in ("initial", "best")
    )
    results = {
        "target_accuracy": experiment.test_accuracy(test.rows[[paths.index(instance)]]).item(),
        "initial_accuracy": initial,
        "optimized_accuracy": optimized,
        "teacher_accuracy": accuracy(teacher, teacher_row, experiment.images.test).item(),
    }
    more = {"instance": instance, "steps": search["step"], **provenance(config)}
    write_json(config.run_dir / "eval_latspace_single.json", {**results, **more})
    rows = {name.removesuffix("_accuracy"): [value] for name, value in results.items()}
    table = markdown_table([config.architecture], rows)
    write_text(config.run_dir / "eval_latspace_single.md", table)

    figure = plot_search(curve, [PREDICTED], f"{config.architecture} on {experiment.images.name}")
    pdf, png = save_figure(figure, config.run_dir / "eval_latspace_single")
    print(f"{table}{png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
