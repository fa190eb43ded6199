"""Nets compared at their points: views are activations, controls are what they should be, ranks are those of stitches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import compare_nets
from data.images import Images
from evaluation.comparison import (
    ALL_MEASURES,
    NetViews,
    chosen_nets,
    comparison_facts,
    identified,
    mean_over_pairs,
    measured,
    rank_correlations,
    reordered_copies,
    shuffled,
    similarity_table,
)
from evaluation.similarity import MEASURES
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import get_architecture
from tests import miniature

SMALL = dict(batch=40, probe_images=200, seed=0)


@pytest.fixture(scope="module")
def images():
    return miniature.few_photos()


@pytest.fixture(scope="module", params=["resnet8", "lenetlike"])
def net(request):
    return TargetNet(get_architecture(request.param), (1, 8, 8), 10)


def rows_of(net, number):
    rows = net.fuse(net.start(range(number)))
    return rows + 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))


def test_views_are_activations_net_by_net_and_point_by_point(net, images):
    rows = rows_of(net, 35)  # more than are run at once
    views = NetViews(net, rows, images.val)(10, 20)
    x = images.val.plain(10, 20)
    for i in (0, 34):
        for k, point in enumerate(net.points):
            expected = net.run_front(rows[[i]], x, point)[0]
            torch.testing.assert_close(views[i * len(net.points) + k], expected, rtol=1e-4, atol=1e-5)


def test_wanted_pairs_and_their_blocks(net, images):
    views, points = NetViews(net, rows_of(net, 3), images.val), len(net.points)
    pairs = [(0, 2), (2, 1)]
    number = torch.arange(9 * points**2, dtype=torch.float64).view(3 * points, 3 * points)
    blocks = views.blocks(number, pairs)
    for (i, j), block in zip(pairs, blocks):
        np.testing.assert_array_equal(block, number[i * points : (i + 1) * points, j * points : (j + 1) * points])
    wanted = views.wanted(pairs)
    assert wanted.sum() == 2 * points**2 and views.blocks(wanted, pairs).all()
    same = views.wanted(pairs, all_points=False)
    np.testing.assert_array_equal(views.blocks(same, pairs), np.stack([np.eye(points)] * 2))
    assert same.sum() == 2 * points


def test_images_are_drawn_without_repeats_and_not_by_class(images):
    some = shuffled(images.train, 300, np.random.default_rng(0))
    assert len(some) == 300 and some.labels.float().std() > 2
    every = shuffled(images.val, 10**6, np.random.default_rng(0))
    order = every.pixels.flatten(1).sort(0).values
    assert torch.equal(order, images.val.pixels.flatten(1).sort(0).values)


def test_a_reordered_copy_is_the_same_inside_and_an_untrained_net_is_not(net, images):
    rows = rows_of(net, 2)
    copies = reordered_copies(net, rows, 0)
    x = images.val.plain(0, 50)
    assert not torch.equal(copies, rows)
    torch.testing.assert_close(net.run(copies, x), net.run(rows, x), rtol=1e-4, atol=1e-4)
    views = NetViews(net, torch.cat([rows, copies]), shuffled(images.val, 100, np.random.default_rng(0)))
    copy, other = [(2, 0)], [(1, 0)]
    for name, values in measured(views, images, copy + other, list(ALL_MEASURES), **SMALL).items():
        alike = 1 if ALL_MEASURES[name].larger_is_alike else 0
        of_copy, of_other = (values[k].diagonal() for k in (0, 1))
        if name in ("l2", "same_channel"):
            assert abs(of_copy - alike).max() > 0.01  # they see that channels are at other places
            continue
        atol = 1e-3 if name == "probe_kl" else 1e-5
        np.testing.assert_allclose(of_copy[np.isfinite(of_copy)], alike, atol=atol)
        assert np.isfinite(of_copy).any()
        assert np.nanmax(abs(of_other - alike)) > 0.02


def test_all_measures_are_of_activations_but_that_of_probes():
    assert set(ALL_MEASURES) - set(MEASURES) == {"probe_kl"}


# Which nets


def test_nets_are_chosen_by_name_or_path_or_file(project):
    config = miniature.compare_nets_config(project)
    images = miniature.few_photos()
    known = compare_nets.load_compared(config, images, None)
    assert len(known) == 3
    names = [known.paths[2].stem, known.paths[0].as_posix()]
    assert chosen_nets(known, names, "photos").paths == (known.paths[2], known.paths[0])
    other = sorted((project / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    unlisted = next(path for path in other if path not in known.paths)
    found = chosen_nets(known, [names[0], unlisted.as_posix()], "photos")
    assert found.paths == (known.paths[2], unlisted) and torch.equal(found.rows[0], known.rows[2])
    for bad, named in (([names[0]], "two"), ([names[0]] * 2, "two"), ([names[0], "seed9-999"], "seed9-999")):
        with pytest.raises(InputError, match=named):
            chosen_nets(known, bad, "photos")


def test_the_nets_of_stitches_are_compared_else_the_strongest(project):
    images, config = miniature.few_photos(), miniature.compare_nets_config(project, num_nets=2)
    strongest = compare_nets.load_compared(config, images, None)
    every = compare_nets.load_compared(miniature.compare_nets_config(project, num_nets=99), images, None)
    assert strongest.paths == every.paths[:2]
    last, first = every.paths[-1].stem, every.paths[0].stem
    stitches = {"pairs": [{"front": last, "end": first}, {"front": "untrained-0", "end": first}]}
    assert [path.stem for path in compare_nets.load_compared(config, images, stitches).paths] == [last, first]
    of_zoo = miniature.compare_nets_config(project, zoo="zoo-resnet8")
    assert len(compare_nets.load_compared(of_zoo, images, None)) == 2  # test nets at their last checkpoint


# Measures and stitches

PAIRS, POINTS = [("a", "b"), ("b", "a"), ("c", "a"), ("b", "c")], ["x", "y", "z"]


def test_rank_correlations_are_of_the_pairs_and_points_that_both_have():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 3, 3))
    relative = {pair: rng.random(2).tolist() for pair in [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]}
    relative["b", "a"][1] = None  # not stitched there
    stitches = {
        "points": ["z", "x"],
        "pairs": [{"front": i, "end": j, "least_squares": each} for (i, j), each in relative.items()],
    }
    found = rank_correlations({"cka": values, "l2": np.full((4, 3, 3), np.nan)}, PAIRS, POINTS, stitches)
    at_z = [(values[k, 2, 2], relative[PAIRS[k]][0]) for k in (0, 1, 3)]
    at_x = [(values[k, 0, 0], relative[PAIRS[k]][1]) for k in (0, 3)]
    assert set(found) == {"cka"} and set(found["cka"]) == {"least_squares"}
    rank = found["cka"]["least_squares"]
    assert rank["n"] == 5
    assert rank["rho"] == pytest.approx(spearmanr(*zip(*at_z, *at_x)).statistic)
    assert rank["rho_at_one_point"] == pytest.approx(spearmanr(*zip(*at_z)).statistic)  # two pairs have no ranks


def test_ranks_within_points_are_not_those_of_depth():
    """Deep points have more of both, and at each point the order is the reverse."""
    values = np.zeros((4, 3, 3))
    accuracy = np.zeros((4, 3))
    for k in range(4):
        for point in range(3):
            values[k, point, point] = 10 * point + k
            accuracy[k, point] = 10 * point - k
    pairs = [{"front": i, "end": j, "task_loss": row.tolist()} for (i, j), row in zip(PAIRS, accuracy)]
    rank = rank_correlations({"cka": values}, PAIRS, POINTS, {"points": POINTS, "pairs": pairs})["cka"]["task_loss"]
    assert rank["rho"] > 0.7 and rank["rho_at_one_point"] == pytest.approx(-1) and rank["n"] == 12


def test_points_are_identified_by_the_most_similar_one():
    values = np.array([[[0.9, 0.1], [0.8, 0.2]], [[np.nan, 0.1], [0.1, 0.2]]])
    assert identified(values, larger_is_alike=True) == pytest.approx(100 * 2 / 3)
    assert identified(values, larger_is_alike=False) == pytest.approx(100 * 1 / 3)
    assert identified(np.full((1, 2, 2), np.nan), True) is None


def test_means_leave_out_what_is_not_defined():
    values = np.array([[[1.0, np.nan], [3.0, np.nan]], [[3.0, 5.0], [np.nan, np.nan]]])
    np.testing.assert_array_equal(mean_over_pairs(values), [[2, 5], [3, np.nan]])


def test_results_and_table_have_every_measure():
    values = {"cka": np.full((2, 2, 2), 0.5), "l2": np.full((2, 2, 2), np.nan)}
    groups = dict.fromkeys(("nets", "reordered_copy", "untrained_front"), values)
    results = comparison_facts(groups, [("a", "b"), ("b", "a")], ["x", "y"])
    assert results["measures"]["l2"]["mean"] == [[None] * 2] * 2
    assert results["pairs"][1] == {"front": "b", "end": "a", "cka": [0.5, 0.5], "l2": [None, None]}
    for ranks in ({}, {"cka": {"task_loss": {"rho": 0.25, "rho_at_one_point": None, "n": 12}}}):
        lines = similarity_table({**results, "rank_correlation": ranks}).splitlines()
        assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "0.25" in lines[2] and "n = 12" in lines[2]


def test_images_without_labels_of_several_classes_are_refused(images, net):
    one = images.train.labels == images.train.labels[0]
    train = Images(images.train.pixels[one], images.train.labels[one], images.train.mean, images.train.std, 0)
    views = NetViews(net, rows_of(net, 2), images.val)
    with pytest.raises(InputError, match="several classes"):
        measured(views, replace(images, train=train), [(0, 1)], ["probe_kl"], **SMALL)


# Bad input


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"measures": ()}, "--measures"),
        ({"num_images": 3}, "--num-images"),
        ({"num_images": 20, "image_batch": 2, "measures": ("cka_minibatch",)}, "4 or more"),
        ({"nets": ("seed5-000",)}, "two"),
        ({"nets": ("no/such.safetensors", "seed5-000")}, "no/such.safetensors"),
        ({"zoo": "zoo-nothing"}, "zoo-nothing"),
        ({"before_activation": True}, "--no-before-activation"),
        ({"architecture": "lenetlike"}, "lenetlike"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(changes, named, own_project):
    results = sorted((own_project / "runs/photos/stitching").glob("compare_nets*"))
    before = [path.read_bytes() for path in results]
    with pytest.raises(InputError, match=named) as error:
        compare_nets.main(miniature.compare_nets_config(own_project, **changes))
    assert str(error.value).isprintable()
    assert [path.read_bytes() for path in results] == before


def test_broken_stitches_are_refused_by_file_and_those_of_other_nets_are_left_out(own_project):
    path = own_project / "runs/photos/stitching/stitch_nets.json"
    good = path.read_text()
    config = miniature.compare_nets_config(own_project, measures=("cka",))
    assert compare_nets.main(config)["rank_correlation"]["cka"]["least_squares"]["n"] == 10
    for bad in ("[]", good.replace('"points"', '"dots"'), good[:100]):
        path.write_text(bad)
        with pytest.raises(InputError, match="stitch_nets.json.*python stitch_nets.py photos"):
            compare_nets.main(config)
    path.write_text(good.replace('"architecture": "resnet8"', '"architecture": "lenetlike"'))
    assert compare_nets.main(config)["rank_correlation"] == {}
    path.unlink()
    assert compare_nets.main(config)["rank_correlation"] == {}


def test_activations_may_be_those_before_the_activation_function(own_project):
    (own_project / "runs/photos/stitching/stitch_nets.json").unlink()
    after, before = (
        compare_nets.main(miniature.compare_nets_config(own_project, measures=("cka",), before_activation=each))
        for each in (False, True)
    )
    assert after["measures"]["cka"]["mean"][0][0] != before["measures"]["cka"]["mean"][0][0]
