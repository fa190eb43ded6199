"""A run that is stopped and resumed equals an unbroken one, bit for bit."""

import json

import pytest
import torch

import create_nets_dataset_single
import train_single_arch
from data.nets import read_instance
from tests import miniature
from training.ensembles import Ensemble


class Stop(Exception):
    """Stands for a machine that goes away."""


def stop_after(monkeypatch, owner, name, calls):
    original, left = getattr(owner, name), [calls]

    def counted(*arguments, **keywords):
        if not left[0]:
            raise Stop
        left[0] -= 1
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, counted)


def test_instances(tmp_path, monkeypatch):
    """Stopped in the second epoch, after some instances are finished and a checkpoint is written."""
    changes = dict(lengths=(20, 60, 70), num_train=2, num_val=1, num_test=1)
    create_nets_dataset_single.main(miniature.create_config(tmp_path / "unbroken", **changes))
    config = miniature.create_config(tmp_path / "broken", checkpoint_seconds=0, **changes)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 65)
        with pytest.raises(Stop):
            create_nets_dataset_single.main(config)
    nets = tmp_path / "broken/runs/photos/nets/resnet8-adam"
    assert len(list(nets.glob("*.safetensors"))) in (1, 2, 3) and list(nets.glob("*.pt"))
    assert not (tmp_path / "broken/lists").exists()  # no list names what is not there
    create_nets_dataset_single.main(config)
    assert not list(nets.glob("*.pt"))
    for path in sorted((tmp_path / "unbroken/runs/photos/nets/resnet8-adam").iterdir()):
        (state, facts), (resumed, resumed_facts) = read_instance(path), read_instance(nets / path.name)
        assert facts == resumed_facts
        assert all(torch.equal(state[name], resumed[name]) for name in state)


def test_net_space(tmp_path, monkeypatch):
    """Stopped in the middle of the third epoch of four; validation and checkpoint after the second and fourth."""
    changes = dict(num_epochs=4, validate_every=2)
    create_nets_dataset_single.main(miniature.create_config(tmp_path / "broken"))
    config = miniature.train_config(tmp_path / "broken", **changes)
    unbroken = miniature.train_config(tmp_path / "unbroken", **changes)
    train_single_arch.main(
        miniature.replace(unbroken, folders=miniature.replace(unbroken.folders, lists_dir=config.folders.lists_dir))
    )
    with monkeypatch.context() as patch:
        stop_after(patch, train_single_arch, "distillation_loss", 2 * 49 + 20)
        with pytest.raises(Stop):
            train_single_arch.main(config)
    train_single_arch.main(config)

    runs = [tmp_path / which / "runs/photos/single" for which in ("unbroken", "broken")]
    for name in ("last.pt", "best.pt"):
        whole, resumed = (torch.load(run / name, weights_only=True) for run in runs)
        assert whole["epoch"] == resumed["epoch"] and whole["best_score"] == resumed["best_score"]
        for key in ("0", "1"):
            assert all(torch.equal(whole[key][entry], resumed[key][entry]) for entry in whole[key])
    moments, resumed_moments = (torch.load(run / "last.pt", weights_only=True)["2"]["state"] for run in runs)
    assert all(torch.equal(moments[i]["exp_avg_sq"], resumed_moments[i]["exp_avg_sq"]) for i in moments)
    whole, resumed = ([json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()] for run in runs)
    assert whole == resumed and [line["step"] for line in whole] == [49, 98, 147, 196]


def test_a_longer_run_at_a_constant_rate_goes_on_where_the_shorter_ended(tmp_path):
    create_nets_dataset_single.main(miniature.create_config(tmp_path))
    config = miniature.train_config(tmp_path, schedule="constant", num_epochs=1)
    train_single_arch.main(config)
    train_single_arch.main(miniature.replace(config, num_epochs=2))
    assert torch.load(tmp_path / "runs/photos/single/last.pt", weights_only=True)["epoch"] == 2
