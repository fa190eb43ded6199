"""Alignment: the order of hidden channels in which an instance is nearest to a reference (git re-basin's weight matching).

Instances compute the same function in any order of their hidden channels. Aligned to one reference, they can be compared
number by number: SANE's canonical form (SANE Sec. 2).
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.rows import Channels, Layout, flat_index, permute, positions

MOST_SWEEPS = 100
LEAST_GAIN = 1e-12

Parameters = dict[str, np.ndarray]


def align(layout: Layout, hidden: list[Channels], rows: Tensor, reference: Tensor, seed: int = 0) -> Tensor:
    """Return orders of hidden channels that bring rows (N, P) near a reference (P,): an index (N, P) int64.

    `rows.gather(1, index)` computes the same functions, and is never farther from the reference than `rows`. The result does
    not depend on the order in which a row's channels came, except where the descent from there ends nearer.
    """
    target = _parameters(layout, reference)
    return torch.stack([_align_one(layout, hidden, row, target, seed) for row in rows])


def _align_one(layout: Layout, hidden: list[Channels], row: Tensor, target: Parameters, seed: int) -> Tensor:
    values = row[: layout.num_parameters].double().cpu().numpy()

    def distance(index: Tensor) -> float:
        return sum(float(np.square(target[name] - each).sum()) for name, each in _take(layout, values, index).items())

    unchanged = torch.arange(layout.num_parameters)
    found = _descend(layout, hidden, values, _match_forward(layout, hidden, values, target), target, seed)
    if distance(found) <= distance(unchanged):
        return found
    return _descend(layout, hidden, values, positions(layout), target, seed)


def _match_forward(layout: Layout, hidden: list[Channels], values: np.ndarray, target: Parameters) -> Parameters:
    """Match channels from the input on: each group by the layers that make it, as far as what these read is matched already.

    So the start of the descent does not depend on the order that the channels have.
    """
    index, done = positions(layout), set[int]()
    read_from = {layer: group for group, channels in enumerate(hidden) for layer in channels.read_by}
    while len(done) < len(hidden):
        for group, channels in enumerate(hidden):
            ready = [
                layer for layer in channels.made_by if read_from.get(layer, group) in done or layer not in read_from
            ]
            if group in done or not ready:
                continue
            current = {name: values[each] for name, each in index.items()}
            order = _assignment(_similarity(Channels(ready), current, target))
            permute(index, channels, order)
            done.add(group)
            break
        else:
            break  # a cycle: the descent matches the others
    return index


def _descend(
    layout: Layout, hidden: list[Channels], values: np.ndarray, index: Parameters, target: Parameters, seed: int
) -> Tensor:
    """Match one group after another, in random order, the others fixed, until no sweep over all of them gains anything."""
    rng = np.random.default_rng(seed)
    for _ in range(MOST_SWEEPS):
        gained = False
        for group in rng.permutation(len(hidden)):
            current = {name: values[each] for name, each in index.items()}
            similarity = _similarity(hidden[group], current, target)
            order = _assignment(similarity)
            gain = similarity[np.arange(len(order)), order].sum() - np.trace(similarity)
            if gain > LEAST_GAIN * max(1.0, np.abs(similarity).sum()):
                permute(index, hidden[group], order)
                gained = True
        if not gained:
            break
    return flat_index(layout, index)


def _similarity(channels: Channels, current: Parameters, target: Parameters) -> np.ndarray:
    """Return the inner products (C, C) of the target's channels with the current ones, over all parameters that they have."""
    number = len(target[f"{channels.made_by[0]}.weight"])
    found = np.zeros((number, number))
    for layer in channels.made_by:
        for name in (f"{layer}.weight", f"{layer}.bias"):
            if name in target:
                found += target[name].reshape(number, -1) @ current[name].reshape(number, -1).T
    for layer in channels.read_by:
        by_channel = [each[f"{layer}.weight"] for each in (target, current)]
        ours, theirs = (each.reshape(len(each), number, -1).swapaxes(0, 1).reshape(number, -1) for each in by_channel)
        found += ours @ theirs.T
    return found


def _assignment(similarity: np.ndarray) -> np.ndarray:
    """Return which current channel each of the target's is assigned to, so that the sum of similarities is largest."""
    return linear_sum_assignment(similarity, maximize=True)[1]


def _parameters(layout: Layout, row: Tensor) -> Parameters:
    return _take(layout, row[: layout.num_parameters].double().cpu().numpy(), torch.arange(layout.num_parameters))


def _take(layout: Layout, values: np.ndarray, index: Tensor) -> Parameters:
    moved = torch.from_numpy(values)[index][None]
    return {name: value[0].numpy() for name, value in layout.unflatten(moved).items()}
