"""The numbers of an experiment, from the JSON files that the scripts write into a run folder, and the paper's numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.files import list_files
from data.texts import read_json
from evaluation.checks import count, counts, list_of, names, number
from evaluation.numbers import (
    Numbers,
    across,
    fine_tuned,
    inside,
    multi_fidelity,
    multi_line,
    multi_search,
    probe_scores,
    shape_closeness,
    shape_fits,
    shape_lines,
    shape_neighbours,
    similarities,
    single_fidelity,
    single_line,
    single_search,
    stitched,
)
from evaluation.results import check_result
from models.errors import InputError
from training.checkpoints import load_checkpoint
from training.run import read_scalars


@dataclass(frozen=True)
class Part:
    """One result of a setting: `<name>.json`, the commands that make it, and its numbers."""

    name: str
    title: str
    commands: tuple[str, ...]  # {preset} is filled in
    numbers: Callable[[dict[str, Any]], Numbers]


@dataclass(frozen=True)
class Setting:
    """One kind of experiment, `runs/<dataset>/<name>`, with the results that it may have."""

    title: str
    about: str
    training: tuple[str, ...]  # commands that make the instances and train NetSpace
    parts: tuple[Part, ...]


def of_several(setting: str) -> tuple[Part, ...]:
    """Return the results of a setting of several architectures."""
    where = f"{{preset}} --setting {setting}"
    search = tuple(f"python {script}_latspace_multi.py {where}" for script in ("train", "eval"))
    return (
        Part(
            "eval_multi",
            "Predicted beside target instances (Fig. 5 left)",
            (f"python eval_multi.py {where}",),
            multi_fidelity,
        ),
        Part(
            "interpolate_multi_arch",
            "From the lowest ClassId to the highest (Fig. 5)",
            (f"python interpolate_multi_arch.py {where}",),
            multi_line,
        ),
        Part("eval_latspace_multi", "Latent space optimization (Table I)", search, multi_search),
    )


SETTINGS = {
    "single": Setting(
        "Single architecture",
        "Instances of one architecture, trained for longer and shorter, and what NetSpace predicts from their embeddings.",
        ("python create_nets_dataset_single.py {preset}", "python train_single_arch.py {preset}"),
        (
            Part(
                "eval_single",
                "Predicted beside target instances (Fig. 3a, 3c)",
                ("python eval_single.py {preset}",),
                single_fidelity,
            ),
            Part(
                "interpolate_single_arch",
                "From the weakest to the strongest (Fig. 3b, 3d)",
                ("python interpolate_single_arch.py {preset}",),
                single_line,
            ),
            Part(
                "eval_latspace_single",
                "Latent space optimization (Table I)",
                ("python train_latspace_single.py {preset}", "python eval_latspace_single.py {preset}"),
                single_search,
            ),
        ),
    ),
    "multi": Setting(
        "Several architectures",
        "One latent space for instances of all architectures; a classifier predicts the architecture of an embedding.",
        ("python create_nets_dataset_multi.py {preset}", "python train_multi_arch.py {preset}"),
        of_several("multi"),
    ),
    "missing": Setting(
        "Unseen architectures",
        "NetSpace has seen only the smallest and the largest architecture; those between are decoded along the line.",
        ("python create_nets_dataset_multi.py {preset}", "python train_multi_arch.py {preset} --setting missing"),
        of_several("missing"),
    ),
    "zoo": Setting(
        "Checkpoints of a zoo",
        "NetSpace trained on nets with several checkpoints each, split by net; its embeddings are measured beside SANE's.",
        ("python create_nets_dataset_zoo.py {preset}", "python train_single_arch.py {preset} --instances zoo"),
        (),
    ),
    "sane": Setting(
        "SANE",
        "Nets as sequences of tokens, encoded and decoded by transformers: what embeddings tell of nets, and nets drawn from "
        "them.",
        ("python create_nets_dataset_zoo.py {preset}", "python train_sane.py {preset}"),
        (
            Part(
                "predict_properties",
                "Properties of unseen nets (SANE Tables 1 and 2)",
                ("python predict_properties.py {preset}",),
                probe_scores,
            ),
            Part(
                "sample_finetune",
                "Sampled nets, fine-tuned (SANE Tables 3 and 4)",
                ("python sample_finetune.py {preset}",),
                fine_tuned,
            ),
        ),
    ),
    "stitching": Setting(
        "Stitching",
        "Nets that are cut and joined to others: how alike they are inside, by stitches and by measures of similarity.",
        ("python create_nets_dataset_single.py {preset}",),
        (
            Part("stitch_nets", "Stitched nets and their controls", ("python stitch_nets.py {preset}",), stitched),
            Part(
                "compare_nets",
                "Similarity at pairs of stitch points",
                ("python compare_nets.py {preset}",),
                similarities,
            ),
            Part(
                "inside_similarity",
                "Targets and predicted instances, inside",
                ("python train_single_arch.py {preset}", "python inside_similarity.py {preset}"),
                inside,
            ),
        ),
    ),
    "across": Setting(
        "Across",
        "NetSpace's encoder and SANE's, trained alike on the same nets by weights, by behaviour and by both, and measured alike.",
        ("python create_nets_dataset_zoo.py {preset}",),
        (
            Part(
                "compare_systems",
                "Two encoders, three objectives, aligned or not",
                ("python compare_systems.py {preset}",),
                across,
            ),
        ),
    ),
    "mlps": Setting(
        "Shapes",
        "SIRENs, each the signed distance function of one shape, and what NetSpace predicts from their embeddings.",
        ("python create_mlp_dataset.py {preset}", "python train_mlps.py {preset}"),
        (
            Part(
                "create_mlp_dataset",
                "SIRENs beside their shapes",
                ("python create_mlp_dataset.py {preset}",),
                shape_fits,
            ),
            Part(
                "train_mlps",
                "Predicted beside target SIRENs",
                ("python train_mlps.py {preset}",),
                shape_closeness,
            ),
            Part(
                "interpolate_mlps",
                "From one shape to another (Fig. 4)",
                ("python interpolate_mlps.py {preset}",),
                shape_lines,
            ),
            Part(
                "retrieve_mlps",
                "The nearest training shape",
                ("python retrieve_mlps.py {preset}",),
                shape_neighbours,
            ),
        ),
    ),
}

ARCHITECTURES = ("lenetlike", "vanilla_cnn", "resnet8", "resnet32")


def paper_targets(*accuracies: float) -> Numbers:
    """Return the paper's accuracies of trained instances, by ClassId."""
    return {f"{name}: mean target accuracy (%)": value for name, value in zip(ARCHITECTURES, accuracies)}


# By data set and setting; Fig. 3 and 5 are curves, of which the paper has no numbers.
PAPER: dict[tuple[str, str], Numbers] = {
    ("cifar10", "single"): {"highest target accuracy (%)": 82.79},
    **{("cifar10", setting): paper_targets(70.87, 79.77, 87.13, 92.70) for setting in ("multi", "missing")},
    ("tiny-imagenet-200", "single"): {
        "highest target accuracy (%)": 40.51,
        "initial, test accuracy (%)": 25.73,
        "optimized, test accuracy (%)": 35.72,
    },
    ("tiny-imagenet-200", "multi"): {
        **paper_targets(22.13, 31.32, 44.38, 54.81),
        **dict(
            zip(
                [f"{name}, {when}: test accuracy (%)" for name in ARCHITECTURES for when in ("initial", "optimized")],
                (17.44, 18.55, 22.89, 24.17, 38.81, 42.07, 52.17, 53.13),
            )
        ),
    },
    ("tiny-imagenet-200", "missing"): paper_targets(22.13, 31.32, 44.38, 54.81),
    ("deepsdf", "mlps"): {"closeness to training SIRENs, mean": 0.8},
}


def read_parts(run_dir: Path) -> dict[Part, dict[str, Any]]:
    """Return the results in a run folder, `runs/<dataset>/<setting>`. Raise InputError for a file that is no JSON object."""
    found = [part for part in SETTINGS[run_dir.name].parts if (run_dir / f"{part.name}.json").is_file()]
    return {
        part: read_json(
            run_dir / f"{part.name}.json", f"make it again with: {part.commands[-1].format(preset=run_dir.parent.name)}"
        )
        for part in found
    }


def numbers_of(part: Part, results: dict[str, Any], run_dir: Path) -> Numbers:
    """Return a result's numbers. Raise InputError, naming file and entry, unless it is as its script writes it."""
    remedy = f"make it again with: {part.commands[-1].format(preset=run_dir.parent.name)}"
    check_result(results, run_dir / f"{part.name}.json", remedy)
    return part.numbers(results)


def summary(run_dir: Path) -> Numbers:
    """Return all numbers of a run folder. Raise InputError if a result is broken."""
    parts = read_parts(run_dir)
    return {name: value for part in parts for name, value in numbers_of(part, parts[part], run_dir).items()}


def as_text(value: float | None) -> str:
    """Return a number as a table shows it, a dash for None and NaN."""
    if isinstance(value, int):
        return str(value)
    return "–" if value is None or np.isnan(value) else f"{value:.4f}" if 0 < abs(value) < 0.01 else f"{value:.2f}"


def print_summary(run_dir: Path) -> None:
    """Print the numbers of every result in a run folder, and the paths of its figures."""
    print(f"\n{SETTINGS[run_dir.name].title}, {run_dir}")
    for part, results in read_parts(run_dir).items():
        print(f"  {part.title}")
        for name, value in numbers_of(part, results, run_dir).items():
            print(f"    {name:<58}{as_text(value):>9}")
    for path in list_files(run_dir, (".png",)).files:
        print(f"  {path}  (and .pdf)")


# Latent space optimization


def load_search(run_dir: Path, made_by: str, several: bool = False) -> dict[str, Any]:
    """Return what a latent space optimization left: `initial` and `best` embeddings (N, E), `instances`, `step`.

    A search of `several` architectures also has `class_ids`.
    Raise InputError if there is nothing (`made_by` is the command that makes it) or the checkpoint is another's.
    """
    path = run_dir / "latspace" / "last.pt"
    saved = load_checkpoint(path, made_by, ("model", "nets", "step"))
    model, about = saved["model"], saved["nets"]
    if not isinstance(model, dict) or not isinstance(about, dict):
        raise InputError(f"{path} is not a latent space optimization; delete it and run: {made_by}")
    instances = about.get("instances")
    try:
        names(instances)
        count(saved["step"])
        if "class_ids" in about:
            counts(about["class_ids"])
        if len(about.get("class_ids", instances)) != len(instances) or several != ("class_ids" in about):
            raise ValueError(f"instances are of {'one architecture' if several else 'several architectures'}")
    except ValueError as error:
        raise InputError(f"{path} is not a latent space optimization ({error}); make it with: {made_by}") from None
    for name in ("initial", "best"):
        values = model.get(name)
        if not isinstance(values, Tensor) or values.dim() != 2 or len(values) != len(instances):
            raise InputError(
                f"{path}: '{name}' are not embeddings of {len(instances)} instances; make it with: {made_by}"
            )
        if not values.isfinite().all():
            raise InputError(f"{path}: '{name}' holds NaN or infinity; delete it and run: {made_by}")
    return {**about, "initial": model["initial"], "best": model["best"], "step": saved["step"]}


def read_curve(run_dir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of a scalar of latent space optimization. Raise InputError if it was not written."""
    path = run_dir / "latspace" / "scalars.jsonl"
    lines = [line for line in read_scalars(path) if name in line]
    try:
        list_of(number)([line[name] for line in lines])
        counts([line["step"] for line in lines])
    except ValueError as error:
        raise InputError(f"{path}: {name}: {error}; delete {path.parent} and run the optimization again") from None
    return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines])


def markdown_table(columns: list[str], rows: dict[str, list[float]]) -> str:
    """Return percentages under the names of architectures, as in Table I."""
    lines = ["| test accuracy (%) | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"
