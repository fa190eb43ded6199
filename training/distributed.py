"""Ranks: one script in several processes, started by torchrun, one for each GPU (docs/distributed.md).

Without torchrun there is one rank, which does all the work.
"""

import os
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.errors import InputError, brief

# How long a rank waits for the others before it gives up: longer than loading images takes, or writing a checkpoint.
TIMEOUT = timedelta(minutes=15)


def variable(name: str, default: int) -> int:
    """Return a number that torchrun, or whoever starts the ranks, gives in the environment. Raise InputError for another text."""
    text = os.environ.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InputError(f"the environment variable {name} is '{brief(text)}', expected a whole number; unset it")
    return int(text)


def rank() -> int:
    """Return this process's number among all. Raise InputError if it is none of theirs."""
    found, number = variable("RANK", 0), num_ranks()
    if found >= number:
        raise InputError(
            f"the environment variable RANK is {found}, expected less than WORLD_SIZE, {number}; unset both"
        )
    return found


def num_ranks() -> int:
    """Return the number of processes."""
    return max(variable("WORLD_SIZE", 1), 1)


def local_rank() -> int:
    """Return this process's number among those of its machine."""
    return variable("LOCAL_RANK", 0)


def is_first() -> bool:
    """Return whether this rank writes the files and prints."""
    return rank() == 0


def end_with_parent() -> None:
    """Let a rank that torchrun started end with it, however that ends: alone it would keep its folder's lock."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # ranks of a shell may outlive it
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.write(2, f"error (rank {rank()}): torchrun has ended; run the same command again to resume\n".encode())
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def hide_bar() -> bool | None:
    """Return tqdm's `disable`: None on the first rank, which shows a bar in a terminal; True on the others."""
    return None if is_first() else True


def rank_slice() -> slice:
    """Return this rank's part of any sequence: every R-th element, from the rank's number on. It may be empty."""
    return slice(rank(), None, num_ranks())


def start_from_first_rank(module: nn.Module, step: int) -> None:
    """Copy the first rank's parameters to all ranks, at the start of training.

    Raise InputError unless all ranks start from the same step.
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
            f"ranks start from steps {', '.join(str(int(each)) for each in steps)}; give all machines the same --runs-dir"
        )
    for value in module.state_dict().values():
        dist.broadcast(value, src=0)


def join(backend: str) -> None:
    """Join the process group that torchrun describes."""
    store, number, of = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The agent's store outlives a restart, with the addresses of processes that have ended.
        store = dist.PrefixStore(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=number, world_size=of, timeout=TIMEOUT)


def sum_gradients(module: nn.Module) -> None:
    """Replace every gradient by its sum over ranks; a rank without gradients adds zeros."""
    if num_ranks() == 1:
        return
    parameters = list(module.parameters())
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters])):
        parameter.grad = gradient.view_as(parameter)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum a tensor over ranks, in place, and return it."""
    if num_ranks() > 1:
        dist.all_reduce(values)
    return values


def leave() -> None:
    """Leave the process group, at the end of a script that did not fail. If one fails, torchrun ends the others."""
    if dist.is_initialized():
        dist.destroy_process_group()
