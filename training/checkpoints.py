"""Checkpoints: whole or absent, safe to load, and with the original release's names for NetSpace."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.files import is_regular, written_whole
from data.tensor_files import read_tensors
from models.errors import InputError, brief
from models.instances import TargetNet
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.token_autoencoder import TokenAutoencoder, TokenSizes

Autoencoder = PrepAutoencoder | TokenAutoencoder  # what encodes rows and decodes embeddings
MOST_LAYERS = 1000


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path` in one move: a crash leaves the old one."""
    with written_whole(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, made_by: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return a checkpoint's tensors and plain values; nothing in it is executed.

    Raise InputError if it is missing (`made_by` is the command that makes it), broken, or lacks one of the keys.
    """
    if not is_regular(path):
        raise InputError(f"no checkpoint {path}; make it with: {made_by}")
    try:
        saved, _ = read_tensors(path)
    except InputError as error:
        raise InputError(f"checkpoint {error}; if a script made it, move it away and run: {made_by}") from None
    missing = [key for key in keys if key not in saved] if isinstance(saved, dict) else ["names"]
    if missing:
        raise InputError(
            f"checkpoint {path} is of another kind: it has no {missing[0]}; name another, or make it with: {made_by}"
        )
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
        if not is_same(saved.get(name), value):
            raise InputError(
                f"{path} was made with {name} {brief(saved.get(name))}, now it is {brief(value)}; use the same, or delete it to start over"
            )


def is_same(saved: Any, now: Any) -> bool:
    """Return whether a constant out of a file is that of now. Anything but plain values, such as a tensor, is another."""
    try:
        return bool(saved == now)
    except (RuntimeError, TypeError, ValueError, RecursionError):
        return False


def model_entries(model: nn.Module) -> dict[str, Any]:
    """Return a model's part of a checkpoint.

    NetSpace has the original release's keys: "0" is the encoder, "1" the decoder with the ClassId classifier, if there is one.
    """
    if not isinstance(model, PrepAutoencoder):
        sizes = {"sizes": asdict(model.sizes)} if isinstance(model, TokenAutoencoder) else {}
        return {**sizes, "model": model.state_dict()}
    return {"sizes": asdict(model.sizes), "0": model.encoder.state_dict(), "1": decoder_state(model)}


def decoder_state(model: PrepAutoencoder) -> dict[str, Tensor]:
    """Return the decoder's state with the classifier's among it."""
    classifier = {} if model.classifier is None else model.classifier.state_dict()
    return {**model.decoder.state_dict(), **classifier}


def load_model(model: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """Load a model's part of a checkpoint, ours or the original release's.

    Raise InputError, naming the first difference, if it is a model of other sizes.
    """
    if not isinstance(model, (PrepAutoencoder, TokenAutoencoder)):
        return load_state(model, saved.get("model"), path)
    own = own_entries(model)
    states = given_entries(saved, own, path)
    check_shapes(states, own, path)
    for key, state in states.items():
        for name, value in state.items():
            if value.device.type == "meta" or not value.is_floating_point() or value.layout != torch.strided:
                raise InputError(f"checkpoint {path}: {name} holds no floating point numbers; train again")
            if value.element_size() < 2 or not value.float().isfinite().all():
                raise InputError(f"checkpoint {path}: {name} holds NaN or infinity, or is no float32; train again")
        with torch.no_grad():
            for name, value in own[key].items():
                value.copy_(state[name])  # a state dict's tensors are the module's own


def own_entries(model: Autoencoder) -> dict[str, dict[str, Tensor]]:
    """Return the entries of a checkpoint, by key: NetSpace has its encoder and its decoder, SANE one."""
    if isinstance(model, TokenAutoencoder):
        return {"model": model.state_dict()}
    return {"0": model.encoder.state_dict(), "1": decoder_state(model)}


def given_entries(
    saved: Mapping[str, Any], own: dict[str, dict[str, Tensor]], path: Path
) -> dict[str, dict[str, Tensor]]:
    """Return the entries of a checkpoint that the model has, or that it should not have. Raise InputError if there are none."""
    found = {}
    for key in own:
        state = saved.get(key)
        if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
            raise InputError(f"checkpoint {path} has no entry '{key}'; it is not a NetSpace checkpoint, name another")
        # The original's decoder always has a ClassId classifier, which the single-architecture setting does not use.
        found[key] = {
            name: each for name, each in state.items() if name in own[key] or not str(name).startswith("arch_")
        }
    return found


def check_shapes(states: dict[str, dict[str, Tensor]], own: dict[str, dict[str, Tensor]], path: Path) -> None:
    """Raise InputError, naming the first difference, unless a checkpoint's entries have the model's names and shapes."""
    for key, state in states.items():
        for name in sorted(set(own[key]) | set(state), key=str):
            found, expected = (tuple(each[name].shape) if name in each else "missing" for each in (state, own[key]))
            if found != expected:
                raise InputError(
                    f"checkpoint {path} is of another NetSpace: {brief(str(name))} is {brief(found)}, these constants give "
                    f"{expected}; change them, or use another run folder"
                )


def model_of_sizes(
    sizes: Any, num_class_ids: int | None, where: str, net: TargetNet | None = None
) -> tuple[Callable[[], Autoencoder], Autoencoder]:
    """Return what builds the model of these sizes, checked, and one without numbers: only the shapes of its entries.

    It is a NetSpace, or where `sizes` has tokens, SANE for `net`, which a NetSpace with probes needs too. Raise InputError,
    beginning with `where`, if they are neither's.
    """
    try:
        chosen = {name: tuple(each) if isinstance(each, list) else each for name, each in dict(sizes).items()}
        kind: type = TokenSizes if "token_size" in chosen else Sizes
        in_words = ("alignment", "units") if kind is TokenSizes else ("encoder",)  # checked where the model is built
        numeric = [each for name, each in chosen.items() if name not in (*in_words, "affine")]
        numbers = [n for each in numeric for n in (each if isinstance(each, tuple) else (each,))]
        known = {field.name for field in fields(kind)}
        least = 0 if kind is TokenSizes else 1
        if (
            not all(type(n) is int and least <= n < 2**31 for n in numbers)
            or not set(chosen) <= known
            or (type(chosen.get("affine", True)) is not bool)
        ):
            raise ValueError("not sizes")
        if chosen.get("layers", 0) > MOST_LAYERS or kind is TokenSizes and net is None:
            raise ValueError("not SANE's sizes")

        def build() -> Autoencoder:
            if kind is TokenSizes:
                assert net is not None
                return TokenAutoencoder(TokenSizes(**chosen), net.layout, net.hidden_channels())
            return PrepAutoencoder(Sizes(**chosen), num_class_ids, net)

        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return build, build()
    except Exception as error:  # numbers too large for torch raise several
        reason = f" ({error})" if isinstance(error, InputError) else ""
        raise InputError(f"{where}: {brief(sizes)} are not the sizes of a NetSpace{reason}") from None


def restore_model(
    saved: dict[str, Any], path: Path, made_by: str, num_class_ids: int | None, net: TargetNet | None = None
) -> Autoencoder:
    """Return the NetSpace or SANE of a checkpoint, in eval mode, on the CPU.

    It has the sizes that it was saved with; one of the original release has the paper's. With `num_class_ids` (A) it has a
    ClassId classifier, which must distinguish so many. SANE is for one `net`. Raise InputError if the checkpoint is another's.
    Nothing is built before the shapes of the tensors in the checkpoint agree with its sizes.
    """
    sizes, what = saved.get("sizes"), f"{path} is not a NetSpace checkpoint"
    words = sizes if isinstance(sizes, dict) else {}
    if "token_size" not in words and words.get("encoder", "convs") == "convs":
        try:
            emb_size, prep_shape = len(saved["0"]["conv4.0.bias"]), tuple(saved["1"]["scalelayer.scale"].shape)
        except (KeyError, TypeError, AttributeError, IndexError):
            raise InputError(f"{what}; name another checkpoint, or make it with: {made_by}") from None
        sizes = saved.get("sizes", {"emb_size": emb_size, "prep_shape": prep_shape})
    build, outline = model_of_sizes(sizes, num_class_ids, what, net)
    own = own_entries(outline)
    check_shapes(given_entries(saved, own, path), own, path)
    with torch.random.fork_rng(devices=[]):  # its initial parameters are replaced
        model = build()
    load_model(model, saved, path)
    return model.eval()
