"""Random numbers by name: no purpose has the draws of another, and none depends on what was drawn before."""

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.streams import balanced_indices, device_keys, random_indices, stream, torch_seed

CPU = torch.device("cpu")
PROJECT = Path(__file__).parent.parent
DRAWING = ("stream", "torch_seed", "device_keys")


def purposes():
    """Return the first argument of every call in the project that names a purpose."""
    files = [path for path in PROJECT.rglob("*.py") if path.parts[len(PROJECT.parts)] not in ("tests", ".venv")]
    calls = [node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if getattr(call.func, "id", None) in DRAWING]
    return [call.args[0].value for call in named if isinstance(call.args[0], ast.Constant)]


def draws(generator):
    return tuple(generator.integers(2**62, size=4).tolist())


def test_the_same_name_has_the_same_draws():
    assert draws(stream("a", 1, 2)) == draws(stream("a", 1, 2)) == draws(stream("a", np.int64(1), 2))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", 1), ("a", 1, 0)),
        (("a",), ("a", 0)),
        (("a", 1), ("b", 1)),
        (("a", 1, 2), ("a", 2, 1)),
        (("a", 12), ("a", 1, 2)),
        (("a", 1), ("a, 1",)),
        (("a', (1", 2), ("a", 1, 2)),
        (("a", 2**32), ("a", 0)),
        (("a", 1), ("a", -1)),
    ],
)
def test_other_names_have_other_draws(one, other):
    assert draws(stream(*one)) != draws(stream(*other))
    assert torch_seed(*one) != torch_seed(*other)


def test_no_two_purposes_in_the_project_have_the_same_draws():
    found = purposes()
    assert {"initialization", "images", "meta-batches", "noise", "points"} <= set(found)
    seen = [draws(stream(purpose, 0, 1)) for purpose in set(found)]
    assert len(set(seen)) == len(set(found))


def test_a_purpose_is_used_in_one_module():
    """Held-out shapes alone are drawn where shapes are made and where they are imported."""
    assert sorted(each for each in purposes() if each != "held-out shapes") == sorted(
        set(purposes()) - {"held-out shapes"}
    )


def test_torchs_seeds_are_of_31_bits():
    assert all(0 <= torch_seed("a", i) < 2**31 for i in range(100))


def test_indices_depend_on_key_and_step_alone():
    keys = device_keys("points", [(0, 3, i) for i in range(5)], CPU)
    together = random_indices(keys, 7, 100, 1000)
    assert torch.equal(together[[1, 4]], random_indices(keys[[1, 4]], 7, 100, 1000))
    assert torch.equal(together[:, :30], random_indices(keys, 7, 30, 1000))
    assert len({tuple(row) for row in together.tolist()}) == 5
    assert not torch.equal(together, random_indices(keys, 8, 100, 1000))
    others = device_keys("points of a fit", [(0, 3, i) for i in range(5)], CPU)
    assert not set(keys.tolist()) & set(others.tolist())


def test_indices_are_uniform_and_uncorrelated():
    indices = random_indices(device_keys("a", [(1,), (2,)], CPU), 0, 200_000, 50)
    counts = torch.stack([torch.bincount(row, minlength=50) for row in indices]).double()
    chi_squared = ((counts - 4000) ** 2 / 4000).sum(1)  # 49 degrees of freedom
    assert (chi_squared < 95).all() and (chi_squared > 20).all()
    x = indices.double().numpy()
    assert abs(np.corrcoef(x[0], x[1])[0, 1]) < 0.01 and abs(np.corrcoef(x[0, 1:], x[0, :-1])[0, 1]) < 0.01


@pytest.mark.parametrize(("step", "other"), list(combinations([0, 1, 2, 2**40], 2)))
def test_steps_are_uncorrelated(step, other):
    keys = device_keys("a", [(1,)], CPU)
    x, y = (random_indices(keys, each, 20_000, 1000)[0].double().numpy() for each in (step, other))
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.04


@given(num=st.integers(1, 50), num_samples=st.integers(2, 60), step=st.integers(0, 10**6))
def test_as_many_of_one_half_as_of_the_other(num, num_samples, step):
    indices = balanced_indices(device_keys("a", [(0,), (1,)], CPU), step, num, num_samples)
    positives = num_samples - num_samples // 2
    assert indices.shape == (2, num) and indices.min() >= 0 and indices.max() < num_samples
    assert ((indices < positives).sum(1) == num - num // 2).all()
