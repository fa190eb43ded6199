"""What is measured of instances, against one instance and one image at a time."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plain
from data.images import make_images
from data.nets import NetsDataset
from evaluation.metrics import (
    accuracy,
    accuracy_of,
    agreement,
    closeness,
    closeness_to,
    correlation,
    fraction_out_of_order,
    interpolate,
    median_index,
    mixed_accuracy,
    outputs_at_samples,
    predicted_classes,
    where_right,
)
from models.instances import TargetNet, TargetNets
from models.target_nets import architectures_by_class_id, siren

PHOTOS = ((1, 8, 8), 10)


@pytest.fixture(scope="module")
def nets():
    return TargetNets.on_images(architectures_by_class_id(), *PHOTOS)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1100, 8, 8, 1), dtype=np.uint8)  # more than are run at once
    return make_images(pixels, rng.integers(0, 10, 1100), (0.5,), (0.25,), 1)


def test_accuracy_is_the_percentage_of_images_that_are_classified_right(nets, images):
    net = nets[2]
    rows = net.fuse(net.start(range(35)))  # more than are run at once
    found = accuracy(net, rows, images)
    assert found.shape == (35,) and found.dtype == torch.float32 and len(set(found.tolist())) > 5
    few = [0, 1, 34]
    reference = plain.accuracies(net, rows[few], images.plain(0, 1100), images.labels, 128)
    assert found[few].tolist() == pytest.approx(reference, abs=0.1)  # rounding may change a class or two
    classes = predicted_classes(net, rows, images)
    assert classes.shape == (35, 1100)
    right = (classes == images.labels).double().mean(1)
    torch.testing.assert_close(found.double(), 100 * right, rtol=1e-6, atol=0)


def test_accuracies_of_several_architectures_are_in_the_instances_order(nets, images):
    class_ids, rows, reference = (2, 0, 3, 0), torch.zeros(4, 29_474), []
    for row, class_id in zip(rows, class_ids):
        own = nets[class_id].fuse(nets[class_id].start([len(reference)]))
        row[: own.shape[1]] = own[0]
        reference.append(accuracy(nets[class_id], own, images).item())
    found = mixed_accuracy(nets, rows, class_ids, images)
    assert found.tolist() == pytest.approx(reference, abs=0.1)
    dataset = NetsDataset(nets, rows, class_ids, ({},) * 4, ())
    assert torch.equal(accuracy_of(dataset, images), found)


def test_agreement_is_the_percentage_of_images_with_one_class_for_both(nets, images):
    net = nets[0]
    rows, others = net.fuse(net.start([0, 1, 2])), net.fuse(net.start([3, 1, 4]))
    found = agreement(net, rows, others, images)
    for i in range(3):
        x = images.plain(0, 1100)
        same = (net.module(rows[i])(x).argmax(1) == net.module(others[i])(x).argmax(1)).double().mean()
        assert found[i].item() == pytest.approx(100 * same.item(), abs=0.1)
    assert found[1] == 100


def test_an_accuracy_counts_only_where_the_class_id_is_the_desired_one():
    assert where_right(torch.tensor([10.0, 20.0, 30.0]), [0, 1, 2], [0, 2, 2]).tolist() == [10, 0, 30]


# Lines


@given(st.integers(1, 5), st.integers(2, 9), st.integers(0, 99))
def test_a_line_begins_and_ends_at_its_ends_and_is_straight(size, points, seed):
    generator = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, 3, size, generator=generator, dtype=torch.float64)
    gamma = torch.linspace(0, 1, points, dtype=torch.float64)
    lines = interpolate(start, end, gamma)
    assert lines.shape == (3, points, size)
    assert torch.equal(lines[:, 0], start) and torch.equal(lines[:, -1], end)
    for i, value in enumerate(gamma.tolist()):
        torch.testing.assert_close(lines[:, i], (1 - value) * start + value * end)
    assert torch.equal(interpolate(start[0], end[0], gamma), lines[0])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_the_fraction_out_of_order_is_that_of_the_fewest_points_to_remove(class_ids):
    def in_order(chosen):
        return all(one <= other for one, other in itertools.pairwise(chosen))

    subsequences = itertools.chain.from_iterable(
        itertools.combinations(class_ids, length) for length in range(1, len(class_ids) + 1)
    )
    longest = max(len(each) for each in subsequences if in_order(each))
    assert fraction_out_of_order(class_ids) == pytest.approx(1 - longest / len(class_ids))


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=9))
def test_the_median_is_one_of_the_values_the_lower_of_two(values):
    assert values[median_index(torch.tensor(values))] == sorted(values)[(len(values) - 1) // 2]


def test_correlations_and_those_that_are_not_defined():
    assert correlation([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]) == pytest.approx(1)
    assert correlation([1.0, 2.0, 4.0], [9.0, 5.0, -90.0], ranks=True) == pytest.approx(-1)
    x, y = np.random.default_rng(0).standard_normal((2, 20))
    assert correlation(x.tolist(), y.tolist()) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert correlation([1.0], [3.0]) is None and correlation([1.0, 2.0], [3.0, 3.0]) is None


# Signed distance functions


def test_closeness_is_the_fraction_of_distances_within_a_hundredth():
    predicted = torch.tensor([[0.0, 0.009, -0.011, 0.5], [0.02, 0.02, 0.02, 0.0]])
    assert closeness(predicted, torch.zeros(2, 4)).tolist() == [0.5, 0.25]
    assert closeness(predicted, torch.zeros(2, 4), tolerance=0.1).tolist() == [0.75, 1.0]


def test_closeness_of_rows_is_at_the_samples_of_each():
    net = TargetNet(siren((3, 7, 1)))
    rows, samples = net.fuse(net.start(range(20))), torch.rand(20, 50, 4)  # more than are run at once
    sirens = NetsDataset(TargetNets([net]), rows, (0,) * 20, ({},) * 20, (), samples)
    predicted = rows + 1e-2 * torch.randn_like(rows)
    outputs = outputs_at_samples(sirens, predicted)
    found = closeness_to(sirens, torch.cat([predicted, torch.randn(20, 5)], 1))
    for i in range(20):
        mine, target = (net.module(each[i])(samples[i, :, :3]).detach() for each in (predicted, rows))
        torch.testing.assert_close(outputs[i], mine, rtol=1e-4, atol=1e-5)
        fraction = sum(math.fabs(a - b) < 0.01 for a, b in zip(mine.tolist(), target.tolist())) / 50
        assert found[i].item() == pytest.approx(fraction, abs=0.021)
    assert 0 < found.mean() < 1
    assert closeness_to(sirens, rows).tolist() == [1.0] * 20
