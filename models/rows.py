"""Rows: all parameters of an instance in one vector (P,), in layer order.

    state dict  --fuse_batch_norm-->  state dict  --Layout.flatten-->  row (P,)  --Layout.unflatten-->  state dict

Everything here works on M instances at once, with a leading dimension M. A row may be reordered: hidden channels have no
order of their own, and an instance computes the same function when they are permuted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.errors import InputError
from models.layers import BatchNorm2d


def index_on(device: torch.device, values: Sequence[int]) -> Tensor:
    """Return indices (N,) int64 on a device. A GPU's work is not waited for, as it is if a list is the index."""
    return torch.tensor(values, dtype=torch.int64).to(device, non_blocking=True)


@dataclass(frozen=True)
class Layout:
    """The position of each parameter in a row: names and shapes in layer order.

    The order is that in which modules are registered: weight, then bias; within a residual block conv1, conv2, shortcut;
    the classifier last (supplement Sec. II).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module, running_statistics: bool = False) -> "Layout":
        """Return the layout of a module's parameters, and with `running_statistics` of batch norm's mean and variance too."""
        named = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
        if running_statistics:
            state = module.state_dict()
            named = [(name, tuple(value.shape)) for name, value in state.items() if value.is_floating_point()]
        return cls(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @property
    def sizes(self) -> list[int]:
        """The number of elements of each parameter."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def num_parameters(self) -> int:
        """P, the length of a row."""
        return sum(self.sizes)

    def flatten(self, parameters: dict[str, Tensor]) -> Tensor:
        """Return rows (M, P) from parameters (M, *shape) by name. Names that the layout does not have are ignored."""
        return torch.cat([parameters[name].reshape(-1, size) for name, size in zip(self.names, self.sizes)], dim=1)

    def unflatten(self, rows: Tensor) -> dict[str, Tensor]:
        """Return parameters (M, *shape) by name, as views of rows (M, P)."""
        pieces = rows.split(self.sizes, dim=1)
        return {name: piece.view(-1, *shape) for name, piece, shape in zip(self.names, pieces, self.shapes)}


# Batch norm (supplement Sec. VI)


def conv_before(norm_name: str) -> str:
    """Return the name of the conv that a batch norm follows: bn2 -> conv2, downsample.1 -> downsample.0.

    Raise InputError for a name of another form.
    """
    head, _, last = norm_name.rpartition(".")
    if "bn" not in last and not last.isdigit():
        raise InputError(f"batch norm '{norm_name}': name it bn1 after conv1, or put it after its conv in a Sequential")
    last = last.replace("bn", "conv") if "bn" in last else str(int(last) - 1)
    return f"{head}.{last}" if head else last


def fuse_batch_norm(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fuse the batch norms of M instances into the convs before them: the state (M, *shape) of the fused form.

    W' = W*gamma/sqrt(var+eps), b' = beta + (b-mean)*gamma/sqrt(var+eps); b is 0 for a conv without a bias. Instances and channels are independent, so
    PyTorch's fusion of one conv fuses M*O output channels at once.
    """
    norms = {name: child for name, child in module.named_modules() if isinstance(child, BatchNorm2d)}
    fused = {name: value for name, value in state.items() if name.rpartition(".")[0] not in norms}
    for norm_name, norm in norms.items():
        conv_name = conv_before(norm_name)
        weight = state[f"{conv_name}.weight"]  # (M, O, I, k, k)
        mean, var, gamma, beta = (
            state[f"{norm_name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        bias = state.get(f"{conv_name}.bias")
        bias = None if bias is None else bias.flatten()
        fused_weight, fused_bias = fuse_conv_bn_weights(
            weight.flatten(0, 1), bias, mean.flatten(), var.flatten(), norm.eps, gamma.flatten(), beta.flatten()
        )
        fused[f"{conv_name}.weight"] = fused_weight.detach().view_as(weight)
        fused[f"{conv_name}.bias"] = fused_bias.detach().view_as(mean)
    return fused


# Orders of hidden channels


@dataclass(frozen=True)
class Channels:
    """Hidden channels that must be permuted together: the layers that make them and the layers that read them."""

    made_by: list[str]
    read_by: list[str] = field(default_factory=list)


def chain(layers: Sequence[str]) -> list[Channels]:
    """Return the hidden channels of a net whose layers follow one another."""
    return [Channels([layer], [following]) for layer, following in zip(layers, layers[1:])]


def reordering(layout: Layout, hidden: list[Channels], rng: np.random.Generator) -> Tensor:
    """Draw an order of all hidden channels: an index (P,) int64. `rows[:, index]` computes the same function.

    `hidden` is what an architecture's `hidden_channels` returns; `layout` is of the fused form or of that with batch norm.
    """
    index = positions(layout)
    for channels in hidden:
        permute(index, channels, rng.permutation(num_channels(layout, channels)))
    return flat_index(layout, index)


def positions(layout: Layout) -> dict[str, np.ndarray]:
    """Return the position of every element in a row, as arrays of the parameters' shapes by name."""
    rows = torch.arange(layout.num_parameters)[None]
    return {name: value[0].numpy() for name, value in layout.unflatten(rows).items()}


def flat_index(layout: Layout, index: dict[str, np.ndarray]) -> Tensor:
    """Return positions by name as an index (P,) int64."""
    return torch.from_numpy(np.concatenate([index[name].ravel() for name in layout.names]))


def num_channels(layout: Layout, channels: Channels) -> int:
    """Return how many channels these are."""
    return layout.shapes[layout.names.index(f"{channels.made_by[0]}.weight")][0]


def permute(values: dict[str, np.ndarray], channels: Channels, order: np.ndarray) -> None:
    """Put hidden channels into another order, in place: entry i of the new order is what stood at order[i].

    `values` are parameters or positions by name. A batch norm goes with the conv before it.
    """
    norms = {
        name.removesuffix(".weight") for name, value in values.items() if value.ndim == 1 and name.endswith(".weight")
    }
    for name, value in values.items():
        layer = name.rpartition(".")[0]
        if (conv_before(layer) if layer in norms else layer) in channels.made_by:
            values[name] = value[order]
    for layer in channels.read_by:
        # A linear layer after a flattened map reads every channel in several adjacent columns.
        value = values[f"{layer}.weight"]
        values[f"{layer}.weight"] = value.reshape(len(value), len(order), -1)[:, order].reshape(value.shape)


def reorderings(layout: Layout, hidden: list[Channels], orders: list[Tensor]) -> Tensor:
    """Return the index (M, P) int64 of M orders of hidden channels at once, on their device.

    `orders` has an entry (M, C) for each of `hidden`: permutations of 0 ... C-1. `layout` is of a fused form.
    """
    made_by = {layer: order for channels, order in zip(hidden, orders) for layer in channels.made_by}
    read_by = {layer: order for channels, order in zip(hidden, orders) for layer in channels.read_by}
    m, device = len(orders[0]), orders[0].device
    parts, offset = [], 0
    for name, shape, size in zip(layout.names, layout.shapes, layout.sizes):
        layer = name.rpartition(".")[0]
        columns = size // shape[0]
        index = torch.arange(columns, device=device).expand(m, columns)
        if layer in read_by and len(shape) > 1:
            order = read_by[layer]
            # A linear layer after a flattened map reads every channel in several adjacent columns.
            width = columns // order.shape[1]
            index = (order[:, :, None] * width + torch.arange(width, device=device)).flatten(1)
        rows = made_by.get(layer, torch.arange(shape[0], device=device).expand(m, shape[0]))
        parts.append((offset + rows[:, :, None] * columns + index[:, None]).flatten(1))
        offset += size
    return torch.cat(parts, 1)
