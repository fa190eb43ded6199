"""Reordered hidden channels: the same function from other weights, for every architecture."""

import pytest
import torch

from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES
from models.symmetries import reordering
from tests.conftest import instances_in_float64


@pytest.mark.parametrize("on", [((1, 8, 8), 10), ((3, 32, 32), 10), ((3, 64, 64), 20)], ids=["8", "32", "64"])
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "resnet56"])
def test_the_function_stays_and_the_weights_do_not(name, on):
    nets, state = instances_in_float64(name, *on, m=2)
    rows = nets.fuse(state)
    index = reordering(nets.layout, nets.fused.hidden_channels(), (3,))
    reordered = rows[:, index]
    images = torch.randn(2, *on[0], dtype=torch.float64)
    torch.testing.assert_close(nets.run(reordered, images), nets.run(rows, images))
    assert (reordered != rows).float().mean() > 0.5
    assert torch.equal(index.sort().values, torch.arange(nets.num_parameters))  # each weight is somewhere, once


def test_an_order_has_a_key():
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], (1, 8, 8), 10)
    draw = [reordering(nets.layout, nets.fused.hidden_channels(), key) for key in ((1, 2), (1, 2), (1, 3))]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
