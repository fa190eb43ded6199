import math

import torch

from training.losses import distillation_loss


def plain_loss(predicted, target, temperature):
    """Eq. 1, one image and one class at a time."""
    total = 0.0
    for p_net, t_net in zip(predicted.tolist(), target.tolist()):
        for p, t in zip(p_net, t_net):
            p_sum = sum(math.exp(value / temperature) for value in p)
            t_sum = sum(math.exp(value / temperature) for value in t)
            for p_value, t_value in zip(p, t):
                t_prob, p_prob = math.exp(t_value / temperature) / t_sum, math.exp(p_value / temperature) / p_sum
                total += t_prob * (math.log(t_prob) - math.log(p_prob))
    return total * temperature**2 / (predicted.shape[0] * predicted.shape[1])


def test_distillation_loss_is_eq_1():
    predicted, target = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for temperature in (1.0, 4.0):
        reference = torch.tensor(plain_loss(predicted, target, temperature), dtype=torch.float64)
        torch.testing.assert_close(distillation_loss(predicted, target, temperature), reference)


def test_the_target_is_the_first_argument_of_the_divergence():
    a, b = torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]])
    assert distillation_loss(a, b, 1.0) != distillation_loss(b, a, 1.0)


def test_loss_is_zero_at_the_target_and_for_shifted_logits_and_positive_elsewhere():
    target = torch.randn(2, 3, 5, dtype=torch.float64)
    assert distillation_loss(target + 7, target, 4.0).abs() < 1e-12
    assert distillation_loss(target + torch.randn_like(target), target, 4.0) > 0


def test_half_precision_logits_are_compared_in_float32():
    predicted, target = torch.randn(2, 2, 3, 5).bfloat16()
    loss = distillation_loss(predicted, target, 4.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distillation_loss(predicted.double(), target.double(), 4.0).float())
