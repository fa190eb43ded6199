"""Encoder and decoder: the paper's shapes and counts, the fast encoder against the plain one, sizes that cannot work."""

import pytest
import torch

from models.decoder import Decoder
from models.encoder import WINDOWS_FROM_WIDTH, Encoder, conv_along_height
from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder, Sizes
from training.checkpoints import net_space_state, restore_net_space

PAPER_PREPS = {"cifar10 single, SDF": (8, 10_000), "tiny-imagenet-200 single": (16, 10_000), "multi": (88, 10_000)}
PHOTOS = dict(emb_size=1024, prep_shape=(8, 640), grid=32, row_length=128, row_channels=64)


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


def test_parameter_counts_at_the_papers_size():
    assert count(Encoder(4096)) == 6_788_352
    assert count(Decoder(4096, (8, 10_000))) == 2_875_394


@pytest.mark.parametrize("prep_shape", PAPER_PREPS.values(), ids=PAPER_PREPS)
def test_shapes_at_the_papers_sizes(prep_shape):
    height, width = prep_shape
    with torch.device("meta"):  # shapes only
        net_space = PrepAutoencoder(Sizes(prep_shape))
        preps = torch.empty(2, 1, height, width)
        encoder, embedding = net_space.encoder, torch.empty(2, 4096)
        x = encoder.conv1(preps)
        assert x.shape == (2, 128, height, width // 2)
        assert encoder.conv2(x).shape == (2, 256, height, width // 4)
        features = encoder.row_features_plainly(preps)
        assert features.shape == (2, height, 256)
        assert conv_along_height(features, encoder.conv3).shape == (2, height, 512)
        assert net_space.decoder.conv1(embedding.view(2, 1, 64, 64)).shape == (2, 256 * height, 32, 32)
        assert shapes_through(net_space.decoder, embedding) == [  # conv1 is computed as a matrix product
            (2, width // 8, height // 2, 1024),
            (2, 256, height // 4, width // 8),
            (2, 32, height // 4, width // 8),
            (2, 1, height, width),
        ]


@pytest.mark.parametrize("prep_shape", [(4, 8), (8, 640), (12, 104)])
def test_embedding_has_one_size_for_any_prep(prep_shape):
    assert Encoder(64)(torch.randn(3, 1, *prep_shape)).shape == (3, 64)


@pytest.mark.parametrize("rows_of_zeros", [0, 3])
def test_fast_encoder_is_the_plain_one(rows_of_zeros):
    """Outputs and all gradients, the input's included, in float64; also with the all-zero rows of a short instance."""
    encoder = Encoder(96).double()
    preps = torch.randn(3, 1, 8, WINDOWS_FROM_WIDTH, dtype=torch.float64)
    preps[:, :, 8 - rows_of_zeros :] = 0
    preps.requires_grad_()

    def plainly(x):
        features = encoder.conv2(encoder.conv1(x)).amax(dim=3, keepdim=True)
        return encoder.conv4(encoder.conv3(features)).amax(dim=2).flatten(1)

    weights = torch.randn(3, 96, dtype=torch.float64)
    wanted = [preps] if not rows_of_zeros else []  # where rows tie, the gradient of a maximum is anyone's choice
    wanted += list(encoder.parameters())
    fast, plain = encoder(preps), plainly(preps)
    torch.testing.assert_close(fast, plain)
    for ours, reference in zip(
        torch.autograd.grad((fast * weights).sum(), wanted), torch.autograd.grad((plain * weights).sum(), wanted)
    ):
        torch.testing.assert_close(ours, reference)


def test_fast_encoder_where_the_maximum_is_at_the_left_edge():
    """There, conv2 sees its own zero padding."""
    encoder = Encoder(32).double()
    preps = torch.zeros(1, 1, 4, 32, dtype=torch.float64)
    preps[..., :2] = 5
    torch.testing.assert_close(encoder.row_features_by_windows(preps), encoder.row_features_plainly(preps))


def test_decoder_reshapes_are_row_major_and_the_affine_map_is_per_element():
    decoder = Decoder(**PHOTOS).double()
    embedding = torch.randn(2, 1024, dtype=torch.float64)
    x = decoder.conv1(embedding.reshape(2, 1, 32, 32)).contiguous().reshape(2, 64, 8, 128)
    x = decoder.conv2(x).contiguous().reshape(2, 32, 4, 160)
    x = decoder.conv4(decoder.conv3(x)).contiguous().reshape(2, 1, 8, 640)
    torch.testing.assert_close(decoder(embedding), x * decoder.scalelayer.scale + decoder.scalelayer.bias)


def test_affine_head_starts_as_the_paper_says_or_at_an_instance():
    layer = Decoder(4096, (8, 10_000)).scalelayer
    assert layer.scale.std().item() == pytest.approx(1e-3, rel=0.02)
    assert layer.bias.min() >= 0 and layer.bias.max() <= 1e-2
    prep = torch.randn(8, 10_000)
    layer.start_at(prep, 0.1)
    assert torch.equal(layer.bias, prep)
    assert layer.scale.std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ({"emb_size": 1000}, ("1000", "32")),
        ({"grid": 31}, ("31", "1024")),
        ({"grid": 64}, ("64", "1024", "at most 32")),
        ({"prep_shape": (6, 640)}, ("6x640",)),
        ({"prep_shape": (8, 636)}, ("8x636",)),
        ({"row_length": 60}, ("60",)),
        ({"row_length": 8, "row_channels": 1}, ("8*1*8", "16x16", "64", "256")),
    ],
)
def test_sizes_that_cannot_work_are_refused_when_the_model_is_built(change, numbers):
    with pytest.raises(InputError) as refusal:
        PrepAutoencoder(Sizes(**{**PHOTOS, **change}))
    assert all(number in str(refusal.value) for number in numbers), refusal.value
    assert "\n" not in str(refusal.value)


def test_a_checkpoint_holds_the_classifier_among_the_decoders_entries(tmp_path):
    """As the original's do; the single-architecture setting ignores it, the other one needs it, of its own size."""
    sizes = Sizes((8, 648))  # the checkpoint says no sizes, as the original's do not
    net_space, path, cpu = PrepAutoencoder(sizes, 4), tmp_path / "best.pt", torch.device("cpu")
    state = net_space_state(net_space)
    assert set(state) == {"0", "1"} and {"arch_conv.0.weight", "arch_classifier.bias"} <= set(state["1"])
    torch.save(state, path)
    restored = restore_net_space(path, "", cpu, num_class_ids=4)
    for name, value in net_space.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name
    assert restore_net_space(path, "", cpu).classifier is None
    with pytest.raises(InputError, match="arch_classifier.bias"):
        restore_net_space(path, "", cpu, num_class_ids=5)
    torch.save(net_space_state(PrepAutoencoder(sizes)), path)
    with pytest.raises(InputError, match="arch_.* is nothing"):
        restore_net_space(path, "", cpu, num_class_ids=4)
