"""Table I, "Multi-Architecture": test accuracy before and after latent space optimization, and its accuracy curves.

    python eval_latspace_multi.py             # photos
    python eval_latspace_multi.py cifar10

Initial is the instance decoded from the embedding of a test instance, optimized the one decoded from the embedding that was
best on validation images, each with the architecture that the classifier predicts; only this script uses test images. The
table has means over the instances of an architecture. Needs train_latspace_multi.py with the same setting. Writes
runs/<dataset>/<setting>/eval_latspace_multi.{json,md,pdf,png}."""

from training.command_line import run_script

from typing import Any

import numpy as np

from data.files import write_text
from data.folders import IMAGE_SETS, command
from data.texts import write_json
from evaluation.metrics import accuracy_of
from evaluation.plots import color_of, plot_search, save_figure
from evaluation.spaces import MultiConfig, load_experiment
from evaluation.summary import load_search, markdown_table, read_curve
from models.errors import InputError
from training.runtime import provenance

PRESETS = {name: MultiConfig(name) for name in IMAGE_SETS}


def main(config: MultiConfig) -> dict[str, list[Any]]:
    images, space, test = load_experiment(config)
    names = space.nets.names
    made_by = command("train_latspace_multi.py", config.dataset, f"--setting {config.setting}")
    search = load_search(config.run_dir, made_by, several=True)
    instances, desired = search["instances"], search["class_ids"]
    indices = [test.index_of(instance) for instance in instances]
    if None in indices:
        raise InputError(f"an instance that was optimized is not in test.txt; run again: {made_by}")
    class_ids = sorted(set(desired))
    curves = {names[i]: read_curve(config.run_dir, f"val_accuracy_{names[i]}") for i in class_ids}
    _, initial = space.accuracy(space.as_batch(search["initial"])[0], images.test)
    predicted_ids, optimized = space.accuracy(space.as_batch(search["best"])[0], images.test)
    target = accuracy_of(test[indices], images.test)
    results = {
        "class_id": desired,
        "predicted_class_id": predicted_ids,
        "initial_accuracy": initial.tolist(),
        "optimized_accuracy": optimized.tolist(),
    }
    more = {"target_accuracy": target.tolist(), "architectures": names, "instances": instances, "steps": search["step"]}
    write_json(config.run_dir / "eval_latspace_multi.json", {**results, **more, **provenance(config)})

    rows = {
        name: [values[np.array(desired) == class_id].mean().item() for class_id in class_ids]
        for name, values in (("target", target), ("initial", initial), ("optimized", optimized))
    }
    table = markdown_table([names[class_id] for class_id in class_ids], rows)
    write_text(config.run_dir / "eval_latspace_multi.md", table)
    title = f"{images.name}, {config.setting}"
    figure = plot_search(curves, [color_of(class_id) for class_id in class_ids], title)
    pdf, png = save_figure(figure, config.run_dir / "eval_latspace_multi")
    right = sum(mine == theirs for mine, theirs in zip(predicted_ids, desired))
    print(f"{table}the desired ClassId for {right} of {len(desired)}; {png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
