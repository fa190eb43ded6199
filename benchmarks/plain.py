"""NetSpace written the plain way: what the fast paths are compared with, in speed here and in numbers by
tests/test_fast_paths.py.

PyTorch's layers in its default memory layout, one net after the other, each with an optimizer of its own in training.
The teacher runs again for every embedding (the original release runs it for every net and every pair), and every loss
is read back as it comes. No step of the maths is left out or added.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.images import Batches, Images
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import ClassIdClassifier, Decoder, Encoder, PrepAutoencoder
from models.rows import Layout
from models.target_nets import lenet_like, resnet, vanilla_cnn
from models.target_nets.siren import FREQUENCY
from models.token_autoencoder import TokenAutoencoder
from training.constants import TokenViews
from training.stitches import StitchTraining

State = dict[str, Tensor]  # of one net


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state: State, name: str, x: Tensor) -> Tensor:
    """Compute batch norm in training, if the net has it, and update the running statistics in place."""
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


def run_net(name: str, state: State, inputs: Tensor) -> Tensor:
    """Return outputs of one net, from its state dict: logits (B, classes), or distances (B,) of a SIREN."""
    runs = {"lenetlike": run_lenet_like, "vanilla_cnn": run_vanilla_cnn, "siren": run_siren}
    return runs.get(name, run_resnet)(state, inputs.contiguous())


def run_siren(state: State, points: Tensor) -> Tensor:
    """Return signed distances (B,) of one SIREN at points (B, 3)."""
    layers = [name.removesuffix(".weight") for name in state if name.endswith("weight")]
    for name in layers[:-1]:
        points = torch.sin(FREQUENCY * linear(state, name, points))
    return linear(state, layers[-1], points).squeeze(-1)


def state_of(layout: Layout, row: Tensor) -> State:
    """Return a row (P,) as the state dict of one net."""
    return {name: value[0] for name, value in layout.unflatten(row[None]).items()}


def encode(encoder: Encoder, preps: Tensor) -> Tensor:
    """Map PReps (M, 1, H, W) to embeddings (M, E), as drawn in the paper's Fig. 1."""
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
    """Map embeddings (M, E) to PReps (M, 1, H, W), as drawn in the paper's Fig. 1."""
    m = len(embeddings)
    convs = [getattr(decoder, f"conv{i}")[0] for i in (1, 2, 3, 4)]
    shapes = [(-1, decoder.grid, decoder.grid), decoder.rows, decoder.half_rows]
    x = embeddings
    for layer, shape in zip(convs, shapes):
        x = F.leaky_relu(F.conv2d(x.reshape(m, *shape), layer.weight, layer.bias, 2, 1))
    x = F.conv2d(x, convs[3].weight, convs[3].bias, 1, 1).reshape(m, 1, *decoder.prep_shape)
    return x * decoder.scalelayer.scale + decoder.scalelayer.bias


def classify(classifier: ClassIdClassifier, embeddings: Tensor) -> Tensor:
    """Map embeddings (M, E) to ClassId logits (M, A)."""
    x = embeddings.reshape(len(embeddings), -1, classifier.grid, classifier.grid)
    return classifier.arch_classifier(F.leaky_relu(classifier.arch_conv(x)).flatten(1))


def pack(rows: Tensor, prep_shape: tuple[int, int]) -> Tensor:
    """Write rows (M, P) into PReps (M, 1, H, W), one line after the other."""
    preps = rows.new_zeros(len(rows), prep_shape[0] * prep_shape[1])
    preps[:, : rows.shape[1]] = rows
    return preps.view(-1, 1, *prep_shape)


def predict(model: PrepAutoencoder, rows: Tensor) -> Tensor:
    """Map rows (M, P) to rows (M, H*W) of predicted instances."""
    return decode(model.decoder, encode(model.encoder, pack(rows, model.prep_shape))).flatten(1)


def divergence(predicted: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Compute KL(target || predicted) at a temperature, times its square, mean over images of logits (B, classes)."""
    p, t = F.log_softmax(predicted / temperature, dim=1), F.softmax(target / temperature, dim=1)
    return F.kl_div(p, t, reduction="batchmean") * temperature**2


def single_loss(model: PrepAutoencoder, net: TargetNet, rows: Tensor, images: Tensor, temperature: float) -> Tensor:
    """Compute eq. 1 for M targets, rows (M, P), on images (B, C, S, S): a scalar, the mean over targets."""
    losses, shown = [], 0.0
    for target_row, predicted_row in zip(rows, predict(model, rows)):
        with torch.no_grad():
            target = run_net(net.name, state_of(net.layout, target_row), images)
        logits = run_net(net.name, state_of(net.layout, predicted_row[: net.num_parameters]), images)
        losses.append(divergence(logits, target, temperature))
        shown += losses[-1].item()
    return torch.stack(losses).mean()


def multi_loss(
    model: PrepAutoencoder,
    nets: TargetNets,
    teacher: tuple[TargetNet, Tensor],
    rows: Tensor,
    class_ids: list[int],
    images: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
) -> Tensor:
    """Compute eq. 11 and 12 for M targets, rows (M, P): a scalar. `teacher` is its net and its row (P,).

    Instances are built with the desired architecture, so that the cost of a step is known.
    """
    embeddings = encode(model.encoder, pack(rows, model.prep_shape))
    all_of_them = list(zip(embeddings, class_ids))
    highest = len(nets) - 1
    for low, low_id in zip(embeddings, class_ids):
        for high, high_id in zip(embeddings, class_ids):
            if (low_id, high_id) == (0, highest):
                factors = [(i / highest, i) for i in range(1, highest)]
                all_of_them += [((1 - gamma) * low + gamma * high, i) for gamma, i in factors]
    total, shown = torch.zeros((), dtype=rows.dtype, device=rows.device), 0.0
    for embedding, class_id in all_of_them:
        net, (teacher_net, teacher_row) = nets[class_id], teacher
        class_logits = classify(model.classifier, embedding[None])
        row = decode(model.decoder, embedding[None]).flatten()[: net.num_parameters]
        predicted = run_net(net.name, state_of(net.layout, row), images)
        with torch.no_grad():
            target = run_net(teacher_net.name, state_of(teacher_net.layout, teacher_row), images)
        loss = alpha * divergence(predicted, target, temperature) + (1 - alpha) * F.cross_entropy(predicted, labels)
        loss = loss + F.cross_entropy(class_logits, torch.tensor([class_id], device=rows.device))
        total = total + loss
        shown += loss.item()
    return total


def sdf_loss(model: PrepAutoencoder, net: TargetNet, rows: Tensor, points: Tensor) -> Tensor:
    """Compute eq. 2 for M targets, rows (M, P), each at its own points (M, B, 3): a scalar, the mean over targets."""
    losses, shown = [], 0.0
    for target_row, predicted_row, x in zip(rows, predict(model, rows), points):
        with torch.no_grad():
            target = run_siren(state_of(net.layout, target_row), x)
        losses.append(F.mse_loss(run_siren(state_of(net.layout, predicted_row[: net.num_parameters]), x), target))
        shown += losses[-1].item()
    return torch.stack(losses).mean()


class OneByOne:
    """Nets of one architecture in training, one after the other, each with its own parameters and Adam."""

    def __init__(self, name: str, layout: Layout, states: list[State], rate: float):
        self.name = name
        self.states = [{name: value.clone() for name, value in state.items()} for state in states]
        trained = [[state[name].requires_grad_() for name in layout.names] for state in self.states]
        self.optimizers = [torch.optim.Adam(parameters, rate) for parameters in trained]

    def step(self, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        """Take one step of every net on its own inputs (M, B, ...) and targets (M, B). Return losses."""
        losses = []
        for state, optimizer, x, y in zip(self.states, self.optimizers, inputs, targets):
            each = loss(run_net(self.name, state, x), y)
            optimizer.zero_grad()
            each.backward()
            optimizer.step()
            losses.append(each.item())
        return losses


@torch.no_grad()
def accuracies(net: TargetNet, rows: Tensor, images: Tensor, labels: Tensor, batch: int) -> list[float]:
    """Return the percentage of images (N, C, S, S) that each instance, rows (M, P), classifies right."""
    percent = []
    for row in rows:
        state, right = state_of(net.layout, row), 0
        for x, y in zip(images.split(batch), labels.split(batch)):
            right += (run_net(net.name, state, x).argmax(1) == y).sum().item()
        percent.append(100 * right / len(labels))
    return percent


# SANE


def sane_views(
    model: TokenAutoencoder, rows: Tensor, starts: list[int], views: TokenViews, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return shown and target windows (2B, W, D), masks and positions, made net by net and permutation by permutation."""
    shown, targets, masks, places = [], [], [], []
    for permuted in views.permuted:
        for row, start in zip(rows, starts):
            state = state_of(model.layout, row)
            if permuted:
                for channels in model.hidden:
                    order = torch.from_numpy(rng.permutation(len(state[f"{channels.made_by[0]}.bias"])))
                    for layer in channels.made_by:
                        for name in (f"{layer}.weight", f"{layer}.bias"):
                            state[name] = state[name][order]
                    for layer in channels.read_by:
                        weight = state[f"{layer}.weight"]
                        by_channel = weight.reshape(len(weight), len(order), -1)
                        state[f"{layer}.weight"] = by_channel[:, order].reshape(weight.shape)
            tokens, mask = sane_tokens(model, state)
            window = slice(start, start + model.sizes.window)
            targets.append(tokens[window])
            noise = torch.randn_like(tokens[window])
            shown.append(tokens[window] * (1 + views.token_noise * noise))
            masks.append(mask[window])
            places.append(model.positions[window])
    return torch.stack(shown), torch.stack(targets), torch.stack(masks), torch.stack(places)


def sane_tokens(model: TokenAutoencoder, state: State) -> tuple[Tensor, Tensor]:
    """Return the standardized tokens (T, D) of a state dict and their mask, layer by layer."""
    size = model.sizes.token_size
    tokens, masks = [], []
    for number, layer in enumerate(model.tokens.layers):
        mean, std = model.statistics[:, number]
        matrix = torch.cat([state[name].reshape(layer.channels, -1) for name in layer.names], 1)
        padding = (0, -matrix.shape[1] % size)
        tokens.append(F.pad((matrix - mean) / std, padding).reshape(-1, size))
        masks.append(F.pad(torch.ones_like(matrix), padding).reshape(-1, size) > 0)
    return torch.cat(tokens), torch.cat(masks)


# Stitching: one pair after another


def train_transforms(
    net: TargetNet, rows: Tensor, pairs: list[tuple[int, int]], point: str, images: Images, training: StitchTraining
) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of the transform of each pair, trained alone; both nets run at every step."""
    found = []
    for front, end in pairs:
        f, g = net.module(rows[front]).to(rows), net.module(rows[end]).to(rows)
        c = net.point_shape(point)[0]
        transform = (torch.nn.Conv2d(c, c, 1) if len(net.point_shape(point)) == 3 else torch.nn.Linear(c, c)).to(rows)
        with torch.no_grad():
            transform.weight.copy_(torch.eye(c).view_as(transform.weight))
            transform.bias.zero_()
        optimizer = torch.optim.Adam(transform.parameters(), training.learning_rate)
        batches = Batches(images, [(0,)], training.image_batch)
        steps = training.num_epochs * batches.per_pass
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step, steps)
            x = batches.shared(step)[0].to(rows).contiguous()
            with torch.no_grad():
                activations, target = f(x, until=point), g(x)
            logits = g(transform(activations), after=point)
            loss = F.cross_entropy(logits, target.softmax(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append((transform.weight.detach().view(c, c), transform.bias.detach()))
    return found


@torch.no_grad()
def least_squares(
    net: TargetNet, rows: Tensor, pairs: list[tuple[int, int]], points: list[str], x: Tensor
) -> list[list[Tensor]]:
    """Return [W b] (C, C+1) of each pair at each point, from all activations of both nets on images (B, C, S, S)."""
    found = []
    for front, end in pairs:
        both = [net.module(rows[i])(x.contiguous(), until=points) for i in (front, end)]
        found.append([])
        for one, other in zip(*both):
            a, b = (each.movedim(1, -1).flatten(0, -2).double() for each in (one, other))
            solution = torch.linalg.lstsq(F.pad(a, (0, 1), value=1.0), b).solution
            found[-1].append(solution.T)
    return found
