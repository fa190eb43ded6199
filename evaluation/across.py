"""The experiment of compare_systems.py: its cells are trained and measured where they are missing, and collected over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from data.files import fingerprint
from data.images import ImageSet
from data.zoo_folders import ABOUT
from evaluation.cells import ABLATIONS, SYMMETRY, Cell, Chosen, size_cells, table_cells
from evaluation.system_measures import Measures
from evaluation.systems import RESULT, CellRun, Nets, kept, read_kept, run_cell

LARGE_TEST = 20  # test nets of the large zoo, and validation nets
CONFIDENCE = 0.95
Facts = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """Where cells are, what they are trained on, and the constants of both systems by encoder."""

    folder: Path  # runs/<dataset>/across
    zoo: Path
    large_zoo: Path  # of cells with a number of training nets
    architecture: str
    images: ImageSet
    bases: Mapping[str, Any]
    seeds: tuple[int, ...]
    seconds: float | None = None  # how long each cell trains, instead of a number of steps

    loaded: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    def nets(self, seed: int, large: bool) -> Nets:
        """Return the nets of a seed, of the zoo or the large one, loaded once."""
        if (seed, large) not in self.loaded:
            folder, more = (self.large_zoo, (LARGE_TEST,)) if large else (self.zoo, ())
            self.loaded[seed, large] = Nets.of(folder, self.architecture, self.images, seed, *more)
        return self.loaded[seed, large]

    def measures(self, seed: int, large: bool, aligned: bool) -> Measures:
        """Return measures on the nets of a seed."""
        if (seed, large, aligned) not in self.loaded:
            nets = self.nets(seed, large)
            self.loaded[seed, large, aligned] = Measures(nets.aligned if aligned else nets)
        return self.loaded[seed, large, aligned]

    def run_of(self, cell: Cell, seed: int) -> CellRun:
        """Return a cell with a seed, in its folder."""
        base = replace(self.bases[cell.encoder], seed=seed)
        return CellRun(cell, base, self.folder / f"seed{seed}" / cell.name, self.seconds)

    def run(self, chosen: Chosen) -> None:
        """Train and measure what is chosen and not finished. Raise InputError for a zoo that is missing or too small."""
        for seed in self.seeds:
            for cell in chosen.on_zoo:
                self.measured(cell, seed)
            for cell in chosen.symmetry:
                self.symmetry(cell, seed)
            if chosen.table or chosen.symmetry:
                self.of_nets(seed)
            for cell in chosen.sizes:
                self.measured(cell, seed)

    def measured(self, cell: Cell, seed: int) -> Facts:
        """Return what is measured of a cell, after training it if it is not finished."""
        large = cell.train_nets is not None
        measures = self.measures(seed, large, cell.aligned)
        measure = measures.of_size if large else measures.of_space
        return run_cell(self.run_of(cell, seed), self.nets(seed, large).of_cell(cell), measure)

    def symmetry(self, cell: Cell, seed: int) -> Facts:
        """Return what reordered copies show of a finished cell."""
        run, nets = self.run_of(cell, seed), self.nets(seed, False).of_cell(cell)
        path = run.folder / "symmetry.json"

        def measure() -> Facts:
            return self.measures(seed, False, cell.aligned).symmetry(run.trained(nets), cell.aligned)

        return kept(path, run.made_with(nets), measure)

    def of_nets(self, seed: int) -> Facts:
        """Return what is measured of the nets of a seed themselves: baselines, and lines of averaged weights."""
        measures = self.measures(seed, False, False)

        def measure() -> Facts:
            lines = {"weights": measures.averaged.mean(0), "weights_rebasin": measures.rebased().mean(0)}
            found = {"lines": {name: each.tolist() for name, each in lines.items()}, "gamma": measures.gamma.tolist()}
            return {**found, "baselines": measures.baselines(), "points": measures.nets.net.points}

        nets = measures.nets
        made_with = {"instances": fingerprint(nets.train.rows, nets.test.rows), "images": nets.images.fingerprint}
        return kept(self.folder / f"seed{seed}" / "nets.json", made_with, measure)

    # Collecting

    def collect(self, sizes: Sequence[int]) -> Facts:
        """Return the results of all cells that are finished with these constants, for JSON."""
        here, large = ((each / ABOUT).is_file() for each in (self.zoo, self.large_zoo))
        found: Facts = {"seeds": list(self.seeds)}
        found["cells"] = self.rows_of(table_cells()) if here else []
        found["ablations"] = self.rows_of(ABLATIONS) if here else []
        found["sizes"] = self.rows_of(size_cells(sizes)) if large else []
        by_name = {cell.name: cell for cell in (*table_cells(), *ABLATIONS)}
        cells = [by_name[name] for name in SYMMETRY] if here else []
        found["symmetry"] = self.rows_of(cells, "symmetry.json")
        return {**found, **self.collect_nets([*found["cells"], *found["ablations"]])}

    def rows_of(self, cells: Sequence[Cell], file: str = RESULT) -> list[Facts]:
        """Return what is measured of cells over seeds, without those that are not finished for any."""
        return [row for cell in cells if (row := self.row_of(cell, file))]

    def row_of(self, cell: Cell, file: str) -> Facts | None:
        """Return what is measured of a cell: numbers are lists with one value a seed."""
        large, by_seed = cell.train_nets is not None, {}
        for seed in self.seeds:
            run = self.run_of(cell, seed)
            if (run.folder / file).is_file():
                nets = self.nets(seed, large).of_cell(cell)
                facts = read_kept(run.folder / file, run.made_with(nets), strict=False)
                if facts is not None:
                    by_seed[seed] = facts
        if not by_seed:
            return None
        about = {"name": cell.name, "encoder": cell.encoder, "objective": cell.objective, "aligned": cell.aligned}
        more = {"nets": cell.train_nets} if large else {}
        return {**about, **more, "about": cell.about, "seeds": list(by_seed), **over_seeds(list(by_seed.values()))}

    def collect_nets(self, rows: Sequence[Facts]) -> Facts:
        """Return baselines and lines over the seeds whose nets were measured, and the lines of cells."""
        known = [path for seed in self.seeds if (path := self.folder / f"seed{seed}" / "nets.json").is_file()]
        facts = [each for path in known if (each := read_kept(path, None, strict=False)) is not None]
        if not facts:
            return {"baselines": [], "gamma": [], "lines": {}, "points": []}
        baselines = [
            {"name": name, **over_seeds([each["baselines"][name] for each in facts])} for name in facts[0]["baselines"]
        ]
        lines = {name: [each["lines"][name] for each in facts] for name in facts[0]["lines"]}
        lines |= {row["name"]: row["line_accuracy"] for row in rows if row["name"] in SYMMETRY}
        return {"baselines": baselines, "gamma": facts[0]["gamma"], "lines": lines, "points": facts[0]["points"]}


# Over seeds


def over_seeds(found: Sequence[Facts]) -> Facts:
    """Return values as lists with one for each seed, and `interval` of 95 % for numbers; properties are r2_PROPERTY."""
    flat = [dict(flattened(each)) for each in found]
    names = [name for name in flat[0] if all(name in each for each in flat)]
    lists = {name: [each[name] for each in flat] for name in names}
    numbers = {name: values for name, values in lists.items() if not any(isinstance(each, list) for each in values)}
    return {**lists, "interval": {name: interval(values) for name, values in numbers.items()}}


def flattened(facts: Facts) -> Iterator[tuple[str, Any]]:
    """Yield names and values; of `property_r2`, r2_PROPERTY."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from ((f"r2_{property}", each) for property, each in value.items())
        else:
            yield name, value


def interval(values: Sequence[float | None]) -> list[float] | None:
    """Return the interval of 95 % of the mean by Student's t, None of fewer than two values that are defined."""
    defined = [each for each in values if each is not None]
    if len(defined) < 2:
        return None
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(defined) - 1) * np.std(defined, ddof=1) / len(defined) ** 0.5
    return [float(np.mean(defined) - half), float(np.mean(defined) + half)]
