"""The smallest of everything, and more than fits: it works, or is refused by name. Properties over all small sizes."""

import json
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
from data.nets import Entry, parse_line
from evaluation.metrics import interpolate
from evaluation.spaces import AT_ONCE, Space, about_sirens
from evaluation.surfaces import grid_points
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.prep import check_prep_shape
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES, siren
from tests import miniature

ONE = dict(num_train=1, num_val=1, num_test=1, lengths=(2,))


def test_one_instance_of_each_split_and_a_meta_batch_of_more(tmp_path, few_photos):
    create_nets_dataset_single.main(miniature.create_config(tmp_path, **ONE))
    train_single_arch.main(miniature.train_config(tmp_path, num_steps=4, meta_batch=3))
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(miniature.config_of(script, tmp_path))
    run = tmp_path / "runs/photos/single"
    assert len(json.loads((run / "eval_single.json").read_text())["target_accuracy"]) == 1
    line = json.loads((run / "interpolate_single_arch.json").read_text())
    assert line["from"] == line["to"] and len(set(line["weight_accuracy"])) == 1


def test_zeros_are_accepted_where_they_make_sense(own_project):
    """No noise, no spread around the start, a goal that is reached at once, a checkpoint at every step."""
    nothing = dict(prep_noise=0.0, affine_scale=0.0, affine_quantile=0.0, final_fraction=0.0, seed=0, num_steps=1)
    folders = miniature.folders(own_project / "zeros")
    folders = miniature.replace(folders, lists_dir=miniature.folders(own_project).lists_dir)
    train_single_arch.main(miniature.train_config(own_project, folders=folders, affine_start="instance", **nothing))
    found = train_mlps.main(miniature.train_mlps_config(own_project, folders=folders, goal=0.0, num_steps=8))
    assert torch.load(folders.run("chairs", "mlps") / "last.pt", weights_only=True)["step"] == 4 and found["train"]
    config = miniature.create_config(own_project / "new", checkpoint_seconds=0, **{**ONE, "lengths": (1,)})
    create_nets_dataset_single.main(config)


def test_a_prep_that_is_exactly_full_and_one_shape_of_each_split(tmp_path):
    """SIRENs of 384 parameters in a PRep of 8x48."""
    config = miniature.create_mlp_config(tmp_path, hidden=(15, 19), num_shapes=2, num_test=1, num_steps=3)
    create_mlp_dataset.main(config)
    found = train_mlps.main(miniature.train_mlps_config(tmp_path, meta_batch=3, num_steps=2))
    assert [len(found[split]) for split in ("train", "test")] == [1, 1]
    with pytest.raises(InputError, match="--num-pairs 2: the train list has 1"):
        interpolate_mlps.main(miniature.interpolate_mlps_config(tmp_path))
    one_more = TargetNet(siren((3, 15, 20, 1))).num_parameters
    with pytest.raises(InputError, match=f"384.*{one_more}"):
        check_prep_shape((8, 48), {"siren": one_more})


def test_three_images_a_class(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i}.png")
    config = miniature.create_config(tmp_path, dataset=str(tmp_path / "pets"), architecture="lenetlike", **ONE)
    with pytest.raises(InputError, match="128 .* 4 images"):
        create_nets_dataset_single.main(miniature.changed(config, image_batch=128))
    create_nets_dataset_single.main(miniature.changed(config, image_batch=4))
    assert len(list((tmp_path / "runs/pets/nets/lenetlike-adam").glob("*.safetensors"))) == 3


def test_evaluation_computes_a_few_preps_at_once_however_many_there_are(monkeypatch):
    """What encoder and decoder need for an instance is hundreds of times its size."""
    seen, originals = [], {name: getattr(PrepAutoencoder, name) for name in ("encode", "decode")}
    for name, original in originals.items():

        def watched(self, values, original=original):
            seen.append(len(values))
            return original(self, values)

        monkeypatch.setattr(PrepAutoencoder, name, watched)
    model = PrepAutoencoder(Sizes((8, 48), emb_size=64, grid=4, row_length=32, row_channels=8)).eval()
    widths = (3, 15, 19, 1)
    space = Space(model, TargetNets.sirens(widths), about_sirens(widths), {})
    rows = torch.randn(5 * AT_ONCE + 1, 384)
    embeddings = space.encode(rows)
    predicted = space.decode(embeddings)
    assert len(embeddings) == len(predicted) == len(rows) and max(seen) <= AT_ONCE
    with torch.no_grad():
        torch.testing.assert_close(embeddings[7:9], originals["encode"](model, rows[7:9]))
        torch.testing.assert_close(predicted[7:9], originals["decode"](model, embeddings[7:9]))


NAMES = st.text(
    st.characters(exclude_characters=";\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029/", exclude_categories=["Cs"])
)


@given(st.sampled_from(list(ARCHITECTURES.values())), NAMES, st.lists(NAMES, min_size=1))
def test_a_line_of_a_list_is_read_as_it_was_written_or_not_written(architecture, dataset, parts):
    path = Path("nets", *parts)
    try:
        line = Entry(architecture, dataset, path).line()
    except InputError:
        text = path.as_posix()
        assert (
            not text.isprintable() or text != text.strip(" \"'") or text != text.strip() or dataset != dataset.strip()
        )
        return
    entry = parse_line(line, "list")
    assert (entry.architecture, entry.dataset, entry.path) == (architecture, dataset, path)


@given(st.text())
def test_any_line_is_an_entry_or_refused(line):
    try:
        parse_line(line, "list, line 1")
    except InputError as error:
        assert str(error).startswith("list, line 1: ")


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
