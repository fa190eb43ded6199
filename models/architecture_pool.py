"""Instances of several architectures at once. Which architecture an instance has is its ClassId."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.instances import ArchitectureOnImages
from models.prep import check_prep_shape, unpack
from models.registry import Architecture, architectures_by_class_id


class ArchitecturePool:
    """Architectures for images of one shape: `pool[class_id]`, and A = `len(pool)`; every one that has a ClassId unless
    `architectures` are given, in their order.

    Raises InputError unless a PRep of `prep_shape` holds each of them.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        prep_shape: tuple[int, int],
        architectures: Sequence[Architecture] | None = None,
    ):
        chosen = architectures_by_class_id() if architectures is None else architectures
        self.nets = [ArchitectureOnImages(each, image_shape, num_classes) for each in chosen]
        self.prep_shape = prep_shape
        for nets in self.nets:
            check_prep_shape(prep_shape, nets.num_parameters, nets.architecture.name)

    def __len__(self) -> int:
        return len(self.nets)

    def __getitem__(self, class_id: int) -> ArchitectureOnImages:
        return self.nets[class_id]

    @property
    def names(self) -> list[str]:
        return [nets.architecture.name for nets in self.nets]

    def groups(self, preps: Tensor, class_ids: list[int]) -> Iterator[tuple[ArchitectureOnImages, list[int], Tensor]]:
        """Instances of one architecture together: its nets, their positions among the M, and their rows (m, P)."""
        for class_id in sorted(set(class_ids)):
            places = [i for i, each in enumerate(class_ids) if each == class_id]
            nets = self.nets[class_id]
            yield nets, places, unpack(preps[places], nets.num_parameters)

    def run(self, preps: Tensor, class_ids: list[int], images: Tensor) -> Tensor:
        """Logits (M, B, classes) of the instances in PReps (M, 1, H, W), in their order, on the same images (B, C, S, S)."""
        order, logits = [], []
        for nets, places, rows in self.groups(preps, class_ids):
            order += places
            logits.append(nets.run(rows, images))
        return torch.cat(logits)[sorted(range(len(order)), key=order.__getitem__)]
