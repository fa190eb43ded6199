"""The nets of published zoos: plain twins, parameters and tokens as published, orders of channels, recognition."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data.instance_files import find_row, registered_row, row_of, save_instance
from data.recognition import fitting, forms, known_names, names_fit, registered_net, shapes_of
from models.errors import InputError
from models.instances import TargetNet
from models.rebasin import align
from models.rows import Layout, reordering
from models.target_nets import ARCHITECTURES, Architecture, architectures_by_class_id, architectures_for
from models.target_nets.cnn import ACTIVATIONS
from models.target_nets.resnet18 import ResNet18
from models.tokens import Tokens
from tests.conftest import PAPER, spread_out

GREY, COLOUR, CIFAR10 = ((1, 28, 28), 10), ((3, 28, 28), 10), ((3, 32, 32), 10)
NARROW = Architecture("narrow", None, "narrow;d18", partial(ResNet18, width=4), True, sides=range(16, 65))
PHOTOS = ((1, 8, 8), 10)
EVERY = [
    *((ARCHITECTURES[name], PHOTOS) for name in PAPER),
    *((ARCHITECTURES[f"cnn_s-{each}"], GREY) for each in ACTIVATIONS),
    *((ARCHITECTURES[f"cnn_l-{each}"], CIFAR10) for each in ACTIVATIONS),
    *((ARCHITECTURES[f"unterthiner-{each}"], GREY) for each in ACTIVATIONS),
    (NARROW, ((3, 16, 16), 10)),
]
every = pytest.mark.parametrize(("architecture", "on"), EVERY, ids=[each.name for each, _ in EVERY])


def in_float64(architecture, on, m):
    net = TargetNet(architecture, *on)
    net.trained.double()
    net.fused.double()
    state = {
        name: value.double() if value.is_floating_point() else value for name, value in net.start(range(m)).items()
    }
    return net, spread_out(state, seed=m)


@pytest.mark.parametrize(
    ("name", "on", "parameters", "token_size", "num_tokens"),
    [
        ("cnn_s-tanh", COLOUR, 2_864, 201, 48),
        ("cnn_s-relu", GREY, 2_464, 201, 48),
        ("cnn_l-gelu", CIFAR10, 10_853, 289, 93),
        ("unterthiner-relu", GREY, 4_970, 145, 58),
        ("unterthiner-tanh", ((1, 32, 32), 10), 4_970, 145, 58),
    ],
)
def test_parameters_and_tokens_are_those_published(name, on, parameters, token_size, num_tokens):
    net = TargetNet(ARCHITECTURES[name], *on)
    assert net.num_parameters == parameters and net.folds
    tokens = Tokens(net.layout, token_size)
    assert tokens.num_tokens == num_tokens
    assert max(sum(layer.columns) for layer in tokens.layers) == token_size


def test_resnet18_has_the_published_parameters_and_tokens():
    """Convs alone are 39,304 tokens at 288, or with their fused bias at 289: a row of 9 * 64 + 1 numbers is 3 at 288.

    On 100 classes, which is what the counts were published for.
    """
    trained, fused = (ARCHITECTURES["resnet18"].build((3, 32, 32), 100, fused=fused) for fused in (False, True))
    layout = Layout.of(trained)
    assert layout.num_parameters == 11_220_132
    everything = Layout.of(trained, running_statistics=True)
    assert Tokens(everything, 288).num_tokens == 53_704
    convs = [i for i, name in enumerate(layout.names) if len(layout.shapes[i]) == 4 or name.startswith("fc")]
    alone = Layout(tuple(layout.names[i] for i in convs), tuple(layout.shapes[i] for i in convs))
    assert Tokens(alone, 288).num_tokens == 39_304
    assert Tokens(Layout.of(fused), 289).num_tokens == 39_304
    assert Tokens(Layout.of(fused), 288).num_tokens == 43_144
    row = torch.randn(1, everything.num_parameters)
    tokens = Tokens(everything, 288)
    assert torch.equal(tokens.unpack(tokens.pack(row)), row)


def plain_resnet18(state, x):
    """Compute ResNet18 from torchvision's names."""

    def conv(x, name, norm, stride):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        mean, var, gamma, beta = (
            state[f"{norm}.{each}"][:, None, None] for each in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    x = conv(x, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = conv(x, f"{name}.conv1", f"{name}.bn1", stride).relu()
            out = conv(out, f"{name}.conv2", f"{name}.bn2", 1)
            if f"{name}.downsample.0.weight" in state:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = (out + x).relu()
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("side", [16, 20, 32])
def test_resnet18_computes_what_torchvisions_names_say_with_batch_norm_and_fused(side):
    net, state = in_float64(NARROW, ((3, side, side), 7), 2)
    images = torch.randn(3, 3, side, side, dtype=torch.float64)
    rows = net.fuse(state)
    with torch.no_grad():
        found = net.run(rows, images)
        for i in range(2):
            expected = plain_resnet18({name: value[i] for name, value in state.items()}, images)
            torch.testing.assert_close(found[i], expected, rtol=1e-9, atol=1e-9)


def test_unterthiners_net_is_three_convs_and_a_mean():
    net, state = in_float64(ARCHITECTURES["unterthiner-tanh"], GREY, 1)
    images = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    x = images
    for layer in ("conv1", "conv2", "conv3"):
        x = torch.tanh(F.conv2d(x, state[f"{layer}.weight"][0], state[f"{layer}.bias"][0], stride=2))
    assert x.shape[-1] == 2
    expected = F.linear(x.mean((2, 3)), state["fc.weight"][0], state["fc.bias"][0])
    torch.testing.assert_close(net.run(net.fuse(state), images)[0], expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activation_is_that_of_the_name(name):
    plain = {"leakyrelu": nn.LeakyReLU(0.01), "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}
    plain |= {"gelu": F.gelu, "silu": F.silu}
    net, state = in_float64(ARCHITECTURES[f"cnn_s-{name}"], GREY, 1)
    values = [value[0] for value in state.values()]
    images, act = torch.randn(2, 1, 28, 28, dtype=torch.float64), plain[name]
    x = act(F.max_pool2d(F.conv2d(images, *values[0:2]), 2))
    x = act(F.max_pool2d(F.conv2d(x, *values[2:4]), 2))
    x = act(F.conv2d(x, *values[4:6])).flatten(1)
    assert x.shape == (2, 36)
    expected = F.linear(act(F.linear(x, *values[6:8])), *values[8:10])
    torch.testing.assert_close(net.run(net.fuse(state), images)[0], expected)


@every
def test_rows_become_tokens_and_come_back_bit_for_bit_with_and_without_batch_norm(architecture, on):
    net = TargetNet(architecture, *on)
    for layout in (net.layout, net.trained_layout, Layout.of(net.trained, running_statistics=True)):
        rows = torch.randn(2, layout.num_parameters)
        for token_size in (1, 37, 289):
            tokens = Tokens(layout, token_size)
            packed = tokens.pack(rows)
            assert torch.equal(tokens.unpack(packed), rows)
            assert tokens.mask.sum() == layout.num_parameters and not packed[:, ~tokens.mask].any()


@every
def test_an_aligned_net_computes_the_same_and_a_reordered_one_comes_back(architecture, on):
    if architecture.name in ("resnet32", "resnet56"):
        pytest.skip("as resnet8, and slow")
    net, state = in_float64(architecture, on, 2)
    hidden, rows = net.hidden_channels(), net.fuse(state)
    images = torch.randn(2, *on[0], dtype=torch.float64)
    aligned = rows[1:].gather(1, align(net.layout, hidden, rows[1:], rows[0]))
    with torch.no_grad():
        torch.testing.assert_close(net.run(aligned, images), net.run(rows[1:], images), rtol=1e-9, atol=1e-9)
    assert (aligned - rows[0]).norm() < (rows[1] - rows[0]).norm()
    shuffled = rows[:1, reordering(net.layout, hidden, np.random.default_rng(1))]
    assert not torch.equal(shuffled[0], rows[0])
    assert torch.equal(shuffled.gather(1, align(net.layout, hidden, shuffled, rows[0])), rows[:1])


def test_resnet18_with_batch_norm_comes_back_from_another_order_too():
    net, state = in_float64(NARROW, ((3, 16, 16), 10), 1)
    layout = Layout.of(net.trained, running_statistics=True)
    row = layout.flatten(state)
    shuffled = row[:, reordering(layout, net.hidden_channels(), np.random.default_rng(1))]
    fused = [net.fuse({**state, **layout.unflatten(each)}) for each in (row, shuffled)]
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net.run(fused[1], images), net.run(fused[0], images))
    assert torch.equal(shuffled.gather(1, align(layout, net.hidden_channels(), shuffled, row[0])), row)


def test_class_ids_are_those_of_the_paper_alone():
    assert [each.name for each in architectures_by_class_id()] == ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"]


@every
def test_a_state_dict_is_recognized_and_an_activation_is_chosen_by_name_or_refused(architecture, on):
    if architecture is NARROW:
        pytest.skip("not registered")
    net = TargetNet(architecture, *on)
    for state in (net.trained.state_dict(), net.fused.state_dict()):
        assert registered_net(state, *on, "a.pt", [architecture.name]).architecture == architecture
        if "-" not in architecture.name:
            assert registered_net(state, *on, "a.pt").architecture == architecture
        else:
            with pytest.raises(InputError, match=f"a.pt.*{architecture.name}.*--architecture"):
                registered_net(state, *on, "a.pt")


def test_names_that_count_dropout_are_recognized_too():
    net = TargetNet(ARCHITECTURES["cnn_s-relu"], *GREY)
    state = net.fused.state_dict()
    numbers = {"0": "0", "3": "4", "6": "8", "9": "12", "11": "15"}
    other = {f"module_list.{numbers[name.split('.')[1]]}.{name.split('.')[2]}": value for name, value in state.items()}
    found = registered_net(other, *GREY, "a.pt", ["cnn_s-relu"])
    assert found.name == "cnn_s-relu"
    assert torch.equal(row_of(found, other, "a.pt"), row_of(found, state, "a.pt"))
    with pytest.raises(InputError, match="a.pt"):
        registered_net({**other, "x.module_list.7.weight": torch.zeros(1)}, *GREY, "a.pt")


def test_a_files_facts_or_the_nets_of_a_space_decide_the_activation(tmp_path):
    nets = [TargetNet(ARCHITECTURES[f"cnn_s-{each}"], *GREY) for each in ("relu", "gelu")]
    state = nets[0].trained.state_dict()
    save_instance(tmp_path / "a.safetensors", state, {"architecture": "cnn_s-gelu"})
    save_instance(tmp_path / "b.safetensors", state, {"architecture": "cnn_l-gelu"})
    assert find_row(nets, tmp_path / "a.safetensors")[0] is nets[1]
    assert find_row(nets[:1], state)[0] is nets[0]
    for net in (state, tmp_path / "b.safetensors"):
        with pytest.raises(InputError, match="cnn_s-relu, cnn_s-gelu"):
            find_row(nets, net)
    assert registered_row(nets[0], state)[0].name == "cnn_s-relu"
    assert registered_row(nets[0], tmp_path / "a.safetensors")[0].name == "cnn_s-gelu"


def test_names_are_compared_without_building_a_large_net(monkeypatch):
    def build(*args):
        raise AssertionError("built")

    monkeypatch.setattr(TargetNet, "__init__", build)
    known_names.cache_clear()
    forms.cache_clear()
    state = ARCHITECTURES["lenetlike"].build((3, 32, 32), 10).state_dict()
    assert names_fit(state) and not names_fit({"x.weight": 0})
    assert [each.name for each in fitting(architectures_for((3, 32, 32)), shapes_of(state), (3, 32, 32), 10)] == [
        "lenetlike"
    ]
