"""Tiny-ImageNet's texts and lists as people have them, and CIFAR-10 as it is published."""

import pickle
import tarfile

import numpy as np
import pytest
import torch

from data.cifar10 import ARCHIVE, BATCH_NAMES, BATCHES
from data.load import load_images
from data.tiny_imagenet import SPLITS, read_split, refuse_overlap
from models.errors import InputError
from tests.test_foreign_files import Trap
from tests.test_image_files import sizes
from tests.test_images import write_cifar10, write_png

# Tiny-ImageNet

WNIDS = ("n01", "n02", "n03")


def tiny(data_dir, per_class=10, tests=6):
    folder = data_dir / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for i in range(per_class):
            write_png(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 64, seed=100 * label + i)
    for i in range(tests):
        write_png(folder / "val" / "images" / f"val_{i}.JPEG", 64, seed=1000 + i)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    lines = [f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t0\t1\t1\n" for i in range(tests)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def load_tiny(folder):
    return load_images("tiny-imagenet-200", folder.parent)


def same_images(one, other):
    return one.fingerprint == other.fingerprint and torch.equal(one.test.pixels, other.test.pixels)


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("name", ["wnids.txt", "val/val_annotations.txt", "train.txt"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.decode().encode("utf-16"),
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\n" + content.replace(b"\n", b" \n\n") + b"\n",
    ],
)
def test_tiny_imagenet_reads_its_texts_as_editors_save_them(tmp_path, name, change):
    folder = tiny(tmp_path)
    before = load_tiny(folder)
    assert sizes(before) == [24, 6, 6] and before.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    if name != "train.txt":
        for split in ("train", "val", "test"):
            (folder / f"{split}.txt").unlink()
    edit(folder / name, change)
    after = load_tiny(folder)
    assert same_images(before, after) and after.class_names == WNIDS


def test_tiny_imagenets_lists_may_have_spaces_backslashes_and_their_own_paths(tmp_path, monkeypatch):
    folder = tiny(tmp_path)
    before = load_tiny(folder)
    edit(folder / "train.txt", lambda content: content.replace(b",", b" , "))
    edit(folder / "val.txt", lambda content: content.replace(b"/", b"\\"))
    edit(folder / "test.txt", lambda content: content.replace(b"val/", b"tiny-imagenet-200/val/"))
    monkeypatch.chdir(tmp_path)
    assert same_images(before, load_tiny(folder))


def test_tiny_imagenet_ignores_a_systems_files(tmp_path, capsys):
    folder = tiny(tmp_path)
    before = load_tiny(folder)
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").unlink()
    (folder / "train" / "n02" / "images" / "._n02_0.JPEG").write_bytes(b"x")
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    assert same_images(before, load_tiny(folder))
    assert "._n02_0.JPEG" in capsys.readouterr().err


def test_a_class_without_images_is_refused_by_name(tmp_path):
    folder = tiny(tmp_path)
    for path in (folder / "train" / "n02" / "images").iterdir():
        path.unlink()
    for path in ("train/n02/images", "train/n02"):
        with pytest.raises(InputError, match="train/n02"):
            load_tiny(folder)
        (folder / path).rmdir()
    with pytest.raises(InputError, match="train/n02"):
        load_tiny(folder)
    assert not list(folder.glob("t*.txt"))


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("wnids.txt", "n01\nn02\nn01\nn03\n", "wnids.txt, line 3.*n01"),
        ("wnids.txt", "\n", "wnids.txt"),
        ("wnids.txt", "../n01\n", "wnids.txt, line 1"),
        ("val/val_annotations.txt", "val_0.JPEG n01\nval_1.JPEG n09\n", "val_annotations.txt, line 2.*n09"),
        ("val/val_annotations.txt", "val_0.JPEG n01\n\nval_0.JPEG n02\n", "val_annotations.txt, line 3"),
        ("val/val_annotations.txt", "", "val_annotations.txt"),
        ("val/val_annotations.txt", "val_0.JPEG n01\n../images/val_0.JPEG n02\n", "val_annotations.txt, line 2"),
        (
            "train.txt",
            "train/n01/images/n01_0.JPEG,0\ntrain/n01/../n01/images/n01_0.JPEG,1\n",
            "train.txt, line 2.*earlier",
        ),
        ("train.txt", "train/n01/images/n01_0.JPEG,3\n", "train.txt, line 1.*0 to 2"),
        ("train.txt", "train/n01/images/n01_0.JPEG," + 5000 * "9", "train.txt, line 1"),
        ("train.txt", "train/n01/images/n01_0.JPEG,²\n", "train.txt, line 1"),
        ("train.txt", "train/n01/images/n01_0.JPEG\n", "train.txt, line 1"),
        ("train.txt", "\n\n", "train.txt"),
        ("train.txt", "a\0b,1\n", "train.txt, line 1.*no image"),
        ("train.txt", "train/n01/images/n01_0.JPEG,0\ntrain/n01/images/n01_99.JPEG,0\n", "train.txt, line 2.*n01_99"),
        ("val/val_annotations.txt", "val_99.JPEG n01\n", "val_annotations.txt, line 1.*val_99"),
    ],
)
def test_what_is_wrong_with_tiny_imagenets_texts_is_named(tmp_path, name, content, match):
    folder = tiny(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=match) as refused:
        load_tiny(folder)
    assert len(str(refused.value)) < 1000
    assert not (folder / "val.txt").is_file()


def test_a_list_without_images_of_a_class_is_said(tmp_path, capsys):
    folder = tiny(tmp_path)
    (folder / "train.txt").write_text("train/n01/images/n01_0.JPEG,0\ntrain/n02/images/n02_0.JPEG,1\n")
    assert load_tiny(folder).train.labels.tolist() == [0, 1]
    assert "n03" in capsys.readouterr().err


def test_images_that_may_be_missing_are_said(tmp_path, capsys):
    folder = tiny(tmp_path)
    load_tiny(folder)
    assert capsys.readouterr().err == ""
    for split in SPLITS:
        (folder / f"{split}.txt").unlink()
    for i in range(5):
        (folder / "train" / "n02" / "images" / f"n02_{i}.JPEG").unlink()
    edit(folder / "val" / "val_annotations.txt", lambda content: content[: content.index(b"val_5.JPEG")])
    images = load_tiny(folder)
    assert [len(split) for split in (images.train, images.val, images.test)] == [20, 5, 5]
    one, other = capsys.readouterr().err.splitlines()
    assert "n02" in one + other and "val_5.JPEG" in one + other


def listed(folder, split):
    return {line.rsplit(",", 1)[0] for line in (folder / f"{split}.txt").read_text().splitlines()}


def test_a_missing_list_has_no_image_of_the_others(tmp_path):
    folder = tiny(tmp_path)
    images = load_tiny(folder)
    lists = {split: (folder / f"{split}.txt").read_bytes() for split in ("train", "val", "test")}
    assert not listed(folder, "train") & listed(folder, "val")
    for split in lists:  # written anew as it was
        (folder / f"{split}.txt").unlink()
        assert same_images(images, load_tiny(folder)) and (folder / f"{split}.txt").read_bytes() == lists[split]

    everything = sorted(listed(folder, "train") | listed(folder, "val"))
    (folder / "val.txt").unlink()
    (folder / "train.txt").write_text("".join(f"{path},0\n" for path in everything))
    with pytest.raises(InputError, match="val.txt.*train.txt"):
        load_tiny(folder)
    assert not (folder / "val.txt").exists()
    (folder / "train.txt").write_text("".join(f"{path},0\n" for path in everything[5:]))
    assert 1 <= len(load_tiny(folder).val) <= 5 and listed(folder, "val") <= set(everything[:5])

    (folder / "train.txt").unlink()
    (folder / "val.txt").write_text("".join(f"{path},0\n" for path in everything[3:9]))
    assert len(load_tiny(folder).train) == 24
    assert listed(folder, "train") == set(everything) - set(everything[3:9])


def test_one_image_in_two_lists_is_refused_by_name(tmp_path, monkeypatch):
    folder = tiny(tmp_path)
    load_tiny(folder)
    image = sorted(listed(folder, "train"))[0]
    monkeypatch.chdir(tmp_path)
    for spelled in (image, f"./{image}", f"tiny-imagenet-200/{image}", str(folder / image)):
        for split in ("val", "test"):
            before = (folder / f"{split}.txt").read_text()
            (folder / f"{split}.txt").write_text(f"{before}{spelled},0\n")
            with pytest.raises(InputError, match=rf"train\.txt.*{split}\.txt"):
                load_tiny(folder)
            (folder / f"{split}.txt").write_text(before)


def test_reading_tiny_imagenet_needs_no_writing(tmp_path, monkeypatch):
    folder = tiny(tmp_path)
    written = load_tiny(folder)
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").unlink()

    def refuse(path, text):
        raise InputError(f"{path} could not be written (Read-only file system)")

    monkeypatch.setattr("data.tiny_imagenet.write_text", refuse)  # root may write to any folder
    assert same_images(written, load_tiny(folder))
    assert not list(folder.glob("t*.txt"))


def test_a_long_list_is_read_in_one_pass(tmp_path):
    for i in range(200):
        (tmp_path / f"{i}.JPEG").write_bytes(b"")
    (tmp_path / "train.txt").write_text("".join(f"{i % 200}.JPEG,{i % 100}\n" for i in range(20_000)))
    examples = read_split(tmp_path / "train.txt", tmp_path, 200)
    assert len(examples) == 20_000 and examples[399] == (tmp_path / "199.JPEG", 99)
    refuse_overlap({"train": examples, "val": []}, tmp_path)


# CIFAR-10 as it is published


def published(per_batch=10):
    """Return batches by name, as its authors made them, and the images (N, 32, 32, 3) and labels of each."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8) for name in BATCH_NAMES}
    labels = {name: [int(i) for i in rng.permutation(per_batch) % 10] for name in BATCH_NAMES}
    batches = {
        name: {
            "batch_label": name,
            "labels": labels[name],
            "data": images[name].transpose(0, 3, 1, 2).reshape(-1, 3072),
        }
        for name in BATCH_NAMES
    }
    return batches, images, labels


def write_batches(folder, batches, protocol=2):
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol))


@pytest.mark.parametrize("below", ["", "cifar10-download"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar10_is_read_as_torchvision_leaves_it(tmp_path, below, protocol):
    batches, images, labels = published()
    write_batches(tmp_path / "unpacked" / below / BATCHES, batches, protocol)
    (tmp_path / "packed" / below).mkdir(parents=True)
    with tarfile.open(tmp_path / "packed" / below / ARCHIVE, "w:gz") as archive:
        archive.add(tmp_path / "unpacked" / below / BATCHES, BATCHES)
    for data_dir in (tmp_path / "unpacked", tmp_path / "packed"):
        found = load_images("cifar10", data_dir)
        assert sizes(found) == [40, 10, 10]
        assert np.array_equal(found.test.pixels, images["test_batch"])
        assert found.test.labels.tolist() == labels["test_batch"]
        train = torch.cat([found.train.pixels, found.val.pixels]).numpy().reshape(50, -1)
        stored = np.concatenate([images[name] for name in BATCH_NAMES[:5]]).reshape(50, -1)
        assert np.array_equal(train[np.lexsort(train.T)], stored[np.lexsort(stored.T)])
        assert not (data_dir / "cifar10.npz").exists()


def test_batches_have_the_split_of_the_npz(tmp_path):
    batches, images, labels = published()
    write_batches(tmp_path / "a" / BATCHES, batches)
    (tmp_path / "b").mkdir()
    *train, test = BATCH_NAMES
    np.savez(
        tmp_path / "b" / "cifar10.npz",
        train_images=np.concatenate([images[name] for name in train]),
        train_labels=np.array(sum((labels[name] for name in train), []), np.int64)[:, None],  # keras' shape
        test_images=images[test],
        test_labels=np.array(labels[test], np.uint8),
    )
    one, other = (load_images("cifar10", tmp_path / each) for each in "ab")
    assert one.fingerprint == other.fingerprint and other.train.labels.shape == (40,)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: Trap(),
        lambda batch: {**batch, "data": Trap()},
        lambda batch: {**batch, "data": np.array([Trap()], object)},
        lambda batch: {**batch, "data": batch["data"][:, :100]},
        lambda batch: {**batch, "data": batch["data"].astype(np.float32)},
        lambda batch: {**batch, "data": batch["data"].reshape(5, -1)},
        lambda batch: {**batch, "labels": batch["labels"][:3]},
        lambda batch: {**batch, "labels": ["cat"] * 10},
        lambda batch: {**batch, "labels": [10**400] * 10},
        lambda batch: {"data": batch["data"], "fine_labels": batch["labels"]},
        lambda batch: [batch],
    ],
)
def test_batches_of_another_form_are_refused_and_nothing_in_them_runs(tmp_path, monkeypatch, change):
    batches, _, _ = published()
    batches["data_batch_3"] = change(batches["data_batch_3"])
    write_batches(tmp_path / BATCHES, batches)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=BATCHES) as refused:
        load_images("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists() and len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: {**batch, "data": batch["data"].reshape(-1, 3, 32, 32)},
        lambda batch: {**batch, "data": batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)},
        lambda batch: {
            **batch,
            "data": np.ascontiguousarray(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)),
        },
        lambda batch: {**batch, "data": np.asfortranarray(batch["data"])},
        lambda batch: {key.encode(): value for key, value in batch.items()},
        lambda batch: {**batch, "labels": list(np.array(batch["labels"], np.uint8))},
        lambda batch: {**batch, "labels": np.array(batch["labels"], ">i2")[:, None]},
    ],
)
def test_batches_saved_again_hold_the_same_images(tmp_path, change):
    batches, _, _ = published()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_batches(tmp_path / "a" / BATCHES, batches)
    write_batches(tmp_path / "b" / BATCHES, {name: change(batch) for name, batch in batches.items()})
    one, other = (load_images("cifar10", tmp_path / each) for each in "ab")
    assert same_images(one, other) and torch.equal(one.test.labels, other.test.labels)


@pytest.mark.parametrize("labels, match", [(np.arange(50) % 3, "bird|cat"), (np.arange(10).repeat(2), "validation")])
def test_a_cifar10_without_images_for_a_class_or_for_validation_is_refused(tmp_path, labels, match):
    write_cifar10(tmp_path)
    with np.load(tmp_path / "cifar10.npz") as file:
        arrays = dict(file)
    arrays |= {"train_images": arrays["train_images"][: len(labels)], "train_labels": labels}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(InputError, match=match):
        load_images("cifar10", tmp_path)


def test_a_missing_batch_and_a_broken_archive_are_named(tmp_path):
    batches, _, _ = published()
    write_batches(tmp_path / BATCHES, batches)
    (tmp_path / BATCHES / "data_batch_4").unlink()
    with pytest.raises(InputError, match="data_batch_4"):
        load_images("cifar10", tmp_path)
    (tmp_path / BATCHES).rename(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        archive.add(tmp_path / "elsewhere", BATCHES)
    with pytest.raises(InputError, match="data_batch_4"):
        load_images("cifar10", tmp_path)
    content = (tmp_path / ARCHIVE).read_bytes()
    for broken in (content[: len(content) // 2], b"", b"no archive"):
        (tmp_path / ARCHIVE).write_bytes(broken)
        with pytest.raises(InputError, match=ARCHIVE):
            load_images("cifar10", tmp_path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path):
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 2**32
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        archive.fileobj.write(member.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(InputError, match=ARCHIVE):
        load_images("cifar10", tmp_path)


def test_the_shape_of_labels_is_named_if_that_is_the_matter(tmp_path):
    write_cifar10(tmp_path)
    with np.load(tmp_path / "cifar10.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "cifar10.npz", **{**arrays, "train_labels": np.eye(10)[arrays["train_labels"]]})
    with pytest.raises(InputError, match=r"train_labels is float64 \(50, 10\)"):
        load_images("cifar10", tmp_path)


def test_without_a_network_the_message_names_every_way(tmp_path, monkeypatch):
    def fail(*arguments, **keywords):
        raise OSError("no network")

    monkeypatch.setattr("data.cifar10.CIFAR10", fail)
    with pytest.raises(InputError) as refused:
        load_images("cifar10", tmp_path)
    for way in (BATCHES, ARCHIVE, "cifar10.npz", str(tmp_path)):
        assert way in str(refused.value)
