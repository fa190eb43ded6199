"""The report of SANE: numbers on its charts are those of the results, of the zoo, and of latents computed by hand."""

import contextlib
import json
import math

import numpy as np
import pytest
import torch

import report
from data.zoos import load_splits
from evaluation.numbers import fine_tuned, probe_scores
from evaluation.report.charts import pca
from evaluation.report.page import training_curves
from evaluation.report.sane_panels import LOWEST, finetuning_chart, novelty_chart, property_charts, property_figure
from evaluation.report.zoo_panels import layer_charts, zoo_map
from evaluation.spaces import Space
from evaluation.zoo_spaces import LayersOverSteps, latents_of_layers, layer_names, spectral_norms
from models.rows import Layout
from models.tokens import Tokens
from tests import miniature
from tests.browsing import launched, opened
from tests.projects import changed_text, copy_project, patch_photos

NOVEL = {"distance": 0.25, "error_overlap": 0.75}
FINE_TUNED = {
    "methods": {
        "scratch": {"epochs": [0, 1], "accuracy_mean": [10.0, 50.0], "accuracy_std": [1.0, 2.0], "novelty": NOVEL},
        "kde_net": {
            "epochs": [0, 1],
            "accuracy_mean": [60.0, 65.0],
            "accuracy_std": [3.0, 4.0],
            "novelty": {"distance": 0.5, "error_overlap": 0.5},
        },
    },
    "novelty": {"training_nets": {"distance": 1.25, "error_overlap": 0.6}},
}


def scored(r2, low=None, high=None, n=160):
    return {"r2": r2, "r2_interval": None if low is None else [low, high], "kendall_tau": 0.5, "n": n}


SCORES = {
    "weight_statistics": scored(0.9, 0.85, 0.92),
    "sane_mean": scored(0.7, 0.5, 0.8),
    "sane_mean_trees": scored(-7.5, -9.0, 0.1),
    "logits": scored(None),
}


@pytest.fixture(scope="module")
def root(project_folder, tmp_path_factory):
    """Run the module's tests in a copy of the project in which only what belongs to the zoo was run, samples among it."""
    root = copy_project(project_folder, tmp_path_factory.mktemp("report of SANE") / "project")
    (root / "runs/photos/sane/sample_finetune.json").write_text(json.dumps(FINE_TUNED))
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root):
        patch_photos(patch)
        yield root


def config(root):
    folders = miniature.folders(root)
    return report.Config("photos", ("zoo", "sane"), num_preps=2, folders=folders)


def section(root, name="sane"):
    return report.section_of(config(root), name, root / "runs/photos" / name)


@pytest.fixture(scope="module")
def unseen(root):
    """Return the space, and validation and test nets."""
    splits = load_splits(root / "runs/photos/nets/zoo-resnet8", "resnet8")
    return Space.load(root / "runs/photos/sane"), {name: splits[name] for name in ("val", "test")}


# Properties


def points(figure):
    """Return the points of a chart of scores by name: value, distances of its interval's ends, symbol."""
    found = {}
    for trace in figure.data:
        for i, name in enumerate(trace.y):
            found[name] = trace.x[i], trace.error_x.arrayminus[i], trace.error_x.array[i], trace.marker.symbol[i]
    return found


def test_scores_are_points_with_their_intervals_and_the_first_is_on_top():
    figure = property_figure(SCORES)
    found = points(figure)
    assert found["weight statistics"] == (0.9, pytest.approx(0.05), pytest.approx(0.02), "circle")
    assert found["sane mean"] == (0.7, pytest.approx(0.2), pytest.approx(0.1), "diamond")
    assert found["logits"][0] is None
    assert list(figure.layout.yaxis.categoryarray) == [name.replace("_", " ") for name in SCORES]
    low, high = figure.layout.yaxis.range
    assert low > high  # downwards
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == 0.9


def test_a_score_far_below_is_an_arrow_at_the_edge_with_its_number():
    figure = property_figure(SCORES)
    left, right = figure.layout.xaxis.range
    value, minus, _, symbol = points(figure)["sane mean trees"]
    assert LOWEST < left < value < 0.1 and value - minus >= left and "triangle-left" in symbol and right > 1
    assert any("-7.5" in text for trace in figure.data for text in trace.text)


def test_properties_and_other_zoos_are_chosen_from():
    results = {"properties": {"test_accuracy": SCORES, "log_steps": SCORES}, "transfer": {"far": {"log_steps": SCORES}}}
    (chart,) = property_charts(results)
    assert list(chart.choices) == ["test accuracy", "log steps", "far: log steps"]
    assert property_charts({"properties": {}}) == []


# Fine-tuning


def test_accuracies_over_epochs_and_novelty_beside_the_first_accuracy_are_those_of_the_results():
    lines = {trace.name: trace for trace in finetuning_chart(FINE_TUNED).figure.data}
    assert lines["kde_net"].x == ("0", "1") and lines["kde_net"].y == (60.0, 65.0)
    assert lines["kde_net"].customdata == (3.0, 4.0)
    styles = {(line.line.color, line.marker.symbol, line.line.dash) for line in lines.values()}
    assert len(styles) == len(lines)
    chart = novelty_chart(FINE_TUNED)
    for measure, figure in chart.choices.items():
        key = measure.replace(" ", "_")
        for trace in figure.data:
            method = FINE_TUNED["methods"][trace.name]
            assert (trace.x, trace.y) == ((method["novelty"][key],), (method["accuracy_mean"][0],))
            low, high = figure.layout.xaxis.range
            assert low < trace.x[0] < high
        assert [line.x0 for line in figure.layout.shapes] == [FINE_TUNED["novelty"]["training_nets"][key]]


def test_many_methods_have_styles_of_their_own():
    methods = {f"{kind}_{i}": FINE_TUNED["methods"]["scratch"] for i in range(5) for kind in ("kde", "sub", "noise")}
    traces = finetuning_chart({"methods": methods}).figure.data
    assert len({(trace.line.color, trace.marker.symbol) for trace in traces[:14]}) == 14


def test_the_summary_has_the_scores_s_w_first_and_the_accuracies():
    numbers = probe_scores({"properties": {"test_accuracy": SCORES, "recall_0": SCORES}})
    assert list(numbers.values()) == [160, 0.9, 0.7]
    numbers = fine_tuned(FINE_TUNED)
    assert list(numbers.values()) == [10.0, 60.0, 50.0, 65.0, 0.25, 0.5, 1.25]


# Latents


def test_means_and_deviations_of_latents_are_those_of_each_layers_tokens(unseen):
    space, sets = unseen
    rows, model = sets["test"].rows, space.model
    means, deviations = latents_of_layers(model, rows)
    latents = model.encode(rows).detach().double().view(len(rows), model.num_tokens, -1).numpy()
    for layer in range(len(model.tokens.layers)):
        mine = latents[:, model.tokens.layer.numpy() == layer]
        np.testing.assert_allclose(means[:, layer], mine.mean(1), atol=1e-6)
        far = mine - mine.mean(1, keepdims=True)
        np.testing.assert_allclose(deviations[:, layer], np.sqrt((far**2).mean((1, 2))), atol=1e-6)


def test_spectral_norms_are_of_weights_without_biases():
    weight = torch.diag(torch.tensor([3.0, 2.0, 1.0])).view(3, 3, 1)
    layout = Layout(("a.weight", "a.bias", "b.weight"), ((3, 3, 1), (3,), (1, 4)))
    rows = torch.cat([weight.flatten(), torch.full((3,), 100.0), torch.ones(4)])[None]
    tokens = Tokens(layout, 2)
    torch.testing.assert_close(spectral_norms(tokens, rows), torch.tensor([[3.0, 2.0]], dtype=torch.float64))
    assert layer_names(tokens) == ["a", "b"]


def test_layers_are_averaged_at_every_step_and_many_steps_are_thinned():
    tokens = Tokens(Layout(("a.weight",), ((2, 2),)), 2)
    deviations, norms = torch.tensor([[1.0], [2.0], [3.0], [6.0]]), torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    found = LayersOverSteps.of(tokens, [5, 9, 5, 9], deviations, norms)
    assert found.steps == [5, 9] and found.correlations == [-1.0]
    np.testing.assert_allclose(found.deviations, [[2], [4]])
    np.testing.assert_allclose(found.norms, [[3], [2]])
    first, second = layer_charts(found)
    assert [trace.y for trace in first.figure.data] == [(2.0,), (4.0,)]
    assert [trace.y for trace in second.figure.data] == [(3.0,), (2.0,)]
    many = LayersOverSteps.of(tokens, range(1, 101), torch.ones(100, 1), torch.ones(100, 1))
    assert len(many.steps) == 8 and (many.steps[0], many.steps[-1]) == (1, 100) and many.correlations == [None]


def test_the_map_has_every_unseen_instance_at_its_place_in_the_colour_of_its_property(unseen):
    space, sets = unseen
    rows = torch.cat([each.rows for each in sets.values()])
    coordinates, fractions = pca(latents_of_layers(space.model, rows)[0].flatten(1))
    chart = zoo_map(sets, coordinates, fractions)
    facts = [each for nets in sets.values() for each in nets.facts]
    expected = [
        [each["test_accuracy"] for each in facts],
        [math.log1p(each["step"]) for each in facts],
        [each["generalization_gap"] for each in facts],
    ]
    for figure, values in zip(chart.choices.values(), expected, strict=True):
        shown = [trace for trace in figure.data if trace.text]
        assert np.concatenate([trace.marker.color for trace in shown]) == pytest.approx(values, abs=1e-4)
        at = np.concatenate([np.column_stack([trace.x, trace.y]) for trace in shown])
        np.testing.assert_allclose(at, coordinates, atol=1e-6)
        for text, each in zip((text for trace in shown for text in trace.text), facts, strict=True):
            assert each["net"] in text and f"step {each['step']}" in text and f"{each['test_accuracy']:.1f} %" in text
    joined = figure.data[0]
    assert sum(x is None for x in joined.x) == len({each["net"] for each in facts})
    assert len(joined.x) == len(facts) + len({each["net"] for each in facts})


# The page


def test_sane_and_the_zoos_net_space_have_every_panel(root):
    sane, zoo = section(root), section(root, "zoo")
    assert [len(group.charts) for group in sane.panels.groups] == [1, 2, 2] and not sane.missing
    assert len(sane.panels.map.choices) == 3 and sane.tables and sane.figures
    assert zoo.panels.map and len(zoo.panels.preps) == 2 and not zoo.missing and zoo.curves


def test_every_scalar_of_training_is_drawn(root):
    run_dir = root / "runs/photos/sane"
    lines = [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]
    drawn = [set(trace.y) for chart in training_curves(run_dir) for trace in chart.figure.data]
    for name in set().union(*lines) - {"step"}:
        assert {line[name] for line in lines if name in line} in drawn


@pytest.mark.parametrize(
    ("gone", "named", "groups"),
    [
        ("runs/photos/sane/best.pt", "train_sane.py photos", 2),
        ("runs/photos/nets/zoo-resnet8/zoo.json", "zoo-resnet8", 2),
        ("runs/photos/sane/predict_properties.json", "predict_properties.py photos", 2),
        ("runs/photos/sane/sample_finetune.json", "sample_finetune.py photos", 2),
    ],
)
def test_what_is_gone_is_named_and_the_rest_shown(root, gone, named, groups):
    with changed_text(root / gone, None):
        found = section(root)
    assert any(named in " ".join([what, *commands]) for what, commands in found.missing)
    assert len(found.panels.groups) == groups


def test_a_space_of_other_nets_is_named(root):
    path = root / "runs/photos/sane/best.pt"
    saved = torch.load(path, weights_only=True)
    good = path.read_bytes()
    try:
        torch.save({**saved, "constants": {**saved["constants"], "instances": "0" * 16}}, path)
        found = section(root)
    finally:
        path.write_bytes(good)
    assert found.panels.map is None and len(found.panels.groups) == 2
    assert any("best.pt" in what and "train_sane.py photos" in what for what, _ in found.missing)


@pytest.mark.slow
def test_the_page_draws_what_is_chosen(root):
    path = report.main(config(root))
    properties = json.loads((root / "runs/photos/sane/predict_properties.json").read_text())["properties"]
    with launched() as browser, opened(browser, path.resolve(), {"width": 1400, "height": 900}) as page:
        page.get_by_role("tab", name="SANE", exact=False).last.click()
        group = page.locator("#sane .group-charts").first
        chart, select = group.locator(".chart"), group.locator("select")
        for name in ("test_accuracy", "log_steps"):
            select.select_option(name.replace("_", " "))
            page.wait_for_function("chart => chart._fullData", arg=chart.element_handle())
            shown = chart.evaluate(
                "chart => Object.fromEntries(chart.data.flatMap(t => t.y.map((y, i) => [y, t.x[i]])))"
            )
            score = properties[name]["weight_statistics"]["r2"]
            assert score is None or score < -1 or shown["weight statistics"] == pytest.approx(score)
            assert set(shown) == {each.replace("_", " ") for each in properties[name]}
        chart = page.locator("#sane .map")
        page.locator("#sane .overview select").select_option(index=1)
        chart.focus()
        page.keyboard.press("ArrowRight")
        assert "step" in chart.locator(".hoverlayer .hovertext").first.text_content()
        for size in (1400, 390):
            page.set_viewport_size({"width": size, "height": 844})
            page.wait_for_function("size => document.documentElement.scrollWidth <= size", arg=size)
        assert page.evaluate("[...document.querySelectorAll('#sane .chart')].every(chart => chart._fullData.length)")
