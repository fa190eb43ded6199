"""Several architectures at once: order, padding, the classifier, and an architecture of one's own."""

import pytest
import torch
from torch import nn

from models.architecture_pool import ArchitecturePool
from models.class_id_classifier import ClassIdClassifier
from models.errors import InputError
from models.layers import Conv2d, Linear
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.registry import ARCHITECTURES, Architecture
from tests.conftest import instances_in_float64
from training.losses import interpolation_factors

ON = (1, 8, 8), 10
PREP = (8, 3688)
NAMES = ["lenetlike", "vanilla_cnn", "resnet8", "resnet32"]


@pytest.mark.parametrize("class_ids", [[2, 0, 3, 0, 1, 2], [1, 1], [3]])
def test_instances_run_together_as_one_by_one_in_the_given_order(class_ids):
    pool = ArchitecturePool(*ON, PREP)
    images = torch.randn(5, *ON[0], dtype=torch.float64)
    preps, reference = [], []
    for seed, class_id in enumerate(class_ids, start=1):
        nets, state = instances_in_float64(NAMES[class_id], *ON, m=seed)
        rows = nets.fuse(state)[-1:]
        preps.append(pack(rows, PREP))
        own = {name: value[0] for name, value in nets.layout.unflatten(rows).items()}
        reference.append(torch.func.functional_call(nets.fused, own, (images,)))
    preps = torch.cat(preps)
    padded = preps + (preps == 0) * 7.0  # what is in the padding does not matter
    for each in (preps, padded):
        torch.testing.assert_close(pool.run(each, class_ids, images), torch.stack(reference))


def test_gradients_reach_every_prep_and_not_its_padding():
    pool = ArchitecturePool(*ON, PREP)
    preps = (0.1 * torch.randn(4, 1, *PREP)).requires_grad_()
    class_ids = [3, 0, 2, 0]
    pool.run(preps, class_ids, torch.randn(5, *ON[0])).square().sum().backward()
    for gradient, class_id in zip(preps.grad.flatten(1), class_ids):
        end = pool[class_id].num_parameters
        assert (gradient[:end] != 0).any() and (gradient[end:] == 0).all()


def test_classifier_at_the_papers_size_and_keys_of_the_original():
    classifier = ClassIdClassifier(4096, 64, 4)
    assert {name: tuple(value.shape) for name, value in classifier.state_dict().items()} == {
        "arch_conv.0.weight": (10, 1, 3, 3),
        "arch_conv.0.bias": (10,),
        "arch_classifier.weight": (4, 10 * 1024),
        "arch_classifier.bias": (4,),
    }
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 10 * 9 + 10 + 4 * 10_240 + 4
    assert classifier(torch.randn(3, 4096)).shape == (3, 4)


def test_classifier_sees_the_map_that_the_decoder_sees():
    net_space = PrepAutoencoder(Sizes((8, 640), emb_size=512, grid=16, row_length=64, row_channels=32), 5).double()
    embeddings = torch.randn(2, 512, dtype=torch.float64)
    x = net_space.classifier.arch_conv[0](embeddings.reshape(2, 2, 16, 16))
    plain = net_space.classifier.arch_classifier(torch.where(x > 0, x, 0.01 * x).reshape(2, -1))
    torch.testing.assert_close(net_space.classifier(embeddings), plain)
    assert PrepAutoencoder(net_space.sizes).classifier is None


def test_a_prep_too_small_for_one_of_them_is_refused():
    with pytest.raises(InputError, match="resnet32 has 29,474"):
        ArchitecturePool(*ON, (8, 640))


class OneConv(nn.Module):
    """An architecture of one's own."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.conv = Conv2d(image_shape[0], 3, 3, 1, 1)
        self.fc = Linear(3 * image_shape[1] * image_shape[2], num_classes)

    def forward(self, x):
        return self.fc(torch.flatten(torch.relu(self.conv(x)), 1))


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "one_conv", Architecture("one_conv", 4, "one_conv;d4", OneConv))


def test_an_architecture_of_ones_own_is_one_registry_entry(own):
    pool = ArchitecturePool(*ON, PREP)
    assert pool.names == [*NAMES, "one_conv"] and len(interpolation_factors(len(pool))) == 3
    row = pool[4].fuse(pool[4].start([0]))
    logits = pool.run(pack(row, PREP).expand(2, -1, -1, -1), [4, 0], torch.ones(2, *ON[0]))
    plain = OneConv(*ON)
    plain.load_state_dict({name: value[0] for name, value in pool[4].start([0]).items()})
    torch.testing.assert_close(logits[0], plain(torch.ones(2, *ON[0])))


def test_class_ids_with_a_gap_are_refused(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "one_conv", Architecture("one_conv", 5, "one_conv;d5", OneConv))
    with pytest.raises(InputError, match="number the architectures"):
        ArchitecturePool(*ON, PREP)
