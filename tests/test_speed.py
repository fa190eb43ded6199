"""benchmarks/speed.py: what it does with a case that does not fit into a GPU's memory."""

from multiprocessing import Pipe

import torch

from benchmarks import speed
from benchmarks.cases import Case, small_step


def too_large(plainly, device):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_case_that_does_not_fit_ends_its_process_and_has_a_row():
    ours, theirs = Pipe()
    speed.work(theirs, Case("the largest", too_large), plainly=True)
    assert ours.recv() == {}
    row = speed.row({"title": "the largest", "item": "step", "skipped": "needs more than 30 GB"})
    assert "needs more" in row and row.count("|") == speed.HEADER.splitlines()[0].count("|")


def test_operations_are_those_of_the_step():
    x = torch.ones(3, 4)
    assert speed.operations(lambda: x @ x.T) == 2 * 3 * 4 * 3
    device = torch.device("cpu")
    counts = [speed.operations(small_step(False, device, m=m, batch=4, width=640)) for m in (1, 2)]
    assert counts[0] < counts[1] < 2 * counts[0]
