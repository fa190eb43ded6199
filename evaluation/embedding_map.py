"""A map of embeddings in two dimensions, by principal components."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex
from torch import Tensor

from evaluation.embedded import Embedded
from evaluation.prep_images import PARAMETERS
from models.registry import get_architecture

# Okabe and Ito's, with a shape for each: the paper's red and green are alike to many.
ARCHITECTURE_LOOKS = (
    ("#E69F00", "circle"),
    ("#56B4E9", "square"),
    ("#009E73", "triangle"),
    ("#CC79A7", "diamond"),
    ("#D55E00", "circle"),
    ("#0072B2", "square"),
)


def look_of(class_id: int) -> tuple[str, str]:
    """Colour and mark of an architecture."""
    return ARCHITECTURE_LOOKS[class_id % len(ARCHITECTURE_LOOKS)]


def pca(embeddings: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) float64 of embeddings (N, E) along their first two principal axes, and each axis's share of the variance.

    An axis points to the embedding that lies farthest along it.
    """
    embeddings = embeddings.double().cpu()
    left, lengths, _ = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)
    places = F.pad(left * lengths, (0, 2))[:, :2]  # padded, as one or two embeddings have fewer axes
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))
    variances = F.pad(lengths.square(), (0, 2))
    shares = variances[:2] / variances.sum().clamp_min(1e-300)
    return (places * torch.where(farthest < 0, -1.0, 1.0)).numpy(), shares.numpy()


def embedding_map(
    embedded: Embedded, color_by: Literal["accuracy", "architecture", "split"], ends: Sequence[int]
) -> dict[str, Any]:
    """What the page's map draws; `ends`, two instances or none, are joined by a line."""
    places, shares = pca(embedded.embeddings)
    low, high = min(embedded.values, default=0), max(embedded.values, default=0)

    def look(i: int) -> tuple[str, str]:
        if color_by == "accuracy":
            return to_hex(PARAMETERS((embedded.values[i] - low) / max(high - low, 1e-12))), "circle"
        if color_by == "architecture":
            return look_of(get_architecture(embedded.architectures[i]).class_id)
        return ("var(--target)", "circle") if embedded.splits[i] == "train" else ("var(--predicted)", "diamond")

    def label(i: int) -> str:
        kind = "closeness {:.2f}" if color_by == "split" else "test accuracy {:.1f} %"
        value = [kind.format(embedded.values[i])] if embedded.values else []
        return f"{embedded.paths[i].stem}\n" + " · ".join([embedded.splits[i], embedded.architectures[i], *value])

    points = []
    for i, (x, y) in enumerate(places.round(6).tolist()):
        color, mark = look(i)
        points.append({"x": x, "y": y, "color": color, "mark": mark, "split": embedded.splits[i], "label": label(i)})
    legend = []
    if color_by == "architecture":
        for name in dict.fromkeys(embedded.architectures):
            color, mark = look(embedded.architectures.index(name))
            legend.append({"name": name, "color": color, "mark": mark})
    for split in dict.fromkeys(embedded.splits):
        color, mark = look(embedded.splits.index(split)) if color_by == "split" else ("var(--faint)", "circle")
        legend.append({"name": split, "color": color, "mark": mark, "split": split})
    x, y = ({"label": f"principal axis {i} ({100 * share:.0f} % of variance)"} for i, share in enumerate(shares, 1))
    scale = {"low": low, "high": high} if color_by == "accuracy" else None
    return {"x": x, "y": y, "points": points, "legend": legend, "ends": list(ends), "scale": scale}
