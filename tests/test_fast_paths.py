"""Every fast path against benchmarks/plain.py: outputs and every gradient, in float64 and float32."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import plain
from data.images import Epoch
from models.architecture_pool import ArchitecturePool
from models.decoder import Decoder
from models.encoder import WINDOWS_FROM_WIDTH, Encoder
from models.instances import ArchitectureOnImages, run_instances
from models.prep import pack, unpack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES
from models.siren import SirenNets
from tests.conftest import instances_in_float64
from tests.miniature import few_photos
from training.ensembles import Ensemble, SirenEnsemble
from training.losses import (
    boundary_pairs,
    class_id_losses,
    distillation_loss,
    interpolate_boundaries,
    sdf_loss,
    teacher_losses,
)
from training.runtime import mixed_precision
from training.teacher import Teacher

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
PHOTOS, CIFAR = ((1, 8, 8), 10), ((3, 32, 32), 10)
M, B = 3, 6


def assert_same(ours, reference, what):
    """Within the tolerance of the type, relative to the largest entry of the reference."""
    assert ours.dtype == reference.dtype and ours.shape == reference.shape, what
    error = (ours - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[reference.dtype], f"{what}: relative error {error:.1e}"


def assert_same_gradients(ours, reference, named):
    """Of scalars `ours` and `reference`, with respect to tensors by name."""
    wanted = list(named.values())
    for name, mine, plains in zip(named, torch.autograd.grad(ours, wanted), torch.autograd.grad(reference, wanted)):
        assert_same(mine, plains, name)


@pytest.mark.parametrize("form", ["channels", "batch", "alone"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "on"), [*((name, PHOTOS) for name in ARCHITECTURES), *((name, CIFAR) for name in list(ARCHITECTURES)[:3])]
)
def test_predicted_instances(name, on, dtype, form):
    nets, state = instances_in_float64(name, *on, m=M)
    rows = nets.fuse(state).to(dtype).requires_grad_()
    images, weights = torch.randn(B, *on[0], dtype=dtype), torch.randn(M, B, on[1], dtype=dtype)
    ours = run_instances(nets.fused, nets.layout.unflatten(rows), images, form)
    reference = torch.stack([plain.run_net(name, plain.state_of(nets.layout, row), images) for row in rows])
    assert_same(ours, reference, "logits")
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), {"rows": rows})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_instances_in_training(name):
    """Three steps, batch norm and its running statistics included, in float64."""
    nets, state = instances_in_float64(name, *PHOTOS, m=M)
    states = [{key: value[i] for key, value in state.items()} for i in range(M)]
    ensemble = Ensemble(nets, state, lambda rows: torch.optim.Adam(rows, 1e-2, fused=True))
    one_by_one = plain.OneByOne(lambda s, x: plain.run_net(name, s, x), nets.trained_layout, states, 1e-2)
    for _ in range(3):
        images, labels = torch.randn(M, B, *PHOTOS[0], dtype=torch.float64), torch.randint(10, (M, B))
        losses = ensemble.step(images, labels)
        assert_same(losses, torch.tensor(one_by_one.step(images, labels, F.cross_entropy)).to(losses), "losses")
    for key, value in ensemble.state().items():
        if value.is_floating_point():
            assert_same(value, torch.stack([each[key].detach() for each in one_by_one.states]), key)


def test_sirens_in_training():
    nets = SirenNets((3, 16, 16, 1))
    state = {key: value.double() for key, value in nets.start(list(range(M))).items()}
    states = [{key: value[i] for key, value in state.items()} for i in range(M)]
    ensemble = SirenEnsemble(nets, state, lambda rows: torch.optim.Adam(rows, 1e-3, fused=True))
    one_by_one = plain.OneByOne(plain.run_siren, nets.layout, states, 1e-3)
    for _ in range(3):
        points, distances = torch.rand(M, B, 3, dtype=torch.float64), torch.rand(M, B, dtype=torch.float64)
        losses = ensemble.step(points, distances)
        assert_same(losses, torch.tensor(one_by_one.step(points, distances, F.mse_loss)).to(losses), "losses")
    for key, value in ensemble.state().items():
        assert_same(value, torch.stack([each[key].detach() for each in one_by_one.states]), key)


def random_preps(kind, width, dtype):
    preps = torch.randn(M, 1, 8, width, dtype=dtype)
    if kind == "all-zero rows":
        preps[0, :, 2:], preps[1, :, 5:] = 0, 0
        preps[2] = 0
    if kind == "ties":  # every maximum is reached at many positions, by windows that are alike
        preps = preps[..., :8].repeat(1, 1, 1, width // 8)
    return preps


@pytest.mark.parametrize("kind", ["no zeros", "all-zero rows", "ties"])
@pytest.mark.parametrize("width", [64, WINDOWS_FROM_WIDTH, WINDOWS_FROM_WIDTH + 8])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_encoder(kind, width, dtype):
    encoder, preps = Encoder(96).to(dtype), random_preps(kind, width, dtype)
    weights, named = torch.randn(M, 96, dtype=dtype), dict(encoder.named_parameters())
    ours, reference = encoder(preps), plain.encode(encoder, preps)
    assert_same(ours, reference, "embeddings")
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), named)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradient_of_the_encoders_input(dtype):
    encoder, preps = Encoder(96).to(dtype), random_preps("no zeros", WINDOWS_FROM_WIDTH, dtype).requires_grad_()
    weights = torch.randn(M, 96, dtype=dtype)
    ours, reference = ((each * weights).sum() for each in (encoder(preps), plain.encode(encoder, preps)))
    assert_same_gradients(ours, reference, {"preps": preps})


@pytest.mark.parametrize("emb_size", [256, 512])  # 1 and 2 channels on the grid
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_decoder(emb_size, dtype):
    decoder = Decoder(emb_size, (8, 640), grid=16, row_length=64, row_channels=32).to(dtype)
    embeddings = torch.randn(M, emb_size, dtype=dtype, requires_grad=True)
    weights = torch.randn(M, 1, 8, 640, dtype=dtype)
    ours, reference = decoder(embeddings), plain.decode(decoder, embeddings)
    assert_same(ours, reference, "PReps")
    named = {"embeddings": embeddings, **dict(decoder.named_parameters())}
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), named)


def small_net_space(prep_shape, dtype, num_class_ids=None):
    return PrepAutoencoder(Sizes(prep_shape, emb_size=256, grid=16, row_length=64, row_channels=32), num_class_ids).to(
        dtype
    )


def started_at(net_space, prep):
    """Predicted instances work, so that gradients are of ordinary size."""
    net_space.decoder.scalelayer.start_at(prep, 0.1)
    return net_space


@pytest.mark.parametrize("prep_shape", [(8, 640), (32, 160)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_one_architecture(prep_shape, dtype):
    nets, state = instances_in_float64("resnet8", *PHOTOS, m=M)
    rows, images = nets.fuse(state).to(dtype), torch.randn(B, *PHOTOS[0], dtype=dtype)
    preps = pack(rows, prep_shape)
    net_space = started_at(small_net_space(prep_shape, dtype), preps[0, 0])
    with torch.no_grad():
        target = nets.run(rows, images)
    loss = distillation_loss(nets.run(unpack(net_space(preps), nets.num_parameters), images), target, 4.0)
    reference = plain.single_loss(net_space, nets, rows, preps, images, 4.0)
    assert_same(loss, reference, "loss")
    assert_same_gradients(loss, reference, dict(net_space.named_parameters()))


@pytest.mark.parametrize("class_ids", [[0, 3], [3, 0, 0], [1, 2]], ids=["pair", "two pairs", "no pair"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_several_architectures(class_ids, dtype):
    prep_shape = (8, 3696)
    pool = ArchitecturePool(*PHOTOS, prep_shape)
    states = [instances_in_float64(nets.architecture.name, *PHOTOS, m=1)[1] for nets in pool.nets]
    preps = torch.cat([pack(pool[i].fuse(states[i]), prep_shape) for i in class_ids]).to(dtype)
    teacher = ArchitectureOnImages(ARCHITECTURES["resnet56"], *PHOTOS)
    teacher_row = teacher.fuse(instances_in_float64("resnet56", *PHOTOS, m=1)[1]).to(dtype)
    images, labels = torch.randn(B, *PHOTOS[0], dtype=dtype), torch.randint(10, (B,))
    net_space = started_at(small_net_space(prep_shape, dtype, len(pool)), preps[0, 0])

    embeddings = net_space.encoder(preps)
    between, between_ids = interpolate_boundaries(embeddings, boundary_pairs(class_ids, len(pool)), len(pool))
    embeddings, wished = torch.cat([embeddings, between]), class_ids + between_ids
    with torch.no_grad():
        teacher_logits = teacher.run(teacher_row, images)[0]
    predicted = pool.run(net_space.decoder(embeddings), wished, images)
    loss = teacher_losses(predicted, teacher_logits, labels, 4.0, 0.9).sum()
    loss = loss + class_id_losses(net_space.classifier(embeddings), wished).sum()
    # The plain path in float32 is itself 2e-4 from what it gives in float64, so that float64 is the reference for both.
    exact, teacher_row, images = deepcopy(net_space).double(), teacher_row[0].double(), images.double()
    reference = plain.multi_loss(
        exact, pool, (teacher, teacher_row), preps.double(), class_ids, images, labels, 4.0, 0.9
    )
    assert_same(loss, reference.to(dtype), "loss")
    gradients = (
        torch.autograd.grad(each, list(of.parameters())) for each, of in ((loss, net_space), (reference, exact))
    )
    for (name, _), ours, plains in zip(net_space.named_parameters(), *gradients):
        assert_same(ours, plains.to(dtype), name)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_step_of_sirens(dtype):
    nets, prep_shape = SirenNets((3, 32, 32, 1)), (8, 160)
    rows = nets.layout.flatten(nets.start(list(range(M)))).to(dtype)
    preps, points = pack(rows, prep_shape), torch.rand(M, B, 3, dtype=dtype) * 2 - 1
    net_space = started_at(small_net_space(prep_shape, dtype), preps[0, 0])
    with torch.no_grad():
        target = nets.run(rows, points)
    loss = sdf_loss(nets.run(unpack(net_space(preps), nets.num_parameters), points), target)
    reference = plain.sdf_loss(net_space, nets, rows, preps, points)
    assert_same(loss, reference, "loss")
    assert_same_gradients(loss, reference, dict(net_space.named_parameters()))


def test_bfloat16_keeps_preps_and_loss_in_float32():
    """And is close to float32: 8 bits of mantissa, through a dozen layers."""
    nets, state = instances_in_float64("resnet8", *PHOTOS, m=M)
    rows, images = nets.fuse(state).float(), torch.randn(B, *PHOTOS[0])
    nets.fused.float()
    preps = pack(rows, (8, 640))
    net_space = started_at(small_net_space((8, 640), torch.float32), preps[0, 0])
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        with mixed_precision(rows.device, precision):
            with torch.no_grad():
                target = nets.run(rows, images)
            predicted_preps = net_space(preps)
            predicted = nets.run(unpack(predicted_preps, nets.num_parameters), images)
            loss = distillation_loss(predicted, target, 4.0)
        assert predicted_preps.dtype == loss.dtype == torch.float32
        losses.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net_space.parameters()))]))
        assert gradients[-1].dtype == torch.float32
    assert losses[1] != losses[0] and losses[1] == pytest.approx(losses[0], rel=0.05)
    assert F.cosine_similarity(*gradients, dim=0) > 0.95


def test_float32_is_the_default_on_the_cpu():
    with mixed_precision(torch.device("cpu"), None):
        assert not torch.is_autocast_enabled("cpu")
    with mixed_precision(torch.device("cpu"), "bfloat16"):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("padding", [0, 2])
def test_the_teacher_says_the_same_before_as_in_every_step(padding):
    images = replace(few_photos().train, padding=padding)
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], *PHOTOS)
    row = nets.fuse(instances_in_float64("resnet8", *PHOTOS, m=1)[1]).float()
    teacher = Teacher(nets, row, images, mixed_precision(torch.device("cpu"), None))
    draws = Epoch(images, [(0,), (1,)], 100)
    for i in range(len(draws)):
        x = draws.batch(i)[0][0]
        torch.testing.assert_close(teacher.logits(draws, i, x), nets.run(row, x)[0], rtol=1e-4, atol=1e-5)
