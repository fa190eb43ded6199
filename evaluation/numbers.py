"""The numbers of each result, by what they are called: of the JSON files of a run folder, as evaluation.results checks them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics import correlation, fraction_out_of_order

# Of the cells of compare_systems.json, in the summary
ACROSS = {"agreement": "same class as the target (%)", "accuracy_error": "error of accuracy (points)"}
Numbers = dict[str, float | None]  # None where a number is not defined
# Representations in the summary
PROBED = ("weight_statistics", "netspace", "sane_mean", "sane_layers", "sane_sequence")


def single_fidelity(results: dict[str, Any]) -> Numbers:
    """Return the numbers of eval_single.json."""
    target, predicted = np.array(results["target_accuracy"]), np.array(results["predicted_accuracy"])
    return {
        "unseen test instances": len(target),
        "lowest target accuracy (%)": target.min(),
        "highest target accuracy (%)": target.max(),
        "correlation, predicted with target": correlation(target, predicted),
        "mean |target - predicted| (points)": np.abs(target - predicted).mean(),
    }


def single_line(results: dict[str, Any]) -> Numbers:
    """Return the numbers of interpolate_single_arch.json."""
    latent, weights = np.array(results["latent_accuracy"]), np.array(results["weight_accuracy"])
    pairs = results["all_pairs"]
    return {
        "latent interpolation, Spearman with gamma": correlation(results["gamma"], latent, ranks=True),
        "latent above weight interpolation, mean (points)": (latent - weights).mean(),
        f"Spearman with gamma, mean of {pairs['pairs']} pairs": pairs["rank_correlation_mean"],
        f"standard deviation over {pairs['pairs']} pairs": pairs["rank_correlation_std"],
        f"latent above weights, mean of {pairs['pairs']} pairs (points)": pairs["latent_above_weights_mean"],
        f"decoded end below the stronger target, {pairs['pairs']} pairs (points)": pairs["end_below_strongest_mean"],
    }


def single_search(results: dict[str, Any]) -> Numbers:
    """Return the numbers of eval_latspace_single.json."""
    return {f"{name}, test accuracy (%)": results[f"{name}_accuracy"] for name in ("initial", "optimized", "teacher")}


def multi_fidelity(results: dict[str, Any]) -> Numbers:
    """Return the numbers of eval_multi.json."""
    class_ids, predicted_ids = (np.array(results[f"{which}_class_id"]) for which in ("target", "predicted"))
    target, predicted = (np.array(results[f"{which}_accuracy"]) for which in ("target", "predicted"))
    numbers = {
        "unseen test instances": len(target),
        "ClassId right (%)": 100 * (class_ids == predicted_ids).mean(),
    }
    for class_id in np.unique(class_ids):
        name, mine = results["architectures"][class_id], class_ids == class_id
        numbers[f"{name}: mean target accuracy (%)"] = target[mine].mean()
        numbers[f"{name}: mean predicted accuracy (%)"] = predicted[mine].mean()
    return numbers


def multi_line(results: dict[str, Any]) -> Numbers:
    """Return the numbers of interpolate_multi_arch.json."""
    names, pairs = results["architectures"], results["all_pairs"]
    numbers = {
        "points out of order, median pair (%)": 100 * fraction_out_of_order(results["class_id"]),
        f"every architecture appears, {pairs['pairs']} pairs (%)": 100 * pairs["all_appear"],
        f"points out of order, {pairs['pairs']} pairs (%)": 100 * pairs["out_of_order_mean"],
    }
    for class_id, at in pairs["at_gamma"].items():
        where = f"{names[int(class_id)]} at gamma {at['gamma']:.2f}"
        numbers[f"{where}: ClassId right (%)"] = 100 * at["right_class_ids"]
        numbers[f"{where}: mean accuracy (%)"] = at["accuracy_mean"]
        numbers[f"{where}: trained ones have (%)"] = at["trained_accuracy_mean"]
    return numbers


def multi_search(results: dict[str, Any]) -> Numbers:
    """Return the numbers of eval_latspace_multi.json."""
    class_ids = np.array(results["class_id"])
    numbers = {"ClassId as desired (%)": 100 * (class_ids == np.array(results["predicted_class_id"])).mean()}
    for class_id in np.unique(class_ids):
        for name in ("initial", "optimized"):
            accuracy = np.array(results[f"{name}_accuracy"])[class_ids == class_id].mean()
            numbers[f"{results['architectures'][class_id]}, {name}: test accuracy (%)"] = accuracy
    return numbers


def shape_fits(results: dict[str, Any]) -> Numbers:
    """Return the numbers of create_mlp_dataset.json."""
    numbers: Numbers = {"SIRENs": len(results["fits"])}
    kinds = {"closeness": "closeness to the true distance", "chamfer": "Chamfer distance to the true mesh"}
    for kind, what in kinds.items():
        values = [fit[kind] for fit in results["fits"].values() if kind in fit]
        if values:
            numbers[f"{what}, median"] = float(np.median(values))
    return numbers


def shape_closeness(results: dict[str, Any]) -> Numbers:
    """Return the numbers of train_mlps.json."""
    numbers: Numbers = {}
    for split, what in (("train", "training"), ("val", "validation"), ("test", "held-out")):
        if split in results["closeness"]:
            values = results["closeness"][split]
            numbers[f"{what} SIRENs"] = len(values)
            numbers[f"closeness to {what} SIRENs, mean"] = float(np.mean(values))
        if split in results.get("relative_error", {}):
            numbers[f"squared error relative to the variance, {what} SIRENs, mean"] = float(
                np.mean(results["relative_error"][split])
            )
    return numbers


def shape_neighbours(results: dict[str, Any]) -> Numbers:
    """Return the numbers of retrieve_mlps.json."""
    kinds = {"embedding": "embedding", "weights": "parameters"}
    near, found = results["near"], results["among_nearest"]
    numbers: Numbers = {
        f"nearest by {what}: among the {near} nearest shapes": found[kind] for kind, what in kinds.items()
    }
    return {**numbers, f"any training shape: among the {near} nearest": results["chance"]}


def shape_lines(results: dict[str, Any]) -> Numbers:
    """Return the numbers of interpolate_mlps.json."""
    numbers: Numbers = {}
    for space, found in results["summary"].items():
        numbers[f"{space}: empty meshes"] = found["empty"]
        numbers[f"{space}: pieces, mean"] = found["pieces"]
        for which in ("start", "end"):
            if found[which] is not None:
                numbers[f"{space}: Spearman of gamma with distance to the {which}"] = found[which]
    return numbers


def probe_scores(results: dict[str, Any]) -> Numbers:
    """Return the numbers of predict_properties.json: s(W) first, then learned embeddings."""
    properties = {name: scores for name, scores in results["properties"].items() if not name.startswith("recall_")}
    counts = [score["n"] for scores in properties.values() for score in scores.values()]
    numbers: Numbers = {"unseen test instances": max(counts)} if counts else {}
    for name, scores in properties.items():
        shown = {each: scores[each]["r2"] for each in PROBED if each in scores}
        numbers |= {f"{spaced(name)}: R² from {spaced(each)}": value for each, value in shown.items()}
    return numbers


def spaced(name: str) -> str:
    """Return a name of a result as tables and pages show it."""
    return name.replace("_", " ")


def fine_tuned(results: dict[str, Any]) -> Numbers:
    """Return the numbers of sample_finetune.json: accuracy at the first and the last epoch, and novelty at the first."""
    numbers: Numbers = {}
    for which in (0, -1):
        for name, found in results["methods"].items():
            numbers[f"{name}: test accuracy at epoch {found['epochs'][which]} (%)"] = found["accuracy_mean"][which]
    novelty = {name: found["novelty"] for name, found in results["methods"].items()} | results["novelty"]
    return numbers | {
        f"{name}: distance to a training net (relative)": each["distance"] for name, each in novelty.items()
    }


def stitched(results: dict[str, Any]) -> Numbers:
    """Return the numbers of stitch_nets.json: accuracy relative to the end net, means over points and pairs."""
    numbers: Numbers = {"pairs of nets": len(results["pairs"])}
    for kind, found in results["summary"].items():
        at_points = [value for value in found["relative_accuracy"] if value is not None]
        numbers[f"{spaced(kind)}: relative accuracy, mean"] = float(np.mean(at_points)) if at_points else None
    return numbers


def similarities(results: dict[str, Any]) -> Numbers:
    """Return the numbers of compare_nets.json: means over corresponding points, and rank correlations with stitches."""
    numbers: Numbers = {"pairs of nets": len(results["pairs"])}
    for name, found in results["measures"].items():
        at_points = [row[i] for i, row in enumerate(found["mean"]) if row[i] is not None]
        numbers[f"{spaced(name)} at the same point, mean"] = float(np.mean(at_points)) if at_points else None
    for name, by_matching in results["rank_correlation"].items():
        if found := by_matching.get("least_squares"):
            numbers[f"Spearman of {spaced(name)} with least squares"] = found["rho"]
    return numbers


def inside(results: dict[str, Any]) -> Numbers:
    """Return the numbers of inside_similarity.json: agreement of predictions, and means over points."""
    numbers: Numbers = {}
    for kind, found in results["kinds"].items():
        numbers[f"{spaced(kind)}: agreement (%)"] = found["agreement"]["mean"]
        for name in ("cka_unbiased", "least_squares"):
            at_points = [value for value in found[name]["mean"] if value is not None]
            numbers[f"{spaced(kind)}: {spaced(name)}, mean"] = float(np.mean(at_points)) if at_points else None
    return numbers


def across(results: dict[str, Any]) -> Numbers:
    """Return the numbers of the table's cells in compare_systems.json: means over seeds. Charts have those of all others."""
    numbers: Numbers = {"seeds": len(results["seeds"])}
    for row in results["cells"]:
        for name, what in ACROSS.items():
            numbers[f"{row['name']}: {what}"] = mean_of(row[name])
    return numbers


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is defined, None of nothing."""
    defined = [each for each in values if each is not None]
    return float(np.mean(defined)) if defined else None
