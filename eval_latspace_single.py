"""Table I, "Single-Architecture": test accuracy before and after latent space optimization, and its accuracy curve.

    python eval_latspace_single.py             # photos
    python eval_latspace_single.py cifar10

Initial is the instance decoded from the embedding of a test instance, optimized the one decoded from the embedding that was
best on validation images; only this script uses test images. Needs train_latspace_single.py. Writes
runs/<dataset>/single/eval_latspace_single.{json,md,pdf,png}."""

from training.command_line import run_script

from data.files import write_text
from data.folders import IMAGE_SETS, command
from data.nets import load_teacher
from data.texts import write_json
from evaluation.metrics import accuracy_of
from evaluation.plots import PREDICTED, plot_search, save_figure
from evaluation.spaces import SingleConfig, load_experiment
from evaluation.summary import load_search, markdown_table, read_curve
from models.errors import InputError
from training.runtime import provenance

PRESETS = {name: SingleConfig(name) for name in IMAGE_SETS}


def main(config: SingleConfig) -> dict[str, float]:
    images, space, test = load_experiment(config)
    teacher = load_teacher(config.folders, images)
    search = load_search(config.run_dir, command("train_latspace_single.py", config.dataset))
    curve = {config.architecture: read_curve(config.run_dir, "val_accuracy")}
    (instance,) = search["instances"]
    index = test.index_of(instance)
    if index is None:
        raise InputError(f"{instance}, which was optimized, is not in test.txt; run train_latspace_single.py again")
    _, initial = space.accuracy(space.as_batch(search["initial"])[0], images.test)
    _, optimized = space.accuracy(space.as_batch(search["best"])[0], images.test)
    results = {
        "target_accuracy": accuracy_of(test[[index]], images.test).item(),
        "initial_accuracy": initial.item(),
        "optimized_accuracy": optimized.item(),
        "teacher_accuracy": accuracy_of(teacher, images.test).item(),
    }
    more = {"instance": instance, "steps": search["step"], **provenance(config)}
    write_json(config.run_dir / "eval_latspace_single.json", {**results, **more})
    table = markdown_table([config.architecture], {name.removesuffix("_accuracy"): [x] for name, x in results.items()})
    write_text(config.run_dir / "eval_latspace_single.md", table)

    figure = plot_search(curve, [PREDICTED], f"{config.architecture} on {images.name}")
    pdf, png = save_figure(figure, config.run_dir / "eval_latspace_single")
    print(f"{table}{png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
