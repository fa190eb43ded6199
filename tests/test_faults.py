"""Scripts that are killed and run again leave what an unbroken run leaves; one run a folder; a full disk."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from data import files
from data.files import remove_leftovers, write_text, written_whole
from data.instance_files import save_instance
from models.errors import InputError
from tests.faults import SCRIPTS
from tests.test_run import a_run, train
from training import runtime
from training.checkpoints import save_checkpoint
from training.runtime import (
    Interrupted,
    deferred_signals,
    handled_signals,
    lock_folder,
    stop,
    stop_requested,
)

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def check_killed(folder, kills, seed, *names):
    command = [sys.executable, "-m", "tests.faults", folder, kills, seed, *names]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert done.stdout.count(f"{name}: killed")


@pytest.mark.slow
def test_killed_scripts_end_as_unbroken_ones(tmp_path):
    """Instances, NetSpace, SIRENs: the quick form."""
    check_killed(tmp_path / "all", 1, 3, "create_nets_dataset_single", "train_single_arch", "create_mlp_dataset")


@pytest.mark.long
def test_every_script_killed_at_20_moments_ends_as_an_unbroken_one(tmp_path):
    check_killed(tmp_path / "all", 20, 4, *SCRIPTS)


# Signals


def test_a_signal_that_was_waited_for_is_obeyed_between_steps():
    done = 0
    with pytest.raises(Interrupted), handled_signals(), deferred_signals():
        for done in range(5):
            if stop_requested():
                stop()
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert done == 3


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt), handled_signals(), deferred_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


# Files


@contextlib.contextmanager
def full_disk(num_bytes):
    """Let no file grow beyond that: the system refuses to write on, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["checkpoint", "instance", "text"])
def test_a_full_disk_leaves_the_old_file_and_the_message_names_it(tmp_path, kind):
    path, state = tmp_path / "file.safetensors", {"a": torch.zeros(100_000)}
    write = {
        "checkpoint": lambda: save_checkpoint(path, state),
        "instance": lambda: save_instance(path, state, {}),
        "text": lambda: write_text(path, 400_000 * "a"),
    }[kind]
    path.write_bytes(b"old")
    with (
        full_disk(100_000),
        pytest.raises(InputError, match="file.safetensors") as full,
    ):
        write()
    assert "\n" not in str(full.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write()
    assert path.stat().st_size >= 400_000


def test_a_file_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    order, path = [], tmp_path / "file.txt"
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync") or fsync(descriptor))
    monkeypatch.setattr(os, "replace", lambda *arguments: order.append("replace") or replace(*arguments))
    write_text(path, "new")
    assert order == ["fsync", "replace", "fsync"] and path.read_text() == "new"


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    host = files.socket.gethostname()
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    left = [tmp_path / f".a.txt.partial-{host}-{process}.txt" for process in (child.pid, os.getpid())]
    left.append(tmp_path / f".a.txt.partial-another-{child.pid}.txt")
    for path in left:
        path.write_text("half")
    remove_leftovers(tmp_path / "a.txt")
    assert [path.is_file() for path in left] == [False, True, True]


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"), written_whole(tmp_path / "file/a.txt"):
        pass


@pytest.mark.parametrize("full", ["scalars.jsonl", "tensorboard", "last.pt"])
def test_a_disk_that_fills_while_training_ends_the_run_with_the_file_and_a_checkpoint(tmp_path, full):
    """Each file alone: a file of its size is there before, which must not grow."""
    run = a_run(tmp_path)
    train(run, 5)
    before = torch.load(tmp_path / "last.pt", weights_only=True)["step"]
    events = next((tmp_path / "tensorboard").iterdir())
    path = {"tensorboard": events}.get(full, tmp_path / full)
    size = 1000 if full == "last.pt" else path.stat().st_size
    if full == "tensorboard":  # scalars.jsonl, which is written first, is the smaller one then
        events.write_bytes(events.read_bytes() + bytes(1000))
        size += 1000
    threads = threading.active_count()
    with full_disk(size), pytest.raises(InputError, match=path.name) as refused:
        train(run, 10)
    assert "\n" not in str(refused.value) and threading.active_count() == threads
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == before
    train(a_run(tmp_path), 10)


# One run a folder

LOCK = """
from pathlib import Path
from training.runtime import lock_folder
lock_folder(Path("{}"))
print("locked", flush=True)
input()
"""


def locker(folder):
    """Start a process that locks a folder."""
    command = [sys.executable, "-c", LOCK.format(folder)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone_however_that_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "LOCKS", {})
    first = locker(tmp_path)
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"process {first.pid} on .* since 20.*--runs-dir") as refused:
        lock_folder(tmp_path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)
    assert f"process {first.pid} " in (tmp_path / ".locked-by").read_text()
    lock_folder(tmp_path / "another")
    first.kill()
    first.wait()
    lock_folder(tmp_path)
    lock_folder(tmp_path)  # the same process: a second time is nothing new
    assert (tmp_path / ".locked-by").read_text().startswith(f"process {os.getpid()} ")
    second = locker(tmp_path)
    assert f"process {os.getpid()} " in second.communicate()[1] and second.returncode


@pytest.mark.parametrize("text", [b"\x1b[31m" + 10**6 * b"a\n", b"\xff\xfe", None])
def test_what_a_lock_says_of_its_process_is_bounded_and_escaped(tmp_path, monkeypatch, text):
    monkeypatch.setattr(runtime, "LOCKS", {})
    os.mkfifo(tmp_path / ".locked-by") if text is None else (tmp_path / ".locked-by").write_bytes(text)
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another run") as refused:
        lock_folder(tmp_path)
    assert len(str(refused.value)) < 1000 and str(refused.value).isprintable()


def test_a_lock_whose_process_is_not_known_yet_is_refused_too(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "LOCKS", {})
    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another run"):
        lock_folder(tmp_path)


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def not_implemented(self):
        raise NotImplementedError

    monkeypatch.setattr(runtime, "LOCKS", {})
    monkeypatch.setattr(runtime.FileLock, "acquire", not_implemented)
    lock_folder(tmp_path / "new")
    assert not runtime.LOCKS
