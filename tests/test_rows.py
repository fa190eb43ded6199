"""Rows: the position of every parameter, fusion of batch norm, orders of hidden channels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.instances import TargetNet
from models.rows import Layout, conv_before, reordering
from models.target_nets import ARCHITECTURES, architectures_for, siren
from tests.conftest import instances_in_float64, spread_out

PHOTOS = ((1, 8, 8), 10)


@given(st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=5), st.integers(1, 3))
def test_unflatten_undoes_flatten(shapes, m):
    layout = Layout(tuple(f"p{i}" for i in range(len(shapes))), tuple(shapes))
    parameters = {name: torch.randn(m, *shape) for name, shape in zip(layout.names, layout.shapes)}
    rows = layout.flatten({**parameters, "other": torch.randn(m, 3)})
    assert rows.shape == (m, layout.num_parameters)
    back = layout.unflatten(rows)
    assert all(torch.equal(back[name], parameters[name]) for name in layout.names)
    assert all(value.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr() for value in back.values())


def test_a_row_is_in_layer_order_with_the_shortcut_after_conv2():
    net = TargetNet(ARCHITECTURES["resnet8"], (3, 32, 32), 10)
    blocks = [["conv1", "conv2"], ["conv1", "conv2", "downsample.0"], ["conv1", "conv2", "downsample.0"]]
    layers = ["conv1", *(f"layer{i}.0.{conv}" for i, block in enumerate(blocks, start=1) for conv in block), "fc"]
    assert net.layout.names == tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


@pytest.mark.parametrize("name", [each.name for each in architectures_for(PHOTOS[0]) if each.has_batch_norm])
def test_fused_and_unfused_nets_agree_in_eval_mode(name):
    net, state = instances_in_float64(name, *PHOTOS, m=2)
    rows = net.fuse(state)
    images = torch.randn(3, *PHOTOS[0], dtype=torch.float64)
    for i in range(2):
        plain = ARCHITECTURES[name].build(*PHOTOS).double().eval()
        plain.load_state_dict({key: value[i] for key, value in state.items()})
        torch.testing.assert_close(net.run(rows, images)[i], plain(images))


def test_the_conv_before_a_batch_norm_is_known_by_its_name():
    assert [conv_before(name) for name in ("bn1", "layer2.0.bn2", "layer2.0.downsample.1", "7")] == [
        "conv1",
        "layer2.0.conv2",
        "layer2.0.downsample.0",
        "6",
    ]
    with pytest.raises(InputError, match="layer1.norm"):
        conv_before("layer1.norm")


def nets_to_reorder(name, side):
    """Return a net in float64, rows of two instances, and inputs."""
    if name == "siren":
        net = TargetNet(siren((3, 7, 5, 1)))
        net.fused.double()
        state = {key: value.double() for key, value in net.start([0, 1]).items()}
        return net, net.fuse(spread_out(state, seed=1)), torch.rand(9, 3, dtype=torch.float64)
    image_shape = (1 if side == 8 else 3, side, side)
    net, state = instances_in_float64(name, image_shape, 10, m=2)
    return net, net.fuse(state), torch.randn(2, *image_shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *((name, side) for name in ("lenetlike", "vanilla_cnn", "resnet8", "resnet32") for side in (8, 32, 64)),
        ("resnet56", 8),
        ("siren", 0),
    ],
)
def test_in_another_order_of_hidden_channels_the_function_stays_and_the_weights_do_not(name, side):
    net, rows, inputs = nets_to_reorder(name, side)
    index = reordering(net.layout, net.hidden_channels(), np.random.default_rng(3))
    reordered = rows[:, index]
    torch.testing.assert_close(net.run(reordered, inputs), net.run(rows, inputs))
    assert (reordered != rows).float().mean() > 0.5
    assert torch.equal(index.sort().values, torch.arange(net.num_parameters))  # each weight is in the row, once


def test_an_order_is_drawn_from_its_generator():
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    draws = [reordering(net.layout, net.hidden_channels(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
