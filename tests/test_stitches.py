"""Transforms in training: each as if alone, towards the target it should have, from the start and within the mask it should have."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import plain
from benchmarks.cases import few_images
from models.errors import InputError
from models.matching import sum_activations
from models.stitching import StitchedNets, linear_cka, transform_of
from tests.test_stitching import make
from training import stitches
from training.stitches import Stitches, StitchTraining, Views, logits_on, see

IMAGES, PAIRS, POINTS = few_images(70), [(0, 1), (1, 2), (2, 0)], ("layer2.0", "layer2.0")
SHORT = StitchTraining(num_epochs=2, image_batch=16, learning_rate=1e-2, init="random")
TARGETS = ("labels", "front", "end", "both", "mean-logits")


@cache
def given():
    """Return a net, rows (3, P) float64 and the sums of their activations."""
    net, rows = make("resnet8", 3)
    rows = rows.double()
    return net, rows, sum_activations(net, rows, net, rows, [POINTS], [IMAGES.plain(0, 70).double()])[POINTS]


def moments(pairs=PAIRS):
    return given()[2].of(*zip(*pairs))


def stitched(pairs=PAIRS):
    net, rows, _ = given()
    return StitchedNets(net, rows, net, rows, POINTS, pairs)


def started(training, pairs=PAIRS):
    """Return stitches of pairs before training, each with the key of its front, and their views."""
    nets, keys = stitched(pairs), [(5, front) for front, _ in pairs]
    return Stitches(nets, training, moments(pairs), keys), Views(nets, training, IMAGES, (0,))


def trained(training, pairs=PAIRS):
    found, views = started(training, pairs)
    steps = training.num_epochs * views.per_pass
    for step in range(steps):
        found.set_learning_rate(training.rate(step, steps))
        found.step(*views.batch(step))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "weight_decay": 0.01},
        {"target": "both", "l1": 0.1, "cka_weight": 0.5},
        {"init": "least-squares", "mask": "abs-semi-match", "target": "front"},
        {"rank": 2, "target": "mean-logits", "temperature": 3.0},
    ],
    ids=str,
)
def test_each_transform_trains_as_if_alone(options):
    training = replace(SHORT, **options)
    together = trained(training).transform()
    for i, pair in enumerate(PAIRS):
        alone = trained(training, [pair]).transform()
        assert torch.allclose(together.weight[i], alone.weight[0], atol=1e-5)
        assert torch.allclose(together.bias[i], alone.bias[0], atol=1e-5)


@pytest.mark.parametrize("epochs", [2, 4])  # the second has more passes than are needed to see every image once
def test_transforms_side_by_side_are_those_of_plain_pytorch_one_by_one(epochs):
    training = replace(SHORT, num_epochs=epochs, init="identity", target="end")
    found = trained(training).transform()
    expected = plain.train_transforms(*given()[:2], PAIRS, "layer2.0", IMAGES, training)
    for weight, bias, (plain_weight, plain_bias) in zip(found.weight, found.bias, expected):
        assert torch.allclose(weight, plain_weight, atol=1e-5) and torch.allclose(bias, plain_bias, atol=1e-5)
        assert not torch.allclose(weight, torch.eye(8).double(), atol=1e-2)


def test_what_is_seen_once_is_what_is_seen_at_every_step(monkeypatch):
    training = replace(SHORT, num_epochs=3, target="both", cka_weight=1.0)
    stored = started(training)[1]
    monkeypatch.setattr(stitches, "MOST_BYTES", 0)
    fresh = started(training)[1]
    assert stored.stored is not None and fresh.stored is None
    for step in (0, 3, 4, 11):
        (one, labels), (other, expected) = stored.batch(step), fresh.batch(step)
        assert torch.equal(labels, expected)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one, other))


def log_softmax(logits, temperature=1.0):
    return F.log_softmax(logits / temperature, -1)


@pytest.mark.parametrize("target", TARGETS)
def test_losses_are_cross_entropies_with_the_target(target):
    """Softmax of logits over the temperature; labels have none. Sparsity and CKA are added."""
    t, (index, l1, cka) = 2.5, (torch.arange(20), 0.3, -0.7)
    training = replace(SHORT, target=target, temperature=t, l1=l1, cka_weight=cka)
    (net, rows, _), (found, _) = given(), started(training)
    x, labels = IMAGES.plain(0, 20).double(), IMAGES.labels[:20]
    losses = found.stitch_losses(see(found.nets, training, x), labels)
    transform = found.transform()
    for i, (front, end) in enumerate(PAIRS):
        f, g = (net.run(rows[[each]], x)[0] for each in (front, end))
        moved = transform[i : i + 1].apply(net.run_front(rows[[front]], x, POINTS[0]))
        logits = net.run_end(rows[[end]], moved, POINTS[1])[0]
        soft = {"front": [f], "end": [g], "both": [f, g], "mean-logits": [(f + g) / 2]}
        if target == "labels":
            expected = -log_softmax(logits)[index, labels].mean()
        else:
            entropies = [-(log_softmax(each, t).exp() * log_softmax(logits, t)).sum(1).mean() for each in soft[target]]
            expected = sum(entropies) / len(entropies)
        own = net.run_front(rows[[end]], x, POINTS[1])
        expected = expected + l1 * transform.weight[i].abs().mean() + cka * linear_cka(moved, own)[0]
        assert losses[i].item() == pytest.approx(expected.item(), abs=1e-10)


def test_a_penalty_on_cka_lowers_it_and_one_on_weights_makes_them_smaller():
    def cka(found):
        seen = see(found.nets, replace(SHORT, cka_weight=1.0), IMAGES.plain(0, 70).double())
        moved = found.nets.transformed(found.transform(), seen.activations)
        return linear_cka(moved, seen.own[found.nets.end_of]).mean().item()

    free = trained(SHORT)
    assert cka(trained(replace(SHORT, cka_weight=10.0))) < cka(free) < cka(trained(replace(SHORT, cka_weight=-10.0)))
    assert trained(replace(SHORT, l1=10.0)).transform().weight.abs().mean() < free.transform().weight.abs().mean()


@pytest.mark.parametrize("init", ["random", "permutation", "identity", "least-squares", "ones"])
def test_starts(init):
    found = started(replace(SHORT, init=init))[0].transform()
    again = started(replace(SHORT, init=init))[0].transform()
    assert torch.equal(found.weight, again.weight) and torch.equal(found.bias, again.bias)
    eye = torch.eye(8).double()
    if init in ("permutation", "identity", "ones"):
        assert not found.bias.any()
    if init == "permutation":
        assert torch.equal(found.weight.mT @ found.weight, eye.expand(3, 8, 8))
        assert not torch.equal(found.weight[0], found.weight[1])
    elif init == "identity":
        assert torch.equal(found.weight, eye.expand(3, 8, 8))
    elif init == "ones":
        assert (found.weight == 1).all()
    elif init == "least-squares":
        expected = moments().least_squares()
        assert torch.equal(found.weight, expected.weight) and torch.equal(found.bias, expected.bias)
    else:
        assert found.weight.abs().max() <= 8**-0.5 and not torch.equal(found.weight[0], found.weight[1])


@pytest.mark.parametrize("mask", ["semi-match", "abs-semi-match", "permutation"])
def test_masks_leave_one_weight_a_channel_and_training_keeps_them(mask):
    training = replace(SHORT, mask=mask, weight_decay=0.1)
    found = trained(training).transform()
    free = found.weight != 0
    assert (free.sum(2) == 1).all()
    correlations = moments().correlations()
    if mask == "permutation":
        assert (free.sum(1) == 1).all()
    else:
        size = correlations.abs() if mask == "abs-semi-match" else correlations
        assert torch.equal(free.int().argmax(2), size.argmax(2))


def test_a_transform_of_low_rank_keeps_its_rank():
    assert torch.linalg.matrix_rank(trained(replace(SHORT, rank=3)).transform().weight).tolist() == [3, 3, 3]


def test_no_epochs_leave_the_start():
    training = replace(SHORT, num_epochs=0, init="identity")
    found = trained(training)
    assert found.num_steps == 0 and torch.equal(found.transform().weight, torch.eye(8).double().expand(3, 8, 8))


def test_the_rate_falls_to_a_tenth_at_each_third():
    rates = [StitchTraining().rate(step, 9) for step in range(9)]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3)


def test_training_resumes_from_its_state():
    training = replace(SHORT, num_epochs=3, mask="semi-match")
    (whole, views), (resumed, _) = started(training), started(training)
    for step in range(6):
        whole.step(*views.batch(step))
        if step == 2:
            whole.validate(IMAGES)
            resumed.load_state_dict(whole.state_dict())
        if step > 2:
            resumed.step(*views.batch(step))
    assert torch.equal(resumed.transform().weight, whole.transform().weight)
    assert resumed.history == whole.history and len(whole.history) == 1


def test_validation_measures_the_stitched_nets():
    found, _ = started(SHORT)
    logits = logits_on(found.nets, found.transform(), IMAGES)
    right = (logits.argmax(2) == IMAGES.labels).double().mean(1)
    assert found.validate(IMAGES) == pytest.approx(100 * right.mean().item())
    assert found.history[-1] == pytest.approx((100 * right).tolist())


@pytest.mark.parametrize(
    ("options", "c1", "match"),
    [
        ({"mask": "permutation"}, 4, "--mask permutation.*4 and 8"),
        ({"init": "identity"}, 4, "--init identity.*4 and 8"),
        ({"init": "permutation"}, 4, "--init permutation.*4 and 8"),
        ({"rank": 9}, 8, "--rank 9.*8"),
        ({"rank": 2, "mask": "semi-match"}, 8, "--rank 2.*--mask"),
        ({"rank": 2, "l1": 0.1}, 8, "--rank 2.*--l1"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, c1, match):
    with pytest.raises(InputError, match=match):
        replace(SHORT, **options).check(c1, 8)


def test_transforms_between_numbers_of_channels_that_differ():
    nets = stitched()
    for init in ("random", "ones"):
        replace(SHORT, init=init).check(4, 8)
    state = {"weight": torch.ones(3, 8, 4), "bias": torch.zeros(3, 8)}
    assert transform_of(state).apply(torch.rand(3, 2, 4, 4, 4)).shape == (3, 2, 8, 4, 4)
    assert np.isfinite(nets.end(torch.rand(3, 2, 8, 4, 4).double()).numpy()).all()
