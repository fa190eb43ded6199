"""A training run in its folder: what it goes on from, what it keeps, what it tells."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.netspace import NetSpace
from training.checkpoints import (
    load_checkpoint,
    load_net_space,
    net_space_state,
    refuse_other_constants,
    save_checkpoint,
)
from training.distributed import is_first, start_alike
from training.logs import ScalarLog


def constants_of_run(config: Any) -> dict[str, Any]:
    """What must agree for a run to be resumed; with a higher goal, and at a constant rate, it may also go on for longer."""
    free = {"folders", "validate_every", "goal"} | ({"num_epochs"} if config.schedule == "constant" else set())
    return {name: value for name, value in asdict(config).items() if name not in free}


class Run:
    """NetSpace in training. Makes the last checkpoint in `folder`, if there is one, the state of its modules.

    `folder` gets `last.pt` to resume from, `best.pt` (the lowest score, or the highest) to use, `scalars.jsonl` and
    `tensorboard/`.
    Only the first rank writes. Raises InputError if the checkpoint was made with other constants.
    """

    def __init__(
        self,
        folder: Path,
        constants: dict[str, Any],
        net_space: NetSpace,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        highest_is_best: bool = False,
    ):
        self.folder, self.constants = folder, constants
        self.net_space, self.optimizer, self.scheduler = net_space, optimizer, scheduler
        self.highest_is_best = highest_is_best
        self.epoch, self.step, self.best_score = 0, 0, float("-inf" if highest_is_best else "inf")
        self.scalars: ScalarLog | None = None
        last = folder / "last.pt"
        if last.is_file():
            saved = load_checkpoint(last, "the script that trains it")
            refuse_other_constants(last, saved["constants"], constants)
            load_net_space(net_space, saved, last)
            optimizer.load_state_dict(saved["2"])
            scheduler.load_state_dict(saved["scheduler"])
            self.epoch, self.step, self.best_score = saved["epoch"], saved["step"], saved["best_score"]
        start_alike(net_space, self.step)

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
        state = {
            "constants": self.constants,
            "sizes": asdict(self.net_space.sizes),
            "epoch": self.epoch,
            "step": self.step,
            "best_score": self.best_score,
            **net_space_state(self.net_space),
        }
        if best:
            save_checkpoint(self.folder / "best.pt", state)
        save_checkpoint(
            self.folder / "last.pt",
            {**state, "2": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()},
        )
