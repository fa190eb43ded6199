"""Constants that several scripts share, in groups, and the limits of numbers, which stand in a field's type."""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import tyro

from models.errors import Limits
from models.prep_autoencoder import WINDOWS_FROM_WIDTH
from training.runtime import Precision, has_amx

Flat = tyro.conf.OmitArgPrefixes  # the fields of a group are flags without the group's name


Count = Annotated[int, Limits(1)]
Index = Annotated[int, Limits(0)]
Seed = Annotated[int, Limits(0)]
AtLeast2 = Annotated[int, Limits(2)]
Positive = Annotated[float, Limits(0, above=True)]
NonNegative = Annotated[float, Limits(0)]
Fraction = Annotated[float, Limits(0, 1)]
Unlimited = Annotated[float, Limits(0, math.inf, above=True)]


def flag(name: str) -> str:
    """Return the flag of a config's field."""
    return f"--{name.replace('_', '-')}"


def check_limits(config: Any, name_of: Callable[[str], str] = flag) -> None:
    """Raise InputError, naming the flag, for the first number of a config outside its type's limits.

    `name_of` says how the caller knows a field.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, name_of)
        values = value if isinstance(value, tuple) else (value,)
        for limits in limits_in(hints[field.name]):
            for each in values:
                if isinstance(each, (int, float)) and not isinstance(each, bool):
                    limits.check(name_of(field.name), each)


def limits_in(hint: Any) -> Iterator[Limits]:
    """Yield the limits in a type, in its parts too: those of Count | None, or of tuple[Count, ...]."""
    yield from (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Limits))
    for part in typing.get_args(hint):
        if part is not hint:
            yield from limits_in(part)


Precisions = Annotated[
    Precision | None,
    tyro.conf.arg(
        help="of convs and matrix products. float32: IEEE's. tf32: on a GPU inputs are rounded to 10 bits; on a CPU float32. "
        "bfloat16: 7 bits, fast on a GPU and on CPUs that have it, slow on others. None: on a GPU tf32 for fits of shapes "
        "and bfloat16 for all else, on a CPU float32, with AMX bfloat16 for NetSpaces of images with wide PReps"
    ),
]


@dataclass(frozen=True)
class Optim:
    """How long and how fast an autoencoder is trained, by Adam."""

    num_steps: Count = 312_000  # optimizer steps; the default is 1000 passes over CIFAR-10
    learning_rate: Positive = 1e-4  # Adam's; its peak if the schedule is one-cycle
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate, over all steps
    final_fraction: Fraction = 0.0  # of the peak, at the end of one-cycle
    clip_norm: Unlimited = math.inf  # largest norm of the gradient
    validate_every: Count = 1560  # steps between validations; a checkpoint is written at each
    precision: Precisions = None  # of convs and matrix products

    def start(
        self, model: torch.nn.Module, weight_decay: float = 0.0
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Return Adam and its schedule. One cycle begins at 1/25 of the peak and ends at `final_fraction` of it.

        `weight_decay` is AdamW's, on matrices alone.
        """
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), self.learning_rate, fused=True)
        if weight_decay:
            decayed, others = ([p for p in model.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False))
            groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, self.learning_rate, fused=True)
        if self.schedule == "constant":
            return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        end = 1 / (25 * self.final_fraction) if self.final_fraction else math.inf
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.num_steps + 1, div_factor=25, final_div_factor=end
        )


def with_precision(config: Any, device: torch.device) -> Any:
    """Return the config of a NetSpace of images, whose precision is said where it depends on the CPU.

    With AMX, PReps wide enough for it are trained in bfloat16. A run's constants then say so, and it goes on in the precision
    that it began in, on whatever machine.
    """
    wide = config.sizes.prep_shape[1] >= WINDOWS_FROM_WIDTH
    if config.optim.precision is not None or device.type != "cpu" or not wide or not has_amx():
        return config
    return replace(config, optim=replace(config.optim, precision="bfloat16"))


AffineStart = Literal["paper", "zero", "instance"]


@dataclass(frozen=True)
class Start:
    """Where an autoencoder starts."""

    encoder_start: Literal["paper", "scaled"] = "paper"  # PyTorch's default, or no biases and scaled to the PReps' size
    affine_start: AffineStart | Literal["mean"] = "paper"  # head: near zero, at zero, at an instance, at the mean one
    affine_quantile: Fraction = 1.0  # which instance: 0 is the weakest on validation images, 1 the strongest
    affine_scale: NonNegative = 0.1  # std of the head's scale from zero or an instance; from mean, in units of spread


@dataclass(frozen=True)
class Views:
    """How targets are shown to the encoder in training."""

    prep_noise: NonNegative = 0.0  # std of noise, in units of each PRep's mean absolute value
    reorder_channels: bool = False  # hidden channels in random order: the same function


@dataclass(frozen=True)
class SirenViews:
    """Other SIRENs that are made of a target in training, encoder and target alike: their functions are known exactly."""

    mirror: bool = False  # half of them, left to right
    stretch: Annotated[float, Limits(0, 0.9)] = 0.0  # largest change of the length along each axis, as a fraction
    shift: NonNegative = 0.0  # largest shift along each axis
    flip_units: bool = False  # the sign of half of the hidden units: the same function


@dataclass(frozen=True)
class TokenViews:
    """How windows of tokens are shown to SANE in training."""

    views: Literal["canonical", "one-permuted", "permuted"] = "one-permuted"  # whose channels are in random order
    token_noise: NonNegative = 0.1  # std of noise, relative to each number
    target: Literal["clean", "noised"] = "clean"  # what is reconstructed; the reference's is noised

    @property
    def permuted(self) -> tuple[bool, bool]:
        """Whether the first and the second view have their channels in random order."""
        return self.views == "permuted", self.views != "canonical"


@dataclass(frozen=True)
class TokenStart:
    """Where SANE starts."""

    linear_start: Literal["paper", "components", "pytorch"] = "components"  # N(0, 0.02), principal components, larger
    affine_start: AffineStart = "instance"  # affine head, if there is one: near zero, at zero, at the strongest net
    affine_scale: NonNegative = 0.1  # std of the affine head's scale if it starts at zero or at an instance


@dataclass(frozen=True)
class SideBySide:
    """How instances are trained at once."""

    side_by_side: Count = 16  # instances trained at once; fewer need less memory
    checkpoint_seconds: NonNegative = 60.0  # time between checkpoints of the instances in training
    precision: Precisions = None  # of convs and matrix products


@dataclass(frozen=True)
class Search:
    """Latent space optimization, by Adam on embeddings."""

    temperature: Positive = 4.0  # T of eq. 3
    alpha: Fraction = 1.0  # of eq. 5: weight of the teacher, against the labels
    image_batch: Count = 128  # B, images in a step
    learning_rate: Positive = 1e-4  # Adam's
    validate_every: Count = 100  # steps between validations; a checkpoint is written at each
    patience: Count = 10  # validations in a row without a gain, after which the search stops
    min_delta: NonNegative = 0.0  # points of validation accuracy that a gain must exceed
    seed: Seed = 0  # random seed
    precision: Precisions = None  # of convs and matrix products
