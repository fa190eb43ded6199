"""Zoos in our own format: what `zoo.json` says is compared with the files before anything of that size is built."""

import csv
import io
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from data.files import fingerprint_of_file
from data.zoo_folders import number, write_zoo
from data.zoos import last_checkpoints, load_zoo, split_zoo
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, Architecture
from tests.conftest import spread_out

IMAGES = {
    "dataset": "photos",
    "image_shape": [1, 8, 8],
    "class_names": [f"c{i}" for i in range(10)],
    "mean": [0.5],
    "std": [0.2],
}
STEPS = (2, 10)


def zoo_of(folder, names=("resnet8", "lenetlike"), nets=3):
    """Write a zoo; return the states of each architecture, entries (N, *shape)."""
    states, facts = {}, {}
    for name in names:
        net = TargetNet(ARCHITECTURES[name], (1, 8, 8), 10)
        states[name] = spread_out(net.start(range(nets * len(STEPS))), seed=1)
        facts[name] = [
            {"architecture": name, "net": f"{name}-{i}", "step": step, "test_accuracy": 10.0 + 10 * i + step}
            for i in range(nets)
            for step in STEPS
        ]
    write_zoo(folder, states, facts, IMAGES, {"config": {"seed": 0}, "versions": {}})
    return states


@pytest.fixture
def folder(tmp_path):
    zoo_of(tmp_path / "zoo")
    return tmp_path / "zoo"


def rewrite_about(folder, change):
    about = json.loads((folder / "zoo.json").read_text())
    change(about)
    (folder / "zoo.json").write_text(json.dumps(about))


def sign(folder):
    """Write the fingerprints of the files as they are now, as whoever wants to harm would."""
    rewrite_about(
        folder, lambda about: about["files"].update({n: fingerprint_of_file(folder / n) for n in about["files"]})
    )


def refused(folder, *parts):
    with pytest.raises(InputError) as refusal:
        load_zoo(folder)
    message = str(refusal.value)
    assert all(part in message for part in (folder.name, *parts)), message


def test_a_zoo_comes_back_with_every_state_row_and_fact(tmp_path):
    folder = tmp_path / "zoo"
    states = zoo_of(folder)
    zoo = load_zoo(folder)
    assert zoo.nets.nets.names == ["resnet8", "lenetlike"] and len(zoo.nets) == 12
    for class_id, (name, state) in enumerate(states.items()):
        assert all(torch.equal(zoo.states[name][key], value) for key, value in state.items())
        net = TargetNet(ARCHITECTURES[name], (1, 8, 8), 10)
        rows = zoo.nets.rows[zoo.nets.indices_of(class_id)]
        assert torch.equal(rows[:, : net.num_parameters], net.fuse(state))
        assert not rows[:, net.num_parameters :].any()
    assert zoo.nets.facts[3] == {"architecture": "resnet8", "net": "resnet8-1", "step": 10, "test_accuracy": 30.0}
    assert sum(map(len, split_zoo(zoo.nets).values())) == 12
    assert last_checkpoints(zoo.nets).column("step") == [10] * 6


def test_rows_are_the_same_however_few_are_fused_at_once(folder, monkeypatch):
    expected = load_zoo(folder).nets.rows
    monkeypatch.setattr("data.zoos.AT_ONCE", 6000)
    assert torch.equal(load_zoo(folder).nets.rows, expected)


def test_rows_are_made_once(tmp_path, monkeypatch):
    """No second tensor is as large as all rows, as padded and joined copies would be."""
    monkeypatch.setattr("data.zoos.AT_ONCE", 600)
    zoo_of(tmp_path / "zoo", ("lenetlike",))
    large = {}

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() >= 6 * 4 * 540:
                large[out.untyped_storage().data_ptr()] = out
            return out

    with Counted():
        zoo = load_zoo(tmp_path / "zoo")
    assert list(large) == [zoo.nets.rows.data_ptr()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("format", None),
        ("architectures", {}),
        ("architectures", ["resnet8"]),
        ("architectures", {"resnet8": 6, "lenetlike": "6"}),
        ("architectures", {"resnet8": 6, "lenetlike": True}),
        ("architectures", {"resnet8": 6, "lenetlike": -6}),
        ("architectures", {"resnet8": 6, "lenetlike": 2**40}),
        ("architectures", {"resnet8": 6, "lenetlike": 7}),
        ("architectures", {"lenetlike": 6, "resnet8": 6}),
        ("architectures", {"resnet8": 6}),
        ("architectures", {"resnet8": 6, "resnet9": 6}),
        ("images", None),
        ("config", ["seed"]),
        ("files", None),
        ("files", {}),
    ],
)
def test_what_no_zoo_says_is_refused(folder, key, value):
    rewrite_about(folder, lambda about: about.update({key: value}))
    refused(folder, "make the zoo again")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_shape", [1, 8]),
        ("image_shape", [1, 8, 8.0]),
        ("image_shape", [True, 8, 8]),
        ("image_shape", [1, 10**9, 10**9]),
        ("image_shape", [10**9, 8, 8]),
        ("image_shape", [1, 28, 28]),
        ("image_shape", [3, 8, 8]),
        ("image_shape", "1x8x8"),
        ("class_names", 10),
        ("class_names", []),
        ("class_names", [1, 2]),
        ("class_names", ["a", "b"]),
        ("dataset", 7),
        ("mean", [0.5, 0.5]),
        ("mean", 0.5),
        ("mean", [float("nan")]),
        ("std", [0.0]),
        ("std", ["0.2"]),
    ],
)
def test_images_that_cannot_be_or_are_others_than_the_nets_take_are_refused(folder, key, value):
    rewrite_about(folder, lambda about: about["images"].update({key: value}))
    refused(folder, "make the zoo again")


def test_nets_are_built_only_once_their_sizes_are_those_of_the_file(folder, monkeypatch):
    rewrite_about(folder, lambda about: about["images"].update(class_names=[str(i) for i in range(100_000)]))

    def build(*args):
        raise AssertionError("built")

    monkeypatch.setattr(TargetNet, "__init__", build)
    refused(folder, "resnet8.safetensors", "100000")


def test_an_instance_number_that_the_file_lacks_takes_no_memory(tmp_path):
    zoo_of(tmp_path / "zoo", ("lenetlike",))
    rewrite_about(tmp_path / "zoo", lambda about: about.update(architectures={"lenetlike": 2**31 - 1}))
    refused(tmp_path / "zoo", "facts.csv", "6")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "a/b.safetensors", "zoo.json", ""])
def test_files_have_names_of_the_zoo_alone(folder, name):
    rewrite_about(folder, lambda about: about["files"].update({name: "sha256:0"}))
    refused(folder, "zoo.json", "files")


def test_a_link_to_nothing_and_a_folder_in_the_place_of_a_file_are_refused(folder):
    (folder / "facts.csv").unlink()
    (folder / "facts.csv").mkdir()
    refused(folder, "facts.csv")
    (folder / "facts.csv").rmdir()
    (folder / "facts.csv").symlink_to("nowhere")
    refused(folder, "facts.csv", "half copied")


def test_a_zoo_in_the_making_a_half_copied_one_and_another_folder_are_told_apart(tmp_path):
    refused(tmp_path / "zoo-none", "create_nets_dataset_zoo.py")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "create_nets_dataset_zoo.py")
    zoo_of(tmp_path / "zoo")
    (tmp_path / "zoo" / "resnet8.safetensors").rename(tmp_path / "moved")
    refused(tmp_path / "zoo", "resnet8.safetensors", "half copied")
    (tmp_path / "moved").rename(tmp_path / "zoo" / "resnet8.safetensors")
    (tmp_path / "zoo" / "zoo.json").unlink()
    refused(tmp_path / "zoo", "still being made, or half copied")


def edit_facts(folder, change):
    rows = list(csv.DictReader(io.StringIO((folder / "facts.csv").read_text())))
    rows = change(rows) or rows
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / "facts.csv").write_text(text.getvalue())
    sign(folder)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("step", "ten"),
        ("step", "1.5"),
        ("step", "-1"),
        ("step", "9" * 30),
        ("step", "2"),  # as the line above: the same net twice
        ("test_accuracy", "nan"),
        ("test_accuracy", "101"),
        ("test_accuracy", "good"),
        ("test_accuracy", "-1e-3"),
        ("net", "../../x"),
        ("net", "n" * 300),
        ("architecture", "lenetlike"),
    ],
)
def test_facts_that_are_not_what_their_column_says_are_refused_by_line(folder, column, value):
    edit_facts(folder, lambda rows: rows[1].update({column: value}))
    refused(folder, "facts.csv", "line 3")


def test_a_table_without_a_column_or_with_other_lines_is_refused(folder):
    edit_facts(folder, lambda rows: rows[:-1])
    refused(folder, "facts.csv", "11", "12")
    edit_facts(folder, lambda rows: [{k: v for k, v in row.items() if k != "net"} for row in rows])
    refused(folder, "facts.csv", "net")


def test_numbers_are_finite_and_names_stay_names(folder):
    assert [number(text) for text in ("3", "2.5", "1e3", "x")] == [3, 2.5, 1000.0, "x"]
    assert [number(text) for text in ("nan", "inf", "-Infinity", "9" * 5000)] == ["nan", "inf", "-Infinity", "9" * 5000]
    edit_facts(folder, lambda rows: [{**row, "net": f"00{i // 2}"} for i, row in enumerate(rows)])
    assert load_zoo(folder).nets.column("net")[:3] == ["000", "000", "001"]


def edit_states(folder, change):
    state = load_file(folder / "resnet8.safetensors")
    change(state)
    save_file(state, folder / "resnet8.safetensors")
    sign(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fc.bias", torch.zeros(6, 11)),
        ("fc.bias", torch.zeros(5, 10)),
        ("fc.bias", torch.zeros(6, 10, dtype=torch.float64)),
        ("fc.bias", torch.zeros(6, 10, dtype=torch.int64)),
        ("fc.other", torch.zeros(6)),
        ("fc.num_batches_tracked", torch.zeros(6, dtype=torch.int64)),
        ("bn1.num_batches_tracked", torch.zeros(5, dtype=torch.int64)),
        ("conv1.weight", None),
    ],
)
def test_states_of_other_names_shapes_or_types_are_refused_before_they_are_read(folder, name, value):
    edit_states(folder, lambda state: state.pop(name) if value is None else state.update({name: value}))
    refused(folder, "resnet8.safetensors", name)


def test_an_instance_that_is_not_finite_is_named(folder):
    def spoil(state):
        state["layer2.0.bn1.running_var"][3] = -1.0

    edit_states(folder, spoil)
    refused(folder, "resnet8.safetensors", "resnet8-1-step10", "NaN")


def test_states_without_counters_are_read(folder):
    edit_states(folder, lambda state: [state.pop(name) for name in list(state) if name.endswith("tracked")])
    zoo = load_zoo(folder)
    assert zoo.states["resnet8"]["bn1.num_batches_tracked"].tolist() == [0] * 6


@pytest.mark.parametrize("cut", [4, 100, -8])
def test_damaged_files_are_refused_by_name(folder, cut):
    path = folder / "resnet8.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    refused(folder, "resnet8.safetensors")
    sign(folder)
    refused(folder, "resnet8.safetensors")


def test_rows_that_padding_alone_would_make_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("data.zoos.ALWAYS_FITS", 0)
    monkeypatch.setattr("data.zoos.MOST_PADDING", 1)
    zoo_of(tmp_path / "zoo", ("lenetlike",))
    load_zoo(tmp_path / "zoo")  # nothing is padded
    zoo_of(tmp_path / "two", ("lenetlike", "resnet32"), nets=2)
    refused(tmp_path / "two", "8 instances")


def test_an_architecture_of_ones_own_makes_a_zoo_too(tmp_path, monkeypatch):
    class Own(torch.nn.Module):
        def __init__(self, input_shape, num_outputs):
            super().__init__()
            torch.rand(1).item()  # what a meta tensor cannot do
            self.fc = torch.nn.Linear(input_shape[1] ** 2, num_outputs)

        def forward(self, x):
            return self.fc(x.flatten(1))

    monkeypatch.setitem(ARCHITECTURES, "own", Architecture("own", None, "own", Own))
    states = zoo_of(tmp_path / "zoo", ("own",), nets=1)
    assert torch.equal(load_zoo(tmp_path / "zoo").states["own"]["fc.bias"], states["own"]["fc.bias"])
