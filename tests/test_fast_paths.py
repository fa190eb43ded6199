"""Whole steps of the scripts that train, and instances in every form, against benchmarks/plain.py, with gradients."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import plain
from models.instances import TargetNet, TargetNets, run_instances
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES, architectures_by_class_id, get_architecture, siren
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from tests.conftest import PAPER, instances_in_float64
from tests.test_prep_autoencoder import TOLERANCE, assert_same, assert_same_gradients
from training import ensembles
from training.constants import TokenViews
from training.ensembles import Ensemble, squared_errors
from training.losses import (
    boundary_pairs,
    class_id_losses,
    distillation_losses,
    interpolate_boundaries,
    sdf_losses,
    teacher_losses,
)
from training.runtime import mixed_precision
from training.views import draw_windows

PHOTOS, CIFAR = ((1, 8, 8), 10), ((3, 32, 32), 10)
M, B = 3, 6


@pytest.mark.parametrize("form", ["channels", "alone"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "on"),
    [*((name, PHOTOS) for name in PAPER if name != "resnet56")]
    + [*((name, CIFAR) for name in PAPER[:3])]
    + [pytest.param("resnet56", PHOTOS, marks=pytest.mark.slow)],
)
def test_predicted_instances(name, on, dtype, form):
    net, state = instances_in_float64(name, *on, m=M)
    rows = net.fuse(state).to(dtype).requires_grad_()
    images, weights = torch.randn(B, *on[0], dtype=dtype), torch.randn(M, B, on[1], dtype=dtype)
    ours = run_instances(net.fused, net.layout.unflatten(rows), images, False, form)
    reference = torch.stack([plain.run_net(name, plain.state_of(net.layout, row), images) for row in rows])
    assert_same(ours, reference, "logits")
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), {"rows": rows})


@pytest.mark.parametrize(
    "name", [*(name for name in PAPER if name != "resnet56"), pytest.param("resnet56", marks=pytest.mark.slow)]
)
def test_instances_in_training(name, monkeypatch):
    """Three steps, batch norm and its running statistics included, in float64, in parts of two and one instances."""
    net, state = instances_in_float64(name, *PHOTOS, m=M)
    at_once = 2 * B * net.trained_layout.shapes[0][0] * 64
    monkeypatch.setattr(ensembles, "IMAGE_NUMBERS", at_once // torch.get_num_threads())
    states = [{key: value[i] for key, value in state.items()} for i in range(M)]
    ensemble = Ensemble(net, state, partial(torch.optim.Adam, lr=1e-2, fused=True))
    one_by_one = plain.OneByOne(name, net.trained_layout, states, 1e-2)
    for _ in range(3):
        images, labels = torch.randn(M, B, *PHOTOS[0], dtype=torch.float64), torch.randint(10, (M, B))
        losses = ensemble.step(images, labels)
        assert_same(losses, torch.tensor(one_by_one.step(images, labels, F.cross_entropy)).to(losses), "losses")
    for key, value in ensemble.state().items():
        if value.is_floating_point():
            assert_same(value, torch.stack([each[key].detach() for each in one_by_one.states]), key)


@pytest.mark.parametrize("at_once", [1, 16 * 4, 2 * 16 * B, 2**19])
def test_sirens_in_training(at_once, monkeypatch):
    """Three steps in parts of 1 point of a net, of 4 and 2 points, of two and one nets, and of all."""
    monkeypatch.setattr(ensembles, "POINT_NUMBERS", at_once // torch.get_num_threads())
    net = TargetNet(siren((3, 16, 16, 1)))
    state = {key: value.double() for key, value in net.start(range(M)).items()}
    states = [{key: value[i] for key, value in state.items()} for i in range(M)]
    ensemble = Ensemble(net, state, partial(torch.optim.Adam, lr=1e-3, fused=True), squared_errors)
    one_by_one = plain.OneByOne("siren", net.layout, states, 1e-3)
    for _ in range(3):
        points, distances = torch.rand(M, B, 3, dtype=torch.float64), torch.rand(M, B, dtype=torch.float64)
        losses = ensemble.step(points, distances)
        assert_same(losses, torch.tensor(one_by_one.step(points, distances, F.mse_loss)).to(losses), "losses")
    for key, value in ensemble.state().items():
        assert_same(value, torch.stack([each[key].detach() for each in one_by_one.states]), key)


def small_model(prep_shape, start, num_class_ids=None):
    """Return an autoencoder that predicts instances near a row, so that gradients are of ordinary size."""
    sizes = Sizes(prep_shape, emb_size=256, grid=16, row_length=64, row_channels=32)
    model = PrepAutoencoder(sizes, num_class_ids).to(start.dtype)
    model.decoder.scalelayer.start_at(plain.pack(start[None], prep_shape)[0, 0], 0.1)
    return model


@pytest.mark.parametrize("prep_shape", [(8, 640), (32, 160)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_one_architecture(prep_shape, dtype):
    net, state = instances_in_float64("resnet8", *PHOTOS, m=M)
    rows, images = net.fuse(state).to(dtype), torch.randn(B, *PHOTOS[0], dtype=dtype)
    model = small_model(prep_shape, rows[0])
    with torch.no_grad():
        target = net.run(rows, images)
    loss = distillation_losses(net.run(model(rows), images), target, 4.0).mean()
    reference = plain.single_loss(model, net, rows, images, 4.0)
    assert_same(loss, reference, "loss")
    assert_same_gradients(loss, reference, dict(model.named_parameters()))


@pytest.mark.parametrize("class_ids", [[0, 3], [3, 0, 0], [1, 2]], ids=["pair", "two pairs", "no pair"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_several_architectures(class_ids, dtype):
    nets = TargetNets.on_images(architectures_by_class_id(), *PHOTOS)
    rows = torch.zeros(len(class_ids), nets[3].num_parameters, dtype=torch.float64)
    for row, class_id in zip(rows, class_ids):
        own = nets[class_id].fuse(instances_in_float64(nets.names[class_id], *PHOTOS, m=1)[1])[0]
        row[: len(own)] = own
    teacher = TargetNet(ARCHITECTURES["resnet56"], *PHOTOS)
    teacher_row = teacher.fuse(instances_in_float64("resnet56", *PHOTOS, m=1)[1]).to(dtype)
    images, labels = torch.randn(B, *PHOTOS[0], dtype=dtype), torch.randint(10, (B,))
    rows = rows.to(dtype)
    model = small_model((8, 3696), rows[0], len(nets))

    embeddings = model.encode(rows)
    between, between_ids = interpolate_boundaries(embeddings, boundary_pairs(class_ids, len(nets)), len(nets))
    embeddings, desired = torch.cat([embeddings, between]), class_ids + between_ids
    with torch.no_grad():
        teacher_logits = teacher.run(teacher_row, images)[0]
    predicted = nets.run(model.decode(embeddings), desired, images)
    loss = teacher_losses(predicted, teacher_logits, labels, 4.0, 0.9).sum()
    loss = loss + class_id_losses(model.classifier(embeddings), desired).sum()
    # The plain path in float32 is itself 2e-4 from its result in float64, so that float64 is the reference for both.
    exact, teacher_row, images = deepcopy(model).double(), teacher_row[0].double(), images.double()
    reference = plain.multi_loss(
        exact, nets, (teacher, teacher_row), rows.double(), class_ids, images, labels, 4.0, 0.9
    )
    assert_same(loss, reference.to(dtype), "loss")
    gradients = (torch.autograd.grad(each, list(of.parameters())) for each, of in ((loss, model), (reference, exact)))
    for (name, _), ours, theirs in zip(model.named_parameters(), *gradients):
        assert_same(ours, theirs.to(dtype), name)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_sirens(dtype):
    net = TargetNet(siren((3, 32, 32, 1)))
    rows = net.fuse(net.start(range(M))).to(dtype)
    points = torch.rand(M, B, 3, dtype=dtype) * 2 - 1
    model = small_model((8, 160), rows[0])
    with torch.no_grad():
        target = net.run(rows, points)
    loss = sdf_losses(net.run(model(rows), points), target).mean()
    reference = plain.sdf_loss(model, net, rows, points)
    assert_same(loss, reference, "loss")
    assert_same_gradients(loss, reference, dict(model.named_parameters()))


def test_in_bfloat16_preps_and_loss_stay_float32_and_near_those_of_float32():
    """It has 8 bits of mantissa, through a dozen layers."""
    net, state = instances_in_float64("resnet8", *PHOTOS, m=M)
    rows, images = net.fuse(state).float(), torch.randn(B, *PHOTOS[0])
    net.fused.float()
    model = small_model((8, 640), rows[0])
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        with mixed_precision(rows.device, precision):
            with torch.no_grad():
                target = net.run(rows, images)
            predicted_rows = model(rows)
            loss = distillation_losses(net.run(predicted_rows, images), target, 4.0).mean()
        assert predicted_rows.dtype == loss.dtype == torch.float32
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
        assert gradients[-1].dtype == torch.float32
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.05)
    assert F.cosine_similarity(*gradients, dim=0) > 0.95


def test_float32_is_the_default_on_the_cpu():
    with mixed_precision(torch.device("cpu"), None):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision(torch.device("cpu"), "bfloat16"):
        assert torch.is_autocast_enabled("cpu")


def test_sanes_windows_are_those_made_net_by_net():
    """Canonical ones number for number; permuted ones have the same function, so the same statistics of every layer."""
    net = TargetNet(get_architecture("resnet8"), (1, 8, 8), 10)
    sizes = TokenSizes(37, 4, 8, 1, 2, 200, 8, (256, 16, 32))
    model = TokenAutoencoder(sizes, net.layout, net.hidden_channels())
    rows = net.fuse(net.start(range(3)))
    rows = model.fit(rows, rows[0])
    views = TokenViews("one-permuted", token_noise=0.0)
    shown, target, mask, positions = plain.sane_views(model, rows, [0, 0, 0], views, np.random.default_rng(0))
    ours = draw_windows(model, rows, views, 0, 0)
    assert torch.equal(mask, ours.mask) and torch.equal(positions, ours.positions)
    torch.testing.assert_close(target[:3], ours.target[:3])
    assert torch.equal(shown, target)
    for tokens in (target[3:], ours.target[3:]):
        for layer in range(len(model.tokens.layers)):
            chosen = model.positions[:, 1] == layer
            values, expected = (each[:, chosen].flatten(1).sort(1)[0] for each in (tokens, ours.target[:3]))
            torch.testing.assert_close(values, expected)
