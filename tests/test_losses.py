"""Losses against their equations in the paper, one image and one class at a time; objectives; the teacher."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import train_multi_arch
from data.images import Batches
from data.nets import NetsDataset
from data.photos import load_photos
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.rows import Layout, reordering
from models.target_nets import ARCHITECTURES, architectures_by_class_id
from tests.conftest import instances_in_float64
from training.graphs import Graphs
from training.losses import (
    OBJECTIVES,
    Given,
    Teacher,
    boundary_pairs,
    class_id_losses,
    distillation_losses,
    interpolate_boundaries,
    interpolation_factors,
    parameter_scales,
    sdf_losses,
    teacher_losses,
    weight_losses,
)
from training.runtime import mixed_precision

PHOTOS = ((1, 8, 8), 10)


def plain_distillation(predicted, target, temperature):
    """Compute eq. 1 for one instance, one image and one class at a time."""
    total = 0.0
    for p, t in zip(predicted.tolist(), target.tolist()):
        for p_prob, t_prob in zip(softmax(p, temperature), softmax(t, temperature)):
            total += t_prob * (math.log(t_prob) - math.log(p_prob))
    return total * temperature**2 / len(predicted)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_losses_are_eq_1(temperature):
    predicted, target = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64)
    losses = distillation_losses(predicted, target, temperature)
    reference = [plain_distillation(*pair, temperature) for pair in zip(predicted, target)]
    assert losses.tolist() == pytest.approx(reference)
    of_one = distillation_losses(predicted, target[:1], temperature)
    reference = [plain_distillation(one, target[0], temperature) for one in predicted]
    assert of_one.tolist() == pytest.approx(reference)


def test_the_target_is_the_first_argument_of_the_divergence():
    a, b = torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]])
    assert distillation_losses(a, b, 1.0) != distillation_losses(b, a, 1.0)


def test_distillation_is_zero_at_the_target_and_for_shifted_logits_and_positive_elsewhere():
    target = torch.randn(2, 3, 5, dtype=torch.float64)
    assert (distillation_losses(target + 7, target, 4.0).abs() < 1e-12).all()
    assert (distillation_losses(target + torch.randn_like(target), target, 4.0) > 0).all()


def test_half_precision_logits_are_compared_in_float32():
    predicted, target = torch.randn(2, 2, 3, 5).bfloat16()
    losses = distillation_losses(predicted, target, 4.0)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, distillation_losses(predicted.double(), target.double(), 4.0).float())


def test_sdf_losses_are_eq_2():
    predicted, target = torch.randn(2, 3, 8, dtype=torch.float64)
    reference = [sum((x - y) ** 2 for x, y in zip(*pair)) / 8 for pair in zip(predicted.tolist(), target.tolist())]
    assert sdf_losses(predicted, target).tolist() == pytest.approx(reference)


def plain_weight_losses(parts, rows, predicted, target):
    """Compute squared errors in units of the standard deviation of each part of a row, one number at a time."""
    total = [0.0] * len(target)
    for part in parts:
        values = [row[i] for row in rows.tolist() for i in part]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for m in range(len(target)):
            for i in part:
                total[m] += (predicted[m, i].item() - target[m, i].item()) ** 2 / (variance or 1.0)
    return [each / sum(map(len, parts)) for each in total]


def test_weight_losses_are_squared_errors_in_units_of_each_tensors_standard_deviation():
    layout = Layout(("weight", "bias", "constant"), ((2, 3), (2,), (1,)))
    rows = torch.randn(5, 9, dtype=torch.float64) * torch.tensor([3.0] * 6 + [0.1] * 2 + [0.0])
    predicted, target = torch.randn(2, 4, 9, dtype=torch.float64)
    scales = parameter_scales(layout, rows)
    reference = plain_weight_losses((range(0, 6), range(6, 8), range(8, 9)), rows, predicted, target)
    assert weight_losses(predicted, target, scales).tolist() == pytest.approx(reference)
    assert weight_losses(target, target, scales).tolist() == [0.0] * 4
    wider = torch.cat([predicted, torch.randn(4, 3)], 1)  # predicted rows are as wide as a PRep
    assert weight_losses(wider, target, scales).tolist() == pytest.approx(reference)


@pytest.mark.parametrize("name", ["lenetlike", "resnet8"])
def test_another_order_of_hidden_channels_leaves_weight_losses_as_they_are(name):
    net = TargetNet(ARCHITECTURES[name], *PHOTOS)
    rows = net.fuse(net.start([0, 1, 2, 3])).double()
    index = reordering(net.layout, net.hidden_channels(), np.random.default_rng(1))
    assert not torch.equal(index, torch.arange(len(index)))
    losses, reordered = (
        weight_losses(each[:2], each[2:], parameter_scales(net.layout, each)) for each in (rows, rows[:, index])
    )
    torch.testing.assert_close(losses, reordered)


def test_objectives_are_behaviour_weights_and_their_sum():
    """Each against one instance, image and class at a time, from rows as wide as a PRep."""
    net, state = instances_in_float64("lenetlike", *PHOTOS, m=4)
    target = net.fuse(state)
    predicted = torch.cat([target + 0.1 * torch.randn_like(target), torch.randn(4, 6)], 1).requires_grad_()
    images, scales = torch.randn(3, *PHOTOS[0], dtype=torch.float64), parameter_scales(net.layout, target)
    given = Given(net, images, 2.0, scales)
    pairs = zip(predicted, target)
    behaviour = [plain_distillation(*(net.module(row)(images) for row in pair), 2.0) for pair in pairs]
    ends = np.cumsum([0, *net.layout.sizes])
    parts = [range(start, end) for start, end in zip(ends, ends[1:])]
    weights = plain_weight_losses(parts, target, predicted, target)
    both = [one + other for one, other in zip(behaviour, weights)]
    for name, reference in (("behaviour", behaviour), ("weights", weights), ("both", both)):
        losses = OBJECTIVES[name](predicted, target, given)
        assert losses.tolist() == pytest.approx(reference), name
        (gradient,) = torch.autograd.grad(losses[0], predicted)
        assert (gradient[0] != 0).any() and (gradient[1:] == 0).all()
        assert (gradient[:, net.num_parameters :] == 0).all()
    assert set(OBJECTIVES) == {"behaviour", "weights", "both"}


def softmax(logits, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def plain_kd(predicted, teacher, labels, temperature, alpha):
    """Compute eq. 3-5 for one instance, one image and one class at a time."""
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
    reference = [-math.log(softmax(one)[desired]) for one, desired in zip(logits.tolist(), [3, 0, 1])]
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
            desired = (1 - gamma) * 0 + gamma * (num_class_ids - 1)
            reference.append((desired, (1 - gamma) * embeddings[low] + gamma * embeddings[high]))
    assert between.shape == (num_pairs * (num_class_ids - 2), 5)
    assert class_ids == pytest.approx([desired for desired, _ in reference])
    for ours, (_, plain) in zip(between, reference):
        torch.testing.assert_close(ours, plain)
    assert interpolation_factors(4) == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("class_ids", [[0, 3, 0, 2, 3], [1, 3, 2], [0]], ids=["four pairs", "no pair", "one alone"])
def test_the_losses_of_a_step_are_the_sums_of_eq_5_6_and_11_one_instance_at_a_time(class_ids):
    nets = TargetNets.on_images(architectures_by_class_id(), *PHOTOS)
    sizes = Sizes((8, 3688), emb_size=64, grid=8, row_length=16, row_channels=4)
    model = PrepAutoencoder(sizes, len(nets)).double()
    model.decoder.scalelayer.start_at(0.1 * torch.randn(8, 3688), 0.01)
    rows = torch.zeros(len(class_ids), 29_474, dtype=torch.float64)
    for n, class_id in enumerate(class_ids):
        row = nets[class_id].fuse(nets[class_id].start([n]))[0]
        rows[n, : len(row)] = row
    x, teacher = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    labels = torch.randint(10, (6,))
    config = replace(train_multi_arch.PRESETS["photos"], temperature=4.0, alpha=0.9)

    def of_one(embedding, desired):
        class_logits = model.classifier(embedding[None])[0]
        predicted_id = class_logits.argmax().item()
        logits = nets[predicted_id].module(model.decode(embedding[None])[0].detach()).double()(x)
        right = predicted_id == desired
        return plain_kd(logits, teacher, labels, 4.0, 0.9), -math.log(softmax(class_logits.tolist())[desired]), right

    embeddings = [model.encode(row[None])[0] for row in rows]
    each = [of_one(embedding, class_id) for embedding, class_id in zip(embeddings, class_ids)]
    for e_low, low in zip(embeddings, class_ids):
        for e_high, high in zip(embeddings, class_ids):
            if (low, high) == (0, 3):
                each += [of_one(e_low / 3 * 2 + e_high / 3, 1), of_one(e_low / 3 + e_high / 3 * 2, 2)]
    kd, class_id, right = (sum(values) for values in zip(*each))
    for net in nets:
        net.fused.double()
    graphs = Graphs(model, nets, mixed_precision(torch.device("cpu"), None))
    loss, terms = train_multi_arch.step_losses(config, graphs, rows, tuple(class_ids), x, labels, teacher)
    assert loss.item() == pytest.approx(kd + class_id)
    assert terms["kd_loss"].item() == pytest.approx(kd) and terms["class_id_loss"].item() == pytest.approx(class_id)
    assert terms["right_class_ids"].item() == pytest.approx(right / len(each))


@pytest.mark.parametrize("padding", [0, 2])
def test_the_teachers_logits_of_all_images_are_those_of_every_step(padding):
    images = load_photos().train
    images = replace(images, pixels=images.pixels[:1200], labels=images.labels[:1200], padding=padding)
    net = TargetNet(ARCHITECTURES["resnet8"], *PHOTOS)
    row = net.fuse(instances_in_float64("resnet8", *PHOTOS, m=1)[1]).float()
    dataset = NetsDataset(TargetNets([net]), row, (0,), ({},), ())
    teacher = Teacher(dataset, images, mixed_precision(torch.device("cpu"), None))
    assert (teacher.seen is None) == (padding > 0)
    batches = Batches(images, [(0,)], 100)
    for step in range(2 * batches.per_pass):
        x, _ = batches.shared(step)
        torch.testing.assert_close(teacher.logits(batches, step, x), net.run(row, x)[0], rtol=1e-4, atol=1e-5)
