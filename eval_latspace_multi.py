"""Table I, "Multi-Architecture": test accuracy before and after latent space optimization, and its accuracy curves.

    python eval_latspace_multi.py             # photos
    python eval_latspace_multi.py cifar10

Initial is the instance decoded from the embedding of a test instance, optimized the one decoded from the best embedding on
validation images, each of the architecture that the classifier predicts; test images are looked at here alone. The table
has means over the instances of an architecture. Needs train_latspace_multi.py with the same setting. Writes
runs/<dataset>/<setting>/eval_latspace_multi.{json,md,pdf,png}."""

from typing import Any

import numpy as np

from data.files import write_json, write_text
from data.load import command
from evaluation.latspace import load_search, markdown_table, read_curve
from evaluation.multi import MultiConfig, load_multi_experiment
from evaluation.plots import color_of, plot_search, save_figure
from models.errors import InputError
from training.command_line import run_script
from training.provenance import provenance

PRESETS = {name: MultiConfig(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}


def main(config: MultiConfig) -> dict[str, list[Any]]:
    experiment = load_multi_experiment(config)
    test, names, device = experiment.test, experiment.pool.names, experiment.test.preps.device
    made_by = f"{command('train_latspace_multi.py', config.dataset)} --setting {config.setting}"
    search = load_search(config.run_dir, made_by)
    instances, wished = (search["constants"][name] for name in ("instances", "class_ids"))
    paths = [path.as_posix() for path in test.paths]
    if not set(instances) <= set(paths):
        raise InputError("an instance that was optimized is not in test.txt; run train_latspace_multi.py again")
    class_ids = sorted(set(wished))
    curves = {names[i]: read_curve(config.run_dir, f"val_accuracy_{names[i]}") for i in class_ids}
    _, initial = experiment.predict(search["initial"].to(device))
    predicted_ids, optimized = experiment.predict(search["best"].to(device))
    target = experiment.target_accuracy(test)[[paths.index(path) for path in instances]]
    results = {
        "class_id": wished,
        "predicted_class_id": predicted_ids,
        "initial_accuracy": initial.tolist(),
        "optimized_accuracy": optimized.tolist(),
    }
    more = {"target_accuracy": target.tolist(), "architectures": names, "instances": instances, "steps": search["step"]}
    write_json(config.run_dir / "eval_latspace_multi.json", {**results, **more, **provenance(config)})

    rows = {
        name: [values[np.array(wished) == class_id].mean().item() for class_id in class_ids]
        for name, values in (("target", target), ("initial", initial), ("optimized", optimized))
    }
    table = markdown_table([names[class_id] for class_id in class_ids], rows)
    write_text(config.run_dir / "eval_latspace_multi.md", table)
    title = f"{experiment.images.name}, {config.setting}"
    figure = plot_search(curves, [color_of(class_id) for class_id in class_ids], title)
    pdf, png = save_figure(figure, config.run_dir / "eval_latspace_multi")
    right = sum(mine == theirs for mine, theirs in zip(predicted_ids, wished))
    print(f"{table}ClassId as wished for {right} of {len(wished)}; {png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
