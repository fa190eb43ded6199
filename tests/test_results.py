"""Results are checked before anything is computed from them: file and entry are named; pages stay small."""

import copy
import json
import os
import struct
import zlib
from numbers import Real

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import summary
from evaluation.report import page, panels
from evaluation.results import RESULTS
from evaluation.summary import SETTINGS, load_search, numbers_of, read_curve, read_parts
from models.errors import InputError

PARTS = {part.name: part for setting in SETTINGS.values() for part in setting.parts}
SINGLE = {"target_accuracy": [10.0, 20], "predicted_accuracy": [12.0, 18.0]}
ENDS = {"from": "a.pt", "to": "b.pt"}
PAIRS = {"pairs": 2, "rank_correlation_mean": None, "rank_correlation_std": 0.1}
PAIRS |= {"latent_above_weights_mean": 3.0, "end_below_strongest_mean": 1.0}
AT = {"1": {"gamma": 0.5, "right_class_ids": 1.0, "accuracy_mean": 20.0, "trained_accuracy_mean": float("nan")}}
ALONG = {"volume": [1.0, 2.0], "pieces": [1, 0], "chamfer_to_start": [0.1, None], "chamfer_to_end": [None, 0.1]}
FOUND = {"empty": 0, "pieces": 1.0, "start": None, "end": 0.5}
SCORE = {"r2": 0.5, "r2_interval": [0.25, 0.75], "kendall_tau": 0.5, "n": 160}
NEW = {"distance": 0.5, "error_overlap": 1.0}
MATRIX = [[1.0, 0.5], [None, 0.25]]
OF_NETS, AT_POINTS = {"mean": 50.0, "interval": [40.0, 60.0]}, {"mean": [0.5, None], "interval": [[0.25, 0.75], None]}
KIND = {"about": "a copy", "n": 8, **dict.fromkeys(("agreement", "front_accuracy", "end_accuracy"), OF_NETS)}
KIND |= dict.fromkeys(("cka_unbiased", "procrustes", "least_squares", "same_channel"), AT_POINTS)
TWO, BY_KIND = [0.5, None], {"task_loss": [0.5, 0.25]}
PAIR = {"front": "a", "end": "b", "front_accuracy": 50.0, "end_accuracy": 60.0}
PAIR |= dict.fromkeys(("task_loss", "least_squares", "orthogonal", "constant"), TWO)
PAIR |= dict.fromkeys(("same_class", "cross_entropy", "relative_error", "mean_distance", "std_distance"), BY_KIND)
PAIR |= {"hits": {"end_task_loss": [[1, 2, 3, 4], [4, 3, 2, 1]]}, "matrix": {"task_loss": [TWO, TWO]}}
OF_CELL = {"name": "prep-both", "encoder": "prep", "objective": "both", "aligned": True, "about": "", "seeds": [0, 1]}
MEASURED = ("agreement", "accuracy_error", "accuracy_correlation", "weight_r2")
INSIDE = ("line_rank_correlation", "line_above_weights", "cka", "stitched", "emb_size", "seconds")


def row_of_cell(*measures, **more):
    values, intervals = dict.fromkeys(measures, [50.0, None]), dict.fromkeys(measures, [40.0, 60.0])
    return {**OF_CELL, **more, **values, "interval": {**intervals, measures[0]: None}}


CELL = row_of_cell(*MEASURED, *INSIDE, "r2_test_accuracy", "train_agreement")
ACROSS = {
    "seeds": [0, 1],
    "cells": [CELL],
    "ablations": [{**CELL, "name": "tokens-both-wide", "encoder": "tokens", "aligned": False, "about": "wider"}],
    "sizes": [row_of_cell(*MEASURED, "train_agreement", nets=12)],
    "symmetry": [row_of_cell("embedding_spread", "accuracy_spread", "agreement")],
    "baselines": [{"name": "strongest", "agreement": [50.0, 40.0], "interval": {}}],
    "gamma": [0.0, 1.0],
    "lines": {"weights": [[10.0, 20.0], [10.0, 30.0]], "prep-both": [[10.0, 20.0], [10.0, 30.0]]},
    "points": ["stem"],
}
GOOD = {
    "compare_systems": ACROSS,
    "eval_single": SINGLE,
    "interpolate_single_arch": {
        "gamma": [0.0, 1.0],
        "latent_accuracy": [1.0, 2.0],
        "weight_accuracy": [1.0, 0.5],
        "all_pairs": PAIRS,
        **ENDS,
    },
    "eval_latspace_single": {"initial_accuracy": 1.0, "optimized_accuracy": 2.0, "teacher_accuracy": 3},
    "eval_multi": {
        **SINGLE,
        "target_class_id": [0, 1],
        "predicted_class_id": [0, 0],
        "architectures": ["lenetlike", "resnet8"],
    },
    "interpolate_multi_arch": {
        "gamma": [0.0, 1.0],
        "class_id": [0, 1],
        "accuracy": [1.0, 2.0],
        "architectures": ["lenetlike", "resnet8"],
        "all_pairs": {"pairs": 1, "all_appear": 1.0, "out_of_order_mean": 0.0, "at_gamma": AT},
        **ENDS,
    },
    "eval_latspace_multi": {
        "class_id": [0, 1],
        "predicted_class_id": [0, 1],
        "initial_accuracy": [1.0, 2.0],
        "optimized_accuracy": [3.0, 4.0],
        "architectures": ["lenetlike", "resnet8"],
    },
    "create_mlp_dataset": {"fits": {"a": {"closeness": 0.9, "chamfer": float("nan")}, "b": {"closeness": 0.8}}},
    "train_mlps": {
        "closeness": {"train": [0.9], "val": [0.5], "test": [0.8, 0.7]},
        "relative_error": {"train": [0.01], "val": [0.1], "test": [0.1, 0.2]},
    },
    "retrieve_mlps": {
        "near": 5,
        "chance": 0.5,
        "among_nearest": {"embedding": 0.5, "weights": 1.0},
        "ranks": {"embedding": [1, 8], "weights": [2, 3]},
    },
    "interpolate_mlps": {
        "gamma": [0.0, 1.0],
        "latent": ALONG,
        "weights": ALONG,
        "summary": {"latent": FOUND, "weights": FOUND},
        **ENDS,
    },
    "predict_properties": {
        "properties": {"test_accuracy": {"weight_statistics": SCORE, "sane_mean": {**SCORE, "r2_interval": None}}},
        "transfer": {
            "zoo-lenetlike lenetlike": {"log_steps": {"sane_mean": {**SCORE, "r2": None, "kendall_tau": None}}}
        },
    },
    "sample_finetune": {
        "methods": {
            "scratch": {"epochs": [0, 5], "accuracy_mean": [10.0, 50], "accuracy_std": [1.0, 0.5], "novelty": NEW},
        },
        "novelty": {"training_nets": NEW},
    },
    "stitch_nets": {
        "points": ["stem", "pool"],
        "pairs": [PAIR],
        "summary": {"task_loss": {"relative_accuracy": TWO, "interval": [[0.25, 0.75], None], "n": [8, 0]}},
        "far_points": ["pool", None],
        "num_images": 1000,
    },
    "compare_nets": {
        "points": ["stem", "pool"],
        "measures": {
            "cka": {"mean": MATRIX, "reordered_copy": MATRIX, "untrained_front": MATRIX, "identified": 50.0},
            "l2": {"mean": MATRIX, "reordered_copy": MATRIX, "untrained_front": MATRIX, "identified": None},
        },
        "pairs": [{"front": "a", "end": "b", "cka": [1.0, 0.25]}],
        "rank_correlation": {"cka": {"least_squares": {"rho": 0.5, "rho_at_one_point": None, "n": 40}}},
        "num_images": 1000,
    },
    "inside_similarity": {"points": ["stem", "pool"], "kinds": {"reordered_copy": KIND}},
}
OF_ANY_NAMES = (
    "summary",
    "properties",
    "transfer",
    "methods",
    "novelty",
    "measures",
    "rank_correlation",
    "kinds",
    "lines",
)  # their entries
DEEP = [3]
for _ in range(9):
    DEEP = [DEEP] * 10
BAD = ["3", "\x1b[31m" * 10**5, None, [], {}, [[1.0, 2.0]], float("nan"), float("inf"), 10**299, -1, True, DEEP]


def leaves(value, path=()):
    """Yield the path to every value in a result, and to every list and object."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from leaves(each, (*path, key))


def changed(value, path, other):
    value = copy.deepcopy(value)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = other
    return value


def test_every_result_has_a_schema():
    assert set(RESULTS) == set(PARTS) == set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_whatever_a_result_has_it_is_read_or_refused_by_file_and_command(name, tmp_path):
    run_dir, part = tmp_path / "photos" / "single", PARTS[name]
    assert numbers_of(part, GOOD[name], run_dir)
    refused = 0
    for path in leaves(GOOD[name]):
        for other in BAD if path else ():
            try:
                found = numbers_of(part, changed(GOOD[name], path, other), run_dir)
                assert all(value is None or isinstance(value, Real) for value in found.values())
            except InputError as error:
                refused += 1
                assert f"{name}.json" in str(error) and "python " in str(error)
                assert str(error).isprintable() and len(str(error)) < 1600
    assert refused > 5 * len(list(leaves(GOOD[name])))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (name, path)
        for name, good in GOOD.items()
        for path in leaves(good)
        if path and isinstance(path[-1], str) and path[0] != "fits" and path[-1] not in ("1",) and len(path) < 3
    ],
)
def test_an_entry_that_is_missing_is_named(name, path, tmp_path):
    found = copy.deepcopy(GOOD[name])
    parent = found
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    if path in (("transfer",), ("relative_error",), ("closeness", "val")) or len(path) == 2 and path[0] in OF_ANY_NAMES:
        numbers_of(PARTS[name], found, tmp_path / "photos" / "single")
        return
    with pytest.raises(InputError, match=rf"{name}.json.*'{path[-1]}'"):
        numbers_of(PARTS[name], found, tmp_path / "photos" / "single")


@pytest.mark.parametrize("name", ["eval_single", "eval_multi", "interpolate_single_arch", "interpolate_multi_arch"])
def test_lists_that_belong_together_have_one_length(name, tmp_path):
    for key, value in GOOD[name].items():
        if isinstance(value, list) and key != "architectures":
            with pytest.raises(InputError, match=f"{name}.json"):
                numbers_of(PARTS[name], {**GOOD[name], key: value[:1]}, tmp_path / "photos" / "single")


def test_integers_of_400_digits_are_refused_by_file(tmp_path):
    run_dir = tmp_path / "photos" / "single"
    run_dir.mkdir(parents=True)
    text = json.dumps(SINGLE).replace("20", "2" * 400)
    (run_dir / "eval_single.json").write_text(text)
    with pytest.raises(InputError, match="eval_single.json"):
        summary.summary(run_dir)


def test_the_projects_results_are_read(project):
    for run_dir in (
        project / "runs/photos/multi",
        project / "runs/photos/single",
        project / "runs/photos/stitching",
        project / "runs/chairs/mlps",
    ):
        parts = read_parts(run_dir)
        assert parts and all(numbers_of(part, found, run_dir) for part, found in parts.items())


# Figures


def png_of(width, height):
    """Return the header of a PNG of that size, and one row."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = zlib.compress(b"\0" * (width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_figures_are_the_pngs_of_a_folder(tmp_path):
    Image.new("RGB", (50, 20)).save(tmp_path / "b.png")
    Image.new("RGB", (10, 10)).save(tmp_path / ".hidden.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    (figure,) = page.figures(tmp_path)
    assert (figure.name, figure.width, figure.height) == ("b.png", 30, 12)


@pytest.mark.parametrize("kind", ["30,000", "9,000", "gif", "jpeg", "text", "cut", "empty", "bytes"])
def test_a_figure_that_is_no_png_or_too_large_is_refused_by_name(tmp_path, kind, monkeypatch):
    path = tmp_path / "eval_single.png"
    if kind in ("gif", "jpeg"):
        Image.new("RGB", (5, 5)).save(path, kind)
    elif kind == "bytes":
        monkeypatch.setattr(page, "LARGEST_FIGURE", 50)
        Image.new("RGB", (5, 5)).save(path)
    else:
        Image.new("RGB", (500, 500)).save(tmp_path / "whole.png")
        whole = (tmp_path / "whole.png").read_bytes()
        (tmp_path / "whole.png").unlink()
        content = {"30,000": png_of(30_000, 30_000), "9,000": png_of(9_000, 9_000), "text": b"no image"}
        path.write_bytes({**content, "cut": whole[: len(whole) // 2], "empty": b""}[kind])
    with pytest.raises(InputError, match="eval_single.png"):
        page.figures(tmp_path)


# Lines and curves


def test_a_line_of_many_gammas_is_thinned_evenly_with_its_ends():
    gamma = np.linspace(0, 1, 100_001).tolist()
    line = {"gamma": gamma, "latent": {"pieces": list(range(100_001))}, "from": "a", "pairs": [1, 2]}
    found = panels.thinned(line)
    assert found["gamma"] == pytest.approx(np.linspace(0, 1, panels.MOST_GAMMAS), abs=1e-5)
    assert [round(100_000 * each) for each in found["gamma"]] == found["latent"]["pieces"]
    assert found["from"] == "a" and found["pairs"] == [1, 2]
    assert panels.thinned(found) == found


def test_curves_have_a_bounded_number_of_points(tmp_path):
    lines = [{"step": i, "loss": 1.0 + i} for i in range(12_000)]
    (tmp_path / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (chart,) = page.training_curves(tmp_path)
    (trace,) = chart.figure.data
    assert 2_000 < len(trace.x) <= page.MOST_POINTS and all(y == 1.0 + x for x, y in zip(trace.x, trace.y))
    (tmp_path / "scalars.jsonl").write_text(json.dumps({"step": 10**200, "loss": 1.0}) + "\n")
    with pytest.raises(InputError, match="scalars.jsonl"):
        page.training_curves(tmp_path)


@pytest.mark.parametrize("value", ["1", None, [1], float("nan")])
def test_a_curve_of_anything_but_numbers_is_refused_by_file(tmp_path, value):
    (tmp_path / "latspace").mkdir()
    path = tmp_path / "latspace" / "scalars.jsonl"
    path.write_text("".join(json.dumps({"step": i, "val_accuracy": v}) + "\n" for i, v in enumerate([50.0, value])))
    with pytest.raises(InputError, match="scalars.jsonl.*val_accuracy"):
        read_curve(tmp_path, "val_accuracy")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "3"},
        {"nets": {"instances": 3}},
        {"nets": {"instances": [3]}},
        {"nets": {"instances": ["a"], "class_ids": [0]}},
        {"nets": {}},
        {"model": {"initial": torch.zeros(2, 4), "best": torch.zeros(1, 4)}},
    ],
)
def test_a_search_of_another_form_is_refused_by_file(tmp_path, change):
    (tmp_path / "latspace").mkdir()
    path, model = tmp_path / "latspace" / "last.pt", {"initial": torch.zeros(1, 4), "best": torch.ones(1, 4)}
    good = {"model": model, "nets": {"instances": ["a"]}, "step": 3}
    torch.save(good, path)
    assert torch.equal(load_search(tmp_path, "python x.py")["best"], torch.ones(1, 4))
    torch.save({**good, **change}, path)
    with pytest.raises(InputError, match="last.pt.*python x.py"):
        load_search(tmp_path, "python x.py")
