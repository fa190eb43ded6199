"""Cells of compare_systems.py, trained: the nets of a seed, the same for all, and one folder for each cell and seed.

runs/<dataset>/across/seedS/CELL/   last.pt while it trains, then best.pt (a space), cell.json (what was measured)
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data.files import fingerprint
from data.images import Batches, ImageSet
from data.nets import NetsDataset
from data.streams import stream
from data.texts import read_json, write_json
from data.zoo_folders import FACTS, read_about, read_facts
from data.zoos import load_splits, strongest
from evaluation.cells import Cell
from evaluation.metrics import accuracy
from evaluation.spaces import Space, about_images
from models.errors import InputError
from models.instances import TargetNet
from models.prep_autoencoder import PrepAutoencoder
from models.rebasin import align
from models.token_autoencoder import TokenAutoencoder
from training.autoencoders import PrepObjective, TokenObjective
from training.checkpoints import refuse_other_constants
from training.run import Run, read_scalars, run_constants
from training.runtime import as_json, lock_folder, versions
from training.views import start_at_instances, start_tokens

Objective = PrepObjective | TokenObjective
SAVES = 4  # checkpoints of a cell in training
TIMED_STEPS = 5
MOST_TEST = 0.25  # of the nets, if there are few
RESULT = "cell.json"


@dataclass(frozen=True)
class Nets:
    """The nets of a seed: training, validation and test instances of one zoo, split by net, and images."""

    images: ImageSet
    splits: dict[str, NetsDataset]
    seed: int

    @classmethod
    def of(cls, folder: Path, architecture: str, images: ImageSet, seed: int, num_test: int | None = None) -> "Nets":
        """Load a zoo, split by the seed: 70 / 15 / 15 percent of the nets, or `num_test` of them for test and validation each.

        Raise InputError if it is missing, for other images, or has too few nets.
        """
        device, more = images.train.pixels.device, {}
        if num_test is not None:
            facts = read_facts(folder / FACTS, read_about(folder)["architectures"])
            number = len({each["net"] for each in facts if each["architecture"] == architecture})
            share = min(num_test / max(number, 1), MOST_TEST)
            more = dict(parts={"train": 1 - 2 * share, "val": share, "test": share})
        splits = load_splits(folder, architecture, device, seed, **more)
        return cls(images, splits, seed)

    @property
    def train(self) -> NetsDataset:
        """The training instances."""
        return self.splits["train"]

    @property
    def test(self) -> NetsDataset:
        """The test instances."""
        return self.splits["test"]

    @property
    def net(self) -> TargetNet:
        """The architecture."""
        return self.train.nets[0]

    def align(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (N, P), their hidden channels in the order nearest to that of the strongest training instance."""
        reference = self.train.rows[strongest(self.train)]
        return rows.gather(1, align(self.net.layout, self.net.hidden_channels(), rows, reference).to(rows.device))

    @cached_property
    def aligned(self) -> "Nets":
        """The same nets, aligned."""
        splits = {name: replace(each, rows=self.align(each.rows)) for name, each in self.splits.items()}
        return Nets(self.images, splits, self.seed)

    def with_training_nets(self, number: int) -> "Nets":
        """Return the same nets with so many training nets, which are among those of any larger number.

        Raise InputError if there are fewer.
        """
        names = list(dict.fromkeys(self.train.column("net")))
        if number > len(names):
            raise InputError(f"there are {len(names)} training nets in the zoo, not {number}; make a larger zoo")
        order = stream("training nets of a size", self.seed).permutation(len(names))
        chosen = {names[i] for i in order[:number]}
        train = self.train.filter(lambda facts: facts["net"] in chosen)
        return Nets(self.images, {**self.splits, "train": train}, self.seed)

    def of_cell(self, cell: Cell) -> "Nets":
        """Return the nets that a cell reads."""
        nets = self if cell.train_nets is None else self.with_training_nets(cell.train_nets)
        return nets.aligned if cell.aligned else nets


def build(cell: Cell, config: Any, nets: Nets) -> tuple[PrepAutoencoder | TokenAutoencoder, Objective]:
    """Return the autoencoder of a cell, as it starts, and what it minimizes, on the device of the nets."""
    train, net, device = nets.train, nets.net, nets.train.rows.device
    batches = Batches(nets.images.train, [(config.seed,)], config.image_batch)
    torch.manual_seed(config.seed)
    if cell.encoder == "prep":
        model = PrepAutoencoder(config.sizes)
        start_at_instances(model, config.start, train.rows, torch.tensor(train.column("val_accuracy")))
        return model.to(device), PrepObjective(config, model, net, train.rows, batches)
    tokens = TokenAutoencoder(config.sizes, net.layout, net.hidden_channels())
    start_tokens(tokens, config.start, train.rows, strongest(train))
    return tokens.to(device), TokenObjective(config, tokens, net, train.rows, batches if config.behaviour else None)


def steps_in(seconds: float, cell: Cell, config: Any, nets: Nets) -> int:
    """Return how many steps take so long here: a few are computed, without moving the model."""
    model, objective = build(cell, config, nets)

    def run(step: int) -> None:
        loss = objective.at(step).loss
        assert loss is not None
        loss.backward()
        model.zero_grad()

    run(0)
    start = time.perf_counter()
    for step in range(TIMED_STEPS):
        run(step)
    return max(1, round(seconds * TIMED_STEPS / (time.perf_counter() - start)))


@dataclass(frozen=True)
class CellRun:
    """One cell with one seed, in its folder. `base` are the constants of its script, with those of compare_systems.py."""

    cell: Cell
    base: Any
    folder: Path
    seconds: float | None = None  # how long it trains, instead of a number of steps

    @cached_property
    def config(self) -> Any:
        """The constants."""
        return self.cell.config(self.base)

    def made_with(self, nets: Nets) -> dict[str, Any]:
        """Return what a finished cell depends on: constants, nets and images."""
        optim = replace(self.config.optim, num_steps=1) if self.seconds else self.config.optim
        data = {"instances": fingerprint(nets.train.rows, nets.test.rows), "images": nets.images.fingerprint}
        return as_json({**run_constants(replace(self.config, optim=optim), **data), "seconds": self.seconds})

    def train(self, nets: Nets) -> tuple[Space, dict[str, Any]]:
        """Train the cell, from its last checkpoint if there is one; return its space, and steps and seconds."""
        lock_folder(self.folder)
        config = replace(self.config, optim=replace(self.config.optim, num_steps=self._num_steps(nets)))
        optim = replace(config.optim, validate_every=-(-config.optim.num_steps // SAVES))
        model, objective = build(self.cell, config, nets)
        about = about_images(nets.train.nets, nets.images)
        data = {"instances": fingerprint(nets.train.rows, nets.splits["val"].rows), "images": nets.images.fingerprint}
        started = optim.start(model, getattr(config, "weight_decay", 0.0))
        constants = run_constants(config, **data)
        run = Run(self.folder, constants, about, model, *started, optim.validate_every, optim.clip_norm)
        space = Space(model, nets.train.nets, about, {})
        start = time.perf_counter() - self._seconds_so_far(run.step)
        for step in run.steps(optim.num_steps):
            found = objective.at(step)
            run.descend(found.loss, [nets.train.paths[i] for i in found.chosen], **found.terms)
            if run.validates():
                seconds, val = time.perf_counter() - start, nets.splits["val"]
                last = run.step == optim.num_steps  # measured once: a best checkpoint of many may be the start
                error = (self._error(space, nets, val),) if last else ()
                run.save(*error, seconds=seconds, **({"val_accuracy_error": error[0]} if last else {}))
        return space, {"steps": run.step, "seconds": self._seconds_so_far(run.step)}

    def trained(self, nets: Nets) -> Space:
        """Load the space of a finished cell."""
        space = Space.of_checkpoint(
            self.folder / "best.pt", f"delete {self.folder} and run compare_systems.py", nets.train.nets,
            about_images(nets.train.nets, nets.images),
        )  # fmt: skip
        return space.to(nets.train.rows.device)

    def _num_steps(self, nets: Nets) -> int:
        """Return how many steps it trains; those of a number of seconds are written, as a resumed run needs the same."""
        if self.seconds is None:
            return self.config.optim.num_steps
        path = self.folder / "steps.json"
        if not path.is_file():
            write_json(path, {"steps": steps_in(self.cell.times * self.seconds, self.cell, self.config, nets)})
        steps = read_json(path, f"delete {path}").get("steps")
        if type(steps) is not int or steps < 1:
            raise InputError(f"{path} has no number of steps; delete {self.folder} to have the cell trained again")
        return steps

    def _seconds_so_far(self, step: int) -> float:
        """Return the seconds of training until a step, from the scalars."""
        lines = read_scalars(self.folder / "scalars.jsonl")
        return max((line["seconds"] for line in lines if line["step"] <= step and "seconds" in line), default=0.0)

    @staticmethod
    def _error(space: Space, nets: Nets, val: NetsDataset) -> float:
        """Return the mean |target - predicted accuracy| on validation nets and images, points."""
        found = (accuracy(nets.net, rows, nets.images.val) for rows in (space.predict(val.rows), val.rows))
        return torch.sub(*found).abs().mean().item()


def run_cell(run: CellRun, nets: Nets, measure: Callable[[Space, Nets], dict[str, Any]]) -> dict[str, Any]:
    """Return what is measured of a cell, after training it if it is not finished."""

    def train_and_measure() -> dict[str, Any]:
        space, how = run.train(nets)
        return {**measure(space, nets), **how, "emb_size": space.model.emb_size}

    found = kept(run.folder / RESULT, run.made_with(nets), train_and_measure)
    (run.folder / "last.pt").unlink(missing_ok=True)  # training is over
    return found


def kept(path: Path, made_with: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured before with the same constants and data, or measure it and write it.

    Raise InputError if it was made with others.
    """
    found = read_kept(path, made_with)
    if found is None:
        found = measure()
        write_json(path, {"config": made_with, "versions": versions(), "measured": found})
    return found


def read_kept(path: Path, made_with: dict[str, Any] | None, strict: bool = True) -> dict[str, Any] | None:
    """Return what was measured, None if there is nothing yet, or, unless `strict`, if it was made with other constants or data.

    Raise InputError for a file that is broken, and, if `strict`, naming the first difference, for other constants.
    """
    if not path.is_file():
        return None
    found = read_json(path, f"delete {path}, and the same command makes it again")
    if not isinstance(found.get("measured"), dict):
        raise InputError(f"{path} has no results; delete it, and the same command makes it again")
    if made_with is not None and strict:
        refuse_other_constants(path, found.get("config"), made_with)
    return None if made_with is not None and found.get("config") != made_with else found["measured"]
