"""The registry of architectures: parameter counts of the paper, PRep order, fusion."""

import re
from functools import partial

import pytest
import torch
from torch import nn

from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.layers import BatchNorm2d, Conv2d, Linear
from models.registry import ARCHITECTURES, Architecture
from tests.conftest import instances_in_float64

CIFAR10, TINY_IMAGENET, PHOTOS = ((3, 32, 32), 10), ((3, 64, 64), 200), ((1, 8, 8), 10)

# Supplement Tab. I (with batch norm), and the same nets fused.
COUNTS = {
    "lenetlike": {CIFAR10: (62_006, 62_006), TINY_IMAGENET: (79_612, 79_612), PHOTOS: (540, 540)},
    "vanilla_cnn": {CIFAR10: (68_818, 68_818), TINY_IMAGENET: (112_856, 112_856), PHOTOS: (3_142, 3_142)},
    "resnet8": {CIFAR10: (78_042, 77_706), TINY_IMAGENET: (128_792, 128_456), PHOTOS: (5_142, 5_058)},
    "resnet32": {CIFAR10: (466_906, 465_674), TINY_IMAGENET: (517_656, 516_424), PHOTOS: (29_782, 29_474)},
    "resnet56": {CIFAR10: (855_770, 853_642), TINY_IMAGENET: (906_520, 904_392), PHOTOS: (215_138, 214_074)},
}


@pytest.mark.parametrize("on", [CIFAR10, TINY_IMAGENET, PHOTOS], ids=["cifar10", "tiny-imagenet-200", "photos"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_counts_and_outputs(name, on):
    nets = ArchitectureOnImages(ARCHITECTURES[name], *on)
    if name in COUNTS:
        assert (nets.trained_layout.num_parameters, nets.num_parameters) == COUNTS[name][on]
    for net in (nets.trained, nets.fused):
        assert net.eval()(torch.randn(2, *on[0])).shape == (2, on[1])


@pytest.mark.parametrize("on", [CIFAR10, TINY_IMAGENET, PHOTOS], ids=["cifar10", "tiny-imagenet-200", "photos"])
def test_class_ids_rise_with_the_number_of_parameters(on):
    ordered = sorted((a for a in ARCHITECTURES.values() if a.class_id is not None), key=lambda a: a.class_id)
    counts = [ArchitectureOnImages(architecture, *on).num_parameters for architecture in ordered]
    assert counts == sorted(set(counts))


def test_prep_order_is_layer_order_with_the_shortcut_after_conv2():
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], *CIFAR10)
    blocks = [["conv1", "conv2"], ["conv1", "conv2", "downsample.0"], ["conv1", "conv2", "downsample.0"]]
    layers = ["conv1", *(f"layer{i}.0.{conv}" for i, block in enumerate(blocks, start=1) for conv in block), "fc"]
    assert nets.layout.names == tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


@pytest.mark.parametrize("name", [name for name, architecture in ARCHITECTURES.items() if architecture.has_batch_norm])
def test_fused_and_unfused_nets_agree_in_eval_mode(name):
    nets, state = instances_in_float64(name, *PHOTOS, m=2)
    rows = nets.fuse(state)
    images = torch.randn(3, *PHOTOS[0], dtype=torch.float64)
    for i in range(2):
        plain = ARCHITECTURES[name].build(*PHOTOS).double().eval()
        plain.load_state_dict({key: value[i] for key, value in state.items()})
        torch.testing.assert_close(nets.run(rows, images)[i], plain(images))


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 64)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_another_size_are_refused(name, shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[2]}"):
        ARCHITECTURES[name].build(shape, 10)


class OwnNet(nn.Module):
    """What somebody may write, with or without what is wanted of a net."""

    def __init__(self, image_shape, num_classes, conv=Conv2d, norm_name="bn1", bias=True, fused=False):
        super().__init__()
        self.conv1 = conv(image_shape[0], 4, 3, 2, 1, bias=fused and bias)
        setattr(self, norm_name, nn.Identity() if fused else BatchNorm2d(4))
        self.fc = Linear(4 * (image_shape[1] // 2) ** 2, num_classes)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(conv=nn.Conv2d), "own: 'conv1' is a Conv2d that computes one instance alone"),
        (dict(conv=partial(Conv2d, padding_mode="reflect")), "'conv1' has groups or pads"),
        (dict(norm_name="norm"), "batch norm 'norm': call it bn1 after conv1"),
        (dict(bias=False), "'conv1.bias' differs between fused=True and the fused net"),
    ],
)
def test_nets_that_cannot_be_used_are_refused_before_any_is_trained(wrong, says):
    def nets(**how):
        return ArchitectureOnImages(Architecture("own", None, "own", partial(OwnNet, **how), True), *PHOTOS)

    assert nets().num_parameters == 4 * 9 + 4 + 64 * 10 + 10
    with pytest.raises(InputError, match=re.escape(says)):
        nets(**wrong)
    with pytest.raises(InputError, match="own has no hidden_channels.* --no-reorder-channels"):
        nets().hidden_channels()
