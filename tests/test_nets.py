"""Nets datasets: input lists in the original's format, choices and splits of instances, the targets of a step."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.folders import Folders
from data.images import ImageSet, make_images
from data.instance_files import save_instance
from data.nets import (
    Entry,
    NetsDataset,
    list_texts,
    load_entries,
    load_nets,
    load_sirens,
    load_teacher,
    meta_batch,
    pair_batch,
    parse_line,
    read_list,
    split_alike,
    write_lists,
)
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.target_nets import ARCHITECTURES, architectures_by_class_id, siren

CPU = torch.device("cpu")
PHOTOS = ((1, 8, 8), 10)
WIDTHS = (3, 7, 5, 1)
SOME = make_images(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2), (0.5,), (0.25,), 0)
IMAGES = ImageSet("photos", SOME, SOME, SOME, tuple("abcdefghij"))


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "data", tmp_path / "lists", tmp_path / "runs")


def put_list(folders, text, dataset="photos", setting="single", split="train"):
    path = folders.input_list(dataset, setting, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_instance(path, name="resnet8", seed=0, **facts):
    """Save an instance and return its row and the line that names it."""
    net = TargetNet(ARCHITECTURES[name], *PHOTOS)
    state = net.start([seed])
    save_instance(path, {key: value[0] for key, value in state.items()}, facts)
    return net.fuse(state)[0], Entry(ARCHITECTURES[name], "photos", path).line() + "\n"


# Input lists


@pytest.mark.parametrize(
    ("line", "name", "path"),
    [
        ("lenetlike;d0;scifar10;nets/a.pt", "lenetlike", "nets/a.pt"),
        ("vanilla_cnn;d1;scifar10;/abs/b.pt", "vanilla_cnn", "/abs/b.pt"),
        ("resnet_fusedbn;d2;d8;scifar10;c.pt", "resnet8", "c.pt"),
        ("resnet_fusedbn;d3;d32;scifar10;d.safetensors", "resnet32", "d.safetensors"),
        ("resnet_fusedbn;d56;scifar10;e.pt", "resnet56", "e.pt"),
        ("siren;l3,256,256,1;scifar10;f.pt", "siren", "f.pt"),
    ],
)
def test_lines_of_the_original_release_are_read_and_written_alike(line, name, path):
    entry = parse_line(line, "list, line 1")
    assert (entry.architecture.name, entry.dataset, entry.path) == (name, "cifar10", Path(path))
    assert entry.line() == line


@given(st.lists(st.integers(1, 999), min_size=1, max_size=4), st.sampled_from(["chairs", "deepsdf"]))
def test_a_line_of_a_siren_is_read_as_it_was_written(hidden, dataset):
    entry = Entry(siren((3, *hidden, 1)), dataset, Path("runs/x/a b.safetensors"), "list, line 1")
    assert parse_line(entry.line(), "list, line 1") == entry
    assert parse_line(entry.line().replace(";l", ";l[").replace(";s", "];s"), "list, line 1") == entry


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("resnet8", "resnet8"),
        ("resnet_fusedbn;d2;d8;scifar10;", "CLASS;ARGUMENTS"),
        ("resnet_fusedbn;dtwo;d8;scifar10;a.pt", "'dtwo'"),
        ("resnet_fusedbn;2;d8;scifar10;a.pt", "'2'"),
        ("resnet_fusedbn;d2;d9;scifar10;a.pt", "'resnet_fusedbn;d2;d9'"),
        ("resnet_fusedbn;d2;d8;a.pt", "'d8'"),
        ("siren;d8;schairs;a.pt", "siren;d8"),
        ("siren;l3,8,2;schairs;a.pt", "(3, 8, 2)"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(folders, line, named):
    put_list(folders, f"lenetlike;d0;scifar10;a.pt\n\n{line}\n")
    with pytest.raises(InputError, match=f"train.txt, line 3: .*{re.escape(named)}") as refusal:
        read_list(folders, "photos", "single", "train")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("setting", "script"),
    [
        ("single", "create_nets_dataset_single.py photos"),
        ("missing", "create_nets_dataset_multi.py photos"),
        ("mlps", "create_mlp_dataset.py photos"),
    ],
)
def test_missing_and_empty_lists_name_the_command_that_makes_them(folders, setting, script):
    for text in (None, "\n \n"):
        if text:
            put_list(folders, text, setting=setting, split="val")
        with pytest.raises(InputError, match=f"val.txt.*{script}"):
            read_list(folders, "photos", setting, "val")


def test_a_list_with_another_text_is_not_overwritten(folders):
    entries = {"train": [Entry(ARCHITECTURES["resnet8"], "photos", Path("a.pt"))], "val": []}
    texts = list_texts(folders, "photos", "single", entries)
    assert list(texts.values()) == ["resnet_fusedbn;d2;d8;sphotos;a.pt\n", ""]
    write_lists(texts)
    assert list_texts(folders, "photos", "single", entries) == texts  # the same again is fine
    put_list(folders, "edited by hand\n")
    with pytest.raises(InputError, match="train.txt"):
        list_texts(folders, "photos", "single", entries)
    assert folders.input_list("photos", "single", "train").read_text() == "edited by hand\n"


ODD_NAMES = ["lr=0.1;wd=0.pt", "a;scifar10;b.pt", "nét0.pt", "a b.pt", "#1.pt", "a'b.pt", "s.pt"]


@given(st.sampled_from(ODD_NAMES), st.sampled_from(["runs", "runs;1", "s;s"]), st.sampled_from(sorted(ARCHITECTURES)))
def test_any_name_that_a_line_can_hold_comes_back(name, folder, architecture):
    entry = Entry(ARCHITECTURES[architecture], "photos", Path(folder) / name, "list, line 1")
    assert parse_line(entry.line(), "list, line 1") == entry


@pytest.mark.parametrize("name", ["a\nb.pt", "a\u2028b.pt", "a.pt ", "a\x1b[2J.pt", "a\udcff.pt", "'a.pt'"])
def test_names_that_a_line_cannot_hold_are_refused_when_it_is_written(name):
    with pytest.raises(InputError, match="rename") as refusal:
        Entry(ARCHITECTURES["resnet8"], "photos", Path(name)).line()
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("folder", ["a\nb", " runs", "a\udcff"])
def test_folders_that_lists_cannot_name_are_refused_at_once(folder):
    for name in ("runs_dir", "lists_dir"):
        with pytest.raises(InputError, match="rename"):
            Folders(**{name: Path(folder)})


def test_lists_are_read_as_editors_leave_them(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for name in ("a.pt", "b c.pt", "back\\slash.pt"):
        (tmp_path / "nets" / name).touch()
    lines = [
        "# a comment",
        "lenetlike;d0;sphotos;nets/a.pt",
        "",
        "lenetlike; d0; sphotos; nets/a.pt ",
        '"lenetlike;d0;sphotos;nets/a.pt"',
        'lenetlike;d0;sphotos;"nets/b c.pt"',
        "lenetlike;d0;sphotos;nets\\a.pt",
        "lenetlike;d0;sphotos;nets/back\\slash.pt",
    ]
    put_list(folders, "")
    path = folders.input_list("photos", "single", "train")
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes("\r\n".join(lines).encode(encoding))
        found = [entry.path.as_posix() for entry in read_list(folders, "photos", "single", "train")]
        assert found == [*3 * ["nets/a.pt"], "nets/b c.pt", "nets/a.pt", "nets/back\\slash.pt"]


def test_a_long_list_is_read_line_by_line(folders):
    put_list(folders, "".join(f"resnet_fusedbn;d2;d8;sphotos;nets/{i}.pt\n" for i in range(5_000)))
    entries = read_list(folders, "photos", "single", "train")
    assert len(entries) == 5_000 and entries[-1].path == Path("nets/4999.pt")


# Loading


def test_a_mixed_list_becomes_padded_rows_with_their_class_ids_and_facts(folders, tmp_path):
    nets = TargetNets.on_images(architectures_by_class_id(), *PHOTOS)
    names = [nets.names[class_id] for class_id in (3, 0, 2)]
    put = [put_instance(tmp_path / f"{name}.safetensors", name, steps=i) for i, name in enumerate(names)]
    put_list(folders, "".join(line for _, line in put), setting="multi")
    found = load_nets(folders, IMAGES, "multi", "train", nets)
    assert found.rows.shape == (3, 29_474) and found.class_ids == (3, 0, 2) and len(found) == 3
    for row, (own, _) in zip(found.rows, put):
        assert torch.equal(row[: len(own)], own) and (row[len(own) :] == 0).all()
    assert found.column("steps") == [0, 1, 2] and found.column("id") == names and found.column("seed") == [None] * 3
    assert found.indices_of(2) == [2] and found.indices_of(1) == []
    assert found.index_of("resnet8") == found.index_of((tmp_path / "resnet8.safetensors").as_posix()) == 2
    assert found.index_of("resnet9") is None
    with pytest.raises(InputError, match="lenetlike, resnet8, resnet32.*lenetlike and resnet32"):
        put_list(folders, "".join(line for _, line in put), setting="missing")
        load_nets(folders, IMAGES, "missing", "train", nets)


def test_instances_of_another_architecture_or_data_set_are_refused_with_file_and_line(tmp_path):
    nets = TargetNets.on_images([ARCHITECTURES["resnet8"], ARCHITECTURES["resnet32"]], *PHOTOS)
    put_instance(tmp_path / "a.safetensors", "lenetlike")

    def refused(name, dataset, match, chosen=nets):
        entry = Entry(ARCHITECTURES[name], dataset, tmp_path / "a.safetensors", "train.txt, line 1")
        with pytest.raises(InputError, match=match):
            load_entries([entry], chosen, "photos", CPU)

    refused("resnet56", "photos", "train.txt, line 1.*resnet56 on photos.*resnet8 or resnet32")
    refused("resnet8", "cifar10", "train.txt, line 1.*resnet8 on cifar10.*photos")
    refused("resnet8", "photos", "a.safetensors.*resnet8")
    refused("lenetlike", "photos", "--architecture lenetlike", TargetNets(nets.nets[:1]))


def test_the_teacher_is_alone_in_its_list(folders, tmp_path):
    row, line = put_instance(tmp_path / "t.safetensors", "resnet56")
    put_list(folders, line, setting="multi", split="teacher")
    teacher = load_teacher(folders, IMAGES)
    assert torch.equal(teacher.rows, row[None]) and teacher.nets.names == ["resnet56"]
    put_list(folders, line * 2, setting="multi", split="teacher")
    with pytest.raises(InputError, match="teacher.txt, line 2"):
        load_teacher(folders, IMAGES)


def put_siren(path, widths=WIDTHS, samples=10, **changes):
    """Save a SIREN with samples and return the line that names it."""
    net = TargetNet(siren(widths))
    state = {name: value[0] for name, value in net.start([0]).items()}
    save_instance(path, {**state, "sdf": torch.randn(samples, 4), **changes}, {})
    return Entry(net.architecture, "chairs", path).line() + "\n"


def listed_sirens(folders, *lines):
    put_list(folders, "".join(lines), "chairs", "mlps")
    return load_sirens(folders, "chairs", "train", CPU)


def test_sirens_of_the_original_release(folders, tmp_path):
    net, sdf = TargetNet(siren(WIDTHS)), torch.randn(6, 4)
    state = net.start([4])
    torch.save({"mlp": {name: value[0] for name, value in state.items()}, "sdf": sdf}, tmp_path / "a.pt")
    found = listed_sirens(folders, Entry(net.architecture, "chairs", tmp_path / "a.pt").line())
    assert torch.equal(found.rows, net.fuse(state)) and torch.equal(found.samples[0], sdf)
    assert found.facts == ({"id": "a"},) and found.nets[0].trained.widths == WIDTHS


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sdf": torch.randn(5, 3)}, "'sdf'"),
        ({"sdf": torch.full((5, 4), float("nan"))}, "'sdf'.*NaN"),
        ({"mlp.2.bias": torch.full((5,), float("inf"))}, "'mlp.2.bias'.*infinity"),
        ({"mlp.2.bias": torch.zeros(4)}, r"'mlp.2.bias' is \(4,\), expected \(5,\)"),
        ({"mlp.6.bias": torch.zeros(4)}, "'mlp.6.bias'"),
    ],
)
def test_sirens_that_are_something_else_are_refused(folders, tmp_path, changes, match):
    line = put_siren(tmp_path / "a.safetensors", **changes)
    with pytest.raises(InputError, match=match) as error:
        listed_sirens(folders, line)
    assert "a.safetensors" in str(error.value)


def test_widths_that_only_a_list_claims_are_refused_before_such_a_net_is_built(folders, tmp_path):
    put_siren(tmp_path / "a.safetensors")
    for name in ("a.safetensors", "gone.pt"):
        with pytest.raises(InputError, match=name):
            listed_sirens(folders, f"siren;l3,60000,60000,1;schairs;{tmp_path / name}\n")


def test_lists_of_unlike_sirens_are_refused(folders, tmp_path):
    one = put_siren(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="b.safetensors.*12.*10"):
        listed_sirens(folders, one, put_siren(tmp_path / "b.safetensors", samples=12))
    with pytest.raises(InputError, match="line 2.*siren;l3,8,1.*siren;l3,7,5,1"):
        listed_sirens(folders, one, put_siren(tmp_path / "c.safetensors", (3, 8, 1)))
    with pytest.raises(InputError, match="line 1"):
        listed_sirens(folders, "lenetlike;d0;schairs;a.pt\n")


# Choices and splits


def a_dataset(size=6, samples=False, shape_of=lambda i: i):
    return NetsDataset(
        TargetNets.sirens([3, 2, 1]),
        torch.arange(float(size))[:, None].expand(-1, 11).contiguous(),
        tuple(i % 3 for i in range(size)),
        tuple({"id": str(i), "shape": shape_of(i)} for i in range(size)),
        tuple(Path(f"{i}.pt") for i in range(size)),
        torch.arange(float(size))[:, None, None].expand(-1, 5, 4) if samples else None,
    )


def indices(dataset):
    """Return which instances of `a_dataset` these are, and assert that all their parts agree."""
    found = [int(each) for each in dataset.column("id")]
    assert dataset.rows[:, 0].tolist() == found and dataset.class_ids == tuple(i % 3 for i in found)
    assert dataset.paths == tuple(Path(f"{i}.pt") for i in found) and len(dataset) == len(found)
    assert dataset.samples is None or dataset.samples[:, 0, 0].tolist() == found
    return found


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ([4, 0, 0, -1], [4, 0, 0, 5]),
        ((2,), [2]),
        (range(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2, 4]),
        ([True, False, False, True, False, False], [0, 3]),
        (np.array([5, 1]), [5, 1]),
        (np.arange(6) > 3, [4, 5]),
        (torch.tensor([3, 3]), [3, 3]),
        (torch.arange(6) < 2, [0, 1]),
        ([], []),
        ([False] * 6, []),
        (slice(0), []),
    ],
    ids=str,
)
def test_instances_are_chosen_by_indices_slices_and_masks(chosen, found, samples):
    assert indices(a_dataset(samples=samples)[chosen]) == found


def test_instances_that_are_not_there_are_not_chosen():
    with pytest.raises(IndexError):
        a_dataset()[[6]]


def test_filter_and_column_are_of_facts():
    dataset = a_dataset(shape_of=lambda i: "ab"[i % 2])
    assert indices(dataset.filter(lambda facts: facts["shape"] == "b")) == [1, 3, 5]
    assert indices(dataset.filter(lambda facts: "accuracy" in facts)) == []
    assert dataset.column("shape") == list("ababab") and dataset.column("accuracy") == [None] * 6


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_splits_have_every_instance_once_and_groups_stay_together(size, groups, seed):
    dataset = a_dataset(size, shape_of=lambda i: i % groups)
    fractions = {"train": 0.7, "val": 0.2, "test": 0.1}
    parts = dataset.split(fractions, seed)
    assert sorted(i for part in parts.values() for i in indices(part)) == list(range(size))
    assert all(abs(len(parts[name]) - fraction * size) <= 1 for name, fraction in fractions.items())
    by_shape = dataset.split(fractions, seed, by="shape")
    assert list(by_shape) == list(fractions)
    assert sorted(i for part in by_shape.values() for i in indices(part)) == list(range(size))
    shapes = [set(part.column("shape")) for part in by_shape.values()]
    assert sum(map(len, shapes)) == len(set.union(*shapes))
    again = dataset.split(fractions, seed, by="shape")
    assert all(indices(again[name]) == indices(part) for name, part in by_shape.items())


def test_another_seed_makes_another_split():
    parts = [indices(a_dataset(40).split({"a": 0.5, "b": 0.5}, seed)["a"]) for seed in (0, 1)]
    assert parts[0] != parts[1]


@given(size=st.integers(2, 40), data=st.data())
def test_samples_are_split_half_by_half(size, data):
    num = data.draw(st.integers(1, size - 1))
    samples = torch.arange(size).float()[None, :, None].expand(2, -1, 4)
    dataset = NetsDataset(
        TargetNets.sirens([3, 2, 1]), torch.zeros(2, 11), (0, 0), ({}, {}), (Path("a"), Path("b")), samples
    )
    rest, measured = dataset.split_samples(num)
    assert measured.samples.shape == (2, num, 4) and rest.samples.shape == (2, size - num, 4)
    assert sorted(rest.samples[0, :, 0].tolist() + measured.samples[0, :, 0].tolist()) == list(range(size))
    positives = (rest.samples[0, :, 0] < size - size // 2).sum().item()
    assert positives == (size - num) - (size - num) // 2 and rest.samples[0, :, 0].diff().gt(0).all()
    assert (measured.samples[0, :, 0] < size - size // 2).sum() == size - size // 2 - positives


@given(st.integers(0, 1000), st.sampled_from([(100, 16, 16), (3, 1, 1), (2, 4, 1)]))
def test_val_and_test_hold_weak_and_strong_instances_alike(seed, numbers):
    total = sum(numbers)
    splits = split_alike(range(total), *numbers[1:], seed)
    assert [len(splits[split]) for split in ("train", "val", "test")] == list(numbers)
    assert sorted(i for part in splits.values() for i in part) == list(range(total))
    for part, number in zip((splits["val"], splits["test"]), numbers[1:]):
        if number == 16:
            assert min(part) < total / 8 and max(part) >= total - total / 8
    assert split_alike(range(total), *numbers[1:], seed) == splits


def test_another_seed_splits_alike_otherwise():
    assert split_alike(range(132), 16, 16, 0)["test"] != split_alike(range(132), 16, 16, 1)["test"]


# The targets of a step


@given(st.integers(1, 20), st.integers(1, 24), st.integers(0, 99))
def test_meta_batches_show_every_instance_once_a_pass(num_nets, size, seed):
    shown = [i for step in range(3 * num_nets) for i in meta_batch(num_nets, size, seed, step)]
    assert len(shown) == 3 * num_nets * size
    for start in range(0, len(shown), num_nets):
        assert sorted(shown[start : start + num_nets]) == list(range(num_nets))


def test_every_pass_of_meta_batches_has_an_order_of_its_own():
    orders = [tuple(meta_batch(20, 20, seed, step)) for seed in (0, 1) for step in range(3)]
    assert len(set(orders)) == 6


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_a_pass_of_pairs_shows_every_instance_once_and_pairs_the_others_alike(num_low, num_high, seed):
    class_ids = np.random.default_rng(seed).permutation([0] * num_low + [3] * num_high).tolist()
    others = abs(num_high - num_low)
    length = min(num_low, num_high) + -(-others // 2)
    for number in range(2):
        one_pass = [pair_batch(class_ids, seed, number * length + i) for i in range(length)]
        assert sorted(i for batch in one_pass for i in batch) == list(range(num_low + num_high))
        mixed = [batch for batch in one_pass if len({class_ids[i] for i in batch}) == 2]
        assert all(len(batch) == 2 for batch in mixed) and len(mixed) == min(num_low, num_high)
        assert sum(len(batch) == 1 for batch in one_pass) == others % 2


def test_pairs_are_drawn_anew_in_every_pass():
    batches = [tuple(sorted(pair_batch([0] * 20 + [3] * 20, 1, step))) for step in range(40)]
    assert set(batches[:20]) != set(batches[20:])
