import pytest
import torch

from training.noise import add_noise


def test_noise_is_in_units_of_each_preps_mean_absolute_value_and_has_a_key():
    preps = torch.stack([torch.full((1, 40, 400), 0.1), torch.full((1, 40, 400), -3.0)])
    noise = add_noise(preps, 0.5, (1, 2)) - preps
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([0.05, 1.5], rel=0.05)
    assert noise.mean((1, 2, 3)).abs().max() < 0.05
    assert torch.equal(add_noise(preps, 0.5, (1, 2)) - preps, noise)
    assert not torch.equal(add_noise(preps, 0.5, (1, 3)) - preps, noise)
    assert add_noise(preps, 0.0, (1, 2)) is preps
