"""A training run in its folder: what it goes on from, what it keeps, what it tells."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import InputError
from models.prep_autoencoder import PrepAutoencoder
from training.checkpoints import (
    load_checkpoint,
    load_net_space,
    load_state,
    net_space_state,
    refuse_other_constants,
    save_checkpoint,
)
from training.distributed import is_first, num_ranks, start_alike, sum_gradients
from training.divergence import FirstBad
from training.interruption import must_stop, stop
from training.locks import hold
from training.logs import ScalarLog
from training.provenance import versions

COUNTS = ("epoch", "step", "best_score")
SETTINGS = {"distillation": "single", "weights": "weights"}  # folder of a NetSpace of one architecture, by objective


def constants_of_run(config: Any, **data: str) -> dict[str, Any]:
    """What must agree for a run to be resumed: constants, and fingerprints of what it is trained on, by name.

    With a higher goal, and at a constant rate, it may also go on for longer.
    """
    free = {"folders", "validate_every", "goal"} | ({"num_epochs"} if config.schedule == "constant" else set())
    return {name: value for name, value in asdict(config).items() if name not in free} | data


class Run:
    """NetSpace in training. Makes the last checkpoint in `folder`, if there is one, the state of its modules.

    `folder` gets `last.pt` to resume from, `best.pt` (the lowest score, or the highest) to use, `scalars.jsonl` and
    `tensorboard/`. `decodes`, which says what instances the PReps hold, goes into the checkpoints, for `NetSpace.load`.
    Only the first rank writes. Raises InputError if another process writes into the folder, or if the checkpoint was made
    with other constants or of other data.
    """

    def __init__(
        self,
        folder: Path,
        constants: dict[str, Any],
        decodes: dict[str, Any],
        net_space: PrepAutoencoder,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        highest_is_best: bool = False,
    ):
        self.folder, self.constants, self.decodes = folder, constants, decodes
        self.net_space, self.optimizer, self.scheduler = net_space, optimizer, scheduler
        self.highest_is_best = highest_is_best
        self.epoch, self.step, self.best_score = 0, 0, float("-inf" if highest_is_best else "inf")
        self.scalars: ScalarLog | None = None
        self.within: dict[str, Any] = {"steps": 0}  # of an epoch that was left: steps taken, sums over them
        if is_first():
            hold(folder)
        last = folder / "last.pt"
        if last.is_file():
            saved = load_checkpoint(last, "the script that trains it", ("constants", "2", "scheduler", *COUNTS))
            refuse_other_constants(last, saved["constants"], constants)
            load_net_space(net_space, saved, last)
            load_state(optimizer, saved["2"], last)
            load_state(scheduler, saved["scheduler"], last)
            self.epoch, self.step, self.best_score = (saved[name] for name in COUNTS)
            self.within = saved.get("within", self.within)
        start_alike(net_space, self.step)

    def steps(self, sums: Tensor, chosen: Tensor | Sequence[Sequence[int]], paths: Sequence[Path]) -> Iterator[int]:
        """Numbers the steps of an epoch, without those that were taken before the run was stopped in the middle of it.

        `sums`, which the caller adds to at every step, goes on from where it was. `chosen` and `paths` say which targets a
        step shows. On a signal the step at hand is finished, the state is saved, and Interrupted raised; where there are
        several ranks, who could not agree on a step, at once and without saving. Raises InputError after an epoch in which
        `sums` turned NaN or infinite.
        """
        if self.within["steps"] and is_first():  # what one rank saved is the sum over all
            sums.copy_(self.within["sums"])
        first_bad = FirstBad((), sums.device)
        for i in range(self.within["steps"], len(chosen)):
            self.stop_if_asked(i, sums, first_bad, chosen, paths)
            yield i
            first_bad.look(sums.sum(), i)
        self.stop_if_asked(len(chosen), sums, first_bad, chosen, paths)
        self.refuse_divergence(first_bad, chosen, paths)
        self.within = {"steps": 0}

    def descend(self, loss: Tensor, clip_norm: float) -> None:
        """One step of the optimizer, and of the rate, down a loss to which every rank adds its share."""
        self.optimizer.zero_grad()
        loss.backward()
        sum_gradients(self.net_space)
        torch.nn.utils.clip_grad_norm_(self.net_space.parameters(), clip_norm)
        self.optimizer.step()
        self.scheduler.step()

    def stop_if_asked(
        self,
        i: int,
        sums: Tensor,
        first_bad: FirstBad,
        chosen: Tensor | Sequence[Sequence[int]],
        paths: Sequence[Path],
    ) -> None:
        if num_ranks() == 1 and must_stop():
            self.refuse_divergence(first_bad, chosen, paths)
            self.save_last({**self.state(), "within": {"steps": i, "sums": sums}})
            stop()

    def refuse_divergence(
        self, first_bad: FirstBad, chosen: Tensor | Sequence[Sequence[int]], paths: Sequence[Path]
    ) -> None:
        i = int(first_bad.steps)
        if i >= 0:
            shown = ", ".join(str(paths[int(j)]) for j in chosen[i])
            raise InputError(
                f"the loss turned NaN or infinite at step {self.step + i} (epoch {self.epoch}), which showed {shown}; "
                f"lower --learning-rate or --clip-norm; last.pt and best.pt in {self.folder} are from before"
            )

    def log(self, scalars: dict[str, float]) -> None:
        """Writes scalars of the current step, over what an earlier, interrupted attempt wrote of it and later ones."""
        if not is_first():
            return
        if self.scalars is None:
            self.scalars = ScalarLog(self.folder, before_step=self.step)
        self.scalars.write(self.step, scalars)

    def save(self, score: float) -> None:
        """Writes the checkpoint, and the best one too if no score so far was as good."""
        best = score > self.best_score if self.highest_is_best else score < self.best_score
        self.best_score = score if best else self.best_score
        if not is_first():
            return
        if not all(parameter.isfinite().all() for parameter in self.net_space.parameters()):
            raise InputError(
                f"parameters turned NaN or infinite by step {self.step}; lower --learning-rate or --clip-norm; "
                f"last.pt and best.pt in {self.folder} are from before"
            )
        state = self.state()
        if best:
            save_checkpoint(self.folder / "best.pt", state)
        self.save_last(state)

    def state(self) -> dict[str, Any]:
        return {
            "constants": self.constants,
            "versions": versions(),
            "sizes": asdict(self.net_space.sizes),
            "decodes": self.decodes,
            **{name: getattr(self, name) for name in COUNTS},
            **net_space_state(self.net_space),
        }

    def save_last(self, state: dict[str, Any]) -> None:
        optimizer, scheduler = self.optimizer.state_dict(), self.scheduler.state_dict()
        save_checkpoint(self.folder / "last.pt", {**state, "2": optimizer, "scheduler": scheduler})
