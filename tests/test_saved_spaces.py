"""Saved spaces: read by any of their names, and what their text claims is compared with their tensors first."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.files import fingerprint_of_file
from evaluation.spaces import CONFIG, WEIGHTS, Space
from models.errors import InputError
from netspace import NetSpace
from tests.test_library import siren_space, space_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for name, space in (("images", space_of("resnet8")), ("sirens", siren_space())):
        space.save(folder / name)
    return folder


@pytest.fixture
def own(saved, tmp_path):
    """Return a copy of a saved space, changed: its folder."""

    def change(name, config=None, weights=None, encoding="utf-8"):
        folder = tmp_path / name
        folder.mkdir()
        content = json.loads((saved / name / CONFIG).read_text())
        state = load_file(saved / name / WEIGHTS)
        save_file({**state, **(weights or {})}, folder / WEIGHTS)
        content |= {"weights": fingerprint_of_file(folder / WEIGHTS), **(config or {})}
        (folder / CONFIG).write_text(json.dumps(content), encoding=encoding)
        return folder

    return change


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_saved_space_is_read_by_its_folder_and_by_its_files(own, encoding):
    folder = own("images", encoding=encoding)
    expected = Space.load(folder).fingerprint
    for path in (folder / WEIGHTS, str(folder / CONFIG)):
        assert NetSpace.load(path).space.fingerprint == expected


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sirens", {"nets": {"siren_widths": [3, 60000, 60000, 1]}}),
        ("sirens", {"nets": {"siren_widths": [3, 8]}}),
        ("images", {"nets": {"architectures": ["resnet8"], "image_shape": [60000, 64, 64], "class_names": ["a"]}}),
        ("images", {"nets": {"architectures": ["resnet8"], "image_shape": [1, 8, 8], "class_names": ["a"] * 100_000}}),
        ("images", {"nets": {"architectures": ["resnet8"] * 2, "image_shape": [1, 8, 8], "class_names": ["a"]}}),
        ("images", {"nets": {"architectures": [["resnet8"]], "image_shape": [1, 8, 8], "class_names": ["a"]}}),
        ("images", {"nets": 3}),
        ("images", {"sizes": {"prep_shape": [8, 640], "row_channels": 2**15, "row_length": 2**15}}),
        ("images", {"sizes": {"prep_shape": [8, 10**30]}}),
        ("images", {"sizes": [8, 640]}),
        ("images", {"sizes": None}),
        ("images", {"format": 10**200}),
        ("images", {"weights": None}),
    ],
    ids=str,
)
def test_texts_that_claim_what_the_tensors_are_not_are_refused(own, name, change):
    with pytest.raises(InputError, match=f"{CONFIG}|{WEIGHTS}") as refusal:
        NetSpace.load(own(name, change))
    assert "delete" not in str(refusal.value)


@pytest.mark.parametrize(
    "value", [torch.full((8,), float("nan")), torch.zeros(8, dtype=torch.int64), torch.zeros(3), torch.zeros(8, 8)]
)
def test_weights_of_another_kind_are_refused_by_name(own, value):
    with pytest.raises(InputError, match="encoder.conv1.0.bias"):
        NetSpace.load(own("images", weights={"encoder.conv1.0.bias": value}))


def test_any_safetensors_is_refused_without_saying_delete(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="a.safetensors") as refusal:
        NetSpace.load(tmp_path / "a.safetensors")
    assert "delete" not in str(refusal.value)
