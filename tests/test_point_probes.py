"""Linear probes of activations: predictions are of the class, divergences are their definition."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from evaluation.point_probes import channel_means, divergences, probe_predictions
from models.errors import InputError


def test_channel_means_are_of_all_images_in_order():
    maps, vectors = torch.randn(10, 3, 2, 2), torch.randn(10, 4)
    first, second = channel_means(lambda start, stop: [maps[start:stop], vectors[start:stop]], 10, 4)
    np.testing.assert_allclose(first, maps.double().mean((2, 3)))
    np.testing.assert_allclose(second, vectors.double())


def test_probes_tell_classes_that_are_apart_and_not_those_of_noise():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    apart = np.eye(3)[labels] * 10 + rng.standard_normal((300, 3))
    noise = rng.standard_normal((300, 3))
    found = probe_predictions([apart[:200], noise[:200]], labels[:200], [apart[200:], noise[200:]])
    assert found.shape == (2, 100, 3)
    np.testing.assert_allclose(np.exp(found).sum(2), 1)
    right = (found.argmax(2) == labels[200:]).mean(1)
    assert right[0] > 0.95 and right[1] < 0.6


def test_probes_do_not_depend_on_scale_and_order_of_channels():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = np.eye(3)[labels] + rng.standard_normal((60, 3))
    found = probe_predictions([x, 1e4 * x[:, ::-1] + 5], labels, [x, 1e4 * x[:, ::-1] + 5])
    np.testing.assert_allclose(found[0], found[1], atol=1e-2)
    assert divergences(found).max() < 1e-3


def test_divergences_are_of_the_end_from_the_front():
    p = np.random.default_rng(0).dirichlet([1, 1, 1], (3, 5))
    found = divergences(np.log(p))
    for front in range(3):
        for end in range(3):
            expected = rel_entr(p[end], p[front]).sum(1).mean()
            assert found[front, end].item() == pytest.approx(expected, abs=1e-12)


def test_training_images_of_one_class_are_refused():
    with pytest.raises(InputError, match="--probe-images"):
        probe_predictions([np.ones((4, 2))], np.zeros(4), [np.ones((4, 2))])
