"""Linear encoders: principal components against numpy, what they are blind to, saved and loaded spaces."""

import numpy as np
import pytest
import torch
from torch import nn

from data.streams import stream
from evaluation.spaces import Space, about_sirens
from models.errors import InputError
from models.instances import TargetNets
from models.linear_encoders import LinearEncoder, ProbeEncoder, start_at_components
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.rows import reordering
from models.target_nets import get_architecture
from training.checkpoints import model_entries, save_checkpoint
from training.constants import Start
from training.views import probes, start_at_instances

NETS = TargetNets.sirens((3, 8, 8, 1))
(NET,) = NETS
SHAPE = (8, 16)
SMALL = dict(prep_shape=SHAPE, emb_size=64, grid=4, row_length=16, row_channels=4, num_probes=20)


def rows_of(number, dtype=torch.float32):
    return NET.layout.flatten(NET.start(range(number))).to(dtype)


def samples_of(number):
    return torch.from_numpy(stream("samples of a test").uniform(-1, 1, (number, 30, 4)).astype("float32"))


def test_components_are_those_of_numpy_and_keep_distances():
    rows = torch.from_numpy(stream("rows of a test").standard_normal((6, 9)))
    linear = nn.Linear(9, 7, bias=False).double()
    mean = start_at_components(linear, rows)
    values, vectors = np.linalg.eigh(np.cov(rows.numpy().T, bias=True))
    scores = linear(rows - mean).detach().numpy()
    expected = (rows.numpy() - rows.numpy().mean(0)) @ vectors[:, ::-1] / np.sqrt(values[-1])
    np.testing.assert_allclose(np.abs(scores[:, :5]), np.abs(expected[:, :5]), atol=1e-9)  # 6 rows span 5 dimensions
    assert not scores[:, 5:].any()
    between = torch.cdist(rows, rows) / np.sqrt(values[-1])
    torch.testing.assert_close(torch.cdist(*[torch.from_numpy(scores)] * 2), between, rtol=0, atol=1e-6)


def test_probes_see_the_function_alone():
    rows = rows_of(4, torch.float64)
    reordered = rows[:, reordering(NET.layout, NET.hidden_channels(), stream("order of a test"))]
    encoder = ProbeEncoder(5, 20, NET).double()
    encoder.start_at(pack(rows, SHAPE), probes(samples_of(4), 20).double())
    embedding, same = (encoder(pack(each, SHAPE)) for each in (rows, reordered))
    torch.testing.assert_close(same, embedding, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(embedding.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-9)
    linear = LinearEncoder(5, 128).double()
    linear.start_at(pack(rows, SHAPE))
    assert (linear(pack(rows, SHAPE)) - linear(pack(reordered, SHAPE))).abs().max() > 0.1


def test_equal_instances_have_no_components():
    linear = LinearEncoder(5, 128)
    linear.start_at(pack(rows_of(1).expand(3, -1), SHAPE))
    assert not linear(pack(rows_of(2), SHAPE)).any()


@pytest.mark.parametrize("encoder", ["linear", "probes"])
def test_spaces_are_loaded_as_they_were_saved(encoder, tmp_path):
    rows = rows_of(4)
    model = PrepAutoencoder(Sizes(**SMALL, encoder=encoder), net=NET)
    start_at_instances(model, Start(affine_start="mean", affine_scale=1.0), rows, torch.zeros(4), samples_of(4))
    about = about_sirens((3, 8, 8, 1))
    space = Space(model, NETS, about, {})
    embeddings = space.encode(rows)
    assert embeddings.shape == (4, 64) and embeddings.std() > 0.01
    save_checkpoint(tmp_path / "best.pt", {"nets": about, **model_entries(model)})
    space.save(tmp_path / "saved")
    for found in (Space.load(tmp_path), Space.load(tmp_path / "saved")):
        assert torch.equal(found.encode(rows), embeddings) and torch.equal(found.predict(rows), space.predict(rows))
    assert torch.equal(Space.of_checkpoint(tmp_path / "best.pt", "", NETS, about).encode(rows), embeddings)


def test_an_affine_head_at_the_mean_has_the_spread_of_instances():
    rows, model = rows_of(4), PrepAutoencoder(Sizes(**SMALL))
    start_at_instances(model, Start(affine_start="mean", affine_scale=1.0), rows, torch.zeros(4))
    head = model.decoder.scalelayer
    torch.testing.assert_close(head.bias.flatten()[: rows.shape[1]], rows.mean(0))
    relative = head.scale.flatten()[: rows.shape[1]] / rows.std(0, correction=0)
    assert 0.8 < relative.std() < 1.2 and not head.scale.flatten()[rows.shape[1] :].any()


def test_other_encoders_are_refused(tmp_path):
    with pytest.raises(InputError, match="wide.*convs, linear, probes"):
        PrepAutoencoder(Sizes(**SMALL, encoder="wide"))
    on_images = TargetNets.on_images([get_architecture("lenetlike")], (1, 8, 8), 10)[0]
    for net in (None, on_images):
        with pytest.raises(InputError, match="probes"):
            PrepAutoencoder(Sizes(**SMALL, encoder="probes"), net=net)
    model = PrepAutoencoder(Sizes(**SMALL, encoder="probes"), net=NET)
    for shape in ((10**6, 10**6), "8x16", (0, 8), [8]):
        entries = model_entries(model)
        entries["sizes"]["prep_shape"] = shape
        save_checkpoint(tmp_path / "best.pt", {"nets": about_sirens((3, 8, 8, 1)), **entries})
        with pytest.raises(InputError, match="best.pt"):
            Space.load(tmp_path)
