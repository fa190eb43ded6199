"""Imports of what people have: every net comes in once, under a name of its own, and all are written or none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import import_instances
from data import imports
from data.imports import check_targets, list_state_dicts, read_accuracies, recognize_sirens
from data.instance_files import read_instance
from data.nets import load_sirens, read_list
from models.errors import InputError
from models.target_nets.siren import Siren
from tests.miniature import changed, folders
from tests.test_bad_input import files_in
from tests.test_import_export import import_config, save_nets

ROOT = Path(__file__).parent.parent


def save_siren(path, seed=0, widths=(3, 8, 8, 1), samples=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    value = {"mlp": Siren(widths).state_dict(), "sdf": torch.rand(samples, 4)}
    if path.suffix == ".safetensors":
        value = {**value["mlp"], "sdf": value["sdf"]}
        save_file(value, path)
    else:
        torch.save(value, path)
    return value


def sirens(root, number=4):
    """Save SIRENs and return the config that imports them."""
    for i in range(number):
        save_siren(root / "mine" / f"s{i}.pt", i)
    return import_config(root, "chairs", num_test=1)


def names_of(config, setting="mlps", splits=("train", "test")):
    entries = [entry for split in splits for entry in read_list(config.folders, config.dataset, setting, split)]
    assert all(entry.path.is_file() for entry in entries)
    return sorted(entry.path.stem for entry in entries)


def refused(config, match):
    before = files_in(config.folders.runs_dir.parent)
    with pytest.raises(InputError, match=match) as refusal:
        import_instances.main(config)
    assert files_in(config.folders.runs_dir.parent) == before
    return str(refusal.value)


def test_nets_are_found_in_subfolders_and_under_any_suffix_and_the_rest_is_named(few_photos, tmp_path, capsys):
    source = tmp_path / "mine"
    save_nets(source, "resnet8", 3)
    more = tmp_path / "more"
    save_nets(more, "resnet8", 9, "best")
    (source / "net-2.pt").rename(source / "model_best.pth.tar")
    for i in range(3, 6):
        (source / f"run{i}").mkdir()
        (more / f"best-{i}.pt").rename(source / f"run{i}" / "best.pt")
    (more / "best-6.pt").rename(source / "lightning.ckpt")
    (source / "logs.pt").mkdir()
    (source / "._net-0.pt").write_bytes(b"\0\5\26\7")
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    adam.param_groups[0]["params"][0].sum().backward()
    adam.step()
    torch.save(adam.state_dict(), source / "optimizer.pt")
    config = import_config(tmp_path, num_val=1, num_test=1)
    import_instances.main(config)
    expected = ["lightning", "model_best", "net-0", "net-1", "run3-best", "run4-best", "run5-best"]
    assert names_of(config, "single", ("train", "val", "test")) == expected
    err = capsys.readouterr().err
    assert "optimizer.pt" in err and "._net-0.pt" in err and len(err.splitlines()) == 1


def test_a_source_without_a_state_dict_says_what_it_has(tmp_path):
    torch.save({"state": {}, "param_groups": []}, (tmp_path / "optimizer.pt"))
    with pytest.raises(InputError, match="optimizer.pt"):
        list_state_dicts(tmp_path)


@pytest.mark.parametrize("name", ["lr=0.1;wd=0", "nét", "a b"])
def test_names_with_any_characters_can_be_listed(name, tmp_path):
    config = sirens(tmp_path)
    (tmp_path / "mine/s1.pt").rename(tmp_path / f"mine/{name}.pt")
    import_instances.main(config)
    assert name in names_of(config)
    assert len(load_sirens(config.folders, "chairs", "train", torch.device("cpu"))) == 3


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J"])
def test_names_that_lists_cannot_hold_are_refused_before_anything_is_written(name, tmp_path):
    config = sirens(tmp_path)
    (tmp_path / "mine/s1.pt").rename(tmp_path / f"mine/{name}.pt")
    assert refused(config, "rename").isprintable()


@pytest.mark.parametrize("length", [200, 243])
def test_names_as_long_as_a_file_system_allows_are_written(length, tmp_path):
    config = sirens(tmp_path)
    (tmp_path / "mine/s1.pt").rename(tmp_path / f"mine/{'x' * (length - 10)}.pt")
    import_instances.main(config)
    assert "x" * (length - 10) in names_of(config)


def test_names_that_are_too_long_with_their_suffix_are_refused(tmp_path):
    config = sirens(tmp_path)
    (tmp_path / "mine/s1.pt").rename(tmp_path / f"mine/{'x' * 250}.pt")
    assert "make room" not in refused(config, "shorten")


def test_sirens_in_checkpoints_come_with_their_samples(tmp_path):
    config = sirens(tmp_path)
    for i, wrap in enumerate(
        (
            lambda mlp, sdf: {"state": {"mlp": {f"module.{k}": v for k, v in mlp.items()}, "sdf": sdf}},
            lambda mlp, sdf: {**{f"net.{k}": v for k, v in mlp.items()}, "sdf": sdf},
        )
    ):
        value = save_siren(tmp_path / f"mine/s{i}.pt", i)
        torch.save(wrap(value["mlp"], value["sdf"]), tmp_path / f"mine/s{i}.pt")
        state = read_instance(tmp_path / f"mine/s{i}.pt")[0]
        assert torch.equal(state["sdf"], value["sdf"]) and torch.equal(state["mlp.0.bias"], value["mlp"]["mlp.0.bias"])
    import_instances.main(config)
    assert names_of(config) == ["s0", "s1", "s2", "s3"]


def test_names_that_are_no_utf_8_are_refused(tmp_path):
    config = sirens(tmp_path)
    os.rename(tmp_path / "mine/s1.pt", os.fsencode(tmp_path / "mine") + b"/a\xff.pt")
    refused(config, "rename")


@pytest.mark.slow
def test_names_are_the_same_in_any_locale(tmp_path):
    sirens(tmp_path)
    (tmp_path / "mine/s1.pt").rename(tmp_path / "mine/nét.pt")
    found = []
    command = [sys.executable, ROOT / "import_instances.py", "chairs", "--source", "mine", "--num-test", "1"]
    for i, locale in enumerate(({"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"})):
        own = ["--lists-dir", f"lists{i}", "--runs-dir", "runs"]  # the second finds the first one's instances
        environment = {**os.environ, **locale}
        done = subprocess.run([*command, *own], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append([(tmp_path / f"lists{i}/chairs/mlps/{part}.txt").read_bytes() for part in ("train", "test")])
    assert found[0] == found[1] and "nét.safetensors".encode() in b"".join(found[0])


def test_importing_again_from_another_place_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = changed(sirens(Path()), folders=folders(Path()))
    import_instances.main(config)
    before = files_in(tmp_path)
    import_instances.main(changed(config, source=tmp_path / "mine"))
    assert files_in(tmp_path) == before
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine").rename(tmp_path / "elsewhere/mine")
    import_instances.main(changed(config, source=Path("elsewhere/mine")))
    path = next((tmp_path / "runs").rglob("s2.safetensors"))
    assert read_instance(path)[1]["imported_from"] == "mine/s2.pt"
    save_siren(tmp_path / "elsewhere/mine/s2.pt", 77)  # another net at that path
    refused(changed(config, source=Path("elsewhere/mine")), "s2.safetensors.*s2.pt")


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("copy", "s0.pt.*t.pt"),
        ("two suffixes", "s0.pt.*s0.pth.*two suffixes"),
        ("two spellings", "S0.pt.*s0.pt"),
        ("path and name", "run0-s.pt.*run0/s.pt|run0/s.pt.*run0-s.pt"),
        ("another width", "wide.pt.*16"),
        ("other samples", "few.pt.*with 5"),
        ("module", r"whole.pt.*state_dict\(\)"),
        ("broken", "broken.pt cannot be read"),
    ],
)
def test_what_would_make_lists_that_mislead_is_refused_and_nothing_is_written(what, match, tmp_path):
    config, source = sirens(tmp_path), tmp_path / "mine"
    if what == "copy":
        (source / "t.pt").write_bytes((source / "s0.pt").read_bytes())
    elif what == "two suffixes":
        save_siren(source / "s0.pth", 9)
    elif what == "two spellings":
        save_siren(source / "S0.pt", 9)
    elif what == "path and name":
        save_siren(source / "run0/s.pt", 8)
        save_siren(source / "run0-s.pt", 9)
    elif what == "another width":
        save_siren(source / "wide.pt", 9, (3, 16, 16, 1))
    elif what == "other samples":
        save_siren(source / "few.pt", 9, samples=5)
    elif what == "module":
        torch.save(Siren((3, 8, 8, 1)), source / "whole.pt")
    else:
        (source / "broken.pt").write_bytes((source / "s0.pt").read_bytes()[:-300])
    assert "delete" not in refused(config, match)


def test_sirens_of_many_layers_are_imported_in_their_order(tmp_path):
    widths, rows = (3, *5 * (8,), 1), []
    for i in range(3):
        state = save_siren(tmp_path / "mine" / f"{i}.safetensors", i, widths)
        rows.append(torch.cat([value.flatten() for name, value in state.items() if name != "sdf"]))
    config = import_config(tmp_path, "chairs", num_test=1)
    import_instances.main(config)
    nets = [load_sirens(config.folders, "chairs", part, torch.device("cpu")) for part in ("train", "test")]
    assert nets[0].nets[0].trained.widths == widths
    came = torch.cat([each.rows for each in nets])
    assert torch.equal(came[came[:, 0].argsort()], torch.stack(rows)[torch.stack(rows)[:, 0].argsort()])


def test_tied_tensors_are_imported(few_photos, tmp_path):
    save_nets(tmp_path / "mine", "resnet8", 4)
    state = torch.load(tmp_path / "mine/net-1.pt", weights_only=True)
    state["layer1.0.bn1.bias"] = state["bn1.bias"]
    torch.save(state, tmp_path / "mine/net-1.pt")
    config = import_config(tmp_path, num_val=1, num_test=1)
    import_instances.main(config)
    assert names_of(config, "single", ("train", "val", "test")) == [f"net-{i}" for i in range(4)]
    found = read_instance(next((tmp_path / "runs").rglob("net-1.safetensors")))[0]
    assert torch.equal(found["layer1.0.bn1.bias"], state["bn1.bias"])


@pytest.mark.parametrize("failing", [1, 3, 5])
def test_a_write_that_fails_leaves_nothing_behind(failing, tmp_path, monkeypatch):
    config, count = sirens(tmp_path), []

    def full(function):
        def write(*arguments):
            count.append(1)
            if len(count) == failing:
                raise InputError(f"{arguments[0]} could not be written (No space left on device)")
            return function(*arguments)

        return write

    monkeypatch.setattr(imports, "save_instance", full(imports.save_instance))
    monkeypatch.setattr(imports, "write_lists", full(imports.write_lists))
    refused(config, "No space left")
    assert not list((tmp_path / "runs").rglob("siren-*"))
    import_instances.main(config)  # with room again
    assert names_of(config) == ["s0", "s1", "s2", "s3"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,accuracy\na.pt,10\nrun0/b.pt,20.5",
        "File, Accuracy\r\na.pt, 10\r\nb.pt, 20.5%\r\n",
        "sep=;\nfile;accuracy\na.pt;10,0\nC:\\run0\\b.pt;20,5\n",
        "file\taccuracy\n./a.pt\t1.0e+01\nzoo/run0/b.pt\t20.5 %\n",
        'file,accuracy\na.pt,"10,0"\nb.pt,20.5\n',
        "accuracy,file,epoch\n\n10,a.pt,3\n20.5,run0\\b.pt,4\n",
    ],
)
def test_accuracies_are_read_as_tables_come(text, tmp_path):
    (tmp_path / "a.csv").write_bytes(text.encode())
    files = [tmp_path / "a.pt", tmp_path / "run0/b.pt"]
    assert read_accuracies(tmp_path / "a.csv", tmp_path, files) == {files[0]: 10, files[1]: 20.5}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("accuracy,file\n10,b.pt\n10", "line 3"),
        ("file,accuracy\nb.pt,nan", "line 2"),
        ("file,accuracy\nbest.pt,10", "line 2.*best.pt"),
        ("file,accuracy\nb.pt,10\nb.pt,11", "line 3.*b.pt"),
        ("file;accuracy\nb.pt;1,234.5", "line 2"),
        ("file,accuracy\nb.pt,1_0", "line 2"),
        ("file,accuracy\nb.pt,.615\nrun0/best.pt,0.3", "fractions"),
        ("name,accuracy\nb.pt,10", "'file'.*name,accuracy"),
    ],
)
def test_accuracies_that_are_unclear_are_refused_by_line(text, match, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    files = [tmp_path / "b.pt", tmp_path / "run0/best.pt", tmp_path / "run1/best.pt"]
    with pytest.raises(InputError, match=match):
        read_accuracies(tmp_path / "a.csv", tmp_path, files)


def test_targets_of_many_nets_are_checked_in_one_pass(tmp_path):
    sirens(tmp_path, 3)
    files = list_state_dicts(tmp_path / "mine").files
    found = recognize_sirens(tmp_path / "mine", files, folders(tmp_path), "chairs")
    many = [changed(found[0], row=torch.full((99,), float(i)), path=tmp_path / f"{i}.pt") for i in range(3000)]
    check_targets(many)
    with pytest.raises(InputError, match="same net"):
        check_targets([*many, changed(many[7], path=tmp_path / "copy.pt")])
