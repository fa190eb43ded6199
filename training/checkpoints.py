"""Checkpoints: whole or absent, safe to load, and with the original release's names for NetSpace."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import load_pt, written_whole
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path` in one move: a crash leaves the old one."""
    with written_whole(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, made_by: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return a checkpoint's tensors and plain values; nothing in it is executed.

    Raise InputError if it is missing (`made_by` is the command that makes it), broken, or lacks one of the keys.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}; make it with: {made_by}")
    try:
        saved = load_pt(path)
    except Exception as error:  # a broken file may raise anything
        raise InputError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); delete it and run: {made_by}"
        ) from None
    missing = [key for key in keys if key not in saved] if isinstance(saved, dict) else ["names"]
    if missing:
        raise InputError(f"checkpoint {path} is of another kind: it has no {missing[0]}; delete it and run: {made_by}")
    return saved


def load_state(owner: Any, state: Any, path: Path) -> None:
    """Call `owner.load_state_dict`. Raise InputError if the state is another's."""
    try:
        owner.load_state_dict(state)
    except Exception as error:  # its type depends on what is wrong
        raise InputError(
            f"checkpoint {path} holds no state of this {type(owner).__name__} ({type(error).__name__}); delete it to start over"
        ) from None


def refuse_other_constants(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError, naming the first difference, if a checkpoint was made with other constants or data than now."""
    if not isinstance(saved, dict):
        raise InputError(f"{path} does not say with which constants it was made; delete it to start over")
    # One that is not among the saved ones last: --num-steps is missing because --schedule is another.
    for name, value in sorted(now.items(), key=lambda item: item[0] not in saved):
        if saved.get(name) != value:
            raise InputError(
                f"{path} was made with {name} {saved.get(name)}, now it is {value}; use the same, or delete it to start over"
            )


def model_entries(model: nn.Module) -> dict[str, Any]:
    """Return a model's part of a checkpoint.

    NetSpace has the original release's keys: "0" is the encoder, "1" the decoder with the ClassId classifier, if there is one.
    """
    if not isinstance(model, PrepAutoencoder):
        return {"model": model.state_dict()}
    return {"sizes": asdict(model.sizes), "0": model.encoder.state_dict(), "1": decoder_state(model)}


def decoder_state(model: PrepAutoencoder) -> dict[str, Tensor]:
    """Return the decoder's state with the classifier's among it."""
    classifier = {} if model.classifier is None else model.classifier.state_dict()
    return {**model.decoder.state_dict(), **classifier}


def load_model(model: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Load a model's part of a checkpoint, ours or the original release's.

    Raise InputError, naming the first difference, if it is a model of other sizes.
    """
    if not isinstance(model, PrepAutoencoder):
        return load_state(model, saved.get("model"), path)
    for key, own in (("0", model.encoder.state_dict()), ("1", decoder_state(model))):
        state = saved.get(key)
        if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
            raise InputError(
                f"checkpoint {path} has no entry '{key}'; it is not a NetSpace checkpoint, delete it or name another run folder"
            )
        # The original's decoder always has a ClassId classifier, which the single-architecture setting does not use.
        given = {name: value for name, value in state.items() if name in own or not name.startswith("arch_")}
        for name in sorted(set(own) | set(given)):
            found, expected = (tuple(each[name].shape) if name in each else "missing" for each in (given, own))
            if found != expected:
                raise InputError(
                    f"checkpoint {path} is of another NetSpace: {name} is {found}, these constants give {expected}; "
                    f"change them or delete {path.parent}"
                )
            if not given[name].is_floating_point() or not given[name].isfinite().all():
                raise InputError(
                    f"checkpoint {path}: {name} holds NaN, infinity or no floating point numbers; delete it and train again"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(given[name])  # a state dict's tensors are the module's own


def restore_model(saved: dict[str, Any], path: Path, made_by: str, num_class_ids: int | None) -> PrepAutoencoder:
    """Return the NetSpace of a checkpoint, in eval mode, on the CPU.

    It has the sizes that it was saved with; one of the original release has the paper's. With `num_class_ids` (A) it has a
    ClassId classifier, which must distinguish so many. Raise InputError if the checkpoint is another's.
    """
    try:
        shapes = {
            "emb_size": len(saved["0"]["conv4.0.bias"]),
            "prep_shape": tuple(saved["1"]["scalelayer.scale"].shape),
        }
        sizes = Sizes(**saved.get("sizes", shapes))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a NetSpace checkpoint; delete it and run: {made_by}") from None
    with torch.random.fork_rng(devices=[]):  # its initial parameters are replaced
        model = PrepAutoencoder(sizes, num_class_ids)
    load_model(model, saved, path)
    return model.eval()
