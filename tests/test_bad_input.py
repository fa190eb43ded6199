"""Bad input, from the command line: one clear line on stderr, exit status 2, nothing written."""

import contextlib
import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from tests import miniature
from training.command_line import run_script

ROOT = Path(__file__).parent.parent
SCRIPTS = (
    "create_nets_dataset_single",
    "train_single_arch",
    "eval_single",
    "interpolate_single_arch",
    "visualize_prep",
)


def run(name, *arguments, cwd):
    """Exit status, stdout and stderr of a script, in this process."""
    script, out, err, argv = importlib.import_module(name), io.StringIO(), io.StringIO(), sys.argv
    sys.argv = [f"{name}.py", *map(str, arguments)]
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(script.main, script.PRESETS, script.__doc__)
        status = 0
    except SystemExit as error:
        status = error.code
    finally:
        sys.argv = argv
    return status, out.getvalue(), err.getvalue()


def check_refusal(status, err, match):
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    for part in match if isinstance(match, tuple) else (match,):
        assert part in lines[0]


def refused(name, *arguments, cwd, match):
    files = {path: path.read_bytes() for path in Path(cwd).rglob("*") if path.is_file()}
    status, _, err = run(name, *arguments, cwd=cwd)
    check_refusal(status, err, match)
    assert files == {path: path.read_bytes() for path in Path(cwd).rglob("*") if path.is_file()}


def test_a_script_of_its_own_process_ends_with_status_2(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "train_single_arch.py"], cwd=tmp_path, capture_output=True, text=True)
    check_refusal(done.returncode, done.stderr, "python create_nets_dataset_single.py photos")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_preset_flag_and_data_set(script, tmp_path):
    refused(script, "cifar11", cwd=tmp_path, match=("cifar11", "photos, cifar10, tiny-imagenet-200"))
    refused(script, "photos", "--no-such-flag", "3", cwd=tmp_path, match=("--no-such-flag", "--help"))


def test_values_of_the_wrong_kind(tmp_path):
    refused("train_single_arch", "--num-epochs", "many", cwd=tmp_path, match=("--num-epochs", "many"))
    refused("train_single_arch", "--meta-batch", "0", cwd=tmp_path, match="--meta-batch 0: must be more than 0")
    refused("create_nets_dataset_single", "--image-batch", "99999", cwd=tmp_path, match=("99999", "6284"))
    refused(
        "create_nets_dataset_single", "--dataset", "no/such/folder", cwd=tmp_path, match=("no/such/folder", "cifar10")
    )
    refused("create_nets_dataset_single", "--architecture", "resnet9", cwd=tmp_path, match=("resnet9", "resnet8"))
    refused("create_nets_dataset_single", "tiny-imagenet-200", cwd=tmp_path, match=("tiny-imagenet-200", "unpack"))


def test_a_script_names_the_one_that_should_have_run_before(tmp_path):
    refused("train_single_arch", cwd=tmp_path, match="python create_nets_dataset_single.py photos")
    refused("eval_single", cwd=tmp_path, match="python create_nets_dataset_single.py photos")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    miniature.run_all(root)
    for split in (root / "lists").rglob("*.txt"):
        split.write_text(split.read_text().replace(f"{root.as_posix()}/", ""))
    return root


@pytest.fixture
def folders():
    return ("--lists-dir", "lists", "--runs-dir", "runs", "--data-dir", "data")


def test_what_is_wrong_with_lists_and_instances_is_said_with_file_and_line(project, folders):
    path = project / "lists/photos/single/test.txt"
    good = path.read_text()
    lines = good.splitlines()
    try:
        path.write_text("")
        refused("eval_single", *folders, cwd=project, match=("test.txt", "empty", "create_nets_dataset_single.py"))
        path.write_text("\n".join([*lines[:2], "resnet8 here"]))
        refused("eval_single", *folders, cwd=project, match=("test.txt, line 3", "resnet8 here"))
        path.write_text("\n".join([*lines[:2], lines[2].replace("seed5", "seed6")]))
        refused("eval_single", *folders, cwd=project, match=("no instance file", "seed6"))
        path.write_text("\n".join([lines[0].replace("d2;d8", "d3;d32")]))
        refused("eval_single", *folders, cwd=project, match=("line 1", "resnet32", "expected resnet8"))
    finally:
        path.write_text(good)


def test_sizes_that_cannot_work_are_refused_before_anything_is_written(project, folders):
    other = ("--runs-dir", "elsewhere", "--lists-dir", "lists")
    refused(
        "train_single_arch",
        *other,
        "--prep-shape",
        "4",
        "640",
        cwd=project,
        match=("4x640", "2,560", "5,058", "at least 8"),
    )
    refused("train_single_arch", *other, "--emb-size", "1000", cwd=project, match=("1000", "32"))
    refused("visualize_prep", *folders, "--instance", "4", cwd=project, match=("--instance 4", "0 to 3"))
    refused("interpolate_single_arch", *folders, "--num-points", "1", cwd=project, match="at least 2")


def test_a_broken_checkpoint_is_named(project, folders):
    best = project / "runs/photos/single/best.pt"
    good = best.read_bytes()
    try:
        best.write_bytes(good[:1000])
        refused("eval_single", *folders, cwd=project, match=("best.pt", "train_single_arch.py"))
    finally:
        best.write_bytes(good)


def test_help_shows_presets_and_constants(tmp_path):
    status, out, _ = run("train_single_arch", "cifar10", "--help", cwd=tmp_path)
    assert not status
    assert "--meta-batch" in out and "tiny-imagenet-200" in out and "8 10000" in out
