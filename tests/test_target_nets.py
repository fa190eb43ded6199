"""The registered architectures: parameter counts of the paper, image sides, ClassIds; and SIRENs."""

import math
import re

import pytest
import torch

from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import (
    ARCHITECTURES,
    Architecture,
    architectures_by_class_id,
    architectures_for,
    get_architecture,
    siren,
)
from models.target_nets.lenet_like import LeNetLike
from models.target_nets.siren import Siren
from tests.conftest import PAPER

CIFAR10, TINY_IMAGENET, PHOTOS = ((3, 32, 32), 10), ((3, 64, 64), 200), ((1, 8, 8), 10)
DATASETS = {"cifar10": CIFAR10, "tiny-imagenet-200": TINY_IMAGENET, "photos": PHOTOS}

# With batch norm, as in supplement Tab. I and arXiv 2110.14633 (Tiny10 on CIFAR-10), and the same nets fused.
COUNTS = {
    "lenetlike": {CIFAR10: (62_006, 62_006), TINY_IMAGENET: (79_612, 79_612), PHOTOS: (540, 540)},
    "vanilla_cnn": {CIFAR10: (68_818, 68_818), TINY_IMAGENET: (112_856, 112_856), PHOTOS: (3_142, 3_142)},
    "resnet8": {CIFAR10: (78_042, 77_706), TINY_IMAGENET: (128_792, 128_456), PHOTOS: (5_142, 5_058)},
    "resnet32": {CIFAR10: (466_906, 465_674), TINY_IMAGENET: (517_656, 516_424), PHOTOS: (29_782, 29_474)},
    "resnet56": {CIFAR10: (855_770, 853_642), TINY_IMAGENET: (906_520, 904_392), PHOTOS: (215_138, 214_074)},
    "tiny10": {CIFAR10: (86_778, 86_138), TINY_IMAGENET: (99_128, 98_488), PHOTOS: (5_742, 5_582)},
    "resnet20": {CIFAR10: (272_474, 271_690), TINY_IMAGENET: (323_224, 322_440), PHOTOS: (17_462, 17_266)},
    "resnet20x2": {CIFAR10: (1_084_586, 1_083_018), TINY_IMAGENET: (1_185_896, 1_184_328), PHOTOS: (68_642, 68_250)},
}


@pytest.mark.parametrize("on", DATASETS.values(), ids=DATASETS)
@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_outputs(name, on):
    net = TargetNet(ARCHITECTURES[name], *on)
    assert (net.trained_layout.num_parameters, net.num_parameters) == COUNTS[name][on]
    for module in (net.trained, net.fused):
        assert module.eval()(torch.randn(2, *on[0])).shape == (2, on[1])


def test_the_papers_architectures_are_folded_and_say_their_hidden_channels():
    for name in PAPER:
        net = TargetNet(ARCHITECTURES[name], *PHOTOS)
        assert net.folds and net.hidden_channels()
    assert TargetNet(siren()).folds


@pytest.mark.parametrize("on", DATASETS.values(), ids=DATASETS)
def test_class_ids_rise_with_the_number_of_parameters(on):
    counts = [TargetNet(architecture, *on).num_parameters for architecture in architectures_by_class_id()]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("class_id", [3, 5, -1])
def test_class_ids_with_a_gap_or_twice_are_refused(monkeypatch, class_id):
    monkeypatch.setitem(ARCHITECTURES, "own", Architecture("own", class_id, "own;d4", LeNetLike))
    with pytest.raises(InputError, match=str(class_id)):
        architectures_by_class_id()


def test_names_that_are_not_registered_are_refused_with_those_that_are():
    assert get_architecture("resnet8") is ARCHITECTURES["resnet8"]
    with pytest.raises(InputError, match="resnet9.*lenetlike.*resnet56"):
        get_architecture("resnet9")


@pytest.mark.parametrize("shape", [(3, 12, 12), (3, 32, 64)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_another_size_are_refused(name, shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[2]}"):
        ARCHITECTURES[name].build(shape, 10)
    with pytest.raises(InputError):
        ARCHITECTURES[name].build((3,), 10)


def test_sides_are_the_architectures_own():
    own = Architecture("own", None, "own;d4", lambda shape, classes: torch.nn.Flatten(), sides=(28,))
    own.build((3, 28, 28), 10)
    with pytest.raises(InputError, match="28, not 32x32"):
        own.build((3, 32, 32), 10)


def test_the_papers_siren():
    net = TargetNet(siren())
    assert net.num_parameters == 67_073
    assert net.layout.names == tuple(f"mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias"))
    first, second, last = (Siren().mlp[i].weight.detach() for i in (0, 2, 4))
    bound = math.sqrt(6 / 256) / 30
    for weight, limit in ((first, 1 / 3), (second, bound), (last, bound)):
        assert 0.95 * limit < weight.abs().max() <= limit
        # uniform: the standard deviation is limit/sqrt(3)
        assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)


def test_a_siren_is_sin_30_x_between_linear_layers():
    module, points = Siren((3, 7, 5, 1)).double(), torch.rand(9, 3, dtype=torch.float64)
    before = points.clone()
    x = points
    for i in (0, 2, 4):
        x = x @ module.mlp[i].weight.T + module.mlp[i].bias
        x = torch.sin(30 * x) if i < 4 else x
    torch.testing.assert_close(module(points), x[:, 0])
    assert torch.equal(points, before)


@pytest.mark.parametrize("widths", [(3, 1), (2, 8, 1), (3, 8, 2), (3, 0, 1)])
def test_widths_that_are_not_a_sirens_are_refused(widths):
    with pytest.raises(InputError, match=re.escape(str(widths))):
        siren(widths)


def test_the_architectures_for_images_of_a_shape_are_those_that_can_be_built_for_them():
    wide = {f"resnet20x{width}" for width in range(2, 6)}
    assert {each.name for each in architectures_for((1, 8, 8))} == {*PAPER, "tiny10", "resnet20", *wide}
    assert {"cnn_s-relu", "unterthiner-relu", "resnet18"} <= {each.name for each in architectures_for((1, 28, 28))}
    assert "cnn_s-relu" not in {each.name for each in architectures_for((3, 32, 32))}
    assert [each.name for each in architectures_for((3, 20, 20))] == ["resnet18"]
    assert not architectures_for((3, 32, 64)) and not architectures_for((3,))
