"""Probes of properties: statistics, ridge and trees against plain computations, intervals over nets, other zoos."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import r2_score

import predict_properties
from data.nets import NetsDataset
from data.zoos import load_splits, load_zoo
from evaluation.plots import plot_properties
from evaluation.probes import (
    LAMBDAS,
    TREES,
    Probes,
    Representations,
    Split,
    fit_ridge,
    fit_trees,
    logit_statistics,
    probes_table,
    properties_of,
    r2,
    resampled_nets,
    score,
    weight_statistics,
)
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.rows import Layout, reordering
from models.target_nets import ARCHITECTURES
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from tests import miniature
from tests.test_scripts import check_figure, figure_of

SIZES = TokenSizes(73, latent_size=4, width=16, layers=1, heads=2)


def net_for_photos(name):
    return TargetNet(ARCHITECTURES[name], (1, 8, 8), 10)


def a_sane(net):
    sane = TokenAutoencoder(SIZES, net.layout, net.hidden_channels()).eval()
    rows = 0.1 * torch.randn(5, net.num_parameters)
    sane.fit(rows, rows[0])
    return sane


def instances(facts, name="lenetlike"):
    net = net_for_photos(name)
    rows = 0.1 * torch.randn(len(facts), net.num_parameters)
    return NetsDataset(TargetNets([net]), rows, (0,) * len(facts), tuple(facts), (None,) * len(facts))


def draws(n, features, noise=0.0, seed=0):
    """Return features (n, F), two properties (n, 2) linear in them but for noise, and the properties' weights."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    x, w, scale = rng.normal(size=(n, features)), fixed.normal(size=(features, 2)), fixed.uniform(0.01, 100, features)
    return (x + 2) * scale, x @ w + noise * rng.normal(size=(n, 2)) * [1, 10] + [1000, -3]


# Representations


def test_statistics_of_weights_are_those_of_every_weight_and_bias_apart():
    layout = Layout(("a.weight", "a.bias"), ((2, 2), (2,)))
    found = weight_statistics(layout, torch.tensor([[1.0, 2, 3, 4, 5, 5, 77], [-8.0, 0, 0, 0, 1, 3, 77]]))
    expected = [
        [2.5, math.sqrt(1.25), 1, 1.75, 2.5, 3.25, 4, 5, 0, 5, 5, 5, 5, 5],
        [-2, math.sqrt(12), -8, -2, 0, 0, 0, 2, 1, 1, 1.5, 2, 2.5, 3],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_statistics_of_weights_do_not_see_the_order_of_channels():
    net = net_for_photos("resnet8")
    rows = torch.randn(3, net.num_parameters)
    moved = rows[:, reordering(net.layout, net.hidden_channels(), np.random.default_rng(0))]
    assert not torch.equal(rows, moved)
    np.testing.assert_allclose(weight_statistics(net.layout, moved), weight_statistics(net.layout, rows), atol=1e-12)


def test_statistics_of_logits_are_comparable_whatever_the_classes():
    flat, sure = logit_statistics(torch.zeros(1, 6, 4))[0], logit_statistics(torch.eye(10)[None, :5] * 1000)[0]
    np.testing.assert_allclose(flat[[0, 7, 14]], [0.25, math.log(4), 0], atol=1e-12)
    np.testing.assert_allclose(sure[[0, 7, 14]], [1, 0, 1000], atol=1e-12)
    logits = torch.randn(2, 8, 5)
    assert logit_statistics(logits).shape == (2, 21)
    np.testing.assert_allclose(logit_statistics(logits[..., [3, 1, 0, 4, 2]] + 5), logit_statistics(logits), rtol=1e-5)


def test_properties_are_numbers_that_every_instance_has():
    known = {f"recall_{i}": 10.0 * i for i in range(12)} | {"test_accuracy": 50, "net": "a", "seed": 3}
    found = properties_of(instances([{**known, "step": 0}, {**known, "step": 15}]))
    assert list(found)[:3] == ["test_accuracy", "log_steps", "recall"]
    assert found["log_steps"].tolist() == [[0.0], [pytest.approx(math.log(16))]]
    assert found["recall"].tolist() == [[10.0 * i for i in range(12)]] * 2
    assert found["recall_11"].tolist() == [[110.0]] * 2
    for broken in ({}, {"generalization_gap": "unknown"}, {"generalization_gap": math.nan}):
        facts = [{"generalization_gap": 1.0, "test_accuracy": 1}, {"test_accuracy": 2, **broken}]
        assert list(properties_of(instances(facts))) == ["test_accuracy"]


# Probes


@pytest.mark.parametrize(("n", "features"), [(60, 7), (30, 200)])
def test_ridge_is_its_closed_form_of_the_lambda_that_is_best_on_validation(n, features):
    (x, y), (val_x, val_y), (test_x, _) = (draws(m, features, 1.0, seed) for seed, m in enumerate((n, 20, 9)))
    mean, std = x.mean(0), x.std(0)
    standard = [(each - mean) / std for each in (x, val_x, test_x)]
    expected = np.zeros((9, 2))
    chosen = []
    for k in range(2):
        best = -np.inf
        for strength in LAMBDAS:
            gram = standard[0].T @ standard[0] + strength * np.eye(features)
            w = np.linalg.solve(gram, standard[0].T @ (y[:, k] - y[:, k].mean()))
            fit = r2_score(val_y[:, k], standard[1] @ w + y[:, k].mean())
            if fit > best:
                best, expected[:, k] = fit, standard[2] @ w + y[:, k].mean()
                found = strength
        chosen.append(found)
    np.testing.assert_allclose(fit_ridge(x, y, val_x, val_y)(test_x), expected, rtol=1e-5, atol=1e-4)
    assert chosen[0] < chosen[1]  # the second is noisier: each has its own


def test_lambdas_are_those_of_the_paper():
    assert LAMBDAS[:3] == pytest.approx((1e3, 3e2, 1e2)) and LAMBDAS[-2:] == pytest.approx((3e-5, 1e-5))
    assert len(LAMBDAS) == 17


def test_ridge_does_not_penalize_the_intercept_and_bears_features_without_variance():
    x, y = draws(40, 3)
    x = np.column_stack([x, np.full(40, 7.0)])
    predicted, moved = (fit_ridge(x, each, x, each)(x) for each in (y, y + 1e4))
    np.testing.assert_allclose(predicted, y, atol=1e-3)
    np.testing.assert_allclose(moved, y + 1e4, atol=1e-3)
    one = fit_ridge(x, y[:, :1], x, y[:, :1])(x)
    np.testing.assert_allclose(one, predicted[:, :1])


def test_without_variance_on_validation_the_strongest_ridge_is_taken():
    x, y = draws(40, 3)
    shrunk = fit_ridge(x, y, x[:5], np.ones((5, 2)))(x)
    assert (shrunk.std(0) < 0.1 * y.std(0)).all() and np.isfinite(shrunk).all()


def test_trees_learn_what_is_not_linear_and_are_as_many_as_validation_wants(monkeypatch):
    monkeypatch.setitem(TREES, "max_iter", 120)
    rng = np.random.default_rng(0)
    x, val_x, test_x = (rng.uniform(-1, 1, (n, 3)) for n in (300, 80, 80))

    def steps(x):
        return np.column_stack([np.sign(x[:, 0] * x[:, 1]), np.abs(x[:, 2])])

    trees, ridge = (fit(x, steps(x), val_x, steps(val_x))(test_x) for fit in (fit_trees(0), fit_ridge))
    assert (r2(steps(test_x), trees) > 0.8).all() and (r2(steps(test_x), ridge) < 0.2).all()
    noise = rng.normal(size=(300, 1))
    few = fit_trees(0)(x, noise, val_x, rng.normal(size=(80, 1)))(test_x)
    assert few.std() < 0.3 * noise.std()
    np.testing.assert_array_equal(fit_trees(0)(x, steps(x), val_x, steps(val_x))(test_x), trees)


# Scores


def test_r_squared_and_tau_are_those_of_scikit_learn_and_scipy():
    rng = np.random.default_rng(1)
    target = 1e4 + rng.normal(size=(30, 2))
    predicted = target + rng.normal(size=(30, 2))
    found = score(target, predicted, resampled_nets(range(30), 10, 0))
    expected = [r2_score(*each) for each in zip(target.T, predicted.T)]
    assert r2(target, predicted) == pytest.approx(expected)
    assert found.r2 == pytest.approx(np.mean(expected)) and found.n == 30
    assert found.kendall_tau == pytest.approx(
        np.mean([kendalltau(*each).statistic for each in zip(target.T, predicted.T)])
    )
    assert r2(target, np.broadcast_to(target.mean(0), (30, 2))) == pytest.approx([0, 0], abs=1e-9)


def test_intervals_are_of_resampled_nets_whose_checkpoints_stay_together():
    rng = np.random.default_rng(2)
    nets = np.repeat(list("abcdefg"), 5).tolist()
    error = np.repeat(rng.normal(size=7), 5)[:, None]  # all checkpoints of a net err alike
    target = rng.normal(size=(35, 1))
    counts = resampled_nets(nets, 200, 3)
    by_net = counts.reshape(200, 7, 5)
    assert (by_net == by_net[..., :1]).all() and (by_net[..., 0].sum(1) == 7).all() and len(np.unique(counts)) > 2
    resampled = [r2_score(np.repeat(target, each, axis=0), np.repeat(target + error, each, axis=0)) for each in counts]
    found = score(target, target + error, counts)
    assert found.r2_interval == pytest.approx(np.percentile(resampled, (2.5, 97.5)))
    alone = score(target, target + error, resampled_nets(range(35), 200, 3)).r2_interval
    assert np.diff(found.r2_interval) > 1.3 * np.diff(alone)
    np.testing.assert_array_equal(counts, resampled_nets(nets, 200, 3))


def test_what_is_not_defined_is_none():
    target = np.full((6, 1), 0.1)
    found = score(target, target + 1, resampled_nets(range(6), 20, 0))
    assert (found.r2, found.r2_interval, found.kendall_tau, found.n) == (None, None, None, 6)
    one_net = score(np.arange(6.0)[:, None], np.arange(6.0)[:, None], resampled_nets("aaaaaa", 20, 0))
    assert one_net.r2 == pytest.approx(1) and one_net.kendall_tau == pytest.approx(1) and one_net.r2_interval is None


def test_probes_predict_unseen_nets_and_recall_is_the_mean_over_classes():
    def split(n, seed):
        x, y = draws(n, 4, 0.3, seed)
        classes = {f"recall_{k}": y[:, [k]] for k in range(2)}
        return Split({"x": x, "y": y}, {"test_accuracy": y[:, :1], "recall": y, **classes}, list(range(n)))

    probes = Probes(split(80, 0), split(30, 1), ["y"], seed=0)
    test = split(40, 2)
    found = probes.measure(test, 50)
    assert list(found["recall"]) == ["x", "y", "y_trees"] and found["test_accuracy"]["y"]["r2"] > 0.999
    for each in ("r2", "kendall_tau"):
        by_class = [found[f"recall_{k}"]["x"][each] for k in range(2)]
        assert found["recall"]["x"][each] == pytest.approx(np.mean(by_class))
    only = probes.measure(Split({"x": test.features["x"]}, test.properties, test.nets), 50, ["recall", "log_steps"])
    assert only == {"recall": {"x": found["recall"]["x"]}}
    with pytest.raises(InputError, match="few nets"):
        Probes(split(80, 0), Split({}, {}, []), [], 0)


# Other zoos


def test_another_architecture_is_encoded_by_the_same_transformer():
    sane, net = a_sane(net_for_photos("resnet8")), net_for_photos("lenetlike")
    other = sane.for_layout(net.layout, net.hidden_channels())
    assert other.transformer is sane.transformer and not other.training
    rows = 0.2 * torch.randn(4, net.num_parameters)
    other.fit(rows, rows[0])
    alone = TokenAutoencoder(SIZES, net.layout, net.hidden_channels())
    alone.load_state_dict(other.state_dict())
    with torch.no_grad():
        latents = other.encode(rows)
        torch.testing.assert_close(latents, alone.eval().encode(rows))
    assert latents.shape == (4, 38 * 4)
    large = net_for_photos("resnet32")
    with pytest.raises(InputError, match="462 places"):
        sane.for_layout(large.layout, large.hidden_channels())


def test_representations_that_another_zoo_does_not_share_are_left_out():
    images = torch.randn(6, 1, 8, 8)
    facts = [{"val_accuracy": i, "net": i} for i in range(5)]
    ours, theirs = instances(facts, "resnet8"), instances(facts)
    represent = Representations.fit(a_sane(ours.nets[0]), None, images, ours, seed=0)
    features = represent.of(ours)
    assert next(iter(features)) == "weight_statistics"
    sizes = {"weights": 5058, "pca": 4, "sane_mean": 4, "sane_sequence": 440, "logits": 60, "logit_statistics": 21}
    assert {name: features[name].shape for name in sizes} == {name: (5, size) for name, size in sizes.items()}
    latents = features["sane_sequence"].reshape(5, 110, 4)
    first = latents[:, :4]  # conv1 has four channels, each of one token
    for name, tokens, start in (("sane_mean", latents, 0), ("sane_statistics", latents, 0), ("sane_layers", first, 0)):
        np.testing.assert_allclose(features[name][:, start : start + 4], tokens.mean(1), atol=1e-6)
    np.testing.assert_allclose(features["sane_layers"][:, 4:8], first.std(1), atol=1e-6)
    np.testing.assert_allclose(features["sane_layers"][:, -4:], latents[:, -10:].std(1), atol=1e-6)  # fc
    assert set(represent.elsewhere(theirs, images).of(theirs)) == {
        "sane_mean",
        "sane_statistics",
        "logit_statistics",
        "logits",
    }
    assert set(represent.elsewhere(theirs, images + 1).of(theirs)) == {
        "sane_mean",
        "sane_statistics",
        "logit_statistics",
    }
    same = represent.elsewhere(ours, images + 1)
    assert same.sane is represent.sane and same.pca is represent.pca
    assert set(features) - set(same.of(ours)) == {"logits"}
    own = represent.elsewhere(theirs, images).sane
    torch.testing.assert_close(own.reference, theirs.rows[4])  # the strongest on validation


# The script


@pytest.fixture
def results(project):
    return json.loads((project / "runs/photos/sane/predict_properties.json").read_text())


def test_scores_of_every_property_and_representation(project, results):
    names = ["weight_statistics", "weight_statistics_trees", "weights", "pca", "netspace", "sane_mean"]
    names += ["sane_statistics", "sane_layers", "sane_sequence", "logit_statistics", "logits"]
    recalls = [f"recall_{i}" for i in range(10)]
    properties = results["properties"]
    assert list(properties) == ["test_accuracy", "log_steps", "generalization_gap", "recall", *recalls]
    for found in properties.values():
        assert list(found) == names
        assert all(
            each["n"] == 8 and list(each) == ["r2", "r2_interval", "kendall_tau", "n"] for each in found.values()
        )
    (moved,) = results["transfer"].values()
    assert {tuple(found) for found in moved.values()} == {
        ("sane_mean", "sane_statistics", "logit_statistics", "logits")
    }
    check_figure(project / "runs/photos/sane/predict_properties")


def test_statistics_of_weights_are_scored_on_the_test_nets(project, results):
    train, val, test = load_splits(project / "runs/photos/nets/zoo-resnet8", "resnet8").values()
    layout = test.nets[0].layout
    x, val_x, test_x = (weight_statistics(layout, each.rows) for each in (train, val, test))
    y, val_y, target = (np.array(each.column("test_accuracy"))[:, None] for each in (train, val, test))
    predicted = fit_ridge(x, y, val_x, val_y)(test_x)
    found = results["properties"]["test_accuracy"]["weight_statistics"]
    assert found["r2"] == pytest.approx(r2_score(target, predicted), abs=1e-4)
    assert not set(train.column("net")) & set(test.column("net"))


def test_table_has_statistics_of_weights_first_and_figure_draws_the_scores(own_project, monkeypatch):
    config = miniature.predict_config(own_project, transfer=())
    results, figure = figure_of(predict_properties, config, monkeypatch)
    assert "transfer" not in results
    table = probes_table(results["properties"]).splitlines()
    assert table[2].startswith("| weight_statistics |") and len({line.count("|") for line in table}) == 1
    assert "n = 8" in table[0] and len(table) == 2 + 11
    for axes, name in zip(figure.axes, ("test_accuracy", "generalization_gap", "log_steps")):
        dots = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() in "oDs"]
        drawn = {round(float(line.get_ydata()[0])): float(line.get_xdata()[0]) for line in dots}
        left = axes.get_xlim()[0]
        expected = {place: each["r2"] for place, each in enumerate(results["properties"][name].values())}
        assert drawn == pytest.approx({place: value for place, value in expected.items() if value >= left})
        assert len(axes.texts) == len(expected) - len(drawn)


def test_figure_of_scores_that_are_not_defined():
    none = {"r2": None, "r2_interval": None, "kendall_tau": None, "n": 3}
    figure = plot_properties({"test_accuracy": {"weights": none, "pca": {**none, "r2": -7.0}}}, "")
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["not defined", "-7.0"]


def test_figure_shows_trees_and_ridge_of_one_representation_alike():
    found = {"r2": 0.5, "r2_interval": None, "kendall_tau": 0.5, "n": 3}
    names = ("logits", "logits_trees", "netspace", "netspace_trees")
    figure = plot_properties({"test_accuracy": dict.fromkeys(names, found)}, "")
    drawn = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines if line.get_marker() in list("oDs")]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


@pytest.mark.parametrize("setting", ["sane", "zoo"])
def test_a_space_that_has_seen_other_nets_is_refused(own_project, setting):
    """It may have been trained on the nets that are the test nets now."""
    path = own_project / "runs/photos" / setting / "best.pt"
    saved = torch.load(path, weights_only=True)
    saved["constants"]["instances"] = "sha256:0123"
    torch.save(saved, path)
    with pytest.raises(InputError, match="trained on other nets"):
        predict_properties.main(miniature.predict_config(own_project))


def test_a_netspace_is_trained_on_the_zoos_training_nets(project):
    train, val, _ = load_splits(project / "runs/photos/nets/zoo-resnet8", "resnet8").values()
    assert (len(train), len(val)) == (28, 4)
    assert (project / "runs/photos/zoo/best.pt").is_file()


def test_a_zoo_too_small_to_split_is_refused(project):
    small = project / "runs/photos/nets/zoo-lenetlike"
    assert len(load_zoo(small).nets) == 12
    with pytest.raises(InputError, match="resnet8"):
        load_splits(small, "resnet8")
