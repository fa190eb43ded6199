"""Instance files: a state dict in `.safetensors` (ours, with facts in its header) or `.pt`, read as a row; ONNX is written too.

These are read: our own files, those of the original release, and what people save from nets of these architectures: ResNets
with batch norm under torchvision's names, or fused already; nets wrapped by DataParallel, torch.compile, Lightning or
AveragedModel; checkpoints that hold the state dict under a name (`state_dict_in`). Nothing in a file is executed.
"""

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import check_regular, is_regular, write_safetensors, written_whole
from data.recognition import OF_SIREN, find_net, form_of, names_fit, registered_net, renumbered, shapes_of
from data.state_dicts import dicts_of_tensors, state_dict_in
from data.tensor_files import SAVE_AGAIN, read_tensors
from data.texts import parse_json
from models.errors import InputError, brief
from models.instances import TargetNet
from models.rows import Layout
from models.target_nets.siren import check_widths

HASH = re.compile(r'(?:, )?"sha256": "([0-9a-f]{64})"\}$')
FORMATS = (".safetensors", ".pt", ".onnx", ".pth")  # that are written
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # that are read

Net = nn.Module | dict[str, Tensor] | str | Path  # a net, its state dict, or the file of one


def save_instance(path: Path, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write one instance's state dict, with facts (JSON) and a hash of the content in the file's header."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in state.items():
        each = value.detach().cpu().contiguous()
        if each.untyped_storage().data_ptr() in storages:
            each = each.clone()  # the format has no tied tensors
        storages.add(each.untyped_storage().data_ptr())
        tensors[name] = each
    text = json.dumps(facts)
    # In one entry with the facts: the format writes several in any order, and the same instance is the same file.
    last = f'"sha256": "{content_hash(tensors, text)}"' + "}"
    write_safetensors(path, tensors, {"facts": (text[:-1] + ", " if facts else "{") + last})


def content_hash(tensors: dict[str, Tensor], facts: str) -> str:
    """Return the SHA-256 of tensors, by name, and of the text of their facts."""
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def without_hash(text: str) -> tuple[str, str | None]:
    """Return facts (JSON) without the hash at their end, and the hash. Others' files have none."""
    found = HASH.search(text)
    return (text[: found.start()] + "}", found[1]) if found else (text, None)


def read_instance(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a state dict and its facts (none for a `.pt`).

    Raise InputError if the file is missing, does not hold a state dict, or has another content than its header's hash says.
    """
    if not is_regular(path):
        raise InputError(f"no instance file {path}; check its name")
    try:
        value, header = read_tensors(path)
        text, expected = without_hash(header.get("facts", "{}"))
        facts = dict(parse_json(text))
    except InputError as error:
        reason = str(error).removeprefix(f"{path} ").removeprefix("cannot be read ")
        raise InputError(f"{path} cannot be read as an instance: {reason}") from None
    except (ValueError, TypeError):
        raise InputError(f"{path} cannot be read as an instance: the facts in its header are no JSON object") from None
    if expected and content_hash(value, text) != expected:
        raise InputError(
            f"{path} is damaged: its content is not what was written; move it away, and make or copy it again"
        )
    return plain_state(value, str(path)), facts


@dataclass(frozen=True)
class Known:
    """What is known of a net: its state dict without samples, its name in messages, the architecture that its file states.

    `eps` are those of a module's batch norms, by the name of their running variance.
    """

    state: dict[str, Tensor]
    where: str
    architecture: str | None = None
    eps: dict[str, float] = field(default_factory=dict)


def known_of(net: Net) -> Known:
    """Return what is known of a net. Raise InputError if it has no state dict."""
    eps: dict[str, float] = {}
    stated = None
    if isinstance(net, (str, Path)):
        check_regular(Path(net))
        (state, facts), where = read_instance(Path(net)), str(net)
        stated = stated_architecture(facts)
    elif isinstance(net, nn.Module):
        where = "the net"
        state = plain_state(dict(net.state_dict(keep_vars=True)), where)  # the tensors themselves
        norms = [each for each in net.modules() if hasattr(each, "running_var") and hasattr(each, "eps")]
        by_tensor = {id(each.running_var): float(each.eps) for each in norms}  # type: ignore[arg-type]  # whatever wraps the net
        eps = {name: by_tensor[id(value)] for name, value in state.items() if id(value) in by_tensor}
    else:
        where = "the state dict"
        state = plain_state(net, where)
    return Known({name: value.detach() for name, value in state.items() if name != "sdf"}, where, stated, eps)


def stated_architecture(facts: dict[str, Any]) -> str | None:
    """Return the architecture that a file states among its facts, None if it states none."""
    stated = facts.get("architecture")
    return stated if isinstance(stated, str) else None


# Facts that files did not state while there was one choice.
UNSTATED = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}


def is_on_disk(path: Path, facts: dict[str, Any]) -> bool:
    """Return whether this instance exists. Raise InputError if the file is broken or has other facts."""
    if not path.is_file():
        return False
    try:
        _, found = read_instance(path)
    except InputError as error:
        raise InputError(f"{error}; this command makes it again once it is moved away") from None
    for name, value in facts.items():
        made = found.get(name, UNSTATED.get(name))
        if made != value:
            raise InputError(
                f"{path} was made with {name} {brief(made)}, not {value}; move it away, or use what it was made with"
            )
    return True


def plain_state(value: Any, where: str) -> dict[str, Tensor]:
    """Return a state dict under the net's own names: out of the checkpoint that holds it, without wrappers' prefixes.

    An MLP of the original release has its samples beside it, under "sdf". Raise InputError if there is no state dict.
    """
    try:
        state = state_dict_in(value, names_fit)
    except InputError as error:
        raise InputError(f"{where} has {error}") from None
    if state is None:
        raise InputError(f"{where} is not a state dict (names to tensors); {SAVE_AGAIN}")
    samples = next((tensors["sdf"] for _, _, tensors in dicts_of_tensors(value) if "sdf" in tensors), None)
    if isinstance(samples, Tensor) and any(OF_SIREN.fullmatch(name) for name in state):
        state = {**state, "sdf": samples}
    return state


def check_numbers(values: Tensor, what: str) -> None:
    """Raise InputError unless values are floating point numbers in a dense tensor, finite in float32 too."""
    if values.device.type == "meta":
        raise InputError(f"{what} is a meta tensor, without numbers; save it from a net that has its weights")
    if values.layout != torch.strided or values.is_quantized or values.is_nested or values.dtype not in FLOATS:
        raise InputError(f"{what} holds {values.dtype}, {values.layout}, expected float32; save it as such")
    if not values.isfinite().all():
        raise InputError(f"{what} holds NaN or infinity; train this instance again")
    if not values.float().isfinite().all():
        raise InputError(f"{what} holds {values.abs().max():.3g}, infinity in float32; train this instance again")


def row_of(net: TargetNet, state: dict[str, Tensor], where: Path | str, eps: dict[str, float] | None = None) -> Tensor:
    """Return a state dict, with batch norm or fused, as a row (P,) float32 on the CPU.

    `eps` are those of batch norms that differ from the architecture's, by the name of their running variance. Raise
    InputError if it is another net's, or if its numbers are not finite, fused too.
    """
    unfused, expected = form_of(net, list(state))
    state = renumbered(state, expected)
    state = {name: state[name] for name in shapes_of(state)}
    if set(state) != set(expected):
        odd = sorted(set(state) ^ set(expected))[0]
        verb = "lacks" if odd in expected else "has"
        first = sorted(set(state) - set(expected))[:1]
        theirs = f" (and has '{brief(first[0])}')" if first and verb == "lacks" else ""
        raise InputError(f"{where} is not a {net.name}: it {verb} '{brief(odd)}'{theirs}; check what it was saved from")
    for name, shape in expected.items():
        if state[name].shape != shape:
            inputs = "images" if len(net.input_shape) == 3 else "widths"
            raise InputError(
                f"{where} is not a {net.name} for these {inputs}: '{name}' is {tuple(state[name].shape)}, expected {shape}"
            )
        check_numbers(state[name], f"{where}: '{name}'")
    batch = {name: value.cpu().float()[None] for name, value in state.items()}
    if not unfused:
        return Layout.of(net.fused).flatten(batch)[0]
    for name, own in (eps or {}).items():
        norm = net.trained.get_submodule(name.rpartition(".")[0])
        batch[name] = batch[name] + (own - float(norm.eps))  # type: ignore[arg-type]
    row = net.fuse(batch)[0]
    if not row.isfinite().all():
        broken = next(name for name, value in net.layout.unflatten(row[None]).items() if not value.isfinite().all())
        raise InputError(
            f"{where}: '{broken}' is NaN or infinity once batch norm is fused (running variances below 0, or numbers too "
            "large); train this instance again"
        )
    return row


def find_row(candidates: Sequence[TargetNet], net: Net) -> tuple[TargetNet, Tensor]:
    """Return the candidate that a net is, and its row (P,). Raise InputError if it is none of them."""
    known = known_of(net)
    found = find_net(candidates, known.state, known.where, [known.architecture])
    return found, row_of(found, known.state, known.where, known.eps)


def registered_row(like: TargetNet, net: Net) -> tuple[TargetNet, Tensor]:
    """Return the registered architecture that a net is, for images as those of `like`, and its row (P,).

    Where several fit, it is the one that the net's file states, then that of `like`. Raise InputError if it is none.
    """
    known = known_of(net)
    prefer = [known.architecture, like.name]
    found = registered_net(known.state, like.input_shape, like.num_outputs, known.where, prefer)
    return found, row_of(found, known.state, known.where, known.eps)


def siren_widths(state: dict[str, Tensor], where: Path | str) -> tuple[int, ...]:
    """Return the widths of the SIREN whose state dict this is. Raise InputError if it is another net's."""
    numbers = sorted(int(found[1]) for name in state if (found := OF_SIREN.fullmatch(name)) and found[2] == "weight")
    weights = [state[f"mlp.{number}.weight"] for number in numbers if f"mlp.{number}.weight" in state]
    if not weights or any(weight.dim() != 2 for weight in weights):
        raise InputError(
            f"{where} is not a SIREN: it has no matrices mlp.0.weight, mlp.2.weight, ...; check what it is"
        )
    widths = (weights[0].shape[1], *(len(weight) for weight in weights))
    fit = all(weight.shape[1] == width for weight, width in zip(weights, widths))
    if not fit or numbers != [*range(0, 2 * len(weights), 2)]:
        raise InputError(
            f"{where} is not a SIREN: its matrices {numbers[:9]} of {brief([tuple(each.shape) for each in weights])} do not fit; "
            "check what it is"
        )
    try:
        check_widths(widths)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return widths


def samples_of(state: dict[str, Tensor], where: Path | str) -> Tensor:
    """Return the samples "sdf" (S, 4) float32 of a SIREN's file. Raise InputError if it has none."""
    samples = state.get("sdf")
    if samples is None or samples.dim() != 2 or samples.shape[1] != 4 or not len(samples):
        raise InputError(f"{where} has no samples 'sdf' (S, 4); make it again with create_mlp_dataset.py")
    check_numbers(samples, f"{where}: 'sdf'")
    return samples.cpu().float()


def export_net(net: nn.Module, path: Path, example: Tensor, facts: dict[str, Any]) -> None:
    """Write a net in the format of the path's suffix, one of FORMATS. Raise InputError for another suffix.

    `.safetensors` and `.pt` (or `.pth`) hold the state dict under the net's own names, the former with `facts` in its header. `.onnx`
    holds the net for float32 batches of any size, like `example` (B, ...), with `facts` as metadata.
    """
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        save_instance(path, net.state_dict(), facts)
    elif suffix in (".pt", ".pth"):
        with written_whole(path) as partial:
            torch.save({name: value.detach().cpu().clone() for name, value in net.state_dict().items()}, partial)
    elif suffix == ".onnx":
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
