"""The state dict in what a file or a caller holds, however it is nested and wrapped, under the net's own names."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.tensor_files import as_native, read_tensors
from models.errors import InputError, brief, one_line

DEEPEST = 6  # dicts within dicts in which a state dict is looked for
MOST_DICTS = 10_000  # that are looked at


def is_other_kind(path: Path) -> bool:
    """Return whether a file can be read and has no tensors by name, as an optimizer's state. Raise InputError if it is broken."""
    return not any(dicts_of_tensors(read_tensors(path)[0]))


def state_dict_in(value: Any, fits: Callable[[set[str]], bool]) -> dict[str, Tensor] | None:
    """Return the state dict in nested values, under the net's own names; None if there is none.

    It is a dict of tensors by name, at most DEEPEST dicts deep, or what has one prefix in it. Counters (COUNTERS) do not count,
    and wrappers' names and prefixes that all names share are removed. Of several, one whose names `fits` a known net is
    preferred, then one under a usual name (USUAL), then one under a name that is not another's (OTHERS). Raise InputError if
    several different ones remain: which is meant, nobody can know.
    """
    found: list[tuple[tuple[bool, int], tuple[str, ...], dict[str, Tensor]]] = []
    for _, path, state in dicts_of_tensors(value):
        for prefix, part in parts_of(state, fits):
            names = [name.lower() for name in (*path, *prefix)]
            rank = 2 if any(OTHERS.search(name) for name in names) else 0 if set(names) <= USUAL else 1
            plain, known = without_prefixes(part, fits)
            found.append(((not known, rank), (*path, *prefix), plain))
    if not found:
        return None
    best = min(rank for rank, _, _ in found)
    chosen = [each for each in found if each[0] == best]
    if not best[0]:
        for _, path, net in chosen[1:]:
            if not alike(net, chosen[0][2]):
                both = [f"'{brief('.'.join(each))}'" if each else "its own" for each in (chosen[0][1], path)]
                raise InputError(f"several nets in it, {' and '.join(both)}; save the one that is meant alone")
    return chosen[0][2]


COUNTERS = ("n_averaged", "total_ops", "total_params", "_extra_state")  # of AveragedModel, profilers and wrappers
WRAPPERS = ("module", "_orig_mod", "model", "net", "_forward_module", "network")  # whose prefix is always removed
# What wrappers of a net's own parts put between its names.
INNER = {"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module", "module"}
USUAL = {"state_dict", "model_state_dict", "model_state", "net_state_dict", "state", "params", "weights", "student"}
USUAL |= {*WRAPPERS, "_fsdp_wrapped_module"}
# Averages, teachers, and what an optimizer or a run has for every parameter.
OTHERS = re.compile("ema|averag|swa|teacher|optim|exp_avg|momentum|moment[12]|grad|init|previous|^best|best_|_best")


def parts_of(
    state: dict[str, Tensor], fits: Callable[[set[str]], bool]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield a dict of tensors, without the names of inner wrappers, and if it is no known net, its parts by their prefix."""
    state = without_inner(state)
    yield (), state
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        prefix, _, below = name.partition(".")
        if below:
            parts.setdefault(prefix, {})[below] = value
    if without_prefixes(state, fits)[1]:
        return
    nets = [prefix for prefix, part in parts.items() if without_prefixes(part, fits)[1]]
    for prefix in nets:
        yield (prefix,), parts[prefix]
    rest = {name: value for name, value in state.items() if name.partition(".")[0] not in nets}
    if nets and without_prefixes(rest, fits)[1]:
        yield (), rest


def without_inner(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the names of wrappers within its names, unless two would be one then."""
    plain = {".".join(part for part in name.split(".") if part not in INNER): value for name, value in state.items()}
    return plain if len(plain) == len(state) else state


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two state dicts have the same names and tensors."""
    if set(one) != set(other):
        return False
    try:
        return all(each is other[name] or torch.equal(each, other[name]) for name, each in one.items())
    except (RuntimeError, NotImplementedError):  # of tensors that have no numbers
        return False


def dicts_of_tensors(value: Any) -> Iterator[tuple[int, tuple[str, ...], dict[str, Tensor]]]:
    """Yield depth, path and tensors of every dict that has tensors by name beside plain values, outer ones first."""
    level: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen: set[int] = set()
    for depth in range(DEEPEST + 1):
        below = []
        for path, each in level:
            if not isinstance(each, dict) or id(each) in seen or len(seen) > MOST_DICTS:
                continue
            seen.add(id(each))
            if "param_groups" in each:  # an optimizer
                continue
            named = {name: as_tensor(item) for name, item in each.items() if isinstance(name, str)}
            tensors = {name: item for name, item in named.items() if isinstance(item, Tensor)}
            if tensors:
                yield depth, path, tensors
            below += [((*path, name), item) for name, item in each.items() if isinstance(name, str)]
        level = below


def as_tensor(value: Any) -> Any:
    """Return an array of real numbers as a tensor, anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.dtype.itemsize <= 8:
        return torch.from_numpy(np.array(as_native(value)))
    return value


def without_prefixes(state: dict[str, Tensor], fits: Callable[[set[str]], bool]) -> tuple[dict[str, Tensor], bool]:
    """Return a state dict without counters and prefixes, and whether its names fit a known net."""
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in COUNTERS}
    stripped = None  # of wrappers alone
    while state and not fits(set(state)):
        prefixes = {name.partition(".")[0] for name in state}
        if stripped is None and not prefixes <= set(WRAPPERS):
            stripped = state
        if len(prefixes) != 1 or not all(name.partition(".")[2] for name in state):
            return (state if stripped is None else stripped), False
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state, bool(state)


def describe_names(state: dict[str, Tensor]) -> str:
    """Return the first names of a state dict, for messages."""
    return one_line(", ".join(f"'{brief(name)}'" for name in list(state)[:2]))
