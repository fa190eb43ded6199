"""Layers that compute M instances at once, against PyTorch's own on one instance after the other, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from models import layers
from models.instances import run_instances

M, B = 3, 5
MANY = 19  # instances, in two groups that are merged, and a smaller one
FORMS = ["channels", "vmap", "alone"]


@settings(max_examples=50)
@given(data=st.data())
def test_convs_of_folded_instances(data):
    """Any square conv, its outputs and gradients, on own and on common images."""
    kernel = data.draw(st.integers(1, 5))
    stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(0, kernel - 1))
    side = st.integers(max(1, kernel - 2 * padding), 9)
    i, o, h, w = (data.draw(each) for each in (st.integers(2, 5), st.integers(1, 7), side, side))
    conv = layers.Conv2d(i, o, kernel, stride, padding)
    common = data.draw(st.booleans())
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((B, i, h, w) if common else (M, B, i, h, w), (M, o, i, kernel, kernel), (M, o))
    )
    folded = x if common else layers.fold_instances(x)
    ours = functional_call(conv, {"weight": weight, "bias": bias}, (folded,)).unflatten(1, (M, o)).transpose(0, 1)
    each = zip(x.expand(M, B, i, h, w), weight, bias)
    plain = torch.stack([F.conv2d(*one, stride, padding) for one in each])
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(plain)
    for mine, theirs in zip(*(torch.autograd.grad(out, (x, weight, bias), weights) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("m", [2, 8, MANY])
@pytest.mark.parametrize("channels", [(16, 32), (4, 8), (3, 16), (100, 2), (300, 1)], ids=str)
@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (1, 1, 0), (1, 2, 0), (3, 1, 1), (3, (2, 1), 0)])
def test_convs_as_a_gpu_computes_them(monkeypatch, m, channels, kernel, stride, padding):
    """Outputs and gradients, where instances are merged, or few channels filled up."""
    monkeypatch.setattr(layers, "on_tensor_cores", lambda x: True)
    conv, (i, o) = layers.Conv2d(*channels, kernel, stride, padding), channels
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((m, 2, i, 6, 5), (m, o, i, kernel, kernel), (m, o))
    )
    ours = functional_call(conv, {"weight": weight, "bias": bias}, (layers.fold_instances(x),))
    plain = torch.stack([F.conv2d(*one, stride, padding) for one in zip(x, weight, bias)])
    torch.testing.assert_close(ours.unflatten(1, (m, o)).transpose(0, 1), plain)
    weights = torch.randn_like(plain)
    found = torch.autograd.grad(ours, (x, weight, bias), layers.fold_instances(weights))
    for mine, theirs in zip(found, torch.autograd.grad(plain, (x, weight, bias), weights)):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_folded_instances(training):
    """Outputs, gradients and running statistics."""
    norm = layers.BatchNorm2d(4).train(training)
    x = torch.randn(M, B, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    mean, weight, bias = (torch.randn(M, 4, dtype=torch.float64, requires_grad=i > 0) for i in range(3))
    var = torch.rand(M, 4, dtype=torch.float64) + 0.5
    running = mean.clone(), var.clone()
    state = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var}
    ours = functional_call(norm, state, (layers.fold_instances(x),)).unflatten(1, (M, 4)).transpose(0, 1)
    plain = torch.stack([F.batch_norm(*each, training, 0.1, 1e-5) for each in zip(x, *running, weight, bias)])
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close((mean, var), running)
    weights = torch.randn_like(plain)
    for mine, theirs in zip(*(torch.autograd.grad(out, (x, weight, bias), weights) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("shape", [(B, M * 4), (M, B, 4)], ids=["folded", "points"])
def test_linear_layers_of_instances(shape):
    x, weight, bias = (
        torch.randn(*each, dtype=torch.float64, requires_grad=True) for each in (shape, (M, 3, 4), (M, 3))
    )
    ours = functional_call(layers.Linear(4, 3), {"weight": weight, "bias": bias}, (x,))
    own = x if len(shape) == 3 else x.unflatten(1, (M, 4)).transpose(0, 1)
    plain = torch.stack([F.linear(*each) for each in zip(own, weight, bias)])
    torch.testing.assert_close(ours if len(shape) == 3 else ours.unflatten(1, (M, 3)).transpose(0, 1), plain)
    for mine, theirs in zip(*(torch.autograd.grad(out.square().sum(), (x, weight, bias)) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("i, o", [(3, 9), (9, 7), (9, 1), (9, 3), (2, 1)])
def test_linear_layers_as_they_are_compiled(i, o):
    x, weight, bias = (
        torch.randn(*each, dtype=torch.float64, requires_grad=True) for each in ((M, B, i), (M, o, i), (M, o))
    )
    given, layer = {"weight": weight, "bias": bias}, layers.Linear(i, o)
    compiled = torch.compile(lambda given, x: functional_call(layer, given, (x,)), backend="aot_eager", fullgraph=True)
    ours, plain = compiled(given, x), torch.stack([F.linear(*each) for each in zip(x, weight, bias)])
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(*(torch.autograd.grad(out.square().sum(), (x, weight, bias)) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "conv", [dict(kernel_size=(3, 1)), dict(stride=(2, 1)), dict(dilation=2), dict(padding="same"), dict(padding=3)]
)
def test_convs_of_other_kinds(conv, form):
    net = layers.Conv2d(2, 3, **{"kernel_size": 3, **conv}).double()
    plain = nn.Sequential(nn.Conv2d(2, 3, **{"kernel_size": 3, **conv}), nn.Flatten())
    state = {f"0.{name}": torch.randn(M, *value.shape).double() for name, value in net.state_dict().items()}
    images = torch.randn(M, B, 2, 8, 8, dtype=torch.float64)
    alone = [functional_call(plain, {name: value[i] for name, value in state.items()}, images[i]) for i in range(M)]
    ours = run_instances(nn.Sequential(net, nn.Flatten()), state, images, True, form)
    torch.testing.assert_close(ours, torch.stack(alone))


@pytest.mark.parametrize(
    "foreign",
    [
        nn.Conv2d(2, 2, 3),
        nn.GroupNorm(1, 2),
        nn.Embedding(3, 2),
        layers.Conv2d(2, 2, 3, groups=2),
        layers.Conv2d(2, 2, 3, padding_mode="reflect"),
        nn.BatchNorm2d(2, affine=False),
    ],
    ids=repr,
)
def test_layers_that_compute_one_instance_alone_are_known(foreign):
    own = nn.Sequential(layers.Conv2d(1, 2, 3), layers.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), layers.Linear(2, 3))
    assert layers.foreign_layer(own) is None
    assert layers.foreign_layer(nn.Sequential(own, foreign)) == "1"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own", [True, False])
def test_maps_are_in_channels_last_memory_also_behind_images_of_one_channel(channels, own):
    x = torch.randn(M, B, channels, 8, 8) if own else torch.randn(B, channels, 8, 8)
    folded = layers.channels_last(layers.fold_instances(x) if own else x)
    assert torch.equal(layers.unfold_instances(folded, M) if own else folded, x)
    conv, weight = layers.Conv2d(channels, 4, 3, padding=1), torch.randn(M, 4, channels, 3, 3)
    maps = functional_call(conv, {"weight": weight, "bias": torch.zeros(M, 4)}, (folded,))
    assert folded.stride(1) == maps.stride(1) == 1


def test_one_instance_on_points_has_the_gradients_of_a_linear_layer():
    """With few inputs the weight has another layout."""
    for inputs in (3, 40):
        linear, x = layers.Linear(inputs, 5).double(), torch.randn(B, inputs, dtype=torch.float64, requires_grad=True)
        state = {name: value.detach()[None].requires_grad_() for name, value in linear.named_parameters()}
        ours, theirs = functional_call(linear, state, (x[None],))[0], linear(x)
        torch.testing.assert_close(ours, theirs)
        expected = torch.autograd.grad(theirs.sin().sum(), [*linear.parameters(), x])
        for mine, other in zip(torch.autograd.grad(ours.sin().sum(), [*state.values(), x]), expected):
            torch.testing.assert_close(mine.view_as(other), other)
