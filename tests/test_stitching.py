"""Transforms and stitched nets, beside plain modules in float64; a net stitched to itself is itself."""

import numpy as np
import pytest
import torch

from models.errors import InputError
from models.instances import TargetNet
from models.stitching import (
    StitchedNets,
    Transform,
    layout_of,
    linear_cka,
    low_rank_start,
    random_start,
    stitchable,
    take_instances,
    transform_of,
)
from models.target_nets import get_architecture

PHOTOS = (1, 8, 8)
NAMES = ("lenetlike", "vanilla_cnn", "resnet8")


def make(name, number, shape=PHOTOS):
    """Return a net and rows (number, P) of random instances, with biases."""
    net = TargetNet(get_architecture(name), shape, 10)
    rows = net.fuse(net.start(range(number)))
    return net, rows + 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))


def images(number=5):
    return torch.randn(number, *PHOTOS, generator=torch.Generator().manual_seed(1))


def transforms(m, c1, c2, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return Transform(*(torch.randn(*shape, generator=generator).double() for shape in ((m, c2, c1), (m, c2))))


@pytest.mark.parametrize("size", [(), (3, 2)])
def test_a_transform_is_an_affine_map_of_channels(size):
    x, transform = torch.randn(3, 4, 5, *size).double(), transforms(3, 5, 2)
    expected = torch.einsum("mdc,mbc...->mbd...", transform.weight, x)
    expected += transform.bias.view(3, 1, 2, *(1 for _ in size))
    assert torch.allclose(transform.apply(x), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(), (3, 2)])
def test_instances_that_are_taken_are_those_of_an_index(size):
    x = torch.randn(4, 2, 3, *size)
    for chosen in ([0, 1, 2, 3], [2, 2, 0], [3, 1]):
        assert torch.equal(take_instances(x, chosen), x[chosen])


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_stitched_nets_are_front_transform_end_one_after_the_other(name, before):
    net, rows = make(name, 3)
    pairs, x = [(0, 1), (0, 2), (2, 2), (1, 0)], images().double()
    modules = [net.module(row).double() for row in rows]
    for front_point, end_point in stitchable(net, net):
        nets = StitchedNets(net, rows.double(), net, rows.double(), (front_point, end_point), pairs, before)
        transform = transforms(len(pairs), nets.c1, nets.c2)
        found = nets.run(transform, x)
        for i, (front, end) in enumerate(pairs):
            given = modules[front](x, until=front_point, before_activation=before)
            moved = transform[i : i + 1].apply(given[None])[0]
            expected = modules[end](moved, after=end_point, before_activation=before)
            assert torch.allclose(found[i], expected, atol=1e-10)


def test_nets_of_two_architectures_are_stitched_where_sizes_agree():
    front_net, fronts = make("vanilla_cnn", 1)
    end_net, ends = make("resnet8", 1)
    both = stitchable(front_net, end_net)
    assert ("layers.5", "layer3.0") in both and ("layers.5", "stem") not in both
    nets = StitchedNets(front_net, fronts, end_net, ends, ("layers.5", "layer3.0"), [(0, 0)])
    assert nets.run(Transform(torch.randn(1, 16, 8), torch.randn(1, 16)), images()).shape == (1, 5, 10)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_net_stitched_to_itself_by_the_identity_is_itself_bit_for_bit(name, before):
    for number in (1, 3):
        net, rows = make(name, number)
        expected = net.run(rows, images(64))
        for point in net.points:
            nets = StitchedNets(net, rows, net, rows, (point, point), [(i, i) for i in range(number)], before)
            eye = torch.eye(nets.c1).expand(number, nets.c1, nets.c1)
            assert torch.equal(nets.run(Transform(eye, torch.zeros(number, nets.c1)), images(64)), expected)


def test_on_larger_images_too():
    """There, instances are computed one by one."""
    net, rows = make("resnet8", 2, (3, 32, 32))
    x = torch.randn(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)  # as images are
    for point in ("layer1.0", "pool"):
        nets = StitchedNets(net, rows, net, rows, (point, point), [(1, 0), (1, 1)])
        found = nets.run(Transform(torch.eye(nets.c1).expand(2, -1, -1), torch.zeros(2, nets.c1)), x)
        assert torch.equal(found[1], net.run(rows[1:], x)[0])
        assert torch.allclose(found[0], net.run_end(rows[:1], net.run_front(rows[1:], x, point), point)[0], atol=1e-4)


def test_points_of_different_sizes_and_unknown_points_are_refused():
    net, rows = make("resnet8", 1)
    with pytest.raises(InputError, match="stem of resnet8 has 4x8x8 and layer2.0 of resnet8 has 8x4x4"):
        StitchedNets(net, rows, net, rows, ("stem", "layer2.0"), [(0, 0)])
    with pytest.raises(InputError, match="layer9.*layer2.0"):
        StitchedNets(net, rows, net, rows, ("layer9", "layer2.0"), [(0, 0)])


def test_the_random_start_is_that_of_a_conv():
    found = random_start(6, 4, [3, 4, 3])
    torch.manual_seed(3)
    conv = torch.nn.Conv2d(6, 4, 1)
    assert torch.equal(found["weight"][0], conv.weight[:, :, 0, 0]) and torch.equal(found["bias"][0], conv.bias)
    assert torch.equal(found["weight"][0], found["weight"][2])
    assert not torch.equal(found["weight"][0], found["weight"][1])


def test_a_transform_of_low_rank_starts_as_orthogonal_factors():
    state = low_rank_start(6, 5, 2, [0, 1])
    assert layout_of(6, 5, 2).unflatten(layout_of(6, 5, 2).flatten(state)).keys() == state.keys()
    transform = transform_of(state)
    assert torch.linalg.matrix_rank(transform.weight).tolist() == [2, 2] and not transform.bias.any()
    singular = torch.linalg.svdvals(transform.weight)[:, :2]  # of a product of two orthogonal factors
    assert torch.allclose(singular, torch.ones(2, 2), atol=1e-5)


def test_where_the_mask_is_0_weights_are_0():
    state = {"weight": torch.randn(2, 3, 4), "bias": torch.randn(2, 3)}
    mask = (torch.rand(2, 3, 4) > 0.5).float()
    assert torch.equal(transform_of(state, mask).weight, state["weight"] * mask)


def test_cka_is_that_of_centred_grams_and_keeps_its_invariances():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 7, 3, 2, 2)), rng.standard_normal((2, 7, 4))
    centre = np.eye(7) - 1 / 7

    def slow(one, other):
        k, other_k = (centre @ each.reshape(7, -1) @ each.reshape(7, -1).T @ centre for each in (one, other))
        return np.trace(k @ other_k) / np.sqrt(np.trace(k @ k) * np.trace(other_k @ other_k))

    found = linear_cka(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    assert found == pytest.approx([slow(*each) for each in zip(x, y)], abs=1e-12)
    turned = y @ np.linalg.qr(rng.standard_normal((4, 4)))[0] * 3 + 5
    assert linear_cka(torch.from_numpy(y), torch.from_numpy(turned)).numpy() == pytest.approx([1, 1], abs=1e-12)
