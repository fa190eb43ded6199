"""Checkpoints that are whole or absent, and safe to load."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.files import load_pt, written_whole
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replaces the checkpoint at `path` in one move: a crash leaves the old one."""
    with written_whole(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, made_by: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Tensors and plain values only: nothing in it is executed.

    Raises InputError if there is none (`made_by` is the command that makes it), it is broken or lacks one of the keys.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}; make it with: {made_by}")
    try:
        saved = load_pt(path)
    except Exception as error:  # what a file that is no pickle raises depends on its bytes
        raise InputError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it and run: {made_by}"
        ) from None
    missing = [key for key in keys if key not in saved] if isinstance(saved, dict) else ["names"]
    if missing:
        raise InputError(f"checkpoint {path} is of another kind: it has no {missing[0]}; delete it and run: {made_by}")
    return saved


def load_state(owner: Any, state: Any, path: Path) -> None:
    """`owner.load_state_dict`. Raises InputError if the state is another's."""
    try:
        owner.load_state_dict(state)
    except Exception as error:  # depends on what is wrong with it
        raise InputError(
            f"checkpoint {path} holds no state of this {type(owner).__name__} ({type(error).__name__}); delete it to start over"
        ) from None


def refuse_other_constants(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises InputError, naming the first that differs, unless a checkpoint was made with the constants and data of now."""
    if not isinstance(saved, dict):
        raise InputError(f"{path} does not say with which constants it was made; delete it to start over")
    for name, value in now.items():
        if saved.get(name) != value:
            raise InputError(
                f"{path} was made with {name} {saved.get(name)}, now it is {value}; use the same, or delete it to start over"
            )


def net_space_state(net_space: PrepAutoencoder) -> dict[str, Any]:
    """Under the original release's keys: "0" is the encoder, "1" the decoder and, where there is one, the classifier."""
    return {"0": net_space.encoder.state_dict(), "1": decoder_state(net_space)}


def decoder_state(net_space: PrepAutoencoder) -> dict[str, Tensor]:
    classifier = {} if net_space.classifier is None else net_space.classifier.state_dict()
    return {**net_space.decoder.state_dict(), **classifier}


def load_net_space(net_space: PrepAutoencoder, state: dict[str, Any], path: Path) -> None:
    """Ours or the original release's. Raises InputError, naming the first difference, if the sizes are not those of `net_space`."""
    for key, own in (("0", net_space.encoder.state_dict()), ("1", decoder_state(net_space))):
        if not isinstance(state.get(key), dict) or not all(isinstance(each, Tensor) for each in state[key].values()):
            raise InputError(
                f"checkpoint {path} has no entry '{key}'; it is no NetSpace checkpoint, delete it or name another run folder"
            )
        # The original's decoder always holds a ClassId classifier, which the single-architecture setting does not use.
        given = {name: value for name, value in state[key].items() if name in own or not name.startswith("arch_")}
        for name in sorted(set(own) | set(given)):
            have, want = (tuple(each[name].shape) if name in each else "nothing" for each in (given, own))
            if have != want:
                raise InputError(
                    f"checkpoint {path} is of another NetSpace: {name} is {have}, these constants give {want}; change them or delete {path.parent}"
                )
            if not given[name].is_floating_point() or not given[name].isfinite().all():
                raise InputError(
                    f"checkpoint {path}: {name} holds NaN, infinity or no floating point numbers; delete it and train again"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(given[name])  # a state dict's tensors are the module's own


def restore_net_space(
    path: Path, made_by: str, device: torch.device, num_class_ids: int | None = None
) -> PrepAutoencoder:
    """The net of a checkpoint, of the sizes it was saved with (the paper's, for one of the original release).

    With `num_class_ids`, its ClassId classifier too, which must tell so many apart.
    """
    return net_space_of(load_checkpoint(path, made_by), path, made_by, num_class_ids).to(device).eval()


def net_space_of(saved: dict[str, Any], path: Path, made_by: str, num_class_ids: int | None) -> PrepAutoencoder:
    try:
        shapes = {
            "emb_size": len(saved["0"]["conv4.0.bias"]),
            "prep_shape": tuple(saved["1"]["scalelayer.scale"].shape),
        }
        sizes = Sizes(**saved.get("sizes", shapes))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no NetSpace checkpoint; delete it and run: {made_by}") from None
    net_space = PrepAutoencoder(sizes, num_class_ids)
    load_net_space(net_space, saved, path)
    return net_space
