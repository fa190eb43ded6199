"""Similarity of activations: every measure is its definition, computed slowly from matrices; invariances; known values."""

import numpy as np
import pytest
import torch

from evaluation import cka
from evaluation.cka import FeatureSums, GramSums, MinibatchSums, cka_of, grams_are_cheaper
from evaluation.similarity import MEASURES, Pair, compare, correlations
from models.errors import InputError

ALL = torch.ones(2, 2, dtype=torch.bool)
N = 60


# Slow references: numpy, float64, from the definitions


def centred(x):
    return x - x.mean(0)


def slow_hsic(k, ell, unbiased):
    n = len(k)
    if not unbiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ ell @ h)
    k, ell = (each - np.diag(np.diag(each)) for each in (k, ell))
    one = np.ones(n)
    between = one @ k @ ell @ one
    total = (one @ k @ one) * (one @ ell @ one)
    return (np.trace(k @ ell) + total / ((n - 1) * (n - 2)) - 2 * between / (n - 2)) / (n * (n - 3))


def slow_cka(x, y, unbiased=False, batches=1):
    sums = np.zeros(3)
    for a, b in zip(np.array_split(x, batches), np.array_split(y, batches)):
        k, ell = a @ a.T, b @ b.T
        sums += [slow_hsic(*pair, unbiased) for pair in ((k, ell), (k, k), (ell, ell))]
    return sums[0] / np.sqrt(sums[1] * sums[2])


def basis(x):
    """Return an orthonormal basis of the columns of x, those that it has."""
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    return u[:, s > 1e-6 * s[0]]


def slow_rho(x, y):
    return np.linalg.svd(basis(x).T @ basis(y), compute_uv=False)


def truncated(x, share=0.99):
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    number = int(np.argmax(np.cumsum(s**2) / np.sum(s**2) >= share)) + 1
    return u[:, :number] * s[:number]


def slow_pwcca(x, y):
    u, rho, _ = np.linalg.svd(basis(x).T @ basis(y), full_matrices=False)
    variates = basis(x) @ u  # (n, r)
    alpha = [sum(abs(h @ column) for column in centred(x).T) for h in variates.T]
    return float(np.sum(np.array(alpha) * rho) / np.sum(alpha))


def slow_procrustes(x, y):
    x, y = (each / np.linalg.norm(each) for each in (centred(x), centred(y)))
    most = max(x.shape[1], y.shape[1])
    x, y = (np.pad(each, ((0, 0), (0, most - each.shape[1]))) for each in (x, y))
    u, _, v = np.linalg.svd(x.T @ y)
    return np.linalg.norm(x @ u @ v - y) ** 2  # the best orthogonal map, applied


def slow_regression(x, y):
    weight, *_ = np.linalg.lstsq(centred(y), centred(x), rcond=None)
    return 1 - np.linalg.norm(centred(x) - centred(y) @ weight) ** 2 / np.linalg.norm(centred(x)) ** 2


def slow_correlation(x, y):
    return np.mean([max(abs(np.corrcoef(a, b)[0, 1]) for a in x.T) for b in y.T])


SLOW = {
    "cka": slow_cka,
    "cka_unbiased": lambda x, y: slow_cka(x, y, unbiased=True),
    "cka_minibatch": lambda x, y: slow_cka(x, y, unbiased=True, batches=3),
    "cca": lambda x, y: slow_rho(x, y).mean(),
    "cca_squared": lambda x, y: (slow_rho(x, y) ** 2).mean(),
    "svcca": lambda x, y: slow_rho(truncated(x), truncated(y)).mean(),
    "pwcca": lambda x, y: slow_pwcca(y, x),  # of the end, seen from the front
    "procrustes": slow_procrustes,
    "linear_regression": lambda x, y: slow_regression(y, x),
    "l2": lambda x, y: ((x - y) ** 2).mean(),
    "correlation": slow_correlation,
    "same_channel": lambda x, y: np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x.T, y.T)]),
}
OF_ONE_SHAPE = ("l2", "same_channel")


def related(p=7, q=7, n=N, noise=0.7, seed=0):
    """Return two matrices that have something in common, columns of different sizes, far from 0."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) * np.arange(1, p + 1) + 3
    return x, x @ rng.standard_normal((p, q)) + noise * p * rng.standard_normal((n, q)) - 5


def measure(name, x, y, batch=None):
    """Return a measure of matrices (n, p), or of activations with pixels."""
    views = [torch.as_tensor(each) for each in (x, y)]
    n = len(x)
    found = compare(lambda start, stop: [each[start:stop] for each in views], n, batch or n // 3, [name], ALL)
    return found[name][0, 1].item()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("shape", [(7, 7), (3, 9), (9, 3), (1, 1)])
def test_every_measure_is_its_definition(name, shape):
    x, y = related(*shape)
    if name in OF_ONE_SHAPE and shape[0] != shape[1]:
        assert np.isnan(measure(name, x, y))
        return
    assert measure(name, x, y) == pytest.approx(SLOW[name](x, y), abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_do_not_depend_on_batches_but_for_minibatch_cka(name):
    x, y = related()
    values = [measure(name, x, y, batch) for batch in (60, 30, 7)]
    if name == "cka_minibatch":
        assert len({round(value, 6) for value in values}) == 3
    else:
        assert values == pytest.approx([values[0]] * 3, abs=1e-10)


# Invariances

orthogonal = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))[0]
invertible = np.random.default_rng(2).standard_normal((7, 7)) + 3 * np.eye(7)
CHANGES = {
    "shift": lambda y: y + np.arange(7),
    "scale": lambda y: 3 * y,
    "order": lambda y: y[:, ::-1].copy(),
    "orthogonal": lambda y: y @ orthogonal,
    "invertible": lambda y: y @ invertible,
}
EVERY = set(CHANGES)
UP_TO_SCALE = EVERY - {"invertible"}
INVARIANT = {  # changes of the end (Y) that a measure does not notice
    **dict.fromkeys(("cka", "cka_unbiased", "cka_minibatch", "procrustes", "svcca"), UP_TO_SCALE),
    **dict.fromkeys(("cca", "cca_squared"), EVERY),
    "pwcca": {"shift", "scale", "order"},  # its weights are in the columns of the end
    "linear_regression": UP_TO_SCALE,
    "l2": set(),
    "correlation": {"shift", "scale", "order"},
    "same_channel": {"shift", "scale"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MEASURES)
def test_measures_notice_what_they_should_and_nothing_else(name, change):
    x, y = related()
    before, after = measure(name, x, y), measure(name, x, CHANGES[change](y))
    assert (abs(before - after) < 1e-8) == (change in INVARIANT[name])


def test_regression_and_pwcca_do_not_notice_invertible_maps_of_the_front():
    x, y = related()
    for name in ("linear_regression", "pwcca"):
        assert measure(name, x @ invertible, y) == pytest.approx(measure(name, x, y), abs=1e-9)
        assert abs(measure(name, y, x) - measure(name, x, y)) > 1e-3  # not symmetric


@pytest.mark.parametrize("name", MEASURES)
def test_a_view_is_exactly_like_itself(name):
    x, _ = related()
    expected = 1 if MEASURES[name].larger_is_alike else 0
    assert measure(name, x, x) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "biased"), [(32, 0.20), (64, 0.11), (128, 0.06), (256, 0.03)])
def test_cka_of_independent_noise(n, biased):
    """Of 8 columns: biased CKA is far from 0 for few images, unbiased CKA is near it."""
    rng = np.random.default_rng(0)
    pairs = [rng.standard_normal((2, n, 8)) for _ in range(30)]
    assert np.mean([measure("cka", *pair) for pair in pairs]) == pytest.approx(biased, abs=0.01)
    unbiased = [measure("cka_unbiased", *pair) for pair in pairs]
    assert abs(np.mean(unbiased)) < 0.02 and min(unbiased) < 0


def test_values_computed_by_hand():
    x = np.array([[1.0], [-1.0], [1.0], [-1.0], [0.0], [0.0]])
    y = np.array([[1.0], [-1.0], [-1.0], [1.0], [0.0], [0.0]])
    both = np.concatenate([x, y], 1)
    assert measure("cca", x, y) == measure("cka", x, y) == pytest.approx(0, abs=1e-12)
    assert measure("cca", x, both) == pytest.approx(1) and measure("cka", x, both) == pytest.approx(0.5**0.5)
    assert measure("linear_regression", x, both) == pytest.approx(0.5)
    assert measure("linear_regression", both, x) == pytest.approx(1)
    assert measure("procrustes", x, both) == pytest.approx(2 - 2**0.5)
    assert measure("procrustes", x, y) == pytest.approx(2)
    assert measure("l2", x, y) == pytest.approx(8 / 6)
    found = correlations(Pair.of(torch.from_numpy(both), torch.from_numpy(x)))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    noise = 1e-6 * np.arange(6)[:, None] ** 2
    assert measure("svcca", np.concatenate([x, noise], 1), x) == pytest.approx(1)  # a direction of no variance


# Images and pixels


def maps(seed, channels=3, side=4, n=N):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


@pytest.mark.parametrize("name", MEASURES)
def test_rows_are_images_for_cka_and_pixels_or_spatial_means_for_others(name):
    x, y, small = maps(0), maps(1), maps(2, side=2)
    y = y + x

    def pixels(each):
        return each.movedim(1, -1).flatten(0, 2).numpy()

    def means(each):
        return each.mean((2, 3)).numpy()

    as_rows = [each.flatten(1).numpy() for each in (x, y)] if name.startswith("cka") else [pixels(x), pixels(y)]
    assert measure(name, x, y) == pytest.approx(SLOW[name](*as_rows), abs=1e-9)
    if name.startswith("cka"):
        assert measure(name, x, small) == pytest.approx(SLOW[name](as_rows[0], small.flatten(1).numpy()), abs=1e-9)
    elif name not in OF_ONE_SHAPE:
        assert measure(name, x, small) == pytest.approx(SLOW[name](means(x), means(small)), abs=1e-9)
        assert measure(name, x, small.mean((2, 3))) == pytest.approx(SLOW[name](means(x), means(small)), abs=1e-9)
    elif name == "l2":
        assert np.isnan(measure(name, x, small))


def test_many_views_in_one_pass_are_the_pairs_one_by_one():
    views = [maps(0), maps(1, 5, 2), maps(2, 4, 1).flatten(1), maps(3) + maps(0)]
    wanted = torch.tensor([[True, True, False, True]] * 4)
    passes = []

    def some(start, stop):
        passes.append(start)
        return [each[start:stop] for each in views]

    found = compare(some, N, 20, list(MEASURES), wanted)
    assert sorted(passes) == [0, 20, 40]
    for name, values in found.items():
        for i, j in wanted.nonzero().tolist():
            alone = measure(name, views[i], views[j])
            assert values[i, j].item() == pytest.approx(alone, abs=1e-9, nan_ok=True)
        assert values[~wanted].isnan().all()


# CKA by products of features and by Gram matrices


@pytest.mark.parametrize("again", [True, False])
def test_features_and_grams_give_the_same_sums(again):
    views = [maps(0), maps(1, 30, 4) * 100 + 1000, maps(2, 2, 1).flatten(1)]
    batches = [[each[i : i + 17] for each in views] for i in range(0, N, 17)]
    features = FeatureSums(torch.ones(3, 3, dtype=torch.bool))
    grams = GramSums(batches.__getitem__ if again else None)
    for each in batches:
        features.add(each)
        grams.add(each)
    one, other = features.hsic(), grams.hsic()
    for name in one._fields:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-11)
    torch.testing.assert_close(cka_of(one.unbiased()), cka_of(other.unbiased()), rtol=0, atol=1e-11)


def test_the_cheaper_form_is_chosen(monkeypatch):
    pair = torch.tensor([[False, True], [False, False]])
    assert not grams_are_cheaper([16, 16], pair, 1000)
    assert grams_are_cheaper([16_000, 16_000], pair, 1000)
    assert grams_are_cheaper([64] * 500, torch.ones(500, 500, dtype=torch.bool), 500)
    monkeypatch.setattr(cka, "MOST_BYTES", 1000)
    assert grams_are_cheaper([16, 16], pair, 10**6)


def test_minibatch_sums_are_not_the_mean_of_ratios():
    x, y = related()
    sums = MinibatchSums()
    parts = list(zip(np.array_split(x, 5), np.array_split(y, 5)))
    for part in parts:
        sums.add([torch.from_numpy(each) for each in part])
    found = cka_of(sums.hsic)[0, 1].item()
    assert found == pytest.approx(slow_cka(x, y, unbiased=True, batches=5))
    assert abs(found - np.mean([slow_cka(*part, unbiased=True) for part in parts])) > 1e-4


# Degenerate views


@pytest.mark.parametrize("name", MEASURES)
def test_a_view_that_does_not_vary_is_like_nothing(name):
    x, _ = related()
    constant = np.full((N, 4), 0.1)
    for pair in ((x, constant), (constant, x), (constant, constant)):
        assert np.isnan(measure(name, *pair))


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "l2"])
def test_dead_channels_change_nothing(name):
    x, y = related()
    dead = np.full((N, 2), 0.7)
    with_dead = [np.concatenate([dead, each], 1) for each in (x, y)]
    assert measure(name, *with_dead) == pytest.approx(measure(name, x, y), abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_too_few_images_are_refused_and_said(name):
    x, y = related(p=7, q=3, n=7)
    if name in ("cca", "cca_squared", "svcca", "pwcca", "linear_regression"):
        with pytest.raises(InputError, match="7 rows of 7 channels.*--num-images"):
            measure(name, x, y)
    x, y = related(n=3)
    if name.startswith("cka_"):
        with pytest.raises(InputError, match="3 images.* 4"):
            measure(name, x, y, batch=3)


def test_few_images_of_many_pixels_are_enough():
    x, y = maps(0, n=5), maps(1, n=5)
    assert 0 < measure("cca", x, y, batch=5) < 1


def test_activations_in_float32_lose_nothing_by_their_offset():
    """A mean of 1000 with deviations of 1: products that were not shifted would lose six digits."""
    x, y = (torch.from_numpy(each) for each in related())
    x, y = (x + 1000).float(), (y - 1000).float()
    for name in MEASURES:
        exact = x.double().numpy(), y.double().numpy()
        exact = SLOW[name](*(exact if name == "l2" else map(centred, exact)))
        assert measure(name, x, y) == pytest.approx(exact, rel=1e-9, abs=1e-9)
