"""Kinds of pairs of nets: who is beside whom, controls keep what they should, measures and intervals are their definitions."""

import numpy as np
import pytest
import torch

from data.nets import load_nets
from evaluation.finetuning import FineTuning
from evaluation.inside import (
    AT_POINTS,
    Kind,
    control_kinds,
    kind_facts,
    measure_kind,
    neighbours,
    predicted_kinds,
    start_kind,
)
from evaluation.metrics import accuracy, agreement
from evaluation.spaces import SingleConfig, load_experiment
from tests import miniature


@pytest.fixture
def experiment(project):
    return load_experiment(SingleConfig("photos", folders=miniature.folders(project)))


def test_neighbours_are_disjoint_and_near_in_accuracy():
    accuracies = torch.tensor([50.0, 10, 52, 11, 30])
    low, high = neighbours(accuracies)
    assert list(zip(low, high)) == [(1, 3), (4, 0)]
    assert neighbours(torch.tensor([3.0])) == ([], [])


def test_predicted_kinds_are_what_the_space_decodes(experiment):
    images, space, test = experiment
    accuracies = accuracy(test.nets[0], test.rows, images.test)
    kinds = predicted_kinds(space, test.rows, accuracies)
    predicted, order = space.predict(test.rows), accuracies.argsort(stable=True)
    torch.testing.assert_close(kinds["target_predicted"].fronts, predicted)
    assert torch.equal(kinds["target_predicted"].ends, test.rows)
    torch.testing.assert_close(kinds["predicted"].ends, predicted[order[1::2]])
    torch.testing.assert_close(kinds["line_whole"].fronts, predicted[order[:2]])  # of four, the two weakest
    for name in ("line_quarter", "line_half", "line_whole"):
        torch.testing.assert_close(kinds[name].ends, predicted[order[2:]], rtol=1e-4, atol=1e-5)
    other = kinds["target_other"]
    for front, end in zip(other.fronts, other.ends):
        one, two = ((each - row).abs().sum(1).argmin().item() for each, row in ((predicted, front), (test.rows, end)))
        places = order.tolist().index(one), order.tolist().index(two)
        assert one != two and places[0] // 2 == places[1] // 2  # its neighbour in accuracy
    e = space.encode(test.rows)
    half = space.decode((e[order[:2]] + e[order[2:]]) / 2)
    torch.testing.assert_close(kinds["line_half"].fronts, half, rtol=1e-4, atol=1e-5)


def test_the_start_is_the_training_instance_that_the_decoder_began_with(experiment, project):
    images, space, test = experiment
    train = load_nets(miniature.folders(project), images, "single", "train", test.nets)
    kind = start_kind(space, train, images.val, test.rows)["start_predicted"]
    best = accuracy(test.nets[0], train.rows, images.val).argmax()
    assert all(torch.equal(row, train.rows[best]) for row in kind.ends)
    space.trained["constants"]["affine_start"] = "paper"
    assert start_kind(space, train, images.val, test.rows) == {}


def test_controls_keep_what_they_should(experiment):
    images, _, test = experiment
    net, rows = test.nets[0], test.rows
    accuracies = accuracy(net, rows, images.test)
    tuning = FineTuning(image_batch=128, learning_rate=1e-3)
    kinds = control_kinds(net, rows, accuracies, images, 0.01, tuning, 1, 0)
    agrees = {name: agreement(net, kind.fronts, kind.ends, images.test).mean().item() for name, kind in kinds.items()}
    assert agrees["reordered_copy"] == pytest.approx(100, abs=0.5)
    assert agrees["noisy_copy"] > 90 and agrees["fine_tuned_copy"] > agrees["untrained"]
    assert all(torch.equal(kind.ends, rows) for name, kind in kinds.items() if name != "independent")
    found = {name: measure_kind(net, kind, images) for name, kind in kinds.items()}
    for name in ("cka_unbiased", "least_squares"):
        copy, far = (found[kind][name] for kind in ("reordered_copy", "untrained"))
        torch.testing.assert_close(copy, torch.ones_like(copy), rtol=0, atol=0.02)
        assert (far < 0.99).any()
    assert found["reordered_copy"]["procrustes"].max() < 1e-6
    assert found["noisy_copy"]["same_channel"].mean() > 0.9 > found["reordered_copy"]["same_channel"].mean()
    torch.testing.assert_close(found["untrained"]["end_accuracy"], accuracies.double())


def test_facts_are_means_over_pairs_with_intervals_that_hold_them():
    values = torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 5], [np.nan, 2, 2, 2], [np.nan] * 4]).double()
    kind = Kind("about", torch.zeros(4, 3), torch.zeros(4, 3))
    facts = kind_facts(kind, {"cka_unbiased": values, "agreement": values[0]}, 2000, 0)
    assert facts["n"] == 4 and facts["about"] == "about"
    assert facts["cka_unbiased"]["mean"] == [2.5, 5, 2, None]
    (low, high), *others = facts["cka_unbiased"]["interval"]
    assert low == pytest.approx(2.5 - 1.96 * 1.25**0.5 / 2, abs=0.15) and high == pytest.approx(5 - low, abs=0.15)
    assert others == [[5, 5], [2, 2], None]
    assert facts["agreement"] == {"mean": 2.5, "interval": [low, high]}
    alone = kind_facts(Kind("one", torch.zeros(1, 3), torch.zeros(1, 3)), {"agreement": values[0, :1]}, 10, 0)
    assert alone["agreement"] == {"mean": 1, "interval": None}


def test_every_measure_is_at_every_point(experiment):
    images, _, test = experiment
    net, n = test.nets[0], len(test)
    found = measure_kind(net, Kind("the same", test.rows, test.rows), images)
    for name in AT_POINTS:
        assert found[name].shape == (len(net.points), n)
        expected = torch.full_like(found[name], 0 if name == "procrustes" else 1)
        torch.testing.assert_close(found[name], expected, rtol=0, atol=0.02 if name == "least_squares" else 1e-6)
    assert found["agreement"].tolist() == [100] * n
