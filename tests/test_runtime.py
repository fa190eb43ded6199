"""The process: signals end a script at once, or after the step of a training loop; what a result was made with."""

import json
import math
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from data.folders import Folders
from models.prep_autoencoder import Sizes
from training.constants import Optim
from training.runtime import (
    Interrupted,
    as_json,
    constants_of,
    deferred_signals,
    handled_signals,
    mixed_precision,
    provenance,
    stop_requested,
)

CPU = torch.device("cpu")
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_runs_at_once_with_the_shells_status(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped, handled_signals():
        signal.raise_signal(number)
        raise AssertionError("not reached")
    assert stopped.value.status == 128 + number
    assert signal.getsignal(number) is before and not stop_requested()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_deferred_signal_waits_for_the_end(number):
    steps = []
    with pytest.raises(Interrupted) as stopped, handled_signals():
        with deferred_signals():
            signal.raise_signal(number)
            assert stop_requested()
            steps.append(1)
        steps.append(2)
    assert steps == [1] and stopped.value.status == 128 + number


def test_an_error_that_the_signal_caused_is_reported_as_the_signal():
    with pytest.raises(Interrupted), handled_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise RuntimeError("from a library") from error


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), handled_signals():
        1 / 0  # noqa: B018


@dataclass(frozen=True)
class Config:
    dataset: str = "photos"
    sizes: Sizes = Sizes((8, 640))
    optim: Optim = Optim()
    checkpoint: Path | None = Path("a") / "b"
    folders: Folders = field(default_factory=Folders)


def test_constants_are_flat_but_for_sizes_and_without_folders():
    found = constants_of(Config())
    assert found["num_steps"] == Optim().num_steps and found["dataset"] == "photos"
    assert found["sizes"]["prep_shape"] == (8, 640)
    assert not {"optim", "folders", "runs_dir", "prep_shape"} & set(found)


def test_what_a_result_was_made_with_is_json():
    found = json.loads(json.dumps(provenance(Config()), allow_nan=False))
    assert found["config"]["clip_norm"] == "inf" and found["config"]["checkpoint"] == "a/b"
    assert {"python", "torch", "numpy"} <= set(found["versions"])
    nested = {"a": [1.5, math.inf, {"b": (math.nan, Path("x"))}], "c": None}
    assert as_json(nested) == {"a": [1.5, "inf", {"b": ["nan", "x"]}], "c": None}


def test_precisions_nest_and_leave_what_was_before():
    """A context may be entered within itself and within another, also if an error ends one."""
    bfloat16, float32 = mixed_precision(CPU, "bfloat16"), mixed_precision(CPU, None)
    found = []

    def look():
        found.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)

    with bfloat16:
        with bfloat16, float32, bfloat16:
            look()
            with float32:
                look()
        with pytest.raises(ZeroDivisionError), float32:
            raise ZeroDivisionError
        look()
    look()
    assert found == [torch.bfloat16, torch.float32, torch.bfloat16, torch.float32]


def test_tf32_is_allowed_only_where_it_was_asked_for():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    for precision, allowed in (("tf32", True), ("bfloat16", False), ("tf32", True), (None, False)):
        mixed_precision(CPU, precision)
        assert [each.allow_tf32 for each in backends] == [allowed, allowed]
