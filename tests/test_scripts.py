"""The scripts of the single-architecture experiments, run in miniature; the figures are opened and measured."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import compare_objectives
import create_nets_dataset_single
import create_nets_dataset_zoo
import eval_single
import interpolate_single_arch
import train_single_arch
import visualize_prep
from data.images import Batches
from data.instance_files import read_instance
from data.load import load_images
from data.nets import load_nets, read_list
from data.streams import torch_seed
from data.zoos import load_zoo
from evaluation.metrics import correlation
from evaluation.plots import near_square
from evaluation.summary import print_summary
from models.errors import InputError
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES
from tests import miniature
from training.checkpoints import restore_model

NUM_IMAGES = 200  # in the test split of few_photos


@pytest.fixture
def run_dir(project):
    return project / "runs" / "photos" / "single"


def read_json(path):
    return json.loads(path.read_text())


def figure_of(script, config, monkeypatch):
    """Return what a script returns, and the figure it draws."""
    figures = []
    monkeypatch.setattr(script, "save_figure", lambda figure, path: figures.append(figure) or [path, path])
    return script.main(config), figures[0]


def check_figure(path):
    """The PDF is one, and the PNG shows something in many colours and is not cut off at its edges."""
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    pixels = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()


def test_lists_name_instances_that_exist_each_in_one_split(project):
    entries = {
        split: read_list(miniature.folders(project), "photos", "single", split) for split in ("train", "val", "test")
    }
    assert {split: len(lines) for split, lines in entries.items()} == {"train": 6, "val": 3, "test": 4}
    paths = [entry.path for lines in entries.values() for entry in lines]
    assert len(set(paths)) == 13 and all(path.is_file() for path in paths)
    assert entries["train"][0].line().startswith("resnet_fusedbn;d2;d8;sphotos;")
    lengths = {
        split: sorted(read_instance(entry.path)[1]["steps"] for entry in lines) for split, lines in entries.items()
    }
    assert lengths["val"][0] < lengths["val"][-1] and lengths["test"][0] < lengths["test"][-1]


def test_instances_differ_and_learn(project):
    files = sorted((project / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    states, facts = zip(*map(read_instance, files))
    weights = [state["layer1.0.conv1.weight"] for state in states]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    by_length = {
        steps: np.mean([each["val_accuracy"] for each in facts if each["steps"] == steps]) for steps in (2, 80)
    }
    assert by_length[80] > by_length[2] + 10


@pytest.mark.parametrize("folder", ["single", "weights", "both"])
def test_training_is_logged_for_people_and_programs(run_dir, folder):
    lines = [json.loads(line) for line in (run_dir.parent / folder / "scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [16, 32, 48]
    logged = {"loss", "learning_rate", "val_accuracy_error", "val_weight_error"}
    assert all(logged <= set(line) for line in lines)
    best = torch.load(run_dir.parent / folder / "best.pt", weights_only=True)
    assert best["best_score"] == min(line["val_accuracy_error"] for line in lines)
    assert lines[best["step"] // 16 - 1]["val_accuracy_error"] == best["best_score"]


def test_tensorboard_gets_events(each_script):
    for script in ("train_single_arch", "train_multi_arch", "train_mlps", "train_latspace_multi"):
        assert any("/tensorboard/events.out.tfevents." in name for name in each_script[script].files)


def test_eval_json_holds_percentages_of_the_test_images(run_dir):
    results = read_json(run_dir / "eval_single.json")
    assert len(results["target_accuracy"]) == len(results["predicted_accuracy"]) == 4
    for accuracy in results["target_accuracy"] + results["predicted_accuracy"]:
        assert 0 <= accuracy <= 100
        assert accuracy * NUM_IMAGES / 100 == pytest.approx(round(accuracy * NUM_IMAGES / 100), abs=1e-3)


def test_interpolation_runs_from_the_weakest_to_the_strongest(run_dir):
    line, fidelity = (read_json(run_dir / f"{name}.json") for name in ("interpolate_single_arch", "eval_single"))
    assert line["gamma"] == pytest.approx(np.linspace(0, 1, 11))
    # The ends of the weight line are the targets, the ends of the latent line their predicted instances. Rounding may
    # change the class of an image.
    weak, strong = np.argmin(fidelity["target_accuracy"]), np.argmax(fidelity["target_accuracy"])
    for accuracy, which in (("weight_accuracy", "target_accuracy"), ("latent_accuracy", "predicted_accuracy")):
        expected = [fidelity[which][weak], fidelity[which][strong]]
        assert [line[accuracy][0], line[accuracy][-1]] == pytest.approx(expected, abs=1.1)


def test_comparison_agrees_with_the_scripts_of_each_figure(run_dir):
    """The NetSpace of behaviour that is best on validation is the one that those evaluate."""
    compared = read_json(run_dir.parent / "compare_objectives.json")
    fidelity, line = (read_json(run_dir / f"{name}.json") for name in ("eval_single", "interpolate_single_arch"))
    behaviour = compared["predicted"]["behaviour, best"]
    for ours, theirs in (
        (compared["target_accuracy"], fidelity["target_accuracy"]),
        (behaviour["predicted_accuracy"], fidelity["predicted_accuracy"]),
        (behaviour["line_accuracy"], line["latent_accuracy"]),
        (compared["averaged_weights_accuracy"], line["weight_accuracy"]),
    ):
        assert ours == theirs
    assert (compared["from"], compared["to"]) == (line["from"], line["to"])
    assert {name: (each["objective"], each["steps"]) for name, each in compared["trained"].items()} == {
        name: (name, 48) for name in ("behaviour", "weights", "both")
    }


def test_comparison_measures_weights_and_behaviour_one_instance_at_a_time(project, run_dir):
    """The mean of the training instances, which is predicted for all, is measured here in float64."""
    compared = read_json(run_dir.parent / "compare_objectives.json")
    images = load_images("photos")
    nets = TargetNets.on_images([ARCHITECTURES["resnet8"]], images.image_shape, images.num_classes)
    train, test = (load_nets(miniature.folders(project), images, "single", split, nets) for split in ("train", "test"))
    net, mean = nets[0], train.rows.double().mean(0)
    x = images.test.plain(0, len(images.test))
    classes = net.module(mean.float())(x).argmax(1)
    sizes = [value[0].numel() for value in net.layout.unflatten(train.rows).values()]
    deviations = [part.std(correction=0) for part in train.rows.double().split(sizes, dim=1)]
    found = compared["predicted"]["mean of the training instances, for all"]
    for i, row in enumerate(test.rows):
        errors = (row.double() - mean).split(sizes)
        squares = sum(((error / deviation) ** 2).sum() for error, deviation in zip(errors, deviations))
        assert found["weight_error"][i] == pytest.approx(squares.item() / net.num_parameters, rel=1e-5)
        target = net.run(row[None], x)[0].argmax(1)
        assert found["agreement"][i] == pytest.approx(100 * (target == classes).double().mean().item(), abs=0.6)


def test_training_by_weights_comes_nearer_to_weights_than_training_by_behaviour(run_dir):
    falls = {}
    for folder in ("weights", "single"):
        lines = [json.loads(line) for line in (run_dir.parent / folder / "scalars.jsonl").read_text().splitlines()]
        falls[folder] = lines[0]["val_weight_error"] - lines[-1]["val_weight_error"]
    assert falls["weights"] > max(0, falls["single"])


def test_comparison_table_and_figure(own_project, monkeypatch):
    table = (own_project / "runs/photos/compare_objectives.md").read_text().splitlines()
    # A head, a rule, best and last of three objectives, and two rows that are predicted for all.
    assert len(table) == 2 + 6 + 2 and len({line.count("|") for line in table}) == 1 and "nan" not in "".join(table)
    results, figure = figure_of(compare_objectives, miniature.config_of(compare_objectives, own_project), monkeypatch)
    left, middle, right = figure.axes
    order = np.argsort(results["target_accuracy"])
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    shown = ["behaviour, best", "weights, best", "weights, last", "both, best"]
    for name in shown:
        assert drawn[name] == pytest.approx(np.array(results["predicted"][name]["predicted_accuracy"])[order])
    lines = [results["predicted"][name]["line_accuracy"] for name in shown]
    for line, expected in zip(middle.lines, [*lines, results["averaged_weights_accuracy"]]):
        assert line.get_ydata() == pytest.approx(np.array(expected))
    for line, name in zip(right.lines, shown):
        found = results["predicted"][name]
        assert line.get_xdata() == pytest.approx(np.array(found["weight_error"]))
        error = np.abs(np.subtract(results["target_accuracy"], found["predicted_accuracy"]))
        assert line.get_ydata() == pytest.approx(error)


def test_correlations_that_are_not_defined_are_none():
    assert correlation([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx(1)
    assert correlation([1.0, 2.0, 4.0], [9.0, 5.0, -90.0], ranks=True) == pytest.approx(-1)
    assert correlation([1.0], [3.0]) is None and correlation([1.0, 2.0], [3.0, 3.0]) is None


@pytest.mark.parametrize("name", ["eval_single", "interpolate_single_arch", "visualize_prep", "../compare_objectives"])
def test_figures_are_written_and_show_something(run_dir, name):
    check_figure(run_dir / name)


def test_eval_figure_draws_every_test_instance_at_its_accuracy(own_project, monkeypatch):
    results, figure = figure_of(eval_single, miniature.config_of(eval_single, own_project), monkeypatch)
    (axes,) = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    order = np.argsort(results["target_accuracy"])
    assert drawn["target"] == pytest.approx(np.array(results["target_accuracy"])[order])
    assert drawn["predicted"] == pytest.approx(np.array(results["predicted_accuracy"])[order])
    assert "%" in axes.get_ylabel() and axes.get_xlabel() and figure.legends


def test_prep_figure_shows_both_preps_on_one_range_of_its_own(project, monkeypatch):
    _, figure = figure_of(visualize_prep, miniature.config_of(visualize_prep, project, instance=0), monkeypatch)
    target, predicted = (axes.images[0] for axes in figure.axes[:2])
    assert target.get_array().shape == predicted.get_array().shape == (64, 80)
    assert target.get_clim() == predicted.get_clim()
    shown = np.concatenate([np.asarray(image.get_array()).ravel() for image in (target, predicted)])
    assert target.get_clim() == pytest.approx(np.percentile(shown, (1, 99)))
    entry = read_list(miniature.folders(project), "photos", "single", "test")[0]
    first = read_instance(entry.path)[0]["fc.bias"]
    assert np.asarray(target.get_array()).ravel()[5058 - 10 : 5058] == pytest.approx(first.numpy())
    assert len(figure.axes) == 3  # the third is the colour bar


@pytest.mark.parametrize(
    ("elements", "shape"), [(5120, (64, 80)), (80_000, (250, 320)), (880_000, (880, 1000)), (7, (1, 7))]
)
def test_near_square(elements, shape):
    assert near_square(elements) == shape


def test_summary_table(run_dir, capsys):
    print_summary(run_dir)
    out = capsys.readouterr().out
    assert "correlation" in out and "eval_single.png" in out


def test_running_again_repeats_nothing(own_project, capsys):
    files = {path: path.stat().st_mtime_ns for path in own_project.rglob("*.safetensors")}
    create_nets_dataset_single.main(miniature.create_config(own_project))
    assert "13 instances" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in own_project.rglob("*.safetensors")}
    folder = own_project / "runs/photos/single"
    before = {name: (folder / name).read_bytes() for name in ("best.pt", "last.pt", "scalars.jsonl")}
    train_single_arch.main(miniature.train_config(own_project))
    assert "48 steps" in capsys.readouterr().out
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_other_constants_do_not_mix_with_what_is_there(own_project):
    with pytest.raises(InputError, match="train.txt names other instances"):
        create_nets_dataset_single.main(miniature.create_config(own_project, num_train=7))
    with pytest.raises(InputError, match="learning_rate"):
        create_nets_dataset_single.main(miniature.create_config(own_project, learning_rate=1.0))
    with pytest.raises(InputError, match="temperature .* now it is 7.0"):
        train_single_arch.main(miniature.train_config(own_project, temperature=7.0))


def test_original_checkpoints_are_read(own_project, tmp_path):
    """They have no sizes, which come from the shapes, and a ClassId classifier in the decoder."""
    model = PrepAutoencoder(Sizes((8, 648)))
    decoder = {**model.decoder.state_dict(), "arch_conv.0.weight": torch.zeros(10, 1, 3, 3)}
    torch.save(
        {"epoch": 3, "best_score": 1.0, "0": model.encoder.state_dict(), "1": decoder, "2": {}}, tmp_path / "old.pt"
    )
    restored = restore_model(torch.load(tmp_path / "old.pt", weights_only=True), tmp_path / "old.pt", "", None)
    assert restored.prep_shape == (8, 648)
    for name, value in model.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)
    config = miniature.config_of(interpolate_single_arch, own_project, num_points=3)
    ours, theirs = (
        interpolate_single_arch.main(miniature.changed(config, checkpoint=path)) for path in (None, tmp_path / "old.pt")
    )
    assert ours["weight_accuracy"] == theirs["weight_accuracy"]
    assert ours["latent_accuracy"] != theirs["latent_accuracy"]


# Training by SGD


@pytest.mark.parametrize("architecture", ["tiny10", "resnet20"])
def test_instances_by_sgd_are_those_of_a_plain_loop(few_photos, tmp_path, architecture):
    """With momentum, weight decay, and the learning rate divided by 10 at a third and two thirds."""
    config = miniature.create_config(
        tmp_path,
        architecture=architecture,
        **dict(num_train=1, num_val=1, num_test=1, lengths=(7,)),
        **dict(optimizer="sgd", learning_rate=0.02, weight_decay=0.3, schedule="thirds"),
    )
    create_nets_dataset_single.main(config)
    images = miniature.few_photos()
    for path in sorted((tmp_path / f"runs/photos/nets/{architecture}-sgd").glob("*.safetensors")):
        state, facts = read_instance(path)
        assert (facts["optimizer"], facts["schedule"], facts["weight_decay"]) == ("sgd", "thirds", 0.3)
        key = (config.seed, facts["index"])
        torch.manual_seed(torch_seed("initialization", *key))
        net = ARCHITECTURES[architecture].build(images.image_shape, images.num_classes)
        torch.nn.init.zeros_(net.fc.weight), torch.nn.init.zeros_(net.fc.bias)  # the preset's start
        sgd = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9, weight_decay=0.3)
        drops = torch.optim.lr_scheduler.MultiStepLR(sgd, [3, 5])  # steps 7/3 and 14/3, rounded up
        batches = Batches(images.train, [key], config.image_batch)
        for step in range(7):
            x, labels = batches.shared(step)
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(net(x), labels).backward()
            sgd.step()
            drops.step()
        for name, value in net.state_dict().items():
            torch.testing.assert_close(
                state[name], value, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert facts["steps"] == 7


def test_a_schedule_needs_one_length(few_photos, tmp_path):
    with pytest.raises(InputError, match="--schedule.*--lengths"):
        create_nets_dataset_single.main(miniature.create_config(tmp_path, schedule="thirds"))


def test_tiny10_becomes_a_zoo(few_photos, tmp_path):
    small = dict(architectures="tiny10", num_nets=2, num_checkpoints=2, first_step=2, last_step=12, side_by_side=2)
    create_nets_dataset_zoo.main(miniature.create_zoo_config(tmp_path, **small))
    zoo = load_zoo(tmp_path / "runs/photos/nets/zoo-tiny10")
    assert len(zoo.nets) == 4 and zoo.nets.nets.names == ["tiny10"]
