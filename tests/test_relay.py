"""The way from the decoder's second conv to its third, against PyTorch's operations one after the other."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from models.relay import relay, transposed
from training.runtime import PROJECT

# (M, pixels, channels of conv2, unused ones, channels of conv3)
SIZES = [(2, 12, 10, 6, 4), (3, 32, 5, 0, 16), (1, 6, 1, 15, 3)]


def given(m, pixels, channels, unused):
    x = torch.randn(m, pixels, channels + unused, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(channels, dtype=torch.float64, requires_grad=True)


def plainly(x, bias, channels):
    """Return the same as maps (M, C, S) that are reshaped, and then have channels last."""
    maps = F.leaky_relu(x[..., : len(bias)].transpose(1, 2) + bias[:, None])
    return maps.reshape(len(x), channels, -1).transpose(1, 2)


@pytest.mark.parametrize("m, pixels, channels, unused, after", SIZES)
def test_outputs_and_gradients(m, pixels, channels, unused, after):
    x, bias = given(m, pixels, channels, unused)
    ours, plain = relay(x, bias, after), plainly(x, bias, after)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, plain)
    weights = torch.randn_like(plain)
    for mine, theirs in zip(*(torch.autograd.grad(out, (x, bias), weights) for out in (ours, plain))):
        torch.testing.assert_close(mine, theirs)


def test_it_is_an_operation_that_pytorch_can_trace():
    x, bias = given(*SIZES[0][:4])
    torch.library.opcheck(relay, (x, bias, SIZES[0][4]))


IN_TILES = """
import torch
from models import relay

for dtype in (torch.float32, torch.bfloat16):
    x, gradient = torch.randn(2, 2, 96, 80, dtype=dtype).unbind()
    for shape, bias, activations in [
        ((70, 96), torch.randn(70), None), ((80, 96), None, gradient), ((112, 104), None, None), ((80, 128), None, None)
    ]:
        tiles = relay._transposed_in_tiles(x, shape, bias, activations)
        plain = relay.transposed(x.double(), shape, bias, activations)
        assert tiles.is_contiguous() and tiles.dtype == dtype
        torch.testing.assert_close(tiles, plain.to(dtype))
print("alike")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch came without Triton")
def test_tiles_are_what_pytorch_computes():
    """The kernel for GPUs, run by Triton's interpreter, which must be chosen before Triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IN_TILES], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "alike\n", done.stderr


def test_more_room_than_numbers_is_filled_with_zeros():
    x = torch.randn(2, 3, 4)
    out = transposed(x, (6, 5))
    assert torch.equal(out[:, :4, :3], x.transpose(1, 2)) and not out[:, 4:].any() and not out[:, :, 3:].any()
