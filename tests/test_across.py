"""Results of compare_systems.py over seeds: intervals, tables, figures, and what the report draws."""

import math

import numpy as np
import pytest
from scipy.special import betainc

import report
from evaluation.across import interval, over_seeds
from evaluation.across_figures import plot_cells, plot_sizes, plot_symmetry
from evaluation.across_tables import COLUMNS, across_table, cells_table, explanation, text_of, title_of
from evaluation.numbers import across, mean_of
from evaluation.plots import save_figure
from evaluation.report.across_panels import across_groups, cell_charts, copy_charts, line_charts, size_charts
from tests import miniature
from tests.test_results import ACROSS, CELL

EMPTY = {**ACROSS, "cells": [], "ablations": [], "sizes": [], "symmetry": [], "baselines": [], "gamma": [], "lines": {}}


def probability_outside(t, freedom):
    """Return how likely Student's t is farther from 0 than t, by the incomplete beta function."""
    return betainc(freedom / 2, 0.5, freedom / (freedom + t * t))


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [5.0, 5.5], [0.0, -1.0, 4.0, 2.0]])
def test_intervals_are_students(values):
    low, high = interval(values)
    mean = sum(values) / len(values)
    assert (low + high) / 2 == pytest.approx(mean)
    error = math.sqrt(sum((each - mean) ** 2 for each in values) / (len(values) - 1) / len(values))
    assert probability_outside((high - mean) / error, len(values) - 1) == pytest.approx(0.05)


def test_one_seed_has_no_interval_and_what_is_not_defined_is_left_out():
    assert interval([3.0]) is None and interval([None, 3.0]) is None and interval([]) is None
    assert interval([None, 1.0, 3.0]) == interval([1.0, 3.0])
    assert mean_of([None, 1.0, 3.0]) == 2 and mean_of([None]) is None


def test_over_seeds_has_a_list_for_every_number_and_an_interval_for_numbers():
    found = over_seeds(
        [
            {"agreement": 50.0, "property_r2": {"log_steps": 0.5}, "points": [0.1, None], "only": 1.0},
            {"agreement": 60.0, "property_r2": {"log_steps": None}, "points": [0.2, 0.3]},
        ]
    )
    assert found["agreement"] == [50.0, 60.0] and found["r2_log_steps"] == [0.5, None]
    assert found["points"] == [[0.1, None], [0.2, 0.3]] and "only" not in found
    assert set(found["interval"]) == {"agreement", "r2_log_steps"} and found["interval"]["r2_log_steps"] is None


# Tables


def test_a_table_has_a_line_for_each_cell_ablation_and_baseline():
    lines = cells_table(ACROSS).splitlines()
    assert len(lines) == 2 + 1 + 1 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert title_of(CELL) == "prep, both, aligned" and title_of(ACROSS["ablations"][0]).endswith("wider")
    assert "strongest (baseline)" in lines[-1] and "50.0" not in lines[-1].split("|")[1]


def test_a_number_has_half_of_its_interval_and_a_dash_stands_for_nothing():
    row = {"a": [1.0, 3.0], "interval": {"a": [-4.0, 8.0]}, "emb_size": [1024, 1024]}
    assert text_of(row, "a", 1) == "2.0 ± 6.0" and text_of(row, "b", 1) == "–"
    assert text_of(row, "emb_size", 0) == "1,024"
    assert text_of({"a": [None]}, "a", 1) == "–" and text_of({"a": [2.0]}, "a", 1) == "2.0"


def test_the_explanation_has_the_numbers_of_its_cells_and_the_best_of_the_others():
    def cell(name, agreement, about="", numbers=996, weight_r2=0.1):
        encoder, objective, *_ = name.split("-")
        facts = dict(name=name, encoder=encoder, objective=objective, aligned=False, about=about, interval={})
        return {**facts, "agreement": [agreement], "weight_r2": [weight_r2], "emb_size": [numbers]}

    heads = [
        cell(f"{name}-behaviour-{end}", value, "affine head")
        for name, end, value in (
            ("tokens", "head-zero", 57.1),
            ("tokens", "head-instance", 60.2),
            ("prep", "head-zero", 58.3),
            ("prep", "head-paper", 35.4),
            ("prep", "no-head", 52.5),
        )
    ]
    others = [cell("tokens-behaviour-logits", 10.1, "logits"), cell("tokens-behaviour-whole", 33.3, "one window")]
    wide = cell("tokens-behaviour-wide", 89.9, "36 numbers a token", 5976, 0.97)
    table = [cell("tokens-behaviour", 16.6), cell("prep-behaviour", 65.7, weight_r2=0.2)]
    found = explanation({**EMPTY, "cells": table, "ablations": [*heads, *others, wide]})
    assert all(f"{each['agreement'][0]} %" in found[0] for each in (*table, *heads))
    assert "2 other" in found[1] and "one window" in found[1] and "33.3 %" in found[1]
    assert "5,976" in found[2] and "89.9 %" in found[2] and "0.97" in found[2] and "0.20 (prep, behaviour)" in found[2]
    assert explanation({**EMPTY, "cells": table, "ablations": []}) == explanation(EMPTY) == []


def test_only_what_there_is_has_a_table():
    assert across_table(EMPTY).count("|") == 0
    assert across_table({**EMPTY, "sizes": ACROSS["sizes"]}).count("training nets") == 2
    assert len(across_table(ACROSS).split("\n\n")) == 4


# Figures


def test_figures_are_drawn_of_what_there_is(tmp_path):
    for results in (ACROSS, {**ACROSS, "ablations": []}, {**ACROSS, "cells": []}):
        figure = plot_cells(results["cells"], results["ablations"], "title")
        labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert labels == [title_of(row) for row in (*results["cells"], *results["ablations"])]
        assert all(path.stat().st_size for path in save_figure(figure, tmp_path / "cells"))
    assert save_figure(plot_sizes(ACROSS["sizes"], "title"), tmp_path / "sizes")
    figure = plot_symmetry(ACROSS["symmetry"], ACROSS["gamma"], ACROSS["lines"], "title")
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), [10, 25])
    assert save_figure(figure, tmp_path / "symmetry")


def test_a_measure_that_is_nowhere_defined_is_not_drawn():
    row = {**CELL, "accuracy_error": [None, None], "weight_r2": [-100.0, -2000.0]}
    axes = plot_cells([row], [], "title").axes
    assert not axes[1].lines and min(axes[2].lines[-1].get_xdata()) == -2.5


# The report


def test_charts_have_the_means_and_intervals_of_the_results():
    (cells,) = cell_charts([*ACROSS["cells"], *ACROSS["ablations"]])
    assert [COLUMNS[name][0] for name in COLUMNS if name in CELL] == list(cells.choices)
    for figure in cells.choices.values():
        prep, tokens = figure.data
        assert prep.x == tokens.x == (50.0,) and prep.marker.symbol == ("diamond-open",)
        assert tokens.marker.symbol == ("circle",)
    errors = cells.choices[COLUMNS["accuracy_error"][0]].data[0].error_x.array
    assert errors == (10.0,)
    (sizes,) = size_charts(ACROSS["sizes"])
    assert sizes.figure.data[0].x == (12,) and not sizes.figure.data[1].x
    (copies,) = copy_charts(ACROSS["symmetry"])
    assert copies.figure.data[0].y == ("prep-both",) and len(copies.choices) == 3
    (lines,) = line_charts(ACROSS["gamma"], ACROSS["lines"])
    assert [trace.y for trace in lines.figure.data] == [(10.0, 25.0)] * 2


def test_groups_are_of_what_there_is():
    assert [len(group.charts) for group in across_groups({"compare_systems.json": ACROSS})] == [1, 1, 2]
    assert across_groups({"compare_systems.json": EMPTY}) == [] == across_groups({"eval_single.json": {}})


def test_the_summary_has_every_cell():
    numbers = across(ACROSS)
    assert numbers["prep-both: same class as the target (%)"] == 50 and numbers["seeds"] == 2
    assert len(numbers) == 1 + 2 * len(ACROSS["cells"])


def test_the_page_has_a_section_across_and_names_what_is_missing(project):
    folder = project / "runs/photos/across"
    config = report.Config("photos", ("across",), folders=miniature.folders(project))
    section = report.section_of(config, "across", folder)
    assert section.tables and len(section.figures) == 3 and not section.panels.slider
    assert len(section.panels.groups) == 3 and not section.missing
    assert report.was_run(folder)
