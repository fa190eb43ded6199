"""The report of stitching: numbers on its charts are those of the results; what is not there is named."""

import pytest

import report
from evaluation.comparison import ALL_MEASURES
from evaluation.numbers import inside, similarities
from evaluation.report.stitch_panels import (
    INSIDE,
    inside_charts,
    matrix_charts,
    point_charts,
    rank_charts,
    stitched_chart,
    stitching_groups,
    style_of,
)
from tests import miniature
from tests.test_results import AT_POINTS, KIND, MATRIX

POINTS = ["stem", "<pool>"]
MEASURE = {"mean": MATRIX, "reordered_copy": [[1.0, 0.0], [0.0, 1.0]], "untrained_front": MATRIX, "identified": 50.0}
COMPARED = {
    "points": POINTS,
    "measures": {"cka": MEASURE, "procrustes": MEASURE, "of another version": MEASURE},
    "pairs": [{"front": "a", "end": "b"}],
    "rank_correlation": {
        "cka": {"least_squares": {"rho": 0.5, "rho_at_one_point": None, "n": 40}},
        "procrustes": {"least_squares": {"rho": None, "rho_at_one_point": None, "n": 4}},
    },
    "num_images": 1000,
}
INSIDE_RESULTS = {"points": POINTS, "kinds": {"reordered_copy": KIND, "target_predicted": KIND}}
SUMMARY = {"relative_accuracy": [0.5, None], "interval": [[0.4, 0.75], None], "n": [8, 0]}
STITCHED = {"points": POINTS, "summary": {"task_loss": SUMMARY, "least_squares": SUMMARY}}


def test_stitched_accuracies_are_curves_with_their_intervals():
    first, second = stitched_chart(STITCHED).figure.data
    assert first.name == "task loss" and first.y == (0.5, None) and first.x == ("stem", "&lt;pool&gt;")
    assert first.error_y.array[0] == pytest.approx(0.25) and first.error_y.arrayminus[0] == pytest.approx(0.1)
    assert first.customdata == (8, 0) and second.line.color != first.line.color


def test_matrices_have_the_front_in_rows_and_the_first_point_on_top():
    (chart,) = matrix_charts(COMPARED)
    assert list(chart.choices) == ["CKA, biased", "Procrustes distance", "of another version"]
    for title, figure in chart.choices.items():
        (heat,) = figure.data
        assert [list(row) for row in heat.z] == MATRIX
        assert bool(heat.reversescale) == (title == ALL_MEASURES["procrustes"].title)
        assert figure.layout.yaxis.autorange == "reversed" and "front" in figure.layout.yaxis.title.text


def test_corresponding_points_are_the_diagonal_beside_the_controls():
    (chart,) = point_charts(COMPARED)
    pairs, copy, untrained = chart.figure.data
    assert pairs.y == untrained.y == (1.0, 0.25) and copy.y == (1.0, 1.0)


def test_ranks_are_points_and_left_out_if_nothing_was_stitched():
    (chart,) = rank_charts(COMPARED)
    first, second = chart.figure.data
    assert first.x == (0.5, None) and first.customdata == (40, 4) and not second.x
    assert rank_charts({**COMPARED, "rank_correlation": {}}) == []


def test_kinds_are_curves_of_a_chosen_measure():
    (chart,) = inside_charts(INSIDE_RESULTS)
    assert list(chart.choices) == list(INSIDE.values())
    for figure in chart.choices.values():
        assert [trace.name for trace in figure.data] == ["reordered copy (50 % agree)", "target predicted (50 % agree)"]
        assert all(list(trace.y) == AT_POINTS["mean"] for trace in figure.data)
        assert all(trace.error_y.array[0] == 0.25 for trace in figure.data)
    assert inside_charts({"points": POINTS, "kinds": {}}) == []


def test_many_kinds_have_styles_of_their_own():
    styles = [style_of(place) for place in range(42)]
    assert len({(s["line"]["color"], s["marker"]["symbol"], s["line"]["dash"]) for s in styles}) == 42


def test_groups_are_of_the_results_that_are_there():
    made = {"compare_nets.json": COMPARED, "inside_similarity.json": INSIDE_RESULTS, "stitch_nets.json": STITCHED}
    assert [len(group.charts) for group in stitching_groups(made)] == [1, 3, 1]
    assert stitching_groups({}) == [] == stitching_groups({"eval_single.json": {}})


def test_the_summary_has_means_at_the_same_point():
    numbers = similarities(COMPARED)
    assert numbers["cka at the same point, mean"] == 0.625 and numbers["Spearman of cka with least squares"] == 0.5
    numbers = inside(INSIDE_RESULTS)
    assert numbers["reordered copy: agreement (%)"] == 50 and numbers["reordered copy: cka unbiased, mean"] == 0.5


def test_the_page_has_a_section_of_stitching_and_names_what_is_missing(project):
    folder = project / "runs/photos/stitching"
    config = report.Config("photos", ("stitching",), folders=miniature.folders(project))
    section = report.section_of(config, "stitching", folder)
    assert section.tables and section.figures and not section.panels.slider
    titles = [group.title for group in section.panels.groups]
    assert {"Similarity of stitch points", "Behave alike, alike inside?"} <= set(titles)
    assert all("best.pt" not in what for what, _ in section.missing)
    assert report.was_run(folder)
