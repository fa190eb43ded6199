"""What a caller of the library may give, as the computation needs it: float32 tensors, lists of nets, numbers within limits.

What is plainly meant is accepted: arrays and lists for tensors, any kind of float, any iterable of nets. Everything else is
an InputError that names the argument."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import fields
from datetime import date, time
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.images import Images, ImageSet
from data.instance_files import Net, find_row, registered_row
from models.errors import InputError, brief
from models.instances import TargetNet, TargetNets
from training.constants import Search, check_limits
from training.runtime import Precision, ieee_float32, pick_device

LARGEST_FACTS = 1 << 26  # bytes; safetensors' own limit of a header is 100 MB
P, R = ParamSpec("P"), TypeVar("R")
Numbers = Tensor | np.ndarray | Iterable  # real ones of any type


def in_plain_torch(method: Callable[P, R]) -> Callable[P, R]:
    """Return a method that computes in float32, IEEE's, on the devices that it names and with gradients where it needs them.

    What its caller has set for torch holds again afterwards: a default type, a default device, TF32, autocast, inference mode.
    """

    @functools.wraps(method)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        dtype = torch.get_default_dtype()
        try:
            if dtype != torch.float32:  # not each time: it is the setting of all threads
                torch.set_default_dtype(torch.float32)
            with contextlib.ExitStack() as stack:
                for each in (torch.inference_mode(False), torch.device("cpu"), ieee_float32()):
                    stack.enter_context(each)
                for kind in ("cpu", "cuda"):
                    stack.enter_context(torch.autocast(kind, enabled=False))
                return method(*arguments, **named)
        finally:
            if dtype != torch.float32:
                torch.set_default_dtype(dtype)

    return run


def as_numbers(value: Any, what: str) -> Tensor:
    """Return real numbers, in a tensor, an array or lists of either, as float32. Raise InputError for others, NaN, infinity."""
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_quantized and not value.is_meta and not value.is_nested
        if not dense or value.is_complex() or value.dtype == torch.bool:
            raise InputError(f"{what} holds {value.dtype}, {value.layout}; give real numbers in a dense tensor")
        found = value.float()
    elif isinstance(value, Iterable) and not isinstance(value, (np.ndarray, str, bytes, Mapping, Set)):
        value = list(value)
        if any(isinstance(each, Tensor) for each in value):
            parts = [as_numbers(each, what) for each in value]
            if len({(part.shape, part.device) for part in parts}) > 1:
                raise InputError(f"{what} are of different shapes or devices; give as many numbers in each")
            return torch.stack(parts)
        found = of_array(value, what)
    else:
        found = of_array(value, what)
    if not found.isfinite().all():
        raise InputError(f"{what} holds NaN, infinity or a number that float32 cannot hold")
    return found


def of_array(value: Any, what: str) -> Tensor:
    """Return what numpy makes an array of as float32. Raise InputError unless it is one of real numbers."""
    several = isinstance(value, list)
    try:
        array = np.asarray("" if np.ma.is_masked(value) else value)  # its masked numbers are none
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.array("")
    if array.dtype.kind not in "fiu" or several and any(isinstance(each, (bool, np.bool_)) for each in value):
        raise InputError(f"{what} {brief(value)}: give real numbers, as many in each row")
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, dtype=np.float32))


def as_gammas(value: Any) -> Tensor:
    """Return one number or several as (K,). Raise InputError for anything else."""
    gammas = as_numbers(value, "gammas")
    if gammas.dim() > 1:
        raise InputError(f"gammas of shape {tuple(gammas.shape)}; give one number, or (K,)")
    return gammas.reshape(-1)


def finite(values: Tensor, what: str, whose: str) -> Tensor:
    """Return values. Raise InputError if one is NaN or infinite."""
    if not values.isfinite().all():
        raise InputError(f"{what} is NaN or infinite: {whose} too large for this space")
    return values


def is_net(value: Any) -> bool:
    """Return whether a value is of a type that one net may have."""
    return isinstance(value, (nn.Module, Mapping, str, os.PathLike))


def as_nets(value: Any) -> tuple[list[Net], bool]:
    """Return the nets in one net or any iterable of them, and whether it was an iterable. Raise InputError for others."""
    several = not is_net(value)
    if several and (isinstance(value, (Tensor, bytes)) or not isinstance(value, Iterable)):
        raise InputError(f"a net is an nn.Module, a state dict or a file, not {type(value).__name__} {brief(value)}")
    nets = list(value) if several else [value]
    for i, each in enumerate(nets):
        if not is_net(each):
            raise InputError(f"net {i} is {type(each).__name__}, not an nn.Module, a state dict or a file")
    nets = [as_path(each) if isinstance(each, (str, os.PathLike)) else each for each in nets]
    return [dict(each) if isinstance(each, Mapping) else each for each in nets], several


def as_rows(value: Any, nets: TargetNets, width: int) -> tuple[Tensor, bool]:
    """Return the rows (N, width), padded, of one net or any iterable of them, and whether it was an iterable.

    Raise InputError for a net that is none of `nets`, and for no net at all.
    """
    given, several = as_nets(value)
    if not given:
        raise InputError("no nets to encode; give at least one")
    rows = [find_row(nets.nets, each)[1] for each in given]
    return torch.stack([F.pad(row, (0, width - len(row))) for row in rows]), several


def as_end(value: Any) -> tuple[Any, bool]:
    """Return an end of a line, any iterable as a list, and whether it is an embedding or several, rather than nets."""
    if isinstance(value, Tensor):
        return value, True
    if isinstance(value, np.ndarray):
        return (value, True) if value.dtype.kind in "fiubc" else (value.tolist(), False)
    if is_net(value) or not isinstance(value, Iterable) or isinstance(value, (bytes, Set)):
        return value, False
    value = list(value)
    return value, bool(value) and isinstance(value[0], (Tensor, np.ndarray, np.generic, Real, list, tuple))


def as_path(value: Any) -> Path:
    """Return a path. Raise InputError for another type, and for a name that the system cannot look for."""
    try:
        path = Path(value)
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (TypeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{brief(value)} is not the name of a file or folder ({reason})") from None
    return path


def as_device(value: Any) -> torch.device:
    """Return a device, the GPU if there is one for None. Raise InputError for one that is not there or holds no values."""
    if value is None:
        return pick_device()
    try:
        device = torch.device(value)
        torch.zeros(1, device=device).item()
    except Exception as error:  # its type depends on the device
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {brief(value)} cannot be used ({reason}); give cpu, or nothing") from None
    return device


def as_facts(facts: Any) -> dict[str, Any]:
    """Return facts as JSON can hold them: numbers of numpy and torch as Python's, paths and dates as text.

    Raise InputError, naming the fact, for anything else.
    """
    if facts is None:
        return {}
    if not isinstance(facts, Mapping):
        raise InputError(f"facts are {type(facts).__name__}, expected a dict of names and values")
    found = {}
    for name, value in facts.items():
        if not isinstance(name, str):
            raise InputError(f"fact {brief(name)}: a name is text")
        found[name] = as_fact(value, name)
    sizes = {name: len(json.dumps(value)) for name, value in found.items()}
    if sum(sizes.values()) > LARGEST_FACTS:
        largest = max(sizes, key=lambda name: sizes[name])
        raise InputError(
            f"facts of {sum(sizes.values())} bytes, the largest is '{brief(largest)}'; a file's header holds {LARGEST_FACTS}"
        )
    return found


def as_fact(value: Any, name: str, depth: int = 0) -> Any:
    """Return the value of a fact for JSON. Raise InputError, naming the fact, if there is none."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        with contextlib.suppress(RuntimeError):  # of tensors that hold no numbers here, such as meta tensors
            value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if depth < 20:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: as_fact(each, name, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [as_fact(each, name, depth + 1) for each in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Integral) and -(2**63) <= int(value) < 2**63:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Integral):
        number = float(value)
        return number if np.isfinite(number) else str(number)
    raise InputError(
        f"fact '{brief(name)}' is {type(value).__name__} {brief(value)}; give a number, text or lists of them"
    )


def as_search(*values: Any, precision: Any = None) -> Search:
    """Return the constants of a latent space optimization, its numbers given in their order.

    Raise InputError, naming the argument, for one outside its limits.
    """
    if precision is not None and not (isinstance(precision, str) and precision in get_args(Precision)):
        raise InputError(f"precision {brief(precision)}: must be {', '.join(get_args(Precision))} or None")
    found: dict[str, Any] = {"precision": precision}
    for each, value in zip([each for each in fields(Search) if each.name != "precision"], values, strict=True):
        if isinstance(value, Tensor) and value.dim() == 0:
            value = value.item()
        whole = isinstance(each.default, int)
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral if whole else Real):
            raise InputError(f"{each.name} {brief(value)}: must be {'a whole number' if whole else 'a number'}")
        try:
            found[each.name] = int(value) if whole else float(value)
        except OverflowError:
            raise InputError(f"{each.name}: {brief(value)} is too large") from None
    search = Search(**found)
    check_limits(search, "{}".format)
    return search


def check_images(images: Any, nets: TargetNets) -> None:
    """Raise InputError for nets that are SIRENs, and for anything but images of their shape and number of classes."""
    net = nets[0]
    if not nets.takes_images:
        raise InputError("SIRENs classify nothing; latent space optimization is for nets of images")
    if not isinstance(images, ImageSet):
        raise InputError(f"images are {type(images).__name__}, expected an ImageSet, as data.load.load_images returns")
    if not len(images.train) or not len(images.val):
        raise InputError("images without training or without validation images; both are needed")
    if images.image_shape != net.input_shape or images.num_classes != net.num_outputs:
        raise InputError(
            f"images {images.image_shape} of {images.num_classes} classes, this space is for {net.input_shape} and "
            f"{net.num_outputs}; load the images that it was trained with"
        )
    for name in ("train", "val"):
        check_split(getattr(images, name), f"images.{name}", images.image_shape, images.num_classes)


def check_split(split: Images, what: str, shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise InputError, naming what is wrong, for a split that `Images` does not describe so."""
    channels, side, _ = shape
    expected = {
        "pixels": (torch.uint8, (len(split), side, side, channels)),
        "labels": (torch.int64, (len(split),)),
        "mean": (torch.float32, (channels,)),
        "std": (torch.float32, (channels,)),
    }
    for name, (dtype, size) in expected.items():
        value = getattr(split, name)
        if not isinstance(value, Tensor):
            raise InputError(f"{what}.{name} is {type(value).__name__}, expected a tensor")
        if value.is_meta or value.layout != torch.strided or value.dtype != dtype or tuple(value.shape) != size:
            raise InputError(
                f"{what}.{name} is {value.dtype} {tuple(value.shape)} on {value.device}, expected {dtype} {size}"
            )
    if split.labels.min() < 0 or split.labels.max() >= num_classes:
        raise InputError(f"{what}.labels are not from 0 to {num_classes - 1}")
    if not split.mean.isfinite().all() or not split.std.isfinite().all() or not split.std.all():
        raise InputError(f"{what}.mean or std has NaN, infinity or a std of 0")
    if not isinstance(split.padding, Integral) or not 0 <= split.padding <= side:
        raise InputError(f"{what}.padding {brief(split.padding)}: must be a whole number from 0 to {side}")


def as_teacher(teacher: Any, like: TargetNet, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function from images to logits: the teacher, or the net of a file or state dict, for images as those of `like`.

    Raise InputError for anything else, and if it is no net of a registered architecture.
    """
    if callable(teacher):
        return teacher
    if not is_net(teacher):
        raise InputError(f"the teacher is {type(teacher).__name__}, not a function, a module, a state dict or a file")
    found, row = registered_row(like, as_nets(teacher)[0][0])
    return found.module(row.to(device))


@contextlib.contextmanager
def in_eval_mode(teacher: Any) -> Iterator[None]:
    """Put a module into eval mode within this context; afterwards its modes and buffers are what they were.

    Anything else that can be called is left as it is.
    """
    if not isinstance(teacher, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in teacher.modules()]
    buffers = [
        (module, name, value, value.clone())
        for module, _ in modes
        for name, value in module.named_buffers(recurse=False)
    ]
    try:
        teacher.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, value, before in buffers:
                if getattr(module, name) is not value:
                    setattr(module, name, value)
                if not torch.equal(value, before):
                    value.copy_(before)


def parameters_of(teacher: Any) -> Iterator[Tensor]:
    """Yield the parameters of a module; anything else has none."""
    yield from teacher.parameters() if isinstance(teacher, nn.Module) else ()


def ask_teacher(teacher: Callable[[Tensor], Tensor], x: Tensor, num_classes: int) -> Tensor:
    """Return a teacher's logits (B, classes) float32 for images (B, C, S, S), on their device, without gradient.

    A module gets the images on its own device and in its own precision. Raise InputError if it fails, or returns anything but such logits.
    """
    first = next((each for each in parameters_of(teacher) if each.is_floating_point()), None)
    try:
        with torch.no_grad():
            logits = teacher(x if first is None else x.to(first.device, first.dtype))
    except Exception as error:  # its type depends on the teacher
        reason = str(error).partition("\n")[0]
        raise InputError(f"the teacher failed on images {tuple(x.shape)} ({type(error).__name__}: {reason})") from error
    expected = (len(x), num_classes)
    if not isinstance(logits, Tensor):
        raise InputError(f"the teacher returned {type(logits).__name__}, expected logits {expected}, a tensor")
    if logits.is_meta or logits.layout != torch.strided:
        raise InputError(f"the teacher returned logits on {logits.device}, {logits.layout}, expected a dense tensor")
    if tuple(logits.shape) != expected or not logits.is_floating_point():
        raise InputError(
            f"the teacher returned logits {tuple(logits.shape)}, {logits.dtype}, expected {expected} floats: this space's "
            f"nets have {num_classes} classes"
        )
    logits = logits.to(x.device, torch.float32)
    if not logits.isfinite().all():
        raise InputError("the teacher returned NaN or infinity")
    return logits
