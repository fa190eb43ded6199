"""Unterthiner's zoos (2020): all nets in one matrix.

weights.npy      (N, P) float: a net's parameters, biases before kernels, kernels (h, w, in, out) and (in, out)
metrics.csv.gz   a line for each row: step, test_accuracy, train_accuracy, modeldir (the net), config.*
layout.csv       varname (.../bias:0, .../kernel:0), start_idx, end_idx, shape
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.files import is_regular
from data.foreign_zoos import LeftOut, Source, ZooOptions, accuracies, net_name, scalars, side_of, with_activation
from data.recognition import fitting, shapes_of, target_net
from data.tensor_files import open_matrix
from data.texts import read_table
from data.zoo_folders import Facts, States, number
from models.errors import InputError, brief
from models.instances import TargetNet
from models.target_nets import architectures_for

WEIGHTS, LAYOUT, METRICS = "weights.npy", "layout.csv", ("metrics.csv.gz", "metrics.csv")
AT_ONCE = 4096  # rows in memory
LAYERS = ("conv1", "conv2", "conv3", "fc")


@dataclass(frozen=True)
class Variable:
    """Where a parameter stands in a row, its shape there, and its name in our nets."""

    name: str
    start: int
    end: int
    shape: tuple[int, ...]

    def read(self, rows: Tensor) -> Tensor:
        """Return the parameter of M rows in PyTorch's order of axes, (M, *shape)."""
        value = rows[:, self.start : self.end].reshape(-1, *self.shape)
        order = {1: (0, 1), 2: (0, 2, 1), 4: (0, 4, 3, 1, 2)}[len(self.shape)]
        return value.permute(order).contiguous()


def is_unterthiner(source: Path) -> bool:
    """Return whether a folder has the files of such a zoo."""
    return is_regular(source / WEIGHTS) and is_regular(source / LAYOUT)


def read_unterthiner(source: Path, dataset: str, options: ZooOptions) -> tuple[list[Source], LeftOut]:
    """Read a zoo: a Source for each activation, and what is left out. Raise InputError if the files do not match."""
    weights, variables = open_matrix(source / WEIGHTS), read_layout(source / LAYOUT)
    if variables[-1].end != weights.shape[1]:
        raise InputError(
            f"{source / LAYOUT} ends at {variables[-1].end}, the rows of {WEIGHTS} at {weights.shape[1]}; copy both again"
        )
    path = next((source / name for name in METRICS if is_regular(source / name)), source / METRICS[0])
    lines = read_table(path, ("step", "test_accuracy", "modeldir"))
    if len(lines) != len(weights):
        raise InputError(f"{path} has {len(lines)} lines, {WEIGHTS} {len(weights)} rows; copy both again")
    left_out = LeftOut()
    unfit = unfit_rows(weights, options.largest_weight)
    common = common_folder([line["modeldir"] for _, line in lines])
    state = {each.name: each.read(torch.zeros(1, weights.shape[1]))[0] for each in variables}
    side = side_of(dataset, options)
    shape, num_outputs = (state["conv1.weight"].shape[1], side, side), len(state["fc.bias"])
    found = fitting(architectures_for(shape), shapes_of(state), shape, num_outputs)
    facts: dict[TargetNet, Facts] = defaultdict(list)
    rows: dict[TargetNet, list[int]] = defaultdict(list)
    for row, (position, line) in enumerate(lines):
        where = f"{path}, line {position}"
        known, step = accuracies(line["test_accuracy"], line.get("train_accuracy")), number(line["step"])
        chosen = with_activation(found, line.get("config.activation"), options.architecture)
        if row in unfit:
            left_out.add(f"{source / WEIGHTS}, row {row}", unfit[row])
        elif known is None or type(step) is not int:
            left_out.add(where, "without test_accuracy or step")
        elif not line["modeldir"]:
            left_out.add(where, "without modeldir")
        elif isinstance(chosen, str):
            left_out.add(where, chosen)
        else:
            net = target_net(chosen, shape, num_outputs)
            name = net_name(line["modeldir"][common:])
            constants = scalars({key: number(value) for key, value in line.items()}, ("config.",))
            facts[net].append({"architecture": net.name, "net": name, "step": step, **known, **constants})
            rows[net].append(row)
    return [Source(net, facts[net], partial(read_states, weights, variables, rows[net])) for net in facts], left_out


def read_layout(path: Path) -> list[Variable]:
    """Return the parameters in a row, in order, under our names. Raise InputError if they are not this net's, without gaps."""
    found: list[tuple[str, int, int, tuple[int, ...]]] = []
    for position, line in read_table(path, ("varname", "start_idx", "end_idx", "shape")):
        name, start, end = line["varname"], number(line["start_idx"]), number(line["end_idx"])
        shape = tuple(int(size) for size in re.findall(r"\d{1,9}", line["shape"]))
        if type(start) is not int or type(end) is not int or end - start != np.prod(shape, dtype=object):
            raise InputError(
                f"{path}, line {position}: '{brief(name)}' is not of shape {brief(line['shape'])}; copy it again"
            )
        found.append((name, start, end, shape))
    found.sort(key=lambda each: each[1])
    layers = list(dict.fromkeys(name.rpartition("/")[0] for name, *_ in found))
    variables, position = [], 0
    for name, start, end, shape in found:
        layer, _, kind = name.rpartition("/")
        kind = {"bias:0": "bias", "kernel:0": "weight"}.get(kind, "")
        index = layers.index(layer)
        dims = 1 if kind == "bias" else 2 if index == len(layers) - 1 else 4
        if not kind or start != position or len(layers) != len(LAYERS) or len(shape) != dims:
            raise InputError(
                f"{path}: '{brief(name)}' {shape} from {start} to {end} is not of three convs and a dense layer, "
                "bias:0 and kernel:0 each, without gaps; copy it again"
            )
        variables.append(Variable(f"{LAYERS[index]}.{kind}", start, end, shape))
        position = end
    if len({each.name for each in variables}) != 2 * len(LAYERS):
        raise InputError(f"{path} has not a bias:0 and a kernel:0 for each of {len(LAYERS)} layers; copy it again")
    return variables


def unfit_rows(weights: np.ndarray, largest_weight: float) -> dict[int, str]:
    """Return the rows that cannot be taken, each with the reason."""
    unfit = {}
    for start in range(0, len(weights), AT_ONCE):
        with np.errstate(over="ignore"):  # float64 may become infinite
            part = torch.from_numpy(np.array(weights[start : start + AT_ONCE], np.float32))
        finite = part.isfinite().all(1)
        for i in (~finite).nonzero()[:, 0].tolist():
            unfit[start + i] = "with NaN or infinity"
        for i in (finite & (part.abs().amax(1) > largest_weight)).nonzero()[:, 0].tolist():
            unfit[start + i] = f"with a weight above {largest_weight:g}"
    return unfit


def read_states(weights: np.ndarray, variables: list[Variable], rows: list[int]) -> Iterator[States]:
    """Yield the states of rows in parts."""
    for start in range(0, len(rows), AT_ONCE):
        part = torch.from_numpy(np.array(weights[rows[start : start + AT_ONCE]], np.float32))
        yield {each.name: each.read(part) for each in variables}


def common_folder(paths: list[str]) -> int:
    """Return how many characters all paths begin with in common, up to a slash."""
    return os.path.commonprefix([path for path in paths if path]).rfind("/") + 1
