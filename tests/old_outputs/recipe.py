"""Weights and inputs from numpy's generators, and which numbers of an output are stored.

This is for write.py, which ran with the old code, and for tests/test_old_outputs.py, which runs with the present one. So
nothing of the project is imported here."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

SIDES = {8: ((1, 8, 8), 10), 32: ((3, 32, 32), 10), 64: ((3, 64, 64), 20)}  # side: image shape, classes
NARROW = dict(prep_shape=(32, 160), emb_size=1024, grid=32, row_length=256, row_channels=32)  # the preset photos
WIDE = dict(prep_shape=(8, 10_000), emb_size=256, grid=16, row_length=64, row_channels=32)
SMALL_SIREN, PAPER_SIREN = (3, 64, 64, 1), (3, 256, 256, 1)
M, B = 2, 3  # instances, images


def normal(*shape: int, seed: int) -> Tensor:
    """Draw standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def state(shapes: Mapping[str, tuple[int, ...]], m: int, seed: int, gain: float = 1.0) -> dict[str, Tensor]:
    """Draw entries (M, *shape) of a state dict with these names and shapes, in the order of the names.

    Matrices and kernels have the scale gain/sqrt(fan in), so that activations are of ordinary size. Variances are positive.
    """
    rng, drawn = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        value = rng.standard_normal((m, *shapes[name]))
        if name.endswith("num_batches_tracked"):
            value = np.zeros((m, *shapes[name]), np.int64)
        elif name.endswith("running_var"):
            value = 0.5 + 0.5 * np.abs(value)
        elif name.endswith(("bias", "running_mean", "scalelayer.scale")):
            value = 0.2 * value
        elif len(shapes[name]) == 1:
            value = 1 + 0.2 * value
        else:
            value = gain * value / math.sqrt(math.prod(shapes[name][1:]))
        drawn[name] = torch.from_numpy(value)
    return drawn


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return shapes by name."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def fill(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Return the module in float64 with weights of the recipe."""
    module.double().load_state_dict({name: value[0] for name, value in state(shapes_of(module), 1, seed).items()})
    return module


def summary(values: Tensor, first: int = 24) -> Tensor:
    """Return the first numbers of an output, its mean, its root mean square and two sums that depend on every position."""
    flat = values.detach().double().flatten()
    position = torch.arange(len(flat), dtype=torch.float64)
    sums = [(flat * wave(position)).sum() / math.sqrt(len(flat)) for wave in (torch.cos, torch.sin)]
    return torch.cat([flat[:first], torch.stack([flat.mean(), flat.square().mean().sqrt(), *sums])])


def gradients(loss: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Return summaries of the gradients of a scalar by a module's parameters."""
    named = dict(module.named_parameters())
    return {name: summary(each, 4) for name, each in zip(named, torch.autograd.grad(loss, list(named.values())))}
