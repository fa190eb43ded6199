"""Whether a GPU computes what the CPU computes in float64: losses and gradients of every fast path, in each precision.

TF32 rounds the inputs of convs and matrix products to 10 bits. What that costs depends on the path: where a leaky ReLU's input is
nearly 0, rounding changes its side, and the gradient there by a factor of 100. So the CPU rounds them in float64 too, and a GPU
may have twice the error that this has.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import CIFAR10, PHOTOS
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import architectures_by_class_id, get_architecture, siren
from training.ensembles import Ensemble, cross_entropies, squared_errors
from training.graphs import COMPILED_PREP, Graphed, Graphs
from training.losses import distillation_losses, sdf_losses, teacher_losses
from training.runtime import Precision, mixed_precision

Found = tuple[Tensor, list[Tensor]]  # a loss, and what is compared beside it
Check = Callable[[torch.device, torch.dtype, Precision], Found]

LARGEST_LOSS_ERROR: dict[Precision, float] = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 5e-2}  # relative
LARGEST_GRADIENT_ERROR = 1e-4  # relative, in float32
LARGEST_MULTIPLE = 2  # of the relative error that rounding costs on the CPU, in TF32
SMALLEST_COSINE: dict[Precision, float] = {"float32": 0.9999, "tf32": 0.999, "bfloat16": 0.98}  # of gradients
TF32_BITS = 10  # of the mantissa, without the leading one
LARGE = Sizes((8, 10_000), emb_size=1024, grid=32, row_length=512, row_channels=32)
SMALL = Sizes((32, 936), emb_size=1024, grid=32, row_length=128, row_channels=32)


class Rounded(TorchDispatchMode):
    """A mode in which the inputs of convs and matrix products, which are float64, are rounded to TF32's bits."""

    PRODUCTS = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.PRODUCTS:
            first = 1 if name in ("addmm", "baddbmm") else 0  # after what is added
            args = (*args[:first], *(self.rounded(each) for each in args[first:]))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        mantissa, exponent = torch.frexp(value)  # in [0.5, 1)
        return torch.ldexp((mantissa * 2 ** (TF32_BITS + 1)).round(), exponent - (TF32_BITS + 1))


def started(sizes: Sizes, row: Tensor, num_class_ids: int | None = None) -> PrepAutoencoder:
    """Return an autoencoder that predicts instances near a row, so that gradients are of ordinary size."""
    model = PrepAutoencoder(sizes, num_class_ids)
    model.decoder.scalelayer.start_at(F.pad(row, (0, model.width - len(row))).view(sizes.prep_shape), 0.1)
    return model


def with_gradients(loss: Tensor, model: torch.nn.Module) -> Found:
    return loss, list(torch.autograd.grad(loss, list(model.parameters())))


def single(device: torch.device, dtype: torch.dtype, precision: Precision) -> Found:
    """Return loss and gradients of NetSpace on 3 ResNet8."""
    net = TargetNet(get_architecture("resnet8"), CIFAR10, 10)
    rows, x = net.fuse(net.start(range(3))), torch.randn(16, *CIFAR10)
    model = started(LARGE, rows[0]).to(device, dtype)

    def loss(rows: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = net.run(rows, x)
        return distillation_losses(net.run(model(rows), x), target, 4.0).mean()

    graphed = Graphed(loss, model, mixed_precision(device, precision), compiled=model.width >= COMPILED_PREP)
    return with_gradients(graphed(*(each.to(device, dtype) for each in (rows, x))), model)


def several(device: torch.device, dtype: torch.dtype, precision: Precision) -> Found:
    """Return loss and gradients of NetSpace on four architectures, of which ResNet8 is there twice."""
    nets = TargetNets.on_images(architectures_by_class_id(), PHOTOS, 10)
    class_ids, width = [0, 1, 2, 2, 3], max(nets.num_parameters.values())
    each = [nets[i].fuse(nets[i].start([i]))[0] for i in class_ids]
    rows = torch.stack([F.pad(row, (0, width - len(row))) for row in each])
    model = started(SMALL, rows[-1], len(nets)).to(device, dtype)
    x, teacher, labels = torch.randn(16, *PHOTOS), torch.randn(16, 10), torch.randint(10, (16,))
    rows, x, teacher = (each.to(device, dtype) for each in (rows, x, teacher))
    run = Graphs(model, nets, mixed_precision(device, precision))
    embeddings = run.encode(rows)
    logits = run.run(run.decode(embeddings), class_ids, x)
    loss = teacher_losses(logits, teacher, labels.to(device), 2.0, 0.9).sum()
    return with_gradients(loss + run.classify(embeddings).square().mean(), model)


def sirens(device: torch.device, dtype: torch.dtype, precision: Precision) -> Found:
    """Return loss and gradients of NetSpace on 3 SIRENs."""
    net = TargetNet(siren())
    rows, points, targets = net.fuse(net.start(range(3))), torch.rand(3, 1000, 3) * 2 - 1, torch.randn(3, 1000) / 10
    model = started(LARGE, rows[0]).to(device, dtype)

    def loss(rows: Tensor, points: Tensor, targets: Tensor) -> Tensor:
        return sdf_losses(net.run(model(rows), points), targets).sum()

    graphed = Graphed(loss, model, mixed_precision(device, precision), compiled=model.width >= COMPILED_PREP)
    return with_gradients(graphed(*(each.to(device, dtype) for each in (rows, points, targets))), model)


def training(name: str, m: int, device: torch.device, dtype: torch.dtype, precision: Precision) -> Found:
    """Return the losses of M instances at the third step of training, and their changes since the start.

    Adam's first steps would have the size of gradients' signs; so it is SGD.
    """
    net = TargetNet(siren()) if name == "siren" else TargetNet(get_architecture(name), PHOTOS, 10)
    if name == "siren":
        inputs, targets, rate, losses = (
            torch.rand(3, m, 32, 3) * 2 - 1,
            torch.randn(3, m, 32) / 10,
            0.03,
            squared_errors,
        )
        targets = targets.to(dtype)
    else:
        inputs, targets, rate, losses = (
            torch.randn(3, m, 32, *PHOTOS),
            torch.randint(10, (3, m, 32)),
            0.05,
            cross_entropies,
        )
    state = {
        key: value.to(device, dtype if value.is_floating_point() else None)
        for key, value in net.start(range(m)).items()
    }
    sgd, mixed = partial(torch.optim.SGD, lr=rate), mixed_precision(device, precision)
    ensemble = Ensemble(net, state, sgd, losses, mixed)
    before = ensemble.rows.detach().clone()
    for x, y in zip(inputs.to(device, dtype), targets.to(device)):
        found = ensemble.step(x, y)
    running = [value for value in ensemble.statistics.values() if value.is_floating_point()]
    return found.sum(), [ensemble.rows.detach() - before, *running]


CHECKS: dict[str, Check] = {
    "NetSpace, one architecture": single,
    "NetSpace, four architectures": several,
    "NetSpace, SIRENs": sirens,
    "5 ResNet8 in training": partial(training, "resnet8", 5),
    "16 VanillaCNN in training": partial(training, "vanilla_cnn", 16),
    "4 SIRENs in training": partial(training, "siren", 4),
}


def check_all(device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the errors of each path in each precision, relative to the CPU's in float64, and whether they are small."""
    cpu = torch.device("cpu")

    def run(check: Check, on: torch.device, dtype: torch.dtype, precision: Precision) -> tuple[float, Tensor]:
        torch.manual_seed(0)
        loss, found = check(on, dtype, precision)
        return loss.item(), torch.cat([each.detach().flatten() for each in found]).double().cpu()

    for name, check in CHECKS.items():
        exact_loss, exact = run(check, cpu, torch.float64, "float32")
        with Rounded():
            _, rounded = run(check, cpu, torch.float64, "float32")
        by_rounding = ((rounded - exact).norm() / exact.norm()).item()
        for precision in LARGEST_LOSS_ERROR:
            loss, found = run(check, device, torch.float32, precision)
            loss_error = abs(loss - exact_loss) / abs(exact_loss)
            error = ((found - exact).norm() / exact.norm()).item()
            cosine = F.cosine_similarity(found, exact, dim=0).item()
            good = loss_error <= LARGEST_LOSS_ERROR[precision] and cosine > SMALLEST_COSINE[precision]
            good &= precision != "float32" or error <= LARGEST_GRADIENT_ERROR
            good &= precision != "tf32" or error <= LARGEST_MULTIPLE * by_rounding
            errors = {"loss_error": loss_error, "gradient_error": error, "cosine": cosine, "by_rounding": by_rounding}
            yield {"path": name, "precision": precision, **errors, "good": good}


def check_moves(device: torch.device) -> dict[str, Any]:
    """Return whether instances in training continue as they would have after moving to the CPU, and back."""
    torch.manual_seed(0)
    net = TargetNet(get_architecture("lenetlike"), PHOTOS, 10)
    state, x, y = net.start(range(3)), torch.randn(3, 8, *PHOTOS), torch.randint(10, (3, 8))
    adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
    moving = Ensemble(net, {name: value.to(device) for name, value in state.items()}, adam)
    staying = Ensemble(net, state, adam)
    for place in (device, torch.device("cpu"), device):
        saved = moving.state_dict()
        moving = Ensemble(net, {name: value.to(place) for name, value in state.items()}, adam)
        moving.load_state_dict(saved)
        moving.step(x.to(place), y.to(place))
        staying.step(x, y)
    good = torch.allclose(moving.rows.detach().cpu(), staying.rows.detach(), rtol=1e-3, atol=1e-5)
    return {"path": "optimizer's state moved to the CPU and back", "good": good}
