"""Instance files: every form comes back as the same row, and what is broken or another's is refused by name."""

from pathlib import Path

import pytest
import torch

from data.instance_files import is_on_disk, read_instance, row_of, save_instance, siren_widths
from data.recognition import find_net
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, architectures_for, siren

PHOTOS = ((1, 8, 8), 10)


@pytest.fixture(scope="module")
def resnet8():
    return TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)


def test_instances_come_back_fused_from_safetensors_and_pt_with_batch_norm_or_without(tmp_path, resnet8):
    state = resnet8.start([1])
    one = {name: value[0] for name, value in state.items()}
    row = resnet8.fuse(state)[0]
    save_instance(tmp_path / "a.safetensors", one, {"steps": 3})
    torch.save(one, tmp_path / "b.pt")
    torch.save({name: value for name, value in one.items() if "num_batches" not in name}, tmp_path / "c.pt")
    torch.save({name: value[0] for name, value in resnet8.layout.unflatten(row[None]).items()}, tmp_path / "d.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in one.items()}, "epoch": 3}, tmp_path / "e.pt")
    for name in ("a.safetensors", "b.pt", "c.pt", "d.pt", "e.pt"):
        found, facts = read_instance(tmp_path / name)
        assert torch.equal(row_of(resnet8, found, tmp_path / name), row)
        assert facts == ({"steps": 3} if name == "a.safetensors" else {})
    assert list(tmp_path.glob(".*")) == []  # no partial file stays


def test_missing_foreign_and_broken_instances_are_refused_by_name(tmp_path, resnet8):
    def refused(name, match):
        with pytest.raises(InputError, match=match) as refusal:
            row_of(resnet8, read_instance(tmp_path / name)[0], tmp_path / name)
        assert "\n" not in str(refusal.value) and name in str(refusal.value)

    refused("gone.pt", "gone.pt")
    (tmp_path / "text.pt").write_text("hello")
    refused("text.pt", "text.pt cannot be read")
    (tmp_path / "text.safetensors").write_bytes(b"\x00" * 4)
    refused("text.safetensors", "text.safetensors cannot be read")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", "state dict")
    torch.save(ARCHITECTURES["lenetlike"].build(*PHOTOS).state_dict(), tmp_path / "lenet.pt")
    refused("lenet.pt", "resnet8")
    torch.save(ARCHITECTURES["resnet8"].build((3, 32, 32), 10).state_dict(), tmp_path / "cifar.pt")
    refused("cifar.pt", r"resnet8.*'conv1.weight' is \(16, 3, 3, 3\), expected \(4, 1, 3, 3\)")
    state = ARCHITECTURES["resnet8"].build(*PHOTOS).state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    refused("nan.pt", "'fc.bias'.*NaN")
    state["fc.bias"] = torch.zeros(10, dtype=torch.int64)
    torch.save(state, tmp_path / "int.pt")
    refused("int.pt", "'fc.bias'.*torch.int64")


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"fc.bias": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InputError, match="trap.pt"):
        read_instance(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_an_instance_is_on_disk_if_its_facts_agree(tmp_path):
    path = tmp_path / "a.safetensors"
    assert not is_on_disk(path, {})
    save_instance(path, {"x": torch.zeros(1)}, {"steps": 3, "val_accuracy": 50.0})
    assert is_on_disk(path, {"steps": 3})
    with pytest.raises(InputError, match="a.safetensors.*steps 3, not 4"):
        is_on_disk(path, {"steps": 4})
    with pytest.raises(InputError, match="seed None, not 0"):
        is_on_disk(path, {"seed": 0})


def test_a_file_that_does_not_state_its_optimizer_was_made_by_adam(resnet8, tmp_path):
    path = tmp_path / "a.safetensors"
    save_instance(path, resnet8.trained.state_dict(), {"steps": 3})
    assert is_on_disk(path, {"steps": 3, "optimizer": "adam", "schedule": "constant", "weight_decay": 0.0})
    for other in ({"optimizer": "sgd"}, {"schedule": "thirds"}, {"weight_decay": 1e-4}):
        with pytest.raises(InputError, match=next(iter(other))):
            is_on_disk(path, {"steps": 3, **other})


def test_the_architecture_of_a_state_dict_is_found():
    nets = [TargetNet(architecture, *PHOTOS) for architecture in architectures_for(PHOTOS[0])]
    for net in nets:
        for module in (net.trained, net.fused):
            assert find_net(nets, module.state_dict(), "a.pt") is net
    with pytest.raises(InputError, match="a.pt.*lenetlike.*resnet56"):
        find_net(nets, {"fc.weight": torch.zeros(2, 2)}, "a.pt")


@pytest.mark.parametrize("widths", [(3, 7, 5, 1), (3, 256, 256, 1), (3, 9, 1)])
def test_the_widths_of_a_siren_are_those_of_its_matrices(widths):
    assert siren_widths(siren(widths).build((3,), 1).state_dict(), "a.pt") == widths
    with pytest.raises(InputError, match="a.pt"):
        siren_widths({"fc.weight": torch.zeros(2, 2)}, "a.pt")
