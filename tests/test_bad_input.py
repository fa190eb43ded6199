"""Bad input, from the command line: one clear line on stderr, exit status 2, nothing written."""

import contextlib
import importlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import create_nets_dataset_multi
import train_multi_arch
from data import load
from tests import miniature
from training.command_line import run_script

ROOT = Path(__file__).parent.parent
SCRIPTS = (
    "create_nets_dataset_single",
    "train_single_arch",
    "eval_single",
    "interpolate_single_arch",
    "visualize_prep",
    "compare_objectives",
    "create_nets_dataset_multi",
    "train_multi_arch",
    "eval_multi",
    "interpolate_multi_arch",
    "train_latspace_single",
    "train_latspace_multi",
    "eval_latspace_single",
    "eval_latspace_multi",
    "report",
)
SHAPE_SCRIPTS = ("create_mlp_dataset", "train_mlps", "interpolate_mlps")
EITHER_SCRIPTS = ("import_instances", "export")


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
    files = files_in(cwd)
    status, _, err = run(name, *arguments, cwd=cwd)
    check_refusal(status, err, match)
    assert files == files_in(cwd)


def files_in(folder):
    """All but those that say which process a folder belongs to."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_script_of_its_own_process_ends_with_status_2(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "train_single_arch.py"], cwd=tmp_path, capture_output=True, text=True)
    check_refusal(done.returncode, done.stderr, "python create_nets_dataset_single.py photos")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS + SHAPE_SCRIPTS + EITHER_SCRIPTS)
def test_unknown_preset_and_flag(script, tmp_path):
    presets = "chairs, meshes, deepsdf" if script in SHAPE_SCRIPTS else "photos, cifar10, tiny-imagenet-200"
    presets += ", chairs, deepsdf" if script in EITHER_SCRIPTS else ""
    refused(script, "cifar11", cwd=tmp_path, match=("cifar11", presets))
    refused(script, presets.split(",")[0], "--no-such-flag", "3", cwd=tmp_path, match=("--no-such-flag", "--help"))


@pytest.mark.parametrize("script", SCRIPTS + SHAPE_SCRIPTS + EITHER_SCRIPTS)
def test_debug_shows_the_traceback_and_the_same_status(script, tmp_path):
    status, _, err = run(script, "--debug", "no-such-preset", cwd=tmp_path)
    assert status == 2 and err.startswith("Traceback") and err.splitlines()[-1].startswith("error: unknown preset")


def test_what_should_not_happen_is_one_line_with_status_1(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("eval_single"), "load_experiment", lambda config: 1 / 0)
    status, _, err = run("eval_single", cwd=tmp_path)
    assert status == 1 and err == "error: ZeroDivisionError: division by zero; --debug shows where\n"
    status, _, err = run("eval_single", "--debug", cwd=tmp_path)
    assert status == 1 and err.startswith("Traceback") and "in main" in err


def test_values_of_the_wrong_kind(tmp_path):
    refused("train_single_arch", "--num-epochs", "many", cwd=tmp_path, match=("--num-epochs", "many"))
    refused("train_single_arch", "--objective", "logits", cwd=tmp_path, match=("--objective", "logits"))
    refused("compare_objectives", "--num-gammas", "1", cwd=tmp_path, match="--num-gammas 1: must be 2 or more")
    refused("train_single_arch", "--meta-batch", "0", cwd=tmp_path, match="--meta-batch 0: must be more than 0")
    refused("create_nets_dataset_single", "--image-batch", "99999", cwd=tmp_path, match=("99999", "6284"))
    refused(
        "create_nets_dataset_single", "--dataset", "no/such/folder", cwd=tmp_path, match=("no/such/folder", "cifar10")
    )
    refused("create_nets_dataset_single", "--architecture", "resnet9", cwd=tmp_path, match=("resnet9", "resnet8"))
    refused("create_nets_dataset_single", "--lengths", cwd=tmp_path, match=("--lengths", "at least one"))
    refused("create_nets_dataset_single", "tiny-imagenet-200", cwd=tmp_path, match=("tiny-imagenet-200", "unpack"))


def test_a_script_names_the_one_that_should_have_run_before(tmp_path):
    refused("train_single_arch", cwd=tmp_path, match="python create_nets_dataset_single.py photos")
    for script in ("eval_single", "compare_objectives"):
        refused(script, cwd=tmp_path, match="python create_nets_dataset_single.py photos")
    for setting in ("multi", "missing"):
        where = f"python train_multi_arch.py photos --setting {setting}"
        for script in (
            "eval_multi",
            "interpolate_multi_arch",
            "visualize_prep",
            "train_latspace_multi",
            "eval_latspace_multi",
        ):
            refused(script, "--setting", setting, cwd=tmp_path, match=where)
        refused(
            "train_multi_arch", "--setting", setting, cwd=tmp_path, match="python create_nets_dataset_multi.py photos"
        )
    refused("train_latspace_single", cwd=tmp_path, match="python create_nets_dataset_single.py photos")


def test_nets_that_come_in_and_go_out(tmp_path):
    refused("export", cwd=tmp_path, match=("runs/photos/single/best.pt", "train_single_arch.py"))
    refused("export", "--what", "everything", cwd=tmp_path, match=("--what", "everything"))
    refused("export", "--formats", "h5", cwd=tmp_path, match=("--formats", "h5"))
    refused("import_instances", cwd=tmp_path, match="--source None is no folder")
    refused("import_instances", "--source", "nowhere", cwd=tmp_path, match="--source nowhere is no folder")
    refused("import_instances", "chairs", "--num-test", "0", cwd=tmp_path, match="--num-test 0")


def test_a_data_set_of_ones_own_is_told_apart_from_a_preset(tmp_path):
    refused("eval_single", "faces", cwd=tmp_path, match=("unknown preset 'faces'", "goes with --dataset"))
    for name in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "faces" / name / label
            folder.mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(folder / f"{i}.png")
    made_by = "python create_nets_dataset_single.py with the preset and --dataset of faces"
    refused("train_single_arch", "cifar10", "--dataset", "faces", "--image-batch", "4", cwd=tmp_path, match=made_by)


def test_values_of_several_architectures(tmp_path):
    refused("train_multi_arch", "--setting", "some", cwd=tmp_path, match=("--setting", "some"))
    few = ("--setting", "missing", "--meta-batch", "3")
    refused("train_multi_arch", *few, cwd=tmp_path, match=("--meta-batch 3", "pairs"))
    refused("train_multi_arch", "--prep-shape", "8", "640", cwd=tmp_path, match=("8x640", "resnet32 has 29,474"))
    refused(
        "create_nets_dataset_multi",
        "--num-train",
        "4",
        "4",
        "4",
        cwd=tmp_path,
        match=("3 numbers", "give 4", "lenetlike"),
    )
    refused("create_nets_dataset_multi", "--num-train-missing", "4", "99", cwd=tmp_path, match=("99", "fewer"))
    refused("create_nets_dataset_multi", "--teacher", "resnet57", cwd=tmp_path, match=("resnet57", "resnet56"))


@pytest.fixture(scope="module")
def multi_project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())
        changes = dict(
            teacher="lenetlike",
            num_epochs=(1, 1, 1, 1),
            teacher_epochs=1,
            num_train=(1, 1, 1, 1),
            num_train_missing=(1, 1),
        )
        create_nets_dataset_multi.main(miniature.create_multi_config(root, num_val=1, num_test=1, **changes))
        train_multi_arch.main(miniature.train_multi_config(root, num_epochs=1))
        for split in (root / "lists").rglob("*.txt"):
            split.write_text(split.read_text().replace(f"{root.as_posix()}/", ""))
    return root


@contextlib.contextmanager
def changed(path, text):
    """A file that says something else, or (None) is not there, for a while."""
    good = path.read_bytes()
    try:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        yield
    finally:
        path.write_bytes(good)


def test_what_is_wrong_with_lists_of_several_architectures(multi_project, folders):
    lists = multi_project / "lists/photos"
    made_by = "python create_nets_dataset_multi.py photos"
    train = ("train_multi_arch", *folders, "--runs-dir", "elsewhere")
    with changed(lists / "multi/teacher.txt", None):
        refused(*train, cwd=multi_project, match=("teacher.txt", made_by))
    teacher = (lists / "multi/teacher.txt").read_text()
    with changed(lists / "multi/teacher.txt", 2 * teacher):
        refused(*train, cwd=multi_project, match=("teacher.txt, line 2", "one teacher"))
    with changed(lists / "missing/val.txt", None):
        refused(*train, "--setting", "missing", cwd=multi_project, match=("missing/val.txt", made_by))
    both = (lists / "missing/train.txt").read_text()
    with changed(lists / "missing/train.txt", both.splitlines()[0]):
        one = ("missing/train.txt holds lenetlike", "must hold lenetlike and resnet32")
        refused(*train, "--setting", "missing", cwd=multi_project, match=one)
    with changed(lists / "missing/train.txt", (lists / "multi/train.txt").read_text()):
        refused(*train, "--setting", "missing", cwd=multi_project, match=("vanilla_cnn, resnet8", "and no other"))
    with changed(lists / "multi/train.txt", both + "resnet_fusedbn;d56;sphotos;t.pt\n"):
        refused(*train, cwd=multi_project, match=("multi/train.txt, line 3", "resnet56"))
    with changed(lists / "multi/test.txt", both.splitlines()[0]):
        refused("interpolate_multi_arch", *folders, cwd=multi_project, match=("no resnet32", "the line ends there"))
    refused(
        "train_latspace_multi",
        *folders,
        "--per-class",
        "2",
        cwd=multi_project,
        match=("--per-class 2", "has 1 lenetlike"),
    )
    refused("eval_latspace_multi", *folders, cwd=multi_project, match="python train_latspace_multi.py photos")
    refused("visualize_prep", *folders, "--setting", "multi", "--instance", "4", cwd=multi_project, match="0 to 3")


def test_a_single_architecture_checkpoint_has_no_classifier(multi_project, project, folders):
    path = project / "runs/photos/single/best.pt"
    refused("eval_multi", *folders, "--checkpoint", path, cwd=multi_project, match=("arch_", "is nothing"))


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
        refused("eval_single", *folders, cwd=project, match=("line 1", "expected resnet8", "--architecture resnet32"))
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


def test_objectives_are_compared_only_where_both_were_trained_alike(project, folders):
    compare, train = ("compare_objectives", *folders), "python train_single_arch.py photos --objective weights"
    refused(*compare, cwd=project, match=("no checkpoint", "runs/photos/weights/best.pt", train))
    weights = project / "runs/photos/weights"
    shutil.copytree(project / "runs/photos/single", weights)
    saved = torch.load(weights / "last.pt", weights_only=True)
    for changes, match in (
        ({"step": 7}, ("photos/weights was trained with steps 7", "photos/single with 98")),
        ({"constants": {**saved["constants"], "seed": 3}}, ("photos/weights was trained with seed 3", "with 0")),
        ({"constants": None}, ("weights/last.pt does not say", train)),
    ):
        torch.save({**saved, **changes}, weights / "last.pt")
        refused(*compare, cwd=project, match=match)
    shutil.rmtree(weights)


def test_help_shows_presets_and_constants(tmp_path):
    status, out, _ = run("train_single_arch", "cifar10", "--help", cwd=tmp_path)
    assert not status
    assert "--meta-batch" in out and "tiny-imagenet-200" in out and "8 10000" in out
