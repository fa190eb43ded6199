"""Tokens: an instance as a sequence of vectors (SANE Sec. 2), T tokens of D numbers, and back.

A layer is a matrix with a row for each output channel: its weight, and its bias as the last column. A row of q numbers is cut
into ceil(q / D) tokens, the last of them padded with zeros. Batch norm has rows of 2 (gamma and beta) and, where the layout
has running statistics, of 1 each.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.errors import InputError
from models.rows import Layout

Units = Literal["deviation", "range", "root-mean-square"]
AT_ONCE = 1 << 20  # parameters, in packing and unpacking


@dataclass(frozen=True)
class TokenLayer:
    """Consecutive parameters of a layout that share their rows: `names`, their number of `channels` and `columns`."""

    names: tuple[str, ...]
    channels: int
    columns: tuple[int, ...]  # of each parameter

    def pieces(self, token_size: int) -> int:
        """Return the tokens that a row becomes."""
        return -(-sum(self.columns) // token_size)


def token_layers(layout: Layout) -> list[TokenLayer]:
    """Return the layers of a layout in order: a weight with the bias that follows it, anything else by itself."""
    layers: list[TokenLayer] = []
    for name, shape in zip(layout.names, layout.shapes):
        channels, columns = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        weight = layers[-1] if layers else None
        if (
            weight is not None
            and name.endswith("bias")
            and weight.names == (f"{name.removesuffix('bias')}weight",)
            and weight.channels == channels
        ):
            layers[-1] = TokenLayer((*weight.names, name), channels, (*weight.columns, columns))
        else:
            layers.append(TokenLayer((name,), channels, (columns,)))
    return layers


class Tokens:
    """How rows (N, P) of a layout become tokens (N, T, D) and come back, bit for bit.

    `mask` (T, D) bool is true on parameters, false on padding. `positions` (T, 3) int64 are a token's place in the sequence,
    its layer, and its output channel. `index` (P,) is where each number of a row stands in the flattened T*D grid, and
    `layer` (T,) the same as the second column of `positions`. Raise InputError for a token size below 1.
    """

    def __init__(self, layout: Layout, token_size: int):
        if token_size < 1:
            raise InputError(f"tokens of {token_size} numbers: at least 1")
        self.layout, self.token_size = layout, token_size
        self.layers = token_layers(layout)
        # Of a large net the index is the largest thing here: 32 bits are enough for most.
        total = sum(layer.channels * layer.pieces(token_size) for layer in self.layers)
        kind = np.int32 if total * token_size < 2**31 else np.int64
        index, place = np.empty(layout.num_parameters, kind), []
        start = filled = 0  # tokens and parameters so far
        for number, layer in enumerate(self.layers):
            pieces = layer.pieces(token_size)
            rows = (start + np.arange(layer.channels) * pieces) * token_size  # where each row begins in the grid
            first = 0
            for columns in layer.columns:
                size = layer.channels * columns
                index[filled : filled + size] = (rows[:, None] + first + np.arange(columns)).ravel()
                first, filled = first + columns, filled + size
            channel = np.repeat(np.arange(layer.channels), pieces)
            place.append(np.stack([np.full(len(channel), number), channel], 1))
            start += len(channel)
        self.num_tokens = start
        sizes = [layer.channels * sum(layer.columns) for layer in self.layers]
        self.ends = [0, *np.cumsum(sizes).tolist()]  # where layer i begins in a row, and ends at i + 1
        self.index = torch.from_numpy(index)
        layer_and_channel = np.concatenate(place)
        self.positions = torch.from_numpy(np.column_stack([np.arange(start), layer_and_channel]))
        mask = np.zeros(start * token_size, bool)
        mask[index] = True
        self.mask = torch.from_numpy(mask).view(start, token_size)

    @property
    def layer(self) -> Tensor:
        """The layer of each token, (T,) int64."""
        return self.positions[:, 1]

    def pack(self, rows: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the tokens start ... stop-1 of rows (N, P), (N, stop-start, D), zero on the padding.

        Wider rows are padded, and that padding is ignored.
        """
        stop = self.num_tokens if stop is None else stop
        grid = rows.new_zeros(len(rows), (stop - start) * self.token_size)
        for part in self._parts(start, stop):
            inside, index = self._inside(part, start, stop, rows.device)
            grid[:, index] = rows[:, part][:, inside]
        return grid.view(len(rows), stop - start, self.token_size)

    def unpack(self, tokens: Tensor) -> Tensor:
        """Return tokens (N, T, D) as rows (N, P)."""
        return self.put(tokens, 0, tokens.new_empty(len(tokens), self.layout.num_parameters))

    def put(self, tokens: Tensor, start: int, rows: Tensor) -> Tensor:
        """Write tokens (N, K, D), of which the first is number `start`, into their places in rows (N, P). Return the rows."""
        flat, stop = tokens.flatten(1), start + tokens.shape[1]
        for part in self._parts(start, stop):
            inside, index = self._inside(part, start, stop, rows.device)
            rows[:, part][:, inside] = flat[:, index]
        return rows

    def _inside(self, part: slice, start: int, stop: int, device: torch.device) -> tuple[Tensor | slice, Tensor]:
        """Return which numbers of a part of the row are in the tokens start ... stop-1, and where in them."""
        self.index = self.index.to(device)  # once, not at every step
        index = self.index[part]
        if start == 0 and stop == self.num_tokens:
            return slice(None), index
        index = index - start * self.token_size
        inside = ((index >= 0) & (index < (stop - start) * self.token_size)).nonzero()[:, 0]
        return inside, index[inside]

    def _parts(self, start: int, stop: int) -> list[slice]:
        """Return slices of a row that together have the layers of the tokens start ... stop-1.

        They are short, as torch widens an index to 64 bits where it is used, which a large net has no memory for.
        """
        if start == 0 and stop == self.num_tokens:
            first, last = 0, self.layout.num_parameters
        else:
            layers = self.layer[[start, stop - 1]].tolist()
            first, last = self.ends[layers[0]], self.ends[layers[1] + 1]
        return [slice(begin, min(begin + AT_ONCE, last)) for begin in range(first, last, AT_ONCE)]

    def statistics(self, rows: Tensor, units: Units = "deviation") -> Tensor:
        """Return origin and unit of each layer, (2, L), over all of its numbers in rows (N, P): mean and standard deviation.

        With units of "range" these are the middle and half of their range, of "root-mean-square" zero and that. A layer whose
        numbers are all alike has the unit 1.
        """
        sizes = np.diff(self.ends).tolist()
        found = []
        for part in rows[:, : self.layout.num_parameters].double().split(sizes, dim=1):
            low, high = part.min(), part.max()
            found.append(
                {
                    "deviation": (part.mean(), part.std()),
                    "range": ((low + high) / 2, (high - low) / 2),
                    "root-mean-square": (torch.zeros_like(low), part.square().mean().sqrt()),
                }[units]
            )
        origin, unit = (torch.stack([each[i] for each in found]) for i in (0, 1))
        return torch.stack([origin, torch.where(unit > 0, unit, 1.0)]).float()
