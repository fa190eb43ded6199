"""Orders of hidden channels: an instance with its channels in another order computes the same, from other-looking weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.prep import Layout


@dataclass(frozen=True)
class Channels:
    """Hidden channels that must be reordered together: the layers that make them, and those that read them."""

    made_by: list[str]
    read_by: list[str] = field(default_factory=list)


def chain(layers: Sequence[str]) -> list[Channels]:
    """The hidden channels of a net whose layers follow one another."""
    return [Channels([layer], [following]) for layer, following in zip(layers, layers[1:])]


def reordering(layout: Layout, hidden: list[Channels], key: tuple[int, ...]) -> Tensor:
    """A random order of all hidden channels, as an index (P,) int64 into rows of the fused form: `rows[:, index]`.

    `hidden` is what an architecture's `hidden_channels` says. The order is drawn from `key`.
    """
    rng = np.random.default_rng(key)
    places = {name: place[0] for name, place in layout.unflatten(torch.arange(layout.num_parameters)[None]).items()}
    for channels in hidden:
        order = torch.from_numpy(rng.permutation(len(places[f"{channels.made_by[0]}.bias"])))
        for layer in channels.made_by:
            for name in (f"{layer}.weight", f"{layer}.bias"):
                places[name] = places[name][order]
        for layer in channels.read_by:
            name = f"{layer}.weight"
            # A linear layer behind a flattened map reads every channel at several places, one after the other.
            by_channel = places[name].unflatten(1, (len(order), -1))
            places[name] = by_channel[:, order].view_as(places[name])
    return layout.flatten({name: place[None] for name, place in places.items()})[0]
