"""A training run in its folder: a loop that counts steps, checkpoints from which it resumes, and scalars."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.files import appending, write_text
from data.texts import parse_json, read_lines
from models.errors import InputError, brief
from training.checkpoints import (
    load_checkpoint,
    load_model,
    load_state,
    model_entries,
    refuse_other_constants,
    save_checkpoint,
)
from training.constants import Optim
from training.distributed import hide_bar, is_first, num_ranks, start_from_first_rank, sum_gradients, sum_over_ranks
from training.events import EventFile
from training.runtime import check_lock, constants_of, deferred_signals, lock_folder, stop, stop_requested, versions

LOG_EVERY = 100  # steps between losses that are written and shown; each is read back from the device
MOST_SINCE = 10**7  # steps since the last line of scalars, in a checkpoint that is whole
CHECKPOINT_SECONDS = 600.0  # time between checkpoints if validations are rarer


class FirstBad:
    """The first step at which values were NaN or infinite, for each of `shape` values; -1 if there was none."""

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        self.steps = torch.full(shape, -1, dtype=torch.int64, device=device)

    def update(self, values: Tensor, step: int) -> None:
        """Note values of a step. Nothing is read back from the device."""
        self.steps = torch.where((self.steps < 0) & ~values.isfinite(), step, self.steps)


def run_constants(config: Any, **data: str) -> dict[str, Any]:
    """Return what must agree for a run to be resumed: constants, and fingerprints of the data it is trained on, by name.

    At a constant rate, `num_steps` may differ: a longer run continues a shorter one.
    """
    free = {"validate_every", "goal"} | ({"num_steps"} if config.optim.schedule == "constant" else set())
    return {name: value for name, value in constants_of(config).items() if name not in free} | data


class Run:
    """A model in training. If `folder` has a last checkpoint, the model, its optimizer and its schedule continue from it.

    `folder` gets `last.pt` to resume from, `best.pt` with the best score so far, `scalars.jsonl` and `tensorboard/`. `about`
    says which nets the model is for; it goes into the checkpoints. Only the first rank writes. Raise InputError if another
    process writes into the folder, or if the checkpoint was made with other constants or data.

        for step in run.steps(num_steps):
            ...
            run.descend(loss)
            if run.validates():
                run.save(score, val_error=score)
    """

    def __init__(
        self,
        folder: Path,
        constants: dict[str, Any],
        about: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        validate_every: int = 1,
        clip_norm: float = float("inf"),
        highest_is_best: bool = False,
    ):
        self.folder, self.constants, self.about = folder, constants, about
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.validate_every, self.clip_norm, self.highest_is_best = validate_every, clip_norm, highest_is_best
        self.step = 0  # steps taken
        self.best_score = float("-inf" if highest_is_best else "inf")
        self.sums: dict[str, Tensor] = {}  # of losses since the last line of scalars
        self.since = 0  # the step of that line
        self.shown: list[Sequence[Path]] = []  # the targets of the steps since then
        self.device = next(model.parameters()).device
        self.first_bad = FirstBad((), self.device)
        self.num_steps: int | None = None
        self.scalars: ScalarLog | None = None
        self.bar: tqdm | None = None
        self.last_saved = time.monotonic()
        self.best: dict[str, Any] | None = None  # the first rank's copy of best.pt
        if is_first():
            lock_folder(folder)
            events = folder / "tensorboard"
            if events.exists() and not events.is_dir():
                raise InputError(f"{events} is no folder, and TensorBoard's events go there; move it away")
        if (folder / "last.pt").is_file():
            self._resume(folder / "last.pt")
        start_from_first_rank(model, self.step)

    @classmethod
    def of(
        cls,
        folder: Path,
        constants: dict[str, Any],
        about: dict[str, Any],
        model: nn.Module,
        optim: Optim,
        highest_is_best: bool = False,
    ) -> "Run":
        """Return the run of an autoencoder with the group `optim`."""
        every, clip = optim.validate_every, optim.clip_norm
        return cls(folder, constants, about, model, *optim.start(model), every, clip, highest_is_best)

    def steps(self, num_steps: int | None = None) -> Iterator[int]:
        """Count the steps that are left of `num_steps`, or without end; each must call `descend` once.

        On a signal the step is finished, the state saved, and Interrupted raised. Several ranks could not agree on a step, so
        there it is raised at once. Raise InputError if a loss was NaN or infinite.
        """
        self.num_steps = num_steps
        self.bar = tqdm(total=num_steps, initial=self.step, desc=self.folder.name, unit=" steps", disable=hide_bar())
        with self.bar, deferred_signals() if num_ranks() == 1 else contextlib.nullcontext():
            while num_steps is None or self.step < num_steps:
                if num_ranks() == 1 and stop_requested():
                    self._save_last()
                    stop()
                if num_ranks() == 1 and time.monotonic() - self.last_saved > CHECKPOINT_SECONDS:
                    self._save_last()
                yield self.step

    def descend(self, total: Tensor | None, targets: Sequence[Path] = (), **terms: Tensor) -> None:
        """Take one optimizer step down a total loss, to which every rank adds its part; None if this rank has none.

        `targets` are named if the loss is NaN. It is logged as `loss`, and `terms` beside it or instead of it; of all, the
        mean over steps.
        """
        self.optimizer.zero_grad()
        if total is not None:
            total.backward()
        sum_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()
        loss = torch.zeros((), device=self.device) if total is None else total.detach().float()
        for name, value in {"loss": loss, **terms}.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.first_bad.update(loss, self.step)
        self.shown.append(targets)
        self.step += 1
        if self.bar is not None:
            self.bar.update()
        if self.step % LOG_EVERY == 0 and not self.validates():
            self.log()

    def validates(self) -> bool:
        """Return whether a validation is due after the steps taken."""
        return self.step % self.validate_every == 0 or self.step == self.num_steps

    def log(self, **scalars: float) -> None:
        """Write scalars of this step, with the mean losses since the last line. Raise InputError if one was not finite."""
        self.refuse_divergence()
        steps = max(self.step - self.since, 1)
        means = {name: sum_over_ranks(value).item() / steps for name, value in self.sums.items()}
        if self.scheduler and means:
            means["learning_rate"] = self.scheduler.get_last_lr()[0]
        self.sums, self.since, self.shown = {}, self.step, []
        if is_first():
            check_lock(self.folder)
            self.scalars = self.scalars or ScalarLog(self.folder, before_step=self.step)
            self.scalars.write(self.step, {**means, **scalars})
        if self.bar is not None:
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in {**means, **scalars}.items()})

    def save(self, score: float | None = None, **scalars: float) -> None:
        """Write scalars and the checkpoint `last.pt`, and `best.pt` if no score so far was as good."""
        self.log(**scalars)
        best = False
        if score is not None:
            best = score > self.best_score if self.highest_is_best else score < self.best_score
            self.best_score = score if best else self.best_score
        if not is_first():
            return
        if best:
            self.best = copied(self._state())
            save_checkpoint(self.folder / "best.pt", self.best)
        self._save_last()

    def refuse_divergence(self) -> None:
        """Raise InputError, naming step and targets, if a loss or a parameter was NaN or infinite."""
        step = int(self.first_bad.steps)
        if step < 0 and all(parameter.isfinite().all() for parameter in self.model.parameters()):
            return
        step = step if step >= 0 else self.step - 1
        i = step - self.since
        shown = ", ".join(map(str, self.shown[i])) if 0 <= i < len(self.shown) else ""
        showing = f", which showed {shown}" if shown else ""
        raise InputError(
            f"the loss turned NaN or infinite at step {step}{showing}; lower --learning-rate or --clip-norm; "
            f"the checkpoints in {self.folder} are from before"
        )

    def _state(self) -> dict[str, Any]:
        return {
            "constants": self.constants,
            "versions": versions(),
            "nets": self.about,
            "step": self.step,
            "best_score": self.best_score,
            **model_entries(self.model),
        }

    def _save_last(self) -> None:
        self.refuse_divergence()
        check_lock(self.folder)
        state = {**self._state(), "2": self.optimizer.state_dict(), "sums": self.sums, "since": self.since}
        if self.best is not None:  # what best.pt has, unless it is this step
            state["best"] = None if self.best["step"] == self.step else self.best
        if self.scheduler:
            state["scheduler"] = self.scheduler.state_dict()
        save_checkpoint(self.folder / "last.pt", state)
        self.last_saved = time.monotonic()

    def _resume(self, path: Path) -> None:
        keys = ("constants", "2", "step", "best_score", "sums", "since")
        saved = load_checkpoint(path, "the same command", keys)
        refuse_other_constants(path, saved["constants"], self.constants)
        load_model(self.model, saved, path)
        load_state(self.optimizer, saved["2"], path)
        if self.scheduler:
            load_state(self.scheduler, saved.get("scheduler"), path)
        check_progress(saved, path)
        self.step, self.best_score, self.since = (saved[name] for name in ("step", "best_score", "since"))
        self.shown = [()] * (self.step - self.since)
        if not is_first():  # the others' part of the sums is in the first rank's
            return
        self.sums = {name: value.to(self.device) for name, value in saved["sums"].items()}
        if math.isfinite(self.best_score):
            self._restore_best(saved)

    def _restore_best(self, saved: dict[str, Any]) -> None:
        """Take the best checkpoint from the last one, which has it, and write `best.pt` again if it is gone."""
        path = self.folder / "best.pt"
        if "best" in saved:
            self.best = saved["best"] or {name: saved[name] for name in self._state() if name in saved}
        if path.is_file():
            return
        if not isinstance(self.best, dict) or self.best.get("best_score") != self.best_score:
            raise InputError(
                f"{path} is gone, and last.pt, of an older version, does not have it; move {self.folder} away, and the same "
                "command trains again"
            )
        save_checkpoint(path, self.best)


def copied(state: Any) -> Any:
    """Return a checkpoint's content with copies of its tensors, on the CPU."""
    if isinstance(state, dict):
        return type(state)((name, copied(value)) for name, value in state.items())
    return state.detach().to("cpu", copy=True) if isinstance(state, Tensor) else state


def check_progress(saved: dict[str, Any], path: Path) -> None:
    """Raise InputError unless a checkpoint's steps, best score and sums of losses are what a run writes."""
    step, since, score, sums = (saved[name] for name in ("step", "since", "best_score", "sums"))
    counted = type(step) is int and type(since) is int and 0 <= since <= step < 2**53 and step - since < MOST_SINCE
    summed = isinstance(sums, dict) and all(isinstance(each, Tensor) and each.dim() == 0 for each in sums.values())
    if not counted or not summed or type(score) is not float:
        raise InputError(f"checkpoint {path} does not say how far the run was; delete it to start over")


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `scalars.jsonl`, without one that was being written when the run was killed; [] without the file.

    Each has `step`, an integer, and other numbers by name. Raise InputError, naming the line, for another line.
    """
    lines = read_lines(path) if path.is_file() else []
    if lines and not lines[-1][1].endswith("}"):
        lines.pop()
    found = []
    for number, line in lines:
        try:
            scalars, reason = parse_json(line), ""
        except ValueError as error:
            scalars, reason = None, f" ({brief(str(error))})"
        numbers = list(scalars.values()) if isinstance(scalars, dict) else [None]
        step = scalars.get("step") if isinstance(scalars, dict) else None
        # True is an int, too.
        if type(step) is not int or step < 0 or not all(type(each) in (int, float) for each in numbers):
            raise InputError(
                f"{path}, line {number}: '{brief(line)}' are not scalars of a run{reason}; move the file away"
            )
        found.append(scalars)
    return found


class ScalarLog:
    """`scalars.jsonl`, one object a line with its `step`, and TensorBoard events in the same folder.

    Lines of `before_step` and later are from a run that was stopped after its last checkpoint. They are deleted, so the file
    reads as if the run had never stopped.
    """

    def __init__(self, folder: Path, before_step: int):
        self.path = folder / "scalars.jsonl"
        lines = [scalars for scalars in read_scalars(self.path) if scalars["step"] < before_step]
        write_text(self.path, "".join(json.dumps(scalars) + "\n" for scalars in lines))
        self.events = EventFile(folder / "tensorboard", purge_step=before_step)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append the scalars of a step."""
        with appending(self.path) as file:
            file.write((json.dumps({"step": step, **scalars}) + "\n").encode())
        self.events.write(step, scalars)
