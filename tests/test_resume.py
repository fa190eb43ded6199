"""A run that is stopped and resumed equals an unbroken one, bit for bit."""

import json
from dataclasses import replace

import pytest
import torch

import create_nets_dataset_multi
import create_nets_dataset_single
import eval_single
import train_latspace_multi
import train_latspace_single
import train_multi_arch
import train_single_arch
from data import load
from data.instance_files import read_instance
from models.errors import InputError
from tests import miniature
from training.ensembles import Ensemble
from training.latent_search import SavedLatentSearch


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


@pytest.mark.parametrize(
    ("objective", "setting", "loss", "calls"),
    # The loss of weights is taken at every validation too: one was before the stop.
    [
        ("distillation", "single", "distillation_loss", 2 * 49 + 20),
        ("weights", "weights", "weight_losses", 2 * 49 + 21),
    ],
)
def test_net_space(tmp_path, monkeypatch, objective, setting, loss, calls):
    """Stopped in the middle of the third epoch of four; validation and checkpoint after the second and fourth."""
    changes = dict(num_epochs=4, validate_every=2, objective=objective)
    create_nets_dataset_single.main(miniature.create_config(tmp_path / "broken"))
    config = miniature.train_config(tmp_path / "broken", **changes)
    unbroken = miniature.train_config(tmp_path / "unbroken", **changes)
    train_single_arch.main(
        miniature.replace(unbroken, folders=miniature.replace(unbroken.folders, lists_dir=config.folders.lists_dir))
    )
    with monkeypatch.context() as patch:
        stop_after(patch, train_single_arch, loss, calls)
        with pytest.raises(Stop):
            train_single_arch.main(config)
    train_single_arch.main(config)

    runs = [tmp_path / which / "runs/photos" / setting for which in ("unbroken", "broken")]
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


def test_what_changed_since_is_not_gone_on_with(tmp_path, monkeypatch, few_photos):
    """The same constants, but other images, or instances in another order: refused, and all files stay as they are."""
    making = miniature.create_config(tmp_path, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 8)
        with pytest.raises(Stop):
            create_nets_dataset_single.main(making)
    images = miniature.few_photos()
    darker = replace(images, train=replace(images.train, pixels=images.train.pixels // 2))
    with monkeypatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: darker)
        with pytest.raises(InputError, match="in-training.*made with images sha256:.* now it is sha256:"):
            create_nets_dataset_single.main(making)
    create_nets_dataset_single.main(making)

    config = miniature.train_config(tmp_path, schedule="constant", num_epochs=1)
    train_single_arch.main(config)
    last, more = tmp_path / "runs/photos/single/last.pt", replace(config, num_epochs=2)
    before = last.read_bytes()
    with monkeypatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: darker)
        with pytest.raises(InputError, match="seed5.*safetensors was made with images sha256:"):
            create_nets_dataset_single.main(making)
        with pytest.raises(InputError, match="last.pt was made with images sha256:"):
            train_single_arch.main(more)
    train = config.folders.input_list("photos", "single", "train")
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(reversed(lines)))
    with pytest.raises(InputError, match="last.pt was made with instances sha256:"):
        train_single_arch.main(more)
    assert last.read_bytes() == before
    train.write_text("".join(lines))
    train_single_arch.main(more)
    assert torch.load(last, weights_only=True)["epoch"] == 2


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
        stop_after(patch, SavedLatentSearch, "update", 13)
        with pytest.raises(Stop):
            script.main(config)
    assert torch.load(folder / "latspace.pt", weights_only=True)["step"] == 10
    script.main(config)
    resumed = torch.load(folder / "latspace.pt", weights_only=True)
    for name in ("initial", "best", "embeddings", "best_accuracy"):
        assert torch.equal(whole[name], resumed[name]), name
    assert whole["step"] == resumed["step"] and scalars == (folder / "scalars.jsonl").read_text()


# What turns NaN or infinite


def test_a_diverging_net_space_stops_with_step_and_instances_and_keeps_its_checkpoints(zoo, tmp_path, monkeypatch):
    folders = miniature.replace(miniature.folders(tmp_path), lists_dir=miniature.folders(zoo).lists_dir)
    config = miniature.train_config(zoo, folders=folders, num_epochs=3)
    original, left = train_single_arch.distillation_loss, [49 + 7]

    def nan_at_step_56(*arguments):
        left[0] -= 1
        return original(*arguments) * (float("nan") if left[0] == -1 else 1)

    monkeypatch.setattr(train_single_arch, "distillation_loss", nan_at_step_56)
    with pytest.raises(
        InputError, match=r"at step 56 \(epoch 1\), which showed .*seed5.*safetensors; lower --learning"
    ):
        train_single_arch.main(config)
    saved = torch.load(tmp_path / "runs/photos/single/last.pt", weights_only=True)
    assert saved["epoch"] == 1 and all(value.isfinite().all() for value in saved["1"].values())


def test_a_diverging_instance_is_named(tmp_path, monkeypatch):
    original = Ensemble.losses

    def one_diverges(self, *arguments):
        bad = torch.zeros(len(self))
        bad[1] = float("nan") if self.num_steps == 5 else 0
        return original(self, *arguments) + bad

    monkeypatch.setattr(Ensemble, "losses", one_diverges)
    config = miniature.create_config(tmp_path, lengths=(30,), num_train=2, num_val=1, num_test=1)
    with pytest.raises(InputError, match=r"seed5-001.safetensors cannot be made.* at step 5; lower --learning-rate"):
        create_nets_dataset_single.main(config)
    assert not list(tmp_path.rglob("*.safetensors"))
    (checkpoint,) = tmp_path.rglob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["ensemble"]["rows"].isfinite().all()


def test_a_diverging_search_is_named(tmp_path):
    search = SavedLatentSearch(tmp_path, {"instances": ["a.pt", "b.pt"]}, torch.ones(2, 4), 0.1, patience=2)
    search.validate(torch.tensor([1.0, 2.0]), {})
    search.update(search.embeddings.sum(1))
    search.validate(torch.tensor([1.0, 2.0]), {})
    search.update(search.embeddings.sum(1) / 0)
    with pytest.raises(InputError, match="at step 1, from a.pt, b.pt; lower --learning-rate"):
        search.validate(torch.tensor([1.0, 2.0]), {})
    assert torch.load(tmp_path / "latspace.pt", weights_only=True)["step"] == 1


def test_results_say_what_they_were_made_with(zoo):
    run = miniature.folders(zoo).run("photos", "single")
    for name in ("last.pt", "best.pt"):
        saved = torch.load(run / name, weights_only=True)
        assert saved["versions"]["torch"] == str(torch.__version__) and "seed" in saved["constants"]
    (path, *_) = sorted((zoo / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    facts = read_instance(path)[1]
    assert facts["versions"] == saved["versions"] and facts["seed"] == 5
    eval_single.main(miniature.look_config(eval_single, zoo))
    found = json.loads((run / "eval_single.json").read_text())
    assert found["versions"] == saved["versions"] and found["config"]["architecture"] == "resnet8"
