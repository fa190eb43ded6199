"""Instances in the latent space of a trained space, for the report's panels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.folders import Folders
from data.nets import NetsDataset, load_nets, load_sirens
from evaluation.metrics import accuracy_of, interpolate
from evaluation.spaces import MultiConfig, SingleConfig, Space, about_sirens, load_experiment
from models.errors import InputError
from training.runtime import pick_device


@dataclass(frozen=True)
class Embedded:
    """Instances of every split, one split after the other, and their embeddings.

    `splits` names the split of each of the N instances, `embeddings` are (N, E). `values` are the targets' test accuracies in
    percent, or of SIRENs the closeness of the predicted ones; it is empty if they are unknown.
    """

    space: Space
    instances: NetsDataset
    splits: tuple[str, ...]
    embeddings: Tensor
    values: list[float]

    @classmethod
    def of(cls, space: Space, sets: dict[str, NetsDataset], values: list[float] | None = None) -> "Embedded":
        """Embed the instances of `sets`, by split."""
        joined: dict[str, Any] = {
            name: sum((getattr(each, name) for each in sets.values()), ()) for name in ("class_ids", "facts", "paths")
        }
        rows = torch.cat([each.rows for each in sets.values()])
        instances = replace(next(iter(sets.values())), rows=rows, samples=None, **joined)
        splits = tuple(split for split, each in sets.items() for _ in range(len(each)))
        values = values if values is not None and len(values) == len(instances) else []
        return cls(space, instances, splits, space.encode(rows), values)

    def index_of(self, name: str, made_by: str) -> int:
        """Return the index of an instance that a result names. Raise InputError if no input list names it."""
        index = self.instances.index_of(name)
        if index is None:
            raise InputError(f"{name}, an end of the line, is in no input list; run again: {made_by}")
        return index

    def architecture(self, index: int) -> str:
        """Return the name of an instance's architecture."""
        return self.instances.nets.names[self.instances.class_ids[index]]

    def parameters(self, rows: Tensor, class_ids: Sequence[int]) -> list[np.ndarray]:
        """Return rows (K, >= P) as K arrays (P_k,) float32, without the padding and what the decoder puts there."""
        sizes = [self.instances.nets[class_id].num_parameters for class_id in class_ids]
        return [row[:size] for row, size in zip(rows.cpu().numpy(), sizes)]

    def along(
        self, ends: Sequence[int], gamma: Sequence[float], class_ids: Sequence[int]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return K arrays (P_k,) decoded from the line between two embeddings, and K of the averages of the two rows."""
        factors = torch.tensor(gamma, device=self.embeddings.device)
        start, end = ends
        decoded = self.space.decode(interpolate(self.embeddings[start], self.embeddings[end], factors))
        averaged = interpolate(self.instances.rows[start], self.instances.rows[end], factors)
        return self.parameters(decoded, class_ids), self.parameters(averaged, class_ids)


def embed_images(config: SingleConfig | MultiConfig) -> Embedded:
    """Embed the instances of one architecture or of several, and measure their test accuracy.

    Raise InputError if something is missing, with the command that makes it.
    """
    images, space, test = load_experiment(config)
    sets = {split: load_nets(config.folders, images, config.setting, split, test.nets) for split in ("train", "val")}
    sets["test"] = test
    values = [value for each in sets.values() for value in accuracy_of(each, images.test).tolist()]
    return Embedded.of(space, sets, values)


def embed_sirens(folders: Folders, dataset: str, checkpoint: Path, made_by: str, closeness: list[float]) -> Embedded:
    """Embed SIRENs, which have no validation split; `closeness` is in train_mlps.json. Raise InputError likewise."""
    device = pick_device()
    sets = {split: load_sirens(folders, dataset, split, device) for split in ("train", "test")}
    nets = sets["test"].nets
    space = Space.of_checkpoint(checkpoint, made_by, nets, about_sirens(nets[0].trained.widths))
    return Embedded.of(space.to(device), sets, closeness)
