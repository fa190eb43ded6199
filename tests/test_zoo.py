"""Instances in training: plans, states, the best of each, divergence, stacks that resume where they were stopped.

That they train as if alone is in test_instances.py and test_fast_paths.py."""

import signal
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from create_nets_dataset_single import PAPER_EPOCHS, PHOTOS_STEPS
from data.folders import Folders
from data.instance_files import read_instance
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, siren
from tests.conftest import instances_in_float64
from training.constants import SideBySide
from training.ensembles import Ensemble, cross_entropies, initial_state, squared_errors
from training.runtime import Interrupted, handled_signals
from training.zoo import Zoo, plan_instances, save_instances

PHOTOS = ((1, 8, 8), 10)
CPU = torch.device("cpu")
ADAM = partial(torch.optim.Adam, lr=1e-2)


# Plans


@given(st.integers(0, 1000), st.sampled_from([PAPER_EPOCHS, PHOTOS_STEPS]))
def test_planned_lengths_come_equally_often_or_at_most_once_shortest_first(seed, lengths):
    plans = plan_instances(132, lengths, Path("nets"), {"a": 1}, seed)
    steps = [plan.steps for plan in plans]
    assert [plan.index for plan in plans] == list(range(132)) and len({plan.path for plan in plans}) == 132
    assert steps == sorted(steps) and set(steps) <= set(lengths)
    assert np.unique(steps, return_counts=True)[1].max() == (1 if len(lengths) >= 132 else 4)
    assert all(plan.facts == {"a": 1, "seed": seed, "index": plan.index, "steps": plan.steps} for plan in plans)
    assert plan_instances(132, lengths, Path("nets"), {"a": 1}, seed) == plans


def test_another_seed_plans_other_lengths():
    plans = [plan_instances(100, PAPER_EPOCHS, Path("nets"), {}, seed) for seed in (0, 1)]
    assert [plan.steps for plan in plans[0]] != [plan.steps for plan in plans[1]]


def test_instances_start_from_their_own_keys():
    net = TargetNet(ARCHITECTURES["lenetlike"], *PHOTOS)
    together, alone = (initial_state(net, keys, CPU) for keys in ([(0, 1), (0, 2), (0, 1, 2)], [(0, 2)]))
    assert all(torch.equal(together[name][1:2], value) for name, value in alone.items())
    assert len({tuple(value.tolist()) for value in together["conv1.weight"].flatten(1)}) == 3


# Losses


def test_losses_are_means_over_an_instances_own_inputs():
    logits, labels = torch.randn(3, 4, 5).double(), torch.randint(5, (3, 4))
    reference = [F.cross_entropy(one, own).item() for one, own in zip(logits, labels)]
    assert cross_entropies(logits, labels).tolist() == pytest.approx(reference)
    outputs, targets = torch.randn(2, 3, 8).double()
    reference = [sum((x - y) ** 2 for x, y in zip(*pair)) / 8 for pair in zip(outputs.tolist(), targets.tolist())]
    assert squared_errors(outputs, targets).tolist() == pytest.approx(reference)


# Ensembles


def batch(m, step, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(4, 6, *PHOTOS[0], dtype=dtype, generator=generator)
    return images[:m], torch.randint(10, (4, 6), generator=generator)[:m]


def an_ensemble(m=3, make_optimizer=ADAM):
    return Ensemble(*instances_in_float64("resnet8", *PHOTOS, m=m), make_optimizer)


def assert_equal(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_batch_norm_counts_its_steps():
    ensemble = an_ensemble()
    for step in range(3):
        ensemble.step(*batch(3, step))
    counters = [value for name, value in ensemble.state().items() if name.endswith("num_batches_tracked")]
    assert counters and all(value.tolist() == [3, 3, 3] for value in counters)


@pytest.mark.parametrize(
    "make_optimizer", [ADAM, partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)], ids=["adam", "sgd"]
)
def test_a_saved_ensemble_continues_as_if_it_had_not_stopped(tmp_path, make_optimizer):
    unbroken, stopped = an_ensemble(make_optimizer=make_optimizer), an_ensemble(make_optimizer=make_optimizer)
    for step in range(6):
        if step == 3:
            torch.save(stopped.state_dict(), tmp_path / "a.pt")
            stopped = an_ensemble(make_optimizer=make_optimizer)
            stopped.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
            assert stopped.num_steps == 3
        for ensemble in (unbroken, stopped):
            ensemble.set_learning_rate(0.1 * 0.5**step)
            ensemble.step(*batch(3, step))
            ensemble.update_best(torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 2.5]])[step % 2])
    assert_equal(unbroken.state(), stopped.state())
    assert_equal(unbroken.best_state, stopped.best_state)
    assert torch.equal(unbroken.best_accuracy, stopped.best_accuracy)


def test_each_instance_has_its_state_at_its_highest_accuracy_also_after_others_left():
    ensemble, seen = an_ensemble(), []
    for step, accuracy in enumerate([[10.0, 10.0, 9.0], [20.0, 5.0, 9.0], [15.0, 10.0, 11.0]]):
        ensemble.step(*batch(3, step))
        ensemble.update_best(torch.tensor(accuracy))
        seen.append({name: value.clone() for name, value in ensemble.state().items()})
    best = [1, 0, 2]
    for name, value in ensemble.best_state.items():
        assert torch.equal(value, torch.stack([seen[step][name][i] for i, step in enumerate(best)])), name
    assert ensemble.best_accuracy.tolist() == [20, 10, 11]
    before = ensemble.best_state
    ensemble.select(torch.tensor([True, False, True]))
    assert len(ensemble) == 2 and ensemble.best_accuracy.tolist() == [20, 11]
    assert_equal(ensemble.best_state, {name: value[[0, 2]] for name, value in before.items()})
    ensemble.step(*batch(2, 3))
    ensemble.update_best(torch.tensor([0.0, 12.0]))
    name = "fc.weight"
    assert torch.equal(ensemble.best_state[name][0], before[name][0])
    assert torch.equal(ensemble.best_state[name][1], ensemble.state()[name][1])


def test_the_state_of_the_first_instances_is_part_of_the_state_of_all():
    ensemble = an_ensemble()
    assert_equal(ensemble.state(2), {name: value[:2] for name, value in ensemble.state().items()})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_instance_whose_loss_diverges_is_named_with_its_step(bad):
    ensemble, paths = an_ensemble(), [Path(f"{i}.safetensors") for i in range(3)]
    for step in range(4):
        images, labels = batch(3, step)
        if step == 2:
            images[1] = bad
        ensemble.step(images, labels)
        if step < 2:
            ensemble.refuse_divergence(paths)
    with pytest.raises(InputError, match="^1.safetensors .* step 2;"):
        ensemble.refuse_divergence(paths)
    ensemble.select(torch.tensor([0, 2]))
    ensemble.refuse_divergence([paths[0], paths[2]])


def test_an_instance_that_the_last_step_ruined_is_named():
    ensemble = an_ensemble(make_optimizer=partial(torch.optim.SGD, lr=0.1))
    ensemble.step(*batch(3, 0))
    with torch.no_grad():
        ensemble.rows[2, 5] = float("inf")
    with pytest.raises(InputError, match="^c .* step 1;"):
        ensemble.refuse_divergence([Path("a"), Path("b"), Path("c")])


# Stacks


@dataclass(frozen=True)
class Config:
    sides: SideBySide = SideBySide(3, checkpoint_seconds=1e9)
    rate: float = 1e-2
    seed: int = 0
    folders: Folders = field(default_factory=Folders)


def planned(folder, lengths=(2, 3, 5, 5, 7)):
    return plan_instances(len(lengths), lengths, folder, {"architecture": "siren"}, 0)


def fit(plans, config=None, after=lambda step: None):
    """Train SIRENs as the scripts do. Each is saved at its last step."""
    net = TargetNet(siren((3, 5, 1)))
    zoo = Zoo(config or Config())
    for stack in zoo.stacks(plans):
        keys = [(0, plan.index) for plan in stack.plans]
        ensemble = stack.start(Ensemble(net, initial_state(net, keys, CPU), ADAM, squared_errors))
        points = {i: torch.randn(20, 9, 4, generator=torch.Generator().manual_seed(i)) for _, i in keys}
        for step in stack.steps():
            shown = torch.stack([points[plan.index][step] for plan in stack.plans])
            ensemble.step(shown[..., :3], shown[..., 3])
            done = stack.finished()
            if done:
                save_instances(done, ensemble.state(len(done)), torch.zeros(len(done)))
                stack.remove(len(done))
            after(step)
        stack.finish()
    return zoo


def instances(plans):
    return [read_instance(plan.path)[0] for plan in plans]


def test_every_instance_is_saved_with_its_facts_and_none_is_trained_again(tmp_path):
    plans = planned(tmp_path / "nets")
    assert fit(plans).trained == 5
    for plan in plans:
        _, facts = read_instance(plan.path)
        assert facts["steps"] == plan.steps and facts["val_accuracy"] == 0 and "torch" in facts["versions"]
    before = [plan.path.stat().st_mtime_ns for plan in plans]
    assert fit(plans).trained == 0
    assert [plan.path.stat().st_mtime_ns for plan in plans] == before
    plans[3].path.unlink()
    assert fit(plans).trained == 1
    assert not list((tmp_path / "nets").glob("*.pt"))


@pytest.mark.parametrize("gone", [[0], [1, 4], [3]])
def test_a_deleted_instance_is_made_again_byte_for_byte_and_the_others_stay(gone, tmp_path):
    plans = planned(tmp_path / "nets")
    fit(plans)
    before = [plan.path.read_bytes() for plan in plans]
    times = [plan.path.stat().st_mtime_ns for plan in plans]
    for i in gone:
        plans[i].path.unlink()
    assert fit(plans).trained == len(gone)
    assert [plan.path.read_bytes() for plan in plans] == before
    changed = [i for i, plan in enumerate(plans) if plan.path.stat().st_mtime_ns != times[i]]
    assert changed == gone and not list((tmp_path / "nets").glob("*.pt"))


def test_a_flipped_bit_in_an_instance_is_refused_by_its_name(tmp_path):
    plans = planned(tmp_path / "nets")
    fit(plans)
    content = bytearray(plans[2].path.read_bytes())
    content[-1] ^= 1
    plans[2].path.write_bytes(content)
    with pytest.raises(InputError, match=plans[2].path.name):
        fit(plans)


@pytest.mark.parametrize(
    "change",
    [
        {"indices": [99]},
        {"indices": "ab"},
        {"facts": []},
        {"facts": 3},
        {"ensemble": {}},
        {"ensemble": [1]},
        {"constants": [1]},
    ],
    ids=str,
)
def test_a_checkpoint_of_nonsense_is_refused(change, tmp_path):
    def interrupt(step):
        signal.raise_signal(signal.SIGTERM)

    plans = planned(tmp_path / "nets")
    with pytest.raises(Interrupted), handled_signals():
        fit(plans, after=interrupt)
    (path,) = (tmp_path / "nets").glob("*.pt")
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(InputError, match=path.name):
        fit(plans)


@pytest.mark.parametrize("stop_at", range(7))
def test_a_signal_at_any_step_saves_and_the_resumed_instances_are_the_same(tmp_path, stop_at):
    fit(planned(tmp_path / "unbroken"))
    plans = planned(tmp_path / "stopped")

    def interrupt(step):
        if step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled_signals():
        fit(plans, after=interrupt)
    fit(plans)
    for one, other in zip(instances(planned(tmp_path / "unbroken")), instances(plans)):
        assert_equal(one, other)


def test_a_stack_whose_process_is_killed_resumes_from_its_last_checkpoint(tmp_path):
    class Killed(BaseException):
        pass

    def kill(step):
        if step == 4:
            raise Killed

    fit(planned(tmp_path / "unbroken"))
    plans, config = planned(tmp_path / "killed"), Config(SideBySide(3, checkpoint_seconds=0))
    with pytest.raises(Killed):
        fit(plans, config, kill)
    assert list((tmp_path / "killed").glob("*.pt"))
    fit(plans, config)
    for one, other in zip(instances(planned(tmp_path / "unbroken")), instances(plans)):
        assert_equal(one, other)


def test_a_stopped_stack_is_not_resumed_with_other_constants(tmp_path):
    def interrupt(step):
        signal.raise_signal(signal.SIGTERM)

    plans = planned(tmp_path / "nets")
    with pytest.raises(Interrupted), handled_signals():
        fit(plans, after=interrupt)
    with pytest.raises(InputError, match="rate 0.01, now it is 0.02"):
        fit(plans, Config(rate=0.02))
    with pytest.raises(InputError, match="side_by_side 3, now it is 2"):
        fit(plans, Config(SideBySide(2)))
    with pytest.raises(InputError, match="in-training.*steps 7, now it is 9"):
        fit(planned(tmp_path / "nets", (2, 3, 5, 5, 9)))
    fit(plans, Config(SideBySide(3, checkpoint_seconds=5)))
    with pytest.raises(InputError, match="004.safetensors.*steps 7, not 9"):
        fit(planned(tmp_path / "nets", (2, 3, 5, 5, 9)))


def test_stacks_have_every_instance_once_and_lengths_alike(tmp_path):
    plans = plan_instances(17, range(1, 18), tmp_path, {}, 0)
    stacks = [stack.plans for stack in Zoo(Config(SideBySide(5))).stacks(plans)]
    assert sorted(plan.index for stack in stacks for plan in stack) == list(range(17))
    assert max(map(len, stacks)) <= 5
    means = [np.mean([plan.steps for plan in stack]) for stack in stacks]
    assert max(means) - min(means) <= len(stacks)


def test_waiting_ends_when_all_instances_are_there_or_nothing_is_written_for_too_long(tmp_path, monkeypatch):
    plans, zoo = planned(tmp_path / "nets", (1, 1)), Zoo(Config(SideBySide(checkpoint_seconds=0)))
    monkeypatch.setattr("training.zoo.PATIENCE", 1)
    with pytest.raises(InputError, match="^2 "):
        zoo.wait(plans)
    writer = threading.Timer(0.5, fit, [plans])
    writer.start()
    zoo.wait(plans)
    writer.join()
    assert all(plan.path.is_file() for plan in plans)
