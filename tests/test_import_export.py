"""import_instances.py and export.py: what comes in can be trained on, what goes out is what was asked for."""

from pathlib import Path

import pytest
import torch

import export
import import_instances
import train_single_arch
from data.instance_files import read_instance
from data.load import load_images
from data.nets import load_nets, load_sirens, read_list
from evaluation.metrics import accuracy
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.target_nets import ARCHITECTURES
from models.target_nets.siren import Siren
from netspace import NetSpace
from tests.conftest import spread_out
from tests.miniature import changed, config_of, folders, train_config

RESNET8 = TargetNet(ARCHITECTURES["resnet8"], (1, 8, 8), 10)


def save_nets(folder: Path, name: str, number: int, prefix: str = "net") -> None:
    folder.mkdir(exist_ok=True)
    for i in range(number):
        torch.manual_seed(i)
        state = ARCHITECTURES[name].build((1, 8, 8), 10).state_dict()
        torch.save(spread_out(state, i), folder / f"{prefix}-{i}.pt")


def import_config(root: Path, preset: str = "photos", **changes) -> import_instances.Config:
    own = dict(source=root / "mine", num_val=2, num_test=2, folders=folders(root))
    return changed(import_instances.PRESETS[preset], **{**own, **changes})


def test_imported_nets_are_a_nets_dataset_and_are_split_over_all_accuracies(few_photos, tmp_path, capsys):
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
    out = capsys.readouterr().out
    assert "1.00 points" in out and "n = 9" in out
    nets = TargetNets([RESNET8])
    splits = {name: load_nets(config.folders, images, "single", name, nets) for name in ("train", "val", "test")}
    assert [len(split) for split in splits.values()] == [5, 2, 2]
    came = torch.cat([split.rows for split in splits.values()])
    assert torch.equal(came[came[:, 0].argsort()], rows[rows[:, 0].argsort()])
    low, high = sorted(accuracy(RESNET8, splits["test"].rows, images.test).tolist())
    assert low <= measured.median() <= high
    facts = read_instance(splits["val"].paths[0])[1]
    assert facts["architecture"] == "resnet8" and facts["test_accuracy"] in measured.tolist()
    train_single_arch.main(train_config(tmp_path, num_steps=2))
    assert (tmp_path / "runs/photos/single/best.pt").is_file()


def test_several_architectures_are_told_apart(few_photos, tmp_path):
    for name in ("lenetlike", "resnet8"):
        save_nets(tmp_path / "mine", name, 5, name)
    with pytest.raises(InputError, match="--setting multi"):
        import_instances.main(import_config(tmp_path))
    assert not (tmp_path / "runs").exists() and not (tmp_path / "lists").exists()
    config = import_config(tmp_path, setting="multi")
    import_instances.main(config)
    entries = read_list(config.folders, "photos", "multi", "test")
    assert sorted(entry.architecture.name for entry in entries) == ["lenetlike"] * 2 + ["resnet8"] * 2


@pytest.mark.parametrize("preset", ["chairs", "meshes", "deepsdf"])
def test_mlps_of_the_original_release_come_with_their_samples(preset, tmp_path):
    (tmp_path / "mine").mkdir()
    states = [Siren((3, 8, 8, 1)).state_dict() for _ in range(5)]
    for i, state in enumerate(states):
        torch.save({"mlp": state, "sdf": torch.rand(6, 4)}, tmp_path / "mine" / f"{i}.pt")
    config = import_config(tmp_path, preset)
    import_instances.main(config)
    train, test = (
        load_sirens(config.folders, config.dataset, split, torch.device("cpu")) for split in ("train", "test")
    )
    assert (len(train), len(test)) == (3, 2) and train.nets[0].trained.widths == (3, 8, 8, 1)
    rows = torch.stack([torch.cat([value.flatten() for value in state.values()]) for state in states])
    came = torch.cat([train.rows, test.rows])
    assert torch.equal(came[came[:, 0].argsort()], rows[rows[:, 0].argsort()])


@pytest.mark.parametrize(
    "what, message",
    [
        ("nothing", "--source .*mine"),
        ("empty", "--source .*.pt"),
        ("stranger", "is none of"),
        ("few", "none is left to train on"),
        ("teacher", "has no ClassId"),
        ("twice", "with two suffixes"),
        ("no columns", "has no column"),
        ("percent", "line 2: accuracy 101"),
        ("unknown", "line 2: there is no gone.pt"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_nothing_is_written(what, message, few_photos, tmp_path):
    source, config = tmp_path / "mine", import_config(tmp_path)
    if what != "nothing":
        source.mkdir()
    if what not in ("nothing", "empty"):
        save_nets(source, "resnet8", 3 if what == "few" else 5)
    if what == "stranger":
        torch.save({"weight": torch.zeros(3)}, source / "x.pt")
    if what == "teacher":
        save_nets(source, "resnet56", 1, "teacher")
        config = changed(config, setting="multi")
    if what == "twice":
        (source / "net-0.pth").write_bytes((source / "net-0.pt").read_bytes())
    lines = {"no columns": "a,b\n1,2", "percent": "file,accuracy\nnet-0.pt,101", "unknown": "file,accuracy\ngone.pt,5"}
    if what in lines:
        (tmp_path / "a.csv").write_text(lines[what])
        config = changed(config, accuracies=tmp_path / "a.csv")
    with pytest.raises(InputError, match=message):
        import_instances.main(config)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "lists").exists()


def test_every_kind_of_instance_is_exported(own_project):
    run_dir = own_project / "runs/photos/single"
    space, config = NetSpace.load(run_dir), config_of(export, own_project)
    first, *_, last = [entry.path for entry in read_list(config.folders, "photos", "single", "test")]
    search = run_dir / "latspace" / "last.pt"
    found = torch.load(search, weights_only=True)
    expected = {
        "predicted": (space.encode(first), [first]),
        "interpolated": (0.75 * space.encode(first) + 0.25 * space.encode(last), [first, last]),
        "optimized": (found["model"]["best"][0], map(Path, found["nets"]["instances"])),
    }
    for what, (embedding, sources) in expected.items():
        paths = export.main(changed(config, what=what, gamma=0.25, formats=("safetensors", "pt")))
        assert [path.suffix for path in paths] == [".safetensors", ".pt"]
        assert all(source.stem in paths[0].stem for source in sources)
        decoded = space.decode(embedding).state_dict()
        state, facts = read_instance(paths[0])
        assert what in facts["made_by"] and facts["mean"] and facts["versions"]
        for name, value in torch.load(paths[1], weights_only=True).items():
            assert torch.equal(state[name], value) and torch.allclose(value, decoded[name], atol=1e-5)
    (folder,) = export.main(changed(config, what="space"))
    assert torch.equal(NetSpace.load(folder).encode(first), space.encode(first))
    with pytest.raises(InputError, match="--instance 1: 1 "):
        export.main(changed(config, what="optimized", instance=1))
    search.unlink()
    with pytest.raises(InputError, match="python train_latspace_single.py photos"):
        export.main(changed(config, what="optimized"))


def test_an_instance_of_several_architectures_is_exported_as_what_it_decodes_to(own_project):
    space, config = NetSpace.load(own_project / "runs/photos/multi"), config_of(export, own_project, setting="multi")
    first = read_list(config.folders, "photos", "multi", "test")[0].path
    (path,) = export.main(changed(config, formats=("safetensors",)))
    embedding = space.encode(first)
    assert read_instance(path)[1]["architecture"] == space.architectures[space.class_ids(embedding)[0]]


@pytest.mark.parametrize("preset", ["chairs", "meshes", "deepsdf"])
def test_sirens_are_exported_too(preset, own_project):
    config = changed(export.PRESETS[preset], dataset="chairs", folders=folders(own_project))
    (path,) = export.main(changed(config, what="interpolated", formats=("pt",)))
    net = Siren((3, 16, 16, 1))
    net.load_state_dict(torch.load(path, weights_only=True))
