"""Which autoencoders compare_systems.py trains: the cells of its table, ablations, numbers of nets, and what each differs in."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from models.errors import InputError, brief

ENCODERS, OBJECTIVES = ("prep", "tokens"), ("weights", "behaviour", "both")
GROUPS = ("table", "ablations", "sizes", "symmetry")
# SANE's loss has weights of its terms instead of an objective. Both: as much of behaviour as of reconstruction.
TOKEN_OBJECTIVES = {
    "weights": dict(contrast=0.05, behaviour=0.0),
    "behaviour": dict(contrast=0.0, behaviour=1.0),
    "both": dict(contrast=0.05, behaviour=0.5),
}


@dataclass(frozen=True)
class Cell:
    """One autoencoder to train for each seed, and what is changed in the constants of its script.

    `aligned`: the hidden channels of all nets are in the order nearest to one training net's, before anything reads them. As they
    are, NetSpace sees them in random order, as its script does. `about` says in what an ablation differs from the cell in the
    table of the same encoder, objective and alignment. With `train_nets`, it is trained on so many. It takes `times` as many steps
    as the cells of the table.
    """

    name: str
    encoder: str
    objective: str
    aligned: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    train_nets: int | None = None
    times: int = 1

    def config(self, base: Any) -> Any:
        """Return the constants of its script, those of `base` changed."""
        changes = dict(objective=self.objective) if self.encoder == "prep" else TOKEN_OBJECTIVES[self.objective]
        if self.encoder == "prep" and self.aligned:
            changes |= dict(reorder_channels=False)  # which would undo it
        return changed(base, {"num_steps": self.times * base.optim.num_steps, **changes, **self.changes})


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """Return a config with other constants, by name, whatever group they are in. Raise KeyError for a name it does not have."""
    left, direct = dict(changes), {}
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name in left:
            direct[each.name] = left.pop(each.name)
        elif is_dataclass(value):
            inside = {one.name: left.pop(one.name) for one in fields(value) if one.name in left}
            direct |= {each.name: replace(value, **inside)} if inside else {}
    if left:
        raise KeyError(", ".join(left))
    return replace(config, **direct)


def table_cells() -> list[Cell]:
    """Return the cells of the table: encoder x objective x alignment."""
    return [
        Cell(f"{encoder}-{objective}{'-aligned' * aligned}", encoder, objective, aligned)
        for encoder in ENCODERS
        for objective in OBJECTIVES
        for aligned in (False, True)
    ]


def ablation(name: str, about: str, times: int = 1, **changes: Any) -> Cell:
    """Return an ablation, ENCODER-OBJECTIVE-WHAT or ENCODER-OBJECTIVE-WHAT-aligned."""
    encoder, objective, *_ = name.split("-")
    return Cell(name, encoder, objective, name.endswith("-aligned"), changes, about, times=times)


WIDE: dict[str, Any] = dict(latent_size=36)  # 36 numbers for a token of 37, as train_sane.py has on photos
NET: dict[str, Any] = dict(**WIDE, net_size=1024)
ABLATIONS = [
    # the affine head and its start
    ablation("tokens-behaviour-head-instance", "affine head, starts at a net", affine=True),
    ablation("tokens-behaviour-head-zero", "affine head, starts at 0", affine=True, affine_start="zero"),
    ablation("tokens-both-head-instance", "affine head, starts at a net", affine=True),
    ablation("prep-behaviour-no-head", "no affine head", affine=False, affine_start="paper"),
    ablation("prep-behaviour-head-paper", "affine head starts near 0", affine_start="paper"),
    ablation("prep-behaviour-head-zero", "affine head starts at 0", affine_start="zero"),
    # where decoded nets start without a head
    ablation("tokens-behaviour-start-pytorch", "starts as PyTorch does", linear_start="pytorch"),
    ablation("tokens-behaviour-published", "36 numbers a token, starts at N(0, 0.02)", **WIDE, linear_start="paper"),
    # one latent a token or one a net, and how many numbers
    ablation("tokens-behaviour-net", "one latent a net", **NET),
    ablation("tokens-behaviour-net-head", "one latent a net, affine head", **NET, affine=True),
    *[ablation(f"tokens-{each}-wide", "36 numbers a token", **WIDE) for each in OBJECTIVES],
    ablation("tokens-both-wide-aligned", "36 numbers a token", **WIDE),
    # windows or whole nets
    ablation("tokens-behaviour-whole", "the whole net is one window", window=256, halo=0),
    ablation("tokens-behaviour-windows", "one decoded window in each target", decoded="windows"),
    # the loss, its images and steps
    ablation("tokens-behaviour-logits", "squared difference of logits", behaviour_loss="logits"),
    ablation("tokens-behaviour-256-images", "256 images a step", image_batch=256),
    ablation("tokens-behaviour-900-steps", "900 steps", times=3),
    ablation("prep-behaviour-256-images", "256 images a step", image_batch=256),
    ablation("prep-behaviour-16-images", "16 images a step", image_batch=16),
    # alignment
    ablation("prep-behaviour-in-order", "channels as they are", reorder_channels=False),
]
SYMMETRY = (
    "prep-behaviour-in-order",
    "prep-behaviour",
    "prep-behaviour-aligned",
    "tokens-both-wide",
    "tokens-both-wide-aligned",
)


def size_cells(sizes: Sequence[int]) -> list[Cell]:
    """Return the cells of numbers of training nets: NetSpace by behaviour, tokens by both with 36 numbers each, as their scripts.

    NetSpace takes five times as many steps: how many nets it needs does not show before it has learned them.
    """
    return [
        Cell(f"{encoder}-{size}-nets", encoder, objective, False, changes, train_nets=size, times=times)
        for encoder, objective, changes, times in (("prep", "behaviour", {}, 5), ("tokens", "both", WIDE, 1))
        for size in sizes
    ]


@dataclass(frozen=True)
class Chosen:
    """What is to be trained and measured: cells by group, and those whose symmetry is measured."""

    table: list[Cell]
    ablations: list[Cell]
    sizes: list[Cell]
    symmetry: list[Cell]

    @property
    def on_zoo(self) -> list[Cell]:
        """Cells that are trained on the zoo; others are trained on the large one."""
        return list({cell.name: cell for cell in (*self.table, *self.ablations, *self.symmetry)}.values())


def choose(only: Sequence[str], sizes: Sequence[int]) -> Chosen:
    """Return the cells that `only` names, by their names or by groups; all for none.

    Raise InputError for another name.
    """
    every = {"table": table_cells(), "ablations": ABLATIONS, "sizes": size_cells(sizes)}
    by_name = {cell.name: cell for cells in every.values() for cell in cells}
    every["symmetry"] = [by_name[name] for name in SYMMETRY]
    for name in only:
        if name not in GROUPS and name not in by_name:
            near = difflib.get_close_matches(name, [*GROUPS, *by_name], 3, 0)
            raise InputError(
                f"--only {brief(name)}: there is no such cell; choose {', '.join(GROUPS)}, or a cell such as {', '.join(near)}"
            )
    groups = {
        group: cells
        if not only or group in only
        else [cell for cell in cells if cell.name in only and group != "symmetry"]
        for group, cells in every.items()
    }
    return Chosen(**groups)
