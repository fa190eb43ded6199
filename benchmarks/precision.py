"""What bfloat16 costs in accuracy: NetSpace on photos, trained in float32 and in bfloat16, otherwise alike.

    python -m benchmarks.precision   # 2,058 steps each; on a CPU without bfloat16 arithmetic the second takes longer

Prints the mean accuracy of predicted test instances and its distance to the targets'; everything is in
runs/benchmarks/precision. Run again to resume."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import create_nets_dataset_single
import eval_single
import train_single_arch
from data.folders import Folders
from training.runtime import prepare_process

ROOT = Path("runs/benchmarks/precision")
NUM_STEPS = 2058


def main() -> None:
    prepare_process()
    shared = Folders(lists_dir=ROOT / "lists", runs_dir=ROOT)
    create_nets_dataset_single.main(replace(create_nets_dataset_single.PRESETS["photos"], folders=shared))
    print("\n| precision | predicted accuracy, % | mean abs(target - predicted), points |\n|---|---|---|")
    for precision in ("float32", "bfloat16"):
        folders = replace(shared, runs_dir=ROOT / precision)
        config = train_single_arch.PRESETS["photos"]
        optim = replace(config.optim, num_steps=NUM_STEPS, precision=precision)
        train_single_arch.main(replace(config, optim=optim, folders=folders))
        found = eval_single.main(replace(eval_single.PRESETS["photos"], folders=folders))
        target, predicted = (np.array(found[f"{name}_accuracy"]) for name in ("target", "predicted"))
        print(f"| {precision} | {predicted.mean():.2f} | {np.abs(target - predicted).mean():.2f} |", flush=True)


if __name__ == "__main__":
    main()
