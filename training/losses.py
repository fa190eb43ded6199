"""Losses: predicted instances behave like their targets (paper eq. 1, 2) or like a teacher (eq. 3-5), and have the desired
architecture (eq. 6-12). `OBJECTIVES` are those of NetSpace on one architecture, by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.images import Batches, Images
from data.nets import NetsDataset
from models.instances import TargetNet
from models.rows import Layout, index_on
from training.graphs import Graphed
from training.runtime import MixedPrecision

IMAGES_AT_ONCE = 1000


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits/T), in float32 or float64 whatever the precision of the logits."""
    return F.log_softmax((logits if logits.dtype == torch.float64 else logits.float()) / temperature, dim=-1)


def distillation_losses(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Compute L_pred of eq. 1, KL(softmax(target/T) || softmax(predicted/T)) * T^2, for each instance (M,), mean over images.

    Logits are (M, B, classes); the target's may be (1, B, classes).
    """
    log_p, log_t = log_probabilities(predicted, temperature), log_probabilities(target, temperature)
    divergence = F.kl_div(log_p, log_t.expand_as(log_p), reduction="none", log_target=True).sum(-1)  # (M, B)
    return divergence.mean(1) * temperature**2


def sdf_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute L_pred of eq. 2, the mean squared error of outputs (M, S) at the same points, for each instance (M,)."""
    return (predicted - target).square().mean(1)


def parameter_scales(layout: Layout, rows: Tensor) -> Tensor:
    """Return the units of `weight_losses`, (P,), from training instances (N, P): each tensor's standard deviation.

    It is taken over all elements of a tensor in all instances, around their mean. So layers of small and of large weights
    have equal weight, and an order of hidden channels changes nothing. A tensor that never varies has the unit 1.
    """
    by_name = layout.unflatten(rows)
    deviations = {name: value.std(correction=0).expand(1, *value.shape[1:]) for name, value in by_name.items()}
    scales = layout.flatten(deviations)[0]
    return scales.where(scales > 0, 1.0)


def weight_losses(predicted: Tensor, target: Tensor, scales: Tensor) -> Tensor:
    """Compute the mean squared error of predicted rows (M, >= P) in units of `scales` (P,), for each instance (M,).

    The paper argues against it (Sec. III): rows that are close may behave differently. The mean instance has about 1.
    """
    size = len(scales)
    return ((predicted[:, :size] - target[:, :size]) / scales).square().mean(1)


def teacher_losses(predicted: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """Compute L_kd of eq. 3-5 and 8-10 for each instance (M,), mean over images: logits (M, B, classes) and (B, classes).

    It is alpha * KL(softmax(teacher/T) || softmax(predicted/T)) * T^2 + (1 - alpha) * cross entropy with labels (B,).
    """
    divergence = distillation_losses(predicted, teacher[None], temperature)
    log_class = log_probabilities(predicted, 1.0).transpose(1, 2)  # (M, classes, B)
    task = F.nll_loss(log_class, labels.expand(len(predicted), -1), reduction="none")  # (M, B)
    return alpha * divergence + (1 - alpha) * task.mean(1)


def class_id_losses(class_logits: Tensor, desired: list[int]) -> Tensor:
    """Compute L_class of eq. 6 and 7, the cross entropy of the desired ClassId, for each instance (M,), from logits (M, A)."""
    target = index_on(class_logits.device, desired)
    return F.cross_entropy(class_logits, target, reduction="none")


def interpolation_factors(num_class_ids: int) -> list[float]:
    """Return the gammas of eq. 12: i/(A-1) for i = 1 ... A-2."""
    return [i / (num_class_ids - 1) for i in range(1, num_class_ids - 1)]


def interpolate_boundaries(
    embeddings: Tensor, pairs: list[tuple[int, int]], num_class_ids: int
) -> tuple[Tensor, list[int]]:
    """Return embeddings on the lines between boundary instances (eq. 7-12), and their desired ClassIds.

    `pairs` are indices into embeddings (M, E), (lowest ClassId, highest ClassId). The result is (pairs * (A-2), E): (1 -
    gamma)*e^A + gamma*e^B for every pair and gamma. The ends have the ClassIds 0 and A-1, so at i/(A-1) it should be i.
    """
    factors = interpolation_factors(num_class_ids)
    gamma = torch.tensor(factors, dtype=embeddings.dtype, device=embeddings.device)[None, :, None]
    ends = (index_on(embeddings.device, [pair[end] for pair in pairs]) for end in (0, 1))
    low, high = (embeddings[end][:, None] for end in ends)  # (pairs, 1, E)
    between = (1 - gamma) * low + gamma * high  # (pairs, A-2, E)
    return between.flatten(0, 1), [i for _ in pairs for i in range(1, num_class_ids - 1)]


def boundary_pairs(class_ids: list[int], num_class_ids: int) -> list[tuple[int, int]]:
    """Return all pairs of indices in a meta-batch: one of the lowest ClassId, one of the highest."""
    low, high = ([i for i, class_id in enumerate(class_ids) if class_id == end] for end in (0, num_class_ids - 1))
    return [(i, j) for i in low for j in high]


# Tokens (SANE Sec. 2)


def reconstruction_losses(predicted: Tensor, target: Tensor, mask: Tensor, over: str = "parameters") -> Tensor:
    """Return the mean squared error (B,) of windows (B, W, D) where the mask is true; over "grid", divided by W*D instead."""
    errors = ((predicted - target) * mask).square().sum((1, 2))
    return errors / (mask[0].numel() if over == "grid" else mask.sum((1, 2)))


def logit_losses(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference (M,) of logits (M, B, classes) of decoded nets and their targets."""
    return (predicted.float() - target.float()).square().mean((1, 2))


def contrastive_losses(projected: Tensor, temperature: float = 0.1) -> Tensor:
    """Return NT-Xent (2B,) of the projections (2B, F) of windows: view i and view i+B are of the same window.

    Similarities are cosines; each view is told from the 2B-2 views of other windows.
    """
    unit = F.normalize(projected, dim=1)
    similarity = unit @ unit.T / temperature
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    partner = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return F.cross_entropy(similarity.masked_fill(own, float("-inf")), partner, reduction="none")


# Objectives on one architecture


@dataclass(frozen=True)
class Given:
    """What an objective may use beside predicted and target rows."""

    net: TargetNet
    images: Tensor  # (B, C, S, S), the same for all instances
    temperature: float
    scales: Tensor  # (P,), units of weight errors


Objective = Callable[[Tensor, Tensor, Given], Tensor]


def behaviour(predicted: Tensor, target: Tensor, given: Given) -> Tensor:
    """Compute eq. 1 for each instance (M,), from rows (M, >= P)."""
    with torch.no_grad():
        target_logits = given.net.run(target, given.images)  # (M, B, classes)
    return distillation_losses(given.net.run(predicted, given.images), target_logits, given.temperature)


def logit_behaviour(predicted: Tensor, target: Tensor, given: Given) -> Tensor:
    """Compute the squared difference of logits for each instance (M,), from rows (M, >= P) (Meynent et al., 2025)."""
    with torch.no_grad():
        target_logits = given.net.run(target, given.images)  # (M, B, classes)
    return logit_losses(given.net.run(predicted, given.images), target_logits)


def weights(predicted: Tensor, target: Tensor, given: Given) -> Tensor:
    """Compute the error of the weights for each instance (M,), from rows (M, >= P)."""
    return weight_losses(predicted, target, given.scales)


def both(predicted: Tensor, target: Tensor, given: Given) -> Tensor:
    """Compute the sum of both for each instance (M,), from rows (M, >= P)."""
    return behaviour(predicted, target, given) + weights(predicted, target, given)


OBJECTIVES: dict[str, Objective] = {"behaviour": behaviour, "weights": weights, "both": both}
# The folder in runs/<dataset>/ that the NetSpace of an objective is in: the paper's is that of one architecture.
OBJECTIVE_FOLDERS = {name: "single" if name == "behaviour" else name for name in OBJECTIVES}


# The teacher


class Teacher:
    """The teacher's logits for the images of a step (eq. 3).

    The teacher runs once a step for all instances. If augmentation only mirrors images, it runs on every image and its mirror
    image once, before the first step.
    """

    def __init__(self, teacher: NetsDataset, images: Images, precision: MixedPrecision):
        self.net, self.row, self.precision = teacher.nets[0], teacher.rows, precision
        self.graphed = Graphed(self.run)
        self.seen: Tensor | None = None  # (2, N, classes): of all images, and of all mirror images
        if not images.padding:
            index = torch.arange(len(images), device=self.row.device).split(IMAGES_AT_ONCE)
            self.seen = torch.stack(
                [torch.cat([self.run(mirrored(images, part, flip)) for part in index]) for flip in (False, True)]
            )

    def logits(self, batches: Batches, step: int, x: Tensor) -> Tensor:
        """Return logits (B, classes) of a step's images x (B, C, S, S), those of `batches`."""
        if self.seen is None:
            with torch.no_grad():
                return self.graphed(x)
        index, _, flip = batches.views(step)
        return self.seen[flip[0].long(), index[0]]

    def run(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, C, S, S)."""
        with torch.no_grad(), self.precision:
            return self.net.run(self.row, x)[0]


def mirrored(images: Images, index: Tensor, flip: bool) -> Tensor:
    """Return images (B, C, S, S) at indices (B,), all of them mirrored or none."""
    middle = torch.full((len(index), 2), images.padding, device=index.device)
    return images.crop_and_flip(index, middle, torch.full(index.shape, flip, device=index.device))
