"""Instance files: a state dict in `.safetensors` (ours, with facts in its header) or `.pt`, read as a row; ONNX is written too.

These are read: our own files, those of the original release, and what people save from nets of these architectures: ResNets
with batch norm under torchvision's names, or fused already; nets wrapped by DataParallel or torch.compile; checkpoints that
hold the state dict under a name. Nothing in a file is executed.
"""

import json
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from data.files import load_pt, write_safetensors, written_whole
from models.errors import InputError
from models.instances import TargetNet
from models.rows import Layout

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net", "mlp")  # the last in the original release's MLPs
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
NUMBERED = re.compile(r"layers\.(\d+)\.(\w+)")
FORMATS = (".safetensors", ".pt", ".onnx")  # that are written

Shapes = dict[str, tuple[int, ...]]
Net = nn.Module | dict[str, Tensor] | str | Path  # a net, its state dict, or the file of one


def save_instance(path: Path, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write one instance's state dict, with facts (JSON) in the file's header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_safetensors(path, tensors, {"facts": json.dumps(facts)})


def read_instance(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a state dict and its facts (none for a `.pt`).

    Raise InputError if the file is missing or does not hold a state dict.
    """
    if not path.is_file():
        raise InputError(
            f"no instance file {path}; run the script that made the list again, it creates what is missing"
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                facts = dict(json.loads((file.metadata() or {}).get("facts", "{}")))
                return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (no mapping)
        state = load_pt(path)
    except Exception as error:  # a broken file may raise anything
        raise InputError(
            f"{path} cannot be read as an instance ({type(error).__name__}); delete it and run the script that made it again"
        ) from None
    return plain_state(state, str(path)), {}


def state_of(net: Net) -> tuple[dict[str, Tensor], str]:
    """Return a net's state dict on the CPU, without samples, and its name in messages. Raise InputError if it has none."""
    if isinstance(net, (str, Path)):
        state, where = read_instance(Path(net))[0], str(net)
    else:
        where = "the net" if isinstance(net, nn.Module) else "the state dict"
        state = plain_state(net.state_dict() if isinstance(net, nn.Module) else net, where)
    return {name: value.detach().cpu() for name, value in state.items() if name != "sdf"}, where


def is_on_disk(path: Path, facts: dict[str, Any]) -> bool:
    """Return whether this instance exists. Raise InputError if the file is broken or has other facts."""
    if not path.is_file():
        return False
    _, found = read_instance(path)
    for name, value in facts.items():
        if found.get(name) != value:
            raise InputError(
                f"{path} was made with {name} {found.get(name)}, not {value}; move it away, or use what it was made with"
            )
    return True


def plain_state(state: Any, where: str) -> dict[str, Tensor]:
    """Return a state dict under the net's own names: out of the checkpoint that holds it, without wrappers' prefixes.

    An MLP of the original release has its samples beside it, under "sdf". Raise InputError if there is no state dict.
    """
    found = next((key for key in STATE_DICT_KEYS if isinstance(state, dict) and isinstance(state.get(key), dict)), None)
    if found is not None:
        state = {**state[found], "sdf": state["sdf"]} if found == "mlp" and "sdf" in state else state[found]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{where} is not a state dict (names to tensors); save one with torch.save(net.state_dict(), PATH)"
        )
    return {WRAPPERS.sub("", str(name)): value for name, value in state.items()}


def check_numbers(values: Tensor, what: str) -> None:
    """Raise InputError unless values are floating point numbers in a dense tensor, all finite."""
    if not values.is_floating_point() or values.layout != torch.strided or values.is_quantized:
        raise InputError(f"{what} holds {values.dtype}, {values.layout}, expected float32; save it as such")
    if not values.isfinite().all():
        raise InputError(f"{what} holds NaN or infinity; train this instance again")


def shapes_of(state: dict[str, Tensor]) -> Shapes:
    """Return shapes by name, without batch norm's counters, which nothing reads."""
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}


def form_of(net: TargetNet, names: Sequence[str]) -> tuple[bool, Shapes]:
    """Return whether a state dict of these names has batch norm, and the names and shapes it should have."""
    with_norm, fused = shapes_of(net.trained.state_dict()), shapes_of(net.fused.state_dict())
    unfused = bool(set(names) & (set(with_norm) - set(fused)))
    return unfused, with_norm if unfused else fused


def renumbered(state: dict[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    """Rename `layers.{i}` to our own i, in the same order: implementations count activations differently."""
    theirs, ours = (
        sorted({int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))}) for names in (state, expected)
    )
    if len(theirs) != len(ours):
        return state
    number = dict(zip(theirs, ours))
    return {NUMBERED.sub(lambda found: f"layers.{number[int(found[1])]}.{found[2]}", k): v for k, v in state.items()}


def row_of(net: TargetNet, state: dict[str, Tensor], where: Path | str) -> Tensor:
    """Return a state dict, with batch norm or fused, as a row (P,) float32. Raise InputError if it is another net's."""
    unfused, expected = form_of(net, list(state))
    state = renumbered(state, expected)
    state = {name: state[name] for name in shapes_of(state)}
    if set(state) != set(expected):
        odd = sorted(set(state) ^ set(expected))[0]
        verb = "lacks" if odd in expected else "has"
        raise InputError(f"{where} is not a {net.name}: it {verb} '{odd}'; check the architecture in the list")
    for name, shape in expected.items():
        if state[name].shape != shape:
            inputs = "images" if len(net.input_shape) == 3 else "widths"
            raise InputError(
                f"{where} is not a {net.name} for these {inputs}: '{name}' is {tuple(state[name].shape)}, expected {shape}"
            )
        check_numbers(state[name], f"{where}: '{name}'")
    batch = {name: value.float()[None] for name, value in state.items()}
    return net.fuse(batch)[0] if unfused else Layout.of(net.fused).flatten(batch)[0]


def find_net(candidates: Sequence[TargetNet], state: dict[str, Tensor], where: Path | str) -> TargetNet:
    """Return the candidate whose state dict this is. Raise InputError if there is none."""
    for net in candidates:
        _, expected = form_of(net, list(state))
        if shapes_of(renumbered(state, expected)) == expected:
            return net
    if len(candidates) == 1:
        return candidates[0]  # `row_of` names the difference
    names, shape = ", ".join(net.name for net in candidates), candidates[0].input_shape
    raise InputError(f"{where} is none of {names} for images of {shape}; check what it was saved from")


def find_row(candidates: Sequence[TargetNet], net: Net) -> tuple[TargetNet, Tensor]:
    """Return the candidate that a net is, and its row (P,). Raise InputError if it is none of them."""
    state, where = state_of(net)
    found = find_net(candidates, state, where)
    return found, row_of(found, state, where)


def siren_widths(state: dict[str, Tensor], where: Path | str) -> tuple[int, ...]:
    """Return the widths of the SIREN whose state dict this is. Raise InputError if it is another net's."""
    weights = [value for name, value in state.items() if re.fullmatch(r"mlp\.\d+\.weight", name)]
    if not weights or any(weight.dim() != 2 for weight in weights):
        raise InputError(
            f"{where} is not a SIREN: it has no matrices mlp.0.weight, mlp.2.weight, ...; check what it is"
        )
    return (weights[0].shape[1], *(len(weight) for weight in weights))


def samples_of(state: dict[str, Tensor], where: Path | str) -> Tensor:
    """Return the samples "sdf" (S, 4) float32 of a SIREN's file. Raise InputError if it has none."""
    samples = state.get("sdf")
    if samples is None or samples.dim() != 2 or samples.shape[1] != 4 or not len(samples):
        raise InputError(f"{where} has no samples 'sdf' (S, 4); make it again with create_mlp_dataset.py")
    check_numbers(samples, f"{where}: 'sdf'")
    return samples.float()


def export_net(net: nn.Module, path: Path, example: Tensor, facts: dict[str, Any]) -> None:
    """Write a net in the format of the path's suffix, one of FORMATS. Raise InputError for another suffix.

    `.safetensors` and `.pt` hold the state dict under the net's own names, the former with `facts` in its header. `.onnx`
    holds the net for float32 batches of any size, like `example` (B, ...), with `facts` as metadata.
    """
    if path.suffix == ".safetensors":
        save_instance(path, net.state_dict(), facts)
    elif path.suffix == ".pt":
        with written_whole(path) as partial:
            torch.save({name: value.detach().cpu().clone() for name, value in net.state_dict().items()}, partial)
    elif path.suffix == ".onnx":
        import onnx  # takes a second, and nothing else needs it

        model = to_onnx(net, example)
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in facts.items()})
        with written_whole(path) as partial:
            onnx.save(model, partial)
    else:
        raise InputError(f"{path}: a net is written as {', '.join(FORMATS)}; give one of these suffixes")


def to_onnx(net: nn.Module, example: Tensor) -> Any:
    """Return an onnx.ModelProto with `input` and `output`, whose first dimension is free, without the exporter's messages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                net.cpu().eval(),
                (example.cpu(),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # only the old exporter returns None
    return program.model_proto
