"""A run that is stopped and resumed equals an unbroken one, bit for bit."""

import json

import pytest
import torch

import create_nets_dataset_multi
import create_nets_dataset_single
import train_latspace_multi
import train_latspace_single
import train_multi_arch
import train_single_arch
from data import load
from data.nets import read_instance
from tests import miniature
from training.ensembles import Ensemble
from training.latent_search import LatentSearch


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
    for path in sorted((tmp_path / "unbroken/runs/photos/nets/resnet8-adam").glob("*.safetensors")):
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


@pytest.fixture
def few_photos(monkeypatch):
    monkeypatch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())


def test_instances_of_several_architectures(tmp_path, monkeypatch, few_photos):
    """Stopped in the second stack of VanillaCNN, at its best so far and after the rate has fallen."""
    changes = dict(num_train=(1, 1, 1, 1), num_train_missing=(1, 1), num_val=1, num_test=1, side_by_side=2)
    changes |= dict(
        teacher="lenetlike", num_epochs=(3, 3, 3, 3), teacher_epochs=3, lr_drops=(1 / 3, 2 / 3), look_from=1 / 3
    )
    create_nets_dataset_multi.main(miniature.create_multi_config(tmp_path / "unbroken", **changes))
    config = miniature.create_multi_config(tmp_path / "broken", checkpoint_seconds=0, **changes)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 8 * (3 + 2 * 3 + 3 + 2) + 4)
        with pytest.raises(Stop):
            create_nets_dataset_multi.main(config)
    nets = tmp_path / "broken/runs/photos/nets"
    assert len(list(nets.glob("vanilla_cnn-sgd/*.safetensors"))) == 2 and list(nets.glob("vanilla_cnn-sgd/*.pt"))
    assert not (tmp_path / "broken/lists").exists()
    create_nets_dataset_multi.main(config)
    assert not list(nets.rglob("*.pt"))
    whole = sorted((tmp_path / "unbroken/runs/photos/nets").rglob("*.safetensors"))
    assert len(whole) == 13
    for path in whole:
        (state, facts), (resumed, resumed_facts) = (
            read_instance(each) for each in (path, nets / path.parent.name / path.name)
        )
        assert facts == resumed_facts
        assert all(torch.equal(state[name], resumed[name]) for name in state)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Instances and NetSpaces of both kinds, for what goes on from them."""
    root = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())
        changes = dict(teacher="resnet8", num_epochs=(1, 1, 1, 1), teacher_epochs=1, look_from=1.0)
        create_nets_dataset_multi.main(miniature.create_multi_config(root, **changes))
        create_nets_dataset_single.main(miniature.create_config(root))
        train_multi_arch.main(miniature.train_multi_config(root))
        train_single_arch.main(miniature.train_config(root))
    return root


@pytest.mark.parametrize("setting", ["multi", "missing"])
def test_net_space_of_several_architectures(zoo, tmp_path, monkeypatch, few_photos, setting):
    """Stopped in the middle of the third epoch of four; validation and checkpoint after the second and fourth."""
    lists = miniature.folders(zoo).lists_dir

    def config(which):
        folders = miniature.replace(miniature.folders(tmp_path / which), lists_dir=lists)
        return miniature.train_multi_config(
            zoo, folders=folders, num_epochs=4, validate_every=2, setting=setting, prep_noise=0.2
        )

    train_multi_arch.main(config("unbroken"))
    with monkeypatch.context() as patch:
        stop_after(patch, train_multi_arch, "step_losses", 2 * 8 + 3)
        with pytest.raises(Stop):
            train_multi_arch.main(config("broken"))
    train_multi_arch.main(config("broken"))
    runs = [tmp_path / which / "runs/photos" / setting for which in ("unbroken", "broken")]
    for name in ("last.pt", "best.pt"):
        whole, resumed = (torch.load(run / name, weights_only=True) for run in runs)
        assert whole["best_score"] == resumed["best_score"]
        for key in ("0", "1"):
            assert all(torch.equal(whole[key][entry], resumed[key][entry]) for entry in whole[key])
    whole, resumed = ((run / "scalars.jsonl").read_text() for run in runs)
    assert whole == resumed and len(whole.splitlines()) == 4


@pytest.mark.parametrize("script", [train_latspace_single, train_latspace_multi], ids=lambda script: script.__name__)
def test_latent_space_optimization(zoo, monkeypatch, few_photos, script):
    """Stopped between two validations, in the second pass over the images; then run again."""
    config = miniature.search_config(script, zoo, validate_every=5, patience=3)
    folder = config.run_dir / "latspace"
    script.main(config)
    whole, scalars = torch.load(folder / "latspace.pt", weights_only=True), (folder / "scalars.jsonl").read_text()
    assert whole["step"] >= 15
    (folder / "latspace.pt").unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, LatentSearch, "update", 13)
        with pytest.raises(Stop):
            script.main(config)
    assert torch.load(folder / "latspace.pt", weights_only=True)["step"] == 10
    script.main(config)
    resumed = torch.load(folder / "latspace.pt", weights_only=True)
    for name in ("initial", "best", "embeddings", "best_accuracy"):
        assert torch.equal(whole[name], resumed[name]), name
    assert whole["step"] == resumed["step"] and scalars == (folder / "scalars.jsonl").read_text()
