"""Image sets: batches, augmentation against a slow reference, splits, own folders, caches."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import photos
from data.images import Batches, ImageSet, make_images, split_by_class
from data.load import load_images
from data.photos import load_photos
from models.errors import InputError

CPU = torch.device("cpu")


def some_images(n=12, side=8, channels=3, padding=2):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    return make_images(pixels, rng.integers(0, 10, n), (0.5,) * channels, (0.25,) * channels, padding)


@given(st.integers(0, 2**31), st.sampled_from([1, 3]), st.integers(0, 3))
def test_crop_and_flip_is_pad_crop_mirror_normalize(seed, channels, padding):
    images = some_images(channels=channels, padding=padding)
    rng = np.random.default_rng(seed)
    index, offset, flip = (
        rng.integers(0, 12, (2, 3)),
        rng.integers(0, 2 * padding + 1, (2, 3, 2)),
        rng.random((2, 3)) < 0.5,
    )
    out = images.crop_and_flip(*map(torch.from_numpy, (index, offset, flip)))
    assert out.shape == (2, 3, channels, 8, 8)
    for m in range(2):
        for b in range(3):
            padded = np.pad(images.pixels[index[m, b]].numpy(), ((padding, padding), (padding, padding), (0, 0)))
            top, left = offset[m, b]
            crop = padded[top : top + 8, left : left + 8]
            crop = crop[:, ::-1] if flip[m, b] else crop
            reference = ((crop / 255 - 0.5) / 0.25).transpose(2, 0, 1)
            torch.testing.assert_close(out[m, b].double(), torch.from_numpy(reference.copy()), atol=1e-6, rtol=1e-6)


def assert_same_batches(batches, others, steps):
    """Compare images and labels of several steps."""
    for step in steps:
        for ours, reference in zip(batches.batch(step), others.batch(step)):
            assert torch.equal(ours, reference)


@given(st.integers(1, 12), st.integers(0, 99))
def test_a_pass_shows_every_image_once_in_another_order_to_every_instance(batch_size, seed):
    images = some_images()
    batches = Batches(images, [(seed, 1), (seed, 2)], batch_size)
    assert batches.per_pass == 12 // batch_size
    orders = []
    for number in range(3):
        steps = range(number * batches.per_pass, (number + 1) * batches.per_pass)
        index = torch.cat([batches.views(step)[0] for step in steps], 1)
        for row in index.tolist():  # images that do not fill a last batch are left out
            assert len(row) == batch_size * batches.per_pass and len(set(row)) == len(row)
        orders += [tuple(row) for row in index.tolist()]
    if batches.per_pass * batch_size >= 8:
        assert len(set(orders)) == 6


def test_a_batch_is_its_images_cropped_and_mirrored_as_drawn():
    images = some_images(padding=2)
    batches = Batches(images, [(0, 1), (0, 2)], 4)
    index, offset, flip = (torch.cat(each, 1) for each in zip(*(batches.views(step) for step in range(300))))
    assert offset.shape == (2, 1200, 2) and set(offset.flatten().tolist()) == set(range(5)) and flip.dtype == torch.bool
    assert flip.float().mean(1).tolist() == pytest.approx([0.5, 0.5], abs=0.06)
    assert offset.float().mean((1, 2)).tolist() == pytest.approx([2, 2], abs=0.1)
    x, labels = batches.batch(7)
    index, offset, flip = batches.views(7)
    assert torch.equal(x, images.crop_and_flip(index, offset, flip)) and torch.equal(labels, images.labels[index])


def test_the_step_alone_determines_a_batch():
    """Neither the instances beside it nor what was drawn before change it."""
    images = some_images()
    together, alone = Batches(images, [(0, 1), (0, 2)], 4), Batches(images, [(0, 2)], 4)
    for step in (0, 1, 2, 3, 7, 4, 100, 3):
        fresh = Batches(images, [(0, 1), (0, 2)], 4)
        assert_same_batches(together, fresh, [step])
        for ours, reference in zip(together.batch(step), alone.batch(step)):
            assert torch.equal(ours[1:], reference)
    assert not torch.equal(*together.views(0)[0])


@pytest.mark.parametrize("step", [0, 1, 4])
def test_instances_that_are_removed_leave_the_others_batches_as_they_are(step):
    batches = Batches(some_images(), [(0, i) for i in range(4)], 4)
    if step:
        batches.batch(step - 1)
    batches.remove(1)
    batches.remove(2)
    assert_same_batches(batches, Batches(some_images(), [(0, 3)], 4), range(step, step + 6))


def test_one_key_is_shared_by_all_instances():
    batches = Batches(some_images(), [(5,)], 4)
    for ours, reference in zip(batches.shared(2), batches.batch(2)):
        assert torch.equal(ours, reference[0])


def test_a_batch_larger_than_the_set_is_refused():
    Batches(some_images(), [(0,)], 12)
    with pytest.raises(InputError, match="13.*12"):
        Batches(some_images(), [(0,)], 13)


@given(st.integers(2, 6), st.integers(5, 40), st.integers(0, 9))
def test_split_by_class_is_disjoint_complete_and_of_the_stated_size(classes, per_class, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), per_class))
    first, rest = split_by_class(labels, 0.8, seed)
    assert sorted([*first, *rest]) == list(range(len(labels)))
    assert np.array_equal(np.bincount(labels[first]), np.full(classes, round(0.8 * per_class)))


def test_photos_tiles_cut_the_halved_photograph_side_by_side():
    blocks = photos.tile_blocks("coins")[..., 0].astype(float)  # 303x384 pixels, halved 9x12 blocks of 16x16
    assert blocks.shape == (9 * 12, 4, 8, 8)
    coins = skimage.data.coins()[: 2 * 9 * 16, : 2 * 12 * 16].astype(float)
    for block in range(9 * 12):
        for tile in range(4):
            top, left = 32 * (block // 12) + 16 * (tile // 2), 32 * (block % 12) + 16 * (tile % 2)
            halved = coins[top : top + 16, left : left + 16].reshape(8, 2, 8, 2).mean((1, 3))
            assert np.abs(blocks[block, tile] - halved).max() <= 0.5 + 1e-6  # rounded to uint8


def test_photos_splits_are_whole_blocks_of_the_stated_fractions():
    images = load_photos()
    counts = np.stack([np.bincount(split.labels, minlength=10) for split in (images.train, images.val, images.test)])
    assert (counts % 4 == 0).all()
    assert np.abs(counts / counts.sum(0) - [[0.7], [0.1], [0.2]]).max() < 0.01
    per_photo = [photos.tile_blocks(name)[..., 0].size // 64 for name in photos.PHOTOGRAPHS]
    assert counts.sum(0).tolist() == per_photo
    # The splits together are the photographs' tiles, each once.
    for label, name in enumerate(photos.PHOTOGRAPHS):
        split = np.concatenate(
            [
                each.pixels[each.labels == label].numpy().reshape(-1, 64)
                for each in (images.train, images.val, images.test)
            ]
        )
        cut = photos.tile_blocks(name).reshape(-1, 64)
        assert np.array_equal(split[np.lexsort(split.T)], cut[np.lexsort(cut.T)])


def write_png(path, side=32, seed=0, width=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, width or side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_folder(folder, classes=("cat", "dog", "emu"), per_class=5, side=32):
    for part, number in (("train", per_class), ("test", 2)):
        for label, name in enumerate(classes):
            for i in range(number):
                write_png(folder / part / name / f"{i}.png", side, seed=100 * label + i)
    return folder


@pytest.mark.parametrize("side", [32, 64])
def test_a_folder_of_class_folders_is_a_data_set(tmp_path, side):
    images = load_images(str(write_folder(tmp_path / "pets", side=side)), tmp_path, CPU)
    assert (images.name, images.image_shape, images.class_names) == ("pets", (3, side, side), ("cat", "dog", "emu"))
    assert [len(split) for split in (images.train, images.val, images.test)] == [12, 3, 6]
    assert images.train.padding == side // 8


def test_a_fingerprint_is_that_of_training_and_validation():
    split = some_images()
    images = ImageSet("own", split, split, split, ("a",) * 10)
    darker = replace(split, pixels=split.pixels // 2)
    assert images.fingerprint == replace(images, test=darker).fingerprint
    assert (
        len({images.fingerprint, replace(images, train=darker).fingerprint, replace(images, val=darker).fingerprint})
        == 3
    )
    assert images.image_shape == (3, 8, 8) and images.facts()["class_names"] == ["a"] * 10


def test_wrong_folders_are_refused_by_name(tmp_path):
    def refused(match):
        with pytest.raises(InputError, match=match):
            load_images(str(tmp_path / "pets"), tmp_path, CPU)

    refused("unknown data set")
    write_folder(tmp_path / "pets")
    write_png(tmp_path / "pets" / "train" / "cat" / "tall.png", 48)
    refused("tall.png is 48x48")
    write_png(tmp_path / "pets" / "train" / "cat" / "tall.png", 32, width=64)
    refused("tall.png is 32x64")
    (tmp_path / "pets" / "train" / "cat" / "tall.png").write_text("not an image")
    refused("tall.png cannot be read")
    (tmp_path / "pets" / "train" / "cat" / "tall.png").unlink()
    (tmp_path / "pets" / "train" / "fox").mkdir()
    refused("no images")
    write_png(tmp_path / "pets" / "train" / "fox" / "0.png")
    refused("'fox' is in only one of")


def write_cifar10(folder, train=50, test=10):
    rng = np.random.default_rng(0)
    np.savez(
        folder / "cifar10.npz",
        train_images=rng.integers(0, 256, (train, 32, 32, 3), dtype=np.uint8),
        train_labels=np.arange(train, dtype=np.uint8) % 10,
        test_images=rng.integers(0, 256, (test, 32, 32, 3), dtype=np.uint8),
        test_labels=np.arange(test, dtype=np.uint8) % 10,
    )


def test_cifar10_comes_from_its_cache_with_a_fifth_for_validation(tmp_path):
    write_cifar10(tmp_path)
    images = load_images("cifar10", tmp_path, CPU)
    assert [len(split) for split in (images.train, images.val, images.test)] == [40, 10, 10]
    assert images.image_shape == (3, 32, 32) and images.num_classes == 10
    (tmp_path / "cifar10.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match="cifar10.npz"):
        load_images("cifar10", tmp_path, CPU)


def test_tiny_imagenet_in_the_original_layout_writes_split_lists_once_and_reads_them(tmp_path):
    folder, wnids = tmp_path / "tiny-imagenet-200", ["n01", "n02"]
    folder.mkdir()
    (folder / "wnids.txt").write_text("\n".join(wnids))
    for wnid in wnids:
        for i in range(5):
            write_png(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 64, seed=i)
    for i in range(3):
        write_png(folder / "val" / "images" / f"val_{i}.JPEG", 64, seed=i)
    (folder / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{wnids[i % 2]}\t0\t0\t1\t1\n" for i in range(3))
    )
    images = load_images("tiny-imagenet-200", tmp_path, CPU)
    assert [len(split) for split in (images.train, images.val, images.test)] == [8, 2, 3]
    assert images.test.labels.tolist() == [0, 1, 0]

    lines = (folder / "train.txt").read_text().splitlines()
    (folder / "train.txt").write_text("\n".join(lines[:3]) + "\n")
    assert len(load_images("tiny-imagenet-200", tmp_path, CPU).train) == 3
    (folder / "train.txt").write_text(lines[0] + "\ntrain/n01/images/n01_0.JPEG,200\n")
    with pytest.raises(InputError, match="train.txt, line 2"):
        load_images("tiny-imagenet-200", tmp_path, CPU)
    (folder / "wnids.txt").unlink()
    with pytest.raises(InputError, match="no .*wnids.txt"):
        load_images("tiny-imagenet-200", tmp_path, CPU)
