"""Many instances at once against the same one by one, as plain PyTorch nets, in float64; architectures of one's own."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from models import layers
from models.errors import InputError
from models.instances import TargetNet, TargetNets, run_instances
from models.target_nets import ARCHITECTURES, Architecture, architectures_by_class_id, architectures_for, siren
from tests.conftest import instances_in_float64, spread_out
from training.ensembles import Ensemble, squared_errors
from training.losses import interpolation_factors

M, B = 3, 5
SMALL, CIFAR = ((1, 8, 8), 10), ((3, 32, 32), 10)
LARGE = ("resnet56", *(f"resnet20x{width}" for width in range(2, 6)))  # wider ones are the same code
PYTORCHS = {layers.Conv2d: nn.Conv2d, layers.Linear: nn.Linear, layers.BatchNorm2d: nn.BatchNorm2d}


def plain_net(build, state, i):
    """Return instance i as a net whose layers are PyTorch's, not ours."""
    net = build().double()
    for module in net.modules():
        for child in module.children():
            child.__class__ = PYTORCHS.get(type(child), type(child))
    assert not {type(module) for module in net.modules()} & set(PYTORCHS)
    net.load_state_dict({key: value[i] for key, value in state.items()})
    return net


def assert_trains_as_alone(net, build, state, images, form):
    """Logits in training mode, gradients of all parameters and running statistics are those of instances alone."""
    m, own_images = len(next(iter(state.values()))), images.dim() == 5
    running = {key: value.clone() for key, value in state.items() if "running" in key}
    rows = net.trained_layout.flatten(state).requires_grad_()
    both = {**net.trained_layout.unflatten(rows), **running}
    logits = run_instances(net.trained.train(), both, images, own_images, form)
    labels = torch.randint(logits.shape[-1], logits.shape[:2])
    F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    gradients = net.trained_layout.unflatten(rows.grad)
    for i in range(m):
        alone = plain_net(build, state, i).train()
        own = alone(images[i] if own_images else images)
        F.cross_entropy(own, labels[i], reduction="sum").backward()
        torch.testing.assert_close(logits[i], own)
        for key, parameter in alone.named_parameters():
            torch.testing.assert_close(gradients[key][i], parameter.grad, msg=lambda text, key=key: f"{key}: {text}")
        for key, value in running.items():
            torch.testing.assert_close(value[i], alone.state_dict()[key])


@pytest.mark.parametrize("form", ["channels", "alone", "vmap"])
@pytest.mark.parametrize("own_images", [True, False])
@pytest.mark.parametrize(
    ("name", "on"),
    [*((each.name, SMALL) for each in architectures_for(SMALL[0]) if each.name not in LARGE)]
    + [("cnn_s-gelu", ((3, 28, 28), 10)), ("cnn_l-silu", CIFAR), ("unterthiner-tanh", ((1, 28, 28), 10))]
    + [(name, CIFAR) for name in ("lenetlike", "vanilla_cnn", "resnet8")]
    + [pytest.param("resnet56", SMALL, marks=pytest.mark.slow)],
)
def test_outputs_gradients_and_statistics_in_training(name, on, own_images, form):
    net, state = instances_in_float64(name, *on, m=M)
    if form == "channels" and not net.folds:
        pytest.skip(f"{name} is computed by vmap")
    images = torch.randn(*((M,) if own_images else ()), B, *on[0], dtype=torch.float64)
    assert_trains_as_alone(net, lambda: ARCHITECTURES[name].build(*on), state, images, form)


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("on", [SMALL, CIFAR], ids=["8", "32"])
def test_the_fastest_form_gives_the_same_and_padding_is_ignored(on, m):
    net, state = instances_in_float64("resnet8", *on, m=m)
    rows, images = net.fuse(state), torch.randn(B, *on[0], dtype=torch.float64)
    logits = net.run(rows, images)
    assert logits.shape == (m, B, 10)
    for row, found in zip(rows, logits):
        own = {name: value[0] for name, value in net.layout.unflatten(row[None]).items()}
        torch.testing.assert_close(found, functional_call(net.fused, own, (images,)))
        torch.testing.assert_close(net.module(row)(images), found)
    wider = torch.cat([rows, torch.randn(m, 7, dtype=rows.dtype)], 1)
    torch.testing.assert_close(net.run(wider, images), logits)
    torch.testing.assert_close(net.run(wider, images.expand(m, -1, -1, -1, -1)), logits)
    torch.testing.assert_close(net.module(wider[0])(images), logits[0])


@pytest.mark.parametrize("form", ["fastest", "vmap", "alone"])
@pytest.mark.parametrize("own_points", [True, False])
def test_sirens_at_once_are_sirens_one_by_one(own_points, form):
    net = TargetNet(siren((3, 7, 5, 1)))
    state = {name: value.double() for name, value in net.start(range(4)).items()}
    points = torch.rand(*((4,) if own_points else ()), 11, 3, dtype=torch.float64) * 2 - 1
    rows = net.fuse(state).requires_grad_()
    in_form = partial(run_instances, net.fused, net.layout.unflatten(rows), points, own_points)
    distances = net.run(rows, points) if form == "fastest" else in_form(form)
    assert distances.shape == (4, 11)
    distances.square().sum().backward()
    gradients = net.layout.unflatten(rows.grad)
    for i in range(4):
        alone = plain_net(lambda: siren((3, 7, 5, 1)).build((3,), 1), state, i)
        own = alone(points[i] if own_points else points)
        own.square().sum().backward()
        torch.testing.assert_close(distances[i], own)
        for name, parameter in alone.named_parameters():
            torch.testing.assert_close(gradients[name][i], parameter.grad)


def test_instances_start_from_their_own_seeds_and_leave_torchs_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    net = TargetNet(ARCHITECTURES["lenetlike"], *SMALL)
    together, alone = net.start([5, 6]), net.start([6])
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(together[name][1], alone[name][0]) for name in together)
    assert not torch.equal(*together["conv1.weight"])


# Several architectures


@pytest.fixture(scope="module")
def pool():
    nets = TargetNets.on_images(architectures_by_class_id(), *SMALL)
    for net in nets:
        net.fused.double()
    return nets


@pytest.mark.parametrize("class_ids", [[2, 0, 3, 0, 1, 2], [1, 1], [3]])
def test_instances_of_several_architectures_run_as_one_by_one_in_the_given_order(pool, class_ids):
    images = torch.randn(B, *SMALL[0], dtype=torch.float64)
    rows, reference = torch.zeros(len(class_ids), pool[3].num_parameters + 2, dtype=torch.float64), []
    for i, class_id in enumerate(class_ids):
        net, state = instances_in_float64(pool.names[class_id], *SMALL, m=i + 1)
        row = net.fuse(state)[-1]
        rows[i, : len(row)], rows[i, len(row) :] = row, 7.0  # what is in the padding does not matter
        reference.append(net.module(row)(images))
    torch.testing.assert_close(pool.run(rows, class_ids, images), torch.stack(reference))


def test_gradients_reach_every_row_and_not_its_padding(pool):
    rows = (0.1 * torch.randn(4, 29_504, dtype=torch.float64)).requires_grad_()
    class_ids = [3, 0, 2, 0]
    pool.run(rows, class_ids, torch.randn(B, *SMALL[0], dtype=torch.float64)).square().sum().backward()
    for gradient, class_id in zip(rows.grad, class_ids):
        end = pool[class_id].num_parameters
        assert (gradient[:end] != 0).any() and (gradient[end:] == 0).all()


def test_groups_are_by_class_id_with_the_instances_indices(pool):
    assert [(net.name, indices) for net, indices in pool.groups([2, 0, 2])] == [("lenetlike", [1]), ("resnet8", [0, 2])]
    assert len(pool) == 4 and pool.num_parameters["resnet8"] == 5058 and pool.takes_images
    assert not TargetNets.sirens([3, 8, 1]).takes_images


# Architectures of one's own


class Own(nn.Module):
    """A conv, something that a subclass does with the image x and the maps y, and a linear layer over 4 means."""

    def __init__(self, image_shape, num_classes, fused=False):
        super().__init__()
        self.conv1 = layers.Conv2d(image_shape[0], 4, 3, 1, 1, bias=fused)
        self.bn1 = nn.Identity() if fused else layers.BatchNorm2d(4)
        self.add(*image_shape)
        self.fc = layers.Linear(4, num_classes)

    def add(self, channels, height, width):
        """Add layers."""

    def forward(self, x):
        y = F.leaky_relu_(self.bn1(self.conv1(x)))
        return self.fc(self.between(x, y).mean((2, 3)))

    def between(self, x, y):
        return y


class Concatenates(Own):
    def add(self, *image):
        self.conv2 = layers.Conv2d(4, 3, 1)
        self.conv3 = layers.Conv2d(4 + 3, 4, 1)

    def between(self, x, y):
        return F.relu(self.conv3(torch.cat([y, torch.relu(self.conv2(y))], 1)))


class AveragesChannels(Own):
    def between(self, x, y):
        return y - y.mean(1, keepdim=True) ** 2


class AttendsToChannels(Own):
    def between(self, x, y):
        return y * y.mean((2, 3), keepdim=True).softmax(1)


class AddsTheImage(Own):
    def add(self, channels, *sides):
        self.conv2 = layers.Conv2d(4, channels, 3, 1, 1)
        self.conv3 = layers.Conv2d(channels, 4, 1)

    def between(self, x, y):
        return self.conv3(torch.relu(self.conv2(y)) + x)


class WithGroupNorm(Own):
    def add(self, *image):
        self.norm = nn.GroupNorm(2, 4)

    def between(self, x, y):
        return self.norm(y).relu()


class WithDepthwiseConv(Own):
    def add(self, *image):
        self.depthwise = nn.Conv2d(4, 4, 3, 1, 1, groups=4)

    def between(self, x, y):
        return self.depthwise(y).relu()


class WithLayerNorm(Own):
    def add(self, channels, *sides):
        self.norm = nn.LayerNorm([4, *sides])

    def between(self, x, y):
        return self.norm(y).relu()


class WithPytorchsConv(Own):
    def add(self, *image):
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1)

    def between(self, x, y):
        return self.conv2(y).relu()


class WithABuffer(Own):
    def add(self, *image):
        self.register_buffer("scale", torch.tensor([1.0, 2.0, -1.0, 0.5]), persistent=False)

    def between(self, x, y):
        return torch.tanh(y * self.scale[:, None, None])


def own_net(constructor, image_shape=(3, 8, 8), **how):
    return TargetNet(
        Architecture("own", None, "own;d9", partial(constructor, **how), has_batch_norm=True), image_shape, 5
    )


FOREIGN = [
    Concatenates,
    AveragesChannels,
    AttendsToChannels,
    AddsTheImage,
    WithGroupNorm,
    WithDepthwiseConv,
    WithLayerNorm,
    WithPytorchsConv,
    WithABuffer,
]


@pytest.mark.parametrize("constructor", FOREIGN)
def test_what_would_mix_folded_instances_is_computed_by_vmap(constructor):
    """In `run`, on common and on own images, in training, and fused, against instances alone."""
    net = own_net(constructor)
    assert not net.folds
    net.trained.double(), net.fused.double()
    state = {name: value.double() for name, value in net.start(range(M)).items() if value.is_floating_point()}
    state = spread_out(state, seed=1)
    images = torch.randn(M, B, 3, 8, 8, dtype=torch.float64)

    def build():
        return net.architecture.build((3, 8, 8), 5)

    counted = {**state, "bn1.num_batches_tracked": torch.zeros(M)}
    for shown in (images, images[0]):
        assert_trains_as_alone(net, build, counted, shown, "vmap")
        for i, logits in enumerate(net.run(net.fuse(state), shown)):
            alone = plain_net(build, counted, i).eval()
            torch.testing.assert_close(logits, alone(shown[i] if shown.dim() == 5 else shown))
            torch.testing.assert_close(net.module(net.fuse(state)[i])(images[0]), alone(images[0]))


@pytest.mark.parametrize("constructor", [Concatenates, WithGroupNorm])
def test_such_instances_train_side_by_side_as_one_by_one(constructor):
    net = own_net(constructor)
    net.trained.double()
    state = {
        name: value.double() if value.is_floating_point() else value for name, value in net.start(range(M)).items()
    }
    ensemble = Ensemble(net, state, partial(torch.optim.Adam, lr=1e-2))
    batches = [(torch.randn(M, B, 3, 8, 8).double(), torch.randint(5, (M, B))) for _ in range(3)]
    for x, y in batches:
        ensemble.step(x, y)
    for i in range(M):
        alone = plain_net(lambda: net.architecture.build((3, 8, 8), 5), state, i).train()
        optimizer = torch.optim.Adam(alone.parameters(), 1e-2)
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(alone(x[i]), y[i]).backward()
            optimizer.step()
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(ensemble.state()[name][i], value)


def test_layers_of_this_project_alone_are_folded():
    assert own_net(Own).folds


class WithPytorchsBatchNorm(Own):
    def add(self, *image):
        self.norm = nn.BatchNorm2d(4)


class WithACounter(Own):
    def add(self, *image):
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))


class WithoutVmap(Own):
    def between(self, x, y):
        return y * y.sum().item()


class Renamed(Own):
    def __init__(self, image_shape, num_classes, fused=False):
        super().__init__(image_shape, num_classes, fused)
        self.norm = self.bn1
        del self.bn1


class WithoutBias(Own):
    def __init__(self, image_shape, num_classes, fused=False):
        super().__init__(image_shape, num_classes, fused)
        self.conv1 = layers.Conv2d(image_shape[0], 4, 3, 1, 1, bias=False)


@pytest.mark.parametrize(
    ("constructor", "names"),
    [
        (WithPytorchsBatchNorm, "norm.running_"),  # a row would lose its statistics
        (WithACounter, "'order'"),
        (WithoutVmap, "own"),
        (Renamed, "'norm'"),
        (WithoutBias, "'conv1.bias'"),
    ],
)
def test_nets_that_cannot_be_used_are_refused_before_any_is_trained(constructor, names):
    with pytest.raises(InputError, match=re.escape(names)):
        own_net(constructor)


def test_an_architecture_without_hidden_channels_is_refused_with_the_flag_that_does_without():
    with pytest.raises(InputError, match="own.*--no-reorder-channels"):
        own_net(Own).hidden_channels()


def test_an_architecture_of_ones_own_is_one_registry_entry(monkeypatch):
    own = Architecture("own", 4, "own;d4", Concatenates, has_batch_norm=True)
    monkeypatch.setitem(ARCHITECTURES, "own", own)
    nets = TargetNets.on_images(architectures_by_class_id(), *SMALL)
    assert nets.names[-1] == "own" and len(interpolation_factors(len(nets))) == 3
    rows = torch.zeros(2, nets[3].num_parameters)
    rows[0, : nets[4].num_parameters] = nets[4].fuse(nets[4].start([0]))[0]
    images = torch.randn(2, *SMALL[0])
    torch.testing.assert_close(nets.run(rows, [4, 0], images)[0], nets[4].module(rows[0])(images))


# Training


@pytest.mark.parametrize(
    "make_optimizer",
    [lambda p: torch.optim.Adam(p, 1e-2), lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-3)],
    ids=["adam", "sgd"],
)
def test_training_side_by_side_is_training_one_by_one(make_optimizer):
    """Five steps; instance 1 leaves after the second, and the others continue as if it had never been there."""
    net, state = instances_in_float64("resnet8", *SMALL, m=M)
    batches = [(torch.randn(M, B, *SMALL[0], dtype=torch.float64), torch.randint(10, (M, B))) for _ in range(5)]
    ensemble = Ensemble(net, state, make_optimizer)
    for step, (images, labels) in enumerate(batches):
        staying = [0, 1, 2] if step < 2 else [0, 2]
        if step == 2:
            ensemble.select(torch.tensor(staying))
        ensemble.step(images[staying], labels[staying])
    together = ensemble.state()
    for index, i in enumerate([0, 2]):
        alone = plain_net(lambda: ARCHITECTURES["resnet8"].build(*SMALL), state, i).train()
        optimizer = make_optimizer(list(alone.parameters()))
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(alone(images[i]), labels[i]).backward()
            optimizer.step()
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(together[key][index], value, msg=lambda text, key=key: f"{key}: {text}")


def test_fitting_sirens_side_by_side_at_falling_rates_is_fitting_alone():
    net = TargetNet(siren((3, 7, 5, 1)))
    state = {name: value.double() for name, value in net.start(range(M)).items()}
    rates = [1e-2, 5e-3, 1e-3]
    points, distances = torch.rand(3, M, 20, 3).double(), torch.rand(3, M, 20).double()  # (step, M, B)
    ensemble = Ensemble(net, state, lambda rows: torch.optim.Adam(rows, rates[0]), squared_errors)
    for step, rate in enumerate(rates):
        ensemble.set_learning_rate(rate)
        ensemble.step(points[step], distances[step])
    for i in range(M):
        alone = plain_net(lambda: siren((3, 7, 5, 1)).build((3,), 1), state, i)
        optimizer = torch.optim.Adam(alone.parameters(), rates[0])
        for step, rate in enumerate(rates):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            (alone(points[step, i]) - distances[step, i]).square().mean().backward()
            optimizer.step()
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(ensemble.state()[name][i], value)


def test_one_instance_in_float32_is_the_first_of_two():
    """A ResNet8 alone goes through PyTorch's convs, two of them through convs with groups."""
    net = TargetNet(ARCHITECTURES["resnet8"], *SMALL)
    state = net.start([0, 1])
    images, labels = torch.randn(10, 2, 128, *SMALL[0]), torch.randint(10, (10, 2, 128))
    alone, both = (
        Ensemble(net, {key: value[:m] for key, value in state.items()}, lambda p: torch.optim.SGD(p, 1e-2))
        for m in (1, 2)
    )
    for x, y in zip(images, labels):
        alone.step(x[:1], y[:1])
        both.step(x, y)
    for key, value in alone.state().items():
        torch.testing.assert_close(value[0], both.state()[key][0], rtol=1e-3, atol=1e-4)
