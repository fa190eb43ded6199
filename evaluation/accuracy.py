"""Accuracies of many instances on the same images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from data.images import Images
from models.architecture_pool import ArchitecturePool
from models.instances import ArchitectureOnImages
from models.prep_autoencoder import PrepAutoencoder

IMAGES_AT_ONCE = 1000
INSTANCES_AT_ONCE = 33


@torch.no_grad()
def predicted_classes(nets: ArchitectureOnImages, rows: Tensor, images: Images) -> Tensor:
    """The class that each instance, a row of `rows` (N, P), says each image is of: (N, images) int64 on the device."""
    parts = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        x = images.plain(start, min(start + IMAGES_AT_ONCE, len(images)))
        parts.append(torch.cat([nets.run(part, x).argmax(-1) for part in rows.split(INSTANCES_AT_ONCE)]))
    return torch.cat(parts, dim=1)


def accuracy(nets: ArchitectureOnImages, rows: Tensor, images: Images) -> Tensor:
    """Percent of the images that each instance, a row of `rows` (N, P), classifies correctly: (N,) float32 on the CPU."""
    return share_of_images(predicted_classes(nets, rows, images) == images.labels)


def agreement(nets: ArchitectureOnImages, rows: Tensor, others: Tensor, images: Images) -> Tensor:
    """Percent of the images that the i-th of `rows` (N, P) and the i-th of `others` (N, P) put into the same class, right
    or wrong: (N,) float32 on the CPU."""
    return share_of_images(predicted_classes(nets, rows, images) == predicted_classes(nets, others, images))


def share_of_images(true: Tensor) -> Tensor:
    """Percent of each row of (N, images) bool: (N,) float32 on the CPU."""
    return (100 * true.sum(1).double() / true.shape[1]).float().cpu()


def mixed_accuracy(pool: ArchitecturePool, preps: Tensor, class_ids: Sequence[int], images: Images) -> Tensor:
    """The same for instances of several architectures, PReps (N, 1, H, W): (N,) float32 on the CPU."""
    percent = torch.zeros(len(class_ids))
    for nets, places, rows in pool.groups(preps, list(class_ids)):
        percent[places] = accuracy(nets, rows, images)
    return percent


@torch.no_grad()
def accuracy_of_embeddings(
    net_space: PrepAutoencoder, pool: ArchitecturePool, embeddings: Tensor, images: Images
) -> tuple[list[int], Tensor]:
    """Predicted ClassIds (N,), and the accuracies (N,) of the instances decoded from embeddings (N, E) and built with them."""
    class_ids = net_space.class_ids(embeddings)
    return class_ids, mixed_accuracy(pool, net_space.decode(embeddings), class_ids, images)


def where_right(accuracies: Tensor, class_ids: Sequence[int], wished: Sequence[int]) -> Tensor:
    """Accuracies (N,), with 0 where the predicted ClassId is not the wished one: what models and embeddings are chosen by.

    Our choice. The paper takes the highest mean accuracy; an instance of another, larger architecture would be rewarded.
    """
    return accuracies * (torch.tensor(class_ids) == torch.tensor(wished))
