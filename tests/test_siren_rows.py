"""SIRENs made of others compute the same function, or that of moved points, in float64."""

from dataclasses import replace

import pytest
import torch

from data.streams import stream
from models.instances import TargetNets
from models.rows import reordering
from models.siren_rows import of_moved_points, with_flipped_units
from training.constants import SirenViews
from training.views import move_shapes

M = 3
(NET,) = TargetNets.sirens((3, 8, 7, 1))
ALL = SirenViews(mirror=True, stretch=0.3, shift=0.2, flip_units=True)
# Hidden layers amplify rounding: sines are of 30 times what they are given.
CLOSE = dict(rtol=1e-9, atol=1e-11)


@pytest.fixture
def rows():
    return NET.layout.flatten(NET.start(range(M))).double()


def points(*shape):
    return torch.from_numpy(stream("points of a test").uniform(-1, 1, (*shape, 3)))


def test_moved_points(rows):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(M, 3, 3, generator=generator, dtype=torch.float64)
    shifts = torch.randn(M, 3, generator=generator, dtype=torch.float64)
    moved = of_moved_points(NET.layout, rows, matrices, shifts)
    x = points(20)
    for i in range(M):
        expected = NET.run(rows[[i]], x @ matrices[i].T + shifts[i])
        torch.testing.assert_close(NET.run(moved[[i]], x), expected, **CLOSE)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64)).expand(M, 3, 3)
    twice = of_moved_points(NET.layout, of_moved_points(NET.layout, rows, mirror, shifts * 0), mirror, shifts * 0)
    assert torch.equal(twice, rows)


def test_flipped_units_compute_the_same(rows):
    generator = torch.Generator().manual_seed(0)
    signs = [2 * torch.randint(2, (M, width), generator=generator).double() - 1 for width in (8, 7)]
    flipped = with_flipped_units(NET.layout, rows, signs)
    assert (flipped != rows).any(1).all() and torch.equal(flipped.abs(), rows.abs())
    torch.testing.assert_close(NET.run(flipped, points(20)), NET.run(rows, points(20)), **CLOSE)


def test_an_order_of_units_computes_the_same(rows):
    reordered = rows[:, reordering(NET.layout, NET.hidden_channels(), stream("order of a test"))]
    torch.testing.assert_close(NET.run(reordered, points(20)), NET.run(rows, points(20)), **CLOSE)


@pytest.mark.parametrize(
    "views", [ALL, SirenViews(mirror=True), SirenViews(stretch=0.3), SirenViews(shift=0.2), SirenViews(flip_units=True)]
)
def test_views_have_the_targets_outputs_at_the_moved_points(rows, views):
    x = points(M, 20)
    changed, moved = move_shapes(rows, x, NET, views, 0, 5)
    assert not torch.equal(changed, rows)
    torch.testing.assert_close(NET.run(changed, moved), NET.run(rows, x), **CLOSE)
    assert torch.equal(move_shapes(rows, x, NET, views, 0, 5)[0], changed)
    assert not torch.equal(move_shapes(rows, x, NET, views, 0, 6)[0], changed)


def test_stretches_are_within_their_limit_and_no_view_changes_nothing(rows):
    x = points(M, 20)
    _, moved = move_shapes(rows, x, NET, replace(ALL, mirror=False, shift=0.0), 0, 0)
    factors = moved / x
    assert 0.7 <= factors.min() < factors.max() <= 1.3
    unchanged = move_shapes(rows, x, NET, SirenViews(), 0, 0)
    assert torch.equal(unchanged[0], rows) and torch.equal(unchanged[1], x)
