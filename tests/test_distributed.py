"""Several ranks against one: gradients in the same sums, instances bit for bit, also when a rank is killed."""

import contextlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.instance_files import read_instance
from models.errors import InputError
from tests import ranks
from tests.projects import folder_of_run, once, patch_photos
from training import runtime, zoo
from training.constants import SideBySide
from training.distributed import rank_slice
from training.zoo import Zoo, plan_instances

ROOT = Path(__file__).parent.parent
SECONDS = 900  # after which a test counts as hanging


@dataclass(frozen=True)
class Config:
    """What Zoo reads of a script's config."""

    sides: SideBySide
    seed: int = 0


def start(cwd, *command, **environment):
    """Run a command, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS
    )


def torchrun(cwd, number, *command, **environment):
    options = ("--standalone", "--nproc-per-node", number, "--max-restarts", 2, "--monitor-interval", 0.1)
    return start(cwd, "-m", "torch.distributed.run", *options, *command, **environment)


def check(done):
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def root(project_folder, tmp_path_factory):
    """Return a copy of the project, and in its `1` what one rank makes of every job."""

    def make(root):
        threads = torch.get_num_threads()
        for name in ("lists", "runs/photos/nets", "runs/chairs/nets"):
            shutil.copytree(project_folder / name, root / name)
        torch.set_num_threads(1)
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root):
            patch_photos(patch)
            for job in (*ranks.INSTANCES, *ranks.NET_SPACES):
                ranks.run_job(job, Path(), Path("1"))
        torch.set_num_threads(threads)

    root = folder_of_run(tmp_path_factory) / "ranks"
    once(root, make)
    return root


def file_of(runs, job, name):
    (path,) = (runs / job).rglob(name)
    return path


def check_net_space(job, runs, reference):
    """Parameters agree to 1e-5 after 20 steps at rate 1e-4, gradients' running means to 1e-4 of their norm.

    Adam makes a step of up to the rate out of a gradient that is nothing but rounding: one parameter in 10,000 may
    differ by that much.
    """
    few, one = (torch.load(file_of(folder, job, "last.pt"), weights_only=True) for folder in (runs, reference))
    assert few["step"] == one["step"] == 20
    difference = torch.cat([(few[key][name] - one[key][name]).abs().flatten() for key in "01" for name in one[key]])
    assert difference.max() < 1e-4
    assert (difference > 1e-5).sum() <= len(difference) / 10_000
    means, expected = (
        torch.cat([entry["exp_avg"].flatten() for entry in saved["2"]["state"].values()]) for saved in (few, one)
    )
    assert (means - expected).norm() < 1e-4 * expected.norm()
    lines, expected_lines = (
        [json.loads(line) for line in file_of(folder, job, "scalars.jsonl").read_text().splitlines()]
        for folder in (runs, reference)
    )
    assert [line["step"] for line in lines] == [10, 20]
    for line, expected_line in zip(lines, expected_lines):
        assert line == pytest.approx(expected_line, rel=1e-4, abs=1e-6)


def check_instances(job, runs, reference):
    expected = sorted((reference / job / "runs").rglob("seed*.safetensors"))
    found = sorted((runs / job / "runs").rglob("seed*"))
    assert expected and [path.relative_to(runs) for path in found] == [path.relative_to(reference) for path in expected]
    for path, other in zip(found, expected):
        (state, facts), (expected_state, expected_facts) = read_instance(path), read_instance(other)
        assert facts | {"versions": None} == expected_facts | {"versions": None}  # of a commit that was made meanwhile
        assert all(torch.equal(state[name], expected_state[name]) for name in expected_state)
    lists, expected_lists = (
        {path.relative_to(folder / job): path.read_text() for path in (folder / job / "lists").rglob("*.txt")}
        for folder in (runs, reference)
    )
    assert lists == {
        name: text.replace(f"{reference.name}/{job}", f"{runs.name}/{job}") for name, text in expected_lists.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "jobs"),
    [
        (2, ("single", "multi", "missing", "mlps")),
        (4, ("single", "single of 3", "weights", "both", "multi of 5", "multi")),
    ],
)
def test_net_spaces_of_several_ranks_are_those_of_one(root, number, jobs):
    """Meta-batches of 2 to 8 targets, with and without boundary pairs: some ranks have no part of some."""
    check(start(root, ROOT / "tests/ranks.py", number, ".", number, *jobs))
    for job in jobs:
        check_net_space(job, root / str(number), root / "1")


@pytest.mark.slow
def test_instances_of_several_ranks_are_those_of_one(root):
    check(start(root, ROOT / "tests/ranks.py", 3, ".", 3, *ranks.INSTANCES))
    for job in ranks.INSTANCES:
        check_instances(job, root / "3", root / "1")


@pytest.mark.slow
def test_ranks_that_are_killed_are_started_again(root):
    """Of two: once in the second of its stacks of instances, and once when NetSpace is in its second validation."""
    jobs = [*ranks.INSTANCES, "multi"]
    command = (ROOT / "tests/ranks.py", ".", "killed", *jobs)
    done = check(torchrun(root, 2, *command, DIE_AT_STEP="45", DIE_AT_LOSS="15"))
    assert done.stderr.count("(exitcode: -9)") == 2
    for job in ranks.INSTANCES:
        check_instances(job, root / "killed", root / "1")
    check_net_space("multi", root / "killed", root / "1")


@pytest.mark.slow
def test_ranks_that_do_not_see_the_same_files_are_refused(root):
    """As on two machines without a shared folder."""
    for name in ("last.pt", "scalars.jsonl"):
        source = file_of(root / "1", "single", name)
        target = root / "machine 0" / source.relative_to(root / "1")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    done = start(root, ROOT / "tests/ranks.py", 2, ".", "machine RANK", "single")
    assert done.returncode == 2
    for rank in (0, 1):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"error (rank {rank}): ")]
        assert "20, 0" in line and "--runs-dir" in line


@pytest.mark.slow
def test_a_script_from_the_command_line(root):
    sizes = ("--prep-shape", 8, 640, "--emb-size", 256, "--grid", 16, "--row-length", 64, "--row-channels", 32)
    folders = ("--lists-dir", "lists", "--runs-dir", "command line")
    flags = (*sizes, *folders, "--num-steps", 6, "--image-batch", 1024)
    done = check(torchrun(root, 2, ROOT / "train_single_arch.py", "photos", *flags))
    assert done.stdout.count("6 steps: ") == 1
    assert json.loads(file_of(root, "command line", "scalars.jsonl").read_text())["step"] == 6


@pytest.mark.parametrize("script", ["train_latspace_single", "train_latspace_multi", "eval_single", "visualize_prep"])
def test_what_is_not_split_leaves_the_work_to_the_first_rank(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with contextlib.chdir(tmp_path):
        monkeypatch.setenv("RANK", "1")
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
        assert capsys.readouterr() == ("", "")
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(SystemExit, match="2"):
            runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert capsys.readouterr().err.startswith("error (rank 0): ")


@given(st.integers(1, 9), st.integers(0, 40))
def test_ranks_have_every_element_once_and_evenly_many(number, items):
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(number))
        for rank in range(number):
            patch.setenv("RANK", str(rank))
            parts.append(list(range(items))[rank_slice()])
    assert sorted(sum(parts, [])) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 5), st.integers(1, 12), st.integers(1, 6))
def test_ranks_train_every_instance_once(number, instances, side_by_side):
    """Each in the same stack as with one rank, whatever the ranks: its last bits depend on those beside it."""

    def stacks(of_ranks):
        found = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zoo, "lock_folder", lambda folder: None)
            patch.setenv("WORLD_SIZE", str(of_ranks))
            for rank in range(of_ranks):
                patch.setenv("RANK", str(rank))
                found += [
                    [plan.index for plan in stack.plans]
                    for stack in Zoo(Config(SideBySide(side_by_side))).stacks(plans)
                ]
        return sorted(found)

    plans = plan_instances(instances, [1, 2], Path("nowhere"), {}, seed=0)
    assert stacks(number) == stacks(1)
    assert sorted(sum(stacks(number), [])) == list(range(instances))
    assert max(map(len, stacks(number))) <= side_by_side


def test_the_first_rank_does_not_wait_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "PATIENCE", 0)
    with pytest.raises(InputError, match="2 instances are missing"):
        Zoo(Config(SideBySide(checkpoint_seconds=0))).wait(plan_instances(2, [1], tmp_path, {}, seed=0))


SLEEPER = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from training.command_line import run_script
from training.runtime import lock_folder

@dataclass
class Config:
    seconds: int = 600

def main(config):
    if os.environ["RANK"] == "0":
        lock_folder(Path("run"))
    Path(f"{os.environ['RANK']}.pid").write_text(str(os.getpid()))
    time.sleep(config.seconds)

run_script(main, {"all": Config()}, "", split_over_ranks=True)
"""


@pytest.mark.slow
def test_ranks_end_when_torchrun_is_killed_and_release_their_lock(tmp_path, monkeypatch):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    options = ("--standalone", "--nproc-per-node", "2", "sleeper.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = [tmp_path / f"{rank}.pid" for rank in range(2)]

    def wait_until(true, seconds=SECONDS):
        since = time.monotonic()
        while not true():
            assert time.monotonic() - since < seconds
            time.sleep(0.1)

    wait_until(lambda: all(path.is_file() and path.read_text() for path in pids))
    agent.kill()
    agent.wait()
    processes = [int(path.read_text()) for path in pids]
    try:
        wait_until(lambda: not any(map(is_running, processes)), 120)
    finally:
        for process in filter(is_running, processes):
            os.kill(process, signal.SIGKILL)
    monkeypatch.setattr(runtime, "LOCKS", {})
    runtime.lock_folder(tmp_path / "run")


def is_running(process):
    """Return whether a process runs; one that has ended may wait for a parent who takes note."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
