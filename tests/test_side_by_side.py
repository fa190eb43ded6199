"""Many instances at once against the same instances one by one, as plain PyTorch nets, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from models import layers
from models.bands import banded_conv
from models.instances import ArchitectureOnImages, run_instances
from models.registry import ARCHITECTURES
from tests.conftest import instances_in_float64
from training.ensembles import Ensemble

M, B = 3, 5
FORMS = ["channels", "batch", "alone"]
SMALL, CIFAR = ((1, 8, 8), 10), ((3, 32, 32), 10)


def plain_net(name, on, state, i):
    """Instance i as a net of its own, whose layers are PyTorch's, not ours."""
    net = ARCHITECTURES[name].build(*on).double()
    for module in net.modules():
        for child_name, child in module.named_children():
            for ours, pytorch in (
                (layers.Conv2d, nn.Conv2d),
                (layers.Linear, nn.Linear),
                (layers.BatchNorm2d, nn.BatchNorm2d),
            ):
                if isinstance(child, ours):
                    child.__class__ = pytorch
                    assert type(getattr(module, child_name)) is pytorch
    net.load_state_dict({key: value[i] for key, value in state.items()})
    return net


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("own_images", [True, False])
@pytest.mark.parametrize(
    ("name", "on"),
    [*((name, SMALL) for name in ARCHITECTURES), ("lenetlike", CIFAR), ("vanilla_cnn", CIFAR), ("resnet8", CIFAR)],
)
def test_outputs_gradients_and_statistics(name, on, own_images, form):
    nets, state = instances_in_float64(name, *on, m=M)
    images = torch.randn(*((M,) if own_images else ()), B, *on[0], dtype=torch.float64)
    labels = torch.randint(on[1], (M, B))
    running = {key: value.clone() for key, value in state.items() if "running" in key}
    rows = nets.trained_layout.flatten(state).requires_grad_()
    nets.trained.train()
    logits = run_instances(nets.trained, {**nets.trained_layout.unflatten(rows), **running}, images, form)
    F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    gradients = nets.trained_layout.unflatten(rows.grad)

    for i in range(M):
        net = plain_net(name, on, state, i).train()
        own = net(images[i] if own_images else images)
        F.cross_entropy(own, labels[i], reduction="sum").backward()
        torch.testing.assert_close(logits[i], own)
        for key, parameter in net.named_parameters():
            torch.testing.assert_close(gradients[key][i], parameter.grad, msg=lambda text, key=key: f"{key}: {text}")
        for key, value in running.items():
            torch.testing.assert_close(value[i], net.state_dict()[key])


@settings(max_examples=50)
@given(data=st.data())
def test_convs_by_bands_of_rows(data):
    """Any square conv, its outputs and gradients, one instance after the other in the batch."""
    kernel = data.draw(st.integers(1, 5))
    stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(0, kernel - 1))
    side = st.integers(max(1, kernel - 2 * padding), 9)
    i, o, h, w = (data.draw(each) for each in (st.integers(1, 5), st.integers(1, 40), side, side))
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((M * B, i, h, w), (M, o, i, kernel, kernel), (M, o))
    )
    ours = banded_conv(x, weight, bias, stride, padding)
    plain = torch.cat([F.conv2d(*each, stride, padding) for each in zip(x.chunk(M), weight, bias)])
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(plain)
    for mine, theirs in zip(*(torch.autograd.grad(out, (x, weight, bias), weights) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "conv", [dict(kernel_size=(3, 1)), dict(stride=(2, 1)), dict(dilation=2), dict(padding="same"), dict(padding=3)]
)
def test_convs_of_other_kinds(conv, form):
    net = layers.Conv2d(2, 3, **{"kernel_size": 3, **conv}).double()
    state = {name: torch.randn(M, *value.shape, dtype=torch.float64) for name, value in net.state_dict().items()}
    images, flat = torch.randn(M, B, 2, 8, 8, dtype=torch.float64), nn.Sequential(net, nn.Flatten())
    state = {f"0.{name}": value for name, value in state.items()}
    alone = [functional_call(flat, {name: value[i] for name, value in state.items()}, images[i]) for i in range(M)]
    torch.testing.assert_close(run_instances(flat, state, images, form), torch.stack(alone))


@pytest.mark.parametrize(
    "make_optimizer",
    [lambda p: torch.optim.Adam(p, 1e-2), lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-3)],
)
def test_training_side_by_side_is_training_one_by_one(make_optimizer):
    """Five steps; instance 1 leaves after the second, and the others go on as if it had never been there."""
    nets, state = instances_in_float64("resnet8", *SMALL, m=M)
    batches = [(torch.randn(M, B, *SMALL[0], dtype=torch.float64), torch.randint(10, (M, B))) for _ in range(5)]
    ensemble = Ensemble(nets, state, make_optimizer)
    for step, (images, labels) in enumerate(batches):
        staying = [0, 1, 2] if step < 2 else [0, 2]
        if step == 2:
            ensemble.keep(torch.tensor(staying))
        ensemble.step(images[staying], labels[staying])
    together = ensemble.state()

    for place, i in enumerate([0, 2]):
        net = plain_net("resnet8", SMALL, state, i).train()
        optimizer = make_optimizer(list(net.parameters()))
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(images[i]), labels[i]).backward()
            optimizer.step()
        for key, value in net.state_dict().items():
            torch.testing.assert_close(together[key][place], value, msg=lambda text, key=key: f"{key}: {text}")


def test_one_instance_in_float32_is_the_first_of_two():
    """A ResNet8 alone goes through PyTorch's convs, two of them through matrix products."""
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], *SMALL)
    state = nets.start([0, 1])
    images, labels = torch.randn(10, 2, 128, *SMALL[0]), torch.randint(10, (10, 2, 128))
    alone, both = (
        Ensemble(nets, {key: value[:m] for key, value in state.items()}, lambda p: torch.optim.SGD(p, 1e-2))
        for m in (1, 2)
    )
    for x, y in zip(images, labels):
        alone.step(x[:1], y[:1])
        both.step(x, y)
    for key, value in alone.state().items():
        torch.testing.assert_close(value[0], both.state()[key][0], rtol=1e-3, atol=1e-4)
