"""Channel permutations: other parameters, the same function.

Reordering the hidden channels of a net, in the layer that makes them and in those that read them, changes its PRep but not
its outputs. In training, a target can therefore be shown to the encoder in many orders.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.prep import Layout

# The axes of parameters that carry one set of channels: (parameter, axis, how many neighbours on it form a channel).
Channels = Sequence[tuple[str, int, int]]


def made_by(layer: str) -> Channels:
    """The channels that a fused conv or linear layer makes."""
    return [(f"{layer}.weight", 0, 1), (f"{layer}.bias", 0, 1)]


def read_by(layer: str, block: int = 1) -> Channels:
    """The channels that a layer reads. `block` is the number of pixels of a channel where a linear layer reads a map."""
    return [(f"{layer}.weight", 1, block)]


def permutation_indices(layout: Layout, groups: Sequence[Channels], count: int, seed: int) -> Tensor:
    """Gather indices (count, P) int64: `rows.gather(1, indices)` reorders every group's channels at random, from a seed.

    `groups` are a net's hidden channels, its `channel_groups()`.
    """
    places = {name: place[0] for name, place in layout.unflatten(torch.arange(layout.num_parameters)[None]).items()}
    rng = np.random.default_rng(seed)
    indices = []
    for _ in range(count):
        moved = dict(places)
        for group in groups:
            name, axis, block = group[0]
            order = torch.from_numpy(rng.permutation(places[name].shape[axis] // block))
            for name, axis, block in group:
                wide = (order[:, None] * block + torch.arange(block)).flatten()
                moved[name] = moved[name].index_select(axis, wide)
        indices.append(torch.cat([moved[name].flatten() for name in layout.names]))
    return torch.stack(indices)
