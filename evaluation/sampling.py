"""Nets sampled from SANE's latents and chosen by validation accuracy (SANE Sec. 2, 4).

Latents are (N, T, z). Samples are drawn around anchors, which are latents of good training nets, by kernel density estimates;
`subsample` keeps the best of many, `bootstrap` draws again around those kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data.images import Images
from data.streams import stream
from evaluation.metrics import accuracy
from models.conditioning import States, conditioned, renormalized
from models.instances import TargetNet
from models.token_autoencoder import TokenAutoencoder
from models.tokens import token_layers

AT_ONCE = 8  # latents decoded at once

# token: every token from an anchor of its own. net: a whole anchor, with noise in every number. joint: a whole anchor, with noise
# of the anchors' covariance. pca: every principal coordinate from an anchor of its own. one_anchor: as the reference, whose
# generator is seeded again at every token: a whole anchor, and one noise vector (z,) for all tokens.
Kind = Literal["token", "net", "joint", "pca", "one_anchor"]


def draw(kind: Kind, anchors: Tensor, number: int, bandwidth: float, rng: np.random.Generator) -> Tensor:
    """Draw latents (number, T, z) around anchors (A, T, z): a Gaussian kernel density estimate.

    The kernel's standard deviation is `bandwidth` times that of the anchors in each coordinate, whatever the kind: every
    coordinate has the anchors' mean, and 1 + bandwidth^2 times their variance.
    """
    a, t, z = anchors.shape

    def noise(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(anchors)

    def choose(*shape: int) -> Tensor:
        return torch.from_numpy(rng.integers(a, size=shape)).to(anchors.device)

    mean = anchors.mean(0)
    if kind == "pca":
        u, s, directions = torch.linalg.svd((anchors - mean).flatten(1), full_matrices=False)
        return (mean.flatten() + _marginals(u * s, choose, noise, number, bandwidth) @ directions).view(number, t, z)
    if kind == "joint":
        around = (noise(number, a) @ (anchors - mean).flatten(1)).view(number, t, z) / a**0.5
        return anchors[choose(number)] + bandwidth * around
    spread = bandwidth * anchors.std(0, correction=0)
    if kind == "token":
        return anchors[choose(number, t), torch.arange(t, device=anchors.device)] + spread * noise(number, t, z)
    return anchors[choose(number)] + spread * noise(number, 1 if kind == "one_anchor" else t, z)


def _marginals(coordinates: Tensor, choose: Callable, noise: Callable, number: int, bandwidth: float) -> Tensor:
    """Draw every coordinate (A, K) by itself: (number, K)."""
    k = coordinates.shape[1]
    chosen = coordinates.gather(0, choose(number, k))
    return chosen + bandwidth * coordinates.std(0, correction=0) * noise(number, k)


@dataclass(frozen=True)
class Samples:
    """Sampled nets: latents (N, T, z), rows (N, P), and accuracy (N,) on validation images."""

    latents: Tensor
    rows: Tensor
    accuracy: Tensor

    def best(self, number: int) -> "Samples":
        """Return those of the highest accuracy, best first; of equals, the one drawn first."""
        order = self.accuracy.argsort(descending=True, stable=True)[:number]
        return Samples(self.latents[order], self.rows[order], self.accuracy[order.to(self.accuracy.device)])

    def __add__(self, other: "Samples") -> "Samples":
        pairs = ((self.latents, other.latents), (self.rows, other.rows), (self.accuracy, other.accuracy))
        return Samples(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True)
class Sampler:
    """Anchors (A, P), aligned rows, and how latents become nets that are judged on images.

    With `statistics`, images (B, C, S, S), decoded nets get the activations' statistics of the anchor whose latents are nearest
    (models/conditioning.py). That is all that conditioning can be for nets whose batch norm is fused.
    """

    model: TokenAutoencoder
    net: TargetNet
    anchors: Tensor
    val: Images
    statistics: tuple[Tensor, ...] = ()

    @cached_property
    def latents(self) -> Tensor:
        """The anchors' latents (A, T, z)."""
        with torch.no_grad():
            return self.model.as_tokens(self.model.encode_aligned(self.anchors))

    @cached_property
    def activations(self) -> States:
        """The anchors with batch norm, which holds the activations' statistics."""
        return renormalized(self.net, self.anchors, self.statistics)

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Samples:
        """Decode latents (N, T, z), by windows with halos, and measure the nets."""
        rows = torch.cat([self.model.decode(part.flatten(1)) for part in latents.split(AT_ONCE)])
        if self.statistics:
            nearest = torch.cdist(latents.flatten(1), self.latents.flatten(1)).argmin(1)
            like = {name: value[nearest] for name, value in self.activations.items()}
            rows = self.net.fuse(conditioned(self.net, rows, like, self.statistics))
        return Samples(latents, rows, accuracy(self.net, rows, self.val))


def bootstrap(
    sampler: Callable[[Tensor], Samples],
    first: Samples,
    kind: Kind,
    rounds: int,
    number: int,
    kept: int,
    bandwidth: float,
    key: tuple[int, ...],
) -> Samples:
    """Keep the best of the first round's samples, draw `number` around them, keep the best of these, and so on.

    Return the best of all; the reference returns the first that it drew in the last round. `sampler` decodes latents.
    """
    best = found = first.best(kept)
    for i in range(1, rounds):
        rng = stream("bootstrap", *key, i)
        found = sampler(draw(kind, found.latents, number, bandwidth, rng)).best(kept)
        best = (best + found).best(kept)
    return best


def add_noise(net: TargetNet, rows: Tensor, scale: float, rng: np.random.Generator) -> Tensor:
    """Return rows (N, P) with noise whose std is `scale` times that of each layer (weight and bias) of each net."""
    sizes = [layer.channels * sum(layer.columns) for layer in token_layers(net.layout)]
    parts = rows[:, : net.num_parameters].split(sizes, dim=1)
    scales = torch.cat([part.std(1, correction=0, keepdim=True).expand_as(part) for part in parts], dim=1)
    noise = torch.from_numpy(rng.standard_normal(scales.shape, dtype=np.float32)).to(rows)
    return rows[:, : net.num_parameters] + scale * scales * noise


# The results


def method_facts(epochs: Sequence[int], accuracy: Tensor, novelty: dict[str, float]) -> dict[str, Any]:
    """Return what is known of a method's nets, for JSON; their accuracies are (epochs, N)."""
    mean, std = accuracy.mean(1).tolist(), accuracy.std(1).tolist()
    return {"epochs": list(epochs), "accuracy_mean": mean, "accuracy_std": std, "novelty": novelty}


def sampling_table(results: dict[str, Any]) -> str:
    """Return sample_finetune.json as a Markdown table with a line for each method."""
    epochs = next(iter(results["methods"].values()))["epochs"]
    columns = ["nets", *(f"epoch {epoch} (%)" for epoch in epochs), "distance", "overlap of errors"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, found in results["methods"].items():
        cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(found["accuracy_mean"], found["accuracy_std"])]
        lines.append(f"| {' | '.join([name, *cells, *novelty_cells(found['novelty'])])} |")
    for name, found in results["novelty"].items():
        lines.append(f"| {' | '.join([name, *['–'] * len(epochs), *novelty_cells(found)])} |")
    return "\n".join(lines) + "\n"


def novelty_cells(novelty: dict[str, float]) -> list[str]:
    """Return the cells of novelty."""
    return [f"{novelty['distance']:.3f}", f"{novelty['error_overlap']:.2f}"]
