"""The autoencoder: the paper's shapes and counts, fast paths against benchmarks/plain.py, sizes that do not fit."""

import pytest
import torch

from benchmarks import plain
from models.errors import InputError
from models.prep import pack
from models.prep_autoencoder import (
    WINDOWS_FROM_WIDTH,
    ClassIdClassifier,
    Decoder,
    Encoder,
    PrepAutoencoder,
    Sizes,
    conv_along_height,
)

PAPER_PREPS = {"cifar10 single, SDF": (8, 10_000), "tiny-imagenet-200 single": (16, 10_000), "multi": (88, 10_000)}
SMALL = dict(emb_size=1024, prep_shape=(8, 640), grid=32, row_length=128, row_channels=64)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
M = 3


def assert_same(ours, reference, what):
    """They agree within the tolerance of the type, relative to the largest entry of the reference."""
    assert ours.dtype == reference.dtype and ours.shape == reference.shape, what
    error = (ours - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[reference.dtype], f"{what}: relative error {error:.1e}"


def assert_same_gradients(ours, reference, named):
    """Scalars have the same gradients with respect to tensors by name."""
    both = (torch.autograd.grad(each, list(named.values())) for each in (ours, reference))
    for name, mine, theirs in zip(named, *both):
        assert_same(mine, theirs, name)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shapes_through(module, x):
    shapes = []
    hooks = [
        child.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape))) for child in module.children()
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return shapes


# Sizes


def test_parameter_counts_at_the_papers_size():
    assert count(Encoder(4096)) == 6_788_352
    with torch.device("meta"):
        assert count(Decoder(4096, (8, 10_000))) == 2_875_394


@pytest.mark.parametrize("prep_shape", PAPER_PREPS.values(), ids=PAPER_PREPS)
def test_shapes_at_the_papers_sizes(prep_shape):
    height, width = prep_shape
    with torch.device("meta"):  # shapes only
        model = PrepAutoencoder(Sizes(prep_shape))
        preps = torch.empty(2, 1, height, width)
        encoder, embedding = model.encoder, torch.empty(2, 4096)
        x = encoder.conv1(preps)
        assert x.shape == (2, 128, height, width // 2)
        assert encoder.conv2(x).shape == (2, 256, height, width // 4)
        features = encoder.features_plainly(preps)
        assert features.shape == (2, height, 256)
        assert conv_along_height(features, encoder.conv3).shape == (2, height, 512)
        assert model.decoder.conv1(embedding.view(2, 1, 64, 64)).shape == (2, 256 * height, 32, 32)
        assert shapes_through(model.decoder, embedding) == [  # conv1 is computed as a matrix product
            (2, width // 8, height // 2, 1024),
            (2, 256, height // 4, width // 8),
            (2, 32, height // 4, width // 8),
            (2, 1, height, width),
        ]


@pytest.mark.parametrize("prep_shape", [(4, 8), (8, 640), (12, 104)])
def test_embeddings_have_one_size_for_any_prep(prep_shape):
    assert Encoder(64)(torch.randn(3, 1, *prep_shape)).shape == (3, 64)


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ({"emb_size": 1000}, ("1000", "32")),
        ({"emb_size": 0}, ("0", "32")),
        ({"grid": 31}, ("31", "1024")),
        ({"grid": 64}, ("64", "1024", "at most 32")),
        ({"prep_shape": (6, 640)}, ("6x640",)),
        ({"prep_shape": (8, 636)}, ("8x636",)),
        ({"row_length": 60}, ("60",)),
        ({"row_length": 8, "row_channels": 1}, ("8*1*8", "16x16", "64", "256")),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused_when_the_model_is_built(change, numbers):
    with pytest.raises(InputError) as refusal:
        PrepAutoencoder(Sizes(**{**SMALL, **change}))
    assert all(number in str(refusal.value) for number in numbers), refusal.value
    assert "\n" not in str(refusal.value)


# Encoder


def random_preps(kind, width, dtype):
    preps = torch.randn(M, 1, 8, width, dtype=dtype)
    if kind == "all-zero rows":
        preps[0, :, 2:], preps[1, :, 5:] = 0, 0
        preps[2] = 0
    if kind == "ties":  # every maximum is reached in many positions, by windows that are alike
        preps = preps[..., :8].repeat(1, 1, 1, width // 8)
    if kind == "left edge":  # there, conv2 sees its own zero padding
        preps[..., 2:] = 0
        preps[..., :2] = 5
    return preps


@pytest.mark.parametrize("kind", ["no zeros", "all-zero rows", "ties", "left edge"])
@pytest.mark.parametrize("width", [64, WINDOWS_FROM_WIDTH, WINDOWS_FROM_WIDTH + 8])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_encoder(kind, width, dtype):
    encoder, preps = Encoder(96).to(dtype), random_preps(kind, width, dtype)
    weights, named = torch.randn(M, 96, dtype=dtype), dict(encoder.named_parameters())
    ours, reference = encoder(preps), plain.encode(encoder, preps)
    assert_same(ours, reference, "embeddings")
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), named)


def test_first_conv_as_a_gpu_computes_it():
    encoder, rows = Encoder(96).double(), torch.randn(3, 64, dtype=torch.float64)
    assert_same(encoder.first_conv_of_rows(rows), encoder.conv1(rows[:, None, None]), "maps")


@pytest.mark.parametrize("kind", ["all-zero rows", "left edge"])
def test_encoder_as_it_is_compiled(kind):
    encoder, preps = Encoder(96).double(), random_preps(kind, WINDOWS_FROM_WIDTH, torch.float64)
    compiled = torch.compile(encoder.forward, backend="aot_eager", fullgraph=True)
    ours, reference = compiled(preps), plain.encode(encoder, preps)
    assert_same(ours, reference, "embeddings")
    assert_same_gradients(ours.square().sum(), reference.square().sum(), dict(encoder.named_parameters()))


def test_fast_features_at_the_left_edge_are_the_plain_ones():
    encoder, preps = Encoder(32).double(), random_preps("left edge", 32, torch.float64)
    assert_same(encoder.features_by_windows(preps), encoder.features_plainly(preps), "features")


@pytest.mark.parametrize("width", [64, WINDOWS_FROM_WIDTH])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gradient_of_the_encoders_input(width, dtype):
    encoder, preps = Encoder(96).to(dtype), random_preps("no zeros", width, dtype).requires_grad_()
    weights = torch.randn(M, 96, dtype=dtype)
    ours, reference = ((each * weights).sum() for each in (encoder(preps), plain.encode(encoder, preps)))
    assert_same_gradients(ours, reference, {"preps": preps})


def test_a_scaled_encoder_has_no_biases_and_does_not_depend_on_the_preps_unit():
    encoder = Encoder(64)
    before = encoder.conv1[0].weight.detach().clone()
    encoder.start_at(0.01)
    torch.testing.assert_close(encoder.conv1[0].weight, before / 0.01)
    assert all((value == 0).all() for name, value in encoder.named_parameters() if name.endswith("bias"))
    preps, scaled = torch.randn(2, 1, 8, 64), Encoder(64)
    scaled.load_state_dict(encoder.state_dict())
    scaled.start_at(100.0)
    torch.testing.assert_close(scaled(100 * preps), encoder(preps))


# Decoder


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


@pytest.mark.parametrize(
    "sizes", [(256, (8, 640), 16, 64, 32), (512, (8, 632), 16, 64, 32), (288, (8, 40), 12, 24, 9)], ids=str
)
def test_decoder_in_the_memory_order_of_a_gpu(sizes):
    """Its way through the first two convs; in the last of these sizes, a channel of the first is a part of two rows."""
    decoder = Decoder(*sizes).double()
    embeddings = torch.randn(M, sizes[0], dtype=torch.float64, requires_grad=True)
    maps = embeddings.view(M, -1, decoder.grid, decoder.grid)
    ours, reference = decoder.deepened_channels_last(maps), decoder.deepened(maps)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_same(ours, reference, "maps")
    weights = torch.randn_like(reference)
    named = {
        "embeddings": embeddings,
        **dict(decoder.conv1.named_parameters()),
        **dict(decoder.conv2.named_parameters()),
    }
    assert_same_gradients((ours * weights).sum(), (reference * weights).sum(), named)


def test_affine_head_starts_as_the_paper_says_or_at_an_instance():
    with torch.device("meta"):
        decoder = Decoder(4096, (8, 10_000))
    layer = type(decoder.scalelayer)((8, 10_000))
    assert layer.scale.std().item() == pytest.approx(1e-3, rel=0.02)
    assert layer.bias.min() >= 0 and layer.bias.max() <= 1e-2
    prep = torch.randn(8, 10_000)
    layer.start_at(prep, 0.1)
    assert torch.equal(layer.bias, prep)
    assert layer.scale.std().item() == pytest.approx(0.1, rel=0.02)


# Classifier


def test_classifier_at_the_papers_size_has_the_names_of_the_original():
    classifier = ClassIdClassifier(4096, 64, 4)
    assert {name: tuple(value.shape) for name, value in classifier.state_dict().items()} == {
        "arch_conv.0.weight": (10, 1, 3, 3),
        "arch_conv.0.bias": (10,),
        "arch_classifier.weight": (4, 10 * 1024),
        "arch_classifier.bias": (4,),
    }
    assert count(classifier) == 10 * 9 + 10 + 4 * 10_240 + 4


def test_classifier_sees_the_map_that_the_decoder_sees():
    model = PrepAutoencoder(Sizes((8, 640), emb_size=512, grid=16, row_length=64, row_channels=32), 5).double()
    embeddings = torch.randn(2, 512, dtype=torch.float64)
    x = model.classifier.arch_conv[0](embeddings.reshape(2, 2, 16, 16))
    reference = model.classifier.arch_classifier(torch.where(x > 0, x, 0.01 * x).reshape(2, -1))
    torch.testing.assert_close(model.classifier(embeddings), reference)
    assert PrepAutoencoder(model.sizes).classifier is None


# Rows


def test_rows_go_in_by_way_of_preps_and_come_out_as_wide_as_a_prep():
    model = PrepAutoencoder(Sizes(**SMALL))
    rows = torch.randn(2, 5058)
    embeddings = model.encode(rows)
    assert embeddings.shape == (2, model.emb_size) and model.width == 8 * 640 and model.prep_shape == (8, 640)
    assert torch.equal(embeddings, model.encoder(pack(rows, (8, 640))))
    assert torch.equal(model.decode(embeddings), model.decoder(embeddings).view(2, 5120))
    assert torch.equal(model(rows), model.decode(embeddings))
    assert torch.equal(model(torch.nn.functional.pad(rows, (0, 62))), model(rows))
