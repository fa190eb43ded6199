"""The report: its page, opened and moved in a headless browser that may ask for nothing but the page, and what it is made of."""

import base64
import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import report
from data.nets import read_list
from evaluation import prep_images
from evaluation.embedding_map import pca
from evaluation.prep_images import PARAMETERS, picture, png
from evaluation.report_page import training_curves, write_report
from evaluation.sliders import curve
from evaluation.summary import PAPER, numbers_of, read_parts
from models.prep import pack
from tests import miniature
from tests.browsing import launched, opened
from tests.test_bad_input import changed, refused
from training.checkpoints import restore_net_space

HOSTILE = "<img src=x onerror=alert(1)>'\"</script>&amp;{{7*7}}"
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}  # CSS pixels


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    miniature.run_all(root)
    miniature.run_all_mlps(root)
    return root


@pytest.fixture(scope="module")
def paths(root):
    """The reports of photos and of chairs."""
    return {name: report.main(config(root, name)) for name in ("photos", "chairs")}


def config(root, name, **changes):
    return replace(report.PRESETS[name], folders=miniature.folders(root), resolution=16, **changes)


def results(root, dataset, setting, name):
    return json.loads((root / "runs" / dataset / setting / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    """Opens pages, which stay open for the test."""
    with contextlib.ExitStack() as pages:
        yield lambda path, size=WIDE, scheme="light": pages.enter_context(opened(browser, path, size, scheme))


def move(section, step):
    """Moves a section's slider, and waits until everything that it moves is drawn."""
    section.locator("input[type=range]").fill(str(step))
    section.page.wait_for_function(
        "([id, step]) => document.getElementById(id).querySelector('input[type=range]').dataset.shown === step",
        arg=[section.get_attribute("id"), str(step)],
    )


def cells(section):
    return section.locator(".readouts td").all_inner_texts()


def shown_image(section, which):
    source = section.locator(".line-preps img").nth(which).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB")).astype(int)


# The page


def test_the_slider_shows_the_numbers_of_the_json_and_the_preps_at_gamma(open_page, paths, root):
    section = open_page(paths["photos"]).locator("#single")
    line = results(root, "photos", "single", "interpolate_single_arch")
    images = []
    for step in (0, 4, 10):
        move(section, step)
        assert section.locator("output").inner_text() == f"γ = {line['gamma'][step]:.2f}"
        assert cells(section) == [f"{line[f'{kind}_accuracy'][step]:.1f} %" for kind in ("latent", "weight")]
        slider = section.locator("input[type=range]")
        assert slider.get_attribute("aria-label") and cells(section)[0] in slider.get_attribute("aria-valuetext")
        images.append([shown_image(section, which) for which in range(2)])
    for which in range(2):
        assert not np.array_equal(images[0][which], images[1][which])
    # The ends of the weight line are the two instances; they are drawn on the range of both whole lines.
    nets = miniature.folders(root)
    names = [entry.path.as_posix() for entry in read_list(nets.input_list("photos", "single", "test"), "")]
    assert line["from"] in names and line["from"].split("/")[-1].removesuffix(".safetensors") in section.inner_text()


def test_the_slider_is_moved_by_keys(open_page, paths):
    section = open_page(paths["photos"]).locator("#single")
    move(section, 3)
    section.locator("input[type=range]").focus()
    section.page.keyboard.press("ArrowRight")
    section.page.wait_for_function("document.querySelector('#single input[type=range]').dataset.shown === '4'")
    assert section.locator("output").inner_text() == "γ = 0.40"


def test_the_slider_of_shapes_moves_meshes_and_measured_values(open_page, paths, root):
    section = open_page(paths["chairs"]).locator("#mlps")
    line = results(root, "chairs", "mlps", "interpolate_mlps")
    sizes = []
    for step in range(3):
        move(section, step)
        expected = []
        for name, form in (
            ("volume", "{:.3f}"),
            ("pieces", "{}"),
            ("chamfer_to_start", "{:.4f}"),
            ("chamfer_to_end", "{:.4f}"),
        ):
            values = [line[space][name][step] for space in ("latent", "weights")]
            expected += ["none" if value is None else form.format(value) for value in values]
        assert cells(section) == expected
        sizes.append(section.page.evaluate("[...document.querySelectorAll('.view')].map(v => v._fullData[0].x.length)"))
        empty = [notice.is_visible() for notice in section.locator(".empty").all()]
        assert empty == [not size for size in sizes[-1]]
    assert sizes[0] != sizes[1]


def test_the_map_names_the_instance_under_the_pointer_and_the_one_that_keys_reach(open_page, paths, root):
    page = open_page(paths["photos"])
    chart, tip = page.locator("#single .map > svg"), page.locator("#single .map .tip")
    entries = {
        split: read_list(miniature.folders(root).input_list("photos", "single", split), "")
        for split in ("train", "val", "test")
    }
    marks = page.locator("#single .map > svg > circle")
    assert marks.count() == sum(map(len, entries.values())) == 13
    chart.scroll_into_view_if_needed()
    box = marks.nth(12).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    accuracy = results(root, "photos", "single", "eval_single")["target_accuracy"][-1]
    assert tip.inner_text().splitlines()[0] == entries["test"][-1].path.stem
    assert "test · resnet8" in tip.inner_text() and f"{accuracy:.1f} %" in tip.inner_text()
    told = tip.bounding_box()
    beside = [
        told["y"] + told["height"] - box["y"],
        box["y"] + box["height"] - told["y"],
    ]  # pixels it reaches past the mark
    assert min(abs(each) for each in beside) < 25
    assert told["x"] - 1 <= box["x"] + box["width"] / 2 <= told["x"] + told["width"] + 1
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().splitlines()[0] == entries["train"][0].path.stem


def test_pointing_at_a_curve_reads_it(open_page, paths, root):
    page = open_page(paths["photos"])
    lines = [json.loads(line) for line in (root / "runs/photos/single/scalars.jsonl").read_text().splitlines()]
    chart = page.locator("#single .curves .chart").first
    chart.locator("> svg").focus()
    page.keyboard.press("ArrowLeft")
    name, value = chart.locator(".tip").inner_text().splitlines()[0].split(": ")
    assert name == "loss" and float(value) == pytest.approx(lines[-1]["loss"], rel=1e-3)


@pytest.mark.parametrize(("name", "scheme"), [("photos", "light"), ("photos", "dark"), ("chairs", "dark")])
def test_nothing_sticks_out_and_everything_has_a_text(open_page, paths, name, scheme):
    for size in (WIDE, NARROW):
        page = open_page(paths[name], size, scheme)
        page.wait_for_selector("section input[data-shown]")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert all(image.get_attribute("alt") for image in page.locator("img").all())
        assert page.locator(".chart > svg").count() == page.locator(".chart > svg[aria-label]").count() > 3
        colors = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        ink, paper = (sum(int(part) for part in color[4:-1].split(",")) for color in colors)
        assert (ink < paper) == (scheme == "light") and abs(ink - paper) > 500
        texts = page.evaluate(
            "[...document.querySelectorAll('.chart > svg')].map(svg => { const all = svg.getBoundingClientRect();"
            " return [...svg.querySelectorAll('text')].every(text => { const box = text.getBoundingClientRect();"
            " return box.left >= all.left - 1 && box.right <= all.right + 1 && box.top >= all.top - 1 && box.bottom <= all.bottom + 1; }); })"
        )
        assert all(texts)


def test_only_shapes_bring_plotly_along(paths):
    assert paths["photos"].stat().st_size < 2e6 < 4.8e6 < paths["chairs"].stat().st_size


def test_the_page_has_every_figure_the_numbers_and_what_is_missing(open_page, paths, root):
    page = open_page(paths["photos"])
    assert page.locator(".figures img").count() == len(list((root / "runs/photos/single").glob("*.png"))) == 3
    rows = dict(
        row.split("\t–\t")
        for row in page.locator(".numbers tbody").all_inner_texts()
        for row in row.splitlines()
        if "–\t" in row
    )
    accuracies = results(root, "photos", "single", "eval_single")["target_accuracy"]
    assert rows["highest target accuracy (%)"] == f"{max(accuracies):.2f}"
    said = page.locator("body").inner_text()
    for command in ("train_latspace_single.py photos", "train_multi_arch.py photos --setting missing"):
        assert f"python {command}" in said
    page.locator("summary").click()
    versions = results(root, "photos", "single", "eval_single")["versions"]
    assert all(value in page.locator(".provenance").inner_text() for value in versions.values())


def test_hostile_names_are_text(open_page, tmp_path):
    axis = {"label": HOSTILE}
    section = {
        "name": "single",
        "title": HOSTILE,
        "about": HOSTILE,
        "tables": [{"title": HOSTILE, "rows": [(HOSTILE, "–", "1")]}],
        "slider": None,
        "map": {
            "x": axis,
            "y": axis,
            "points": [
                {"x": i, "y": i, "color": "red", "mark": "circle", "split": "test", "label": HOSTILE} for i in range(2)
            ],
            "legend": [{"name": HOSTILE, "color": "red", "mark": "circle"}],
            "ends": [],
            "scale": None,
        },
        "preps": [],
        "curves": [{"title": HOSTILE, "x": axis, "y": axis, "series": [curve(HOSTILE, [0, 1], [1, 2], "red")]}],
        "figures": [{"name": HOSTILE, "alt": HOSTILE, "source": "data:,", "width": 1, "height": 1}],
        "missing": [(HOSTILE, [HOSTILE])],
        "provenance": [{"file": HOSTILE}],
    }
    write_report(tmp_path / "report.html", HOSTILE, [section], [(HOSTILE, [HOSTILE])])
    page = open_page(tmp_path / "report.html")
    page.locator(".map > svg").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".map .tip").inner_text() == HOSTILE
    assert page.locator("h2").first.inner_text() == HOSTILE and HOSTILE in page.title()
    assert page.locator("img").count() == 1  # the figure's own
    assert page.locator(".legend li").first.inner_text() == HOSTILE


# What it is made of


def test_pca_is_that_of_the_covariance(root):
    embeddings = torch.randn(30, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8) + 5
    places, shares = pca(embeddings)
    x = embeddings.double().numpy()
    covariance = np.zeros((7, 7))
    for row in x:
        covariance += np.outer(row - x.mean(0), row - x.mean(0))
    values, axes = np.linalg.eigh(covariance)
    for i in range(2):
        by_hand = (x - x.mean(0)) @ axes[:, -1 - i]
        by_hand *= np.sign(by_hand[np.abs(by_hand).argmax()])
        np.testing.assert_allclose(places[:, i], by_hand, atol=1e-9)
        assert shares[i] == pytest.approx(values[-1 - i] / values.sum())


@pytest.mark.parametrize("number", [1, 2])
def test_pca_of_few(number):
    places, shares = pca(torch.arange(3.0 * number).view(number, 3))
    assert places.shape == (number, 2) and np.isfinite(places).all() and np.isfinite(shares).all()
    assert np.abs(places[:, 1]).max() < 1e-9


@pytest.mark.parametrize(("number", "room"), [(9, 9), (10, 12), (700, 1000)])
def test_a_prep_is_drawn_row_by_row_and_averaged_in_blocks(monkeypatch, number, room):
    monkeypatch.setattr(prep_images, "SIDE", 16)
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
    for place, share in (((0, 0), 0.0), ((0, 1), 0.0), ((1, 0), 0.5)):
        assert np.abs(pixels[place][:3] - 255 * np.array(PARAMETERS(share)[:3])).max() <= 3 and pixels[place][3] == 255
    assert pixels[1, 1, 3] == 0


def test_the_slider_draws_what_net_space_decodes(root, monkeypatch):
    """Half way, against decoding by hand."""
    drawn = {}
    monkeypatch.setattr("evaluation.sliders.line_pictures", lambda lines, size: drawn.update(lines) or [])
    report.main(config(root, "photos"))
    line = results(root, "photos", "single", "interpolate_single_arch")
    net_space = restore_net_space(root / "runs/photos/single/best.pt", "", torch.device("cpu"))
    experiment = report.embed_single(report.EvaluationConfig("photos", folders=miniature.folders(root)))
    rows = experiment.preps.flatten(1)[[experiment.place(line[end], "") for end in ("from", "to")], :5058]
    with torch.no_grad():
        embeddings = net_space.encoder(pack(rows, (8, 640)))
        by_hand = net_space.decoder((0.5 * embeddings[0] + 0.5 * embeddings[1])[None]).flatten()[:5058]
    decoded, averaged = drawn.values()
    np.testing.assert_allclose(decoded[5], by_hand, atol=1e-4)
    np.testing.assert_allclose(averaged[5], rows.mean(0), atol=1e-6)


def test_curves_hold_every_finite_scalar(tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 1.0, "closeness": 0.5}]
    (tmp_path / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loss, closeness = training_curves(tmp_path)
    assert loss["series"][0]["x"] == [1, 2, 3] and loss["series"][0]["y"] == [2.0, None, 1.0]
    assert closeness["series"][0]["y"] == [0.5]


def test_the_papers_numbers_stand_beside_numbers_that_exist(root):
    runs = root / "runs"
    known = {}
    for run_dir in (runs / "photos/single", runs / "chairs/mlps"):
        parts = read_parts(run_dir)
        known[run_dir.name] = {name for part in parts for name in numbers_of(part, parts[part], run_dir)}
    assert set(PAPER["cifar10", "single"]) <= known["single"] and set(PAPER["deepsdf", "mlps"]) <= known["mlps"]


# What is wrong or not there


def test_without_any_results_it_names_the_first_commands(tmp_path):
    refused(
        "report", cwd=tmp_path, match=("nothing has been run on photos", "python create_nets_dataset_single.py photos")
    )
    refused("report", "chairs", cwd=tmp_path, match="python create_mlp_dataset.py chairs")
    refused("report", "cifar10", "--dataset", "mine", cwd=tmp_path, match="single.py cifar10 --dataset mine")


def test_broken_results_are_refused_by_name(root):
    flags = ("--lists-dir", "lists", "--runs-dir", "runs", "--data-dir", "data")
    single = root / "runs/photos/single"
    with changed(single / "eval_single.json", "{"):
        refused(
            "report", *flags, cwd=root, match=("eval_single.json is no JSON object", "python eval_single.py photos")
        )
    with changed(single / "eval_single.json", '{"target_accuracy": [1]}'):
        refused("report", *flags, cwd=root, match=("eval_single.json lacks", "predicted_accuracy"))
    line = results(root, "photos", "single", "interpolate_single_arch")
    with changed(single / "interpolate_single_arch.json", json.dumps({**line, "from": "elsewhere/a.pt"})):
        assert "elsewhere/a.pt, an end of the line" in report.main(config(root, "photos")).read_text()
    del line["from"]
    with changed(single / "interpolate_single_arch.json", json.dumps(line)):
        refused("report", *flags, cwd=root, match=("interpolate_single_arch.json lacks", "from"))
    with changed(single / "eval_single.png", "no image"):
        refused("report", *flags, cwd=root, match="eval_single.png is no image")
    with changed(single / "scalars.jsonl", "{}\n"):
        refused("report", *flags, cwd=root, match="scalars.jsonl")


@pytest.mark.parametrize(
    ("gone", "named", "still"),
    [
        ("runs/photos/single/best.pt", "no checkpoint", "Training"),
        ("lists/photos/single/val.txt", "no input list", "Figures"),
        ("runs/photos/single/interpolate_single_arch.json", "From the weakest to the strongest", "All embeddings"),
    ],
)
def test_what_is_gone_is_named_and_the_rest_shown(root, gone, named, still, capsys):
    with changed(root / gone, None):
        page = report.main(config(root, "photos")).read_text()
    assert named in page and still in page
    said = capsys.readouterr().out
    assert f"not there yet: {named}" in said and "python " in said.split(named)[1].splitlines()[0]
