"""The registry of architectures: parameter counts of the paper, PRep order, fusion."""

import pytest
import torch

from models.errors import InputError
from models.instances import ArchitectureOnImages
from models.registry import ARCHITECTURES
from models.symmetry import permutation_indices
from tests.conftest import instances_in_float64

CIFAR10, TINY_IMAGENET, PHOTOS = ((3, 32, 32), 10), ((3, 64, 64), 200), ((1, 8, 8), 10)

# Supplement Tab. I (with batch norm), and the same nets fused.
COUNTS = {
    "lenetlike": {CIFAR10: (62_006, 62_006), TINY_IMAGENET: (79_612, 79_612)},
    "vanilla_cnn": {CIFAR10: (68_818, 68_818), TINY_IMAGENET: (112_856, 112_856)},
    "resnet8": {CIFAR10: (78_042, 77_706), TINY_IMAGENET: (128_792, 128_456), PHOTOS: (19_810, 19_642)},
    "resnet32": {CIFAR10: (466_906, 465_674), TINY_IMAGENET: (517_656, 516_424), PHOTOS: (117_474, 116_858)},
    "resnet56": {CIFAR10: (855_770, 853_642), TINY_IMAGENET: (906_520, 904_392)},
}


@pytest.mark.parametrize("on", [CIFAR10, TINY_IMAGENET, PHOTOS], ids=["cifar10", "tiny-imagenet-200", "photos"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_counts_and_outputs(name, on):
    nets = ArchitectureOnImages(ARCHITECTURES[name], *on)
    if on in COUNTS[name]:
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


@pytest.mark.parametrize("on", [CIFAR10, TINY_IMAGENET, PHOTOS], ids=["cifar10", "tiny-imagenet-200", "photos"])
@pytest.mark.parametrize("name", ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"])
def test_channel_permutations_move_parameters_and_keep_the_function(name, on):
    nets, state = instances_in_float64(name, *on, m=1)
    rows = nets.fuse(state)
    indices = permutation_indices(nets.layout, nets.fused.channel_groups(), 2, seed=0)
    permuted = rows.expand(2, -1).gather(1, indices)
    assert all(sorted(index.tolist()) == list(range(nets.num_parameters)) for index in indices)
    hidden = nets.num_parameters - nets.layout.sizes[-1]
    assert (permuted[0] != rows[0]).sum() > 0.7 * hidden  # some channels stay in place by chance
    images = torch.randn(3, *on[0], dtype=torch.float64)
    torch.testing.assert_close(nets.run(permuted, images), nets.run(rows, images).expand(2, -1, -1))


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 64)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_another_size_are_refused(name, shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[2]}"):
        ARCHITECTURES[name].build(shape, 10)
