"""Accuracies of many instances on the same images."""

import torch
from torch import Tensor

from data.images import Images
from models.instances import ArchitectureOnImages

IMAGES_AT_ONCE = 1000
INSTANCES_AT_ONCE = 33


@torch.no_grad()
def accuracy(nets: ArchitectureOnImages, rows: Tensor, images: Images) -> Tensor:
    """Percent of the images that each instance, a row of `rows` (N, P), classifies correctly: (N,) float32 on the CPU."""
    correct = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        stop = min(start + IMAGES_AT_ONCE, len(images))
        x, labels = images.plain(start, stop), images.labels[start:stop]
        parts = [(nets.run(part, x).argmax(-1) == labels).sum(1) for part in rows.split(INSTANCES_AT_ONCE)]
        correct += torch.cat(parts)
    return (100 * correct.double() / len(images)).float().cpu()
