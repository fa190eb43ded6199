"""The report: its page, opened and moved in a headless browser that may load nothing else, and the parts of it."""

import base64
import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import report
from data.nets import NetsDataset, read_list
from evaluation.report import panels, pictures
from evaluation.report.charts import Chart, Group, chart_figure, curve, pca
from evaluation.report.embedded import Embedded, embed_images
from evaluation.report.page import Figure, Panels, Section, Table, training_curves, write_report
from evaluation.report.panels import Slider, embedding_map, line_chart
from evaluation.report.pictures import PARAMETERS, Picture, Prep, picture, png
from evaluation.spaces import SingleConfig, load_experiment
from evaluation.summary import PAPER, numbers_of, read_parts
from models.instances import TargetNets
from models.prep import pack
from tests import miniature
from tests.browsing import launched, opened
from tests.projects import changed_text, copy_project, patch_photos
from tests.test_bad_input import refused

HOSTILE = "<img src=x onerror=alert(1)>'\"</script><b>%{x}&amp;{{7*7}}"
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}  # CSS pixels


@pytest.fixture(scope="module")
def root(project_folder, tmp_path_factory):
    """Run the module's tests in a copy of the project in which one architecture and shapes were run, no search and no zoo."""
    root = copy_project(project_folder, tmp_path_factory.mktemp("report") / "project")
    for name in ("multi", "missing", "zoo", "sane", "across", "weights", "both", "single/latspace"):
        shutil.rmtree(root / "runs/photos" / name)
    for path in root.glob("runs/photos/single/eval_latspace_single.*"):
        path.unlink()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root):
        patch_photos(patch)
        yield root


@pytest.fixture(scope="module")
def paths(root):
    """Return the reports of photos and of chairs."""
    return {name: report.main(config(root, name)) for name in ("photos", "chairs")}


def config(root, name, **changes):
    return replace(report.PRESETS[name], folders=miniature.folders(root), resolution=16, **changes)


def results(root, dataset, setting, name):
    return json.loads((root / "runs" / dataset / setting / f"{name}.json").read_text())


def listed(root, split):
    """Return the paths of the single setting's input list."""
    return [entry.path for entry in read_list(miniature.folders(root), "photos", "single", split)]


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    """Open pages, which stay open for the test."""
    with contextlib.ExitStack() as pages:
        yield lambda path, size=WIDE, scheme="light": pages.enter_context(opened(browser, path, size, scheme))


def move(section, step):
    """Move a section's slider, and wait until everything that it moves is drawn."""
    section.locator("input[type=range]").fill(str(step))
    wait_for_step(section, step)


def wait_for_step(section, step):
    section.page.wait_for_function(
        "([id, step]) => document.getElementById(id).querySelector('input[type=range]').dataset.shown === step",
        arg=[section.get_attribute("id"), str(step)],
    )


def cells(section):
    return section.locator(".readouts td").all_inner_texts()


def shown_image(section, which):
    source = section.locator(".line-preps img").nth(which).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB")).astype(int)


def shape_of(chart, key):
    """Return an entry of the first shape in a chart: the vertical line, or the ring."""
    return chart.evaluate("(chart, key) => chart._fullLayout.shapes[0][key]", key)


def label(chart):
    """Return the text of a chart's hover label."""
    return chart.locator(".hoverlayer .hovertext").first.text_content()


# The page


@pytest.mark.slow
def test_the_slider_shows_the_numbers_of_the_json_and_the_preps_at_gamma(open_page, paths, root):
    section = open_page(paths["photos"]).locator("#single")
    line = results(root, "photos", "single", "interpolate_single_arch")
    slider, images = section.locator("input[type=range]"), []
    for step in (0, 4, 10):
        move(section, step)
        assert f"{line['gamma'][step]:.2f}" in section.locator("output").inner_text()
        assert cells(section) == [f"{line[f'{kind}_accuracy'][step]:.1f} %" for kind in ("latent", "weight")]
        assert slider.get_attribute("aria-label") and cells(section)[0] in slider.get_attribute("aria-valuetext")
        assert (
            shape_of(section.locator(".line"), "x0") == shape_of(section.locator(".line"), "x1") == line["gamma"][step]
        )
        images.append([shown_image(section, which) for which in range(2)])
    for which in range(2):
        assert not np.array_equal(images[0][which], images[1][which])
    assert line["from"] in map(str, listed(root, "test")) and Path(line["from"]).stem in section.inner_text()


@pytest.mark.slow
def test_the_ring_on_the_map_is_at_the_ends_of_the_line(open_page, paths, root):
    section = open_page(paths["photos"]).locator("#single")
    line, chart = results(root, "photos", "single", "interpolate_single_arch"), section.locator(".map")
    test = [path.as_posix() for path in listed(root, "test")]
    for step, end in ((0, "from"), (10, "to")):
        move(section, step)
        x, y = chart.evaluate("(chart, i) => [chart.data[2].x[i], chart.data[2].y[i]]", test.index(line[end]))
        assert [shape_of(chart, "xanchor"), shape_of(chart, "yanchor")] == pytest.approx([x, y], abs=1e-5)


@pytest.mark.slow
def test_the_slider_is_moved_by_keys(open_page, paths):
    section = open_page(paths["photos"]).locator("#single")
    move(section, 3)
    section.locator("input[type=range]").focus()
    section.page.keyboard.press("ArrowRight")
    wait_for_step(section, 4)
    assert "0.40" in section.locator("output").inner_text()


@pytest.mark.slow
def test_the_slider_of_shapes_moves_meshes_and_measured_values(open_page, paths, root):
    section = open_page(paths["chairs"]).locator("#mlps")
    line = results(root, "chairs", "mlps", "interpolate_mlps")
    forms = {"volume": "{:.3f}", "pieces": "{}", "chamfer_to_start": "{:.4f}", "chamfer_to_end": "{:.4f}"}
    sizes = []
    for step in range(3):
        move(section, step)
        expected = []
        for name, form in forms.items():
            values = [line[column][name][step] for column in ("latent", "weights")]
            expected += ["none" if value is None else form.format(value) for value in values]
        assert cells(section) == expected
        sizes.append(section.page.evaluate("[...document.querySelectorAll('.view')].map(v => v._fullData[0].x.length)"))
        empty = [notice.is_visible() for notice in section.locator(".empty").all()]
        assert empty == [not size for size in sizes[-1]]
    assert sizes[0] != sizes[1]


@pytest.mark.slow
def test_the_map_names_the_instance_under_the_pointer_and_the_one_that_keys_reach(open_page, paths, root):
    page = open_page(paths["photos"])
    chart, points = page.locator("#single .map"), page.locator("#single .map .points path.point")
    lists = {split: listed(root, split) for split in ("train", "val", "test")}
    assert points.count() == sum(map(len, lists.values())) == 13
    chart.scroll_into_view_if_needed()
    box = points.nth(12).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 30, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    accuracy = results(root, "photos", "single", "eval_single")["target_accuracy"][-1]
    for part in (lists["test"][-1].stem, "test", "resnet8", f"{accuracy:.1f} %"):
        assert part in label(chart)
    page.mouse.move(0, 0)
    chart.locator(".hoverlayer .hovertext").first.wait_for(state="detached")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert lists["train"][0].stem in label(chart)


@pytest.mark.slow
def test_keys_read_a_curve(open_page, paths, root):
    page = open_page(paths["photos"])
    lines = [json.loads(line) for line in (root / "runs/photos/single/scalars.jsonl").read_text().splitlines()]
    chart = page.locator("#single .curves .chart").first
    chart.focus()
    page.keyboard.press("ArrowLeft")
    assert f"loss: {lines[-1]['loss']:.4g}" in label(chart) and f"step {lines[-1]['step']}" in label(chart)


@pytest.mark.parametrize(("name", "scheme"), [("photos", "light"), ("photos", "dark"), ("chairs", "dark")])
@pytest.mark.slow
def test_nothing_sticks_out_and_everything_has_a_text(open_page, paths, name, scheme):
    for size in (WIDE, NARROW):
        page = open_page(paths[name], size, scheme)
        page.wait_for_selector("section input[data-shown]")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert all(image.get_attribute("alt") for image in page.locator("img").all())
        assert page.locator(".chart").count() == page.locator(".chart[aria-label][tabindex]").count() > 3
        colors = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        colors.append(page.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill"))
        ink, paper, title = (sum(int(part) for part in color[4:-1].split(",")) for color in colors)
        assert (ink < paper) == (scheme == "light") and min(abs(ink - paper), abs(title - paper)) > 500
        texts = page.evaluate(
            "[...document.querySelectorAll('.chart')].map(chart => { const all = chart.getBoundingClientRect();"
            " return [...chart.querySelectorAll('text')].every(text => { const box = text.getBoundingClientRect();"
            " return box.left >= all.left - 1 && box.right <= all.right + 1 && box.top >= all.top - 1"
            " && box.bottom <= all.bottom + 1; }); })"
        )
        assert all(texts)


@pytest.mark.slow
def test_tabs_show_one_section_each_and_the_address_names_it(open_page, paths):
    page = open_page(paths["photos"])
    tabs = page.get_by_role("tab")
    names = [tab.get_attribute("aria-controls") for tab in tabs.all()]
    assert names == ["single", "stitching"]

    def shown():
        return [each.get_attribute("id") for each in page.get_by_role("tabpanel").all()]

    assert shown() == ["single"]
    tabs.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert shown() == ["stitching"] and page.url.endswith("#stitching")
    assert page.evaluate("document.activeElement.getAttribute('aria-controls')") == "stitching"
    chart, room = page.locator("#stitching .chart").first, page.locator("#stitching .group-charts > div").first
    assert chart.locator("svg").first.bounding_box()["width"] == pytest.approx(room.bounding_box()["width"], abs=2)
    page.reload()
    assert shown() == ["stitching"]
    tabs.nth(0).click()
    assert shown() == ["single"]


@pytest.mark.slow
def test_charts_follow_a_change_of_the_colour_scheme(open_page, paths):
    page = open_page(paths["photos"])
    fill = "getComputedStyle(document.querySelector('.chart .xtitle')).fill"
    light = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {fill} !== light", arg=light)


@pytest.mark.slow
def test_the_page_has_every_figure_the_numbers_and_what_is_missing(open_page, paths, root):
    page = open_page(paths["photos"])
    page.emulate_media(media="print")  # which has the sections of all tabs
    figures = [len(list((root / "runs/photos" / each).glob("*.png"))) for each in ("single", "stitching")]
    assert page.locator(".figures img").count() == sum(figures) and min(figures) >= 3
    numbers = page.locator(".numbers").all_inner_texts()
    run_dir = root / "runs/photos/single"
    for part, found in read_parts(run_dir).items():
        assert all(any(name in text for text in numbers) for name in numbers_of(part, found, run_dir))
    accuracies = results(root, "photos", "single", "eval_single")["target_accuracy"]
    assert any(f"{max(accuracies):.2f}" in text for text in numbers)
    text = page.locator("body").inner_text()
    for command in ("train_latspace_single.py photos", "train_multi_arch.py photos --setting missing"):
        assert f"python {command}" in text
    page.locator("details:has(.provenance) summary").first.click()
    versions = results(root, "photos", "single", "eval_single")["versions"]
    assert all(value in page.locator(".provenance").first.inner_text() for value in versions.values())


@pytest.mark.slow
def test_hostile_names_are_text(open_page, tmp_path):
    nets = TargetNets.sirens((3, 4, 1))
    rows = torch.randn(4, nets[0].num_parameters)
    name = HOSTILE.replace("/", "|")
    names = tuple(Path(f"{name}{i}") for i in range(4))
    instances = NetsDataset(nets, rows, (0,) * 4, ({},) * 4, names)
    embedded = Embedded(None, instances, ("train", "train", "test", "test"), rows, [])
    line = line_chart([curve(HOSTILE, [0, 1], [1, 2])], HOSTILE, [0.0, 1.0])
    two = ["data:,"] * 2
    slider = Slider(
        (0, 1), (HOSTILE, HOSTILE), [0.0, 1.0], line, [HOSTILE], {HOSTILE: [[HOSTILE, HOSTILE]]}, {HOSTILE: two}
    )
    prep = Prep(HOSTILE, HOSTILE, 1, 1, [Picture(HOSTILE, "data:,", 0, 1)])
    curves = [
        Chart(chart_figure([curve(HOSTILE, [0, 1], [1, 2]) for _ in range(2)], HOSTILE, HOSTILE), HOSTILE, HOSTILE)
    ]
    choice = Chart.of_choices(dict.fromkeys(("one", HOSTILE), curves[0].figure), HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    section = Section(
        "single",
        HOSTILE,
        HOSTILE,
        [Table(HOSTILE, [(HOSTILE, HOSTILE, HOSTILE)])],
        Panels(slider, embedding_map(embedded, slider), [prep], [Group(HOSTILE, HOSTILE, [choice])]),
        curves,
        [Figure(HOSTILE, "data:,", HOSTILE, 1, 1)],
        [(HOSTILE, [HOSTILE])],
        [{HOSTILE: HOSTILE}],
    )
    write_report(tmp_path / "report.html", HOSTILE, [section], [(HOSTILE, [HOSTILE])])
    page = open_page(tmp_path / "report.html")
    page.wait_for_selector("section input[data-shown]")
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    assert f"{name}0" in label(page.locator(".map"))
    assert page.locator("h2").first.inner_text() == HOSTILE and HOSTILE in page.title()
    assert page.locator("img").count() == 3  # of the figure, the line and the PRep
    chart = page.locator(".curves .chart")
    assert chart.locator(".legendtext").first.text_content() == HOSTILE
    assert chart.locator(".xtitle").text_content() == chart.locator(".ytitle").text_content() == HOSTILE
    assert cells(page.locator("#single")) == [HOSTILE]
    page.locator("select").select_option(HOSTILE)
    assert page.locator(".choice").inner_text().startswith(HOSTILE)


# The parts


def test_pca_is_that_of_the_covariance(root):
    embeddings = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8) + 5
    coordinates, fractions = pca(embeddings)
    x = embeddings.double().numpy()
    covariance = np.zeros((7, 7))
    for row in x:
        covariance += np.outer(row - x.mean(0), row - x.mean(0))
    values, axes = np.linalg.eigh(covariance)
    for i in range(2):
        by_hand = (x - x.mean(0)) @ axes[:, -1 - i]
        by_hand *= np.sign(by_hand[np.abs(by_hand).argmax()])
        np.testing.assert_allclose(coordinates[:, i], by_hand, atol=1e-9)
        assert fractions[i] == pytest.approx(values[-1 - i] / values.sum())


@pytest.mark.parametrize("number", [1, 2])
def test_pca_of_few(number):
    coordinates, fractions = pca(torch.arange(3.0 * number).view(number, 3))
    assert coordinates.shape == (number, 2) and np.isfinite(coordinates).all() and np.isfinite(fractions).all()
    assert np.abs(coordinates[:, 1]).max() < 1e-9


@pytest.mark.parametrize(("number", "room"), [(9, 9), (10, 12), (700, 1000)])
def test_a_prep_is_drawn_row_by_row_and_averaged_in_blocks(monkeypatch, number, room):
    monkeypatch.setattr(pictures, "SIDE", 16)
    row = np.random.default_rng(0).normal(size=number).astype(np.float32)
    side = int(np.ceil(np.sqrt(room)))
    block = int(np.ceil(side / 16))
    image = picture(row, room)
    assert max(image.shape) <= 16
    for y, x in np.ndindex(image.shape):
        inside = [
            row[i * side + j] if i * side + j < number else np.nan
            for i in range(y * block, min((y + 1) * block, int(np.ceil(room / side))))
            for j in range(x * block, min((x + 1) * block, side))
        ]
        np.testing.assert_allclose(image[y, x], np.mean(inside), rtol=1e-4, atol=1e-6)  # NaN where one is


def test_an_image_has_the_colours_of_its_values_and_holes():
    values = np.array([[-1.0, 0.0], [0.5, np.nan]], np.float32)
    source = png(values, 0.0, 1.0, PARAMETERS)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGBA")).astype(int)
    for pixel, fraction in (((0, 0), 0.0), ((0, 1), 0.0), ((1, 0), 0.5)):
        assert (
            np.abs(pixels[pixel][:3] - 255 * np.array(PARAMETERS(fraction)[:3])).max() <= 3 and pixels[pixel][3] == 255
        )
    assert pixels[1, 1, 3] == 0


def test_the_slider_draws_what_net_space_decodes(root, monkeypatch):
    """Compare the middle of the line with rows decoded by hand."""
    drawn = {}
    monkeypatch.setattr(panels, "line_pictures", lambda lines, size: drawn.update(lines) or {})
    embedded = embed_images(SingleConfig("photos", folders=miniature.folders(root)))
    line = results(root, "photos", "single", "interpolate_single_arch")
    panels.image_slider(embedded, line, "")
    _, space, test = load_experiment(SingleConfig("photos", folders=miniature.folders(root)))
    rows = test.rows[[test.index_of(line[end]) for end in ("from", "to")]]
    with torch.no_grad():
        embeddings = space.model.encoder(pack(rows, (8, 640)))
        by_hand = space.model.decoder((0.5 * embeddings[0] + 0.5 * embeddings[1])[None]).flatten()[:5058]
    decoded, averaged = drawn.values()
    np.testing.assert_allclose(decoded[5], by_hand, atol=1e-4)
    np.testing.assert_allclose(averaged[5], rows.mean(0), atol=1e-6)


def test_curves_have_every_finite_scalar(tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0, "closeness": 0.5}]
    (tmp_path / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss, closeness = training_curves(tmp_path)
    assert loss.figure.data[0].x == (1, 2, 3) and loss.figure.data[0].y == (2.0, None, 1.0)
    assert closeness.figure.data[0].y == (0.5,)


def test_every_scalar_of_a_run_is_drawn(root):
    for run_dir in (root / "runs/photos/single", root / "runs/chairs/mlps"):
        lines = [json.loads(line) for line in (run_dir / "scalars.jsonl").read_text().splitlines()]
        values = [set(trace.y) for chart in training_curves(run_dir) for trace in chart.figure.data]
        for name in set().union(*lines) - {"step"}:
            assert {line[name] for line in lines if name in line} in values


def test_the_papers_numbers_stand_beside_numbers_that_exist(root):
    runs = root / "runs"
    known = {}
    for run_dir in (runs / "photos/single", runs / "chairs/mlps"):
        parts = read_parts(run_dir)
        known[run_dir.name] = {name for part in parts for name in numbers_of(part, parts[part], run_dir)}
    assert set(PAPER["cifar10", "single"]) <= known["single"] and set(PAPER["deepsdf", "mlps"]) <= known["mlps"]


# What is wrong or not there


def test_without_any_results_it_names_the_first_commands(tmp_path):
    refused("report", cwd=tmp_path, match="python create_nets_dataset_single.py photos")
    refused("report", "chairs", cwd=tmp_path, match="python create_mlp_dataset.py chairs")
    refused("report", "cifar10", "--dataset", "mine", cwd=tmp_path, match="single.py cifar10 --dataset mine")


def test_broken_results_are_refused_by_name(root):
    flags = ("--lists-dir", "lists", "--runs-dir", "runs", "--data-dir", "data")
    single = root / "runs/photos/single"
    with changed_text(single / "eval_single.json", "{"):
        refused("report", *flags, cwd=root, match=("eval_single.json", "python eval_single.py photos"))
    with changed_text(single / "eval_single.json", '{"target_accuracy": [1]}'):
        refused("report", *flags, cwd=root, match=("eval_single.json", "predicted_accuracy"))
    line = results(root, "photos", "single", "interpolate_single_arch")
    with changed_text(single / "interpolate_single_arch.json", json.dumps({**line, "from": "elsewhere/a.pt"})):
        assert "elsewhere/a.pt" in report.main(config(root, "photos")).read_text()
    del line["from"]
    with changed_text(single / "interpolate_single_arch.json", json.dumps(line)):
        refused("report", *flags, cwd=root, match=("interpolate_single_arch.json", "from"))
    with changed_text(single / "eval_single.png", "no image"):
        refused("report", *flags, cwd=root, match="eval_single.png")
    with changed_text(single / "scalars.jsonl", "{}\n"):
        refused("report", *flags, cwd=root, match="scalars.jsonl")


@pytest.mark.parametrize(
    ("gone", "named", "still"),
    [
        ("runs/photos/single/best.pt", "best.pt", "curves"),
        ("lists/photos/single/val.txt", "val.txt", "figures"),
        ("runs/photos/single/interpolate_single_arch.json", "interpolate_single_arch.py", "map"),
    ],
)
def test_what_is_gone_is_named_and_the_rest_shown(root, gone, named, still, capsys):
    with changed_text(root / gone, None):
        section = report.section_of(config(root, "photos"), "single", root / "runs/photos/single")
        report.main(config(root, "photos"))
    assert any(named in " ".join([what, *commands]) for what, commands in section.missing)
    assert section.panels.map if still == "map" else getattr(section, still)
    line = next(line for line in capsys.readouterr().out.splitlines() if named in line)
    assert "python " in line


def test_shapes_have_every_panel(root):
    section = report.section_of(config(root, "chairs"), "mlps", root / "runs/chairs/mlps")
    assert section.panels.slider.meshes and section.panels.map and section.panels.preps and not section.missing
