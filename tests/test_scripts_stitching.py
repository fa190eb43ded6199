"""stitch_nets.py in miniature: its numbers, its controls, resuming, pairs of files, and bad input."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import stitch_nets
from data.instance_files import read_instance, save_instance
from data.load import load_images
from data.nets import load_nets
from evaluation.results import check_result
from evaluation.stitched import interval
from evaluation.stitches import far_point
from models.instances import TargetNet, TargetNets
from models.rows import reordering
from models.target_nets import get_architecture
from tests import miniature
from tests.miniature import stitch_config
from tests.test_bad_input import FOLDERS, check_refusal, files_in, run
from tests.test_scripts import check_figure

POINTS = ["stem", "layer1.0", "layer2.0", "layer3.0", "pool"]
MATCHINGS = ("task_loss", "least_squares", "orthogonal")
NUM_IMAGES = 200  # in the test split of few_photos


def folder_of(project):
    return project / "runs/photos/stitching"


def results_of(project, name="stitch_nets"):
    return json.loads((folder_of(project) / f"{name}.json").read_text())


def nets_of(project):
    """Return the net, and the test list's rows by name."""
    images = load_images("photos")
    nets = TargetNets.on_images([get_architecture("resnet8")], images.image_shape, images.num_classes)
    listed = load_nets(miniature.folders(project), images, "single", "test", nets)
    return nets[0], {path.stem: row for path, row in zip(listed.paths, listed.rows)}, images


def files_of(project):
    return sorted((project / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))


# What it writes


def test_every_point_has_every_matching_and_control(project):
    found = results_of(project)
    check_result(found, folder_of(project) / "stitch_nets.json", "")
    assert found["points"] == POINTS and found["far_points"] == ["layer1.0", "stem", None, None, None]
    assert found["num_images"] == NUM_IMAGES and len(found["pairs"]) == 2
    for pair in found["pairs"]:
        assert pair["identity"] == [1] * 5 and pair["identity_difference"] == [0] * 5
        assert [each is None for each in pair["far_point"]] == [False, False, True, True, True]
        for kind in (*MATCHINGS, "untrained_front", "untrained_end", "constant", "untrained_front_least_squares"):
            assert all(0 <= each <= 100 / pair["end_accuracy"] for each in pair[kind])
    assert {pair["front"] for pair in found["pairs"]} == {pair["end"] for pair in found["pairs"]}


def test_the_best_nets_are_stitched_each_to_the_next(project):
    net, rows, images = nets_of(project)
    ranked = sorted(rows, key=lambda name: -accuracy(net, rows[name], images.val))
    pairs = results_of(project)["pairs"]
    assert [pair["front"] for pair in pairs] == ranked[:2] and [pair["end"] for pair in pairs] == ranked[1::-1]
    for pair in pairs:
        assert pair["end_accuracy"] == pytest.approx(accuracy(net, rows[pair["end"]], images.test))


@torch.no_grad()
def accuracy(net, row, images):
    logits = net.module(row)(images.plain(0, len(images)))
    return (100 * (logits.argmax(1) == images.labels).double().mean()).item()


@torch.no_grad()
def test_numbers_are_those_of_plain_modules_with_the_saved_transforms(project):
    net, rows, images = nets_of(project)
    x, labels, found = images.test.plain(0, NUM_IMAGES), images.test.labels, results_of(project)
    transforms = load_file(folder_of(project) / "stitch_nets.safetensors")
    for k, pair in enumerate(found["pairs"]):
        front, end = (net.module(rows[pair[side]]) for side in ("front", "end"))
        target = end(x)
        for i, point in enumerate(POINTS):
            for kind in MATCHINGS:
                weight, bias = (transforms[f"{point}.{point}.{kind}.{each}"][k] for each in ("weight", "bias"))
                given, own = (each(x, until=point).movedim(1, -1) for each in (front, end))
                moved = (given @ weight.T + bias).movedim(-1, 1)
                logits = end(moved, after=point)
                right, expected = logits.argmax(1) == labels, target.argmax(1) == labels
                relative = right.double().mean() / expected.double().mean()
                assert pair[kind][i] == pytest.approx(relative.item(), abs=2 / NUM_IMAGES)
                same = 100 * (logits.argmax(1) == target.argmax(1)).double().mean()
                assert pair["same_class"][kind][i] == pytest.approx(same.item(), abs=1)
                entropy = -(target.softmax(1) * logits.log_softmax(1)).sum(1).mean()
                assert pair["cross_entropy"][kind][i] == pytest.approx(entropy.item(), rel=1e-3)
                own, moved = own.flatten(0, -2).double(), moved.movedim(1, -1).flatten(0, -2).double()
                error = (moved - own).square().sum() / (own - own.mean(0)).square().sum()
                assert pair["relative_error"][kind][i] == pytest.approx(error.item(), rel=1e-3)
                size = own.std(0, correction=0).norm()
                mean = (moved.mean(0) - own.mean(0)).norm() / size
                assert pair["mean_distance"][kind][i] == pytest.approx(mean.item(), abs=1e-4)
                std = (moved.std(0, correction=0) - own.std(0, correction=0)).norm() / size
                assert pair["std_distance"][kind][i] == pytest.approx(std.item(), abs=1e-4)
                if kind != "orthogonal":
                    hits = [(one & other).sum().item() for one in (expected, ~expected) for other in (right, ~right)]
                    counted = pair["hits"][f"end_{kind}"][i]
                    assert counted == pytest.approx([hits[0], hits[1], hits[2], hits[3]], abs=2)


def test_hits_add_up(project):
    for pair in results_of(project)["pairs"]:
        end = round(pair["end_accuracy"] * NUM_IMAGES / 100)
        for name, columns in pair["hits"].items():
            for i, (both, first, second, neither) in enumerate(columns):
                assert both + first + second + neither == NUM_IMAGES
                one, other = name.split("_", 1) if name.startswith("end") else ("task_loss", "least_squares")
                assert both + first == (end if one == "end" else round(pair[one][i] * end))
                assert both + second == round(pair[other][i] * end)


def test_a_constant_transform_gives_one_class(project):
    frequencies = torch.bincount(load_images("photos").test.labels, minlength=10).tolist()
    for pair in results_of(project)["pairs"]:
        end = pair["end_accuracy"] * NUM_IMAGES / 100
        assert all(round(each * end) in frequencies for each in pair["constant"])


def test_matrices_have_a_number_where_sizes_agree(project):
    for pair in results_of(project)["pairs"]:
        for kind in ("task_loss", "least_squares"):
            matrix = pair["matrix"][kind]
            there = {(i, j) for i in range(5) for j in range(5) if matrix[i][j] is not None}
            assert there == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 3), (4, 4)}
            assert [matrix[i][i] for i in range(5)] == pair[kind]


def test_the_summary_has_means_and_intervals_over_pairs(project):
    found = results_of(project)
    for kind, summary in found["summary"].items():
        for i in range(5):
            values = [pair[kind][i] for pair in found["pairs"] if pair[kind][i] is not None]
            assert summary["n"][i] == len(values)
            if values:
                low, high = summary["interval"][i]
                assert summary["relative_accuracy"][i] == pytest.approx(np.mean(values))
                assert low <= np.mean(values) <= high
    low, high = interval([1.0, 2.0, 3.0, 4.0])
    assert (low + high) / 2 == pytest.approx(2.5) and high - low == pytest.approx(2 * 3.18245 * 1.29099 / 2, rel=1e-4)
    assert interval([1.0]) is None


def test_figures_and_table(project):
    for name in ("stitch_nets", "stitch_matrix"):
        check_figure(folder_of(project) / f"{name}.png")
    table = (folder_of(project) / "stitch_nets.md").read_text()
    assert "2 pairs" in table and "200 test images" in table and "seed 0" in table
    assert all(point in table for point in POINTS)


def test_saved_transforms_say_what_they_are(project):
    folder, found = folder_of(project) / "transforms", results_of(project)
    pair = found["pairs"][0]
    name = f"task_loss-{pair['front']}-{pair['end']}.safetensors"
    state, facts = read_instance(folder / "layer2.0-layer2.0-end" / name)
    together = load_file(folder_of(project) / "stitch_nets.safetensors")
    assert torch.equal(state["weight"], together["layer2.0.layer2.0.task_loss.weight"][0])
    assert facts["kind"] == "task_loss" and facts["front_point"] == facts["end_point"] == "layer2.0"
    assert facts["target"] == "end" and facts["num_epochs"] == len(facts["val_accuracy"]) == 1
    (control, *_) = sorted((folder / "layer2.0-layer2.0-labels").glob("untrained_end-*.safetensors"))
    assert read_instance(control)[1]["target"] == "labels"


# Running again


def test_run_again_nothing_is_trained_and_what_was_deleted_is_made_again(own_project):
    folder = folder_of(own_project)
    before = files_in(folder / "transforms")
    kept = {path: path.read_bytes() for path in (folder / "transforms").rglob("*.safetensors")}
    gone = next(path for path in kept if path.parent.name == "pool-pool-end" and path.name.startswith("task_loss"))
    gone.unlink()
    (folder / "stitch_nets.json").rename(folder / "old.json")
    stitch_nets.main(stitch_config(own_project))
    assert results_of(own_project) == results_of(own_project, "old")
    assert gone.read_bytes() == kept[gone]
    changed = {path for path, state in files_in(folder / "transforms").items() if before.get(path) != state}
    assert changed == {gone}


def test_other_options_are_refused_until_the_transforms_are_moved_away(project):
    status, _, err = run("stitch_nets", "photos", *FOLDERS, "--num-nets", 2, "--num-epochs", 2, cwd=".")
    check_refusal(status, err, ("transforms", "num_epochs 1", "2"))


# Pairs of files


def test_a_reordered_copy_is_matched_without_loss(own_project):
    net, rows, _ = nets_of(own_project)
    file = files_of(own_project)[-1]
    state, facts = read_instance(file)
    row = net.fuse({name: value[None] for name, value in state.items()})
    index = reordering(net.layout, net.hidden_channels(), np.random.default_rng(0))
    copy = own_project / "copy.safetensors"
    save_instance(copy, net.module(row[0, index]).state_dict(), facts)
    options = ("--front", file, "--end", copy, "--num-epochs", 0, "--no-controls")
    status, out, err = run("stitch_nets", "photos", *FOLDERS, *options, cwd=own_project)
    assert not status, err
    found = results_of(own_project, f"stitch_nets_{file.stem}_copy")
    (pair,) = found["pairs"]
    assert pair["least_squares"] == pair["task_loss"] == [1] * 5 and "untrained_front" not in pair
    assert max(pair["relative_error"]["least_squares"]) < 1e-8
    assert pair["front"] == file.stem and found["summary"]["task_loss"]["interval"] == [None] * 5
    assert results_of(own_project)["num_images"] == NUM_IMAGES  # of the sweep: it stays


def test_nets_of_two_architectures_are_stitched_at_layers_of_one_size(own_project):
    net = TargetNet(get_architecture("vanilla_cnn"), (1, 8, 8), 10)
    save_instance(own_project / "other.safetensors", net.module(net.fuse(net.start([0]))[0]).state_dict(), {})
    files = ("--front", "other.safetensors", "--end", files_of(own_project)[0], "--num-epochs", 0)
    status, _, err = run("stitch_nets", "photos", *FOLDERS, *files, cwd=own_project)
    check_refusal(status, err, ("vanilla_cnn and resnet8", "--front-layer"))
    layers = ("--front-layer", "layers.5", "--end-layer", "layer3.0")
    status, out, err = run("stitch_nets", "photos", *FOLDERS, *files, *layers, cwd=own_project)
    assert not status and "layers.5 to layer3.0" in out, err
    status, out, _ = run("stitch_nets", "photos", *FOLDERS, *files, "--list-layers", cwd=own_project)
    assert not status and "vanilla_cnn layers.5 8x2x2" in out and "resnet8 layer3.0 16x2x2" in out


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--weight-decay", 1e-4),
        ("--init", "permutation", "--mask", "permutation", "--l1", 0.01),
        ("--mask", "abs-semi-match", "--target", "both", "--temperature", 2),
        ("--rank", 2, "--target", "front", "--cka-weight", -1),
        ("--before-activation", "--target", "mean-logits", "--init", "ones"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_options_work_and_are_written_down(own_project, options):
    files = files_of(own_project)[-2:]
    at = ("--front", files[0], "--end", files[1], "--front-layer", "layer2.0", "--run-name", "options")
    status, _, err = run("stitch_nets", "photos", *FOLDERS, *at, "--num-epochs", 1, *options, cwd=own_project)
    assert not status, err
    path = own_project / f"runs/photos/options/stitch_nets_{files[0].stem}_{files[1].stem}.json"
    found = json.loads(path.read_text())
    for flag, value in zip(options, options[1:]):
        name = str(flag)[2:].replace("-", "_")
        if str(flag).startswith("--") and not str(value).startswith("--"):
            assert found["config"][name] == value
    weights = load_file(path.with_suffix(".safetensors"))
    trained = weights["layer2.0.layer2.0.task_loss.weight"][0]
    if "--rank" in options:
        assert torch.linalg.matrix_rank(trained, rtol=1e-4) == 2
        assert torch.linalg.matrix_rank(weights["layer2.0.layer2.0.least_squares.weight"][0], rtol=1e-4) == 2
    if "--mask" in options:
        assert ((trained != 0).sum(1) <= 1).all()


def test_layers_are_listed(tmp_path):
    status, out, _ = run("stitch_nets", "--list-layers", cwd=tmp_path)
    assert not status and [line.split()[1] for line in out.splitlines()] == POINTS


def test_the_far_point_is_the_farthest_of_one_size():
    net = TargetNet(get_architecture("resnet32"), (1, 8, 8), 10)
    found = {point: far_point(net, point) for point in net.points}
    assert found["stem"] == "layer1.4" and found["layer1.4"] == "stem" and found["layer2.1"] == "layer2.4"
    assert found["pool"] is None


# Bad input


def refused(*options, cwd, match):
    before = files_in(cwd)
    status, _, err = run("stitch_nets", "photos", *FOLDERS, *options, cwd=cwd)
    check_refusal(status, err, match)
    assert files_in(cwd) == before


def test_bad_input_is_one_line(own_project):
    front, end = files_of(own_project)[:2]
    files, here = ("--front", front, "--end", end), own_project
    refused("--front", front, cwd=here, match=("--front", "--end"))
    refused("--front", front, "--end", "nowhere.pt", cwd=here, match="nowhere.pt")
    refused(*files, "--front-layer", "layer9", cwd=here, match=("layer9", "layer3.0"))
    sizes = ("--front-layer", "stem", "--end-layer", "layer2.0")
    refused(*files, *sizes, cwd=here, match=("stem of resnet8 has 4x8x8", "8x4x4", "--list-layers"))
    refused(*sizes, cwd=here, match=("4x8x8", "8x4x4"))
    refused(*files, "--rank", 5, "--front-layer", "stem", cwd=here, match=("--rank 5", "4"))
    refused(*files, "--rank", 2, "--l1", 0.1, cwd=here, match=("--rank 2", "--l1"))
    refused(*files, "--run-name", "../up", cwd=here, match="--run-name ../up")
    refused(*files, "--image-batch", 9999, "--run-name", "other", cwd=here, match="9999")
    refused("--init", "zeros", cwd=here, match=("--init", "zeros"))
    refused("--architecture", "vanilla_cnn", cwd=here, match=("resnet8", "vanilla_cnn"))
    refused("--setting", "multi", "--lists-dir", "nowhere", cwd=here, match="create_nets_dataset_multi.py photos")
    (here / "text.safetensors").write_text("no net")
    refused("--front", front, "--end", "text.safetensors", cwd=here, match="text.safetensors")


def test_nets_of_other_images_or_architectures_are_refused(own_project):
    front, here = files_of(own_project)[0], own_project
    net = TargetNet(get_architecture("resnet8"), (3, 32, 32), 10)
    state = net.module(net.fuse(net.start([0]))[0]).state_dict()
    save_instance(here / "large.safetensors", state, {})
    refused("--front", front, "--end", "large.safetensors", cwd=here, match="large.safetensors")
    save_instance(here / "cifar.safetensors", read_instance(front)[0], {"dataset": "cifar10"})
    refused("--front", front, "--end", "cifar.safetensors", cwd=here, match=("--end", "cifar10", "photos"))
    channels = ("--front", "other.safetensors", "--end", front, "--front-layer", "layers.5", "--end-layer", "layer3.0")
    other = TargetNet(get_architecture("vanilla_cnn"), (1, 8, 8), 10)
    save_instance(here / "other.safetensors", other.module(other.fuse(other.start([0]))[0]).state_dict(), {})
    refused(*channels, "--init", "identity", cwd=here, match=("--init identity", "8 and 16"))
    refused(*channels, "--mask", "permutation", cwd=here, match=("--mask permutation", "8 and 16"))


def test_a_missing_list_names_its_script(tmp_path):
    refused(cwd=tmp_path, match="python create_nets_dataset_single.py photos")
