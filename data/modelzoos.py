"""Zoos in the layout of modelzoos.cc: a folder a net, as Ray Tune writes it.

NN_tune_trainable_.../params.json                     constants, by flat keys such as optim::lr and model::nlin
NN_tune_trainable_.../result.json                     a JSON object a line: training_iteration, test_acc, train_acc, ...
NN_tune_trainable_.../checkpoint_000050/checkpoints   a pickled state dict; also checkpoint_50/checkpoints
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.files import Listing, is_regular, list_files, list_folders
from data.foreign_zoos import (
    LeftOut,
    Source,
    ZooOptions,
    accuracies,
    has_larger,
    net_name,
    scalars,
    side_of,
    with_activation,
)
from data.instance_files import plain_state, row_of
from data.recognition import fitting, forms, renumbered, shapes_of, target_net
from data.tensor_files import read_tensors
from data.texts import parse_json, read_json, read_lines
from data.zoo_folders import Facts, States
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, architectures_for

CHECKPOINT = re.compile(r"checkpoint_(\d{1,9})")
PARAMS, RESULT, STATE = "params.json", "result.json", "checkpoints"
KEPT = ("model::", "optim::", "training::", "seed")  # constants that become facts
AT_ONCE = 16  # states read before they are written


@dataclass(frozen=True)
class Trial:
    """One net: its folder, constants, and the facts of each epoch that result.json has."""

    folder: Path
    params: dict[str, Any]
    epochs: dict[int, dict[str, float] | None]


def is_modelzoos(source: Path) -> bool:
    """Return whether a folder has, at any depth, a folder with the files of a net of such a zoo."""
    return any(all(is_regular(folder / name) for name in (PARAMS, RESULT)) for folder in trial_folders(source).files)


def trial_folders(source: Path) -> Listing:
    """Return the folders that have one of a net's files, in order of their names, and what was not looked into."""
    names = (PARAMS, RESULT)
    found = list_files(source, names, subfolders=True)
    return Listing(sorted({file.parent for file in found.files if file.name in names}), found.left_out)


def read_modelzoos(source: Path, dataset: str, options: ZooOptions) -> tuple[list[Source], LeftOut]:
    """Read a zoo: a Source for each architecture, and what is left out. Raise InputError if the folder cannot be listed."""
    left_out = LeftOut()
    facts: dict[TargetNet, Facts] = defaultdict(list)
    paths: dict[TargetNet, list[Path]] = defaultdict(list)
    images: tuple[Any, ...] = ()
    folders = trial_folders(source)
    for path, reason in folders.left_out:
        left_out.add(str(path), reason)
    for folder in folders.files:
        trial = read_trial(folder, left_out)
        if trial is None:
            continue
        name = net_name(folder.relative_to(source).as_posix() if folder != source else folder.resolve().name)
        for epoch, path in checkpoints(trial, left_out).items():
            known = trial.epochs.get(epoch)
            if known is None:
                reason = f"without test_acc in {RESULT}" if epoch in trial.epochs else f"without a line in {RESULT}"
                left_out.add(str(path), reason)
                continue
            net = recognized(path, trial.params, dataset, options)
            if isinstance(net, TargetNet) and images and (net.input_shape, net.num_outputs) != images:
                net = f"for other images or classes than the first, {images[0]} and {images[1]}"
            if isinstance(net, str):
                left_out.add(str(path), net)
                continue
            images = (net.input_shape, net.num_outputs)
            line = {"architecture": net.name, "net": name, "step": epoch, **known, **scalars(trial.params, KEPT)}
            facts[net].append(line)
            paths[net].append(path)
    return [Source(net, facts[net], partial(read_states, net, paths[net])) for net in facts], left_out


def read_trial(folder: Path, left_out: LeftOut) -> Trial | None:
    """Return a net's constants and epochs, None (and what is missing in `left_out`) if there are none."""
    try:
        params = read_json(folder / PARAMS, "copy it again")
        lines = read_lines(folder / RESULT)
    except InputError:
        missing = next((name for name in (PARAMS, RESULT) if not is_regular(folder / name)), None)
        left_out.add(str(folder), f"without {missing}" if missing else f"with a broken {PARAMS} or {RESULT}")
        return None
    epochs: dict[int, dict[str, float] | None] = {}
    for number, text in lines:
        try:
            line = parse_json(text)
            epoch = line["training_iteration"]
            if type(epoch) is not int or epoch < 0:
                raise ValueError
            # A trial that was resumed has an epoch twice: the later line is of the checkpoint that is there.
            epochs[epoch] = accuracies(*(line.get(f"{split}_acc") for split in ("test", "train", "validation")))
        except (ValueError, TypeError, KeyError):
            left_out.add(f"{folder / RESULT}, line {number}", f"lines of {RESULT} that cannot be read")
    return Trial(folder, params, epochs)


def checkpoints(trial: Trial, left_out: LeftOut) -> dict[int, Path]:
    """Return the checkpoints of a net by epoch, in order. An epoch after the first without one is counted as missing."""
    found: dict[int, Path] = {}
    named = set()
    for path in list_folders(trial.folder).files:
        match = CHECKPOINT.fullmatch(path.name)
        if not match:
            continue
        file, epoch = path / STATE, int(match[1])
        named.add(epoch)
        if not is_regular(file):
            left_out.add(str(file), "missing checkpoints")
        elif epoch in found:
            left_out.add(str(file), "checkpoints of an epoch that has another")
        else:
            found[epoch] = file
    missing = sorted(set(trial.epochs) - named - {0})
    if missing:
        left_out.add(f"{trial.folder}, epoch {missing[0]}", "epochs without a checkpoint", len(missing))
    return dict(sorted(found.items()))


def read_state(path: Path) -> dict[str, Tensor] | str:
    """Return the state dict in a checkpoint, or why there is none. Nothing in it is executed."""
    try:
        return plain_state(read_tensors(path)[0], str(path))
    except InputError as error:
        return f"not a state dict ({type(error.__context__ or error).__name__})"


def recognized(path: Path, params: dict[str, Any], dataset: str, options: ZooOptions) -> TargetNet | str:
    """Return the net that a checkpoint is of, or why it cannot be taken."""
    state = read_state(path)
    if isinstance(state, str):
        return state
    shapes = shapes_of(state)
    channels = next((shape[1] for shape in shapes.values() if len(shape) == 4), 0)
    num_outputs = next((shape[0] for shape in reversed(shapes.values()) if len(shape) == 2), 0)
    # Nets that take one side are known by their shapes; the others take the side that is given or likely.
    own = {each.sides[0] for each in ARCHITECTURES.values() if each.sides and len(each.sides) == 1}
    likely = side_of(dataset, options)
    for side in [likely, *sorted(own - {likely})] if channels and num_outputs else []:
        shape = (channels, side, side)
        # The form with batch norm: fine-tuning goes on from it.
        found = [
            each
            for each in fitting(architectures_for(shape), shapes, shape, num_outputs)
            if len(forms(each, shape, num_outputs)[0]) == len(shapes)
        ]
        if found:
            chosen = with_activation(found, params.get("model::nlin"), options.architecture)
            return (
                chosen if isinstance(chosen, str) else checked(target_net(chosen, shape, num_outputs), state, options)
            )
    return "of no registered architecture"


def checked(net: TargetNet, state: dict[str, Tensor], options: ZooOptions) -> TargetNet | str:
    """Return the net, or why its numbers cannot be taken."""
    try:
        row_of(net, state, net.name)
    except InputError:
        return "with NaN, infinity or what is not float32"
    larger = has_larger(state, options.largest_weight)
    return f"with a weight above {options.largest_weight:g}" if larger else net


def read_states(net: TargetNet, paths: list[Path]) -> Iterator[States]:
    """Yield the states of checkpoints that were recognized as `net`, in parts. Raise InputError if one has changed."""
    empty = net.trained.state_dict()
    for start in range(0, len(paths), AT_ONCE):
        states = []
        for path in paths[start : start + AT_ONCE]:
            state = read_state(path)
            named = {} if isinstance(state, str) else renumbered(state, shapes_of(empty))
            if shapes_of(named) != shapes_of(empty):
                raise InputError(f"{path} has changed while it was imported; import it again")
            # Counters, which nothing reads, are often missing.
            states.append(
                {name: named.get(name, value).reshape(value.shape).to(value.dtype) for name, value in empty.items()}
            )
        yield {name: torch.stack([state[name] for state in states]) for name in empty}
