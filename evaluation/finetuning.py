"""Fine-tuning nets of several origins side by side: the same steps, images and order for all, and their accuracies over epochs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from data.images import Batches, Images
from data.streams import stream
from evaluation.metrics import accuracy
from models.conditioning import States
from models.errors import InputError
from models.instances import TargetNet
from training.constants import Count, Positive
from training.distributed import hide_bar
from training.ensembles import Ensemble
from training.runtime import mixed_precision

Key = tuple[int, ...]

AT_ONCE = 1000  # images shown for statistics


@dataclass(frozen=True)
class FineTuning:
    """How nets are trained: by Adam, as the zoo."""

    image_batch: Count = 128  # B, images that a net sees in a step
    learning_rate: Positive = 2e-3  # Adam's; its peak if the schedule is one-cycle
    schedule: Literal["constant", "one-cycle"] = "constant"  # of the learning rate; the reference's is one-cycle
    side_by_side: Count = 132  # nets trained at once; fewer need less memory

    def epochs_of(
        self, net: TargetNet, states: States, keys: Sequence[Key], images: Images, epochs: Sequence[int]
    ) -> Iterator[States]:
        """Train M nets, states (M, *shape), and yield their states after each of the epochs, which ascend from 0.

        Nets of the same key see the same images in the same order. Raise InputError if a loss turns NaN or infinite.
        """
        distinct = list(dict.fromkeys(keys))
        which = torch.tensor([distinct.index(key) for key in keys], device=images.labels.device)
        batches = Batches(images, distinct, self.image_batch)
        adam = partial(torch.optim.Adam, lr=self.learning_rate, fused=True)
        ensemble = Ensemble(net, states, adam, precision=mixed_precision(images.labels.device, None))
        total = epochs[-1] * batches.per_pass
        cycle = (
            torch.optim.lr_scheduler.OneCycleLR(ensemble.optimizer, self.learning_rate, total_steps=total + 1)
            if self.schedule == "one-cycle"
            else None
        )
        with tqdm(total=total, desc=f"{len(keys)} {net.name}", unit=" steps", disable=hide_bar()) as bar:
            for step in range(total + 1):
                if step % batches.per_pass == 0 and step // batches.per_pass in epochs:
                    ensemble.refuse_divergence([Path(f"net {key[1]} of {net.name}") for key in keys])
                    yield ensemble.state()
                if step < total:
                    x, labels = batches.batch(step)
                    ensemble.step(x[which], labels[which])
                    if cycle:
                        cycle.step()
                    bar.update()

    def accuracies(
        self,
        net: TargetNet,
        states: dict[str, States],
        train: Images,
        test: Images,
        epochs: Sequence[int],
        seed: int,
    ) -> dict[str, Tensor]:
        """Return the accuracies (epochs, N) on `test` of every method's nets, states (N, *shape), trained on `train`.

        The i-th net of every method sees the same images in the same order.
        """
        sizes = [len(next(iter(each.values()))) for each in states.values()]
        keys = [key_of(seed, i) for size in sizes for i in range(size)]
        together = {name: torch.cat([each[name] for each in states.values()]) for name in next(iter(states.values()))}
        found = []
        for start in range(0, len(keys), self.side_by_side):
            part = slice(start, start + self.side_by_side)
            stack = {name: value[part] for name, value in together.items()}
            after = self.epochs_of(net, stack, keys[part], train, epochs)
            found.append(torch.stack([accuracy(net, net.fuse(state), test) for state in after]))
        return dict(zip(states, torch.cat(found, 1).split(sizes, dim=1)))


def check_epochs(epochs: Sequence[int]) -> None:
    """Raise InputError unless there are epochs and they ascend."""
    if not epochs or list(epochs) != sorted(set(epochs)):
        raise InputError(f"--epochs {' '.join(map(str, epochs))}: give some, in ascending order, as in 0 1 2 5 10")


def key_of(seed: int, number: int) -> Key:
    """Return the key of a net that is trained here; those of a zoo's nets have two numbers."""
    return seed, number, 1


def batches_of(images: Images, number: int, seed: int) -> list[Tensor]:
    """Return at most `number` images for statistics, drawn from all of them, (B, C, S, S) each."""
    order = torch.from_numpy(stream("images for statistics", seed).permutation(len(images))[:number])
    return [images.normalize(images.pixels[part]) for part in order.to(images.labels.device).split(AT_ONCE)]
