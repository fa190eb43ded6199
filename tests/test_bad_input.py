"""Bad input, from the command line: one clear line on stderr, exit status 2, nothing written."""

from training.command_line import run_script

import contextlib
import dataclasses
import importlib
import io
import math
import shlex
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.errors import InputError
from models.target_nets import architectures_by_class_id
from tests.projects import changed_text
from training.constants import check_limits, limits_in

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "run_script(main" in path.read_text(encoding="utf-8"))
FOLDERS = ("--lists-dir", "lists", "--runs-dir", "runs", "--data-dir", "data")
ELSEWHERE = ("--lists-dir", "lists", "--runs-dir", "elsewhere", "--data-dir", "data")
POOL = [architecture.name for architecture in architectures_by_class_id()]


def run(name, *arguments, cwd):
    """Return exit status, stdout and stderr of a script, run in this process."""
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
    files = files_in(cwd)
    status, _, err = run(name, *arguments, cwd=cwd)
    check_refusal(status, err, match)
    assert files == files_in(cwd)


def files_in(folder):
    """Return when files were written and how large they are, but for locks."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file() and path.name not in (".lock", ".locked-by")]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


# The command line


def test_a_script_of_its_own_process_ends_with_status_2(tmp_path):
    command = [sys.executable, ROOT / "train_single_arch.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    check_refusal(done.returncode, done.stderr, "python create_nets_dataset_single.py photos")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_preset_and_flag(script, tmp_path):
    presets = list(importlib.import_module(script).PRESETS)
    refused(script, "cifar11", cwd=tmp_path, match=("cifar11", *presets))
    refused(script, presets[0], "--no-such-flag", "3", cwd=tmp_path, match=("--no-such-flag", "--help"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_debug_shows_the_traceback_and_the_same_status(script, tmp_path):
    status, _, err = run(script, "--debug", "no-such-preset", cwd=tmp_path)
    assert status == 2 and err.startswith("Traceback") and err.splitlines()[-1].startswith("error: ")


def test_what_should_not_happen_is_one_line_with_status_1(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("eval_single"), "load_experiment", lambda config: 1 / 0)
    status, _, err = run("eval_single", cwd=tmp_path)
    (line,) = err.splitlines()
    assert status == 1 and line.startswith("error: ZeroDivisionError: ") and "--debug" in line
    status, _, err = run("eval_single", "--debug", cwd=tmp_path)
    assert status == 1 and err.startswith("Traceback") and "in main" in err


def test_help_shows_presets_and_constants(tmp_path):
    status, out, _ = run("train_single_arch", "cifar10", "--help", cwd=tmp_path)
    assert not status
    assert "--meta-batch" in out and "tiny-imagenet-200" in out and "8 10000" in out


def numbers(config):
    """Yield the config, or the group in it, and the name of every number, with the limits in its type."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and field.name != "sizes":  # whose limits depend on each other
            yield from numbers(value)
        parts = {hints[field.name], *typing.get_args(hints[field.name])}
        parts |= {each for part in parts for each in typing.get_args(part)}
        if parts & {int, float} and bool not in parts:
            yield config, field.name, list(limits_in(hints[field.name]))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_number_has_limits_and_those_outside_are_refused_by_their_flag(script):
    for preset in importlib.import_module(script).PRESETS.values():
        check_limits(preset)
        for group, name, limits in numbers(preset):
            assert limits, f"{name} has no limits"
            low, flag = limits[0].low, f"--{name.replace('_', '-')} "
            several = isinstance(getattr(group, name), tuple)
            for bad in (low if limits[0].above else low - 1, math.nan):
                with pytest.raises(InputError, match=f"^{flag}.*{low}"):
                    check_limits(dataclasses.replace(group, **{name: (bad,) if several else bad}))
            good = 1 if limits[0].above else low
            check_limits(dataclasses.replace(group, **{name: (good,) if several else good}))


def test_values_of_the_wrong_kind(tmp_path):
    refused("train_single_arch", "--num-steps", "many", cwd=tmp_path, match=("--num-steps", "many"))
    refused("train_single_arch", "--objective", "logits", cwd=tmp_path, match=("--objective", "logits"))
    refused("train_mlps", "--precision", "float16", cwd=tmp_path, match=("--precision", "float16"))
    refused("compare_objectives", "--num-gammas", "1", cwd=tmp_path, match=("--num-gammas 1", "2"))
    refused("train_single_arch", "--meta-batch", "0", cwd=tmp_path, match=("--meta-batch 0", "1"))
    refused("create_nets_dataset_single", "--image-batch", "99999", cwd=tmp_path, match=("99999", "6284"))
    missing = ("no/such/folder", "cifar10")
    refused("create_nets_dataset_single", "--dataset", "no/such/folder", cwd=tmp_path, match=missing)
    refused("create_nets_dataset_single", "--architecture", "resnet9", cwd=tmp_path, match=("resnet9", "resnet8"))
    refused("create_nets_dataset_single", "--lengths", cwd=tmp_path, match=("--lengths", "at least one"))
    refused("create_nets_dataset_single", "tiny-imagenet-200", cwd=tmp_path, match=("tiny-imagenet-200", "unpack"))


def test_values_of_several_architectures(tmp_path):
    refused("train_multi_arch", "--setting", "some", cwd=tmp_path, match=("--setting", "some"))
    three = ("--setting", "missing", "--meta-batch", "3")
    refused("train_multi_arch", *three, cwd=tmp_path, match=("--meta-batch 3", "pairs"))
    create, each = "create_nets_dataset_multi", ["4"] * len(POOL)
    few = ("--num-train", *each[1:])
    refused(create, *few, cwd=tmp_path, match=(f"{len(POOL) - 1} numbers", f"give {len(POOL)}", "lenetlike"))
    many = ("--num-train", *each, "--num-epochs", *each, "--num-train-missing", "4", "99")
    refused(create, *many, cwd=tmp_path, match=("--num-train-missing 99", "fewer"))
    refused(create, "--teacher", "resnet57", cwd=tmp_path, match=("resnet57", "resnet56"))


def test_nets_that_come_in_and_go_out(tmp_path):
    refused("export", cwd=tmp_path, match=("runs/photos/single/best.pt", "train_single_arch.py"))
    refused("export", "--what", "everything", cwd=tmp_path, match=("--what", "everything"))
    refused("export", "--formats", "h5", cwd=tmp_path, match=("--formats", "h5"))
    refused("export", "--gamma", "1.5", cwd=tmp_path, match="--gamma 1.5")
    refused("import_instances", cwd=tmp_path, match="--source")
    refused("import_instances", "--source", "nowhere", cwd=tmp_path, match="--source nowhere")
    refused("import_instances", "chairs", "--num-test", "0", cwd=tmp_path, match="--num-test 0")


# What should be there before


def test_a_script_names_the_one_that_should_have_run_before(tmp_path):
    create = "python create_nets_dataset_single.py photos"
    for script in ("train_single_arch", "eval_single", "compare_objectives", "train_latspace_single"):
        refused(script, cwd=tmp_path, match=create)
    for script in ("train_mlps", "interpolate_mlps"):
        refused(script, cwd=tmp_path, match="python create_mlp_dataset.py chairs")
    of_several = (
        "eval_multi",
        "interpolate_multi_arch",
        "visualize_prep",
        "train_latspace_multi",
        "eval_latspace_multi",
    )
    for setting in ("multi", "missing"):
        for script in ("train_multi_arch", *of_several):
            made_by = "python create_nets_dataset_multi.py photos"
            refused(script, "--setting", setting, cwd=tmp_path, match=made_by)


def test_a_script_names_the_training_that_should_have_run_before(project):
    for setting in ("multi", "missing"):
        of_several = ("eval_multi", "interpolate_multi_arch", "visualize_prep", "train_latspace_multi")
        for script in (*of_several, "eval_latspace_multi"):
            made_by = f"python train_multi_arch.py photos --setting {setting}"
            refused(script, *ELSEWHERE, "--setting", setting, cwd=project, match=made_by)
    for script in ("eval_single", "interpolate_single_arch", "visualize_prep", "train_latspace_single"):
        refused(script, *ELSEWHERE, cwd=project, match="python train_single_arch.py photos")
    refused("interpolate_mlps", *ELSEWHERE, "--num-pairs", "1", cwd=project, match="python train_mlps.py chairs")
    best = ("--checkpoint", "runs/photos/multi/best.pt")
    made_by = "python train_latspace_multi.py photos"
    refused("eval_latspace_multi", *ELSEWHERE, *best, cwd=project, match=made_by)


def test_a_data_set_of_ones_own_is_told_apart_from_a_preset(tmp_path):
    refused("eval_single", "faces", cwd=tmp_path, match=("unknown preset 'faces'", "--dataset"))
    for name in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "faces" / name / label
            folder.mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(folder / f"{i}.png")
    made_by = "python create_nets_dataset_single.py with the preset and --dataset of faces"
    refused("train_single_arch", "cifar10", "--dataset", "faces", "--image-batch", "4", cwd=tmp_path, match=made_by)


def test_what_is_wrong_with_lists_and_instances_is_named_with_file_and_line(own_project):
    path = own_project / "lists/photos/single/test.txt"
    lines = path.read_text().splitlines()
    for text, match in (
        ("", ("test.txt", "empty", "create_nets_dataset_single.py")),
        ("\n".join([*lines[:2], "resnet8 here"]), ("test.txt, line 3", "resnet8 here")),
        ("\n".join([*lines[:2], lines[2].replace("seed5", "seed6")]), ("no instance file", "seed6")),
        (lines[0].replace("d2;d8", "d3;d32"), ("line 1", "expected resnet8", "--architecture resnet32")),
    ):
        with changed_text(path, text):
            refused("eval_single", *FOLDERS, cwd=own_project, match=match)


def test_what_is_wrong_with_lists_of_several_architectures(own_project):
    lists = own_project / "lists/photos"
    made_by = "python create_nets_dataset_multi.py photos"
    train, missing = ("train_multi_arch", *ELSEWHERE), ("--setting", "missing")
    with changed_text(lists / "multi/teacher.txt", None):
        refused(*train, cwd=own_project, match=("teacher.txt", made_by))
    with changed_text(lists / "multi/teacher.txt", 2 * (lists / "multi/teacher.txt").read_text()):
        refused(*train, cwd=own_project, match=("teacher.txt, line 2", "one teacher"))
    with changed_text(lists / "missing/val.txt", None):
        refused(*train, *missing, cwd=own_project, match=("missing/val.txt", made_by))
    both = (lists / "missing/train.txt").read_text()
    with changed_text(lists / "missing/train.txt", both.splitlines()[0]):
        match = ("missing/train.txt", POOL[0], POOL[-1])
        refused(*train, *missing, cwd=own_project, match=match)
    with changed_text(lists / "missing/train.txt", (lists / "multi/train.txt").read_text()):
        refused(*train, *missing, cwd=own_project, match=("missing/train.txt", *POOL))
    number = len(both.splitlines()) + 1
    with changed_text(lists / "multi/train.txt", both + "resnet_fusedbn;d56;sphotos;t.pt\n"):
        refused(*train, cwd=own_project, match=(f"multi/train.txt, line {number}", "resnet56"))
    with changed_text(lists / "multi/test.txt", both.splitlines()[0]):
        refused("interpolate_multi_arch", *FOLDERS, cwd=own_project, match=f"no {POOL[-1]}")
    many = ("--per-class", "3")
    refused("train_latspace_multi", *FOLDERS, *many, cwd=own_project, match=("--per-class 3", f"2 {POOL[0]}"))
    multi = ("--setting", "multi", "--instance", "99")
    refused("visualize_prep", *FOLDERS, *multi, cwd=own_project, match=f"0 to {2 * len(POOL) - 1}")


# Checkpoints and sizes


def test_a_single_architecture_checkpoint_has_no_classifier(project):
    path = "runs/photos/single/best.pt"
    refused("eval_multi", *FOLDERS, "--checkpoint", path, cwd=project, match=(path, "arch_", "missing"))


def test_sizes_that_cannot_work_are_refused_before_anything_is_written(project):
    small = ("--prep-shape", "4", "640")
    refused("train_single_arch", *ELSEWHERE, *small, cwd=project, match=("4x640", "2,560", "5,058", "at least 8"))
    refused("train_single_arch", *ELSEWHERE, "--emb-size", "1000", cwd=project, match=("1000", "32"))
    refused("train_multi_arch", *ELSEWHERE, "--prep-shape", "8", "640", cwd=project, match=("8x640", "29,474"))
    refused("visualize_prep", *FOLDERS, "--instance", "4", cwd=project, match=("--instance 4", "0 to 3"))
    refused("train_latspace_single", *FOLDERS, "--instance", "4", cwd=project, match=("--instance 4", "0 to 3"))
    refused("interpolate_single_arch", *FOLDERS, "--num-points", "1", cwd=project, match=("--num-points 1", "2"))


def test_a_broken_checkpoint_is_named(own_project):
    best = own_project / "runs/photos/single/best.pt"
    best.write_bytes(best.read_bytes()[:1000])
    refused("eval_single", *FOLDERS, cwd=own_project, match=("best.pt", "train_single_arch.py"))


def test_objectives_are_compared_only_where_both_were_trained_alike(own_project):
    compare, train = ("compare_objectives", *FOLDERS), "python train_single_arch.py photos --objective weights"
    weights = own_project / "runs/photos/weights"
    for name in ("best.pt", "last.pt"):
        (weights / name).rename(weights / f"{name} elsewhere")
        refused(*compare, cwd=own_project, match=("no checkpoint", f"runs/photos/weights/{name}", train))
        (weights / f"{name} elsewhere").rename(weights / name)
    saved = torch.load(weights / "last.pt", weights_only=True)
    for changes, match in (
        ({"step": 7}, ("photos/weights was trained with steps 7", "photos/single with 48")),
        ({"constants": {**saved["constants"], "seed": 3}}, ("photos/weights was trained with seed 3", "with 0")),
        ({"constants": None}, ("weights/last.pt", train)),
    ):
        torch.save({**saved, **changes}, weights / "last.pt")
        refused(*compare, cwd=own_project, match=match)


# Streams, signals, ranks: processes of their own


def a_script(*arguments, cwd, closed="", **pipes):
    """Start train_single_arch.py in a process, with streams closed as the shell does, as in "2>&-"."""
    command = shlex.join([sys.executable, str(ROOT / "train_single_arch.py"), *arguments])
    return subprocess.Popen(["sh", "-c", f"exec {command} {closed}"], cwd=cwd, **{"stderr": subprocess.PIPE, **pipes})


@pytest.mark.slow
def test_help_into_a_pipe_that_closes_ends_without_a_word(tmp_path):
    script = a_script("--help", cwd=tmp_path, stdout=subprocess.PIPE)
    script.stdout.close()
    assert script.stderr.read() == b"" and script.wait() in (0, 141)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path, closed):
    script = a_script(cwd=tmp_path, closed=closed, stdout=subprocess.PIPE)
    out, err = script.communicate()
    assert script.returncode == 2 and out == b"" and not list(tmp_path.iterdir())
    assert err == b"" if "2>" in closed else err.startswith(b"error: ") and err.count(b"\n") == 1


@pytest.mark.slow
def test_ctrl_c_while_imports_run_is_at_most_one_line(tmp_path):
    for seconds in (0.3, 0.6, 1.0, 2.0):
        script = a_script("--help", cwd=tmp_path, stdout=subprocess.DEVNULL)
        environ = Path(f"/proc/{script.pid}/maps")
        while script.poll() is None and "libtorch" not in environ.read_text() and "_bz2" not in environ.read_text():
            time.sleep(0.01)  # until the script's imports have begun, however busy the machine is
        time.sleep(seconds / 4)
        script.send_signal(signal.SIGINT)
        _, err = script.communicate()
        assert script.returncode in (0, 130) and err.count(b"\n") <= 1 and b"Traceback" not in err


def test_what_is_printed_is_escaped_and_bounded(tmp_path, monkeypatch):
    def main(config):
        print("a\x1b[31m\udcff b\n± γ")
        raise RuntimeError("\x1b[2J" + 10**6 * "a")

    monkeypatch.setattr(importlib.import_module("eval_single"), "main", main)
    status, out, err = run("eval_single", cwd=tmp_path)
    assert status == 1 and out == "a\\x1b[31m\\udcff b\n± γ\n"
    assert len(err) < 2000 and err.rstrip("\n").isprintable() and err.startswith("error: RuntimeError")


@pytest.mark.slow
def test_output_that_cannot_be_written_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        script = a_script("--help", cwd=tmp_path, stdout=full)
        err = script.communicate()[1].decode()
    assert script.returncode == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_output_that_fills_the_disk_while_a_script_runs_is_one_line(tmp_path, monkeypatch):
    script = importlib.import_module("report")
    monkeypatch.setattr(script, "main", lambda config: [print("x" * 9000, flush=True) for _ in range(9)])
    monkeypatch.setattr(sys, "argv", ["report.py"])
    err = io.StringIO()
    with (
        open("/dev/full", "w") as full,
        contextlib.redirect_stdout(full),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        run_script(script.main, script.PRESETS, script.__doc__)
    check_refusal(ended.value.code, err.getvalue(), "No space left")


@pytest.mark.parametrize("name, value", [("RANK", "x"), ("RANK", "5"), ("WORLD_SIZE", "-1"), ("RANK", "9" * 5000)])
def test_ranks_that_cannot_be_are_refused_by_the_variables_name(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, value)
    refused("report", cwd=tmp_path, match=name)


@pytest.mark.parametrize("target", ["chairs", "../nowhere/x"])
def test_a_run_folder_that_is_a_link_to_nothing_is_refused(tmp_path, target):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "chairs").symlink_to(target)
    refused("create_mlp_dataset", *FOLDERS, cwd=tmp_path, match="runs/chairs")
