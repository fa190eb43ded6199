"""The smallest of everything, and more than fits: it works, or is refused by name. Properties over all small sizes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import create_mlp_dataset
import create_nets_dataset_single
import eval_single
import interpolate_mlps
import interpolate_single_arch
import train_mlps
import train_single_arch
import visualize_prep
from data import load
from data.nets import Entry, parse_line
from evaluation.interpolation import interpolate
from evaluation.single import Experiment
from evaluation.surfaces import grid_points
from models.encoder import Encoder
from models.errors import InputError
from models.prep_autoencoder import AT_ONCE, PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES
from tests import miniature
from training.distributed import share

ONE = dict(num_train=1, num_val=1, num_test=1, lengths=(2,))


@pytest.fixture
def few_photos(monkeypatch):
    monkeypatch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())


def test_one_instance_of_each_split_and_a_meta_batch_of_more(tmp_path, few_photos):
    create_nets_dataset_single.main(miniature.create_config(tmp_path, **ONE))
    train_single_arch.main(miniature.train_config(tmp_path, num_epochs=1, meta_batch=3))
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(miniature.look_config(script, tmp_path))
    run = tmp_path / "runs/photos/single"
    assert len(json.loads((run / "eval_single.json").read_text())["target_accuracy"]) == 1
    line = json.loads((run / "interpolate_single_arch.json").read_text())
    assert line["from"] == line["to"] and len(set(line["weight_accuracy"])) == 1


def test_a_prep_that_is_exactly_full_and_one_shape_of_each_split(tmp_path):
    """SIRENs of 384 parameters in a PRep of 8x48."""
    config = miniature.create_mlp_config(tmp_path, hidden=(15, 19), num_shapes=2, num_test=1, num_steps=3)
    create_mlp_dataset.main(config)
    found = train_mlps.main(miniature.train_mlps_config(tmp_path, meta_batch=3, num_epochs=2))
    assert [len(found[split]) for split in ("train", "test")] == [1, 1]
    with pytest.raises(InputError, match="--num-pairs 2: the train list has 1"):
        interpolate_mlps.main(miniature.interpolate_mlps_config(tmp_path))
    one_more = create_mlp_dataset.SirenNets((3, 15, 20, 1)).num_parameters
    with pytest.raises(InputError, match=f"holds 384 parameters.*{one_more}"):
        train_mlps.check_prep_shape((8, 48), one_more, "it")


def test_three_images_a_class(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i}.png")
    config = miniature.create_config(tmp_path, dataset=str(tmp_path / "pets"), architecture="lenetlike", **ONE)
    with pytest.raises(InputError, match="batch of 128 is more than the 4 images"):
        create_nets_dataset_single.main(replace(config, image_batch=128))
    create_nets_dataset_single.main(replace(config, image_batch=4))
    assert len(list((tmp_path / "runs/pets/nets/lenetlike-adam").glob("*.safetensors"))) == 3


def test_evaluation_holds_a_few_preps_at_once_however_many_there_are(monkeypatch):
    """What encoder and decoder hold of an instance is hundreds of times its size."""
    seen, original = [], Encoder.forward

    def watched(self, preps):
        seen.append(len(preps))
        return original(self, preps)

    monkeypatch.setattr(Encoder, "forward", watched)
    net_space = PrepAutoencoder(Sizes((8, 48), emb_size=64, grid=4, row_length=32, row_channels=8))
    rows = torch.randn(5 * AT_ONCE + 1, 384)
    embeddings = Experiment(None, None, net_space).encode(rows)
    assert len(embeddings) == len(rows) and max(seen) <= AT_ONCE
    torch.testing.assert_close(embeddings[7:9], original(net_space.encoder, rows[7:9].view(2, 1, 8, 48)).detach())


NAMES = st.text(
    st.characters(exclude_characters=";\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029/", exclude_categories=["Cs"])
)


@given(st.sampled_from(list(ARCHITECTURES.values())), NAMES, st.lists(NAMES, min_size=1))
def test_a_line_of_a_list_is_read_as_it_was_written(architecture, dataset, parts):
    path = Path("nets", *parts)
    entry = parse_line(Entry(architecture, dataset, path).line(), "list")
    assert (entry.architecture, entry.dataset, entry.path) == (architecture, dataset, path)


@given(st.text())
def test_any_line_is_an_entry_or_refused(line):
    try:
        parse_line(line, "list, line 1")
    except InputError as error:
        assert str(error).startswith("list, line 1: ")


@given(st.integers(1, 9), st.integers(0, 40))
def test_ranks_share_everything_once_and_evenly(number, items):
    before = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    parts = []
    try:
        for rank in range(number):
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(number)}
            parts.append(list(range(items))[share()])
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    assert sorted(sum(parts, [])) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(2, 12), st.integers(1, 50))
def test_the_grid_in_parts_is_the_grid_and_its_corners_are_those_of_the_cube(resolution, chunk):
    cpu, num = torch.device("cpu"), resolution**3
    whole = grid_points(0, num, resolution, cpu)
    parts = [grid_points(start, min(start + chunk, num), resolution, cpu) for start in range(0, num, chunk)]
    assert torch.equal(torch.cat(parts), whole)
    axis = torch.linspace(-1, 1, resolution, dtype=torch.float64)
    slow = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    torch.testing.assert_close(whole.double(), slow)
    assert whole.min() == -1 and whole.max() == 1


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 9))
def test_a_line_begins_and_ends_at_its_ends_and_is_straight(size, points, seed):
    start, end = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gamma = torch.linspace(0, 1, points, dtype=torch.float64)
    line = interpolate(start, end, gamma)
    slow = torch.stack([(1 - g) * start + g * end for g in gamma])
    torch.testing.assert_close(line, slow)
    assert torch.equal(line[0], start) and (points == 1 or torch.equal(line[-1], end))
