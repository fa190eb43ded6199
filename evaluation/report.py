"""What a run found, as JSON beside the figure, and as a table in the terminal."""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from data.files import read_json
from data.load import command
from evaluation.interpolation import share_out_of_order
from models.errors import InputError


def read_results(path: Path, made_by: str) -> dict:
    if not path.is_file():
        raise InputError(f"no results {path}; make them with: {made_by}")
    return read_json(path, f"make it again with: {made_by}")


def single_summary(run_dir: Path) -> dict[str, float]:
    """The numbers of the single-architecture experiment (paper Fig. 3) from a run folder's JSON files."""
    fidelity, line = (
        read_results(run_dir / f"{name}.json", command(f"{name}.py", run_dir.parent.name))
        for name in ("eval_single", "interpolate_single_arch")
    )
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


def multi_summary(run_dir: Path) -> dict[str, float]:
    """The numbers of an experiment with several architectures (paper Fig. 5), like single_summary."""
    fidelity, line = (
        read_results(run_dir / f"{name}.json", f"{command(f'{name}.py', run_dir.parent.name)} --setting {run_dir.name}")
        for name in ("eval_multi", "interpolate_multi_arch")
    )
    names, pairs = fidelity["architectures"], line["all_pairs"]
    class_ids, predicted_ids = (np.array(fidelity[f"{which}_class_id"]) for which in ("target", "predicted"))
    target, predicted = (np.array(fidelity[f"{which}_accuracy"]) for which in ("target", "predicted"))
    summary = {
        "unseen test instances": len(target),
        "ClassId right (%)": 100 * (class_ids == predicted_ids).mean(),
    }
    for class_id in np.unique(class_ids):
        mine = class_ids == class_id
        summary[f"{names[class_id]}: mean target accuracy (%)"] = target[mine].mean()
        summary[f"{names[class_id]}: mean predicted accuracy (%)"] = predicted[mine].mean()
    summary["points out of order, median pair (%)"] = 100 * share_out_of_order(line["class_id"])
    summary[f"every architecture appears, {pairs['pairs']} pairs (%)"] = 100 * pairs["all_appear"]
    summary[f"points out of order, {pairs['pairs']} pairs (%)"] = 100 * pairs["out_of_order_mean"]
    for class_id, at in pairs["at_gamma"].items():
        where = f"{names[int(class_id)]} at gamma {at['gamma']:.2f}"
        summary[f"{where}: ClassId right (%)"] = 100 * at["right_class_ids"]
        summary[f"{where}: mean accuracy (%)"] = at["accuracy_mean"]
        summary[f"{where}: trained ones have (%)"] = at["trained_accuracy_mean"]
    return summary


def latspace_single_summary(results: dict) -> dict[str, float]:
    """Table I, single, from eval_latspace_single.json."""
    return {f"{name}, test accuracy (%)": results[f"{name}_accuracy"] for name in ("initial", "optimized", "teacher")}


def latspace_multi_summary(results: dict) -> dict[str, float]:
    """Table I, several architectures, from eval_latspace_multi.json."""
    class_ids = np.array(results["class_id"])
    summary = {"ClassId as wished (%)": 100 * (class_ids == np.array(results["predicted_class_id"])).mean()}
    for class_id in np.unique(class_ids):
        for name in ("initial", "optimized"):
            accuracy = np.array(results[f"{name}_accuracy"])[class_ids == class_id].mean()
            summary[f"{results['architectures'][class_id]}, {name}: test accuracy (%)"] = accuracy
    return summary


def mlps_summary(run_dir: Path) -> dict[str, float]:
    """The numbers of the experiment with signed distance functions (paper Fig. 4), like single_summary."""
    made_by = f"python {{}}, with the preset or --dataset of {run_dir.parent.name}"
    fits, training, lines = (
        read_results(run_dir / f"{name}.json", made_by.format(f"{name}.py"))
        for name in ("create_mlp_dataset", "train_mlps", "interpolate_mlps")
    )
    fits = fits["fits"]
    summary = {"SIRENs": len(fits)}
    for name, what in (
        ("closeness", "closeness to the true distance"),
        ("chamfer", "Chamfer distance to the true mesh"),
    ):
        values = [fit[name] for fit in fits.values() if name in fit]
        if values:
            summary[f"fits: {what}, median"] = float(np.median(values))
    for split, what in (("train", "training"), ("test", "held-out")):
        values = training["closeness"][split]
        summary[f"predicted: closeness to {len(values)} {what} SIRENs, mean"] = float(np.mean(values))
    for space, found in lines["summary"].items():
        summary[f"{space}: empty meshes"] = found["empty"]
        summary[f"{space}: pieces, mean"] = found["pieces"]
        for which in ("start", "end"):
            if found[which] is not None:
                summary[f"{space}: Spearman of gamma with distance to the {which}"] = found[which]
    return summary


def print_summary(title: str, summary: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, value in summary.items():
        print(f"  {name:<56}{value:>9}" if isinstance(value, int) else f"  {name:<56}{value:>9.2f}")


def main(run_dir: Path) -> None:
    if run_dir.name == "single":
        print_summary(f"Single-architecture NetSpace, {run_dir}", single_summary(run_dir))
    elif run_dir.name == "mlps":
        print_summary(f"NetSpace of signed distance functions, {run_dir}", mlps_summary(run_dir))
    else:
        which = "all architectures" if run_dir.name == "multi" else "unseen architectures"
        print_summary(f"Multi-architecture NetSpace, {which}, {run_dir}", multi_summary(run_dir))
    for kind, summarize in (("single", latspace_single_summary), ("multi", latspace_multi_summary)):
        path = run_dir / f"eval_latspace_{kind}.json"
        if path.is_file():
            print_summary(f"Latent space optimization, {run_dir}", summarize(read_results(path, "")))
    print("\nFigures")
    for path in sorted(run_dir.glob("*.png")):
        print(f"  {path}  (and .pdf)")


if __name__ == "__main__":
    try:
        for name in sys.argv[1:] or ["runs/photos/single"]:
            main(Path(name))
    except KeyError as error:
        print(f"error: the results in {name} have no {error}; make them again", file=sys.stderr)
        raise SystemExit(2) from None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
