"""Spaces that were trained on a zoo, and what SANE's latents say of its nets and of their layers (SANE Sec. 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.files import fingerprint
from data.images import ImageSet
from data.nets import NetsDataset
from evaluation.metrics import correlation
from evaluation.spaces import Space, about_images
from models.errors import InputError
from models.token_autoencoder import TokenAutoencoder
from models.tokens import Tokens

INSTANCES_AT_ONCE = 32
MOST_CHECKPOINTS = 8  # steps that figures of layers show


def space_on_zoo(path: Path, made_by: str, splits: dict[str, NetsDataset], images: ImageSet) -> Space:
    """Load a space, on the device of the instances.

    Raise InputError if it is missing (`made_by` is the command that makes it), or was trained on other nets than the zoo has.
    """
    nets = splits["train"].nets
    space = Space.of_checkpoint(path, made_by, nets, about_images(nets, images))
    constants = space.trained.get("constants")
    trained_on = constants.get("instances") if isinstance(constants, dict) else None
    if trained_on != fingerprint(splits["train"].rows, splits["val"].rows):
        raise InputError(
            f"{path} was trained on other nets than {splits['train'].paths[0].parent.name} has now; move it away and run: "
            f"{made_by}"
        )
    return space.to(splits["train"].rows.device)


def layer_names(tokens: Tokens) -> list[str]:
    """Return the names of the layers that tokens are of, those of their weights without `.weight`."""
    return [layer.names[0].removesuffix(".weight") for layer in tokens.layers]


@torch.no_grad()
def latents_of_layers(sane: TokenAutoencoder, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean latent of every layer's tokens, (N, L, z) float64, and their standard deviation, (N, L) float64.

    Rows (N, P) are in any order of their channels. The deviation is the root mean square, over the tokens of a layer and the z
    numbers of a latent, of the difference from the layer's mean latent. Both are on the CPU.
    """
    sizes = sane.tokens.layer.bincount().tolist()
    means, deviations = [], []
    for part in rows.split(INSTANCES_AT_ONCE):
        latents = sane.as_tokens(sane.encode(part).double().cpu())
        layers = latents.split(sizes, dim=1)
        means.append(torch.stack([each.mean(1) for each in layers], 1))
        variances = [each.var(1, correction=0).mean(1) for each in layers]
        deviations.append(torch.stack(variances, 1).sqrt())
    return torch.cat(means), torch.cat(deviations)


def spectral_norms(tokens: Tokens, rows: Tensor) -> Tensor:
    """Return the largest singular value of every layer's weight as a matrix (C_out, rest), without its bias: (N, L) float64."""
    layout = tokens.layout
    values = dict(zip(layout.names, rows[:, : layout.num_parameters].double().cpu().split(layout.sizes, dim=1)))
    return torch.stack(
        [
            torch.linalg.matrix_norm(values[layer.names[0]].reshape(len(rows), layer.channels, -1), ord=2)
            for layer in tokens.layers
        ],
        1,
    )


@dataclass(frozen=True)
class LayersOverSteps:
    """Means over nets at each of K steps, for L layers: `deviations` of latents and `norms` (spectral), each (K, L).

    `correlations` are, for each layer, Spearman's between the two over all instances; None where one does not vary.
    """

    names: list[str]
    steps: list[int]
    deviations: np.ndarray
    norms: np.ndarray
    correlations: list[float | None]

    @classmethod
    def of(cls, tokens: Tokens, steps: Sequence[int], deviations: Tensor, norms: Tensor) -> "LayersOverSteps":
        """Average N instances (N, L), saved at `steps`, step by step; of many steps, some are shown, spread evenly."""
        distinct = sorted(set(steps))
        number = min(len(distinct), MOST_CHECKPOINTS)
        shown = [distinct[i] for i in np.unique(np.linspace(0, len(distinct) - 1, number).round().astype(int))]
        at = [torch.tensor([each == step for each in steps]) for step in shown]
        means = [np.stack([each[chosen].mean(0).numpy() for chosen in at]) for each in (deviations, norms)]
        ranks = [correlation(a.tolist(), b.tolist(), ranks=True) for a, b in zip(deviations.T, norms.T)]
        return cls(layer_names(tokens), shown, *means, ranks)
