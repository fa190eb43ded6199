"""Transforms in training: where they start, what they are trained towards, and M of them side by side, each as if alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from data.images import Batches, Images
from data.streams import stream, torch_seed
from models.errors import InputError, Limits
from models.instances import TargetNet
from models.matching import Moments
from models.rows import Layout
from models.stitching import (
    SQUARE,
    Init,
    Mask,
    StitchedNets,
    Transform,
    layout_of,
    linear_cka,
    low_rank_start,
    one_hot,
    random_start,
    take_instances,
    transform_of,
)
from training.constants import Count, Index, NonNegative, Positive
from training.ensembles import Ensemble, cross_entropies
from training.losses import log_probabilities, mirrored

Target = Literal["labels", "front", "end", "both", "mean-logits"]
# The nets whose outputs are the target; of two, the mean of probabilities or of logits.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "labels": (),
    "front": ("front",),
    "end": ("end",),
    "both": ("front", "end"),
    "mean-logits": ("front", "end"),
}
MOST_IMAGES, MOST_NUMBERS = 1000, 2**25  # of activations at once: 128 MB
MOST_BYTES = 2**30  # of activations that are computed once for all epochs


@dataclass(frozen=True)
class StitchTraining:
    """How transforms are trained, by the names of the paper's options."""

    num_epochs: Index = 30  # passes over the training images; 0: the start alone
    image_batch: Count = 128  # B, images in a step
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd has Nesterov's momentum of 0.9
    learning_rate: Positive = 1e-3  # a tenth of it from 1/3 of the steps on, a hundredth from 2/3
    weight_decay: NonNegative = 0.0  # of weights and biases
    init: Init = "least-squares"  # where transforms start; the original's default is random
    mask: Mask = "none"  # which weights may be other than 0
    rank: Count | None = None  # of the weights: two factors, which start orthogonal, without init, mask and l1
    target: Target = "labels"  # cross entropy with these: labels, or outputs of the nets, of both, of their mean logits
    temperature: Positive = 1.0  # of outputs that are targets, and of the stitched net's beside them
    l1: NonNegative = 0.0  # weight of the mean absolute weight
    cka_weight: Annotated[float, Limits(-1e6, 1e6)] = 0.0  # weight of the CKA with the end's own activations

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate * 0.1 ** (3 * step // num_steps)

    def make_optimizer(self, rows: list[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of all transforms, which works element by element."""
        options: dict[str, Any] = dict(lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        if self.optimizer == "adam":
            return torch.optim.Adam(rows, **options)
        return torch.optim.SGD(rows, momentum=0.9, nesterov=True, **options)

    def check(self, c1: int, c2: int) -> None:
        """Raise InputError, naming the flag, for options that do not fit together, or not transforms from C1 to C2 channels."""
        if self.rank and (self.mask != "none" or self.l1):
            raise InputError(f"--rank {self.rank}: transforms of low rank have no --mask and no --l1; leave these out")
        if self.rank and self.rank > min(c1, c2):
            raise InputError(
                f"--rank {self.rank}: these layers have {c1} and {c2} channels; give at most {min(c1, c2)}"
            )
        for flag, value in (("--mask", self.mask), *([] if self.rank else [("--init", self.init)])):
            if value in SQUARE and c1 != c2:
                raise InputError(
                    f"{flag} {value}: it needs equally many channels, and these layers have {c1} and {c2}; choose another"
                )

    def masks(self, moments: Moments, keys: Sequence[tuple[int, ...]]) -> Tensor | None:
        """Return the masks (M, C2, C1) of M stitches, each from its moments or its key; None if all weights are free."""
        c1 = moments.front.shape[1] - 1
        if self.mask == "none":
            return None
        if self.mask == "permutation":
            return one_hot(permutations("mask of a transform", keys, c1), c1).to(moments.front.device)
        correlations = moments.correlations()
        return one_hot((correlations.abs() if self.mask == "abs-semi-match" else correlations).argmax(2), c1)

    def start(self, moments: Moments, mask: Tensor | None, keys: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
        """Return the parameters (M, *shape) of M transforms before training, float64."""
        m, c1, c2 = moments.cross.shape[0], moments.front.shape[1] - 1, moments.end.shape[1] - 1
        seeds = [torch_seed("start of a transform", *key) for key in keys]
        if self.rank:
            state = low_rank_start(c1, c2, self.rank, seeds)
        elif self.init == "random":
            state = random_start(c1, c2, seeds)
        elif self.init == "least-squares":
            state = self.direct(moments, mask).state()
        else:
            by_name = {
                "ones": lambda: torch.ones(m, c2, c1),
                "identity": lambda: torch.eye(c1).expand(m, c1, c1),
                "permutation": lambda: one_hot(permutations("order of a transform", keys, c1), c1),
            }
            state = {"weight": by_name[self.init](), "bias": torch.zeros(m, c2)}
        return {name: value.to(moments.front) for name, value in state.items()}

    def direct(self, moments: Moments, mask: Tensor | None) -> Transform:
        """Return the least-squares transforms among those that are trained: of this rank, or with this mask."""
        if self.rank:
            return moments.low_rank(self.rank)
        return moments.least_squares() if mask is None else moments.one_to_one(mask.to(moments.front))


def permutations(purpose: str, keys: Sequence[tuple[int, ...]], size: int) -> Tensor:
    """Return a random permutation for each key, (M, size) int64."""
    return torch.tensor([stream(purpose, *key).permutation(size).tolist() for key in keys])


# What stitches see of a step's images


class Seen(NamedTuple):
    """What M stitches need of images, none of which depends on their transforms."""

    activations: Tensor  # of the fronts, (F, B, *point_shape)
    target: Tensor | None  # probabilities (M, B, classes); None if the labels are the target
    own: Tensor | None  # the ends' own activations, (E, B, *point_shape), for CKA


@torch.no_grad()
def see(nets: StitchedNets, training: StitchTraining, x: Tensor) -> Seen:
    """Return what stitches need of images (B, C, S, S)."""
    sides, logits, own = OUTPUTS[training.target], [], None
    activations = nets.activations(x)
    if "front" in sides:
        front = nets.front_net.run_end(nets.fronts, activations, nets.points[0], nets.before_activation)
        logits.append(front[nets.front_of])
    if "end" in sides or training.cka_weight:
        own = nets.end_net.run_front(nets.ends, x, nets.points[1], nets.before_activation)
    if "end" in sides:
        end = nets.end_net.run_end(nets.ends, own, nets.points[1], nets.before_activation)
        logits.append(end[nets.end_of])
    if training.target == "mean-logits":
        logits = [torch.stack(logits).mean(0)]
    probabilities = [log_probabilities(each, training.temperature).exp() for each in logits]
    target = torch.stack(probabilities).mean(0) if probabilities else None
    return Seen(activations, target, own if training.cka_weight else None)


class Views:
    """Batches of images as stitches see them, in the order and with the augmentation of one key.

    If augmentation only mirrors images, every image and its mirror image are seen once, before the first step, if there are
    more than two epochs and it fits the memory.
    """

    def __init__(self, nets: StitchedNets, training: StitchTraining, images: Images, key: tuple[int, ...]):
        self.nets, self.training, self.images = nets, training, images
        self.batches = Batches(images, [key], training.image_batch)
        self.per_pass = self.batches.per_pass
        self.stored: list[Tensor | None] | None = None
        if not images.padding and training.num_epochs > 2:
            one = see(nets, training, images.plain(0, 1).to(nets.fronts))
            size = sum(each.numel() * each.element_size() for each in one if each is not None)
            if 2 * len(images) * size <= MOST_BYTES:
                self.stored = self._store()

    def batch(self, step: int) -> tuple[Seen, Tensor]:
        """Return what stitches see at a step, and the labels (B,)."""
        if self.stored is None:
            x, labels = self.batches.shared(step)
            return see(self.nets, self.training, x.to(self.nets.fronts)), labels
        index, _, flip = (each[0] for each in self.batches.views(step))
        chosen = index + len(self.images) * flip
        return Seen(
            *(None if each is None else images_second(each[chosen]) for each in self.stored)
        ), self.images.labels[index]

    def _store(self) -> list[Tensor | None]:
        """Return each field of `Seen` with images first, the mirror images after all others."""
        parts: list[Seen] = []
        for flip in (False, True):
            for part in torch.arange(len(self.images), device=self.images.labels.device).split(size_of(self.nets)):
                x = mirrored(self.images, part, flip).to(self.nets.fronts)
                parts.append(
                    Seen(*(None if each is None else images_first(each) for each in see(self.nets, self.training, x)))
                )
        return [None if each[0] is None else torch.cat(each) for each in zip(*parts)]


def images_first(x: Tensor) -> Tensor:
    """Return (M, B, C, H, W) as (B, H, W, M, C), (M, B, F) as (B, M, F)."""
    return x.permute(1, 3, 4, 0, 2) if x.dim() == 5 else x.transpose(0, 1)


def images_second(x: Tensor) -> Tensor:
    """Undo `images_first`."""
    return x.permute(3, 0, 4, 1, 2) if x.dim() == 5 else x.transpose(0, 1)


# Stitches in training


class Named(NamedTuple):
    """What an `Ensemble` asks of a net."""

    name: str
    trained_layout: Layout


class Stitches(Ensemble):
    """M transforms in training. The loss is the sum of their own losses, so that none depends on the others.

    `moments` are those of training images, `keys` the stitches' own. `history` has the accuracy (percent) of each on
    validation images after each epoch; nothing is chosen by it.
    """

    def __init__(self, nets: StitchedNets, training: StitchTraining, moments: Moments, keys: Sequence[tuple[int, ...]]):
        training.check(nets.c1, nets.c2)
        self.nets, self.training = nets, training
        mask = training.masks(moments, keys)
        self.mask = None if mask is None else mask.to(nets.fronts)
        state = {name: value.to(nets.fronts) for name, value in training.start(moments, mask, keys).items()}
        named = Named(f"stitches from {' to '.join(nets.points)}", layout_of(nets.c1, nets.c2, training.rank))
        super().__init__(named, state, training.make_optimizer)  # type: ignore[arg-type]
        self.history: list[list[float]] = []

    def transform(self) -> Transform:
        """Return the transforms as they are now."""
        found = transform_of(self.state(), self.mask)
        return Transform(found.weight.clone(), found.bias.clone())

    def step(self, seen: Seen, labels: Tensor) -> Tensor:  # type: ignore[override]
        """Take one optimizer step of every transform. Return losses (M,)."""
        return self.descend(self.stitch_losses(seen, labels))

    def stitch_losses(self, seen: Seen, labels: Tensor) -> Tensor:
        """Return the loss (M,) of each stitch."""
        nets, training = self.nets, self.training
        transform = transform_of(self.net.trained_layout.unflatten(self.rows), self.mask)
        moved = nets.transformed(transform, seen.activations)
        logits = nets.end(moved)
        if seen.target is None:
            losses = cross_entropies(logits, labels.expand(len(nets), -1))
        else:
            losses = -(seen.target * log_probabilities(logits, training.temperature)).sum(2).mean(1)
        if training.l1:
            losses = losses + training.l1 * transform.weight.abs().mean((1, 2))
        if seen.own is not None:
            losses = losses + training.cka_weight * linear_cka(moved, take_instances(seen.own, nets.end_of))
        return losses

    def validate(self, images: Images) -> float:
        """Add the accuracies on images to the history. Return their mean."""
        right = logits_on(self.nets, self.transform(), images).argmax(2) == images.labels
        self.history.append((100 * right.double().mean(1)).tolist())
        return sum(self.history[-1]) / len(self)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "history": self.history}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        super().load_state_dict(saved)
        self.history = [list(map(float, each)) for each in saved["history"]]


def images_at_once(nets: Sequence[tuple[TargetNet, int]]) -> int:
    """Return on how many images so many instances of nets take little memory at their largest point."""
    numbers = sum(count * max(prod(net.point_shape(point)) for point in net.points) for net, count in nets)
    return max(1, min(MOST_IMAGES, MOST_NUMBERS // numbers))


def chunks(images: Images, size: int, like: Tensor) -> Iterator[Tensor]:
    """Yield all images, plain, `size` at a time."""
    for start in range(0, len(images), size):
        yield images.plain(start, min(start + size, len(images))).to(like)


@torch.no_grad()
def logits_on(nets: StitchedNets, transform: Transform, images: Images) -> Tensor:
    """Return the logits (M, N, classes) of stitched nets on all N images, plain."""
    same = transform.to(nets.fronts)
    return torch.cat([nets.run(same, x) for x in chunks(images, size_of(nets), nets.fronts)], 1)


def size_of(nets: StitchedNets) -> int:
    """Return on how many images stitched nets take little memory."""
    return images_at_once([(nets.front_net, len(nets.fronts)), (nets.end_net, len(nets))])
