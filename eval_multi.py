"""Fig. 5 left: accuracy of target and predicted instances of several architectures, for test instances never seen.

    python eval_multi.py                           # photos
    python eval_multi.py photos --setting missing  # two were seen
    python eval_multi.py cifar10

Needs train_multi_arch.py with the same setting. Writes runs/<dataset>/<setting>/eval_multi.{json,pdf,png}."""

from training.command_line import run_script

from typing import Any

import numpy as np

from data.folders import IMAGE_SETS
from data.texts import write_json
from evaluation.metrics import accuracy_of
from evaluation.plots import plot_several_architectures, save_figure
from evaluation.spaces import MultiConfig, load_experiment
from training.runtime import provenance

PRESETS = {name: MultiConfig(name) for name in IMAGE_SETS}


def main(config: MultiConfig) -> dict[str, list[Any]]:
    images, space, test = load_experiment(config)
    predicted_ids, predicted = space.accuracy(space.encode(test.rows), images.test)
    results = {
        "target_class_id": list(test.class_ids),
        "predicted_class_id": predicted_ids,
        "target_accuracy": accuracy_of(test, images.test).tolist(),
        "predicted_accuracy": predicted.tolist(),
    }
    names = space.nets.names
    more = {"architectures": names, "instances": [path.as_posix() for path in test.paths]}
    write_json(config.run_dir / "eval_multi.json", {**results, **more, **provenance(config)})

    arrays = [np.array(values) for values in results.values()]
    title = f"{images.name}, {config.setting}"
    figure = plot_several_architectures(*arrays, names, 100 / images.num_classes, title)
    pdf, png = save_figure(figure, config.run_dir / "eval_multi")
    class_ids, _, targets, predictions = arrays
    for class_id in sorted(set(test.class_ids)):
        mine = class_ids == class_id
        print(f"{names[class_id]}: target {targets[mine].mean():.1f} %, predicted {predictions[mine].mean():.1f} %")
    right = sum(mine == theirs for mine, theirs in zip(predicted_ids, test.class_ids))
    print(f"ClassId right for {right} of {len(test)} test instances; {png}, {pdf}")
    return results


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
