"""Several ranks against one: gradients in the same sums, instances bit for bit, also where a rank is killed."""

import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
from data import load
from data.instance_files import read_instance
from data.plans import plan_instances
from models.errors import InputError
from tests import miniature, ranks
from training import stacks
from training.distributed import share

ROOT = Path(__file__).parent.parent
SECONDS = 900  # after which a test counts as hanging


def start(*command, **environment):
    """Runs a command from the project's folder, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )


def torchrun(number, *command, **environment):
    options = ("--standalone", "--nproc-per-node", number, "--max-restarts", 2, "--monitor-interval", 0.1)
    return start("-m", "torch.distributed.run", *options, *command, **environment)


def check(done):
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Instances of both kinds, and in `1` what one rank makes of every job."""
    root, threads = tmp_path_factory.mktemp("ranks"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())
        create_nets_dataset_single.main(miniature.create_config(root))
        create_nets_dataset_multi.main(miniature.create_multi_config(root, **ranks.FEW))
        create_mlp_dataset.main(miniature.create_mlp_config(root))
        for job in (*ranks.INSTANCES, *ranks.NET_SPACES):
            ranks.run_job(job, root, root / "1")
    torch.set_num_threads(threads)
    return root


def file_of(runs, job, name):
    (path,) = (runs / job).rglob(name)
    return path


def check_net_space(job, runs, reference):
    """Parameters agree to 1e-5 after 20 steps at rate 1e-4, gradients' running means to 1e-4 of their norm.

    Adam makes a step of up to the rate out of a gradient that is nothing but rounding: one parameter in 10,000 may differ
    by that much.
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
    assert [path.relative_to(runs) for path in found] == [path.relative_to(reference) for path in expected]
    for path, other in zip(found, expected):
        (state, facts), (expected_state, expected_facts) = read_instance(path), read_instance(other)
        assert facts | {"versions": None} == expected_facts | {"versions": None}  # of a commit that was made meanwhile
        assert all(torch.equal(state[name], expected_state[name]) for name in expected_state)
    lists, expected_lists = (
        {path.relative_to(folder / job): path.read_text() for path in (folder / job / "lists").rglob("*.txt")}
        for folder in (runs, reference)
    )
    assert lists == {name: text.replace(f"{reference}/", f"{runs}/") for name, text in expected_lists.items()}


@pytest.mark.parametrize(
    ("number", "jobs"),
    [(2, ("single", "multi", "missing", "mlps")), (4, ("single", "single of 3", "weights", "multi of 5", "multi"))],
)
def test_net_spaces_of_several_ranks_are_those_of_one(root, number, jobs):
    """Meta-batches of 2 to 8 targets, with and without boundary pairs: some ranks have no part of some."""
    check(start("tests/ranks.py", number, root, root / str(number), *jobs))
    for job in jobs:
        check_net_space(job, root / str(number), root / "1")


def test_instances_of_several_ranks_are_those_of_one(root):
    check(start("tests/ranks.py", 3, root, root / "3", *ranks.INSTANCES))
    for job in ranks.INSTANCES:
        check_instances(job, root / "3", root / "1")


def test_ranks_that_are_killed_are_started_again(root):
    """Of two: once in the second of its stacks of instances, and once when NetSpace is in its second epoch."""
    jobs, runs = [*ranks.INSTANCES, "multi"], root / "killed"
    done = check(torchrun(2, "tests/ranks.py", root, runs, *jobs, DIE_AT_STEP="45", DIE_AT_LOSS="15"))
    assert done.stderr.count("(exitcode: -9)") == 2
    for job in ranks.INSTANCES:
        check_instances(job, runs, root / "1")
    check_net_space("multi", runs, root / "1")


def test_ranks_that_do_not_see_the_same_files_are_refused(root):
    """As on two machines without a shared folder."""
    for name in ("last.pt", "scalars.jsonl"):
        place = root / "machine 0" / file_of(root / "1", "single", name).relative_to(root / "1")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file_of(root / "1", "single", name), place)
    done = start("tests/ranks.py", 2, root, root / "machine RANK", "single")
    assert done.returncode == 2
    for rank in (0, 1):
        assert (
            f"error (rank {rank}): ranks go on from steps 20, 0; give all machines the same --runs-dir" in done.stderr
        )


def test_a_script_from_the_command_line(root):
    sizes = ("--prep-shape", 8, 640, "--emb-size", 256, "--grid", 16, "--row-length", 64, "--row-channels", 32)
    folders = ("--lists-dir", root / "lists", "--runs-dir", root / "command line")
    flags = (*sizes, *folders, "--num-epochs", 1, "--image-batch", 1024)
    done = check(torchrun(2, "train_single_arch.py", "photos", *flags))
    assert done.stdout.count("1 epochs: on validation") == 1
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


@pytest.mark.parametrize(("number", "items"), [(1, 5), (2, 5), (4, 8), (4, 2)])
def test_shares_are_parts_of_the_whole(monkeypatch, number, items):
    monkeypatch.setenv("WORLD_SIZE", str(number))
    parts = []
    for rank in range(number):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(list(range(items))[share()])
    assert sorted(sum(parts, [])) == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_first_rank_does_not_wait_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "PATIENCE", 0)
    with pytest.raises(InputError, match="2 instances are missing"):
        stacks.wait_for_instances(plan_instances(2, [1], tmp_path, {}, seed=0), checkpoint_seconds=0)
