"""Training runs: they resume bit for bit from a checkpoint at any step, and stop with a reason when they diverge."""

import json
import math
import shutil
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import training.run
from data.folders import Folders
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from training.checkpoints import refuse_other_constants
from training.constants import Optim
from training.run import FirstBad, Run, read_scalars, run_constants
from training.runtime import Interrupted, handled_signals, lock_folder

CPU = torch.device("cpu")
OPTIM = Optim(num_steps=23, learning_rate=1e-2, schedule="one-cycle", clip_norm=1.0, validate_every=5)
SIZES = Sizes((4, 16), emb_size=64, grid=8, row_length=16, row_channels=4)


def autoencoder():
    torch.manual_seed(0)
    return PrepAutoencoder(SIZES)


def linear():
    torch.manual_seed(0)
    return nn.Linear(64, 64)


def a_run(folder, make_model=autoencoder, optim=OPTIM, constants=None, **how):
    return Run.of(folder, constants or {"seed": 0}, {"of": "tests"}, make_model(), optim, **how)


def train(run, num_steps=OPTIM.num_steps, after=lambda run: None, before=lambda run: None, bad_at=None):
    """Train on rows that depend on the step alone, and validate as the scripts do."""
    for step in run.steps(num_steps):
        before(run)
        rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(step))
        loss = (run.model(rows) - rows).square().mean()
        loss = loss * float("nan") if step == bad_at else loss
        run.descend(loss, [Path(f"{step}a"), Path(f"{step}b")], half=loss / 2)
        if run.validates():
            score = run.model(torch.ones(1, 64)).square().mean().item()
            run.save(score, val_error=score)
        after(run)
    return run


def assert_same_run(one, other):
    """Model, optimizer, schedule, best score and scalars of two folders are the same, bit for bit."""
    states = []
    for folder in (one, other):
        saved = torch.load(folder / "last.pt", weights_only=True)
        assert saved.pop("versions")
        states.append(saved)

    def assert_equal(a, b, what):
        assert type(a) is type(b), what
        if isinstance(a, dict):
            assert list(a) == list(b), what
            for name in a:
                assert_equal(a[name], b[name], f"{what} {name}")
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            for i, pair in enumerate(zip(a, b)):
                assert_equal(*pair, f"{what} {i}")
        else:
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, what

    assert_equal(*states, "last.pt")
    assert read_scalars(one / "scalars.jsonl") == read_scalars(other / "scalars.jsonl")


@pytest.fixture(autouse=True)
def logged_often(monkeypatch):
    monkeypatch.setattr(training.run, "LOG_EVERY", 2)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of a run that was not stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "LOG_EVERY", 2)
        folder = tmp_path_factory.mktemp("unbroken") / "run"
        train(a_run(folder))
    return folder


@pytest.mark.parametrize("stop_at", range(0, 23))
def test_a_signal_at_any_step_saves_and_the_resumed_run_is_the_same(unbroken, tmp_path, stop_at):
    def interrupt(run):
        if run.step == stop_at + 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled_signals():
        train(a_run(tmp_path / "run"), after=interrupt)
    run = a_run(tmp_path / "run")
    assert run.step == stop_at + 1
    train(run)
    assert_same_run(unbroken, tmp_path / "run")


def test_a_run_that_stops_before_its_first_step_or_many_times_is_the_same(unbroken, tmp_path):
    def interrupt(run):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled_signals():
        signal.raise_signal(signal.SIGINT)
        train(a_run(tmp_path / "run"))
    for _ in range(3):
        with pytest.raises(Interrupted), handled_signals():
            train(a_run(tmp_path / "run"), after=interrupt)
    assert train(a_run(tmp_path / "run")).step == 23
    assert_same_run(unbroken, tmp_path / "run")


@pytest.mark.parametrize("kill_at", [3, 6, 13, 22])
def test_a_killed_run_resumes_from_the_last_checkpoint_and_its_later_scalars_are_dropped(unbroken, tmp_path, kill_at):
    class Killed(BaseException):
        pass

    def kill(run):
        if run.step == kill_at:
            raise Killed

    with pytest.raises(Killed):
        train(a_run(tmp_path / "run"), after=kill)
    run = a_run(tmp_path / "run")
    assert run.step == kill_at // 5 * 5
    train(run)
    assert_same_run(unbroken, tmp_path / "run")


def test_checkpoints_between_rare_validations_change_nothing(unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "CHECKPOINT_SECONDS", -1.0)
    steps = []
    train(
        a_run(tmp_path / "run"),
        before=lambda run: steps.append(torch.load(run.folder / "last.pt", weights_only=True)["step"]),
    )
    assert steps == list(range(23))
    assert_same_run(unbroken, tmp_path / "run")


def test_best_is_the_checkpoint_of_the_best_score(unbroken):
    scores = {
        each["step"]: each["val_error"] for each in read_scalars(unbroken / "scalars.jsonl") if "val_error" in each
    }
    assert list(scores) == [5, 10, 15, 20, 23]
    best = torch.load(unbroken / "best.pt", weights_only=True)
    assert scores[best["step"]] == min(scores.values()) == best["best_score"]
    assert best["nets"] == {"of": "tests"} and best["constants"] == {"seed": 0}


@pytest.mark.parametrize(("highest", "best"), [(False, 3), (True, 4)])
def test_the_first_of_the_lowest_or_highest_scores_is_best(tmp_path, highest, best):
    run = a_run(tmp_path, linear, replace(OPTIM, schedule="constant", validate_every=1), highest_is_best=highest)
    scores = iter([2.0, 2.0, 1.0, 3.0, 1.0, 3.0])
    for _ in run.steps(6):
        run.descend(run.model(torch.ones(1, 64)).sum())
        run.save(next(scores))
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == best
    assert torch.load(tmp_path / "last.pt", weights_only=True)["best_score"] == (3.0 if highest else 1.0)


def test_without_a_score_there_is_no_best(tmp_path):
    run = a_run(tmp_path, linear)
    run.save(a=1.0)
    assert (tmp_path / "last.pt").is_file() and not (tmp_path / "best.pt").exists()


def test_logged_losses_are_means_over_the_steps_since_the_last_line(tmp_path):
    run = train(a_run(tmp_path))
    lines = read_scalars(tmp_path / "scalars.jsonl")
    steps = [line["step"] for line in lines]
    assert steps == sorted({*range(2, 23, 2), 5, 10, 15, 20, 23})
    model = autoencoder()
    optimizer, scheduler = OPTIM.start(model)
    plain = []
    for step in range(23):
        rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = (model(rows) - rows).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        plain.append(loss.item())
    for before, line in zip([0, *steps], lines):
        mean = sum(plain[before : line["step"]]) / (line["step"] - before)
        assert line["loss"] == pytest.approx(mean, rel=1e-5) and line["half"] == pytest.approx(mean / 2, rel=1e-5)
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])


@pytest.mark.parametrize("bad_at", [0, 1, 11, 12])
def test_a_loss_that_is_not_finite_is_refused_with_step_and_targets_and_checkpoints_stay(tmp_path, bad_at):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=rf"step {bad_at}\b.*{bad_at}a, {bad_at}b.*--learning-rate.*{folder}"):
        train(a_run(folder), bad_at=bad_at)
    run = a_run(folder)
    assert run.step == bad_at // 5 * 5 and all(value.isfinite().all() for value in run.model.parameters())
    train(run)


def test_the_targets_are_named_after_a_resumption_too(tmp_path):
    def interrupt(run):
        if run.step == 7:  # between two lines of scalars
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled_signals():
        train(a_run(tmp_path), after=interrupt)
    with pytest.raises(InputError, match=r"step 7\b.*7a, 7b"):
        train(a_run(tmp_path), bad_at=7)


def test_a_diverged_model_is_not_saved_by_a_signal(tmp_path):
    def interrupt(run):
        if run.step == 8:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InputError, match="step 7"), handled_signals():
        train(a_run(tmp_path), after=interrupt, bad_at=7)
    assert a_run(tmp_path).step == 5


def test_parameters_that_the_last_step_ruined_are_refused(tmp_path):
    run = a_run(tmp_path, linear)
    for _ in run.steps(1):
        run.descend(run.model(torch.ones(1, 64)).sum(), [Path("x")])
    with torch.no_grad():
        run.model.bias[0] = float("inf")
    with pytest.raises(InputError, match="step 0.*x"):
        run.save(0.0)
    assert not list(tmp_path.glob("*.pt"))


def test_other_constants_and_other_models_are_refused(unbroken, tmp_path):
    folder = tmp_path / "run"
    train(a_run(folder), 5)
    with pytest.raises(InputError, match="seed 0, now it is 1"):
        a_run(folder, constants={"seed": 1})
    with pytest.raises(InputError, match="last.pt"):
        a_run(folder, linear)
    with pytest.raises(InputError, match="conv1.0.bias"):
        a_run(folder, lambda: PrepAutoencoder(replace(SIZES, prep_shape=(8, 16))))
    (folder / "last.pt").write_bytes(b"broken")
    with pytest.raises(InputError, match="last.pt cannot be read"):
        a_run(folder)


@dataclass(frozen=True)
class Config:
    dataset: str = "photos"
    optim: Optim = OPTIM
    sizes: Sizes = SIZES
    goal: float = 0.5
    folders: Folders = field(default_factory=Folders)


def test_a_run_at_a_constant_rate_may_become_longer_and_validations_rarer():
    constant = replace(OPTIM, schedule="constant")
    found = run_constants(Config(optim=constant), images="sha256:1")
    assert found == run_constants(
        Config(optim=replace(constant, num_steps=9, validate_every=1), goal=0.9), images="sha256:1"
    )
    assert found != run_constants(Config(optim=replace(constant, learning_rate=9.0)), images="sha256:1")
    assert found != run_constants(Config(optim=constant), images="sha256:2")
    assert found != run_constants(Config(sizes=replace(SIZES, emb_size=128), optim=constant), images="sha256:1")
    assert run_constants(Config()) != run_constants(Config(optim=replace(OPTIM, num_steps=9)))
    assert "folders" not in found


def test_a_longer_run_at_a_constant_rate_continues_the_shorter_one(tmp_path):
    constant = replace(OPTIM, schedule="constant")
    train(a_run(tmp_path / "long", optim=constant), 10)
    train(a_run(tmp_path / "short", optim=constant), 5)
    train(a_run(tmp_path / "short", optim=constant), 10)
    assert_same_run(tmp_path / "long", tmp_path / "short")


def test_a_step_may_be_without_a_loss(tmp_path):
    run = a_run(tmp_path, linear, replace(OPTIM, schedule="constant", validate_every=100))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    for _ in run.steps(1):
        run.descend(None)
    assert run.step == 1
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_gradients_are_clipped_to_their_norm(tmp_path):
    run = a_run(tmp_path, linear, replace(OPTIM, schedule="constant"))
    for _ in run.steps(1):
        run.descend(1e3 * run.model(torch.ones(1, 64)).square().sum())
    norm = torch.stack([value.grad.norm() for value in run.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1.0, rel=1e-4)


def test_without_an_end_a_run_ends_where_the_loop_does(tmp_path):
    run = a_run(tmp_path, linear, replace(OPTIM, schedule="constant", validate_every=4))
    due = []
    for step in run.steps():
        run.descend(run.model(torch.ones(1, 64)).square().sum())
        due.append(run.validates())
        if step == 8:
            break
    assert due == [step % 4 == 3 for step in range(9)]


# Scalars


def test_a_line_that_was_being_written_is_left_out_and_others_must_be_scalars(tmp_path):
    path = tmp_path / "scalars.jsonl"
    assert read_scalars(path) == []
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_scalars(path) == [{"step": 1, "loss": 2.0}]
    for text in ('{"loss": 1.0}\n', "[1]\n[2]}\n", '{"step": "a"}\n', "hello}\n"):
        path.write_text(text)
        with pytest.raises(InputError, match="scalars.jsonl"):
            read_scalars(path)


def test_scalars_are_json_and_tensorboard_events(unbroken):
    lines = (unbroken / "scalars.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert all(0 <= rate <= 1e-2 for rate in rates) and max(rates) > 5e-3
    assert list((unbroken / "tensorboard").glob("events*"))


# The first step that was not finite


def test_first_bad_is_the_first_step_of_each_value():
    first_bad = FirstBad((3,), CPU)
    for step, values in enumerate([[1, 2, 3], [1, math.nan, 3], [math.inf, 1, 3], [math.nan, math.nan, 3]]):
        first_bad.update(torch.tensor(values), step)
    assert first_bad.steps.tolist() == [2, 1, -1]


# Schedules


def rates(optim):
    model = linear()
    optimizer, scheduler = optim.start(model)
    seen = []
    for _ in range(optim.num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen, optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("fraction", [0.0, 0.2, 1.0])
def test_one_cycle_rises_from_a_25th_to_the_peak_and_ends_at_its_fraction(fraction):
    seen, end = rates(Optim(200, 3e-3, "one-cycle", final_fraction=fraction))
    top = seen.index(max(seen))
    assert seen[0] == pytest.approx(3e-3 / 25) and max(seen) == pytest.approx(3e-3, rel=1e-3)
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert all(later <= before * (1 + 1e-12) for before, later in zip(seen[top:], seen[top + 1 :]))
    assert end == pytest.approx(3e-3 * fraction)


def test_a_constant_rate_stays():
    seen, end = rates(Optim(10, 1e-4))
    assert set(seen) == {1e-4} and end == 1e-4


# What others do to the folder


def test_a_lost_best_checkpoint_comes_back_out_of_the_last_one(unbroken, tmp_path):
    folder = tmp_path / "run"
    train(a_run(folder), 15)
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best["step"] < 15
    (folder / "best.pt").unlink()
    train(a_run(folder), 15)  # finished: no step is left
    again = torch.load(folder / "best.pt", weights_only=True)
    assert list(again) == list(best) and again["step"] == best["step"] and again["best_score"] == best["best_score"]
    for part in ("0", "1"):
        assert all(torch.equal(again[part][name], value) for name, value in best[part].items())
    (folder / "best.pt").unlink()
    train(a_run(folder))
    assert_same_run(unbroken, folder)
    assert torch.load(folder / "best.pt", weights_only=True)["step"] == best["step"]


def test_a_best_checkpoint_that_an_older_last_one_lacks_is_refused_with_the_folder_to_move(tmp_path):
    folder = tmp_path / "run"
    train(a_run(folder), 15)
    saved = torch.load(folder / "last.pt", weights_only=True)
    del saved["best"]
    torch.save(saved, folder / "last.pt")
    train(a_run(folder), 15)  # nothing is lost
    (folder / "best.pt").unlink()
    with pytest.raises(InputError, match=f"best.pt.*move {folder}"):
        a_run(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "5"},
        {"step": -1},
        {"step": 2**60, "since": 0},
        {"since": 6},
        {"best_score": [1.0]},
        {"sums": {"loss": 3.0}},
        {"sums": [1]},
    ],
)
def test_a_checkpoint_that_does_not_say_how_far_the_run_was_is_refused(tmp_path, change):
    train(a_run(tmp_path), 5)
    torch.save({**torch.load(tmp_path / "last.pt", weights_only=True), **change}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="last.pt"):
        a_run(tmp_path)


def test_constants_of_a_checkpoint_are_compared_and_named_however_large_they_are(tmp_path):
    nested = 3
    for _ in range(9):
        nested = [nested] * 10
    for bad in (nested, torch.zeros(3), "a" * 10**6, {"b": nested}):
        with pytest.raises(InputError, match="seed") as refused:
            refuse_other_constants(tmp_path / "last.pt", {"seed": bad}, {"seed": 0})
        assert len(str(refused.value)) < 1600


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_while_a_run_writes_into_it_ends_the_run_in_one_line(tmp_path, replaced):
    folder = tmp_path / "runs" / "run"

    def remove(run):
        if run.step == 7:
            shutil.rmtree(folder.parent)
            if replaced:
                lock_folder(folder / "another")
                (folder / ".lock").write_text("")

    with pytest.raises(InputError, match=str(folder)) as refused:
        train(a_run(folder), after=remove)
    assert "\n" not in str(refused.value) and not (folder / "last.pt").exists()


def test_a_file_where_events_should_go_is_refused_before_training(tmp_path):
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(InputError, match="tensorboard"):
        a_run(tmp_path)
    assert (tmp_path / "tensorboard").read_text() == "mine"


def test_tensorboard_reads_the_scalars_of_a_run(unbroken):
    events = EventAccumulator(str(unbroken / "tensorboard")).Reload()
    for name in ("loss", "half", "val_error"):
        lines = [line for line in read_scalars(unbroken / "scalars.jsonl") if name in line]
        assert [event.step for event in events.Scalars(name)] == [line["step"] for line in lines]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([line[name] for line in lines])
