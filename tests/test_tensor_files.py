"""Tensor files: the state dict is found however it was saved, and what a file claims is compared with what it holds first."""

import argparse
import datetime
import decimal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from data.instance_files import find_row, plain_state, read_instance, row_of, save_instance, siren_widths
from data.tensor_files import read_arrays, read_tensors
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import ARCHITECTURES, siren

PHOTOS = ((1, 8, 8), 10)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def net():
    return TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)


@pytest.fixture(scope="module")
def state(net):
    return {name: value[0] for name, value in net.start([1]).items()}


@pytest.fixture(scope="module")
def row(net, state):
    return net.fuse({name: value[None] for name, value in state.items()})[0]


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def other(state):
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


SHELLS = {
    "plain": lambda state: state,
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled and wrapped": lambda state: prefixed(state, "_forward_module._orig_mod.module."),
    "Lightning": lambda state: {"state_dict": prefixed(state, "model."), "epoch": 3, "lr_schedulers": []},
    "Lightning, compiled": lambda state: {"state_dict": prefixed(state, "net._orig_mod."), "global_step": 7},
    "a prefix of their own": lambda state: prefixed(state, "backbone.inner."),
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(5), **prefixed(state, "module.")},
    "profiled": lambda state: {
        **state,
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "total_params": torch.zeros(1, dtype=torch.float64),
        "conv1.total_ops": torch.zeros(1, dtype=torch.float64),
        "layer1.0.conv1.total_params": torch.zeros(1, dtype=torch.float64),
    },
    **{
        key: (lambda state, key=key: {key: state, "epoch": 1, "loss": torch.tensor(0.3)})
        for key in ("model_state", "weights", "params", "network", "net_state_dict", "ema", "generator")
    },
    "deep": lambda state: {"a": {"b": {"c": {"d": {"state": state}}}}},
    "beside an average": lambda state: {"ema": other(state), "model": state},
    "beside a teacher": lambda state: {"teacher": other(state), "student": prefixed(state, "module.")},
    "beside an optimizer": lambda state: {"optimizer": adam_state(state), "model": state},
    "half precision": lambda state: state,
    "parts wrapped by FSDP and for checkpoints": lambda state: {
        "_fsdp_wrapped_module."
        + name.replace("conv1.", "conv1._checkpoint_wrapped_module.").replace(
            "layer1.", "layer1._fsdp_wrapped_module."
        ): value
        for name, value in state.items()
    },
    "parts compiled": lambda state: {name.replace("layer2.", "layer2._orig_mod."): v for name, v in state.items()},
    "every other name with a prefix": lambda state: {
        ("module." if i % 2 else "") + name: value for i, (name, value) in enumerate(state.items())
    },
    "beside a teacher, flat": lambda state: {**prefixed(other(state), "teacher."), **prefixed(state, "student.")},
    "Lightning, with an average": lambda state: {
        "state_dict": {**prefixed(other(state), "ema_model.module."), **prefixed(state, "model.")}
    },
    "with metrics and losses": lambda state: {
        **prefixed(state, "model."),
        "criterion.weight": torch.ones(10),
        "ema_decay": torch.tensor(0.9),
    },
    "after a layer that normalizes": lambda state: {"0.mean": torch.ones(1), **prefixed(state, "1.")},
    **{
        f"after {key}": (lambda state, key=key: {key: other(state), "model": state})
        for key in ("state_dict_ema", "best_model", "exp_avg", "grads", "initial", "optimizer_state", "mean_teacher")
    },
    "twice": lambda state: {"a": state, "b": state},
    "dates": lambda state: {"state_dict": state, "when": datetime.datetime(2020, 1, 2), "cost": decimal.Decimal(3)},
    "numbers of numpy": lambda state: {"state_dict": state, "best_acc": np.float64(61.3), "history": np.arange(3.0)},
    "arguments": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1, out=Path("runs"))},
}


def adam_state(state):
    parameters = [nn.Parameter(state["conv1.weight"].clone())]
    adam = torch.optim.Adam(parameters)
    parameters[0].sum().backward()
    adam.step()
    return adam.state_dict()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_state_dict_is_found_however_it_is_saved(shell, net, state, row, tmp_path):
    value = SHELLS[shell](state)
    found = {}
    for name, options in (("a.pt", {}), ("b.pth", {"_use_new_zipfile_serialization": False}), ("c.pth.tar", {})):
        torch.save(value, tmp_path / name, **options)
        found[name] = read_instance(tmp_path / name)[0]
    if all(isinstance(each, torch.Tensor) for each in value.values()):
        save_file({name: each.clone() for name, each in value.items()}, tmp_path / "d.safetensors")
        found["d.safetensors"] = read_instance(tmp_path / "d.safetensors")[0]
    for name, each in found.items():
        assert torch.equal(row_of(net, each, name), row), name


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (lambda state: {"a": state, "b": other(state)}, "'a' and 'b'"),
        (lambda state: {**state, **prefixed(other(state), "module.")}, "'module' and its own"),
        (lambda state: {**prefixed(state, "q."), **prefixed(other(state), "k.")}, "'q' and 'k'"),
    ],
    ids=["dicts", "a prefix or none", "prefixes"],
)
def test_two_nets_of_which_either_may_be_meant_are_refused(value, match, state, tmp_path):
    torch.save(value(state), tmp_path / "a.pt")
    with pytest.raises(InputError, match=f"a.pt.*{match}"):
        read_instance(tmp_path / "a.pt")


def test_arrays_of_numpy_are_tensors(net, state, row, tmp_path):
    arrays = {name: value.numpy() for name, value in state.items()}
    assert torch.equal(find_row([net], arrays)[1], row)
    big = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in arrays.items()}
    np.savez(tmp_path / "a.npz", **big, name=np.array("resnet8"), made={"by": "hand"})
    assert torch.equal(find_row([net], tmp_path / "a.npz")[1], row)


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_torchscript_is_refused_with_what_to_save(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    with pytest.raises(InputError, match=r"TorchScript.*state_dict\(\)"):
        read_instance(tmp_path / "a.pt")


def test_averaged_nets_and_lightning_modules_are_their_nets(net, state, row):
    class Lit(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

    module = ARCHITECTURES["resnet8"].build(*PHOTOS)
    module.load_state_dict(state)
    for wrapped in (module, Lit(module), AveragedModel(module), nn.DataParallel(module), Lit(AveragedModel(module))):
        assert torch.equal(find_row([net], wrapped)[1], row)


def test_shared_parameters_are_read_and_saved(net, state, row, tmp_path):
    module = ARCHITECTURES["resnet8"].build(*PHOTOS)
    module.load_state_dict(state)
    module.layer1[0].bn1.bias = module.bn1.bias
    found = find_row([net], module)[1]
    save_instance(tmp_path / "a.safetensors", module.state_dict(), {})
    torch.save(module.state_dict(), tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        assert torch.equal(find_row([net], tmp_path / name)[1], found)


def test_the_eps_of_a_modules_own_batch_norm_is_used(net):
    torch.manual_seed(0)
    module = ARCHITECTURES["resnet8"].build(*PHOTOS)
    x = torch.randn(64, *PHOTOS[0])
    module.train()(x)
    norms = [each for each in module.modules() if hasattr(each, "running_var")]
    for i, norm in enumerate(norms):
        norm.eps = (1e-1, 1e-2, 1e-5)[i % 3]
    module.eval()
    with torch.no_grad():
        for wrapped in (module, nn.DataParallel(module)):
            logits, own = net.run(find_row([net], wrapped)[1][None], x)[0], module(x)
            assert (logits - own).abs().max() < 1e-4 * own.abs().max()


def test_hidden_layers_of_a_siren_are_in_the_order_of_their_numbers(tmp_path):
    widths = (3, 8, 9, 10, 11, 12, 1)
    net = TargetNet(siren(widths))
    state = {name: value[0] for name, value in net.start([0]).items()}
    save_file(state, tmp_path / "a.safetensors")  # sorted by name: mlp.10 before mlp.2
    found = read_instance(tmp_path / "a.safetensors")[0]
    assert siren_widths(found, "a") == widths
    assert torch.equal(row_of(net, found, "a"), net.fuse({name: value[None] for name, value in state.items()})[0])
    with pytest.raises(InputError, match="a.pt"):
        siren_widths({"mlp.0.weight": torch.zeros(8, 3), "mlp.2.weight": torch.zeros(1, 7)}, "a.pt")


def test_a_whole_module_is_refused_with_what_to_save(tmp_path):
    torch.save(ARCHITECTURES["resnet8"].build(*PHOTOS), tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt.*torch\.save\(net\.state_dict\(\), PATH\)") as refusal:
        read_instance(tmp_path / "a.pt")
    assert "delete" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("bn1.running_var", lambda value: -torch.ones_like(value), "conv1"),
        ("conv1.weight", lambda value: value.double() + 1e300, "'conv1.weight'"),
        ("fc.bias", lambda value: value.to(torch.float8_e4m3fn), "'fc.bias'.*float8"),
        ("fc.bias", lambda value: value.to("meta"), "'fc.bias'.*meta"),
        ("fc.bias", lambda value: value.to(torch.complex64), "'fc.bias'.*complex64"),
        ("fc.bias", lambda value: value.to_sparse(), "'fc.bias'.*sparse"),
        ("fc.bias", lambda value: value.int(), "'fc.bias'.*int32"),
        ("fc.bias", lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "'fc.bias'.*qint8"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_no_net_computes_with_are_refused_by_name(name, change, match, net, state, tmp_path):
    torch.save({**state, name: change(state[name])}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=match) as refusal:
        find_row([net], tmp_path / "a.pt")
    assert "a.pt" in str(refusal.value)


# What files claim


def refusals(megabytes, *paths):
    """Read files in a process that may have so much more memory than after its imports; return the refusals, one a line."""
    code = f"""
import resource, sys, torch
from pathlib import Path
from data.tensor_files import read_tensors
from models.errors import InputError
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {megabytes << 20},) * 2)
for path in sys.argv[1:]:
    try:
        read_tensors(Path(path))
    except InputError as error:
        print(error)
    else:
        raise SystemExit(path + " was read")
"""
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deflated(path):
    torch.save({"fc.bias": torch.zeros(50_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {record: archive.read(record) for record in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, content in records.items():
            archive.writestr(record, content)


def expanded(path):
    torch.save({"fc.bias": torch.zeros(1).expand(10**11)}, path)


def pickled(path, opcodes):
    torch.save({"a": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {record: archive.read(record) for record in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for record, content in records.items():
            archive.writestr(record, opcodes if record.endswith("data.pkl") else content)


def byte_array(path):
    pickled(path, b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.")


def hex_of_hex(path):
    encode = b"c_codecs\nencode\n"
    start = b"\x80\x02" + 40 * encode + b"U\x01a"
    pickled(path, start + 40 * b"X\x03\x00\x00\x00hex\x86R" + b".")


def long_storage(path):
    torch.save({"a": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x04Nt") == 1
    path.write_bytes(content.replace(b"K\x04Nt", b"J\x00\x00\x00\x7fNt"))


def deflated_array(path):
    np.savez_compressed(path, pos=np.zeros((60_000_000,), np.float32))


@pytest.mark.slow
def test_files_that_grow_are_refused_before_they_do(tmp_path):
    makers = (deflated, expanded, byte_array, hex_of_hex, long_storage)
    paths = [tmp_path / f"{make.__name__}.pt" for make in makers]
    for make, path in zip(makers, paths):
        make(path)
    paths.append(tmp_path / "array.npz")
    deflated_array(paths[-1])
    printed = refusals(100, *paths).splitlines()
    assert len(printed) == len(paths)
    for path, line in zip(paths, printed):
        assert path.name in line and "MemoryError" not in line


def test_arrays_are_read_stored_or_deflated_and_need_their_headers_size(tmp_path):
    arrays = {"pos": np.random.default_rng(0).random((50, 4)).astype(np.float32), "n": np.int64(3)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_arrays(tmp_path / "a.npz", ["pos"])
        assert list(found) == ["pos"] and np.array_equal(found["pos"], arrays["pos"])
        assert read_arrays(tmp_path / "a.npz")["n"] == 3
        value, _ = read_tensors(tmp_path / "a.npz")
        assert torch.equal(value["pos"], torch.from_numpy(arrays["pos"]))
    with pytest.raises(InputError, match="a.npz.*neg"):
        read_arrays(tmp_path / "a.npz", ["neg"])
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        content = archive.read("pos.npy")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("pos.npy", content.replace(b"(50, 4)", b"(99, 4)"))
    with pytest.raises(InputError, match="b.npz"):
        read_arrays(tmp_path / "b.npz", ["pos"])


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npz"])
def test_only_regular_files_are_opened(name, tmp_path):
    import os

    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=name):
        read_tensors(tmp_path / name)


def test_a_flipped_bit_in_our_own_file_is_noticed(net, state, tmp_path):
    path = tmp_path / "a.safetensors"
    save_instance(path, state, {"steps": 3})
    good = path.read_bytes()
    assert read_instance(path)[1] == {"steps": 3}
    for position in (good.index(b"steps") + 10, len(good) - 1, len(good) // 2):
        content = bytearray(good)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.safetensors"):
            read_instance(path)
    save_file(state, path, {"facts": "{}"})  # others' files, and old ones, have no hash
    assert torch.equal(plain_state(read_instance(path)[0], "")["fc.bias"], state["fc.bias"])
