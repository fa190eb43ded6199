"""Input lists and instance files: the original's formats are read, wrong ones refused with file and line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.folders import Folders
from data.instance_files import read_instance, save_instance
from data.nets import Entry, load_mixed_nets, load_nets, meta_batches, pair_batches, parse_line, read_list, write_lists
from models.architecture_pool import ArchitecturePool
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "name", "path"),
    [
        ("lenetlike;d0;scifar10;nets/a.pt", "lenetlike", "nets/a.pt"),
        ("vanilla_cnn;d1;scifar10;/abs/b.pt", "vanilla_cnn", "/abs/b.pt"),
        ("resnet_fusedbn;d2;d8;scifar10;c.pt", "resnet8", "c.pt"),
        ("resnet_fusedbn;d3;d32;scifar10;d.safetensors", "resnet32", "d.safetensors"),
    ],
)
def test_lines_of_the_original_release_are_read_and_written_alike(line, name, path):
    entry = parse_line(line, "list, line 1")
    assert (entry.architecture.name, entry.dataset, entry.path) == (name, "cifar10", Path(path))
    assert entry.line() == line


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("resnet8", "is not CLASS;ARGUMENTS"),
        ("resnet_fusedbn;d2;d8;scifar10;", "is not CLASS;ARGUMENTS"),
        ("resnet_fusedbn;dtwo;d8;scifar10;a.pt", "'dtwo' is not typed"),
        ("resnet_fusedbn;2;d8;scifar10;a.pt", "'2' is not typed"),
        ("resnet_fusedbn;d2;d9;scifar10;a.pt", "unknown architecture 'resnet_fusedbn;d2;d9'"),
        ("resnet_fusedbn;d2;d8;a.pt", "should be the data set"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, what):
    path = tmp_path / "train.txt"
    path.write_text(f"lenetlike;d0;scifar10;a.pt\n\n{line}\n")
    with pytest.raises(InputError, match=f"train.txt, line 3: .*{what}"):
        read_list(path, "make it")


def test_missing_and_empty_lists_name_the_command_that_makes_them(tmp_path):
    for make in (lambda path: None, lambda path: path.write_text("\n \n")):
        make(tmp_path / "val.txt")
        with pytest.raises(InputError, match="val.txt.*python create.py"):
            read_list(tmp_path / "val.txt", "python create.py")


@pytest.fixture
def resnet8():
    return ArchitectureOnImages(ARCHITECTURES["resnet8"], (1, 8, 8), 10)


def entry_of(path, name="resnet8", dataset="photos"):
    return Entry(ARCHITECTURES[name], dataset, path, f"{path.parent}/train.txt, line 1")


def test_instances_come_back_fused_from_safetensors_and_pt_with_batch_norm_or_without(tmp_path, resnet8):
    state = resnet8.start([1])
    one = {name: value[0] for name, value in state.items()}
    row = resnet8.fuse(state)[0]
    save_instance(tmp_path / "a.safetensors", one, {"steps": 3})
    torch.save(one, tmp_path / "b.pt")
    torch.save({name: value for name, value in one.items() if "num_batches" not in name}, tmp_path / "c.pt")
    torch.save({name: value[0] for name, value in resnet8.layout.unflatten(row[None]).items()}, tmp_path / "d.pt")
    nets = load_nets(
        [entry_of(tmp_path / name) for name in ("a.safetensors", "b.pt", "c.pt", "d.pt")], resnet8, "photos", CPU
    )
    assert torch.equal(nets.rows, row.expand(4, -1))
    assert read_instance(tmp_path / "a.safetensors")[1] == {"steps": 3}
    assert list(tmp_path.glob(".*")) == []  # nothing partial stays


def test_missing_foreign_and_broken_instances_are_refused_by_name(tmp_path, resnet8):
    def refused(entry, match):
        with pytest.raises(InputError, match=match) as refusal:
            load_nets([entry], resnet8, "photos", CPU)
        assert "\n" not in str(refusal.value)

    refused(entry_of(tmp_path / "gone.pt"), "gone.pt")
    (tmp_path / "text.pt").write_text("hello")
    refused(entry_of(tmp_path / "text.pt"), "text.pt cannot be read")
    (tmp_path / "text.safetensors").write_bytes(b"\x00" * 4)
    refused(entry_of(tmp_path / "text.safetensors"), "text.safetensors cannot be read")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(entry_of(tmp_path / "list.pt"), "not a state dict")
    torch.save(ARCHITECTURES["lenetlike"].build((1, 8, 8), 10).state_dict(), tmp_path / "lenet.pt")
    refused(entry_of(tmp_path / "lenet.pt"), "lenet.pt is no resnet8")
    torch.save(ARCHITECTURES["resnet8"].build((3, 32, 32), 10).state_dict(), tmp_path / "cifar.pt")
    refused(entry_of(tmp_path / "cifar.pt"), "cifar.pt is no resnet8 for these images")
    state = ARCHITECTURES["resnet8"].build((1, 8, 8), 10).state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    refused(entry_of(tmp_path / "nan.pt"), "nan.pt: 'fc.bias' holds NaN")
    refused(entry_of(tmp_path / "lenet.pt", "lenetlike"), "train.txt, line 1: lenetlike on photos")
    refused(entry_of(tmp_path / "a.pt", dataset="cifar10"), "line 1: resnet8 on cifar10, expected resnet8 on photos")


def test_a_pickle_with_code_is_not_run(tmp_path, resnet8):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"fc.bias": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InputError, match="trap.pt cannot be read"):
        read_instance(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_lists_that_say_something_else_are_not_overwritten(tmp_path):
    folders = Folders(lists_dir=tmp_path)
    entries = {"train": [entry_of(Path("a.pt"))]}
    write_lists(folders, "photos", "single", entries)()
    write_lists(folders, "photos", "single", entries)()  # the same again is fine
    path = tmp_path / "photos" / "single" / "train.txt"
    path.write_text("edited by hand\n")
    with pytest.raises(InputError, match="train.txt names other instances"):
        write_lists(folders, "photos", "single", entries)
    assert path.read_text() == "edited by hand\n"


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 30), st.integers(0, 99))
def test_meta_batches_use_every_instance_equally_often(num_nets, meta_batch, num_steps, key):
    chosen = meta_batches(num_nets, meta_batch, num_steps, (key,))
    assert chosen.shape == (num_steps, meta_batch)
    counts = np.bincount(chosen.flatten().numpy(), minlength=num_nets)
    assert counts.max() - counts.min() <= 1


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_a_pass_of_pairs_shows_every_instance_once_and_pairs_left_overs_alike(num_low, num_high, key):
    class_ids = [0] * num_low + [3] * num_high
    passes = max(num_low, num_high) - min(num_low, num_high)
    length = min(num_low, num_high) + -(-passes // 2)
    batches = pair_batches(class_ids, 2 * length, (key,))
    for one_pass in (batches[:length], batches[length:]):
        assert sorted(i for batch in one_pass for i in batch) == list(range(num_low + num_high))
        mixed = [batch for batch in one_pass if len({class_ids[i] for i in batch}) == 2]
        assert all(len(batch) == 2 for batch in mixed) and len(mixed) == min(num_low, num_high)
        assert sum(len(batch) == 1 for batch in one_pass) == passes % 2
    assert batches == pair_batches(class_ids, 2 * length, (key,))


def test_pairs_are_drawn_anew_in_every_pass():
    batches = [tuple(sorted(batch)) for batch in pair_batches([0] * 20 + [3] * 20, 40, (1,))]
    assert len(batches) == 40 and set(batches[:20]) != set(batches[20:])


def test_a_mixed_list_becomes_padded_preps_with_their_class_ids(tmp_path):
    pool = ArchitecturePool((1, 8, 8), 10, (8, 3688))
    entries, rows = [], []
    for class_id in (3, 0, 2):
        nets = pool[class_id]
        state = nets.start([class_id])
        path = tmp_path / f"{class_id}.safetensors"
        save_instance(path, {name: value[0] for name, value in state.items()}, {})
        entries.append(entry_of(path, nets.architecture.name))
        rows.append(nets.fuse(state)[0])
    nets = load_mixed_nets(entries, pool, "photos", CPU)
    assert nets.preps.shape == (3, 1, 8, 3688) and nets.class_ids == (3, 0, 2) and nets.of_class_id(2) == [2]
    for prep, row in zip(nets.preps.flatten(1), rows):
        assert torch.equal(prep[: len(row)], row) and (prep[len(row) :] == 0).all()
    for entry, match in (
        (entry_of(tmp_path / "0.safetensors", "resnet56"), "train.txt, line 1: resnet56 on photos"),
        (entry_of(tmp_path / "0.safetensors", "lenetlike", "cifar10"), "train.txt, line 1: lenetlike on cifar10"),
        (entry_of(tmp_path / "0.safetensors", "vanilla_cnn"), "0.safetensors is no vanilla_cnn"),
    ):
        with pytest.raises(InputError, match=match):
            load_mixed_nets([entries[0], entry], pool, "photos", CPU)
