"""Latent space optimization moves each embedding as if it were alone, has the best of each, and stops in time."""

import signal

import pytest
import torch

from training.latent_search import LatentSearch
from training.run import Run
from training.runtime import Interrupted, handled_signals

CURVATURE = torch.tensor([1.0, 10.0, 0.1])
INITIAL = torch.arange(1.0, 13.0).view(3, 4)


def searched(rows, steps=20):
    search = LatentSearch(torch.ones(3, 4)[rows], patience=3)
    optimizer = torch.optim.Adam(search.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (CURVATURE[rows] * search.embeddings.square().sum(1)).sum().backward()
        optimizer.step()
    return search.embeddings.detach()


def test_embeddings_side_by_side_move_as_alone():
    together = searched([0, 1, 2])
    for i in range(3):
        assert torch.equal(searched([i])[0], together[i])
    assert (together.abs() < 1).all()


def moved(search, accuracies):
    """Move the embeddings and validate them. Return what was validated."""
    with torch.no_grad():
        search.embeddings += 1
    search.update(torch.tensor(accuracies))
    return search.embeddings.detach().clone()


def test_each_has_its_own_best_and_all_stop_when_none_gains():
    search = LatentSearch(torch.zeros(2, 4), patience=2)
    assert not search.validated
    seen, stopped = [], []
    for accuracies in ([10.0, 10.0], [20.0, 5.0], [15.0, 11.0], [20.0, 11.0], [19.0, 3.0]):
        stopped.append(search.stopped)
        seen.append(moved(search, accuracies))
    assert stopped == [False] * 5 and search.stopped and search.validated
    assert torch.equal(search.best, torch.stack([seen[1][0], seen[2][1]]))
    assert search.best_accuracy.tolist() == [20, 11]
    assert torch.equal(search.initial, torch.zeros(2, 4))


def test_a_gain_within_min_delta_is_none():
    search = LatentSearch(torch.zeros(2, 4), patience=3, min_delta=1.0)
    seen = [moved(search, each) for each in ([50.0, 0.0], [51.0, 1.5], [51.5, 2.0], [51.8, 2.5])]
    assert search.best_accuracy.tolist() == [51.5, 1.5]
    assert torch.equal(search.best, torch.stack([seen[2][0], seen[1][1]]))
    assert search.without_gain == 1 and not search.stopped


def run_search(folder, after=lambda run: None):
    """Search as the scripts do, with validations every third step. Accuracy rises until an embedding has moved by 0.5."""
    search = LatentSearch(INITIAL, patience=3)
    adam = torch.optim.Adam(search.parameters(), 0.1)
    run = Run(folder, {}, {"instances": ["a"]}, search, adam, validate_every=3)

    def validate():
        moved_by = (search.embeddings.detach() - INITIAL).norm(dim=1)
        search.update(-(moved_by - 0.5).abs())
        run.save(val_accuracy=search.best_accuracy.mean().item())

    if not search.validated:
        validate()
    after(run)
    for _ in run.steps():
        if search.stopped:
            break
        run.descend(search.embeddings.square().sum())
        if run.validates():
            validate()
        after(run)
    return run


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return run_search(tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5, 6, 11])
def test_a_search_resumes_as_if_it_had_not_stopped(unbroken, tmp_path, stop_at):
    assert unbroken.step > 11 and unbroken.step % 3 == 0

    def interrupt(run):
        if run.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled_signals():
        run_search(tmp_path, interrupt)
    resumed = run_search(tmp_path)
    assert resumed.step == unbroken.step
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    texts = [(run.folder / "scalars.jsonl").read_text() for run in (resumed, unbroken)]
    assert texts[0] == texts[1]


def test_a_finished_search_does_nothing_more(unbroken):
    before = (unbroken.folder / "last.pt").stat().st_mtime_ns
    assert run_search(unbroken.folder).step == unbroken.step
    assert (unbroken.folder / "last.pt").stat().st_mtime_ns == before
