"""All instances of a setting, in the latent space of its trained NetSpace: what the report draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.folders import Folders
from data.mlps import load_mlps
from data.nets import load_mixed_split, load_split
from evaluation.accuracy import accuracy, mixed_accuracy
from evaluation.interpolation import interpolate
from evaluation.multi import MultiConfig, load_multi_experiment
from evaluation.single import EvaluationConfig, load_experiment
from models.errors import InputError
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder
from models.siren import SirenNets
from training.checkpoints import restore_net_space
from training.runtime import pick_device


@dataclass(frozen=True)
class Embedded:
    """Instances of train, val and test, after each other."""

    net_space: PrepAutoencoder
    preps: Tensor  # (N, 1, H, W) float32, of targets
    embeddings: Tensor  # (N, E)
    sizes: list[int]  # parameters of each
    paths: list[Path]
    splits: list[str]
    architectures: list[str]
    values: list[float]  # test accuracy (percent) of targets, or closeness of what is predicted from them; may be empty

    def place(self, name: str, made_by: str) -> int:
        """Position of an instance that results name. Raises InputError if the input lists no longer have it."""
        for i, path in enumerate(self.paths):
            if name in (path.as_posix(), path.stem):
                return i
        raise InputError(f"{name}, an end of the line, is in no input list any more; run again: {made_by}")

    def of_split(self, split: str) -> list[int]:
        return [i for i, each in enumerate(self.splits) if each == split]

    def parameters_of(self, preps: Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
        """PReps (K, 1, H, W) as K rows (P_k,), without what the decoder puts into the padding."""
        return [row[:size] for row, size in zip(preps.flatten(1).cpu().numpy(), sizes)]

    def predict(self, embeddings: Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
        """Parameters (P_k,) decoded from embeddings (K, E)."""
        return self.parameters_of(self.net_space.decode(embeddings), sizes)

    def along(
        self, ends: Sequence[int], gamma: Sequence[float], sizes: Sequence[int]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """K rows (P_k,) decoded from embeddings on the line between two instances, and K of their weights averaged."""
        factors = torch.tensor(gamma, device=self.embeddings.device)
        averaged = interpolate(*self.preps[ends].flatten(1), factors)
        return self.predict(interpolate(*self.embeddings[ends], factors), sizes), self.parameters_of(averaged, sizes)


def paths_and_splits(sets: dict) -> dict[str, list]:
    every = [(path, split) for split, each in sets.items() for path in each.paths]
    return {"paths": [path for path, _ in every], "splits": [split for _, split in every]}


def embed_single(config: EvaluationConfig) -> Embedded:
    """Raises InputError where something is missing, naming the command that makes it."""
    experiment = load_experiment(config)
    nets, images = experiment.test.nets, experiment.images
    sets = {split: load_split(config.folders, images, "single", split, nets) for split in ("train", "val")}
    sets["test"] = experiment.test
    rows = torch.cat([each.rows for each in sets.values()])
    preps = pack(rows, experiment.prep_shape)
    return Embedded(
        experiment.net_space,
        preps,
        experiment.net_space.encode(preps),
        [nets.num_parameters] * len(rows),
        **paths_and_splits(sets),
        architectures=[config.architecture] * len(rows),
        values=accuracy(nets, rows, images.test).tolist(),
    )


def embed_multi(config: MultiConfig) -> tuple[Embedded, list[int]]:
    """Those of several architectures, and how many parameters each ClassId has. Raises InputError likewise."""
    experiment = load_multi_experiment(config)
    pool, images, net_space = experiment.pool, experiment.images, experiment.net_space
    sets = {split: load_mixed_split(config.folders, images, config.setting, split, pool) for split in ("train", "val")}
    sets["test"] = experiment.test
    preps = torch.cat([each.preps for each in sets.values()])
    class_ids = [class_id for each in sets.values() for class_id in each.class_ids]
    sizes = [nets.num_parameters for nets in pool.nets]
    embedded = Embedded(
        net_space,
        preps,
        net_space.encode(preps),
        [sizes[class_id] for class_id in class_ids],
        **paths_and_splits(sets),
        architectures=[pool.names[class_id] for class_id in class_ids],
        values=mixed_accuracy(pool, preps, class_ids, images.test).tolist(),
    )
    return embedded, sizes


def embed_mlps(
    folders: Folders, dataset: str, checkpoint: Path, made_by: str, closeness: list[float]
) -> tuple[Embedded, SirenNets]:
    """SIRENs, of which there is no validation split; `closeness` is what train_mlps.json says. Raises InputError likewise."""
    device = pick_device()
    net_space = restore_net_space(checkpoint, made_by, device)
    sets = {split: load_mlps(folders, dataset, split, device) for split in ("train", "test")}
    nets, rows = sets["test"].nets, torch.cat([each.rows for each in sets.values()])
    preps = pack(rows, net_space.sizes.prep_shape)
    embedded = Embedded(
        net_space,
        preps,
        net_space.encode(preps),
        [nets.num_parameters] * len(rows),
        **paths_and_splits(sets),
        architectures=["siren"] * len(rows),
        values=closeness if len(closeness) == len(rows) else [],
    )
    return embedded, nets
