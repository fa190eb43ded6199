"""Instance files: a state dict, `.safetensors` (ours, with facts in its header) or `.pt`, to a row of parameters.

Read are our own files, those of the original release, and what people save from nets of these architectures: ResNets with
batch norm under torchvision's names, which are fused, or fused already; nets wrapped by DataParallel or torch.compile;
checkpoints that hold the state dict under a name. Nothing in a file is executed.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from data.files import load_pt, write_safetensors
from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.prep import Layout
from models.siren import SirenNets

HELD_UNDER = ("state_dict", "model_state_dict", "model", "net", "mlp")  # the last by the original release's MLPs
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
NUMBERED = re.compile(r"layers\.(\d+)\.(\w+)")

Shapes = dict[str, tuple[int, ...]]


def save_instance(path: Path, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """One instance's state dict, with facts (JSON) in the file's header."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_safetensors(path, tensors, {"facts": json.dumps(facts)})


def read_instance(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and facts (empty for a `.pt`). Raises InputError if the file is missing or holds no state dict."""
    if not path.is_file():
        raise InputError(f"no instance file {path}; run the script that made the list again, it makes what is missing")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                facts = dict(json.loads((file.metadata() or {}).get("facts", "{}")))
                return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (no mapping)
        state = load_pt(path)
    except Exception as error:  # what a file that is no pickle raises depends on its bytes
        raise InputError(
            f"{path} cannot be read as an instance ({type(error).__name__}); delete it and run the script that made it again"
        ) from None
    return plain_state(state, str(path)), {}


def is_on_disk(path: Path, facts: dict[str, Any]) -> bool:
    """Whether this instance was trained already. Raises InputError if the file is another instance's or broken."""
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
    """A state dict under the names of the net itself: without wrappers' prefixes, out of the checkpoint that holds it.

    An MLP of the original release keeps its samples, under "sdf". Raises InputError if there is none.
    """
    held = next((key for key in HELD_UNDER if isinstance(state, dict) and isinstance(state.get(key), dict)), None)
    if held is not None:
        state = {**state[held], "sdf": state["sdf"]} if held == "mlp" and "sdf" in state else state[held]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{where} is not a state dict (names to tensors); save one with torch.save(net.state_dict(), PATH)"
        )
    return {WRAPPERS.sub("", str(name)): value for name, value in state.items()}


def check_numbers(values: Tensor, what: str) -> None:
    """Raises InputError unless values are floating point numbers, stored one by one, all finite."""
    if not values.is_floating_point() or values.layout != torch.strided or values.is_quantized:
        raise InputError(f"{what} holds {values.dtype}, {values.layout}, expected float32; save it as such")
    if not values.isfinite().all():
        raise InputError(f"{what} holds NaN or infinity; train this instance again")


def shapes_of(state: dict[str, Tensor]) -> Shapes:
    """Without batch norm's counters, which nothing reads."""
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}


def form_of(nets: ArchitectureOnImages, names: Sequence[str]) -> tuple[bool, Shapes]:
    """Whether a state dict of these names has batch norm still, and the names and shapes expected of it."""
    with_norm, fused = shapes_of(nets.trained.state_dict()), shapes_of(nets.fused.state_dict())
    unfused = bool(set(names) & (set(with_norm) - set(fused)))
    return unfused, with_norm if unfused else fused


def renumbered(state: dict[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    """`layers.{i}` with the i of our own, in the same order: where activations count otherwise, so do the numbers."""
    theirs, ours = (
        sorted({int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))}) for names in (state, expected)
    )
    if len(theirs) != len(ours):
        return state
    number = dict(zip(theirs, ours))
    return {NUMBERED.sub(lambda found: f"layers.{number[int(found[1])]}.{found[2]}", k): v for k, v in state.items()}


def fused_row(nets: ArchitectureOnImages, state: dict[str, Tensor], where: Path | str) -> Tensor:
    """A state dict, with batch norm or already fused, as a row (P,). Raises InputError if it is of another net."""
    unfused, expected = form_of(nets, list(state))
    state = renumbered(state, expected)
    state = {name: state[name] for name in shapes_of(state)}
    if set(state) != set(expected):
        odd = sorted(set(state) ^ set(expected))[0]
        whose = "misses" if odd in expected else "has"
        raise InputError(
            f"{where} is no {nets.architecture.name}: it {whose} '{odd}'; check the architecture in the list"
        )
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise InputError(
                f"{where} is no {nets.architecture.name} for these images: '{name}' is {tuple(state[name].shape)}, expected {shape}"
            )
        check_numbers(state[name], f"{where}: '{name}'")
    batch = {name: value.float()[None] for name, value in state.items()}
    return nets.fuse(batch)[0] if unfused else Layout.of(nets.fused).flatten(batch)[0]


def siren_row(nets: SirenNets, state: dict[str, Tensor], where: Path | str) -> Tensor:
    """A state dict as a row (P,). Raises InputError if it is of another net."""
    have, want = shapes_of(state), dict(zip(nets.layout.names, nets.layout.shapes))
    for name in sorted({*have, *want}):
        if have.get(name) != want.get(name):
            raise InputError(
                f"{where} is no SIREN of widths {nets.widths}: {name} is {have.get(name, 'nothing')}, expected {want.get(name, 'nothing')}"
            )
        check_numbers(state[name], f"{where}: '{name}'")
    return nets.layout.flatten({name: value.float()[None] for name, value in state.items()})[0]


def find_nets(
    candidates: Sequence[ArchitectureOnImages], state: dict[str, Tensor], where: Path | str
) -> ArchitectureOnImages:
    """The candidate whose state dict this is. Raises InputError if it is none's."""
    for nets in candidates:
        _, expected = form_of(nets, list(state))
        if shapes_of(renumbered(state, expected)) == expected:
            return nets
    if len(candidates) == 1:
        return candidates[0]  # whoever reads the state says what differs
    names, shape = ", ".join(nets.architecture.name for nets in candidates), candidates[0].image_shape
    raise InputError(f"{where} is none of {names} for images of {shape}; check what it was saved from")
