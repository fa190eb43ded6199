"""Every step as it runs on a GPU, on a machine without one: fake CUDA tensors have a device and a shape, and no numbers.

An operation on a CPU tensor and a CUDA tensor raises, so a tensor that was left on the CPU fails its test. What a step reads back
from the device is 0 here. Backward passes need a GPU, and do nothing.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode

import train_multi_arch
import train_sane
from data.images import Batches, Images, ImageSet
from data.nets import NetsDataset
from data.streams import balanced_indices, device_keys
from evaluation.cells import changed
from evaluation.metrics import accuracy, closeness_to, mixed_accuracy
from evaluation.spaces import Space
from models.instances import TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import architectures_by_class_id
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from training.autoencoders import TokenObjective
from training.constants import Search, TokenViews, Views
from training.ensembles import Ensemble, cross_entropies, squared_errors
from training.graphs import Graphed, Graphs, without_graphs
from training.latent_search import LatentSearch
from training.losses import OBJECTIVES, Given, Teacher, parameter_scales, sdf_losses
from training.runtime import mixed_precision
from training.views import add_noise, reorder

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
IMAGES = (1, 8, 8)
NARROW, WIDE = Sizes((32, 160), 256, 16, 64, 32), Sizes((8, 640), 256, 16, 64, 32)  # plain maxima, and by windows
ALL = Sizes((32, 936), 256, 16, 64, 32)
TOKENS = TokenSizes(37, 4, 8, 1, 2, 48, 8, (256, 16, 32))


READING = (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__int__)


class CudaGenerator(torch.Generator):
    """A generator that says it is on the GPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.place = torch.device(device)

    @property
    def device(self):
        return self.place


class Reads(TorchFunctionMode):
    """Answers what is read back from the device by zeros, and counts it."""

    number = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READING and args[0].is_cuda:
            self.number += 1
            with unset_fake_temporarily():
                return func(torch.zeros(args[0].shape, dtype=args[0].dtype))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    """Let the test make fake tensors on a GPU, with autocast as there; return what counts values read back."""
    monkeypatch.setattr(torch, "Generator", CudaGenerator)
    monkeypatch.setattr(FakeTensor, "tolist", torch.Tensor.tolist)  # its own reads one number after the other
    monkeypatch.setattr(torch.Tensor, "backward", lambda *args: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    # How instances of each are computed is found once, with numbers.
    nets_on_images(), sirens()
    with FakeTensorMode(allow_non_fake_inputs=True), Reads() as reads, without_graphs():
        yield reads


def nets_on_images():
    return TargetNets.on_images(architectures_by_class_id(), IMAGES, 10)


def sirens():
    return TargetNets.sirens((3, 16, 16, 1))


def moved(build):
    """Return a module that is built on the CPU, with its parameters and buffers on the GPU, as `to` leaves it there."""
    with unset_fake_temporarily():
        whole = build()
    for module in whole.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device=CUDA)
                    tensors[name] = nn.Parameter(fake) if isinstance(value, nn.Parameter) else fake
    return whole


def space_of(sizes, nets):
    return Space(moved(lambda: PrepAutoencoder(sizes, len(nets) if len(nets) > 1 else None)), nets, {}, {})


def some_rows(nets, m=3):
    return torch.randn(m, max(nets.num_parameters.values()), device=CUDA)


def some_nets(nets, class_ids, samples=None):
    m = len(class_ids)
    paths = tuple(Path(f"{i}.safetensors") for i in range(m))
    return NetsDataset(nets, some_rows(nets, m), tuple(class_ids), ({},) * m, paths, samples)


def image_set(padding=0):
    """Return 40 images in each split."""
    pixels, labels = (
        torch.zeros(40, 8, 8, 1, dtype=torch.uint8, device=CUDA),
        torch.zeros(40, dtype=torch.int64, device=CUDA),
    )
    split = Images(pixels, labels, torch.tensor([0.5], device=CUDA), torch.tensor([0.25], device=CUDA), padding)
    return ImageSet("photos", split, split, split, tuple("0123456789"))


# NetSpace


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sizes", [NARROW, WIDE], ids=["plain maxima", "by windows"])
def test_step_of_one_architecture(reads, sizes, objective):
    nets = TargetNets([nets_on_images()[2]])
    space, net, all_rows = space_of(sizes, nets), nets[0], some_rows(nets)
    views = Views(prep_noise=0.3, reorder_channels=True)
    x, _ = Batches(image_set().train, [(0,)], 8).shared(3)
    rows = reorder(all_rows, net, views, 0, 3)
    given = Given(net, x, 4.0, parameter_scales(net.layout, all_rows))

    def loss_of(shown, rows):
        return OBJECTIVES[objective](space.model(shown), rows, given).sum()

    loss = Graphed(loss_of, space.model, mixed_precision(CUDA, None))(
        add_noise(rows, space.model.width, views, 0, 3), rows
    )
    assert loss.device == CUDA and loss.dtype == torch.float32 and loss.requires_grad
    assert reads.number == 0


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", None])
def test_precision(reads, precision):
    nets = TargetNets([nets_on_images()[2]])
    space, x = space_of(WIDE, nets), torch.randn(8, *IMAGES, device=CUDA)
    with mixed_precision(CUDA, precision):
        predicted = space.model(some_rows(nets))
        maps = nets[0].run_front(predicted, x, nets[0].points[0])
    mixed_precision(CUDA, "float32")  # tf32 holds for the process
    assert predicted.dtype == torch.float32
    assert maps.dtype == (torch.bfloat16 if precision in (None, "bfloat16") else torch.float32)


@pytest.mark.parametrize("padding", [0, 1], ids=["seen before", "augmented"])
def test_step_of_several_architectures(reads, padding):
    nets, images, precision = nets_on_images(), image_set(padding), mixed_precision(CUDA, None)
    space = space_of(ALL, nets)
    teacher = Teacher(some_nets(TargetNets([nets[2]]), [0]), images.train, precision)
    batches = Batches(images.train, [(0,)], 8)
    x, labels = batches.shared(3)
    rows = add_noise(some_rows(nets, 2), space.model.width, Views(prep_noise=0.3), 0, 3)
    config, graphs = train_multi_arch.PRESETS["photos"], Graphs(space.model, space.nets, precision)
    logits = teacher.logits(batches, 3, x)
    loss, terms = train_multi_arch.step_losses(config, graphs, rows, (0, len(nets) - 1), x, labels, logits)
    assert loss.device == CUDA and loss.requires_grad and {each.device for each in terms.values()} == {CUDA}
    assert reads.number == 1  # the predicted ClassIds


def test_step_of_sirens(reads):
    nets = sirens()
    space, net, rows, views = space_of(NARROW, nets), nets[0], some_rows(nets), Views(0.3, True)
    points, outputs = torch.rand(3, 50, 3, device=CUDA), torch.rand(3, 50, device=CUDA)
    keys, mine = device_keys("points", [(0, i) for i in range(3)], CUDA), torch.tensor([2, 0], device=CUDA)
    rows = add_noise(reorder(rows[[2, 0]], net, views, 0, 3), space.model.width, views, 0, 3)
    indices = balanced_indices(keys[mine], 3, 20, points.shape[1])

    def loss_of(rows, x, target):
        return sdf_losses(net.run(space.model(rows), x), target).sum()

    graphed = Graphed(loss_of, space.model, mixed_precision(CUDA, None))
    loss = graphed(rows, points[mine[:, None], indices], outputs[mine[:, None], indices])
    assert loss.device == CUDA and loss.requires_grad and reads.number == 0


# SANE


@pytest.mark.parametrize(
    "changes", [{}, {"decoded": "windows"}, {"structure": "nets", "behaviour_loss": "distillation"}]
)
def test_step_of_sane(reads, changes):
    net = nets_on_images()[2]
    config = changed(
        train_sane.PRESETS["photos"], dict(windows=3, meta_batch=2, views=TokenViews("permuted"), **changes)
    )
    sizes = replace(TOKENS, affine=bool(changes))
    model = moved(lambda: TokenAutoencoder(sizes, net.layout, net.hidden_channels()))
    rows, batches = some_rows(TargetNets([net])), Batches(image_set().train, [(0,)], 8)
    found = TokenObjective(config, model, net, rows, batches).at(3)
    assert found.loss.device == CUDA and {each.device for each in found.terms.values()} == {CUDA}
    assert all(each.requires_grad for each in found.terms.values()) and reads.number == 0


# Instances in training


@pytest.mark.parametrize("name", ["lenetlike", "vanilla_cnn", "resnet8", "siren"])
def test_steps_of_instances(reads, name):
    if name == "siren":
        net, inputs, targets, losses = sirens()[0], torch.rand(3, 8, 3), torch.rand(3, 8), squared_errors
    else:
        net = next(each for each in nets_on_images() if each.name == name)
        inputs, targets = Batches(image_set().train, [(0, i) for i in range(3)], 8).batch(3)
        losses = cross_entropies
    state = {
        key: torch.zeros(3, *value.shape, dtype=value.dtype, device=CUDA)
        for key, value in net.trained.state_dict().items()
    }
    adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
    ensemble = Ensemble(net, state, adam, losses, mixed_precision(CUDA, None))
    inputs, targets = inputs.to(CUDA), targets.to(CUDA)
    assert ensemble.step(inputs, targets).device == CUDA
    ensemble.select(slice(1, None))
    assert ensemble.step(inputs[1:], targets[1:]).shape == (2,)
    assert {value.device for value in (net.fuse(ensemble.state()), *ensemble.statistics.values())} == {CUDA}
    assert reads.number == 0


# A trained space


@pytest.mark.parametrize("several", [False, True], ids=["one architecture", "several"])
def test_latent_search(reads, several):
    nets = nets_on_images() if several else TargetNets([nets_on_images()[2]])
    space, images = space_of(ALL, nets), image_set()
    search = LatentSearch(space.encode(some_rows(nets, 2)), patience=3)
    x, labels = Batches(images.train, [(0,)], 8).shared(3)
    logits = torch.rand(8, 10, device=CUDA)
    losses = space.search_losses(search.embeddings, [0, 0], x, labels, logits, Search(alpha=0.9))
    assert losses.shape == (2,) and losses.device == CUDA and losses.requires_grad
    assert reads.number == several
    _, found = space.accuracy(search.embeddings.detach(), images.val)
    assert found.device == CPU and found.shape == (2,)


def test_accuracy_and_predicted_instances(reads):
    nets, images = nets_on_images(), image_set()
    space, rows = space_of(ALL, nets), some_rows(nets, 20)
    predicted = space.predict(rows)
    assert predicted.device == CUDA and predicted.shape == (20, space.model.width)
    class_ids = [i % len(nets) for i in range(20)]
    assert mixed_accuracy(nets, predicted, class_ids, images.val).shape == (20,)
    assert accuracy(nets[2], rows, images.val).device == CPU


def test_closeness_of_sirens(reads):
    targets = some_nets(sirens(), [0] * 3, torch.rand(3, 50, 4, device=CUDA))
    assert closeness_to(targets, targets.rows).shape == (3,)


# What these tests rely on


def test_a_tensor_that_is_left_on_the_cpu_is_noticed(reads):
    nets = TargetNets([nets_on_images()[2]])
    space, net, rows = space_of(WIDE, nets), nets[0], some_rows(nets)
    x = torch.randn(8, *IMAGES, device=CUDA)
    net.run(space.model(rows), x)
    with pytest.raises(RuntimeError, match="device"):
        net.run(space.model(rows), x.cpu())
    scale = space.model.decoder.scalelayer
    scale.bias = nn.Parameter(scale.bias.detach().cpu())
    with pytest.raises(RuntimeError, match="device"):
        net.run(space.model(rows), x)


def test_reading_back_is_noticed(reads):
    if torch.zeros(2, device=CUDA).any() or torch.zeros((), device=CUDA).item():
        raise AssertionError
    assert torch.zeros(2, 2, device=CUDA).tolist() == [[0, 0], [0, 0]]
    assert reads.number == 3
