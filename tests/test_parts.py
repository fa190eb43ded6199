"""Stitch points: a net that is cut and joined again is the net, for every architecture, point and form."""

import pytest
import torch
from torch import nn

from models.errors import InputError
from models.instances import TargetNet, run_instances
from models.layers import Conv2d, Linear, fold_instances, unfold_instances
from models.target_nets import ARCHITECTURES, Architecture, siren
from models.target_nets.parts import Part, PartedNet
from tests.conftest import spread_out

PHOTOS, CIFAR, MNIST, POINTS = (1, 8, 8), (3, 32, 32), (1, 28, 28), (3,)
B = 4

# Points and their shapes, on images of 8 and 32 pixels.
SHAPES = {
    ("lenetlike", PHOTOS): {"conv1": (2, 4, 4), "conv2": (4, 2, 2), "fc1": (12,), "fc2": (10,)},
    ("lenetlike", CIFAR): {"conv1": (6, 14, 14), "conv2": (16, 5, 5), "fc1": (120,), "fc2": (84,)},
    ("vanilla_cnn", PHOTOS): dict(
        zip(
            [f"layers.{i}" for i in (1, 3, 5, 7, 9)],
            [(4, 4, 4), (4, 4, 4), (8, 2, 2), (16, 2, 2), (8, 2, 2)],
        )
    ),
    ("vanilla_cnn", CIFAR): dict(
        zip(
            [f"layers.{i}" for i in (1, 3, 5, 7, 9)],
            [(8, 16, 16), (8, 16, 16), (32, 8, 8), (64, 8, 8), (64, 4, 4)],
        )
    ),
    ("resnet8", PHOTOS): {
        "stem": (4, 8, 8),
        "layer1.0": (4, 8, 8),
        "layer2.0": (8, 4, 4),
        "layer3.0": (16, 2, 2),
        "pool": (16,),
    },
    ("resnet8", CIFAR): {
        "stem": (16, 32, 32),
        "layer1.0": (16, 32, 32),
        "layer2.0": (32, 16, 16),
        "layer3.0": (64, 8, 8),
        "pool": (64,),
    },
    ("tiny10", PHOTOS): {
        f"conv{i}": shape for i, shape in enumerate([(4, 8, 8)] * 2 + [(8, 4, 4)] * 3 + [(16, 2, 2)] * 3, start=1)
    },
    ("tiny10", CIFAR): {
        "conv1": (16, 30, 30),
        "conv2": (16, 28, 28),
        "conv3": (32, 13, 13),
        "conv4": (32, 11, 11),
        "conv5": (32, 9, 9),
        "conv6": (64, 4, 4),
        "conv7": (64, 2, 2),
        "conv8": (64, 2, 2),
    },
    ("siren", POINTS): {"mlp.1": (16,), "mlp.3": (12,)},
    ("cnn_s-gelu", MNIST): {
        "module_list.2": (8, 12, 12),
        "module_list.5": (6, 4, 4),
        "module_list.7": (4, 3, 3),
        "module_list.10": (20,),
    },
    ("unterthiner-tanh", MNIST): {"conv1": (16, 13, 13), "conv2": (16, 6, 6), "conv3": (16, 2, 2)},
}
ON = [*SHAPES, ("resnet32", PHOTOS), ("cnn_l-relu", CIFAR), ("unterthiner-silu", CIFAR), ("resnet20x2", PHOTOS)]
ON += [pytest.param(*each, marks=pytest.mark.slow) for each in (("resnet18", CIFAR), ("resnet20x5", CIFAR))]
on_nets = pytest.mark.parametrize(("name", "shape"), ON)


def make(name, shape, m):
    """Return a net, rows of m instances and inputs: images in channels-last memory, as batches are, or points."""
    architecture = siren((3, 16, 12, 1)) if name == "siren" else ARCHITECTURES[name]
    net = TargetNet(architecture, shape, 1 if name == "siren" else 10)
    rows = net.fuse(spread_out(net.start(range(m)), seed=m))
    x = torch.randn(m, B, *shape)
    return net, rows, x if len(shape) == 1 else x.movedim(2, -1).contiguous().movedim(-1, 2)


@pytest.mark.parametrize("own", [True, False], ids=["own inputs", "shared"])
@pytest.mark.parametrize("m", [1, 3])
@on_nets
@torch.no_grad()
def test_front_then_end_is_the_net_bit_for_bit(name, shape, m, own):
    net, rows, x = make(name, shape, m)
    x = x if own else x[0]
    expected = net.run(rows, x)
    for before in (False, True):
        together = net.run_points(rows, x, net.points, before)
        for point, found in zip(net.points, together):
            front = net.run_front(rows, x, point, before)
            assert front.shape == (m, B, *net.point_shape(point)) and torch.equal(front, found), point
            kept = front.clone()
            assert torch.equal(net.run_end(rows, front, point, before), expected), point
            assert torch.equal(front, kept), f"{point}: run_end overwrote the activations"


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_points_and_their_shapes(name, shape):
    net, _, _ = make(name, shape, 1)
    assert {point: net.point_shape(point) for point in net.points} == SHAPES[name, shape]
    assert net.points == list(SHAPES[name, shape])


def test_a_resnet_has_3n_plus_2_points():
    for name, n in (("resnet8", 1), ("resnet20x3", 3), ("resnet32", 5), ("resnet56", 9)):
        assert len(TargetNet(ARCHITECTURES[name], PHOTOS, 10).points) == 3 * n + 2


@pytest.mark.parametrize("form", ["channels", "alone", "vmap"])
@pytest.mark.parametrize("name", ["lenetlike", "vanilla_cnn", "resnet8"])
@torch.no_grad()
def test_every_form_gives_what_plain_modules_give(name, form):
    """In float64, against each instance's module up to a point, and from it."""
    net, rows, x = make(name, PHOTOS, 3)
    net.fused.double()
    rows, x = rows.double(), x.double()
    state, modules = net.layout.unflatten(rows), [net.module(row) for row in rows]
    for point in net.points:
        for before in (False, True):
            cut = {"before_activation": before}
            front = run_instances(net.fused, state, x, True, form, until=point, **cut)
            expected = [module(own, until=point, **cut) for module, own in zip(modules, x)]
            torch.testing.assert_close(front, torch.stack(expected))
            for given in (front, front[0]):
                found = run_instances(net.fused, state, given, given is front, form, after=point, **cut)
                each = given if given is front else [given] * 3
                logits = [module(own, after=point, **cut) for module, own in zip(modules, each)]
                torch.testing.assert_close(found, torch.stack(logits))


@pytest.mark.parametrize("name", ["tiny10", "resnet20"])
@torch.no_grad()
def test_points_are_after_batch_norm_and_the_trained_net_is_cut_too(name):
    """In float64: batch norm fused or not, the activations before ReLU are the same."""
    net, _, x = make(name, PHOTOS, 2)
    state = {key: value.double() for key, value in spread_out(net.start(range(2)), seed=0).items()}
    net.trained.double().eval(), net.fused.double()
    trained = {key: value for key, value in state.items() if "num_batches" not in key}
    cut = {"until": net.points, "before_activation": True}
    found = run_instances(net.trained, trained, x.double(), True, "alone", **cut)
    for point, own, fused in zip(net.points, found, net.run_points(net.fuse(state), x.double(), net.points, True)):
        torch.testing.assert_close(own, fused, msg=lambda text, point=point: f"{point}: {text}")
        assert point == "pool" or (own < 0).any()


@torch.no_grad()
def test_before_the_activation_is_what_the_activation_gets():
    net, rows, x = make("resnet8", PHOTOS, 2)
    for point in net.points[:-1]:
        before, after = (net.run_front(rows, x, point, each) for each in (True, False))
        assert (before < 0).any() and torch.equal(nn.functional.leaky_relu(before), after)
    assert torch.equal(net.run_front(rows, x, "pool", True), net.run_front(rows, x, "pool"))


def test_gradients_go_through_a_cut():
    """At every point, and before the activation, where it is computed in place."""
    net, rows, x = make("resnet8", PHOTOS, 2)
    net.fused.double()
    rows, x = rows.double().requires_grad_(), x.double()
    (expected,) = torch.autograd.grad(net.run(rows, x).square().sum(), rows)
    for point in net.points:
        for before in (False, True):
            front = net.run_front(rows, x, point, before)
            (found,) = torch.autograd.grad(net.run_end(rows, front, point, before).square().sum(), rows)
            torch.testing.assert_close(found, expected)


def test_folding_maps_of_one_pass_copies_nothing():
    folded = torch.randn(2, 5, 5, 3 * 4).movedim(-1, 1)
    maps = unfold_instances(folded, 3)
    assert maps.shape == (3, 2, 4, 5, 5)
    assert maps.data_ptr() == folded.data_ptr() == fold_instances(maps).data_ptr()
    assert torch.equal(fold_instances(maps), folded)


def test_points_that_a_net_does_not_have_are_refused_with_those_it_has():
    net, rows, x = make("lenetlike", PHOTOS, 2)
    for run in (
        lambda: net.run_front(rows, x, "conv9"),
        lambda: net.run_end(rows, x, "conv9"),
        lambda: net.run_points(rows, x, ["conv1", "conv9"]),
        lambda: net.point_shape("conv9"),
        lambda: net.run_front(rows, x, "fc3"),  # gives the logits
    ):
        with pytest.raises(InputError, match="conv1, conv2, fc1, fc2"):
            run()
    with pytest.raises(InputError, match=r"\(2, 4, 1, 8, 8\).*conv1"):
        net.run_end(rows, x, "conv1")
    with pytest.raises(InputError, match="conv1.*fc1"):
        net.fused(torch.zeros(1, 12), after="fc1", until="conv1")
    assert net.run_points(rows, x, []) == []


# Architectures of one's own


class Plain(nn.Module):
    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.conv = Conv2d(image_shape[0], 4, 3, 2, 1)
        self.fc = Linear(4 * (image_shape[1] // 2) ** 2, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


class InParts(PartedNet):
    """Has a layer that is computed by vmap."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(image_shape[0], 4, 3, 2, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.fc = nn.Linear(4 * (image_shape[1] // 2) ** 2, num_classes)

    def parts(self):
        return [
            Part("first", lambda x: self.norm(self.conv(x)), torch.relu_),
            Part("fc", lambda x: self.fc(x.flatten(1))),
        ]


def test_a_net_without_parts_runs_and_says_what_it_lacks():
    net = TargetNet(Architecture("own", None, "own", Plain), PHOTOS, 10)
    rows, x = net.fuse(net.start([1])), torch.randn(B, *PHOTOS)
    assert net.run(rows, x).shape == (1, B, 10)
    for call in (lambda: net.points, lambda: net.point_shape("conv"), lambda: net.run_front(rows, x, "conv")):
        with pytest.raises(InputError, match=r"own.*parts\(\)"):
            call()


@torch.no_grad()
def test_a_net_of_ones_own_is_cut_also_where_vmap_computes_it():
    net = TargetNet(Architecture("own", None, "own", InParts), PHOTOS, 10)
    assert not net.folds and net.points == ["first"] and net.point_shape("first") == (4, 4, 4)
    rows, x = net.fuse(net.start([1, 2, 3])), torch.randn(3, B, *PHOTOS)
    for before in (False, True):
        front = net.run_front(rows, x, "first", before)
        torch.testing.assert_close(net.run_end(rows, front, "first", before), net.run(rows, x))
        torch.testing.assert_close(net.run_points(rows, x, ["first"], before), [front])
