"""NetSpace written the straightforward way: what the fast paths are compared with, in speed here and in numbers by
tests/test_fast_paths.py.

PyTorch's layers in its default memory layout, one net after the other, each with an optimizer of its own in training; one
embedding after the other through the teacher (which the original release runs again for every net and every pair); every
loss read back as it comes. No step of the maths is left out or added.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models import lenet_like, resnet, vanilla_cnn
from models.architecture_pool import ArchitecturePool
from models.class_id_classifier import ClassIdClassifier
from models.decoder import Decoder
from models.encoder import Encoder
from models.instances import ArchitectureOnImages
from models.prep import Layout
from models.prep_autoencoder import PrepAutoencoder
from models.siren import FREQUENCY, SirenNets

State = dict[str, Tensor]  # of one net


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """Batch norm in training, where the net still has it. Updates the running statistics in place."""
    if f"{name}.running_mean" not in state:
        return x
    mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training=True)


def run_lenet_like(state: State, x: Tensor) -> Tensor:
    for i, (_, _, stride, padding) in enumerate(lenet_like.SIZES[x.shape[-1]][0], start=1):
        x = F.leaky_relu(conv(state, f"conv{i}", x, stride, padding))
    x = F.leaky_relu(linear(state, "fc1", x.flatten(1)))
    return linear(state, "fc3", F.leaky_relu(linear(state, "fc2", x)))


def run_vanilla_cnn(state: State, x: Tensor) -> Tensor:
    sizes = vanilla_cnn.SIZES[x.shape[-1]]
    for i, (_, stride) in enumerate(sizes):
        x = F.leaky_relu(conv(state, f"layers.{2 * i}", x, stride))
    return linear(state, f"layers.{2 * len(sizes) + 1}", x.flatten(1))


def run_resnet(state: State, x: Tensor) -> Tensor:
    pool = resnet.SIZES[x.shape[-1]][1]
    x = F.leaky_relu(norm(state, "bn1", conv(state, "conv1", x)))
    for stage in (1, 2, 3):
        blocks = sum(name.startswith(f"layer{stage}.") and name.endswith(".conv1.weight") for name in state)
        for i in range(blocks):
            block, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            out = F.leaky_relu(norm(state, f"{block}.bn1", conv(state, f"{block}.conv1", x, stride)))
            out = norm(state, f"{block}.bn2", conv(state, f"{block}.conv2", out))
            if f"{block}.downsample.0.weight" in state:
                shortcut = conv(state, f"{block}.downsample.0", x[:, :, ::stride, ::stride].contiguous(), padding=0)
                x = norm(state, f"{block}.downsample.1", shortcut)
            x = F.leaky_relu(out + x)
    return linear(state, "fc", F.avg_pool2d(x, pool).flatten(1))


def run_net(name: str, state: State, images: Tensor) -> Tensor:
    """Logits (B, classes) of one net of an architecture, its state dict given, on images (B, C, S, S)."""
    run = {"lenetlike": run_lenet_like, "vanilla_cnn": run_vanilla_cnn}.get(name, run_resnet)
    return run(state, images.contiguous())


def run_siren(state: State, points: Tensor) -> Tensor:
    """Signed distances (B,) of one SIREN at points (B, 3)."""
    layers = [name.removesuffix(".weight") for name in state if name.endswith("weight")]
    for name in layers[:-1]:
        points = torch.sin(FREQUENCY * linear(state, name, points))
    return linear(state, layers[-1], points).squeeze(-1)


def state_of(layout: Layout, row: Tensor) -> State:
    """A row (P,) as the state dict of one net."""
    return {name: value[0] for name, value in layout.unflatten(row[None]).items()}


def encode(encoder: Encoder, preps: Tensor) -> Tensor:
    """PReps (M, 1, H, W) to embeddings (M, E), as drawn in the paper's Fig. 1."""
    x = preps
    for layer, stride, padding in (
        (encoder.conv1[0], (1, 2), (0, 1)),
        (encoder.conv2[0], (1, 2), (0, 1)),
    ):
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, stride, padding))
    x = x.amax(dim=3, keepdim=True)
    for layer in (encoder.conv3[0], encoder.conv4[0]):
        x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, 1, (1, 0)))
    return x.amax(dim=2).flatten(1)


def decode(decoder: Decoder, embeddings: Tensor) -> Tensor:
    """Embeddings (M, E) to PReps (M, 1, H, W), as drawn in the paper's Fig. 1."""
    m = len(embeddings)
    convs = [getattr(decoder, f"conv{i}")[0] for i in (1, 2, 3, 4)]
    shapes = [(-1, decoder.grid, decoder.grid), decoder.rows, decoder.half_rows]
    x = embeddings
    for layer, shape in zip(convs, shapes):
        x = F.leaky_relu(F.conv2d(x.reshape(m, *shape), layer.weight, layer.bias, 2, 1))
    x = F.conv2d(x, convs[3].weight, convs[3].bias, 1, 1).reshape(m, 1, *decoder.prep_shape)
    return x * decoder.scalelayer.scale + decoder.scalelayer.bias


def classify(classifier: ClassIdClassifier, embeddings: Tensor) -> Tensor:
    """Embeddings (M, E) to ClassId logits (M, A)."""
    x = embeddings.reshape(len(embeddings), -1, classifier.grid, classifier.grid)
    return classifier.arch_classifier(F.leaky_relu(classifier.arch_conv(x)).flatten(1))


def divergence(predicted: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """KL(wanted || predicted) at a temperature, times its square, mean over images: logits (B, classes) to a scalar."""
    p, t = F.log_softmax(predicted / temperature, dim=1), F.softmax(wanted / temperature, dim=1)
    return F.kl_div(p, t, reduction="batchmean") * temperature**2


def single_loss(
    net_space: PrepAutoencoder,
    nets: ArchitectureOnImages,
    rows: Tensor,
    preps: Tensor,
    images: Tensor,
    temperature: float,
) -> Tensor:
    """Eq. 1 for M targets, rows (M, P) and PReps (M, 1, H, W), on images (B, C, S, S): a scalar."""
    name, losses, told = nets.architecture.name, [], 0.0
    predicted = decode(net_space.decoder, encode(net_space.encoder, preps)).flatten(1)
    for target_row, predicted_row in zip(rows, predicted):
        with torch.no_grad():
            target = run_net(name, state_of(nets.layout, target_row), images)
        logits = run_net(name, state_of(nets.layout, predicted_row[: nets.num_parameters]), images)
        losses.append(divergence(logits, target, temperature))
        told += losses[-1].item()
    return torch.stack(losses).mean()


def multi_loss(
    net_space: PrepAutoencoder,
    pool: ArchitecturePool,
    teacher: tuple[ArchitectureOnImages, Tensor],
    preps: Tensor,
    class_ids: list[int],
    images: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
) -> Tensor:
    """Eq. 11 and 12 for M targets: a scalar. `teacher` is its nets and its row (P,).

    Instances are built with the architecture that is wished of them, so that what a step costs is known.
    """
    embeddings = encode(net_space.encoder, preps)
    shown = list(zip(embeddings, class_ids))
    highest = len(pool) - 1
    for low, low_id in zip(embeddings, class_ids):
        for high, high_id in zip(embeddings, class_ids):
            if (low_id, high_id) == (0, highest):
                factors = [(i / highest, i) for i in range(1, highest)]
                shown += [((1 - gamma) * low + gamma * high, i) for gamma, i in factors]
    total, told = torch.zeros((), dtype=preps.dtype, device=preps.device), 0.0
    for embedding, class_id in shown:
        nets, (teacher_nets, teacher_row) = pool[class_id], teacher
        class_logits = classify(net_space.classifier, embedding[None])
        row = decode(net_space.decoder, embedding[None]).flatten()[: nets.num_parameters]
        predicted = run_net(nets.architecture.name, state_of(nets.layout, row), images)
        with torch.no_grad():
            state = state_of(teacher_nets.layout, teacher_row)
            wanted = run_net(teacher_nets.architecture.name, state, images)
        loss = alpha * divergence(predicted, wanted, temperature) + (1 - alpha) * F.cross_entropy(predicted, labels)
        loss = loss + F.cross_entropy(class_logits, torch.tensor([class_id], device=preps.device))
        total = total + loss
        told += loss.item()
    return total


def sdf_loss(net_space: PrepAutoencoder, nets: SirenNets, rows: Tensor, preps: Tensor, points: Tensor) -> Tensor:
    """Eq. 2 for M targets, rows (M, P) and PReps (M, 1, H, W), each at its own points (M, B, 3): a scalar."""
    losses, told = [], 0.0
    predicted = decode(net_space.decoder, encode(net_space.encoder, preps)).flatten(1)
    for target_row, predicted_row, x in zip(rows, predicted, points):
        with torch.no_grad():
            target = run_siren(state_of(nets.layout, target_row), x)
        losses.append(F.mse_loss(run_siren(state_of(nets.layout, predicted_row[: nets.num_parameters]), x), target))
        told += losses[-1].item()
    return torch.stack(losses).mean()


class OneByOne:
    """Nets in training, each with its own parameters and optimizer: states and what to run, one after the other."""

    def __init__(self, run: Callable[[State, Tensor], Tensor], layout: Layout, states: list[State], rate: float):
        self.run = run
        self.states = [{name: value.clone() for name, value in state.items()} for state in states]
        trained = [[state[name].requires_grad_() for name in layout.names] for state in self.states]
        self.optimizers = [torch.optim.Adam(parameters, rate) for parameters in trained]

    def step(self, inputs: Tensor, wanted: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        """One step of every net on its own inputs (M, B, ...) and what is wanted of them (M, B). Returns losses."""
        losses = []
        for state, optimizer, x, y in zip(self.states, self.optimizers, inputs, wanted):
            each = loss(self.run(state, x), y)
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
            losses.append(each.item())
        return losses


@torch.no_grad()
def accuracies(nets: ArchitectureOnImages, rows: Tensor, images: Tensor, labels: Tensor, batch: int) -> list[float]:
    """Percent of images (N, C, S, S) that each instance, rows (M, P), classifies correctly."""
    percent = []
    for row in rows:
        state, right = state_of(nets.layout, row), 0
        for x, y in zip(images.split(batch), labels.split(batch)):
            right += (run_net(nets.architecture.name, state, x).argmax(1) == y).sum().item()
        percent.append(100 * right / len(labels))
    return percent
