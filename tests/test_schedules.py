"""The learning rate over a run begins, peaks and ends where it should."""

import pytest
import torch

from training.schedules import make_scheduler


def rates(schedule, peak, steps, **how):
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], peak)
    scheduler, seen = make_scheduler(schedule, optimizer, peak, steps, **how), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_one_cycle_rises_from_a_25th_to_the_peak_and_ends_at_its_share(share):
    seen, end = rates("one-cycle", 3e-3, 200, final_share=share)
    top = seen.index(max(seen))
    assert seen[0] == pytest.approx(3e-3 / 25) and max(seen) == pytest.approx(3e-3, rel=1e-3)
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert all(later <= before * (1 + 1e-12) for before, later in zip(seen[top:], seen[top + 1 :]))
    assert end == pytest.approx(3e-3 * share)


def test_a_constant_rate_stays():
    seen, end = rates("constant", 1e-4, 10)
    assert set(seen) == {1e-4} and end == 1e-4
