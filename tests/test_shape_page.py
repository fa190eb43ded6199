"""The page that morphs shapes, opened and moved in a headless browser that may ask for nothing but the page."""

import base64

import numpy as np
import pytest
import torch
import trimesh

from evaluation.meshes import level_set, mesh_facts
from evaluation.shape_page import write_shape_page
from evaluation.shape_views import mesh_trace
from tests.browsing import launched, opened

WIDE = {"width": 1000, "height": 600}  # CSS pixels
GAMMA = np.array([0, 0.25, 0.5, 1])


def sphere_mesh(radius, x=0.0):
    center = torch.tensor([x, 0, 0])
    return level_set(lambda points: (points - center).norm(dim=1) - radius, 16, torch.device("cpu"))


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "shapes.html"
    latent = [sphere_mesh(radius) for radius in (0.3, 0.45, 0.6, 0.75)]
    two = trimesh.util.concatenate([sphere_mesh(0.2, -0.6), sphere_mesh(0.2, 0.6)])
    weights = [sphere_mesh(0.3), two, trimesh.Trimesh(), sphere_mesh(0.75)]
    facts = [[mesh_facts(mesh) for mesh in meshes] for meshes in (latent, weights)]
    write_shape_page(path, "<Chairs & more>", GAMMA, latent, weights, *facts)
    return path


@pytest.fixture(scope="module")
def page(page_path):
    """The open page, drawn."""
    with launched() as browser, opened(browser, page_path, WIDE) as page:
        page.wait_for_function("slider.dataset.shown === '0'")
        yield page


def state(page):
    """Captions, gamma, the meshes that plotly holds, and the pictures, without what is written on them."""
    page.wait_for_function("slider.dataset.shown === slider.value")
    page.wait_for_timeout(500)  # the graphics card's picture comes a frame later
    return {
        "gamma": page.locator("output").inner_text(),
        "captions": page.locator("section p").all_inner_texts(),
        "empty": [view.is_visible() for view in page.locator(".empty").all()],
        "vertices": page.evaluate("views.map(view => view._fullData[0].x.length)"),
        "pictures": [view.screenshot() for view in page.locator(".view").all()],
    }


def move(page, step):
    page.locator("input").fill(str(step))
    return state(page)


def test_the_slider_morphs_both_shapes_and_their_captions(page, page_path):
    start, middle = move(page, 0), move(page, 1)
    assert page.title() == "<Chairs & more>"
    assert (start["gamma"], middle["gamma"]) == ("γ = 0.00", "γ = 0.25")
    assert middle["captions"] == [
        f"volume {mesh_facts(sphere_mesh(0.45))['volume']:.3f} · 1 piece",
        middle["captions"][1],
    ]
    assert middle["captions"][1].endswith("2 pieces")
    for i in range(2):
        assert start["vertices"][i] != middle["vertices"][i]
        assert start["pictures"][i] != middle["pictures"][i]
    empty = move(page, 2)
    assert empty["empty"] == [False, True] and empty["captions"][1].startswith("empty")
    assert empty["vertices"][1] == 0
    again = move(page, 0)
    assert again["captions"] == start["captions"] and again["vertices"] == start["vertices"]
    assert again["empty"] == [False, False]


def test_turning_one_view_turns_the_other_and_the_slider_keeps_the_turn(page):
    page.evaluate("window.eyes = () => views.map(view => Object.values(view._fullLayout.scene._scene.getCamera().eye))")
    before = np.array(page.evaluate("eyes()"))
    for held in (0, 1):
        box = page.locator(".view").nth(held).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 10, steps=4)
        page.mouse.up()
        # the views turn on for a moment after the mouse is let go
        page.wait_for_timeout(1000)
        page.wait_for_function("eyes()[0].every((value, i) => Math.abs(value - eyes()[1][i]) < 1e-6)")
        after = np.array(page.evaluate("eyes()"))
        assert (np.abs(after - before).max(axis=1) > 0.1).all()
        before = after
    move(page, 1)
    assert np.allclose(page.evaluate("eyes()"), before, atol=1e-6)


def test_on_a_narrow_screen_the_views_lie_below_each_other_and_nothing_sticks_out(page):
    page.set_viewport_size(WIDE)
    first, second = (view.bounding_box() for view in page.locator("section").all())
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]
    page.set_viewport_size({"width": 390, "height": 800})
    first, second = (view.bounding_box() for view in page.locator("section").all())
    assert first["x"] == second["x"] and first["y"] + first["height"] <= second["y"]
    page.wait_for_function("views.every(view => view._fullLayout.width <= 390)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("input").bounding_box()["y"] < 800


def values_of(array):
    return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])


def test_the_page_turns_shapes_without_mirroring_them():
    mesh = trimesh.creation.box(bounds=[[0, 0, 0], [0.1, 0.2, 0.3]])
    x, y, z = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ mesh.vertices.T
    trace = mesh_trace(mesh, "gray")
    for name, expected in zip("xyz", (x, y, z)):
        got = values_of(trace[name])
        assert np.allclose(got, expected)
    faces = np.stack([values_of(trace[name]) for name in "ijk"], axis=1)
    assert np.array_equal(faces, mesh.faces)
