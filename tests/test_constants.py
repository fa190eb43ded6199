"""Constants on the command line: their limits stand in their types, in groups and tuples too."""

from training.command_line import read_config

import dataclasses
import importlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from models.errors import InputError
from training import constants
from training.constants import (
    AtLeast2,
    Count,
    Flat,
    Fraction,
    Index,
    NonNegative,
    Optim,
    Positive,
    Search,
    Seed,
    SideBySide,
    Start,
    Unlimited,
    Views,
    check_limits,
)

PROJECT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in PROJECT.glob("*.py") if "PRESETS" in path.read_text())


@dataclass(frozen=True)
class Config:
    count: Count = 1
    index: Index = 0
    seed: Seed = 0
    at_least_2: AtLeast2 = 2
    positive: Positive = 1.0
    non_negative: NonNegative = 0.0
    fraction: Fraction = 0.5
    unlimited: Unlimited = 1.0
    several: tuple[Count, ...] = (1,)
    pair: tuple[Fraction, Fraction] = (0.0, 1.0)
    maybe: Count | None = None
    anything: int = -5
    switch: bool = False
    views: Flat[Views] = field(default_factory=Views)


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("count", [1, 10**12], [0, -1, 2**63]),
        ("index", [0, 1], [-1]),
        ("seed", [0, 2**63 - 1], [-1, 2**63]),
        ("at_least_2", [2], [1, 0]),
        ("positive", [1e-30, 5.0], [0.0, -1.0, math.nan, math.inf]),
        ("non_negative", [0.0, 5.0], [-1e-9, math.nan, math.inf]),
        ("fraction", [0.0, 0.5, 1.0], [-0.1, 1.1, math.nan, math.inf]),
        ("unlimited", [1e-3, math.inf], [0.0, -1.0, math.nan, -math.inf]),
        ("several", [(), (1, 2)], [(1, 0), (2**63, 1)]),
        ("pair", [(0.0, 1.0)], [(0.5, 1.5), (math.nan, 0.5)]),
        ("maybe", [None, 1], [0]),
        ("anything", [-5], []),
        ("switch", [False, True], []),
        ("views", [Views(prep_noise=0.0)], [Views(prep_noise=-1.0), Views(prep_noise=math.nan)]),
    ],
)
def test_limits(name, accepted, refused):
    for value in accepted:
        check_limits(dataclasses.replace(Config(), **{name: value}))
    flag = "--prep-noise" if name == "views" else f"--{name.replace('_', '-')}"
    for value in refused:
        with pytest.raises(InputError, match=f"^{flag} "):
            check_limits(dataclasses.replace(Config(), **{name: value}))


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("create_nets_dataset_multi", "--weight-decay 0 --momentum 0 --validate-from 0 --lr-drops 0 1"),
        ("create_nets_dataset_multi", "--checkpoint-seconds 0 --validate-from 1"),
        ("train_multi_arch", "--alpha 0 --prep-noise 0 --final-fraction 0"),
        ("train_single_arch", "--affine-quantile 0 --affine-scale 0 --clip-norm inf --seed 0"),
        ("train_latspace_single", "--alpha 0 --min-delta 0 --instance 0"),
        ("train_mlps", "--goal 0"),
    ],
)
def test_zero_is_accepted_where_it_has_a_meaning(script, arguments):
    read_config(importlib.import_module(script).PRESETS, arguments.split(), "")


@pytest.mark.parametrize(
    ("script", "flag", "values"),
    [
        ("create_nets_dataset_multi", "--weight-decay", "-0.1 nan inf"),
        ("create_nets_dataset_multi", "--momentum", "-0.1 1.5 nan"),
        ("create_nets_dataset_multi", "--validate-from", "-0.1 1.1 nan"),
        ("create_nets_dataset_multi", "--lr-drops", "-0.5 2"),
        ("create_nets_dataset_multi", "--side-by-side", "0 -1"),
        ("create_nets_dataset_single", "--lengths", "0 -3"),
        ("create_nets_dataset_single", "--learning-rate", "0 -1 nan inf"),
        ("train_single_arch", "--affine-quantile", "-0.1 1.1 nan"),
        ("train_single_arch", "--temperature", "0 -1 nan inf"),
        ("train_single_arch", "--clip-norm", "0 -1 nan"),
        ("train_single_arch", "--seed", "-1 9223372036854775808"),
        ("train_multi_arch", "--alpha", "-0.1 1.1 nan"),
        ("train_latspace_single", "--patience", "0"),
        ("train_latspace_single", "--instance", "-1"),
    ],
)
def test_numbers_outside_their_limits_are_refused_with_the_flag(script, flag, values):
    presets = importlib.import_module(script).PRESETS
    for value in values.split():
        with pytest.raises(InputError, match=f"^{flag} "):
            read_config(presets, [flag, value], "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_preset_is_within_its_limits(script):
    for preset in importlib.import_module(script).PRESETS.values():
        check_limits(preset)


@pytest.mark.parametrize(
    "amx, width, device, given, found",
    [
        (True, 10_000, "cpu", None, "bfloat16"),
        (True, 10_000, "cpu", "float32", "float32"),
        (True, 160, "cpu", None, None),  # too narrow to gain from it
        (False, 10_000, "cpu", None, None),
        (True, 10_000, "cuda", None, None),  # a GPU's own default
    ],
)
def test_wide_preps_are_trained_in_bfloat16_where_a_cpu_has_it(monkeypatch, amx, width, device, given, found):
    monkeypatch.setattr(constants, "has_amx", lambda: amx)
    preset = importlib.import_module("train_single_arch").PRESETS["cifar10"]
    config = dataclasses.replace(
        preset,
        sizes=dataclasses.replace(preset.sizes, prep_shape=(8, width)),
        optim=dataclasses.replace(preset.optim, precision=given),
    )
    chosen = constants.with_precision(config, torch.device(device))
    assert chosen.optim.precision == found
    assert dataclasses.replace(chosen, optim=config.optim) == config  # nothing else changes


@pytest.mark.parametrize("group", [Optim, Start, Views, SideBySide, Search])
def test_every_number_of_a_group_has_limits(group):
    """NaN, or a huge negative number, is refused everywhere."""
    for each in dataclasses.fields(group):
        if type(each.default) in (int, float):
            bad = math.nan if isinstance(each.default, float) else -(10**9)
            with pytest.raises(InputError, match=f"--{each.name.replace('_', '-')} "):
                check_limits(dataclasses.replace(group(), **{each.name: bad}))
