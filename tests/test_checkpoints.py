"""Checkpoints: whole or absent, with the original release's names, refused by name if they are broken or another's."""

import pytest
import torch
from torch import nn

from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from training.checkpoints import (
    load_checkpoint,
    load_model,
    model_entries,
    refuse_other_constants,
    restore_model,
    save_checkpoint,
)

SIZES = Sizes((8, 648))


@pytest.fixture(scope="module")
def model():
    return PrepAutoencoder(SIZES, 4)


def restored(path, num_class_ids=None):
    return restore_model(load_checkpoint(path, ""), path, "", num_class_ids)


def test_a_checkpoint_has_the_classifier_among_the_decoders_entries(tmp_path, model):
    """As the original's do; the single-architecture setting ignores it, the other one needs it, of its own size."""
    path, entries = tmp_path / "best.pt", model_entries(model)
    assert {"arch_conv.0.weight", "arch_classifier.bias"} <= set(entries["1"])
    for state in (entries, {key: entries[key] for key in ("0", "1")}):  # the original's say no sizes
        save_checkpoint(path, state)
        for name, value in restored(path, 4).state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        assert restored(path).classifier is None and restored(path).sizes == SIZES
        with pytest.raises(InputError, match="arch_classifier.bias"):
            restored(path, 5)
    save_checkpoint(path, model_entries(PrepAutoencoder(SIZES)))
    with pytest.raises(InputError, match="arch_"):
        restored(path, 4)


def test_sizes_come_back_and_torchs_generator_stays(tmp_path):
    sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
    save_checkpoint(tmp_path / "best.pt", model_entries(PrepAutoencoder(sizes)))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = restored(tmp_path / "best.pt")
    assert found.sizes == sizes and not found.training
    assert torch.equal(torch.rand(2), expected)


def test_any_other_module_is_one_entry(tmp_path):
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    save_checkpoint(tmp_path / "a.pt", model_entries(module))
    load_model(other, load_checkpoint(tmp_path / "a.pt", ""), tmp_path / "a.pt")
    assert torch.equal(module.weight, other.weight)
    with pytest.raises(InputError, match="a.pt"):
        load_model(nn.Linear(3, 3), load_checkpoint(tmp_path / "a.pt", ""), tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("0"), "NetSpace"),
        (lambda state: state["0"].pop("conv1.0.weight"), "conv1.0.weight"),
        (lambda state: state["1"].update({"scalelayer.scale": torch.zeros(8, 640)}), "scalelayer.scale"),
        (lambda state: state["1"].update({"other": torch.zeros(1)}), "other"),
        (lambda state: state["0"].update({"conv1.0.bias": torch.full((128,), float("nan"))}), "conv1.0.bias.*NaN"),
        (lambda state: state["0"].update({"conv1.0.bias": torch.zeros(128, dtype=torch.int64)}), "conv1.0.bias"),
    ],
)
def test_a_checkpoint_that_is_broken_or_anothers_is_refused(tmp_path, model, change, named):
    entries = model_entries(model)
    state = {"sizes": entries["sizes"], "0": dict(entries["0"]), "1": dict(entries["1"])}
    change(state)
    save_checkpoint(tmp_path / "best.pt", state)
    with pytest.raises(InputError, match=named) as refusal:
        restored(tmp_path / "best.pt", 4)
    assert "best.pt" in str(refusal.value)


def test_missing_and_unreadable_checkpoints_name_the_command_that_makes_them(tmp_path):
    path = tmp_path / "best.pt"
    with pytest.raises(InputError, match="best.pt.*python a.py"):
        load_checkpoint(path, "python a.py")
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="best.pt.*python a.py"):
        load_checkpoint(path, "python a.py")
    for state in ({"a": 1}, [1, 2]):
        save_checkpoint(path, state)
        with pytest.raises(InputError, match="best.pt.*python a.py"):
            load_checkpoint(path, "python a.py", ["a", "b"])


def test_constants_that_differ_are_named(tmp_path):
    refuse_other_constants(tmp_path, {"a": 1, "b": (2, 3), "old": 5}, {"a": 1, "b": (2, 3)})
    for saved in ({"a": 1, "b": (2, 4)}, {"a": 1}):
        with pytest.raises(InputError, match=r"b .*, now it is \(2, 3\)"):
            refuse_other_constants(tmp_path, saved, {"a": 1, "b": (2, 3)})
    with pytest.raises(InputError):
        refuse_other_constants(tmp_path, [1], {"a": 1})


HUGE = [
    {"row_channels": 2**15, "row_length": 2**15},
    {"emb_size": 2**30, "grid": 2**15},
    {"prep_shape": (2**30, 2**30)},
    {"prep_shape": "ab"},
    {"prep_shape": (8, 648.0)},
    {"emb_size": -4096},
    {"grid": 10**400},
    {"colour": 3},
]


@pytest.mark.parametrize("change", [*HUGE, None, 3, [1], "sizes"], ids=lambda change: str(change)[:40])
def test_sizes_that_the_tensors_do_not_have_are_refused_before_they_are_built(tmp_path, model, change):
    entries = model_entries(model)
    sizes = {**entries["sizes"], **change} if isinstance(change, dict) else change
    built = []
    hook = nn.modules.module.register_module_parameter_registration_hook(
        lambda module, name, parameter: built.append(parameter) if parameter.device.type != "meta" else None
    )
    save_checkpoint(tmp_path / "best.pt", {**entries, "sizes": sizes})
    try:
        with pytest.raises(InputError, match="best.pt"):
            restored(tmp_path / "best.pt", 4)
    finally:
        hook.remove()
    assert not built


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(128, device="meta"),
        torch.zeros(128).to(torch.float8_e4m3fn),
        torch.full((128,), 1e300, dtype=torch.float64),
    ],
)
def test_numbers_that_are_none_are_refused_by_name(tmp_path, model, value):
    entries = model_entries(model)
    save_checkpoint(tmp_path / "best.pt", {**entries, "0": {**entries["0"], "conv1.0.bias": value}})
    with pytest.raises(InputError, match="best.pt.*conv1.0.bias"):
        restored(tmp_path / "best.pt", 4)
