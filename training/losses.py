"""What predicted instances are asked to do: behave like their targets (paper eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """L_pred of eq. 1: KL(softmax(target/T) || softmax(predicted/T)) * T^2, from logits (M, B, classes), a scalar.

    Mean over images and over the meta-batch, as in the original's single-architecture setting. Computed in at least
    float32 whatever the precision of the logits.
    """
    predicted, target = (logits if logits.dtype == torch.float64 else logits.float() for logits in (predicted, target))
    log_p = F.log_softmax(predicted / temperature, dim=-1)
    log_t = F.log_softmax(target / temperature, dim=-1)
    images = log_t.shape[0] * log_t.shape[1]
    return F.kl_div(log_p, log_t, reduction="sum", log_target=True) / images * temperature**2
