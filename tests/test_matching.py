"""Direct matching: sums of one pass give what slow solutions on all activations give, for every pair at every point."""

import numpy as np
import pytest
import scipy.linalg
import torch

from models.instances import TargetNet
from models.matching import Moments, sum_activations
from models.rows import reordering
from models.stitching import Transform, one_hot, stitchable
from models.target_nets import get_architecture
from tests.test_stitching import NAMES, make

N, C1, C2 = 200, 5, 4


def activations(seed=0):
    """Return X (N, C1) and Y (N, C2) that depend on each other, with means."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, C1)) @ rng.standard_normal((C1, C1)) + rng.standard_normal(C1)
    return x, x @ rng.standard_normal((C1, C2)) + rng.standard_normal((N, C2)) + 2


def moments(*pairs):
    sums = []
    for x, y in pairs:
        one, other = (np.column_stack([each, np.ones(len(each))]) for each in (x, y))
        sums.append((one.T @ one, one.T @ other, other.T @ other))
    return Moments(*(torch.from_numpy(np.stack(each)) for each in zip(*sums)))


def applied(transform, x, i=0):
    return x @ transform.weight[i].numpy().T + transform.bias[i].numpy()


def error(transform, x, y):
    return ((applied(transform, x) - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_pass_fits_every_pair_at_every_point_as_all_activations_do(name, before):
    net, rows = make(name, 3)
    rows, x = rows.double(), torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    points = stitchable(net, net)
    for ends in (rows, rows[1:].clone()):  # the same tensor runs once
        sums = sum_activations(net, rows, net, ends, points, x.split(8), before)
        for front_point, end_point in points:
            front = net.run_front(rows, x, front_point, before).movedim(2, -1).flatten(1, -2).numpy()
            end = net.run_front(ends, x, end_point, before).movedim(2, -1).flatten(1, -2).numpy()
            pairs = [(i, j) for i in range(len(rows)) for j in range(len(ends))]
            found = sums[front_point, end_point].of(*zip(*pairs)).least_squares()
            for k, (i, j) in enumerate(pairs):
                ones = np.column_stack([front[i], np.ones(len(front[i]))])
                expected = ones @ np.linalg.lstsq(ones, end[j], rcond=1e-5)[0]
                assert applied(found, front[i], k) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_net_and_its_reordered_copy_are_matched_by_that_order(name):
    net, rows = make(name, 1)
    index = reordering(net.layout, net.hidden_channels(), np.random.default_rng(0))
    both, x = 2 * torch.cat([rows, rows[:, index]]).double(), torch.randn(200, 1, 8, 8).double()
    points = [(point, point) for point in net.points]
    for (point, _), sums in sum_activations(net, both, net, both, points, [x]).items():
        found = sums.of([0, 0], [0, 1])
        transform = found.least_squares()
        shown = net.run_front(both, x, point).movedim(2, -1).flatten(1, -2)
        order = torch.cdist(shown[1].T, shown[0].T).argmin(1)  # of the channels
        assert sorted(order.tolist()) == list(range(len(order)))
        expected = torch.stack([torch.eye(len(order)), torch.eye(len(order))[order]]).double()
        assert torch.allclose(transform.weight, expected, atol=1e-6) and transform.bias.abs().max() < 1e-6
        assert found.relative_errors(transform).max() < 1e-12


def test_dead_channels_are_left_out():
    net, rows = make("resnet8", 1)
    state = {name: value.clone() for name, value in net.layout.unflatten(rows).items()}
    state["conv1.weight"][:, 1], state["conv1.bias"][:, 1] = 0, 0
    row, x = net.layout.flatten(state).double(), torch.randn(50, 1, 8, 8).double()
    found = sum_activations(net, row, net, row, [("stem", "stem")], [x])["stem", "stem"].of([0], [0]).least_squares()
    expected = torch.eye(4).double()
    expected[1, 1] = 0
    assert torch.allclose(found.weight[0], expected, atol=1e-9) and found.bias.abs().max() < 1e-9


def test_several_pairs_are_solved_at_once_and_errors_are_those_of_all_activations():
    pairs = [activations(seed) for seed in range(3)]
    found = moments(*pairs)
    transform = found.least_squares()
    for i, (x, y) in enumerate(pairs):
        alone = moments((x, y)).least_squares()
        assert torch.allclose(transform.weight[i], alone.weight[0], atol=1e-10)
        assert found.relative_errors(transform)[i].item() == pytest.approx(error(alone, x, y), abs=1e-12)
    nearby = Transform(transform.weight + 0.01, transform.bias)
    assert (found.relative_errors(nearby) > found.relative_errors(transform)).all()


def test_the_orthogonal_transform_is_procrustes_of_centred_activations():
    x, y = activations()
    x = x[:, :C2]
    found = moments((x, y)).orthogonal()
    rotation, _ = scipy.linalg.orthogonal_procrustes(x - x.mean(0), y - y.mean(0))
    assert pytest.approx(rotation, abs=1e-9) == found.weight[0].numpy().T
    assert applied(found, x).mean(0) == pytest.approx(y.mean(0), abs=1e-9)
    wide = moments(activations()).orthogonal().weight[0]  # from 5 to 4 channels
    assert torch.allclose(wide @ wide.T, torch.eye(C2).double(), atol=1e-9)


@pytest.mark.parametrize("rank", range(1, C2 + 1))
def test_a_transform_of_low_rank_fits_best_among_those_of_its_rank(rank):
    x, y = activations()
    found = moments((x, y)).low_rank(rank)
    centred, full = x - x.mean(0), moments((x, y)).least_squares().weight[0].numpy().T
    _, _, right = np.linalg.svd(centred @ full, full_matrices=False)
    expected = centred @ full @ right[:rank].T @ right[:rank] + y.mean(0)
    assert applied(found, x) == pytest.approx(expected, abs=1e-8)
    assert torch.linalg.matrix_rank(found.weight[0]) == rank
    rng = np.random.default_rng(1)
    for _ in range(20):
        noise = np.eye(C2) + 0.01 * rng.standard_normal((C2, C2))
        assert error(Transform(torch.from_numpy(noise) @ found.weight, found.bias), x, y) > error(found, x, y)


def test_each_end_channel_reads_the_front_channel_that_correlates_most():
    x, y = activations()
    found = moments((x, y))
    expected = np.corrcoef(x.T, y.T)[C1:, :C1]
    assert found.correlations()[0].numpy() == pytest.approx(expected, abs=1e-10)
    mask = one_hot(found.correlations().abs().argmax(2), C1)
    transform = found.one_to_one(mask)
    assert ((transform.weight != 0) == (mask != 0)).all()
    for k, chosen in enumerate(np.abs(expected).argmax(1)):
        slope, shift = np.polyfit(x[:, chosen], y[:, k], 1)
        assert transform.weight[0, k, chosen].item() == pytest.approx(slope, abs=1e-9)
        assert transform.bias[0, k].item() == pytest.approx(shift, abs=1e-9)


def test_a_constant_channel_correlates_with_nothing():
    x, y = activations()
    x[:, 2], y[:, 1] = 3.0, 0.0
    found = moments((x, y)).correlations()[0]
    assert found.isfinite().all() and found[:, 2].abs().max() < 1e-6 and found[1].abs().max() < 1e-6


def test_the_constant_transform_shows_mean_activations():
    x, y = activations()
    found = moments((x, y))
    transform = found.constant()
    assert applied(transform, x) == pytest.approx(np.tile(y.mean(0), (N, 1)), abs=1e-9)
    assert found.relative_errors(transform).item() == pytest.approx(1)
    mean, std = found.distances(transform)
    assert mean.item() == pytest.approx(0, abs=1e-9) and std.item() == pytest.approx(1)


def test_distances_are_of_means_and_standard_deviations_of_channels():
    x, y = activations()
    transform = Transform(torch.randn(1, C2, C1).double(), torch.randn(1, C2).double())
    moved, size = applied(transform, x), np.linalg.norm(y.std(0))
    mean, std = moments((x, y)).distances(transform)
    assert mean.item() == pytest.approx(np.linalg.norm(moved.mean(0) - y.mean(0)) / size)
    assert std.item() == pytest.approx(np.linalg.norm(moved.std(0) - y.std(0)) / size)


def test_nets_of_two_architectures_are_matched():
    front, end = (TargetNet(get_architecture(name), (1, 8, 8), 10) for name in ("vanilla_cnn", "resnet8"))
    rows, points = [net.fuse(net.start([0])) for net in (front, end)], ("layers.5", "layer3.0")
    sums = sum_activations(front, rows[0], end, rows[1], [points], [torch.randn(60, 1, 8, 8)])
    found = sums[points].of([0], [0])
    assert found.least_squares().weight.shape == (1, 16, 8)
    assert found.relative_errors(found.least_squares()).item() < 1
