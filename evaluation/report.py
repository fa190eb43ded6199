"""What a run found, as JSON beside the figure, and as a table in the terminal."""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from models.errors import InputError


def read_results(path: Path, made_by: str) -> dict:
    if not path.is_file():
        raise InputError(f"no results {path}; make them with: {made_by}")
    return json.loads(path.read_text(encoding="utf-8"))


def single_summary(run_dir: Path) -> dict[str, float]:
    """The numbers of the single-architecture experiment (paper Fig. 3) from a run folder's JSON files."""
    made_by = "python {} " + run_dir.parent.name
    fidelity = read_results(run_dir / "eval_single.json", made_by.format("eval_single.py"))
    line = read_results(run_dir / "interpolate_single_arch.json", made_by.format("interpolate_single_arch.py"))
    target, predicted = np.array(fidelity["target_accuracy"]), np.array(fidelity["predicted_accuracy"])
    latent, weights = np.array(line["latent_accuracy"]), np.array(line["weight_accuracy"])
    return {
        "unseen test instances": len(target),
        "lowest target accuracy (%)": target.min(),
        "highest target accuracy (%)": target.max(),
        "correlation, predicted with target": np.corrcoef(target, predicted)[0, 1],
        "mean |target - predicted| (points)": np.abs(target - predicted).mean(),
        "latent interpolation, Spearman with gamma": spearmanr(line["gamma"], latent).statistic,
        "latent above weight interpolation, mean (points)": (latent - weights).mean(),
    }


def main(run_dir: Path) -> None:
    print(f"\nSingle-architecture NetSpace, {run_dir}")
    for name, value in single_summary(run_dir).items():
        print(f"  {name:<50}{value:>9}" if isinstance(value, int) else f"  {name:<50}{value:>9.2f}")
    print("\nFigures")
    for path in sorted(run_dir.glob("*.png")):
        print(f"  {path}  (and .pdf)")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/photos/single"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
