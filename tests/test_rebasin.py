"""Alignment: the same function, never farther from the reference, and the same whatever order channels came in."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from data.streams import stream
from models.instances import TargetNet
from models.rebasin import align
from models.rows import Layout, reordering, reorderings
from models.target_nets import get_architecture, siren

NAMES = ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"]


def image_net(name):
    return TargetNet(get_architecture(name), (1, 8, 8), 10)


def started(net, *seeds):
    """Return rows (N, P) of nets as they start, with biases that are not zero."""
    rows = net.fuse(net.start(seeds))
    generator = torch.Generator().manual_seed(seeds[0])
    return rows + 0.05 * torch.randn(rows.shape, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_the_function_stays_and_the_reference_comes_nearer(name):
    net = image_net(name)
    rows = started(net, 1, 2, 3)
    index = align(net.layout, net.hidden_channels(), rows[:2], rows[2])
    aligned = rows[:2].gather(1, index)
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    before, after = net.run(rows[:2].double(), x), net.run(aligned.double(), x)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    assert ((aligned - rows[2]).norm(dim=1) < (rows[:2] - rows[2]).norm(dim=1)).all()
    assert torch.equal(index.sort(1)[0], torch.arange(net.num_parameters).expand(2, -1))


@pytest.mark.parametrize("name", NAMES)
def test_a_reordered_net_comes_back_exactly(name):
    net = image_net(name)
    row, reference = started(net, 1, 2).split(1)
    hidden = net.hidden_channels()
    for seed in range(3):
        index = reordering(net.layout, hidden, stream("order", seed))
        copies = torch.cat([reference[:, index], row[:, index]])
        aligned = copies.gather(1, align(net.layout, hidden, copies, reference[0]))
        assert torch.equal(aligned[:1], reference)
        assert torch.equal(aligned[1:], row.gather(1, align(net.layout, hidden, row, reference[0])))


def test_a_single_hidden_layer_is_matched_as_well_as_can_be():
    """Of one group of channels, the Hungarian method gives the best order of all 24."""
    net = TargetNet(siren((3, 4, 1)))
    rows = started(net, 1, 2)
    aligned = rows[:1].gather(1, align(net.layout, net.hidden_channels(), rows[:1], rows[1]))
    first = rows.double()[:, :12].view(2, 4, 3), rows.double()[:, 12:16], rows.double()[:, 16:20]
    features = torch.cat([first[0], first[1][..., None], first[2][..., None]], 2)
    costs = torch.cdist(features[1], features[0]).square().numpy()
    best = costs[linear_sum_assignment(costs)].sum()
    fixed = (rows[0, 20:] - rows[1, 20:]).double().square().sum().item()
    assert (aligned[0] - rows[1]).double().square().sum().item() == pytest.approx(best + fixed, rel=1e-5)


def test_an_aligned_net_stays_as_it_is():
    net = image_net("resnet8")
    rows = started(net, 1, 2)
    aligned = rows[:1].gather(1, align(net.layout, net.hidden_channels(), rows[:1], rows[1]))
    again = align(net.layout, net.hidden_channels(), aligned, rows[1])
    assert torch.equal(aligned.gather(1, again), aligned)


@pytest.mark.parametrize("name", ["resnet8", "resnet32"])
def test_batch_norm_goes_with_its_conv(name):
    """Channels of a net with batch norm are permuted with their running statistics: the same function."""
    net = image_net(name)
    layout = Layout.of(net.trained, running_statistics=True)
    state = {key: value.double() + 0.1 for key, value in net.start([1]).items() if value.is_floating_point()}
    state = {key: value + 0.1 * torch.rand_like(value) for key, value in state.items()}
    index = reordering(layout, net.hidden_channels(), np.random.default_rng(0))
    reordered = layout.unflatten(layout.flatten(state)[:, index])
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net.run(net.fuse(reordered), x), net.run(net.fuse(state), x))
    assert not torch.equal(layout.flatten(state)[:, index], layout.flatten(state))


@pytest.mark.parametrize("name", NAMES)
def test_many_orders_at_once_are_those_one_by_one(name):
    net = image_net(name)
    hidden, layout = net.hidden_channels(), net.layout
    shapes = dict(zip(layout.names, layout.shapes))
    sizes = [shapes[f"{channels.made_by[0]}.weight"][0] for channels in hidden]
    rng = np.random.default_rng(0)
    orders = [[rng.permutation(size) for _ in range(3)] for size in sizes]

    class Given:
        """A generator whose permutations are given."""

        def __init__(self, i):
            self.orders = iter(each[i] for each in orders)

        def permutation(self, _):
            return next(self.orders)

    together = reorderings(layout, hidden, [torch.from_numpy(np.stack(each)) for each in orders])
    for i in range(3):
        assert torch.equal(together[i], reordering(layout, hidden, Given(i)))
