"""Run the demo with several seeds: python -m benchmarks.seeds [--seeds 0 1 2]

Each seed makes other instances, another split and another NetSpace, in runs/seeds/<seed>. Prints the demo's numbers with
mean and standard deviation. Run it again to resume."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from evaluation.summary import summary as summary_of

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = (
    ("create_nets_dataset_single.py", True),
    ("train_single_arch.py", True),
    ("eval_single.py", False),
    ("interpolate_single_arch.py", False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    summaries = []
    for seed in parser.parse_args().seeds:
        folder = ROOT / "runs" / "seeds" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        for script, seeded in SCRIPTS:
            subprocess.run(
                [sys.executable, ROOT / script, "photos", *(["--seed", str(seed)] if seeded else [])],
                cwd=folder,
                check=True,
            )
        summary = summary_of(folder / "runs" / "photos" / "single")
        summaries.append(summary)
        print(
            f"seed {seed}, {time.perf_counter() - start:.0f} s: "
            + ", ".join(f"{name} {value:.2f}" for name, value in summary.items()),
            flush=True,
        )
    print(f"\n| {len(summaries)} seeds | mean | standard deviation | worst | best |\n|---|---|---|---|---|")
    for name in summaries[0]:
        values = np.array([summary[name] for summary in summaries])
        print(f"| {name} | {values.mean():.2f} | {values.std():.2f} | {values.min():.2f} | {values.max():.2f} |")


if __name__ == "__main__":
    main()
