"""Tokens: counts of known nets, bit-equal round trips, positions, masks, statistics."""

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import InputError
from models.instances import TargetNet
from models.rows import Layout
from models.target_nets import ARCHITECTURES, get_architecture, siren
from models.tokens import Tokens


def image_net(name, side=8, channels=1, classes=10):
    return TargetNet(get_architecture(name), (channels, side, side), classes)


# (architecture, side, channels, size of a token): tokens. Counted by hand from the layers' shapes.
COUNTS = {
    ("resnet8", 8, 1, 145): 94,
    ("resnet8", 8, 1, 73): 110,
    ("resnet8", 8, 1, 37): 166,
    ("lenetlike", 8, 1, 73): 38,
    ("vanilla_cnn", 8, 1, 73): 58,
    ("resnet32", 8, 1, 73): 462,
    ("resnet8", 32, 3, 145): 634,
    ("resnet8", 32, 3, 289): 410,
    ("resnet32", 32, 3, 145): 3322,
    ("lenetlike", 32, 3, 145): 492,
    ("vanilla_cnn", 32, 3, 145): 512,
}


@pytest.mark.parametrize("case", COUNTS, ids=str)
def test_number_of_tokens(case):
    name, side, channels, size = case
    assert Tokens(image_net(name, side, channels).layout, size).num_tokens == COUNTS[case]


def test_number_of_tokens_of_sirens():
    assert Tokens(TargetNet(siren((3, 64, 64, 1))).layout, 65).num_tokens == 129
    assert Tokens(TargetNet(siren((3, 256, 256, 1))).layout, 129).num_tokens == 770


def layouts():
    for name in ARCHITECTURES:
        side = next(side for side in ARCHITECTURES[name].sides if side <= 32)
        net = TargetNet(get_architecture(name), (1, side, side), 7)
        yield f"{name} fused", net.layout
        yield f"{name} with batch norm", Layout.of(net.trained, running_statistics=True)
    yield "siren", TargetNet(siren((3, 8, 8, 1))).layout


@pytest.mark.parametrize("layout", [each for _, each in layouts()], ids=[name for name, _ in layouts()])
@pytest.mark.parametrize("size", [1, 7, 37])
def test_rows_come_back_bit_for_bit(layout, size):
    tokens = Tokens(layout, size)
    rows = torch.randn(2, layout.num_parameters)
    packed = tokens.pack(rows)
    assert packed.shape == (2, tokens.num_tokens, size)
    assert torch.equal(tokens.unpack(packed), rows)
    assert tokens.mask.sum() == layout.num_parameters
    assert not packed[:, ~tokens.mask].any()


def plain_tokens(state, size):
    """Return the tokens of a state dict, written as the definition reads, and their (layer, channel)."""
    tokens, places = [], []
    names = list(state)
    layer = 0
    while names:
        name = names.pop(0)
        matrix = state[name].reshape(len(state[name]), -1)
        bias = name.replace("weight", "bias")
        if name.endswith("weight") and names and names[0] == bias:
            matrix = torch.cat([matrix, state[names.pop(0)][:, None]], 1)
        for channel, row in enumerate(matrix):
            padded = torch.cat([row, torch.zeros(-len(row) % size)])
            for piece in padded.split(size):
                tokens.append(piece)
                places.append((layer, channel))
        layer += 1
    return torch.stack(tokens), places


@pytest.mark.parametrize("name", ["resnet8", "lenetlike", "vanilla_cnn"])
@pytest.mark.parametrize("fused", [True, False])
def test_tokens_are_rows_of_layers_with_their_bias(name, fused):
    net = image_net(name)
    module = net.fused if fused else net.trained
    layout = Layout.of(module, running_statistics=True)
    state = {key: torch.randn(value.shape) for key, value in module.state_dict().items() if value.is_floating_point()}
    tokens = Tokens(layout, 37)
    expected, places = plain_tokens(state, 37)
    row = layout.flatten({key: value[None] for key, value in state.items()})
    assert torch.equal(tokens.pack(row)[0], expected)
    assert tokens.positions.tolist() == [[n, layer, channel] for n, (layer, channel) in enumerate(places)]


def test_statistics_are_those_of_all_numbers_of_a_layer():
    net = image_net("resnet8")
    rows = torch.randn(5, net.num_parameters) * 3 + 1
    tokens = Tokens(net.layout, 37)
    statistics = tokens.statistics(rows)
    by_name = net.layout.unflatten(rows.double())
    for i, layer in enumerate(tokens.layers):
        values = torch.cat([by_name[name].flatten() for name in layer.names])
        assert statistics[0, i].item() == pytest.approx(values.mean().item(), rel=1e-5)
        assert statistics[1, i].item() == pytest.approx(values.std().item(), rel=1e-5)


def test_other_units_are_within_one_or_of_root_mean_square_one():
    net = image_net("resnet8")
    rows = torch.randn(5, net.num_parameters) * 3 + 1
    tokens = Tokens(net.layout, 37)
    for units in ("range", "root-mean-square"):
        origin, unit = tokens.statistics(rows, units)
        packed = (tokens.pack(rows) - origin[tokens.layer, None]) / unit[tokens.layer, None]
        for i in range(len(tokens.layers)):
            values = packed[:, tokens.layer == i][:, tokens.mask[tokens.layer == i]]
            if units == "range":
                assert values.min().item() == pytest.approx(-1, abs=1e-5) and values.max().item() == pytest.approx(
                    1, abs=1e-5
                )
            else:
                assert origin[i] == 0 and values.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_a_layer_that_never_varies_has_the_unit_1():
    layout = Layout.of(nn.Linear(2, 2))
    assert Tokens(layout, 3).statistics(torch.ones(3, 6))[1].tolist() == [1.0]


def test_wider_rows_are_padded():
    tokens = Tokens(Layout.of(nn.Linear(2, 2)), 2)
    rows = torch.randn(3, 6)
    assert torch.equal(tokens.pack(nn.functional.pad(rows, (0, 4))), tokens.pack(rows))


def test_a_token_has_a_number():
    with pytest.raises(InputError):
        Tokens(Layout.of(nn.Linear(2, 2)), 0)


def test_order_of_numbers_does_not_depend_on_the_token_size():
    layout = Layout.of(nn.Linear(9, 4))
    rows = torch.arange(40.0)[None]
    for size in (1, 3, 10, 100):
        tokens = Tokens(layout, size)
        flat = tokens.pack(rows)[0][tokens.mask].numpy()
        weight, bias = rows[0, :36].view(4, 9), rows[0, 36:, None]
        assert np.array_equal(flat, torch.cat([weight, bias], 1).flatten().numpy())


@pytest.mark.parametrize("size", [3, 7, 37])
def test_parts_of_a_sequence_are_packed_and_put_back_alone(size):
    net = image_net("lenetlike")
    tokens = Tokens(net.layout, size)
    rows = torch.randn(2, net.num_parameters)
    whole, found = tokens.pack(rows), torch.full_like(rows, float("nan"))
    cuts = [0, 1, tokens.num_tokens // 3, tokens.num_tokens // 2, tokens.num_tokens]
    for start, stop in zip(cuts, cuts[1:]):
        part = tokens.pack(rows, start, stop)
        assert torch.equal(part, whole[:, start:stop])
        found = tokens.put(part, start, found)
    assert torch.equal(found, rows)
