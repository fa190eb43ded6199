"""Image sets as uint8 tensors on the device; crop, flip and normalization run there, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.fingerprints import fingerprint
from models.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Images:
    """One split. `pixels` (N, S, S, C) uint8, `labels` (N,) int64, with what normalizes and augments them.

    `mean` and `std` (C,) are of pixels scaled to 0...1; `padding` is how far a random crop may move, in pixels.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    padding: int

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        return replace(self, **{name: getattr(self, name).to(device) for name in ("pixels", "labels", "mean", "std")})

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (..., S, S, C) to float32 (..., C, S, S), in channels-last memory."""
        return ((pixels.to(torch.float32) / 255 - self.mean) / self.std).movedim(-1, -3)

    def plain(self, start: int, stop: int) -> Tensor:
        """Images start ... stop-1 as they are, normalized: (stop-start, C, S, S)."""
        return self.normalize(self.pixels[start:stop])

    def crop_and_flip(self, index: Tensor, offset: Tensor, flip: Tensor) -> Tensor:
        """Images `index` (...), each padded with black, cropped back to S at `offset` (..., 2) and mirrored where `flip` (...).

        Returns (..., C, S, S), normalized. Offsets run from 0 to 2*padding; `padding` is the middle.
        """
        n, side, _, channels = self.pixels.shape
        steps = torch.arange(side, device=index.device) - self.padding
        rows = offset[..., 0, None] + steps  # (..., S), outside 0...S-1 is padding
        columns = offset[..., 1, None] + torch.where(flip[..., None], steps.flip(0), steps)
        inside = ((rows >= 0) & (rows < side))[..., :, None] & ((columns >= 0) & (columns < side))[..., None, :]
        place = (index[..., None, None] * side + rows.clamp(0, side - 1)[..., :, None]) * side + columns.clamp(
            0, side - 1
        )[..., None, :]
        pixels = self.pixels.view(n * side * side, channels)[place] * inside[..., None]
        return self.normalize(pixels)


@dataclass(frozen=True)
class ImageSet:
    """A data set of square images: its splits and their class names. Instances train on `train`, are chosen by `val`."""

    name: str
    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S)"""
        _, side, _, channels = self.train.pixels.shape
        return channels, side, side

    def facts(self) -> dict[str, Any]:
        """What an instance for these images must know of them, as JSON holds it."""
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
        """Of what instances are trained on and chosen by; test images are not among it."""
        splits = (self.train, self.val)
        return fingerprint(*(each for split in splits for each in (split.pixels, split.labels, split.mean, split.std)))

    def to(self, device: torch.device | str) -> "ImageSet":
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def check_batch(images: Images, batch_size: int) -> None:
    if batch_size > len(images):
        raise InputError(
            f"an image batch of {batch_size} is more than the {len(images)} images there are; make it smaller"
        )


class Epoch:
    """One pass over the images for each of M instances: its own order, crops and flips, drawn from its own key.

    A key is a tuple of numbers, (run seed, instance, epoch) say, so that what an instance sees does not depend on what
    trains beside it, nor on where a run was resumed. The images that do not fill a last batch are left out.
    """

    def __init__(self, images: Images, keys: list[tuple[int, ...]], batch_size: int):
        self.images, self.batch_size = images, batch_size
        check_batch(images, batch_size)
        n, device = len(images), images.pixels.device
        draws = [np.random.default_rng(key) for key in keys]
        self.order = torch.from_numpy(np.stack([rng.permutation(n) for rng in draws])).to(device)
        offsets = np.stack([rng.integers(0, 2 * images.padding + 1, (n, 2)) for rng in draws])
        self.offset = torch.from_numpy(offsets).to(device)
        self.flip = torch.from_numpy(np.stack([rng.random(n) < 0.5 for rng in draws])).to(device)

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def batch(self, i: int, instances: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """The i-th batch of the chosen instances: images (M, B, C, S, S) and labels (M, B)."""
        (index, flip), part = self.views(i), slice(i * self.batch_size, (i + 1) * self.batch_size)
        index, offset, flip = index[instances], self.offset[instances, part], flip[instances]
        return self.images.crop_and_flip(index, offset, flip), self.images.labels[index]

    def views(self, i: int) -> tuple[Tensor, Tensor]:
        """Which images the i-th batch shows each instance, (M, B) int64, and which of them mirrored, (M, B) bool."""
        part = slice(i * self.batch_size, (i + 1) * self.batch_size)
        return self.order[:, part], self.flip[:, part]


def endless_batches(
    images: Images, key: tuple[int, ...], batch_size: int, from_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batch after batch of passes without end, (B, C, S, S) and labels (B,), beginning with that of step `from_step`."""
    epoch, start = divmod(from_step, max(len(images) // batch_size, 1))  # Epoch refuses what is too large a batch
    while True:
        draws = Epoch(images, [(*key, epoch)], batch_size)
        for i in range(start, len(draws)):
            x, labels = draws.batch(i)
            yield x[0], labels[0]
        epoch, start = epoch + 1, 0


def make_images(
    pixels: np.ndarray, labels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], padding: int
) -> Images:
    """Arrays (N, S, S, C) uint8 and (N,) to Images."""
    return Images(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.from_numpy(labels.astype(np.int64)),
        torch.tensor(mean),
        torch.tensor(std),
        padding,
    )
