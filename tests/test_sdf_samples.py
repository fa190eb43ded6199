"""Samples of signed distance functions: files, DeepSDF's recipe, halves of either sign."""

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from data.sdf_samples import (
    SdfSamples,
    balanced,
    check_made_with,
    hold_out,
    is_made,
    read_samples,
    sample_points,
    split_by_sign,
    unit_sphere,
    write_samples,
)
from models.errors import InputError


def samples_of(num_positive: int, num_negative: int) -> SdfSamples:
    """Return rows that differ in x; positive ones count up from 1, negative ones down from -1."""
    up, down = np.arange(1, num_positive + 1), -np.arange(1, num_negative + 1)
    return SdfSamples(*(np.stack([x, 0 * x, 0 * x, 0.001 * x], axis=1).astype(np.float32) for x in (up, down)))


def test_what_is_written_is_read(tmp_path):
    samples = samples_of(5, 3)
    write_samples(tmp_path / "deep" / "a.npz", samples)
    again = read_samples(tmp_path / "deep" / "a.npz")
    assert again.positive.dtype == again.negative.dtype == np.float32
    assert np.array_equal(again.positive, samples.positive) and np.array_equal(again.negative, samples.negative)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.npz"]


def test_rows_without_a_distance_are_dropped_and_no_others(tmp_path):
    positive = samples_of(6, 1).positive.astype(np.float64)
    positive[[0, 4], 3] = np.nan
    np.savez(tmp_path / "a.npz", pos=positive, neg=samples_of(1, 4).negative)
    again = read_samples(tmp_path / "a.npz")
    assert again.positive[:, 0].tolist() == [2, 3, 4, 6]
    assert again.positive.dtype == np.float32
    assert len(again.negative) == 4


GOOD, NEGATIVE = samples_of(3, 3).positive, samples_of(3, 3).negative
NAN_POINT, INFINITE = GOOD.copy(), NEGATIVE.copy()
NAN_POINT[1, 2], INFINITE[2, 3] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"pos": GOOD}, "pos and neg"),
        ({"pos": GOOD, "neg": NEGATIVE[:, :3]}, "'neg' is (3, 3)"),
        ({"pos": GOOD[0], "neg": NEGATIVE}, "'pos' is (4,)"),
        ({"pos": GOOD.astype(int), "neg": NEGATIVE}, "int64"),
        ({"pos": GOOD[:0], "neg": NEGATIVE}, "no row"),
        ({"pos": GOOD, "neg": np.full((2, 4), np.nan)}, "no row"),
        ({"pos": NAN_POINT, "neg": NEGATIVE}, "not finite"),
        ({"pos": GOOD, "neg": INFINITE}, "not finite"),
        ({"pos": NEGATIVE, "neg": GOOD}, "negative inside"),
        ({"pos": GOOD.astype(float) * 1e300, "neg": NEGATIVE}, "not finite"),
        ({"pos": np.array([{}]), "neg": NEGATIVE}, "ValueError"),  # pickled
    ],
)
def test_files_with_something_else_are_refused(tmp_path, arrays, named):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError) as refusal:
        read_samples(tmp_path / "a.npz")
    assert named in str(refusal.value) and "a.npz" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_distances_of_zero_may_be_on_either_side_and_any_float_is_read(tmp_path):
    on_surface = np.array([[0, 0, 1, 0], [0, 0, 1, -0.0]])
    for kind in (np.float16, np.float32, np.float64):
        np.savez(tmp_path / "a.npz", pos=np.append(GOOD, on_surface, axis=0).astype(kind), neg=on_surface.astype(kind))
        again = read_samples(tmp_path / "a.npz")
        assert again.positive.dtype == again.negative.dtype == np.float32
        assert np.allclose(again.positive[:3], GOOD, atol=1e-5) and np.array_equal(again.negative, on_surface)


def test_files_that_are_missing_or_broken_are_refused(tmp_path):
    with pytest.raises(InputError, match="no SDF samples .*a.npz"):
        read_samples(tmp_path / "a.npz")
    write_samples(tmp_path / "a.npz", samples_of(100, 100))
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no samples"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match="a.npz cannot be read"):
            read_samples(tmp_path / "a.npz")
    with (tmp_path / "b.npz").open("wb") as file:
        np.save(file, GOOD)
    with pytest.raises(InputError, match="b.npz cannot be read"):
        read_samples(tmp_path / "b.npz")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 100), st.integers(0, 9))
def test_balanced_is_half_positive_then_half_negative_each_row_equally_often(num_positive, num_negative, num, seed):
    rows = balanced(samples_of(num_positive, num_negative), num, np.random.default_rng(seed))
    assert rows.shape == (num, 4) and rows.dtype == np.float32
    half = num - num // 2
    assert (rows[:half, 3] > 0).all() and (rows[half:, 3] < 0).all()
    for part, num_rows in ((rows[:half], num_positive), (rows[half:], num_negative)):
        times = np.bincount(np.abs(part[:, 0]).astype(int), minlength=num_rows + 1)[1:]
        assert times.max() - times.min() <= 1
        assert np.allclose(part[:, 3], 0.001 * part[:, 0])


def test_balanced_is_drawn_from_its_generator():
    samples = samples_of(50, 50)
    first, same, other = (balanced(samples, 40, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_split_by_sign_counts_the_surface_as_inside():
    points = np.arange(9).reshape(3, 3)
    samples = split_by_sign(points, np.array([0.5, 0.0, -0.5]))
    assert samples.positive.tolist() == [[0, 1, 2, 0.5]]
    assert samples.negative.tolist() == [[3, 4, 5, 0], [6, 7, 8, -0.5]]


@given(st.integers(0, 99))
def test_unit_sphere_centres_the_bounding_box_and_reaches_its_radius(seed):
    rng = np.random.default_rng(seed)
    vertices = rng.normal(rng.uniform(-9, 9, 3), rng.uniform(0.1, 9, 3), (20, 3))
    centre, scale = unit_sphere(vertices)
    normalized = (vertices - centre) * scale
    assert np.allclose(normalized.min(0), -normalized.max(0))
    assert np.isclose(np.linalg.norm(normalized, axis=1).max(), 1 / 1.03)


def test_points_follow_deepsdf():
    """On a plane, the distance to it is the noise of one coordinate, so it shows variances and fractions."""
    corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    plane = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]])
    points = sample_points(plane, 50_000, np.random.default_rng(0))
    assert points.shape == (50_000, 3) and points.dtype == np.float32
    near, anywhere = points[:47_000], points[47_000:]
    assert near[0::2, 1].var() == pytest.approx(0.005, rel=0.05)
    assert near[1::2, 1].var() == pytest.approx(0.0005, rel=0.05)
    assert anywhere.var(0) == pytest.approx(1 / 3, rel=0.05) and np.abs(anywhere).max() <= 1
    within = near[np.abs(near[:, [0, 2]]).max(1) < 0.7]  # uniform over the area, whichever triangle
    assert (within[:, 0] > within[:, 2]).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(points, sample_points(plane, 50_000, np.random.default_rng(0)))


def test_a_folder_is_made_with_the_same_facts(tmp_path):
    check_made_with(tmp_path, {"seed": 0, "num_samples": 10})
    check_made_with(tmp_path, {"seed": 0, "num_samples": 10})
    with pytest.raises(InputError, match="made with num_samples 10, not 20"):
        check_made_with(tmp_path, {"seed": 0, "num_samples": 20})


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0, 0.5), st.integers(0, 9))
def test_samples_are_split_by_a_fraction_of_either_sign(positive, negative, fraction, seed):
    samples = samples_of(positive, negative)
    rest, measured = hold_out(samples, fraction, np.random.default_rng(seed))
    for sign in ("positive", "negative"):
        all_of_them, *parts = (getattr(each, sign) for each in (samples, rest, measured))
        assert sorted(np.concatenate(parts)[:, 0]) == sorted(all_of_them[:, 0])
        assert len(parts[0]) >= 1 and len(parts[1]) >= 1
        expected = fraction * len(all_of_them)
        assert abs(len(parts[1]) - expected) <= 1


def test_samples_of_which_one_sign_has_one_row_cannot_be_split():
    with pytest.raises(InputError, match="1"):
        hold_out(samples_of(5, 1), 0.5, np.random.default_rng(0))


def test_a_shape_is_made_if_samples_and_mesh_are_there(tmp_path):
    write_samples(tmp_path / "a.npz", samples_of(2, 2))
    assert not is_made(tmp_path / "a.npz")
    (tmp_path / "a.ply").touch()
    assert is_made(tmp_path / "a.npz") and not is_made(tmp_path / "b.npz")
