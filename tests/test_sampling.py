"""Sampling from SANE: kernel density estimates, selection, batch norm conditioning, novelty, fine-tuning, and the script."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import create_nets_dataset_zoo
import train_sane
from data.folders import Folders
from data.images import make_images
from evaluation.finetuning import FineTuning, key_of
from evaluation.metrics import accuracy
from evaluation.novelty import TrainingNets, errors, intersection_over_union
from evaluation.sampling import Kind, Samples, add_noise, bootstrap, draw
from models.conditioning import condition, conditioned, norms_of, renormalized, unfused
from models.instances import TargetNet
from models.rows import conv_before, reordering
from models.target_nets import ARCHITECTURES
from models.token_autoencoder import TokenSizes
from tests.conftest import instances_in_float64
from tests.projects import patch_photos
from tests.test_bad_input import refused, run
from training.constants import Optim, SideBySide
from training.ensembles import initial_state

PHOTOS = ((1, 8, 8), 10)
CPU = torch.device("cpu")
KINDS = Kind.__args__


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def anchors():
    """Return latents (6, 5, 3), correlated over tokens, of which every number has a mean and spread of its own."""
    generator = torch.Generator().manual_seed(1)
    common = torch.randn(6, 1, 1, generator=generator)
    scale, mean = torch.rand(5, 3, generator=generator) + 0.5, torch.randn(5, 3, generator=generator)
    return mean + scale * (common + 0.5 * torch.randn(6, 5, 3, generator=generator))


# Kernel density estimates


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bandwidth", [0.0, 0.2, 1.0])
def test_every_number_has_the_anchors_mean_and_their_variance_and_the_kernels(kind, bandwidth, anchors):
    drawn = draw(kind, anchors, 40_000, bandwidth, rng())
    assert drawn.shape == (40_000, 5, 3)
    spread = anchors.std(0, correction=0)
    torch.testing.assert_close((drawn.mean(0) - anchors.mean(0)) / spread, torch.zeros(5, 3), atol=0.03, rtol=0)
    ratio = drawn.var(0, correction=0) / (spread.square() * (1 + bandwidth**2))
    torch.testing.assert_close(ratio, torch.ones(5, 3), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["net", "joint", "one_anchor"])
def test_without_a_kernel_these_are_anchors(kind, anchors):
    drawn = draw(kind, anchors, 50, 0.0, rng())
    assert len({tuple(each) for each in drawn.flatten(1).tolist()}) == 6
    assert (drawn[:, None] == anchors).flatten(2).all(2).any(1).all()


def test_without_a_kernel_tokens_are_those_of_several_anchors(anchors):
    drawn = draw("token", anchors, 50, 0.0, rng())
    of = (drawn[:, None] == anchors).all(3)  # (50, 6, 5)
    assert of.any(1).all()
    assert not of.all(2).any(1).all()


def test_principal_coordinates_are_those_of_several_anchors(anchors):
    u, s, _ = torch.linalg.svd((anchors - anchors.mean(0)).flatten(1), full_matrices=False)
    _, _, directions = torch.linalg.svd((anchors - anchors.mean(0)).flatten(1), full_matrices=False)
    coordinates = (draw("pca", anchors, 20, 0.0, rng()) - anchors.mean(0)).flatten(1) @ directions.T
    gap = (coordinates[:, None] - u * s).abs()
    assert gap.amin(1).max() < 1e-4  # each of some anchor
    assert gap.amax(2).amin(1).max() > 0.1  # not all of one


def correlation_of_first_and_last_token(x):
    return torch.corrcoef(torch.stack([x[:, 0, 0], x[:, -1, -1]]))[0, 1].item()


@pytest.mark.parametrize(("kind", "kept"), [("token", False), ("net", True), ("joint", True), ("pca", True)])
def test_tokens_are_as_correlated_as_in_the_anchors_but_if_each_has_its_own(kind, kept, anchors):
    found = correlation_of_first_and_last_token(draw(kind, anchors, 40_000, 0.1, rng()))
    expected = correlation_of_first_and_last_token(anchors) if kept else 0.0
    assert found == pytest.approx(expected, abs=0.03)
    assert abs(correlation_of_first_and_last_token(anchors)) > 0.3


def test_the_joint_kernel_has_the_covariance_of_the_anchors(anchors):
    drawn = draw("joint", anchors, 100_000, 3.0, rng()).flatten(1)
    expected = torch.cov(anchors.flatten(1).T, correction=0) * (1 + 3.0**2)
    assert (torch.cov(drawn.T) - expected).norm() < 0.03 * expected.norm()


def test_the_reference_draws_one_noise_for_all_tokens(anchors):
    alike = anchors[:1] + torch.linspace(-1, 1, 6)[:, None, None] * torch.ones(5, 3)
    center = draw("one_anchor", alike, 8, 0.5, rng()) - alike[0]
    torch.testing.assert_close(center, center[:, :1].expand_as(center), atol=1e-5, rtol=0)
    other = draw("net", alike, 8, 0.5, rng()) - alike[0]
    assert (other - other[:, :1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_the_same_seed_draws_the_same(kind, anchors):
    assert torch.equal(draw(kind, anchors, 3, 0.2, rng(5)), draw(kind, anchors, 3, 0.2, rng(5)))
    assert not torch.equal(draw(kind, anchors, 3, 0.2, rng(5)), draw(kind, anchors, 3, 0.2, rng(6)))


# Selection


def judge(latents):
    """Judge latents by how near they are to 1."""
    return Samples(latents, latents.flatten(1), -(latents - 1).square().mean((1, 2)))


def test_the_best_are_returned_best_first(anchors):
    samples = Samples(anchors, anchors.flatten(1), torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0, 1.0]))
    best = samples.best(3)
    assert best.accuracy.tolist() == [3, 3, 2]
    assert torch.equal(best.latents, anchors[[1, 3, 2]]) and torch.equal(best.rows, anchors[[1, 3, 2]].flatten(1))


def test_bootstrapping_returns_the_best_of_all_rounds(anchors):
    seen = []

    def watched(latents):
        seen.append(judge(latents))
        return seen[-1]

    found = bootstrap(watched, watched(anchors), "net", 5, 30, 4, 0.5, (3,))
    assert [len(each.rows) for each in seen] == [6, 30, 30, 30, 30]
    every = torch.cat([each.accuracy for each in seen]).sort(descending=True).values
    assert torch.equal(found.accuracy, every[:4])
    assert found.accuracy[0] > seen[0].accuracy.max()  # a search goes beyond what it starts from
    assert torch.equal(found.latents, bootstrap(judge, judge(anchors), "net", 5, 30, 4, 0.5, (3,)).latents)


# Batch norm


@pytest.fixture
def resnets():
    """Return ResNet8 in float64, trained-form states of 3 and their rows, and images in two batches."""
    net, state = instances_in_float64("resnet8", *PHOTOS, 3)
    images = torch.randn(40, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return net, state, net.fuse(state), [images[:20], images[20:]]


def module_of(net, states, i):
    module = net.architecture.build(net.input_shape, net.num_outputs).double()
    module.load_state_dict({name: value[i] for name, value in states.items()})
    return module


def outputs(net, states, x):
    with torch.no_grad():
        return torch.stack([module_of(net, states, i).eval()(x) for i in range(3)])


def test_an_unfused_state_fuses_to_its_row_and_computes_the_same(resnets):
    net, state, rows, (x, _) = resnets
    states = unfused(net, rows)
    assert {name: value.shape for name, value in states.items()} == {name: v.shape for name, v in state.items()}
    torch.testing.assert_close(net.fuse(states), rows)
    torch.testing.assert_close(outputs(net, states, x), net.run(rows, x))


def test_renormalized_states_compute_the_same_and_normalize(resnets):
    net, _, rows, batches = resnets
    states, everything = renormalized(net, rows, batches), torch.cat(batches)
    torch.testing.assert_close(net.fuse(states), rows)
    for i in range(3):
        module, seen = module_of(net, states, i).eval(), {}
        for name in norms_of(net):
            hook = lambda m, x, y, name=name, seen=seen: seen.update({name: x[0].clone()})  # noqa: E731
            module.get_submodule(name).register_forward_hook(hook)
        expected = module(everything)
        for name, norm in norms_of(net).items():
            x = seen[name].transpose(0, 1).flatten(1)
            torch.testing.assert_close(states[f"{name}.running_mean"][i], x.mean(1))
            torch.testing.assert_close(states[f"{name}.running_var"][i], x.var(1, correction=0))
            torch.testing.assert_close(states[f"{name}.weight"][i], (x.var(1, correction=0) + norm.eps).sqrt())
        # So in training, on these images as one batch, it computes the same too.
        torch.testing.assert_close(module.train()(everything), expected)


def test_conditioning_is_pytorchs_cumulative_average_in_training_mode(resnets):
    net, state, _, batches = resnets
    before = {name: value.clone() for name, value in state.items()}
    found = condition(net, state, batches)
    assert all(torch.equal(state[name], before[name]) for name in state)
    for i in range(3):
        module = module_of(net, state, i).train()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
                norm.momentum = None
        for x in batches:
            module(x)
        for name, value in module.state_dict().items():
            torch.testing.assert_close(found[name][i], value)


def test_conditioning_on_own_statistics_keeps_a_function_and_undoes_scales(resnets):
    net, _, rows, batches = resnets
    x = torch.cat(batches)
    like = renormalized(net, rows, [x])
    kept = conditioned(net, rows, like, [x])
    for name in norms_of(net):
        assert torch.equal(kept[f"{name}.weight"], like[f"{name}.weight"])
    torch.testing.assert_close(module_of(net, kept, 0).train()(x), net.run(rows, x)[0])
    # A decoded net whose channels are twice as active, and shifted, is corrected.
    values = net.layout.unflatten(rows.clone())
    for name in norms_of(net):
        values[f"{conv_before(name)}.weight"] *= 2
        values[f"{conv_before(name)}.bias"] += 1
    wrong = net.layout.flatten(values)
    assert (net.run(wrong, x) - net.run(rows, x)).abs().max() > 1
    corrected = conditioned(net, wrong, like, [x])
    torch.testing.assert_close(outputs(net, corrected, x), outputs(net, kept, x), rtol=1e-3, atol=1e-3)


def test_nets_without_batch_norm_stay_what_they_are():
    net = TargetNet(ARCHITECTURES["vanilla_cnn"], *PHOTOS)
    rows, x = net.fuse(net.start([0, 1])), torch.randn(4, 1, 8, 8)
    for states in (unfused(net, rows), renormalized(net, rows, [x]), condition(net, unfused(net, rows), [x])):
        assert torch.equal(net.fuse(states), rows)


# Baselines and novelty


@pytest.fixture
def photos_like():
    """Return 90 images in 10 classes, of which a net can learn which they are."""
    pixels = rng(1).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(90) % 10
    pixels[np.arange(90), labels % 8, labels // 8] = 255
    return make_images(pixels, labels, (0.5,), (0.25,), 0)


def test_noise_is_relative_to_every_layer_of_every_net():
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    rows = net.fuse(net.start(range(2))) * torch.tensor([[1.0], [100.0]])
    many = torch.stack([add_noise(net, rows, 0.04, rng(i)) - rows for i in range(300)])
    by_layer = net.layout.unflatten(many.flatten(0, 1))
    for name in ("conv1", "layer2.0.conv1", "fc"):
        noise = by_layer[f"{name}.weight"].view(300, 2, -1)
        each = net.layout.unflatten(rows)
        layer = torch.cat([each[f"{name}.{part}"].flatten(1) for part in ("weight", "bias")], 1)
        torch.testing.assert_close(noise.std((0, 2)), 0.04 * layer.std(1, correction=0), rtol=0.05, atol=0)


def test_overlap_of_sets():
    one = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    other = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()
    expected = torch.tensor([[1, 1 / 3, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(intersection_over_union(one, other), expected)


def test_novelty_is_none_for_copies_in_any_order_and_small_for_noise(photos_like):
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    rows = net.fuse(net.start(range(5)))
    training = TrainingNets.of(net, rows[0], rows, photos_like)
    order = reordering(net.layout, net.hidden_channels(), rng(3))
    copies = training.novelty(rows[1:3, order])
    assert copies["distance"] == pytest.approx(0, abs=1e-6) and copies["error_overlap"] == pytest.approx(1)
    noisy = training.novelty(add_noise(net, rows[:3], 0.04, rng())[:, order])
    assert noisy["distance"] == pytest.approx(0.04, rel=0.15)
    others = training.novelty(net.fuse(net.start([8, 9])))
    among = training.novelty(training.rows, among=True)
    assert among["distance"] == pytest.approx(others["distance"], rel=0.2) and among["distance"] > 0.5
    distances = torch.cdist(rows, rows) / rows.norm(dim=1) + 10 * torch.eye(5)
    assert among["distance"] <= distances.amin(1).mean()  # never farther than in the order they came in
    wrong = errors(net, rows, photos_like)
    overlap = intersection_over_union(wrong, wrong) - 2 * torch.eye(5)
    assert among["error_overlap"] == pytest.approx(overlap.amax(1).mean().item())


# Fine-tuning


def test_nets_of_every_method_see_the_same_and_do_not_depend_on_the_methods_beside_them(photos_like):
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    one, other = (initial_state(net, [(i, 0), (i, 1)], CPU) for i in range(2))
    tuning = FineTuning(image_batch=30)

    def found(states, tuning=tuning, epochs=(0, 1, 3)):
        return tuning.accuracies(net, states, photos_like, photos_like, epochs, 0)

    together = found({"one": one, "other": other, "again": one})
    assert together["one"].shape == (3, 2) and torch.equal(together["one"], together["again"])
    assert not torch.equal(together["one"], together["other"])
    alone = found({"other": other})["other"]
    torch.testing.assert_close(
        alone, together["other"], atol=2.5, rtol=0
    )  # a rounding may turn one or two of 90 images
    torch.testing.assert_close(
        found({"one": one, "other": other}, replace(tuning, side_by_side=3))["other"], alone, atol=2.5, rtol=0
    )
    torch.testing.assert_close(together["one"][0], accuracy(net, net.fuse(one), photos_like))


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_fine_tuning_learns(schedule, photos_like):
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    states = {"fresh": initial_state(net, [key_of(0, 0), key_of(0, 1)], CPU)}
    tuning = FineTuning(30, 1e-2, schedule)
    before, after = tuning.accuracies(net, states, photos_like, photos_like, (0, 20), 0)["fresh"]
    assert after.min() > 60 > 30 > before.max()


# The script


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a project with a zoo of 8 nets and a SANE of it."""
    root = tmp_path_factory.mktemp("sane")
    folders = Folders(runs_dir=root / "runs")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch_photos(patch)
        small = dict(num_nets=8, num_checkpoints=2, first_step=2, last_step=40, sides=SideBySide(8), folders=folders)
        create_nets_dataset_zoo.main(replace(create_nets_dataset_zoo.PRESETS["photos"], **small))
        sizes = TokenSizes(37, 8, 16, 1, 2, 48, 8, (1024, 64, 32))
        optim = Optim(4, 1e-3, "one-cycle", final_fraction=4e-6, validate_every=4)
        small = dict(sizes=sizes, optim=optim, windows=4, meta_batch=2, folders=folders)
        train_sane.main(replace(train_sane.PRESETS["photos"], **small))
    return root


SMALL = ("--num-anchors", 4, "--num-nets", 2, "--num-draws", 4, "--rounds", 2, "--condition-images", 100)
BASELINES = {"scratch", "anchors", "noise_0.04", "mean_of_anchors"}


@pytest.fixture
def sane(made, few_photos, tmp_path):
    """Return a copy of the project, without locks."""
    shutil.copytree(made, tmp_path, ignore=shutil.ignore_patterns(".lock*"), dirs_exist_ok=True)
    return tmp_path


def sample(root, *flags, name="sample_finetune"):
    """Run the script; return its JSON."""
    status, out, err = run("sample_finetune", "photos", *SMALL, *flags, cwd=root)
    assert not status, err
    path = root / "runs" / "photos" / "sane" / name
    assert all(path.with_suffix(suffix).is_file() for suffix in (".json", ".md", ".pdf", ".png"))
    assert path.with_suffix(".md").read_text() in out
    return json.loads(path.with_suffix(".json").read_text(), parse_constant=refuse_constant)


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_the_script_measures_every_method(sane):
    found = sample(sane, "--epochs", 0, 1)
    assert {"methods", "config", "versions"} <= set(found)
    drawn = {"kde_token", "kde_net", "kde_joint", "kde_pca", "kde_joint_conditioned"}
    assert set(found["methods"]) == BASELINES | drawn | {"sub_joint", "boot_joint", "boot_gauss"}
    for each in found["methods"].values():
        assert each["epochs"] == [0, 1]
        assert all(len(each[name]) == 2 for name in ("accuracy_mean", "accuracy_std"))
        assert all(0 <= value <= 100 for value in each["accuracy_mean"])
        assert all(math.isfinite(value) for value in each["novelty"].values())
    assert found["methods"]["anchors"]["novelty"] == {"distance": pytest.approx(0, abs=1e-5), "error_overlap": 1}
    assert found["methods"]["noise_0.04"]["novelty"]["distance"] == pytest.approx(0.04, rel=0.2)
    assert found["novelty"]["noise_0.02"]["distance"] == pytest.approx(0.02, rel=0.2)
    # Anchors are the best training nets, at their last checkpoint: 40 steps are more than one epoch of 8.
    assert found["methods"]["anchors"]["accuracy_mean"][0] > found["methods"]["scratch"]["accuracy_mean"][1]
    fewer = sample(sane, "--epochs", 0, "--kinds", "net")["methods"]
    for name in ("kde_net", "sub_joint", "boot_gauss"):  # what is drawn does not depend on what is drawn beside it
        assert fewer[name]["novelty"] == found["methods"][name]["novelty"]
        assert fewer[name]["accuracy_mean"] == found["methods"][name]["accuracy_mean"][:1]


def test_the_script_transfers_to_another_architecture(sane):
    target = ("--target-architecture", "vanilla_cnn", "--target-epochs", 20, "--learning-rate", 5e-3)
    flags = (*target, "--epochs", 0, "--kinds", "net", "--chosen", "net")
    found = sample(sane, *flags, name="sample_finetune_photos_vanilla_cnn")
    assert set(found["methods"]) == BASELINES | {"kde_net", "sub_net", "boot_net", "boot_gauss"}  # it has no batch norm
    anchors, scratch = (found["methods"][name]["accuracy_mean"][0] for name in ("anchors", "scratch"))
    assert anchors > scratch + 10


def test_the_script_transfers_to_other_images(sane, monkeypatch):
    """Of three classes: the nets have another head."""
    from data import load
    from tests import miniature

    def three(part):
        chosen = part.labels < 3
        return replace(part, pixels=part.pixels[chosen], labels=part.labels[chosen])

    photos = miniature.few_photos()
    parts = {name: three(getattr(photos, name)) for name in ("train", "val", "test")}
    target = replace(photos, name="cifar10", class_names=photos.class_names[:3], **parts)
    monkeypatch.setitem(load.LOADERS, "cifar10", lambda data_dir: target)
    flags = ("--target-dataset", "cifar10", "--target-epochs", 5, "--image-batch", 32, "--epochs", 0, "--kinds", "net")
    found = sample(sane, *flags, name="sample_finetune_cifar10_resnet8")
    assert found["methods"]["anchors"]["accuracy_mean"][0] > 50 > found["methods"]["scratch"]["accuracy_mean"][0]


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--epochs", 1, 0), "--epochs"),
        (("--epochs", 1, 1), "--epochs"),
        (("--kinds", "other"), "other"),
        (("--architecture", "resnet32"), "resnet32"),
        (("--target-architecture", "unknown"), "unknown"),
        (("--target-dataset", "missing"), "missing"),
        (("--zoo", "zoo-missing"), "zoo-missing"),
        (("--image-batch", 5000), "5000"),
    ],
)
def test_bad_flags_are_refused_and_nothing_is_written(sane, flags, match):
    refused("sample_finetune", "photos", *SMALL, *flags, cwd=sane, match=match)


def test_without_a_sane_the_command_that_makes_it_is_named(sane):
    shutil.rmtree(sane / "runs" / "photos" / "sane")
    refused("sample_finetune", "photos", *SMALL, cwd=sane, match="train_sane.py photos")


def test_a_zoo_for_other_images_is_refused(sane, monkeypatch):
    from data import load
    from tests import miniature

    other = replace(miniature.few_photos(), class_names=tuple("abcdefghij"))
    monkeypatch.setitem(load.LOADERS, "photos", lambda data_dir: other)
    refused("sample_finetune", "photos", *SMALL, cwd=sane, match="class_names")
