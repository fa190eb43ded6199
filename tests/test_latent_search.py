"""Latent space optimization moves each embedding as if it were alone, keeps its best, and stops in time."""

import torch

from training.latent_search import SavedLatentSearch

CURVATURE = torch.tensor([1.0, 10.0, 0.1])


def searched(folder, rows, steps=20):
    search = SavedLatentSearch(folder, {}, torch.ones(3, 4)[rows], 0.1, patience=3)
    for _ in range(steps):
        search.update(CURVATURE[rows] * search.embeddings.square().sum(1))
    return search.embeddings.detach()


def test_embeddings_side_by_side_move_as_alone(tmp_path):
    together = searched(tmp_path, [0, 1, 2])
    for i in range(3):
        assert torch.equal(searched(tmp_path, [i])[0], together[i])
    assert (together.abs() < 1).all()


def test_each_keeps_its_own_best_and_all_stop_when_none_gains(tmp_path):
    search = SavedLatentSearch(tmp_path, {"a": 1}, torch.zeros(2, 4), 0.1, patience=2)
    seen, stopped = [], []
    for accuracies in ([10.0, 10.0], [20.0, 5.0], [15.0, 11.0], [20.0, 11.0], [19.0, 3.0]):
        stopped.append(search.stopped)
        seen.append(search.embeddings.detach().clone())
        search.validate(torch.tensor(accuracies), {})
        search.update(search.embeddings.sum(1))
    assert stopped == [False] * 5 and search.stopped
    assert torch.equal(search.best, torch.stack([seen[1][0], seen[2][1]]))
    assert search.best_accuracy.tolist() == [20, 11]
    saved = torch.load(tmp_path / "latspace.pt", weights_only=True)
    assert torch.equal(saved["initial"], torch.zeros(2, 4)) and torch.equal(saved["best"], search.best)


def test_a_gain_within_min_delta_is_none(tmp_path):
    search = SavedLatentSearch(tmp_path, {}, torch.zeros(2, 4), 0.1, patience=3, min_delta=1.0)
    seen = []
    for accuracies in ([50.0, 0.0], [51.0, 1.5], [51.5, 2.0], [51.8, 2.5]):
        seen.append(search.embeddings.detach().clone())
        search.validate(torch.tensor(accuracies), {})
        search.update(search.embeddings.sum(1))
    assert search.best_accuracy.tolist() == [51.5, 1.5]
    assert torch.equal(search.best, torch.stack([seen[2][0], seen[1][1]]))
    assert search.without_gain == 1
