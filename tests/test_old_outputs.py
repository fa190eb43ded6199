"""On one set of weights, the project computes the same as before its modules were reordered (old_outputs/write.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.instances import TargetNet, TargetNets, run_instances
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES, architectures_by_class_id, siren
from tests.conftest import PAPER
from tests.old_outputs import recipe
from training.ensembles import Ensemble, squared_errors
from training.losses import (
    class_id_losses,
    distillation_losses,
    interpolate_boundaries,
    parameter_scales,
    sdf_losses,
    teacher_losses,
    weight_losses,
)

OLD = load_file(Path(__file__).parent / "old_outputs" / "outputs.safetensors")
M, B = recipe.M, recipe.B


def assert_as_before(name, summary):
    """To 1e-6 of the output's largest number."""
    assert summary.shape == OLD[name].shape, name
    error = (summary - OLD[name]).abs().max() / OLD[name].abs().max()
    assert error <= 1e-6, f"{name}: relative error {error:.1e}"


def same(name, values, first=24):
    assert_as_before(name, recipe.summary(values, first))


def same_gradients(title, loss, module):
    for name, values in recipe.gradients(loss, module).items():
        assert_as_before(f"{title} {name}", values)


def in_float64(name, side):
    net = TargetNet(ARCHITECTURES[name], *recipe.SIDES[side])
    net.trained.double()
    net.fused.double()
    return net, recipe.state(recipe.shapes_of(net.trained), M, seed=side)


@pytest.mark.parametrize("side", recipe.SIDES)
@pytest.mark.parametrize("name", PAPER)
def test_architectures(name, side):
    (image_shape, classes), (net, state) = recipe.SIDES[side], in_float64(name, side)
    images, rows = recipe.normal(B, *image_shape, seed=side + 1), net.fuse(state)
    with torch.no_grad():
        same(f"{name} {side} rows", rows)
        same(f"{name} {side} logits", net.run(rows, images), M * B * classes)
        before_fusion = run_instances(net.trained.eval(), state, images, False, "alone")
        same(f"{name} {side} logits before fusion", before_fusion, B * classes)
        if side == 8:
            logits = net.run_in_training(state, recipe.normal(M, B, *image_shape, seed=4))
            same(f"{name} logits in training", logits, M * B * classes)
            running = torch.cat([state[key].flatten() for key in sorted(state) if "running" in key] or [rows[0]])
            same(f"{name} running statistics", running, 64)


@pytest.mark.parametrize("widths", [recipe.SMALL_SIREN, recipe.PAPER_SIREN])
def test_sirens(widths):
    net = TargetNet(siren(widths))
    net.fused.double()
    rows = net.layout.flatten(recipe.state(recipe.shapes_of(net.fused), M, seed=7, gain=0.1))
    same(f"siren {widths} rows", rows)
    same(f"siren {widths} shared points", net.run(rows, recipe.normal(20, 3, seed=8)), 40)
    same(f"siren {widths} own points", net.run(rows, recipe.normal(M, 20, 3, seed=9)), 40)


@pytest.mark.parametrize(("title", "sizes"), [("narrow", recipe.NARROW), ("wide", recipe.WIDE)])
def test_autoencoder(title, sizes):
    model = recipe.fill(PrepAutoencoder(Sizes(**sizes), 4), seed=10)
    rows = 0.1 * recipe.normal(M, 5058, seed=11)
    embeddings = model.encode(rows)
    same(f"{title} preps", pack(rows, sizes["prep_shape"]))
    same(f"{title} embeddings", embeddings, 512)
    weights = recipe.normal(*embeddings.shape, seed=12)
    same_gradients(f"{title} gradient", (embeddings * weights).sum(), model.encoder)
    given = recipe.normal(M, sizes["emb_size"], seed=13)
    same(f"{title} decoded", model.decode(given), 2048)
    same(f"{title} class logits", model.classifier(given), 8)
    same(f"{title} predicted", model(rows), 64)


def test_a_step_of_one_architecture():
    net, state = in_float64("resnet8", 8)
    rows, images = net.fuse(state), recipe.normal(B, 1, 8, 8, seed=15)
    model = recipe.fill(PrepAutoencoder(Sizes(**recipe.NARROW)), seed=14)
    loss = distillation_losses(net.run(model(rows), images), net.run(rows, images), 4.0).mean()
    same("step loss", loss)
    same_gradients("step gradient", loss, model)


def test_several_architectures():
    nets = TargetNets.on_images(architectures_by_class_id(), *recipe.SIDES[8])
    class_ids = [3, 0, 2, 0, 1]
    rows = torch.zeros(5, 32 * 936, dtype=torch.float64)
    for i, class_id in enumerate(class_ids):
        nets[class_id].fused.double()
        row = nets[class_id].fuse(in_float64(nets.names[class_id], 8)[1])[i % 2]
        rows[i, : len(row)] = row
    same("mixed logits", nets.run(rows, class_ids, recipe.normal(B, 1, 8, 8, seed=15)), 150)


def test_losses():
    logits, others = 3 * recipe.normal(2, 4, 5, 6, seed=16)
    labels = torch.tensor([0, 5, 2, 2, 1])
    for temperature in (4.0, 2.0):
        same(f"distillation {temperature}", distillation_losses(logits, others, temperature).mean())
        for alpha in (0.0, 0.9, 1.0):
            losses = teacher_losses(logits, others[0], labels, temperature, alpha)
            same(f"teacher {temperature} {alpha}", losses)
    same("class ids", class_id_losses(logits[:, 0, :4], [3, 0, 1, 1]))
    same("sdf", sdf_losses(logits[:, 0], others[:, 0]).mean())
    same("between", interpolate_boundaries(logits[:, 0], [(0, 3), (1, 2)], 4)[0])
    net, state = in_float64("resnet8", 8)
    rows = net.fuse(state)
    scales = parameter_scales(net.layout, rows)
    same("scales", scales)
    same("weights", weight_losses(rows, rows.flip(0), scales))


@pytest.mark.parametrize(
    ("title", "make_optimizer"),
    [
        ("adam", lambda p: torch.optim.Adam(p, 1e-2)),
        ("sgd", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-3)),
    ],
)
def test_three_steps_of_instances(title, make_optimizer):
    net, state = in_float64("resnet8", 8)
    ensemble = Ensemble(net, state, make_optimizer)
    for step in range(3):
        labels = torch.from_numpy(np.random.default_rng(step).integers(0, 10, (M, B)))
        losses = ensemble.step(recipe.normal(M, B, 1, 8, 8, seed=20 + step), labels)
    same(f"{title} losses", losses)
    same(f"{title} rows", ensemble.rows, 64)


def test_three_steps_of_sirens():
    net = TargetNet(siren(recipe.SMALL_SIREN))
    state = recipe.state(recipe.shapes_of(net.trained), M, seed=7, gain=0.1)
    ensemble = Ensemble(net, state, lambda p: torch.optim.Adam(p, 1e-3), squared_errors)
    for step in range(3):
        losses = ensemble.step(recipe.normal(M, 20, 3, seed=30 + step), recipe.normal(M, 20, seed=40 + step))
    same("siren losses", losses)
    same("siren rows", ensemble.rows, 64)
