"""The scripts of the multi-architecture experiments and of latent space optimization, end to end in miniature."""

import json

import matplotlib
import numpy as np
import pytest
import torch
from evaluation.accuracy import accuracy, where_right
from evaluation.interpolation import share_out_of_order
from models.registry import ARCHITECTURES
from PIL import Image
from training.ensembles import Ensemble

import create_nets_dataset_multi
import eval_latspace_multi
import eval_multi
import interpolate_multi_arch
import report
import train_latspace_multi
import train_latspace_single
import train_multi_arch
from data import load
from data.instance_files import read_instance
from data.nets import read_list
from evaluation.summary import print_summary
from models.errors import InputError
from models.instances import ArchitectureOnImages
from tests import miniature

NAMES = ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"]
SETTINGS = pytest.mark.parametrize("setting", ["multi", "missing"])
FIGURES = ("eval_multi", "interpolate_multi_arch", "visualize_prep", "eval_latspace_multi")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("multi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())
        miniature.run_all_multi(root)
        yield root


@pytest.fixture
def runs(root):
    return root / "runs" / "photos"


def entries(root, setting, split):
    return read_list(miniature.folders(root).input_list("photos", setting, split), "")


def results(runs, setting, name):
    return json.loads((runs / setting / f"{name}.json").read_text())


def test_lists_name_every_architecture_or_the_two_boundary_ones_from_the_same_pool(root):
    counts = {"train": [3, 2, 2, 3], "val": [2] * 4, "test": [2] * 4}
    missing_counts = {"train": [2, 0, 0, 3], "val": [2, 0, 0, 2], "test": [2, 0, 0, 2]}
    seen = set()
    for split in counts:
        lines, few = entries(root, "multi", split), entries(root, "missing", split)
        for expected, found in ((counts, lines), (missing_counts, few)):
            assert np.bincount([line.architecture.class_id for line in found], minlength=4).tolist() == expected[split]
        assert {line.path for line in few} <= {line.path for line in lines}
        assert not seen & {line.path for line in lines}
        seen |= {line.path for line in lines}
    (teacher,) = entries(root, "multi", "teacher")
    assert teacher.architecture.name == "resnet56" and teacher.path not in seen
    assert teacher.line().startswith("resnet_fusedbn;d56;sphotos;")


def test_instances_are_kept_where_they_did_best_on_validation_and_differ(root):
    images = miniature.few_photos()
    for name in ("lenetlike", "resnet8"):
        nets = ArchitectureOnImages(ARCHITECTURES[name], images.image_shape, 10)
        paths = [e.path for split in ("train", "val", "test") for e in entries(root, "multi", split)]
        chosen = [read_instance(path) for path in paths if path.parent.name == f"{name}-sgd"]
        state = {key: torch.stack([one[key] for one, _ in chosen]) for key in chosen[0][0]}
        rows = nets.fuse(state)
        assert accuracy(nets, rows, images.val).tolist() == pytest.approx([f["val_accuracy"] for _, f in chosen])
        assert len(torch.unique(rows, dim=0)) == len(chosen)


def test_the_rate_falls_at_the_stated_epochs(root, tmp_path, monkeypatch):
    rates, original = [], Ensemble.set_learning_rate
    monkeypatch.setattr(Ensemble, "set_learning_rate", lambda self, rate: (rates.append(rate), original(self, rate)))
    few = dict(num_train=(1, 1, 1, 1), num_train_missing=(1, 1), num_val=1, num_test=1, teacher="lenetlike")
    create_nets_dataset_multi.main(miniature.create_multi_config(tmp_path, **few))
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.0005] * 5)


def test_training_is_logged_and_keeps_the_highest_score(runs):
    for setting in ("multi", "missing"):
        lines = [json.loads(line) for line in (runs / setting / "scalars.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [8, 16, 24]
        for line in lines:
            assert line["loss"] == pytest.approx(line["kd_loss"] + line["class_id_loss"], rel=1e-4)
            assert 0 <= line["right_class_ids"] <= 1
        best = torch.load(runs / setting / "best.pt", weights_only=True)
        assert best["best_score"] == max(line["val_accuracy"] for line in lines)
        assert best["1"]["arch_classifier.weight"].shape == (4, 10 * 8 * 8)


@SETTINGS
def test_eval_json_has_every_test_instance(root, runs, setting):
    found = results(runs, setting, "eval_multi")
    lines = entries(root, setting, "test")
    assert found["target_class_id"] == [line.architecture.class_id for line in lines]
    for name in ("predicted_class_id", "target_accuracy", "predicted_accuracy"):
        assert len(found[name]) == len(lines)
    for percent in found["target_accuracy"] + found["predicted_accuracy"]:
        assert 0 <= percent <= 100 and percent * 2 == pytest.approx(round(percent * 2), abs=1e-3)  # of 200 images


@SETTINGS
def test_the_line_runs_between_test_instances_of_the_lowest_and_highest_class_id(runs, setting):
    line, fidelity = (results(runs, setting, name) for name in ("interpolate_multi_arch", "eval_multi"))
    assert line["gamma"] == pytest.approx(np.linspace(0, 1, 100)) and len(line["class_id"]) == 100
    for end, path, class_id in ((0, line["from"], 0), (-1, line["to"], 3)):
        place = fidelity["instances"].index(path)
        assert fidelity["target_class_id"][place] == class_id
        assert line["class_id"][end] == fidelity["predicted_class_id"][place]
        assert line["accuracy"][end] == pytest.approx(fidelity["predicted_accuracy"][place], abs=1.1)
    assert line["stars"]["gamma"] == pytest.approx([1 / 3, 2 / 3])
    pairs = line["all_pairs"]
    assert pairs["pairs"] == 4 and 0 <= pairs["out_of_order_mean"] <= 1
    trained = results(runs, "multi", "eval_multi")
    for class_id, at in pairs["at_gamma"].items():
        mine = np.array(trained["target_class_id"]) == int(class_id)
        assert at["trained_accuracy_mean"] == pytest.approx(np.array(trained["target_accuracy"])[mine].mean())


@pytest.mark.parametrize(
    ("class_ids", "share"), [([0, 0, 1, 2, 3], 0), ([0, 1, 0, 1], 0.25), ([3, 2, 1, 0], 0.75), ([0, 3, 1, 1, 2], 0.2)]
)
def test_share_out_of_order(class_ids, share):
    assert share_out_of_order(class_ids) == pytest.approx(share)


def test_an_instance_of_the_wrong_architecture_counts_nothing():
    assert where_right(torch.tensor([50.0, 60.0, 70.0]), [0, 1, 2], [0, 2, 2]).tolist() == [50, 0, 70]


@pytest.mark.parametrize(
    "path", [*(f"{s}/{n}" for s in ("multi", "missing") for n in FIGURES), "single/eval_latspace_single"]
)
def test_figures_are_written_and_show_something(runs, path):
    assert (runs / f"{path}.pdf").read_bytes().startswith(b"%PDF")
    pixels = np.asarray(Image.open(runs / f"{path}.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 400 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()  # nothing is cut off


def figure_of(script, config, monkeypatch):
    figures = []
    monkeypatch.setattr(script, "save_figure", lambda figure, path: figures.append(figure) or [path, path])
    return script.main(config), figures[0].axes[0]


def test_eval_figure_draws_every_instance_in_its_architectures_colour(root, monkeypatch):
    found, axes = figure_of(eval_multi, miniature.look_config(eval_multi, root), monkeypatch)
    for kind, marker in (("target", "o"), ("predicted", "D")):
        drawn = sorted(
            (line.get_color(), y) for line in axes.lines for y in line.get_ydata() if line.get_marker() == marker
        )
        colors = [("red", "blue", "green", "fuchsia")[i] for i in found[f"{kind}_class_id"]]
        assert [color for color, _ in drawn] == sorted(colors)
        assert [y for _, y in drawn] == pytest.approx([y for _, y in sorted(zip(colors, found[f"{kind}_accuracy"]))])
    wrong = sum(a != b for a, b in zip(found["target_class_id"], found["predicted_class_id"]))
    assert sum(len(line.get_ydata()) for line in axes.lines if line.get_marker() == "x") == wrong


def test_line_figure_draws_every_point_circles_and_stars(root, monkeypatch):
    config = miniature.look_config(interpolate_multi_arch, root, num_points=21)
    found, axes = figure_of(interpolate_multi_arch, config, monkeypatch)
    points = {}
    for line in axes.lines:
        if line.get_marker() == ".":
            points |= {round(x, 6): (y, line.get_color()) for x, y in line.get_xydata()}
    colors = [("red", "blue", "green", "fuchsia")[i] for i in found["class_id"]]
    for gamma, percent, color in zip(found["gamma"], found["accuracy"], colors):
        assert points[round(gamma, 6)] == (pytest.approx(percent), color)
    circles, stars = axes.collections
    assert circles.get_offsets()[:, 0].tolist() == [0, 1]
    assert stars.get_offsets()[:, 0].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert matplotlib.colors.to_rgba(colors[0]) == tuple(circles.get_facecolors()[0])


@SETTINGS
def test_search_with_several_architectures(root, runs, setting):
    """Every embedding starts and ends with an accuracy of test images; on validation none ends below its start."""
    table = results(runs, setting, "eval_latspace_multi")
    class_ids = [0, 0, 1, 1, 2, 2, 3, 3] if setting == "multi" else [0, 0, 3, 3]
    assert table["class_id"] == class_ids
    fidelity = results(runs, setting, "eval_multi")
    places = [fidelity["instances"].index(path) for path in table["instances"]]
    for ours, theirs in (("initial", "predicted"), ("target", "target")):
        expected = [fidelity[f"{theirs}_accuracy"][place] for place in places]
        assert table[f"{ours}_accuracy"] == pytest.approx(expected, abs=1.1)
    lines = [json.loads(line) for line in (runs / setting / "latspace/scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(0, table["steps"] + 1, 4))
    best = [line["best_val_accuracy"] for line in lines]
    assert best == sorted(best) and best[0] == lines[0]["val_accuracy"]
    assert best[-1] == best[-3]  # stopped because two validations brought nothing
    for name in {NAMES[i] for i in class_ids}:
        assert all(0 <= line[f"val_accuracy_{name}"] <= 100 for line in lines)
    markdown = (runs / setting / "eval_latspace_multi.md").read_text()
    assert "| initial |" in markdown and "| optimized |" in markdown and "lenetlike | " in markdown


def test_search_from_the_weakest_single_architecture_instance(root, runs):
    table = results(runs, "single", "eval_latspace_single")
    facts = {e.path.as_posix(): read_instance(e.path)[1] for e in entries(root, "single", "test")}
    assert facts[table["instance"]]["val_accuracy"] == min(each["val_accuracy"] for each in facts.values())
    saved = torch.load(runs / "single/latspace/latspace.pt", weights_only=True)
    assert saved["initial"].shape == (1, 256) and not torch.equal(saved["initial"], saved["embeddings"])
    lines = [json.loads(line) for line in (runs / "single/latspace/scalars.jsonl").read_text().splitlines()]
    assert saved["best_accuracy"].item() == max(line["val_accuracy"] for line in lines)
    assert 0 <= table["initial_accuracy"] <= 100 and 0 <= table["teacher_accuracy"] <= 100
    assert "| optimized |" in (runs / "single/eval_latspace_single.md").read_text()


def test_the_report_shows_accuracies_class_ids_and_all_instances(root, runs):
    config = miniature.look_config(report, root)
    for setting in ("single", "multi", "missing"):
        panels = report.section_of(config, setting, runs / setting).panels
        points = [trace for trace in panels.map.figure.data if trace.hoverinfo != "skip"]
        number = sum(len(entries(root, setting, split)) for split in ("train", "val", "test"))
        assert sum(len(trace.x) for trace in points) == number
        if setting == "single":
            continue
        line = results(runs, setting, "interpolate_multi_arch")
        (accuracies,), (class_ids,) = panels.slider.readouts.values()
        assert accuracies == [f"{value:.1f} %" for value in line["accuracy"]]
        assert class_ids == [f"{class_id}, {NAMES[class_id]}" for class_id in line["class_id"]]
        (pictures,) = panels.slider.preps.values()
        assert len(pictures) == len(panels.slider.steps()) == len(line["gamma"])
        colors = {trace.text[0].split(" · ")[1]: trace.marker.color for trace in points}
        assert len(set(colors.values())) == len(colors) == (4 if setting == "multi" else 2)
    assert report.main(config).is_file()


def test_summary_tables(runs, capsys):
    for setting in ("multi", "missing", "single"):
        print_summary(runs / setting)
        out = capsys.readouterr().out
        assert "optimized" in out and ".png" in out
        assert setting == "single" or ("resnet8 at gamma 0.67" in out and "ClassId right" in out)


def test_running_again_repeats_nothing(root, capsys):
    files = {
        path: path.stat().st_mtime_ns for path in root.rglob("*") if path.suffix in (".safetensors", ".pt", ".txt")
    }
    create_nets_dataset_multi.main(miniature.create_multi_config(root))
    assert "9 instances of vanilla_cnn" not in capsys.readouterr().out
    train_multi_arch.main(miniature.train_multi_config(root))
    assert "already trained" in capsys.readouterr().out
    for script in (train_latspace_single, train_latspace_multi):
        script.main(miniature.search_config(script, root))
    # lists are written again with the same text
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path.suffix != ".txt")


def test_other_constants_do_not_mix_with_what_is_there(root):
    for changes, match in (
        (dict(num_val=3), "names other instances"),
        (dict(learning_rate=1.0), "learning_rate"),
        (dict(lr_drops=(0.3, 0.4)), "lr_drops"),
    ):
        with pytest.raises(InputError, match=match):
            create_nets_dataset_multi.main(miniature.create_multi_config(root, **changes))
    with pytest.raises(InputError, match="alpha 0.9, now it is 0.5"):
        train_multi_arch.main(miniature.train_multi_config(root, alpha=0.5))
    with pytest.raises(InputError, match="instances .* now it is"):
        train_latspace_multi.main(miniature.search_config(train_latspace_multi, root, per_class=1))


def test_a_search_does_not_go_on_with_another_net_space(root, runs):
    best = runs / "multi/best.pt"
    good = best.read_bytes()
    saved = torch.load(best, weights_only=True)
    saved["0"]["conv4.0.bias"] += 1
    try:
        torch.save(saved, best)
        with pytest.raises(InputError, match="another NetSpace"):
            train_latspace_multi.main(miniature.search_config(train_latspace_multi, root))
    finally:
        best.write_bytes(good)


def test_eval_of_a_search_refuses_other_lists(root):
    path = miniature.folders(root).input_list("photos", "multi", "test")
    good = path.read_text()
    try:
        path.write_text("\n".join(good.splitlines()[1:]))
        with pytest.raises(InputError, match="not in test.txt"):
            eval_latspace_multi.main(miniature.look_config(eval_latspace_multi, root))
    finally:
        path.write_text(good)
