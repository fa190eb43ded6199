"""Figures of shapes: their pixels against a camera in float64, their files, and their page in a headless browser.

The browser may load nothing but the page.
"""

import base64

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import trimesh

from evaluation.plots import save_figure
from evaluation.shape_figures import (
    AZIMUTH,
    ELEVATION,
    LABELS,
    PANEL,
    ShapeRow,
    mesh_trace,
    plot_shape_rows,
    write_meshes,
    write_shape_page,
)
from evaluation.surfaces import level_set, mesh_facts
from tests.browsing import launched, opened

WIDE = {"width": 1000, "height": 600}  # CSS pixels
GAMMA = np.array([0, 0.25, 0.5, 1])
DPI = 200


def sphere_mesh(radius, x=0.0):
    center = torch.tensor([x, 0, 0])
    return level_set(lambda points: (points - center).norm(dim=1) - radius, 16, torch.device("cpu"))


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "shapes.html"
    latent = [sphere_mesh(radius) for radius in (0.3, 0.45, 0.6, 0.75)]
    two = trimesh.util.concatenate([sphere_mesh(0.2, -0.6), sphere_mesh(0.2, 0.6)])
    weights = [sphere_mesh(0.3), two, trimesh.Trimesh(), sphere_mesh(0.75)]
    rows = [ShapeRow("latent", latent, "#D55E00"), ShapeRow("<weights>", weights, "#777777")]
    write_shape_page(path, "<Chairs & more>", GAMMA, rows)
    return path


@pytest.fixture(scope="module")
def page(page_path):
    """The open page, drawn."""
    with launched() as browser, opened(browser, page_path, WIDE) as page:
        page.wait_for_function("slider.dataset.shown === '0'")
        yield page


def state(page):
    """Gamma, captions, plotly's vertices, and the pictures of the views."""
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
    assert page.locator("h2").all_inner_texts() == ["latent", "<weights>"]
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


def test_turning_one_view_turns_the_other_and_the_slider_does_not_turn_them_back(page):
    page.evaluate("window.eyes = () => views.map(view => Object.values(view._fullLayout.scene._scene.getCamera().eye))")
    before = np.array(page.evaluate("eyes()"))
    for touched in (0, 1):
        box = page.locator(".view").nth(touched).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 10, steps=4)
        page.mouse.up()
        # the views turn for a moment after the mouse is released
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


def ball(x: float, y: float, z: float, radius: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(3, radius)
    mesh.apply_translation((x, y, z))
    return mesh


def camera() -> np.ndarray:
    """Rows right, up and towards the viewer (3, 3) of a camera that looks at the origin, y up, azimuth from z to x."""
    azimuth, elevation = np.radians([AZIMUTH, ELEVATION])
    viewer = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    return np.stack([right, np.cross(viewer, right), viewer])


def panels(*rows: list[trimesh.Trimesh]) -> list[list[np.ndarray]]:
    """The pictures (H, W, 3), 0 (black) to 255 (white), of each mesh in a figure of such rows, in gray."""
    figure = plot_shape_rows([ShapeRow("", row, "gray") for row in rows], np.arange(len(rows[0])))
    figure.set_dpi(DPI)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    plt.close(figure)
    left, width = round(LABELS * DPI), round(PANEL * DPI)
    height = (len(picture) - left) / len(rows)
    return [
        [
            picture[round(r * height) : round((r + 1) * height), left + c * width : left + (c + 1) * width]
            for c in range(len(row))
        ]
        for r, row in enumerate(rows)
    ]


def drawn(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, lower and upper end of what is not white, in pixels from the lower left corner."""
    y, x = np.nonzero(picture.min(axis=2) < 250)
    return x.min(), x.max(), len(picture) - 1 - y.max(), len(picture) - 1 - y.min()


def centre(picture: np.ndarray) -> np.ndarray:
    left, right, lower, upper = drawn(picture)
    return np.array([left + right, lower + upper]) / 2


def test_shapes_are_where_a_parallel_camera_sees_them():
    frame = [trimesh.util.concatenate([ball(0, 0, 0, 0.05), ball(0.9, 0, 0, 0.05), ball(0, 0.9, 0, 0.05)])]
    points = np.array([[0, 0, 0], [0.6, 0, 0], [0, 0.6, 0], [0, 0, 0.6], [-0.4, 0.3, 0.5]])
    (pictures,) = panels(frame + [ball(*point, 0.05) for point in points] + frame)
    origin, *others = (centre(picture) for picture in pictures[1:-1])
    expected = points[1:] @ camera()[:2].T
    moved = np.array(others) - origin
    scale = (moved * expected).sum() / (expected**2).sum()  # pixels a unit
    assert np.abs(moved - scale * expected).max() < 1.5
    assert scale > PANEL * DPI / 2 * 0.9


def test_every_panel_has_one_scale_and_shapes_at_the_ends_fit():
    big, small = ball(0, 0, 0, 0.97), ball(0.1, 0.2, 0.3, 0.3)
    top, bottom = panels([big, small, big], [small, big, small])
    for pictures, other in ((top, bottom), (bottom, top)):
        assert np.array_equal(pictures[0], pictures[2])
        assert np.abs(np.subtract(drawn(pictures[0]), drawn(other[1]))).max() <= 1
    left, right, lower, upper = drawn(top[0])
    assert right - left == pytest.approx(upper - lower, abs=2)
    assert left > 0 and lower > 0 and right < top[0].shape[1] - 1 and upper < top[0].shape[0] - 1
    assert right - left > 0.85 * top[0].shape[1]


def test_a_mesh_hides_what_is_behind_it():
    viewer = camera()[2]
    large = ball(0, 0, 0, 0.5)
    behind, before = (trimesh.util.concatenate([large, ball(*(side * 0.7 * viewer), 0.1)]) for side in (-1, 1))
    ((alone, hidden, shown, _),) = panels([large, behind, before, large])
    assert np.abs(alone - hidden).max() < 5  # gray levels, of seams between triangles
    assert np.abs(alone - shown).max() > 20


def test_light_comes_from_above_and_the_front():
    box = trimesh.creation.box((0.8, 0.8, 0.8)).subdivide().subdivide()
    ((picture, _),) = panels([box, box])
    middle = centre(picture)
    left, right, _, _ = drawn(picture)
    corners = box.vertices @ camera()[:2].T
    scale = (right - left) / np.ptp(corners[:, 0])
    shade = {}
    for name, point in (("top", (0, 0.4, 0)), ("front", (0, 0, 0.4)), ("right", (0.4, 0, 0))):
        x, y = middle + scale * (camera()[:2] @ point)
        shade[name] = picture[len(picture) - 1 - round(y), round(x)].mean()
    assert shade["top"] > shade["front"] + 10 > shade["right"] + 40


def test_what_leaves_its_panel_is_cut_off():
    small, huge = ball(0, 0, 0, 0.3), ball(0, 0, 0, 0.9)
    (calm,), (wild,) = panels([small, small, small]), panels([small, huge, small])
    assert np.array_equal(calm[0], wild[0]) and np.array_equal(calm[2], wild[2])
    assert (wild[1] < 250).mean() > 0.9


@pytest.fixture(scope="module")
def rows():
    meshes = [sphere_mesh(radius, 0.2) for radius in (0.5, 0.6, 0.7)]
    return [
        ShapeRow("latent", meshes, "#D55E00"),
        ShapeRow("weights", [meshes[0], trimesh.Trimesh(), meshes[2]], "gray"),
    ]


def test_the_figure_has_every_label_and_says_which_mesh_is_empty(rows, tmp_path):
    figure = plot_shape_rows(rows, np.array([0, 0.5, 1]))
    assert [bool(axes.collections) for axes in figure.axes] == [True, True, True, True, False, True]
    texts = [text.get_text() for text in figure.texts]
    assert {"latent", "weights", "0.5", "1"} < set(texts) and texts.count("empty") == 1
    for path in save_figure(figure, tmp_path / "shapes"):
        assert path.stat().st_size > 1000


def test_an_empty_mesh_is_a_box_within_its_panel():
    empty, small = trimesh.Trimesh(), ball(0, 0, 0, 0.3)
    for row in ([small, empty, small], [empty, empty]):
        ((_, picture, *_),) = panels(row)
        left, right, lower, upper = drawn(picture)
        height, width = picture.shape[:2]
        assert 0 < left < 0.2 * width < 0.8 * width < right < width - 1
        assert 0 < lower < 0.2 * height < 0.8 * height < upper < height - 1


def test_meshes_are_written_one_by_one_and_together_in_a_grid(rows, tmp_path):
    *plys, glb = write_meshes(tmp_path, rows, np.array([0, 0.5, 1]), "shapes")
    assert sorted(tmp_path.iterdir()) == sorted([*plys, glb]) and len(set(plys)) == 6
    for path, mesh in zip(plys, [mesh for row in rows for mesh in row.meshes]):
        if len(mesh.faces):
            read = trimesh.load_mesh(path, process=False)
            assert np.array_equal(read.faces, mesh.faces) and np.allclose(read.vertices, mesh.vertices, atol=1e-6)
        else:
            assert b"element face 0\n" in path.read_bytes()
    scene = trimesh.load_scene(glb)
    assert len(scene.geometry) == 5
    for r, row in enumerate(rows):
        for c, (mesh, gamma) in enumerate(zip(row.meshes, ("0", "0.5", "1"))):
            if len(mesh.faces):
                placed = scene.geometry[f"row{r}-{row.label}-gamma{gamma}"]
                assert np.allclose(placed.bounds - mesh.bounds, [2.2 * c, -2.2 * r, 0], atol=1e-5)
