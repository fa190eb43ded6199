"""The JSON files that scripts write into a run folder, checked before anything is computed from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.checks import (
    Check,
    both,
    count,
    counts,
    flag,
    fraction,
    gamma,
    interval_or_none,
    list_of,
    map_of,
    name,
    name_or_none,
    names,
    not_negative,
    number,
    number_or_nan,
    number_or_none,
    numbers,
    object_of,
)
from models.errors import InputError, brief

MOST_ROWS = 2000  # properties (a recall for each class), representations, methods
MOST_POINTS = 500  # of a net, at which it can be stitched


accuracies = object_of("target_accuracy", "predicted_accuracy", target_accuracy=numbers, predicted_accuracy=numbers)
line = object_of(gamma=list_of(gamma, at_least=2), **{"from": name, "to": name})

score = object_of(r2=number_or_none, r2_interval=interval_or_none, kendall_tau=number_or_none, n=count)
properties = map_of(map_of(score, MOST_ROWS), MOST_ROWS)  # by property and representation
novelty = object_of(distance=not_negative, error_overlap=fraction)
methods = map_of(
    object_of(
        "epochs",
        "accuracy_mean",
        "accuracy_std",
        epochs=counts,
        accuracy_mean=numbers,
        accuracy_std=list_of(not_negative),
        novelty=novelty,
    ),
    MOST_ROWS,
)


def class_ids_in(*keys: str) -> Check:
    """Return the check that these lists hold indices into `architectures` beside them."""

    def check_ids(value: dict[str, Any]) -> None:
        names = value["architectures"]
        for key in keys:
            if max(value[key]) >= len(names):
                raise ValueError(f"'{key}': {max(value[key])} is no index into the {len(names)} architectures")

    return check_ids


def check_transfer(value: dict[str, Any]) -> None:
    """Accept scores on other zoos, which are there only if they were asked for."""
    object_of(**({"transfer": map_of(properties)} if "transfer" in value else {}))(value)


def check_at_gamma(value: dict[str, Any]) -> None:
    """Accept the numbers at each desired ClassId of `architectures`."""
    wanted = ("gamma", "right_class_ids", "accuracy_mean", "trained_accuracy_mean")
    found = value["all_pairs"]["at_gamma"]
    map_of(object_of(**dict.fromkeys(wanted, number_or_nan)))(found)
    for key in found:
        if not key.isdecimal() or len(key) > 9 or int(key) >= len(value["architectures"]):
            raise ValueError(f"'{brief(key)}' is no index into the {len(value['architectures'])} architectures")


def check_distances(value: dict[str, Any]) -> None:
    """Accept what was measured along a line of shapes."""
    far, length = list_of(number_or_none), len(value["gamma"])
    keys = {"volume": list_of(number_or_nan), "pieces": counts, "chamfer_to_start": far, "chamfer_to_end": far}
    for column in ("latent", "weights"):
        object_of(*keys, **keys)(value[column])
        if len(value[column]["pieces"]) != length:
            raise ValueError(f"'{column}' has {len(value[column]['pieces'])} values at {length} gammas")


def check_closeness(value: dict[str, Any]) -> None:
    """Accept closeness of every split, and relative errors, which older files lack, as a validation split may be."""
    splits = {split: numbers for split in ("train", "val", "test") if split != "val" or has_val(value)}
    object_of(closeness=object_of(**splits))(value)
    if "relative_error" in value:
        object_of(relative_error=object_of(**splits))(value)


def has_val(value: dict[str, Any]) -> bool:
    """Return whether there are validation instances among those whose closeness was measured."""
    return isinstance(value.get("closeness"), dict) and "val" in value["closeness"]


def check_stitching(value: dict[str, Any]) -> None:
    """Accept columns of pairs and of the summary that have a value for each of the points."""
    for each in (*value["pairs"], *value["summary"].values()):
        for key, column in each.items():
            if isinstance(column, list) and len(column) != len(value["points"]):
                raise ValueError(f"'{key}' has {len(column)} values for {len(value['points'])} points")


relative = list_of(number_or_none)  # accuracies relative to an end net's, by point
by_kind = map_of(list_of(number), MOST_ROWS)
stitched = object_of(
    front=name,
    end=name,
    front_accuracy=number,
    end_accuracy=number,
    **dict.fromkeys(("task_loss", "least_squares", "orthogonal", "constant"), relative),
    **dict.fromkeys(("same_class", "cross_entropy", "relative_error", "mean_distance", "std_distance"), by_kind),
    hits=map_of(list_of(list_of(count, 4, 4)), MOST_ROWS),
    matrix=map_of(list_of(relative), MOST_ROWS),
)


def points_by_points(*keys: str) -> Check:
    """Return the check that each measure has matrices under these keys, with a row and a column for every one of `points`."""

    def check_matrices(value: dict[str, Any]) -> None:
        length = len(value["points"])
        matrix = list_of(list_of(number_or_none, length, length), length, length)
        map_of(object_of(**dict.fromkeys(keys, matrix), identified=number_or_none), MOST_ROWS)(value["measures"])

    return check_matrices


def check_inside(value: dict[str, Any]) -> None:
    """Accept what was measured of each kind of pairs: of the two nets, and at every one of `points`."""
    length = len(value["points"])
    at_points = object_of(
        mean=list_of(number_or_none, length, length), interval=list_of(interval_or_none, length, length)
    )
    of_nets = object_of(mean=number, interval=interval_or_none)
    nets = dict.fromkeys(("agreement", "front_accuracy", "end_accuracy"), of_nets)
    points = dict.fromkeys(("cka_unbiased", "procrustes", "least_squares", "same_channel"), at_points)
    map_of(object_of(about=name, n=count, **nets, **points), MOST_ROWS)(value["kinds"])


def over_seeds(*measures: str, optional: Sequence[str] = (), **checks: Check) -> Check:
    """Return the check of rows that have one value of each measure for each seed; they may lack the optional ones."""
    seeded = object_of(name=name, seeds=counts, interval=map_of(interval_or_none), **checks)

    def check_row(value: Any) -> None:
        seeded(value)
        there = [each for each in (*measures, *optional) if each in value or each in measures]
        number_of = len(value["seeds"])
        object_of(**dict.fromkeys(there, list_of(number_or_none, number_of, number_of)))(value)

    return list_of(check_row, at_least=0, at_most=MOST_ROWS)


def check_lines(value: dict[str, Any]) -> None:
    """Accept lines over seeds that have an accuracy at each gamma."""
    length = len(value["gamma"])
    map_of(list_of(list_of(number, length, length)), MOST_ROWS)(value["lines"])


system = dict(encoder=name, objective=name, aligned=flag, about=name)
decoded = ("agreement", "accuracy_error", "accuracy_correlation", "weight_r2")
measured_cells = over_seeds(
    *decoded,
    *("line_rank_correlation", "line_above_weights", "cka", "stitched", "emb_size", "seconds"),
    optional=("r2_test_accuracy", "train_agreement"),
    **system,
)

rank = object_of(rho=number_or_none, rho_at_one_point=number_or_none, n=count)

# By the names of the files.
RESULTS: dict[str, Check] = {
    "eval_single": accuracies,
    "interpolate_single_arch": both(
        line,
        object_of(
            "gamma",
            "latent_accuracy",
            "weight_accuracy",
            gamma=numbers,
            latent_accuracy=numbers,
            weight_accuracy=numbers,
            all_pairs=object_of(
                pairs=count,
                rank_correlation_mean=number_or_none,
                rank_correlation_std=number_or_none,
                latent_above_weights_mean=number,
                end_below_strongest_mean=number,
            ),
        ),
    ),
    "eval_latspace_single": object_of(initial_accuracy=number, optimized_accuracy=number, teacher_accuracy=number),
    "eval_multi": both(
        accuracies,
        object_of(
            "target_class_id",
            "predicted_class_id",
            "target_accuracy",
            target_class_id=counts,
            predicted_class_id=counts,
            architectures=names,
        ),
        class_ids_in("target_class_id"),
    ),
    "interpolate_multi_arch": both(
        line,
        object_of(
            "gamma",
            "class_id",
            "accuracy",
            class_id=counts,
            accuracy=numbers,
            architectures=names,
            all_pairs=object_of(pairs=count, all_appear=number, out_of_order_mean=number),
        ),
        class_ids_in("class_id"),
        object_of(all_pairs=object_of(at_gamma=map_of(object_of()))),
        check_at_gamma,
    ),
    "eval_latspace_multi": both(
        object_of(
            "class_id",
            "predicted_class_id",
            "initial_accuracy",
            "optimized_accuracy",
            class_id=counts,
            predicted_class_id=counts,
            initial_accuracy=numbers,
            optimized_accuracy=numbers,
            architectures=names,
        ),
        class_ids_in("class_id"),
    ),
    "create_mlp_dataset": object_of(fits=map_of(map_of(number_or_nan))),
    "train_mlps": check_closeness,
    "retrieve_mlps": object_of(
        near=count,
        chance=fraction,
        among_nearest=object_of(embedding=fraction, weights=fraction),
        ranks=object_of(embedding=counts, weights=counts),
    ),
    "interpolate_mlps": both(
        line,
        object_of(
            latent=object_of(),
            weights=object_of(),
            summary=map_of(object_of(empty=count, pieces=number, start=number_or_none, end=number_or_none)),
        ),
        check_distances,
    ),
    "predict_properties": both(object_of(properties=properties), check_transfer),
    "stitch_nets": both(
        object_of(
            points=names,
            pairs=list_of(stitched, at_most=MOST_ROWS),
            summary=map_of(
                object_of(relative_accuracy=relative, interval=list_of(interval_or_none), n=counts), MOST_ROWS
            ),
            far_points=list_of(name_or_none),
            num_images=count,
        ),
        check_stitching,
    ),
    "sample_finetune": object_of(methods=methods, novelty=map_of(novelty, MOST_ROWS)),
    "compare_nets": both(
        object_of(
            points=list_of(name, at_most=MOST_POINTS),
            measures=map_of(object_of(), MOST_ROWS),
            pairs=list_of(object_of(front=name, end=name)),
            rank_correlation=map_of(map_of(rank, MOST_ROWS), MOST_ROWS),
            num_images=count,
        ),
        points_by_points("mean", "reordered_copy", "untrained_front"),
    ),
    "compare_systems": both(
        object_of(
            seeds=counts,
            cells=measured_cells,
            ablations=measured_cells,
            sizes=over_seeds(*decoded, "train_agreement", nets=count, **system),
            symmetry=over_seeds("embedding_spread", "accuracy_spread", "agreement", **system),
            baselines=list_of(object_of(name=name), at_least=0, at_most=MOST_ROWS),
            points=list_of(name, at_least=0, at_most=MOST_POINTS),
            gamma=list_of(gamma, at_least=0),
            lines=map_of(list_of(list_of(number)), MOST_ROWS),
        ),
        check_lines,
    ),
    "inside_similarity": both(
        object_of(points=list_of(name, at_most=MOST_POINTS), kinds=map_of(object_of(), MOST_ROWS)), check_inside
    ),
}


def check_result(found: dict[str, Any], path: Path, remedy: str) -> None:
    """Raise InputError, naming file and entry, unless a result is as its script writes it."""
    try:
        RESULTS[path.stem](found)
    except ValueError as error:
        raise InputError(f"{path}: {error}; {remedy}") from None
