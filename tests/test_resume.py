"""A run that is stopped and resumed equals an unbroken one, bit for bit; what changed since is refused."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

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
from training import ensembles
from training.ensembles import Ensemble
from training.run import Run
from training.runtime import Interrupted, handled_signals


class Stop(Exception):
    """Stands for a machine that goes away."""


def stop_after(monkeypatch, owner, name, calls):
    """Let a function raise Stop after so many calls."""
    before_call(monkeypatch, owner, name, calls, lambda: _raise(Stop))


def _raise(error):
    raise error


def before_call(monkeypatch, owner, name, calls, act):
    """Do something once, before a function is called for the (calls + 1)-th time."""
    original, left = getattr(owner, name), [calls]

    def counted(*arguments, **keywords):
        left[0] -= 1
        if left[0] == -1:
            act()
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, counted)


def same(one, other):
    """Return whether two checkpoints' values are the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def check_same_run(whole, resumed):
    """Checkpoints and scalars are those of an unbroken run."""
    for name in ("last.pt", "best.pt"):
        assert (whole / name).is_file() == (resumed / name).is_file()
        if (whole / name).is_file():
            assert same(*(torch.load(folder / name, weights_only=True) for folder in (whole, resumed))), name
    assert (whole / "scalars.jsonl").read_text() == (resumed / "scalars.jsonl").read_text()


def check_same_instances(whole, resumed, number):
    paths = sorted(whole.rglob("*.safetensors"))
    assert len(paths) == number
    for path in paths:
        (state, facts), (other, other_facts) = (
            read_instance(each) for each in (path, resumed / path.relative_to(whole))
        )
        assert facts == other_facts and same(state, other)


def configs(root, make, **changes):
    """Return two configs that train on the project's lists, in folders of their own."""
    own = [replace(miniature.folders(root / name), lists_dir=root / "lists") for name in ("unbroken", "broken")]
    return [make(root, folders=folders, **changes) for folders in own]


# Instances


def test_instances(few_photos, tmp_path, monkeypatch):
    """Stopped in the eighth pass over the images, after some instances are finished and a checkpoint is written."""
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
    check_same_instances(tmp_path / "unbroken/runs/photos/nets/resnet8-adam", nets, 4)


def test_a_deleted_resnet_is_made_again_byte_for_byte_and_the_others_stay(few_photos, tmp_path):
    config = miniature.create_config(tmp_path, lengths=(5, 20), num_train=2, num_val=1, num_test=1)
    create_nets_dataset_single.main(config)
    paths = sorted((tmp_path / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    before, times = [[get(path) for path in paths] for get in (Path.read_bytes, lambda path: path.stat().st_mtime_ns)]
    assert len(paths) == 4
    for gone in (0, 3):
        paths[gone].unlink()
    create_nets_dataset_single.main(config)
    assert [path.read_bytes() for path in paths] == before
    assert [i for i, path in enumerate(paths) if path.stat().st_mtime_ns != times[i]] == [0, 3]


@pytest.mark.slow
def test_instances_of_several_architectures(tmp_path, monkeypatch, few_photos):
    """Stopped in the second stack of VanillaCNN, at its best so far and after the rate has fallen."""
    changes = dict(num_train=miniature.of_each(1, 1), num_train_missing=(1, 1), num_val=1, num_test=1, side_by_side=2)
    changes |= dict(teacher="lenetlike", num_epochs=miniature.of_each(3, 3), teacher_epochs=3)
    changes |= dict(lr_drops=(1 / 3, 2 / 3), validate_from=1 / 3)
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
    check_same_instances(tmp_path / "unbroken/runs/photos/nets", nets, 1 + 3 * len(miniature.of_each(1, 1)))


# NetSpace


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "folder"), [("behaviour", "single"), ("weights", "weights"), ("both", "both")])
def test_net_space(own_project, monkeypatch, objective, folder):
    """Stopped 5 steps after the second of four validations, which write the checkpoints."""
    unbroken, broken = configs(own_project, miniature.train_config, num_steps=32, validate_every=8, objective=objective)
    train_single_arch.main(unbroken)
    with monkeypatch.context() as patch:
        stop_after(patch, Run, "descend", 16 + 5)
        with pytest.raises(Stop):
            train_single_arch.main(broken)
    assert torch.load(broken.folders.run("photos", folder) / "last.pt", weights_only=True)["step"] == 16
    train_single_arch.main(broken)
    whole, resumed = (config.folders.run("photos", folder) for config in (unbroken, broken))
    check_same_run(whole, resumed)
    assert [json.loads(line)["step"] for line in (whole / "scalars.jsonl").read_text().splitlines()] == [8, 16, 24, 32]


@pytest.mark.slow
@pytest.mark.parametrize("setting", miniature.SETTINGS)
def test_net_space_of_several_architectures(own_project, monkeypatch, setting):
    """Stopped 3 steps after the second of four validations."""
    unbroken, broken = configs(
        own_project, miniature.train_multi_config, num_steps=24, validate_every=6, setting=setting, prep_noise=0.2
    )
    train_multi_arch.main(unbroken)
    with monkeypatch.context() as patch:
        stop_after(patch, Run, "descend", 12 + 3)
        with pytest.raises(Stop):
            train_multi_arch.main(broken)
    train_multi_arch.main(broken)
    check_same_run(*(config.folders.run("photos", setting) for config in (unbroken, broken)))


@pytest.mark.parametrize(
    ("script", "make", "folder"),
    [
        (train_single_arch, miniature.train_config, "single"),
        (train_multi_arch, miniature.train_multi_config, "multi"),
    ],
    ids=["single", "multi"],
)
def test_a_signal_stops_after_a_step_which_is_not_done_again(own_project, monkeypatch, script, make, folder):
    """The checkpoint of a step between two validations has the losses since the last line of scalars."""
    unbroken, broken = configs(own_project, make, num_steps=10, validate_every=7)
    script.main(unbroken)
    with monkeypatch.context() as patch:
        before_call(patch, Run, "descend", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted) as stopped, handled_signals():
            script.main(broken)
    assert stopped.value.status == 128 + signal.SIGTERM
    last = broken.folders.run("photos", folder) / "last.pt"
    assert torch.load(last, weights_only=True)["step"] == 4
    steps, original = [], Run.descend
    monkeypatch.setattr(Run, "descend", lambda self, *a, **k: (steps.append(self.step), original(self, *a, **k)))
    script.main(broken)
    assert steps == list(range(4, 10))
    check_same_run(unbroken.folders.run("photos", folder), last.parent)


def test_a_longer_run_at_a_constant_rate_continues_a_shorter_one(own_project):
    longer, shorter = configs(own_project, miniature.train_config, schedule="constant", num_steps=8, validate_every=4)
    train_single_arch.main(longer)
    train_single_arch.main(miniature.changed(shorter, num_steps=4))
    train_single_arch.main(shorter)
    paths = [config.folders.run("photos", "single") / "last.pt" for config in (longer, shorter)]
    one, other = (torch.load(path, weights_only=True) for path in paths)
    assert one["step"] == other["step"] == 8 and all(same(one[key], other[key]) for key in "012")
    with pytest.raises(InputError, match="schedule constant, now it is one-cycle"):
        train_single_arch.main(miniature.changed(shorter, schedule="one-cycle"))


def test_one_cycle_is_not_continued_with_more_steps(own_project):
    with pytest.raises(InputError, match="num_steps 48, now it is 60"):
        train_single_arch.main(miniature.train_config(own_project, num_steps=60))


def test_what_changed_since_is_not_resumed(tmp_path, monkeypatch, few_photos):
    """The same constants, but other images, or instances in another order: refused, and all files stay as they are."""
    changes = dict(num_train=3, num_val=1, num_test=1, lengths=(3, 12))
    making = miniature.create_config(tmp_path, checkpoint_seconds=0, **changes)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 8)
        with pytest.raises(Stop):
            create_nets_dataset_single.main(making)
    images = miniature.few_photos()
    darker = replace(images, train=replace(images.train, pixels=images.train.pixels // 2))
    with monkeypatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: darker)
        with pytest.raises(InputError, match="made with images sha256:.* sha256:"):
            create_nets_dataset_single.main(making)
    create_nets_dataset_single.main(making)

    config = miniature.train_config(tmp_path, schedule="constant", num_steps=2)
    train_single_arch.main(config)
    last, more = tmp_path / "runs/photos/single/last.pt", miniature.changed(config, num_steps=4)
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
    assert torch.load(last, weights_only=True)["step"] == 4


# Latent space optimization


@pytest.mark.parametrize("script", [train_latspace_single, train_latspace_multi], ids=lambda script: script.__name__)
def test_latent_space_optimization(own_project, monkeypatch, script):
    """Stopped between two validations, in the second pass over the images; then run again."""
    config = miniature.search_config(script, own_project, validate_every=5, patience=3)
    folder, whole = config.run_dir / "latspace", config.run_dir / "whole"
    for path in folder.glob("*.*"):
        if path.is_file():
            path.unlink()
    script.main(config)
    folder.rename(whole)
    assert torch.load(whole / "last.pt", weights_only=True)["step"] >= 15
    with monkeypatch.context() as patch:
        stop_after(patch, Run, "descend", 13)
        with pytest.raises(Stop):
            script.main(config)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 10
    script.main(config)
    check_same_run(whole, folder)


# What turns NaN or infinite


def test_a_diverging_net_space_stops_with_step_and_instances_and_its_checkpoints_stay(own_project, monkeypatch):
    config, _ = configs(own_project, miniature.train_config, num_steps=24, validate_every=8)
    original = Run.descend

    def nan_at_step_11(self, loss, *arguments, **terms):
        original(self, loss * (float("nan") if self.step == 11 else 1), *arguments, **terms)

    monkeypatch.setattr(Run, "descend", nan_at_step_11)
    with pytest.raises(InputError, match=r"at step 11, which showed .*seed5.*safetensors; lower --learning"):
        train_single_arch.main(config)
    found = torch.load(config.folders.run("photos", "single") / "last.pt", weights_only=True)
    assert found["step"] == 8 and all(value.isfinite().all() for value in found["1"].values())


def test_a_diverging_instance_is_named(few_photos, tmp_path, monkeypatch):
    original = Ensemble.step

    def one_diverges(self, *batch):
        if self.num_steps == 5:
            monkeypatch.setattr(
                self, "losses", lambda *given: ensembles.cross_entropies(*given) + torch.tensor([0, nan, 0, 0])
            )
        elif self.num_steps == 6:
            monkeypatch.setattr(self, "losses", ensembles.cross_entropies)
        return original(self, *batch)

    nan = float("nan")
    monkeypatch.setattr(Ensemble, "step", one_diverges)
    config = miniature.create_config(tmp_path, lengths=(30,), num_train=2, num_val=1, num_test=1)
    with pytest.raises(InputError, match=r"seed5-001.safetensors cannot be made.* at step 5; lower --learning-rate"):
        create_nets_dataset_single.main(config)
    assert not list(tmp_path.rglob("*.safetensors"))
    (checkpoint,) = tmp_path.rglob("*.pt")
    assert torch.load(checkpoint, weights_only=True)["ensemble"]["rows"].isfinite().all()


def test_results_say_what_they_were_made_with(own_project):
    folder = miniature.folders(own_project).run("photos", "single")
    for name in ("last.pt", "best.pt"):
        found = torch.load(folder / name, weights_only=True)
        assert found["versions"]["torch"] == str(torch.__version__) and "seed" in found["constants"]
    (path, *_) = sorted((own_project / "runs/photos/nets/resnet8-adam").glob("*.safetensors"))
    facts = read_instance(path)[1]
    assert facts["versions"] == found["versions"] and facts["seed"] == 5
    eval_single.main(miniature.config_of(eval_single, own_project))
    results = json.loads((folder / "eval_single.json").read_text())
    assert results["versions"].keys() == found["versions"].keys() and results["config"]["architecture"] == "resnet8"
