"""Every script end to end in miniature; the figures are opened and looked into."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import compare_objectives
import create_nets_dataset_single
import eval_single
import interpolate_single_arch
import train_single_arch
import visualize_prep
from data.instance_files import read_instance
from data.load import load_images
from data.nets import load_split, read_list
from evaluation.correlation import correlation
from evaluation.plots import near_square
from evaluation.summary import print_summary
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES
from tests import miniature


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniature")
    miniature.run_all(root)
    miniature.run_comparison(root)
    return root


@pytest.fixture
def run_dir(root):
    return root / "runs" / "photos" / "single"


def test_lists_name_instances_that_exist_and_share_none(root):
    entries = {
        split: read_list(miniature.folders(root).input_list("photos", "single", split), "")
        for split in ("train", "val", "test")
    }
    assert {split: len(lines) for split, lines in entries.items()} == {"train": 6, "val": 3, "test": 4}
    paths = [entry.path for lines in entries.values() for entry in lines]
    assert len(set(paths)) == 13 and all(path.is_file() for path in paths)
    assert entries["train"][0].line().startswith("resnet_fusedbn;d2;d8;sphotos;")
    lengths = {
        split: sorted(read_instance(entry.path)[1]["steps"] for entry in lines) for split, lines in entries.items()
    }
    assert lengths["val"][0] < lengths["val"][-1] and lengths["test"][0] < lengths["test"][-1]


def test_instances_differ_and_learn(root):
    files = sorted((root / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    states, facts = zip(*map(read_instance, files))
    weights = [state["layer1.0.conv1.weight"] for state in states]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    by_length = {
        steps: np.mean([each["val_accuracy"] for each in facts if each["steps"] == steps]) for steps in (2, 80)
    }
    assert by_length[80] > by_length[2] + 10


def test_training_is_logged_for_people_and_programs(run_dir):
    lines = [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [49, 98]
    assert all({"loss", "learning_rate", "val_accuracy_error"} <= set(line) for line in lines)
    assert list((run_dir / "tensorboard").glob("events.out.tfevents.*"))


def test_eval_json_holds_percentages_of_the_test_images(run_dir):
    results = json.loads((run_dir / "eval_single.json").read_text())
    assert len(results["target_accuracy"]) == len(results["predicted_accuracy"]) == 4
    images = 1792
    for accuracy in results["target_accuracy"] + results["predicted_accuracy"]:
        assert 0 <= accuracy <= 100
        assert accuracy * images / 100 == pytest.approx(round(accuracy * images / 100), abs=1e-3)


def test_interpolation_runs_from_the_weakest_to_the_strongest(run_dir):
    line = json.loads((run_dir / "interpolate_single_arch.json").read_text())
    fidelity = json.loads((run_dir / "eval_single.json").read_text())
    assert line["gamma"] == pytest.approx(np.linspace(0, 1, 11))
    # The ends of the weight line are the targets, the ends of the latent line their predicted instances.
    weak, strong = np.argmin(fidelity["target_accuracy"]), np.argmax(fidelity["target_accuracy"])
    ends = [line["weight_accuracy"][0], line["weight_accuracy"][-1]]
    assert ends == pytest.approx([fidelity["target_accuracy"][weak], fidelity["target_accuracy"][strong]], abs=0.2)
    ends = [line["latent_accuracy"][0], line["latent_accuracy"][-1]]
    assert ends == pytest.approx(
        [fidelity["predicted_accuracy"][weak], fidelity["predicted_accuracy"][strong]], abs=0.2
    )


def test_comparison_agrees_with_the_scripts_of_each_figure(run_dir):
    """The NetSpace of distillation, best on validation, is the one that those look at."""
    compared = json.loads((run_dir.parent / "compare_objectives.json").read_text())
    fidelity, line = (
        json.loads((run_dir / f"{n}.json").read_text()) for n in ("eval_single", "interpolate_single_arch")
    )
    distilled = compared["predicted"]["distillation, best"]
    for ours, theirs in (
        (compared["target_accuracy"], fidelity["target_accuracy"]),
        (distilled["predicted_accuracy"], fidelity["predicted_accuracy"]),
        (distilled["line_accuracy"], line["latent_accuracy"]),
        (compared["averaged_weights_accuracy"], line["weight_accuracy"]),
    ):
        assert ours == theirs
    assert (compared["from"], compared["to"]) == (line["from"], line["to"])
    assert {each["steps"] for each in compared["trained"].values()} == {98}
    assert [compared["trained"][each]["objective"] for each in ("distillation", "weights")] == [
        "distillation",
        "weights",
    ]


def test_comparison_measures_weights_and_behaviour_one_instance_at_a_time(root, run_dir):
    """In float64, of the mean of the training instances, which is predicted for all."""
    compared = json.loads((run_dir.parent / "compare_objectives.json").read_text())
    images = load_images("photos", root / "data", torch.device("cpu"))
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], images.image_shape, images.num_classes)
    train, test = (load_split(miniature.folders(root), images, "single", split, nets) for split in ("train", "test"))
    mean = train.rows.double().mean(0)
    (state,) = (
        {name: value[0] for name, value in each.items()} for each in [nets.layout.unflatten(mean.float()[None])]
    )
    x = images.test.plain(0, len(images.test))
    classes = torch.func.functional_call(nets.fused, state, (x,)).argmax(1)
    deviations = [part.std(correction=0) for part in train.rows.double().split(nets.layout.sizes, dim=1)]
    found = compared["predicted"]["mean of the training instances, for all"]
    for i, row in enumerate(test.rows):
        errors = (row.double() - mean).split(nets.layout.sizes)
        squares = sum(((error / deviation) ** 2).sum() for error, deviation in zip(errors, deviations))
        assert found["weight_error"][i] == pytest.approx(squares.item() / nets.num_parameters, rel=1e-5)
        target = nets.run(row[None], x)[0].argmax(1)
        assert found["agreement"][i] == pytest.approx(100 * (target == classes).double().mean().item(), abs=0.1)


def test_training_by_weights_comes_nearer_to_weights_than_distillation(run_dir):
    for setting, falls in (("weights", True), ("single", False)):
        lines = [json.loads(line) for line in (run_dir.parent / setting / "scalars.jsonl").read_text().splitlines()]
        assert all("val_weight_error" in line and "val_accuracy_error" in line for line in lines)
        assert (lines[-1]["val_weight_error"] < lines[0]["val_weight_error"]) == falls


def test_comparison_table_and_figure(root, run_dir, monkeypatch):
    table = (run_dir.parent / "compare_objectives.md").read_text().splitlines()
    assert len(table) == 8 and len({line.count("|") for line in table}) == 1 and "nan" not in "".join(table)
    figures = []
    monkeypatch.setattr(compare_objectives, "save_figure", lambda figure, path: figures.append(figure) or [path, path])
    results = compare_objectives.main(miniature.look_config(compare_objectives, root))
    left, middle, right = figures[0].axes
    order = np.argsort(results["target_accuracy"])
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    for name in ("distillation, best", "weights, best", "weights, last"):
        assert drawn[name] == pytest.approx(np.array(results["predicted"][name]["predicted_accuracy"])[order])
    lines = [
        results["predicted"][name]["line_accuracy"] for name in ("distillation, best", "weights, best", "weights, last")
    ]
    for line, expected in zip(middle.lines, [*lines, results["averaged_weights_accuracy"]]):
        assert line.get_ydata() == pytest.approx(np.array(expected))
    weights = results["predicted"]["weights, last"]
    assert right.lines[2].get_xdata() == pytest.approx(np.array(weights["weight_error"]))
    error = np.abs(np.subtract(results["target_accuracy"], weights["predicted_accuracy"]))
    assert right.lines[2].get_ydata() == pytest.approx(error)


def test_correlations_that_are_not_defined_are_none():
    assert correlation([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx(1)
    assert correlation([1.0, 2.0, 4.0], [9.0, 5.0, -90.0], ranks=True) == pytest.approx(-1)
    assert correlation([1.0], [3.0]) is None and correlation([1.0, 2.0], [3.0, 3.0]) is None


@pytest.mark.parametrize("name", ["eval_single", "interpolate_single_arch", "visualize_prep", "../compare_objectives"])
def test_figures_are_written_and_show_something(run_dir, name):
    assert (run_dir / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    pixels = np.asarray(Image.open(run_dir / f"{name}.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()  # nothing is cut off


def test_eval_figure_draws_every_test_instance_at_its_accuracy(root, monkeypatch):
    figures = []
    monkeypatch.setattr(eval_single, "save_figure", lambda figure, path: figures.append(figure) or [path, path])
    results = eval_single.main(miniature.look_config(eval_single, root))
    (axes,) = figures[0].axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    order = np.argsort(results["target_accuracy"])
    assert drawn["target"] == pytest.approx(np.array(results["target_accuracy"])[order])
    assert drawn["predicted"] == pytest.approx(np.array(results["predicted_accuracy"])[order])
    assert "%" in axes.get_ylabel() and axes.get_xlabel() and figures[0].legends


def test_prep_figure_shows_both_preps_on_one_range_of_its_own(root, monkeypatch):
    figures = []
    monkeypatch.setattr(visualize_prep, "save_figure", lambda figure, path: figures.append(figure) or [path, path])
    visualize_prep.main(miniature.look_config(visualize_prep, root, instance=0))
    target, predicted = (axes.images[0] for axes in figures[0].axes[:2])
    assert target.get_array().shape == predicted.get_array().shape == (64, 80)
    assert target.get_clim() == predicted.get_clim()
    shown = np.concatenate([np.asarray(image.get_array()).ravel() for image in (target, predicted)])
    assert target.get_clim() == pytest.approx(np.percentile(shown, (1, 99)))
    entry = read_list(miniature.folders(root).input_list("photos", "single", "test"), "")[0]
    first = read_instance(entry.path)[0]["fc.bias"]
    assert np.asarray(target.get_array()).ravel()[5058 - 10 : 5058] == pytest.approx(first.numpy())
    assert len(figures[0].axes) == 3  # the third is the colour bar


@pytest.mark.parametrize(
    ("elements", "shape"), [(5120, (64, 80)), (80_000, (250, 320)), (880_000, (880, 1000)), (7, (1, 7))]
)
def test_near_square(elements, shape):
    assert near_square(elements) == shape


def test_summary_table(run_dir, capsys):
    print_summary(run_dir)
    out = capsys.readouterr().out
    assert "correlation" in out and "eval_single.png" in out


def test_running_again_repeats_nothing(root, capsys):
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    create_nets_dataset_single.main(miniature.create_config(root))
    assert "0 of them trained now" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    before = (root / "runs/photos/single/best.pt").read_bytes()
    train_single_arch.main(miniature.train_config(root))
    assert "already trained" in capsys.readouterr().out
    assert (root / "runs/photos/single/best.pt").read_bytes() == before


def test_other_constants_do_not_mix_with_what_is_there(root):
    with pytest.raises(InputError, match="train.txt names other instances"):
        create_nets_dataset_single.main(miniature.create_config(root, num_train=7))
    with pytest.raises(InputError, match="learning_rate"):
        create_nets_dataset_single.main(miniature.create_config(root, learning_rate=1.0))
    with pytest.raises(InputError, match="temperature 4.0, now it is 2.0"):
        train_single_arch.main(miniature.train_config(root, temperature=2.0))


def test_original_checkpoints_are_read(root, tmp_path):
    """Those hold no sizes, and a ClassId classifier in the decoder; sizes other than the paper's come from the shapes."""
    from models.prep_autoencoder import PrepAutoencoder, Sizes
    from training.checkpoints import restore_net_space

    net_space = PrepAutoencoder(Sizes((8, 648)))
    decoder = {**net_space.decoder.state_dict(), "arch_conv.0.weight": torch.zeros(10, 1, 3, 3)}
    torch.save(
        {"epoch": 3, "best_score": 1.0, "0": net_space.encoder.state_dict(), "1": decoder, "2": {}}, tmp_path / "old.pt"
    )
    restored = restore_net_space(tmp_path / "old.pt", "", torch.device("cpu"))
    assert restored.decoder.prep_shape == (8, 648)
    for name, value in net_space.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)
    target, predicted = (
        interpolate_single_arch.main(miniature.look_config(interpolate_single_arch, root, checkpoint=path))
        for path in (None, tmp_path / "old.pt")
    )
    assert target["weight_accuracy"] == predicted["weight_accuracy"]
    assert target["latent_accuracy"] != predicted["latent_accuracy"]
