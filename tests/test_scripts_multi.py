"""The scripts of the multi-architecture experiments and of latent space optimization, run in miniature."""

import json

import matplotlib
import numpy as np
import pytest
import torch

import create_nets_dataset_multi
import eval_latspace_multi
import eval_multi
import interpolate_multi_arch
import report
import train_latspace_multi
import train_latspace_single
import train_multi_arch
from data.instance_files import read_instance
from data.nets import read_list
from evaluation.metrics import accuracy, fraction_out_of_order, where_right
from evaluation.plots import color_of
from evaluation.summary import print_summary
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, architectures_by_class_id
from tests import miniature
from tests.projects import changed_text
from tests.test_scripts import check_figure, figure_of, read_json
from training.ensembles import Ensemble

NAMES = [architecture.name for architecture in architectures_by_class_id()]
LAST = len(NAMES) - 1
STARS = [i / LAST for i in range(1, LAST)]  # gammas of the interpolation loss
SETTINGS = pytest.mark.parametrize("setting", miniature.SETTINGS)
FIGURES = ("eval_multi", "interpolate_multi_arch", "visualize_prep", "eval_latspace_multi")


@pytest.fixture
def runs(project):
    return project / "runs" / "photos"


def entries(root, setting, split):
    return read_list(miniature.folders(root), "photos", setting, split)


def results(runs, setting, name):
    return read_json(runs / setting / f"{name}.json")


def scalars(folder):
    return [json.loads(line) for line in (folder / "scalars.jsonl").read_text().splitlines()]


def in_setting(setting):
    """Return the ClassIds that a setting's lists name."""
    return range(len(NAMES)) if setting == "multi" else (0, LAST)


def test_lists_name_every_architecture_or_the_two_boundary_ones_from_the_same_pool(project):
    between = [2] * (len(NAMES) - 2)
    counts = {"train": [3, *between, 3], "val": [2, *between, 2], "test": [2, *between, 2]}
    none = [0] * len(between)
    missing_counts = {"train": [2, *none, 3], "val": [2, *none, 2], "test": [2, *none, 2]}
    seen = set()
    for split in counts:
        lines, few = entries(project, "multi", split), entries(project, "missing", split)
        for expected, found in ((counts, lines), (missing_counts, few)):
            class_ids = [line.architecture.class_id for line in found]
            assert np.bincount(class_ids, minlength=len(NAMES)).tolist() == expected[split]
        assert {line.path for line in few} <= {line.path for line in lines}
        assert not seen & {line.path for line in lines}
        seen |= {line.path for line in lines}
    (teacher,) = entries(project, "multi", "teacher")
    assert teacher.architecture.name == "resnet56" and teacher.path not in seen
    assert teacher.line().startswith("resnet_fusedbn;d56;sphotos;")


def test_instances_differ_and_are_those_that_did_best_on_validation(project):
    images = miniature.few_photos()
    for name in ("lenetlike", "resnet8"):
        net = TargetNet(ARCHITECTURES[name], images.image_shape, images.num_classes)
        paths = [entry.path for split in ("train", "val", "test") for entry in entries(project, "multi", split)]
        chosen = [read_instance(path) for path in paths if path.parent.name == f"{name}-sgd"]
        rows = net.fuse({key: torch.stack([one[key] for one, _ in chosen]) for key in chosen[0][0]})
        stated = [facts["val_accuracy"] for _, facts in chosen]
        assert accuracy(net, rows, images.val).tolist() == pytest.approx(stated, abs=0.6)  # rounding: one image
        assert len(torch.unique(rows, dim=0)) == len(chosen)


def test_the_rate_falls_at_the_stated_epochs_and_validation_begins_late(few_photos, tmp_path, monkeypatch):
    """Of four epochs of 8 batches, the rate falls after the second and third, validation begins after the second."""
    rates, validated = [], []
    set_rate, update = Ensemble.set_learning_rate, Ensemble.update_best
    monkeypatch.setattr(Ensemble, "set_learning_rate", lambda self, rate: (rates.append(rate), set_rate(self, rate)))
    monkeypatch.setattr(
        Ensemble, "update_best", lambda self, found: (validated.append(self.num_steps), update(self, found))
    )
    few = dict(num_train=miniature.of_each(1, 1), num_train_missing=(1, 1), num_val=1, num_test=1, teacher="lenetlike")
    create_nets_dataset_multi.main(miniature.create_multi_config(tmp_path, **few))
    stacks = 1 + len(NAMES)
    assert rates == pytest.approx(([0.05] * 16 + [0.005] * 8 + [0.0005] * 8) * stacks)
    assert validated == [16, 24, 32] * stacks


@SETTINGS
def test_training_is_logged_and_the_best_checkpoint_has_the_highest_score(runs, setting):
    lines = scalars(runs / setting)
    assert [line["step"] for line in lines] == [8, 16, 24]
    for line in lines:
        assert line["loss"] == pytest.approx(line["kd_loss"] + line["class_id_loss"], rel=1e-4)
        assert 0 <= line["right_class_ids"] <= 1
    best = torch.load(runs / setting / "best.pt", weights_only=True)
    assert best["best_score"] == max(line["val_accuracy"] for line in lines)
    assert best["1"]["arch_classifier.weight"].shape == (len(NAMES), 10 * 8 * 8)


@SETTINGS
def test_eval_json_has_every_test_instance(project, runs, setting):
    found = results(runs, setting, "eval_multi")
    lines = entries(project, setting, "test")
    assert found["target_class_id"] == [line.architecture.class_id for line in lines]
    for name in ("predicted_class_id", "target_accuracy", "predicted_accuracy"):
        assert len(found[name]) == len(lines)
    for percent in found["target_accuracy"] + found["predicted_accuracy"]:
        assert 0 <= percent <= 100 and percent * 2 == pytest.approx(round(percent * 2), abs=1e-3)  # of 200 images


@SETTINGS
def test_the_line_runs_between_test_instances_of_the_lowest_and_highest_class_id(runs, setting):
    line, fidelity = (results(runs, setting, name) for name in ("interpolate_multi_arch", "eval_multi"))
    assert line["gamma"] == pytest.approx(np.linspace(0, 1, 100)) and len(line["class_id"]) == 100
    for end, path, class_id in ((0, line["from"], 0), (-1, line["to"], LAST)):
        index = fidelity["instances"].index(path)
        assert fidelity["target_class_id"][index] == class_id
        assert line["class_id"][end] == fidelity["predicted_class_id"][index]
        assert line["accuracy"][end] == pytest.approx(fidelity["predicted_accuracy"][index], abs=1.1)
    assert line["stars"]["gamma"] == pytest.approx(STARS)
    pairs = line["all_pairs"]
    assert pairs["pairs"] == 4 and 0 <= pairs["out_of_order_mean"] <= 1
    assert sorted(map(int, pairs["at_gamma"])) == list(range(1, LAST))
    trained = results(runs, "multi", "eval_multi")
    for class_id, at in pairs["at_gamma"].items():
        mine = np.array(trained["target_class_id"]) == int(class_id)
        assert at["trained_accuracy_mean"] == pytest.approx(np.array(trained["target_accuracy"])[mine].mean(), abs=0.6)


@pytest.mark.parametrize(
    ("class_ids", "fraction"),
    [([0, 0, 1, 2, 3], 0), ([0, 1, 0, 1], 0.25), ([3, 2, 1, 0], 0.75), ([0, 3, 1, 1, 2], 0.2)],
)
def test_fraction_out_of_order(class_ids, fraction):
    assert fraction_out_of_order(class_ids) == pytest.approx(fraction)


def test_an_instance_of_the_wrong_architecture_counts_nothing():
    assert where_right(torch.tensor([50.0, 60.0, 70.0]), [0, 1, 2], [0, 2, 2]).tolist() == [50, 0, 70]


@pytest.mark.parametrize(
    "path", [*(f"{s}/{n}" for s in miniature.SETTINGS for n in FIGURES), "single/eval_latspace_single"]
)
def test_figures_are_written_and_show_something(runs, path):
    check_figure(runs / path)


def test_the_first_architectures_have_colours_of_their_own():
    assert len({color_of(class_id) for class_id in range(4)}) == 4


def test_eval_figure_draws_every_instance_in_its_architectures_colour(own_project, monkeypatch):
    found, figure = figure_of(eval_multi, miniature.config_of(eval_multi, own_project), monkeypatch)
    (axes,) = figure.axes
    for kind, marker in (("target", "o"), ("predicted", "D")):
        drawn = sorted(
            (line.get_color(), y) for line in axes.lines for y in line.get_ydata() if line.get_marker() == marker
        )
        colors = [color_of(class_id) for class_id in found[f"{kind}_class_id"]]
        expected = sorted(zip(colors, found[f"{kind}_accuracy"]))
        assert [color for color, _ in drawn] == [color for color, _ in expected]
        assert [y for _, y in drawn] == pytest.approx([y for _, y in expected])
    wrong = sum(a != b for a, b in zip(found["target_class_id"], found["predicted_class_id"]))
    assert sum(len(line.get_ydata()) for line in axes.lines if line.get_marker() == "x") == wrong


def test_line_figure_draws_every_point_circles_and_stars(own_project, monkeypatch):
    config = miniature.config_of(interpolate_multi_arch, own_project, num_points=21)
    found, figure = figure_of(interpolate_multi_arch, config, monkeypatch)
    axes, points = figure.axes[0], {}
    for line in axes.lines:
        if line.get_marker() == ".":
            points |= {round(x, 6): (y, line.get_color()) for x, y in line.get_xydata()}
    colors = [color_of(class_id) for class_id in found["class_id"]]
    for gamma, percent, color in zip(found["gamma"], found["accuracy"], colors):
        assert points[round(gamma, 6)] == (pytest.approx(percent), color)
    circles, stars = axes.collections
    assert circles.get_offsets()[:, 0].tolist() == [0, 1]
    assert stars.get_offsets()[:, 0].tolist() == pytest.approx(STARS)
    assert matplotlib.colors.to_rgba(colors[0]) == tuple(circles.get_facecolors()[0])


@SETTINGS
def test_search_with_several_architectures(runs, setting):
    """Every embedding starts and ends with an accuracy of test images; on validation none ends below its start."""
    table = results(runs, setting, "eval_latspace_multi")
    class_ids = [class_id for class_id in in_setting(setting) for _ in range(2)]
    assert table["class_id"] == class_ids
    fidelity = results(runs, setting, "eval_multi")
    indices = [fidelity["instances"].index(path) for path in table["instances"]]
    for ours, theirs in (("initial", "predicted"), ("target", "target")):
        expected = [fidelity[f"{theirs}_accuracy"][index] for index in indices]
        assert table[f"{ours}_accuracy"] == pytest.approx(expected, abs=1.1)
    lines = scalars(runs / setting / "latspace")
    assert [line["step"] for line in lines] == list(range(0, table["steps"] + 1, 4))
    best = [line["best_val_accuracy"] for line in lines]
    assert best == sorted(best) and best[0] == lines[0]["val_accuracy"]
    assert best[-1] == best[-3]  # stopped because two validations brought nothing
    for class_id in in_setting(setting):
        assert all(0 <= line[f"val_accuracy_{NAMES[class_id]}"] <= 100 for line in lines)
    markdown = (runs / setting / "eval_latspace_multi.md").read_text()
    assert "| initial |" in markdown and "| optimized |" in markdown and f"{NAMES[0]} | " in markdown


def test_search_from_the_weakest_single_architecture_instance(project, runs):
    table = results(runs, "single", "eval_latspace_single")
    facts = {entry.path.as_posix(): read_instance(entry.path)[1] for entry in entries(project, "single", "test")}
    assert facts[table["instance"]]["val_accuracy"] == min(each["val_accuracy"] for each in facts.values())
    found = torch.load(runs / "single/latspace/last.pt", weights_only=True)["model"]
    assert found["initial"].shape == (1, 256) and not torch.equal(found["initial"], found["embeddings"])
    lines = scalars(runs / "single/latspace")
    assert found["best_accuracy"].item() == max(line["val_accuracy"] for line in lines)
    assert 0 <= table["initial_accuracy"] <= 100 and 0 <= table["teacher_accuracy"] <= 100
    assert "| optimized |" in (runs / "single/eval_latspace_single.md").read_text()


def test_the_report_shows_accuracies_class_ids_and_all_instances(project, runs):
    config = miniature.config_of(report, project)
    for setting in ("single", "multi", "missing"):
        panels = report.section_of(config, setting, runs / setting).panels
        points = [trace for trace in panels.map.figure.data if trace.hoverinfo != "skip"]
        number = sum(len(entries(project, setting, split)) for split in ("train", "val", "test"))
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
        assert len(colors) == len(in_setting(setting))
        assert len(set(colors.values())) == len(colors) or len(colors) > 4


def test_summary_tables(runs, capsys):
    for setting in ("multi", "missing", "single"):
        print_summary(runs / setting)
        out = capsys.readouterr().out
        assert "optimized" in out and ".png" in out
        assert setting == "single" or (f"{NAMES[LAST - 1]} at gamma {STARS[-1]:.2f}" in out and "ClassId right" in out)


def test_running_again_repeats_nothing(own_project, capsys):
    files = [path for path in own_project.rglob("*") if path.suffix in (".safetensors", ".pt", ".jsonl")]
    files = {path: path.read_bytes() for path in files}
    create_nets_dataset_multi.main(miniature.create_multi_config(own_project))
    assert "6 instances of vanilla_cnn" in capsys.readouterr().out
    train_multi_arch.main(miniature.train_multi_config(own_project))
    assert "24 steps" in capsys.readouterr().out
    for script in (train_latspace_single, train_latspace_multi):
        script.main(miniature.search_config(script, own_project))
    assert all(path.read_bytes() == content for path, content in files.items())


def test_other_constants_do_not_mix_with_what_is_there(own_project):
    for changes, match in (
        (dict(num_val=3), "names other instances"),
        (dict(learning_rate=1.0), "learning_rate"),
        (dict(lr_drops=(0.3, 0.4)), "lr_drops"),
    ):
        with pytest.raises(InputError, match=match):
            create_nets_dataset_multi.main(miniature.create_multi_config(own_project, **changes))
    with pytest.raises(InputError, match="alpha .* now it is 0.5"):
        train_multi_arch.main(miniature.train_multi_config(own_project, alpha=0.5))
    with pytest.raises(InputError, match="per_class 2, now it is 1"):
        train_latspace_multi.main(miniature.search_config(train_latspace_multi, own_project, per_class=1))


def test_a_search_is_not_resumed_with_another_net_space(own_project):
    best = own_project / "runs/photos/multi/best.pt"
    saved = torch.load(best, weights_only=True)
    saved["0"]["conv4.0.bias"] += 1
    torch.save(saved, best)
    with pytest.raises(InputError, match="netspace sha256:.*, now it is sha256:"):
        train_latspace_multi.main(miniature.search_config(train_latspace_multi, own_project))


def test_eval_of_a_search_refuses_other_lists(own_project):
    path = miniature.folders(own_project).input_list("photos", "multi", "test")
    with (
        changed_text(path, "\n".join(path.read_text().splitlines()[1:])),
        pytest.raises(InputError, match="not in test.txt"),
    ):
        eval_latspace_multi.main(miniature.config_of(eval_latspace_multi, own_project))
