"""Batch norm for nets that have none, or whose statistics are not their own (SANE Sec. 2: batch norm conditioning).

    rows  --unfused-->  states, statistics 0 and 1  --condition-->  their own statistics, measured on images
    rows  --renormalized-->  states of the same function, batch norm as after training

A row is a net with batch norm fused. It can be trained again once it has batch norm, and a net of decoded weights works better
with statistics of its own activations than with those of others.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.instances import TargetNet, run_instances
from models.layers import BatchNorm2d
from models.rows import conv_before

States = dict[str, Tensor]
Moments = tuple[Tensor, Tensor]  # mean and variance of channels, (M, C)


def norms_of(net: TargetNet) -> dict[str, BatchNorm2d]:
    """Return the batch norms of a net's trained form, by name."""
    return {name: module for name, module in net.trained.named_modules() if isinstance(module, BatchNorm2d)}


def unfused(net: TargetNet, rows: Tensor) -> States:
    """Return trained-form states (M, *shape) of the functions of rows (M, P): batch norms that only add the fused biases."""
    fused = net.layout.unflatten(rows[:, : net.num_parameters])
    states = {name: value.clone() for name, value in fused.items() if name in net.trained_layout.names}
    for name, norm in norms_of(net).items():
        bias = fused[f"{conv_before(name)}.bias"]
        states[f"{name}.weight"] = torch.full_like(bias, (1 + norm.eps) ** 0.5)
        states[f"{name}.bias"] = bias.clone()
        states |= _statistics(name, (torch.zeros_like(bias), torch.ones_like(bias)), 0)
    return states


@torch.no_grad()
def renormalized(net: TargetNet, rows: Tensor, batches: Sequence[Tensor]) -> States:
    """Return trained-form states (M, *shape) of the functions of rows (M, P), whose batch norms normalize.

    The mean and variance of every conv's outputs over all images, batches (B, C, S, S), become the running statistics and, with
    the opposite effect, beta and gamma. So the function stays, and training starts from statistics that batches have too: nets of
    a zoo go on as if their own batch norm had never been fused. From `unfused` states they lose 8 points in the first epoch.
    """
    states, convs = unfused(net, rows), {name: conv_before(name) for name in norms_of(net)}
    moments = _moments(net, net.layout.unflatten(rows[:, : net.num_parameters]), list(convs.values()), batches)
    for name, norm in norms_of(net).items():
        mean, var = moments[convs[name]]
        states |= _statistics(name, (mean - states[f"{name}.bias"], var), len(batches))
        states |= {f"{name}.weight": (var + norm.eps).sqrt(), f"{name}.bias": mean.clone()}
    return states


@torch.no_grad()
def condition(net: TargetNet, states: States, batches: Sequence[Tensor]) -> States:
    """Return trained-form states (M, *shape) with running statistics measured on images, batches (B, C, S, S).

    As in training, every layer sees activations that the batch's own statistics normalized before. The statistics are reset,
    and are the average over the batches, each weighted alike: PyTorch's cumulative average.
    """
    norms = norms_of(net)
    sums: dict[str, Tensor] = {}
    for x in batches:
        running = {name: torch.zeros_like(value) for name, value in states.items() if _is_statistic(name, norms)}
        net.run_in_training({**{name: states[name] for name in net.trained_layout.names}, **running}, x)
        sums = {name: sums.get(name, 0) + value for name, value in running.items()}  # momentum times those of the batch
    found = dict(states)
    for name, norm in norms.items():
        assert norm.momentum is not None  # its default
        mean, var = (sums[f"{name}.running_{each}"] / (norm.momentum * len(batches)) for each in ("mean", "var"))
        found |= _statistics(name, (mean, var), len(batches))
    return found


def conditioned(net: TargetNet, rows: Tensor, like: States, batches: Sequence[Tensor]) -> States:
    """Return trained-form states (M, *shape) with the weights of rows (M, P) and the activations of other nets.

    Every channel, before its activation function, gets the mean and variance that it has in `like`, M states that
    `renormalized` returned (REPAIR's correction); the statistics are measured on the images.
    """
    affine = {f"{name}.{each}" for name in norms_of(net) for each in ("weight", "bias")}
    states = unfused(net, rows)
    return condition(net, {name: like[name] if name in affine else value for name, value in states.items()}, batches)


def _is_statistic(name: str, norms: dict[str, BatchNorm2d]) -> bool:
    layer, _, entry = name.rpartition(".")
    return layer in norms and entry in ("running_mean", "running_var")


def _statistics(name: str, moments: Moments, batches: int) -> States:
    mean, var = moments
    tracked = torch.full((len(mean),), batches, dtype=torch.int64, device=mean.device)
    return {f"{name}.running_mean": mean, f"{name}.running_var": var, f"{name}.num_batches_tracked": tracked}


def _moments(net: TargetNet, fused: States, layers: list[str], batches: Sequence[Tensor]) -> dict[str, Moments]:
    """Return the moments of layers' outputs over all images of the batches, in the fused form."""
    m, total = len(next(iter(fused.values()))), sum(len(x) for x in batches)
    sums: dict[str, Tensor] = {}
    for x in batches:
        with _recorded(net.fused.to(x.device), layers) as recorded:
            run_instances(net.fused, fused, x, False, "channels" if net.folds else "alone")
        for name, found in recorded.items():
            # Of all instances at once, channels are instance by instance; of one after another, they follow one another too.
            sums[name] = sums.get(name, 0) + torch.cat(found, 1).view(2, m, -1) * (len(x) / total)
    moments = {}
    for name, (mean, square) in sums.items():
        var = (square - mean.square()).clamp(min=0)
        moments[name] = mean.to(fused[f"{name}.bias"]), var.to(fused[f"{name}.bias"])
    return moments


@contextlib.contextmanager
def _recorded(module: nn.Module, layers: list[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Record the means of what layers return and of its squares, (2, C) float64, within this context.

    They are taken at once: an activation function may work in place.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def record(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        values = output.double()
        found[name].append(torch.stack([each.mean((0, 2, 3)) for each in (values, values.square())]))

    hooks = [module.get_submodule(name).register_forward_hook(partial(record, name)) for name in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
