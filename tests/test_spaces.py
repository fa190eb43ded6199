"""A space encodes and decodes a few at a time as all at once, predicts ClassIds, and searches embeddings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import evaluation.spaces
from data.images import ImageSet, make_images
from evaluation.metrics import accuracy
from evaluation.spaces import Space
from models.errors import InputError
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import architectures_by_class_id
from training.constants import Search

PHOTOS = ((1, 8, 8), 10)
SIZES = Sizes((8, 3688), emb_size=256, grid=16, row_length=64, row_channels=16)


@pytest.fixture(scope="module")
def nets():
    return TargetNets.on_images(architectures_by_class_id(), *PHOTOS)


def a_space(nets, sizes=SIZES, num_class_ids=4):
    torch.manual_seed(1)
    model = PrepAutoencoder(sizes, num_class_ids)
    model.decoder.scalelayer.start_at(0.1 * torch.randn(sizes.prep_shape), 0.1)
    return Space(model, nets, {}, {})


def an_image_set():
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, 60)
    split = make_images(pixels, labels, (0.5,), (0.25,), 1)
    return ImageSet("own", split, split, split, tuple("abcdefghij"))


def test_preps_too_small_for_one_of_the_nets_are_refused(nets):
    with pytest.raises(InputError, match="resnet32 has 29,474"):
        a_space(nets, replace(SIZES, prep_shape=(8, 640)))


def test_few_at_a_time_are_all_at_once_without_gradient(nets, monkeypatch):
    space, rows = a_space(nets), torch.randn(11, 29_474)
    seen = []
    encode, decode = space.model.encode, space.model.decode
    monkeypatch.setattr(space.model, "encode", lambda part: seen.append(len(part)) or encode(part))
    monkeypatch.setattr(space.model, "decode", lambda part: seen.append(len(part)) or decode(part))
    embeddings, predicted = space.encode(rows), space.predict(rows)
    assert max(seen) == evaluation.spaces.AT_ONCE and sum(seen) == 33
    torch.testing.assert_close(embeddings, encode(rows).detach())
    torch.testing.assert_close(predicted, decode(encode(rows)).detach())
    torch.testing.assert_close(space.decode(embeddings), predicted)
    assert not embeddings.requires_grad and not predicted.requires_grad and not space.model.training


def test_embeddings_are_decoded_to_the_predicted_architecture(nets):
    space, images = a_space(nets), an_image_set()
    embeddings = 3 * torch.randn(9, 256)
    class_ids, found = space.accuracy(embeddings, images.test)
    assert class_ids == [int(space.model.classifier(each[None]).argmax()) for each in embeddings]
    assert len(set(class_ids)) > 1
    for class_id, value, embedding in zip(class_ids, found, embeddings):
        row = space.model.decode(embedding[None]).detach()
        assert value.item() == pytest.approx(accuracy(nets[class_id], row, images.test).item(), abs=1.7)
    one = Space(PrepAutoencoder(SIZES), TargetNets([nets[2]]), {}, {})
    assert one.class_ids(embeddings) == [0] * 9


def test_a_line_of_embeddings_is_straight(nets):
    space, (start, end) = a_space(nets), torch.randn(2, 256)
    line = space.interpolate(start, end, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(line, torch.stack([start, 0.75 * start + 0.25 * end, end]))


def test_a_search_returns_the_best_on_validation_images_and_is_repeated_alike(nets):
    space, images = a_space(nets), an_image_set()
    config = Search(image_batch=20, learning_rate=0.01, validate_every=3, patience=2, alpha=0.5)
    space.model.requires_grad_(False)
    initial, teacher = torch.randn(3, 256), nets[0].module(nets[0].fuse(nets[0].start([0]))[0])
    found = space.optimize(initial, images, teacher, config)
    (_, before), (_, after) = (space.accuracy(each, images.val) for each in (initial, found))
    assert (after >= before).all() and found.shape == initial.shape
    assert torch.equal(space.optimize(initial, images, teacher, config), found)
    with pytest.raises(InputError):
        space.optimize(initial, images, lambda x: teacher(x) * float("nan"), config)


def test_a_space_has_a_fingerprint_of_its_parameters(nets):
    assert a_space(nets).fingerprint == a_space(nets).fingerprint
    other = a_space(nets)
    with torch.no_grad():
        other.model.encoder.conv1[0].bias[0] += 1
    assert other.fingerprint != a_space(nets).fingerprint
