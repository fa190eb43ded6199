"""Rows of SIRENs that compute the same function, or the same function of points that were moved, exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.rows import Layout


def of_moved_points(layout: Layout, rows: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """Return rows (M, P) of x -> f(A x + b), from those of f, matrices A (M, 3, 3) and shifts b (M, 3).

    Mirrors, stretches and turns of space are in the first layer's weight, W A, and shifts in its bias, c + W b.
    """
    state = layout.unflatten(rows)
    weight, bias = layout.names[:2]
    moved = {weight: state[weight] @ matrices, bias: state[bias] + (state[weight] @ shifts[:, :, None])[..., 0]}
    return layout.flatten({**state, **moved})


def with_flipped_units(layout: Layout, rows: Tensor, signs: Sequence[Tensor]) -> Tensor:
    """Return rows (M, P) of the same functions with hidden units of the other sign: sine is odd.

    `signs` has an entry (M, C) of 1 and -1 for each hidden layer. What makes a unit, and what reads it, is multiplied by its sign.
    """
    state = layout.unflatten(rows)
    layers = [(layout.names[i], layout.names[i + 1]) for i in range(0, len(layout.names), 2)]
    outer = torch.ones_like(rows[:, :1])  # of the inputs and of the outputs
    changed = {}
    for (weight, bias), into, out_of in zip(layers, [outer, *signs], [*signs, outer]):
        changed[weight] = state[weight] * out_of[:, :, None] * into[:, None]
        changed[bias] = state[bias] * out_of
    return layout.flatten(changed)
