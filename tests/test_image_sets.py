"""Tiny-ImageNet's texts and lists as people have them; CIFAR-10, CIFAR-100 and MNIST as they are published."""

import gzip
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from data.cifar import CIFAR_10, CIFAR_100
from data.images import Batches
from data.load import load_images
from data.tiny_imagenet import SPLITS, read_split, refuse_overlap
from models.errors import InputError
from tests.test_foreign_files import Trap
from tests.test_image_files import sizes
from tests.test_images import write_cifar10, write_png

BATCHES, ARCHIVE, BATCH_NAMES = CIFAR_10.folder, CIFAR_10.archive, CIFAR_10.batches

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


def published(per_batch=10, of=CIFAR_10):
    """Return batches by name, as its authors made them, and the images (N, 32, 32, 3) and labels of each."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8) for name in of.batches}
    labels = {name: [int(i) for i in rng.permutation(per_batch) % len(of.classes)] for name in of.batches}
    batches = {
        name: {
            "batch_label": name,
            of.labels: labels[name],
            "data": images[name].transpose(0, 3, 1, 2).reshape(-1, 3072),
        }
        for name in of.batches
    }
    return batches, images, labels


def write_batches(folder, batches, protocol=2):
    folder.mkdir(parents=True)
    for name, batch in batches.items():
        (folder / name).write_bytes(pickle.dumps(batch, protocol))


@pytest.mark.parametrize("below", ["", "-download"])
@pytest.mark.parametrize(
    ("of", "protocol"), [*((CIFAR_10, protocol) for protocol in (0, 2, 4, 5)), (CIFAR_100, 2), (CIFAR_100, 4)]
)
def test_cifar_is_read_as_torchvision_leaves_it(tmp_path, below, of, protocol):
    per_batch = 10 if of is CIFAR_10 else 300  # three images of a class
    batches, images, labels = published(per_batch, of)
    below = below and of.name + below
    write_batches(tmp_path / "unpacked" / below / of.folder, batches, protocol)
    (tmp_path / "packed" / below).mkdir(parents=True)
    with tarfile.open(tmp_path / "packed" / below / of.archive, "w:gz") as archive:
        archive.add(tmp_path / "unpacked" / below / of.folder, of.folder)
    *names, test = of.batches
    for data_dir in (tmp_path / "unpacked", tmp_path / "packed"):
        found = load_images(of.name, data_dir)
        assert (found.name, found.class_names) == (of.name, of.classes)
        assert sizes(found) == ([40, 10, 10] if of is CIFAR_10 else [200, 100, 300])
        assert np.array_equal(found.test.pixels, images[test])
        assert found.test.labels.tolist() == labels[test]
        train = torch.cat([found.train.pixels, found.val.pixels]).numpy().reshape(len(names) * per_batch, -1)
        stored = np.concatenate([images[name] for name in names]).reshape(len(train), -1)
        assert np.array_equal(train[np.lexsort(train.T)], stored[np.lexsort(stored.T)])
        assert not (data_dir / f"{of.name}.npz").exists()


def test_cifar100_has_its_fine_classes_and_not_those_of_cifar10(tmp_path):
    assert len(set(CIFAR_100.classes)) == 100 and list(CIFAR_100.classes) == sorted(CIFAR_100.classes)
    batches, _, _ = published(300, CIFAR_100)
    coarse = {name: {**batch, "coarse_labels": [0] * 300} for name, batch in batches.items()}
    write_batches(tmp_path / "a" / CIFAR_100.folder, coarse)
    assert load_images("cifar100", tmp_path / "a").test.labels.max() == 99
    batches["test"]["fine_labels"][7] = 100
    write_batches(tmp_path / "b" / CIFAR_100.folder, batches)
    with pytest.raises(InputError, match="test_labels.*0 to 99"):
        load_images("cifar100", tmp_path / "b")


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


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("cifar10", (BATCHES, ARCHIVE, "cifar10.npz")),
        ("cifar100", (CIFAR_100.folder, CIFAR_100.archive, "cifar100.npz")),
        ("mnist", ("MNIST/raw", "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")),
    ],
)
def test_without_a_network_the_message_names_every_way(tmp_path, monkeypatch, name, ways):
    def fail(*arguments, **keywords):
        raise OSError("no network")

    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", fail)
    with pytest.raises(InputError) as refused:
        load_images(name, tmp_path)
    for way in (*ways, str(tmp_path)):
        assert way in str(refused.value)


# MNIST as it is published


def write_mnist(data_dir, train=50, test=10, packed=False):
    """Write small files as torchvision leaves them, or packed as they are downloaded. Return images and labels by file."""
    rng, folder = np.random.default_rng(0), data_dir / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, number in (("train", train), ("t10k", test)):
        arrays[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        arrays[f"{split}-labels-idx1-ubyte"] = (rng.permutation(number) % 10).astype(np.uint8)
    for name, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        written = gzip.compress(header + array.tobytes()) if packed else header + array.tobytes()
        (folder / (name + ".gz" if packed else name)).write_bytes(written)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_read_as_torchvision_leaves_it_with_a_border(tmp_path, packed):
    arrays = write_mnist(tmp_path, packed=packed)
    found = load_images("mnist", tmp_path)
    assert (found.name, found.image_shape, found.num_classes) == ("mnist", (1, 32, 32), 10)
    assert sizes(found) == [40, 10, 10]
    test = found.test.pixels.numpy()[..., 0]
    assert np.array_equal(test[:, 2:30, 2:30], arrays["t10k-images-idx3-ubyte"])
    assert test.sum() == test[:, 2:30, 2:30].sum()  # the border is black
    assert found.test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    train = torch.cat([found.train.pixels, found.val.pixels])[:, 2:30, 2:30, 0].numpy().reshape(50, -1)
    stored = arrays["train-images-idx3-ubyte"].reshape(50, -1)
    assert np.array_equal(train[np.lexsort(train.T)], stored[np.lexsort(stored.T)])


def test_mnist_files_are_those_that_torchvision_reads(tmp_path):
    arrays = write_mnist(tmp_path)
    data = torchvision.datasets.MNIST(str(tmp_path), train=False)
    assert np.array_equal(data.data, arrays["t10k-images-idx3-ubyte"])


def test_digits_are_shifted_and_not_mirrored(tmp_path):
    write_mnist(tmp_path)
    digits = load_images("mnist", tmp_path).train
    batches = Batches(digits, [(0, 1)], 10)
    _, offset, flip = batches.views(0)
    assert not flip.any() and len(offset.unique()) > 3
    assert Batches(replace(digits, mirrored=True), [(0, 1)], 10).views(0)[2].any()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content + b"x",
        lambda content: b"\0\0\x0d\3" + content[4:],
        lambda content: content[:4] + b"\xff" * 12 + content[16:],
        lambda content: content[:8] + np.array([14, 56], ">u4").tobytes() + content[16:],
    ],
    ids=["empty", "cut", "longer", "floats", "a huge shape", "another shape"],
)
def test_what_is_no_file_of_mnist_is_refused_by_name(tmp_path, packed, change):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    changed = change(path.read_bytes())
    path.unlink()
    if packed:
        path, changed = path.with_name(path.name + ".gz"), gzip.compress(changed)
    path.write_bytes(changed)
    with pytest.raises(InputError, match="train-images"):
        load_images("mnist", tmp_path)


def test_a_missing_file_of_mnist_and_wrong_labels_are_named(tmp_path):
    write_mnist(tmp_path)
    folder = tmp_path / "MNIST/raw"
    labels = (folder / "t10k-labels-idx1-ubyte").read_bytes()
    for wrong in (labels[:-1] + b"\x0a", labels[:4] + np.array([9], ">u4").tobytes() + labels[8:-1]):
        (folder / "t10k-labels-idx1-ubyte").write_bytes(wrong)
        with pytest.raises(InputError, match="t10k-labels"):
            load_images("mnist", tmp_path)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="t10k-labels"):
        load_images("mnist", tmp_path)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels)[:-9])
    with pytest.raises(InputError, match="t10k-labels.*gz"):
        load_images("mnist", tmp_path)
