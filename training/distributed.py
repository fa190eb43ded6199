"""Ranks: one script in several processes, started by torchrun, one for each GPU (docs/distributed.md).

Without torchrun there is one rank, which has all the work and waits for nobody.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.errors import InputError

# How long a rank waits for the others before it gives up: longer than loading images takes, or writing a checkpoint.
TIMEOUT = timedelta(minutes=15)


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def num_ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """Among the ranks of this machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_first() -> bool:
    """Whether this rank writes the files and speaks for all."""
    return rank() == 0


def hides_bar() -> bool | None:
    """tqdm's `disable`: True on all ranks but the first, there None: a bar if the output is a terminal."""
    return None if is_first() else True


def share() -> slice:
    """This rank's part of any sequence: every R-th, from its own number on. Empty if there are fewer than that."""
    return slice(rank(), None, num_ranks())


def start_alike(module: nn.Module, step: int) -> None:
    """Gives all ranks the parameters of the first, at the start of training.

    Raises InputError unless all go on from the same step.
    """
    if num_ranks() == 1:
        return
    device = next(module.parameters()).device
    if not dist.is_initialized():
        join("nccl" if device.type == "cuda" else "gloo")
    steps = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(num_ranks())]
    dist.all_gather(steps, torch.tensor(step, device=device))
    if len(set(map(int, steps))) > 1:
        raise InputError(
            f"ranks go on from steps {', '.join(str(int(each)) for each in steps)}; give all machines the same --runs-dir"
        )
    for value in module.state_dict().values():
        dist.broadcast(value, src=0)


def join(backend: str) -> None:
    store, number, of = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # It outlives a restart, with the addresses of processes that are gone (torch 2.12.0).
        store = dist.PrefixStore(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=of, timeout=TIMEOUT)


def sum_gradients(module: nn.Module) -> None:
    """Makes every gradient its sum over ranks, the same on all of them; a rank without gradients adds zeros."""
    if num_ranks() == 1:
        return
    parameters = list(module.parameters())
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters])):
        parameter.grad = gradient.view_as(parameter)


def sum_over_ranks(values: Tensor) -> Tensor:
    """A tensor's sum over ranks, in place."""
    if num_ranks() > 1:
        dist.all_reduce(values)
    return values


def leave() -> None:
    """At the end of a script that did not fail. Where it did, nobody waits: torchrun ends the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
