"""What an autoencoder starts from, and how targets are shown to it: noise and orders of channels, by seed and step."""

import pytest
import torch

from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from tests.conftest import instances_in_float64
from training.constants import Start, Views
from training.views import add_noise, reorder, start_at_instances

SIZES = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)


def test_noise_is_in_units_of_each_preps_mean_absolute_value_and_is_drawn_by_seed_and_step():
    rows = torch.stack([torch.full((15_000,), 0.1), torch.full((15_000,), -3.0)])
    views = Views(prep_noise=0.5)

    def noise(seed, step):
        return add_noise(rows, 16_000, views, seed, step) - torch.nn.functional.pad(rows, (0, 1000))

    found = noise(1, 2)
    unit = 15 / 16  # padding counts in the mean
    assert found.shape == (2, 16_000)
    assert found.std(1).tolist() == pytest.approx([0.05 * unit, 1.5 * unit], rel=0.05)
    assert found[:, 15_000:].std(1).tolist() == pytest.approx([0.05 * unit, 1.5 * unit], rel=0.1)
    assert found.mean(1).abs().max() < 0.05
    assert torch.equal(noise(1, 2), found)
    assert not torch.equal(noise(1, 3), found) and not torch.equal(noise(2, 2), found)
    assert not torch.equal(found[0] / found[0].std(), found[1] / found[1].std())


def test_without_noise_and_order_rows_are_as_they_were():
    net, state = instances_in_float64("resnet8", (1, 8, 8), 10, m=2)
    rows = net.fuse(state)
    assert add_noise(rows, 6000, Views(), 1, 2) is rows and reorder(rows, net, Views(), 1, 2) is rows


def test_reordered_rows_compute_the_same_in_an_order_by_seed_and_step():
    net, state = instances_in_float64("resnet8", (1, 8, 8), 10, m=2)
    rows, images = net.fuse(state), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    views = Views(reorder_channels=True)
    found = reorder(rows, net, views, 1, 2)
    torch.testing.assert_close(net.run(found, images), net.run(rows, images))
    assert (found != rows).float().mean() > 0.5
    assert torch.equal(reorder(rows, net, views, 1, 2), found)
    assert not torch.equal(reorder(rows, net, views, 1, 3), found)
    assert not torch.equal(reorder(rows, net, views, 2, 2), found)


@pytest.mark.parametrize(("quantile", "chosen"), [(0.0, 2), (0.5, 0), (0.99, 0), (1.0, 1)])
def test_a_model_starts_at_the_instance_of_a_quantile(quantile, chosen):
    rows, scores = torch.randn(3, 5058), torch.tensor([50.0, 70.0, 30.0])
    model = PrepAutoencoder(SIZES)
    start_at_instances(model, Start(affine_start="instance", affine_quantile=quantile, affine_scale=0.0), rows, scores)
    layer = model.decoder.scalelayer
    assert torch.equal(layer.bias.flatten()[:5058], rows[chosen]) and (layer.bias.flatten()[5058:] == 0).all()
    assert (layer.scale == 0).all()


def test_a_scaled_start_is_that_of_the_rows_root_mean_square():
    rows = 3 * torch.randn(3, 5058)
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(PrepAutoencoder(SIZES))
    start_at_instances(models[0], Start(encoder_start="scaled"), rows, torch.zeros(3))
    models[1].encoder.start_at(rows.square().mean().sqrt().item())
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_the_papers_start_changes_nothing():
    torch.manual_seed(0)
    model = PrepAutoencoder(SIZES)
    torch.manual_seed(0)
    plain = PrepAutoencoder(SIZES)
    start_at_instances(model, Start(), torch.randn(3, 5058), torch.zeros(3))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_instance_larger_than_the_preps_is_refused():
    with pytest.raises(InputError, match="5,120.*5,121"):
        start_at_instances(PrepAutoencoder(SIZES), Start(affine_start="instance"), torch.zeros(1, 5121), torch.zeros(1))
