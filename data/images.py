"""Image sets as uint8 tensors on the device. Crop, flip and normalization run there, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.files import fingerprint
from data.streams import stream
from models.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Images:
    """One split: `pixels` (N, S, S, C) uint8 and `labels` (N,) int64, and how they are normalized and augmented.

    `mean` and `std` (C,) are for pixels scaled to 0...1; `padding` is the largest shift of a random crop, in pixels. Half of
    the images that are seen in training are mirrored, unless `mirrored` is False.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    padding: int
    mirrored: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        """Return the split on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in ("pixels", "labels", "mean", "std")})

    def normalize(self, pixels: Tensor) -> Tensor:
        """Map uint8 (..., S, S, C) to float32 (..., C, S, S), in channels-last memory."""
        return ((pixels.to(torch.float32) / 255 - self.mean) / self.std).movedim(-1, -3)

    def plain(self, start: int, stop: int) -> Tensor:
        """Return images start ... stop-1, normalized and not augmented: (stop-start, C, S, S)."""
        return self.normalize(self.pixels[start:stop])

    def crop_and_flip(self, index: Tensor, offset: Tensor, flip: Tensor) -> Tensor:
        """Return images `index` (...), padded with black, cropped to S at `offset` (..., 2) and mirrored where `flip` (...).

        They are (..., C, S, S), normalized. Offsets run from 0 to 2*padding; `padding` is the middle.
        """
        n, side, _, channels = self.pixels.shape
        steps = torch.arange(side, device=index.device) - self.padding
        rows = offset[..., 0, None] + steps  # (..., S), outside 0...S-1 is padding
        columns = offset[..., 1, None] + torch.where(flip[..., None], steps.flip(0), steps)
        inside = ((rows >= 0) & (rows < side))[..., :, None] & ((columns >= 0) & (columns < side))[..., None, :]
        position = (index[..., None, None] * side + rows.clamp(0, side - 1)[..., :, None]) * side + columns.clamp(
            0, side - 1
        )[..., None, :]
        pixels = self.pixels.view(n * side * side, channels)[position] * inside[..., None]
        return self.normalize(pixels)


@dataclass(frozen=True)
class ImageSet:
    """A data set of square images: three splits and the class names. Instances train on `train` and are selected on `val`."""

    name: str
    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S)"""
        _, side, _, channels = self.train.pixels.shape
        return channels, side, side

    def facts(self) -> dict[str, Any]:
        """Return what an instance for these images depends on, for JSON."""
        mean, std = (getattr(self.train, name).tolist() for name in ("mean", "std"))
        return {
            "dataset": self.name,
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "mean": mean,
            "std": std,
        }

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of what instances are trained and selected on; test images are not part of it."""
        splits = (self.train, self.val)
        return fingerprint(*(each for split in splits for each in (split.pixels, split.labels, split.mean, split.std)))

    def to(self, device: torch.device | str) -> "ImageSet":
        """Return the data set on a device."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


class Batches:
    """Batches of images for M instances: every instance sees all images once in its own order, then again in another.

    Orders, crops and flips are drawn from an instance's key, such as (seed, instance). The step alone determines a batch: it
    depends neither on the instances beside it nor on the step at which a run was resumed. Images that do not fill a last
    batch of a pass are left out of it. Raise InputError if there are fewer images than a batch has.
    """

    def __init__(self, images: Images, keys: Sequence[tuple[int, ...]], batch_size: int):
        if batch_size > len(images):
            raise InputError(
                f"an image batch of {batch_size} is more than the {len(images)} images there are; make it smaller"
            )
        self.images, self.keys, self.batch_size = images, list(keys), batch_size
        self.per_pass = len(images) // batch_size
        self.drawn = -1  # the pass of the draws
        self.draws: tuple[Tensor, Tensor, Tensor] | None = None  # indices (M, N), offsets (M, N, 2), flips (M, N)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return what each instance sees at a step: images (M, B, C, S, S) and labels (M, B)."""
        index, offset, flip = self.views(step)
        return self.images.crop_and_flip(index, offset, flip), self.images.labels[index]

    def shared(self, step: int) -> tuple[Tensor, Tensor]:
        """Return what all instances see at a step, where there is one key: images (B, C, S, S) and labels (B,)."""
        x, labels = self.batch(step)
        return x[0], labels[0]

    def views(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return image indices (M, B) int64, crop offsets (M, B, 2) int64 and flips (M, B) bool of a step."""
        number, i = divmod(step, self.per_pass)
        if self.draws is None or number != self.drawn:
            self.drawn, self.draws = number, self._draw(number)
        part = slice(i * self.batch_size, (i + 1) * self.batch_size)
        index, offset, flip = (each[:, part] for each in self.draws)
        return index, offset, flip

    def remove(self, number: int) -> None:
        """Remove the first instances."""
        self.keys = self.keys[number:]
        if self.draws is not None:
            index, offset, flip = (each[number:] for each in self.draws)
            self.draws = index, offset, flip

    def _draw(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        n, device = len(self.images), self.images.pixels.device
        streams = [stream("images", *key, number) for key in self.keys]
        index = np.stack([rng.permutation(n) for rng in streams])
        offset = np.stack([rng.integers(0, 2 * self.images.padding + 1, (n, 2)) for rng in streams])
        flip = np.stack([rng.random(n) < 0.5 for rng in streams]) & self.images.mirrored
        return (
            torch.from_numpy(index).to(device),
            torch.from_numpy(offset).to(device),
            torch.from_numpy(flip).to(device),
        )


def split_by_class(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices of labelled examples: sorted indices of `fraction` of every class (rounded), and of the others."""
    rng = np.random.default_rng(seed)  # alone, so that the splits of CIFAR-10 and Tiny-ImageNet stay what they were
    first = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        first.append(members[: round(fraction * len(members))])
    chosen = np.sort(np.concatenate(first))
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen)


def check_classes(labels: np.ndarray, class_names: Sequence[str], where: str) -> None:
    """Raise InputError, naming it, for a class that no training image is of: part of the data may be missing."""
    lacking = sorted(set(range(len(class_names))) - set(labels.tolist()))
    if lacking:
        raise InputError(
            f"{where}: no image is of class {lacking[0]} ('{class_names[lacking[0]]}'), nor of {len(lacking) - 1} other classes; "
            "add some"
        )


def make_images(
    pixels: np.ndarray,
    labels: np.ndarray,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    padding: int,
    mirrored: bool = True,
) -> Images:
    """Return arrays (N, S, S, C) uint8 and (N,) as Images."""
    return Images(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.from_numpy(labels.astype(np.int64)),
        torch.tensor(mean),
        torch.tensor(std),
        padding,
        mirrored,
    )
