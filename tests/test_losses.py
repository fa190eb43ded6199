import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train_multi_arch
from models.architecture_pool import ArchitecturePool
from models.instances import ArchitectureOnImages
from models.prep import Layout, pack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES
from models.symmetries import reordering
from training.losses import (
    boundary_pairs,
    class_id_losses,
    distillation_loss,
    interpolate_boundaries,
    interpolation_factors,
    parameter_scales,
    teacher_losses,
    weight_losses,
)


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


def test_weight_losses_are_squared_errors_in_units_of_each_tensors_standard_deviation():
    layout = Layout(("weight", "bias", "constant"), ((2, 3), (2,), (1,)))
    rows = torch.randn(5, 9, dtype=torch.float64) * torch.tensor([3.0] * 6 + [0.1] * 2 + [0.0])
    predicted, target = torch.randn(2, 4, 9, dtype=torch.float64)
    places = (range(0, 6), range(6, 8), range(8, 9))
    total = [0.0] * 4
    for place in places:
        values = [row[i] for row in rows.tolist() for i in place]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for m in range(4):
            for i in place:
                total[m] += (predicted[m, i].item() - target[m, i].item()) ** 2 / (variance or 1.0)
    scales = parameter_scales(layout, rows)
    assert weight_losses(predicted, target, scales).tolist() == pytest.approx([each / 9 for each in total])
    assert weight_losses(target, target, scales).tolist() == [0.0] * 4


@pytest.mark.parametrize("name", ["lenetlike", "resnet8"])
def test_another_order_of_hidden_channels_leaves_weight_losses_as_they_are(name):
    nets = ArchitectureOnImages(ARCHITECTURES[name], (1, 8, 8), 10)
    rows = nets.fuse(nets.start([0, 1, 2, 3])).double()
    index = reordering(nets.layout, nets.fused.hidden_channels(), (1,))
    assert not torch.equal(index, torch.arange(len(index)))
    losses, reordered = (
        weight_losses(each[:2], each[2:], parameter_scales(nets.layout, each)) for each in (rows, rows[:, index])
    )
    torch.testing.assert_close(losses, reordered)


def softmax(logits, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def plain_kd(predicted, teacher, labels, temperature, alpha):
    """Eq. 3-5 for one instance, one image and one class at a time."""
    divergence = cross_entropy = 0.0
    for p, t, label in zip(predicted.tolist(), teacher.tolist(), labels.tolist()):
        p_soft, t_soft = softmax(p, temperature), softmax(t, temperature)
        divergence += sum(t_prob * math.log(t_prob / p_prob) for t_prob, p_prob in zip(t_soft, p_soft))
        cross_entropy -= math.log(softmax(p)[label])
    return (alpha * divergence * temperature**2 + (1 - alpha) * cross_entropy) / len(predicted)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_teacher_losses_are_eq_3_to_5(alpha):
    predicted, teacher = 3 * torch.randn(3, 4, 5, dtype=torch.float64), 3 * torch.randn(4, 5, dtype=torch.float64)
    labels = torch.tensor([0, 4, 2, 2])
    losses = teacher_losses(predicted, teacher, labels, 4.0, alpha)
    reference = [plain_kd(one, teacher, labels, 4.0, alpha) for one in predicted]
    torch.testing.assert_close(losses, torch.tensor(reference, dtype=torch.float64))


def test_class_id_losses_are_eq_6():
    logits = torch.randn(3, 4, dtype=torch.float64)
    reference = [-math.log(softmax(one)[wished]) for one, wished in zip(logits.tolist(), [3, 0, 1])]
    torch.testing.assert_close(class_id_losses(logits, [3, 0, 1]), torch.tensor(reference, dtype=torch.float64))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_boundary_pairs_are_all_of_the_lowest_with_all_of_the_highest(class_ids):
    pairs = boundary_pairs(class_ids, 4)
    every = [(i, j) for i, a in enumerate(class_ids) for j, b in enumerate(class_ids) if (a, b) == (0, 3)]
    assert sorted(pairs) == every


@given(st.integers(2, 7), st.integers(0, 3))
def test_interpolated_embeddings_and_class_ids_are_eq_7_and_12(num_class_ids, num_pairs):
    embeddings = torch.randn(6, 5, dtype=torch.float64)
    pairs = [(0, 4), (0, 5), (2, 4)][:num_pairs]
    between, class_ids = interpolate_boundaries(embeddings, pairs, num_class_ids)
    reference = []
    for low, high in pairs:
        for i in range(1, num_class_ids - 1):
            gamma = i / (num_class_ids - 1)
            wished = (1 - gamma) * 0 + gamma * (num_class_ids - 1)
            reference.append((wished, (1 - gamma) * embeddings[low] + gamma * embeddings[high]))
    assert between.shape == (num_pairs * (num_class_ids - 2), 5)
    assert class_ids == pytest.approx([wished for wished, _ in reference])
    for ours, (_, plain) in zip(between, reference):
        torch.testing.assert_close(ours, plain)
    assert interpolation_factors(4) == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("class_ids", [[0, 3, 0, 2, 3], [1, 3, 2], [0]], ids=["four pairs", "no pair", "one alone"])
def test_the_losses_of_a_step_are_the_sums_of_eq_5_6_and_11_one_instance_at_a_time(class_ids):
    prep_shape = (8, 3688)
    pool = ArchitecturePool((1, 8, 8), 10, prep_shape)
    net_space = PrepAutoencoder(
        Sizes(prep_shape, emb_size=64, grid=8, row_length=16, row_channels=4), len(pool)
    ).double()
    net_space.decoder.scalelayer.start_at(0.1 * torch.randn(prep_shape), 0.01)
    for nets in pool.nets:
        nets.fused.double()
    preps = torch.cat([pack(pool[i].fuse(pool[i].start([n])).double(), prep_shape) for n, i in enumerate(class_ids)])
    x, teacher = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    labels = torch.randint(10, (6,))
    config = replace(train_multi_arch.PRESETS["photos"], temperature=4.0, alpha=0.9)

    def of_one(embedding, wished):
        class_logits = net_space.classifier(embedding[None])[0]
        nets = pool[class_logits.argmax().item()]
        row = net_space.decoder(embedding[None]).flatten()[: nets.num_parameters]
        logits = nets.run(row[None], x)[0]
        return plain_kd(logits, teacher, labels, 4.0, 0.9), -math.log(softmax(class_logits.tolist())[wished])

    each = []
    embeddings = [net_space.encoder(prep[None])[0] for prep in preps]
    each += [of_one(embedding, class_id) for embedding, class_id in zip(embeddings, class_ids)]
    for e_low, low in zip(embeddings, class_ids):
        for e_high, high in zip(embeddings, class_ids):
            if (low, high) == (0, 3):
                each += [of_one(e_low / 3 * 2 + e_high / 3, 1), of_one(e_low / 3 + e_high / 3 * 2, 2)]
    kd, class_id, predicted_ids, wished = train_multi_arch.step_losses(
        config, net_space, pool, preps, class_ids, x, labels, teacher
    )
    assert len(predicted_ids) == len(wished) == len(each)
    assert (kd.item(), class_id.item()) == pytest.approx([sum(values) for values in zip(*each)])
