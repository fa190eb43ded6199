"""What predicted instances are asked to do: behave like their targets (paper eq. 1), or like a teacher, and be of the
architecture that is wished (eq. 3-12). Beside it, what they are not asked to do: have their targets' weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.prep import Layout


def log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """At a temperature, in at least float32 whatever the precision of the logits."""
    return F.log_softmax((logits if logits.dtype == torch.float64 else logits.float()) / temperature, dim=-1)


def distillation_loss(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """L_pred of eq. 1: KL(softmax(target/T) || softmax(predicted/T)) * T^2, from logits (M, B, classes), a scalar.

    Mean over images and over the meta-batch, as in the original's single-architecture setting. Computed in at least
    float32 whatever the precision of the logits.
    """
    log_p, log_t = log_probabilities(predicted, temperature), log_probabilities(target, temperature)
    images = log_t.shape[0] * log_t.shape[1]
    return F.kl_div(log_p, log_t, reduction="sum", log_target=True) / images * temperature**2


def sdf_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L_pred of eq. 2: mean squared error of predicted from target outputs (M, B) at the same points, a scalar."""
    return F.mse_loss(predicted, target)


def parameter_scales(layout: Layout, rows: Tensor) -> Tensor:
    """Units for `weight_losses`, (P,), from training instances (N, P): the standard deviation of each parameter's tensor.

    Over all elements of the tensor in all instances, around their mean: layers of small and of large weights count alike,
    and another order of hidden channels changes nothing. Tensors that never vary count in their own units.
    """
    by_name = layout.unflatten(rows)
    deviations = {name: value.std(correction=0).expand(1, *value.shape[1:]) for name, value in by_name.items()}
    scales = layout.flatten(deviations)[0]
    return scales.where(scales > 0, 1.0)


def weight_losses(predicted: Tensor, target: Tensor, scales: Tensor) -> Tensor:
    """Mean squared error of each predicted row from its target (M, P), without padding, in units of `scales` (P,): (M,).

    What the paper argues against (Sec. III): near in weights is not near in behaviour. About 1 for the mean instance.
    """
    return ((predicted - target) / scales).square().mean(1)


def teacher_losses(predicted: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """L_kd of eq. 3-5 and 8-10 for each instance (M,), mean over images, from logits (M, B, classes) and (B, classes).

    alpha * KL(softmax(teacher/T) || softmax(predicted/T)) * T^2 + (1 - alpha) * cross entropy with labels (B,).
    """
    log_p, log_t = log_probabilities(predicted, temperature), log_probabilities(teacher, temperature)
    divergence = F.kl_div(log_p, log_t.expand_as(log_p), reduction="none", log_target=True).sum(-1)  # (M, B)
    log_class = log_probabilities(predicted, 1.0).transpose(1, 2)  # (M, classes, B)
    task = F.nll_loss(log_class, labels.expand(len(predicted), -1), reduction="none")  # (M, B)
    return (alpha * temperature**2 * divergence + (1 - alpha) * task).mean(1)


def class_id_losses(class_logits: Tensor, wished: list[int]) -> Tensor:
    """L_class of eq. 6 and 7 for each instance (M,): cross entropy of its wished ClassId, from logits (M, A)."""
    target = torch.tensor(wished, device=class_logits.device)
    return F.cross_entropy(class_logits, target, reduction="none")


def interpolation_factors(num_class_ids: int) -> list[float]:
    """The gammas of eq. 12: i/(A-1) for i = 1 ... A-2."""
    return [i / (num_class_ids - 1) for i in range(1, num_class_ids - 1)]


def interpolate_boundaries(
    embeddings: Tensor, pairs: list[tuple[int, int]], num_class_ids: int
) -> tuple[Tensor, list[int]]:
    """Embeddings on the lines between boundary instances (eq. 7-12), and the ClassIds that are wished of them.

    From embeddings (M, E) and `pairs` of positions in them, (lowest ClassId, highest ClassId), to (pairs * (A-2), E):
    (1 - gamma)*e^A + gamma*e^B for every pair and gamma. As A has ClassId 0 and B has A-1, i is wished at i/(A-1).
    """
    factors = interpolation_factors(num_class_ids)
    gamma = torch.tensor(factors, dtype=embeddings.dtype, device=embeddings.device)[None, :, None]
    low, high = (embeddings[[pair[end] for pair in pairs]][:, None] for end in (0, 1))  # (pairs, 1, E)
    between = (1 - gamma) * low + gamma * high  # (pairs, A-2, E)
    return between.flatten(0, 1), [i for _ in pairs for i in range(1, num_class_ids - 1)]


def boundary_pairs(class_ids: list[int], num_class_ids: int) -> list[tuple[int, int]]:
    """All pairs of positions (one of the lowest ClassId, one of the highest) in a meta-batch."""
    low, high = ([i for i, class_id in enumerate(class_ids) if class_id == end] for end in (0, num_class_ids - 1))
    return [(i, j) for i in low for j in high]
