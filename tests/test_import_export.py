"""import_instances.py and export.py: what comes in can be trained on, what goes out is what was asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data.mlps import load_mlps
from evaluation.accuracy import accuracy
from models.registry import ARCHITECTURES
from models.siren import Siren

import export
import import_instances
import train_latspace_single
from data.instance_files import read_instance
from data.load import load_images
from data.nets import load_split, read_list
from models.errors import InputError
from models.instances import ArchitectureOnImages
from netspace import NetSpace
from tests.conftest import spread_out
from tests.miniature import folders, look_config, run_all, run_all_mlps, search_config

RESNET8 = ArchitectureOnImages(ARCHITECTURES["resnet8"], (1, 8, 8), 10)


def save_nets(folder: Path, name: str, number: int, prefix: str = "net") -> None:
    folder.mkdir(exist_ok=True)
    for i in range(number):
        torch.manual_seed(i)
        state = ARCHITECTURES[name].build((1, 8, 8), 10).state_dict()
        torch.save(spread_out(state, i), folder / f"{prefix}-{i}.pt")


def import_config(root: Path, **changes) -> import_instances.Config:
    preset = import_instances.PRESETS["photos"]
    return replace(preset, source=root / "mine", num_val=2, num_test=2, folders=folders(root), **changes)


def test_imported_nets_are_a_nets_dataset_and_are_split_over_all_accuracies(tmp_path, capsys):
    save_nets(tmp_path / "mine", "resnet8", 9)
    images = load_images("photos")
    rows = torch.stack([RESNET8.fuse({k: v[None] for k, v in torch.load(p, weights_only=True).items()})[0]
                        for p in sorted((tmp_path / "mine").iterdir())])  # fmt: skip
    measured = accuracy(RESNET8, rows, images.test)
    table = tmp_path / "accuracies.csv"
    lines = [f"net-{i}.pt,{value + (i == 3)}" for i, value in enumerate(measured.tolist())]
    table.write_text("\n".join(["file,accuracy", *lines]))
    config = import_config(tmp_path, accuracies=table)
    import_instances.main(config)
    import_instances.main(config)  # again: the same
    assert "differ by 1.00 points at most, n = 9" in capsys.readouterr().out
    splits = {name: load_split(config.folders, images, "single", name, RESNET8) for name in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [5, 2, 2]
    came = torch.cat([split.rows for split in splits.values()])
    assert torch.equal(came[came[:, 0].argsort()], rows[rows[:, 0].argsort()])
    low, high = sorted(accuracy(RESNET8, splits["test"].rows, images.test).tolist())
    assert low <= measured.median() <= high
    facts = read_instance(splits["val"].paths[0])[1]
    assert facts["architecture"] == "resnet8" and facts["test_accuracy"] in measured.tolist()


def test_several_architectures_are_told_apart(tmp_path):
    for name in ("lenetlike", "resnet8"):
        save_nets(tmp_path / "mine", name, 5, name)
    with pytest.raises(InputError, match="--setting multi"):
        import_instances.main(import_config(tmp_path))
    assert not (tmp_path / "runs").exists() and not (tmp_path / "lists").exists()
    config = import_config(tmp_path, setting="multi")
    import_instances.main(config)
    entries = read_list(config.folders.input_list("photos", "multi", "test"), "")
    assert sorted(entry.architecture.name for entry in entries) == ["lenetlike"] * 2 + ["resnet8"] * 2


def test_mlps_of_the_original_release_come_with_their_samples(tmp_path):
    (tmp_path / "mine").mkdir()
    states = [Siren((3, 8, 8, 1)).state_dict() for _ in range(5)]
    for i, state in enumerate(states):
        torch.save({"mlp": state, "sdf": torch.rand(6, 4)}, tmp_path / "mine" / f"{i}.pt")
    config = replace(
        import_instances.PRESETS["chairs"], source=tmp_path / "mine", num_test=2, folders=folders(tmp_path)
    )
    import_instances.main(config)
    train, test = (load_mlps(config.folders, "chairs", split, torch.device("cpu")) for split in ("train", "test"))
    assert (len(train), len(test)) == (3, 2) and train.nets.widths == (3, 8, 8, 1)
    rows = torch.stack([torch.cat([value.flatten() for value in state.values()]) for state in states])
    came = torch.cat([train.rows, test.rows])
    assert torch.equal(came[came[:, 0].argsort()], rows[rows[:, 0].argsort()])


@pytest.mark.parametrize(
    "what, message",
    [
        ("nothing", "is no folder"),
        ("empty", "holds no .pt"),
        ("stranger", "is none of"),
        ("few", "none is left to train on"),
        ("teacher", "has no ClassId"),
        ("twice", "with two suffixes"),
        ("no columns", "has no columns"),
        ("percent", "line 2: accuracy 101"),
        ("unknown", "line 2: there is no gone.pt"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_nothing_is_written(what, message, tmp_path):
    source, config = tmp_path / "mine", import_config(tmp_path)
    if what != "nothing":
        source.mkdir()
    if what not in ("nothing", "empty"):
        save_nets(source, "resnet8", 3 if what == "few" else 5)
    if what == "stranger":
        torch.save({"weight": torch.zeros(3)}, source / "x.pt")
    if what == "teacher":
        save_nets(source, "resnet56", 1, "teacher")
        config = replace(config, setting="multi")
    if what == "twice":
        (source / "net-0.pth").write_bytes((source / "net-0.pt").read_bytes())
    lines = {"no columns": "a,b\n1,2", "percent": "file,accuracy\nnet-0.pt,101", "unknown": "file,accuracy\ngone.pt,5"}
    if what in lines:
        (tmp_path / "a.csv").write_text(lines[what])
        config = replace(config, accuracies=tmp_path / "a.csv")
    with pytest.raises(InputError, match=message):
        import_instances.main(config)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "lists").exists()


def test_every_kind_of_instance_is_exported(tmp_path):
    run_dir = run_all(tmp_path)
    space = NetSpace.load(run_dir)
    config = look_config(export, tmp_path)
    first, *_, last = [entry.path for entry in read_list(config.folders.input_list("photos", "single", "test"), "")]
    expected = {
        "predicted": space.encode(first),
        "interpolated": 0.75 * space.encode(first) + 0.25 * space.encode(last),
    }
    with pytest.raises(InputError, match="no checkpoint"):
        export.main(replace(config, what="optimized"))
    search = search_config(train_latspace_single, tmp_path)

    teacher = tmp_path / "teacher.pt"
    torch.save(ARCHITECTURES["resnet56"].build((1, 8, 8), 10).state_dict(), teacher)
    path = config.folders.input_list("photos", "multi", "teacher")
    path.parent.mkdir(parents=True)
    path.write_text(f"resnet_fusedbn;d56;sphotos;{teacher}\n")
    train_latspace_single.main(search)
    expected["optimized"] = torch.load(run_dir / "latspace" / "latspace.pt", weights_only=True)["best"][0]
    for what, embedding in expected.items():
        paths = export.main(replace(config, what=what, gamma=0.25, formats=("safetensors", "pt")))
        assert [path.suffix for path in paths] == [".safetensors", ".pt"]
        decoded = space.decode(embedding).state_dict()
        state, facts = read_instance(paths[0])
        assert facts["made_by"] == f"export.py --what {what}" and facts["mean"]
        for name, value in torch.load(paths[1], weights_only=True).items():
            assert torch.equal(state[name], value) and torch.allclose(value, decoded[name], atol=1e-5)
    (folder,) = export.main(replace(config, what="space"))
    assert torch.equal(NetSpace.load(folder).encode(first), space.encode(first))
    with pytest.raises(InputError, match="--instance 1: 1 were optimized"):
        export.main(replace(config, what="optimized", instance=1))


def test_sirens_are_exported_too(tmp_path):
    run_all_mlps(tmp_path)
    config = replace(export.PRESETS["chairs"], what="interpolated", folders=folders(tmp_path), formats=("pt",))
    (path,) = export.main(config)
    net = Siren((3, 16, 16, 1))
    net.load_state_dict(torch.load(path, weights_only=True))
