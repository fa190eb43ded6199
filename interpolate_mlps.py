"""Fig. 4: shapes along the line between two SIRENs, in NetSpace's latent space and between their weights.

    python interpolate_mlps.py                           # chairs
    python interpolate_mlps.py deepsdf --dataset FOLDER
    python interpolate_mlps.py chairs --split test       # held-out ones

The pairs are the 1st and 2nd instance of the list, the 3rd and 4th, and so on. The figure shows two of them in latent space,
two held-out instances in latent space, and the first pair between weights; the numbers are of all pairs of the list. Needs
train_mlps.py. Writes runs/<dataset>/mlps/interpolate_mlps.json, .pdf, .png and .html (a page with a slider), and the meshes,
shapes/*.ply and one .glb."""

from training.command_line import run_script

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import trimesh
from torch import Tensor
from tqdm import tqdm

from data.folders import Folders, command, dataset_name
from data.nets import NetsDataset, load_sirens
from data.texts import write_json
from evaluation.metrics import interpolate
from evaluation.plots import PREDICTED, WEIGHTS, save_figure
from evaluation.shape_figures import ShapeRow, plot_shape_rows, write_meshes, write_shape_page
from evaluation.spaces import Space, about_sirens
from evaluation.surfaces import facts_along, facts_of_lines, level_sets
from models.errors import InputError
from training.constants import AtLeast2, Count, Flat, Seed
from training.runtime import pick_device, provenance

Surfaces = dict[str, list[trimesh.Trimesh]]  # by kind of line


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    split: Literal["train", "test"] = "train"  # the instances that lines are between; the paper shows training ones
    num_pairs: Count = 4  # pairs of instances, with one line between each
    num_gammas: AtLeast2 = 11  # points on each line, ends included
    shown_every: Count = 2  # every so many points are in the figure; the page and the numbers have all
    resolution: AtLeast2 = 128  # of the grid that is meshed, points a side
    chamfer_points: Count = 30_000  # on each surface, for the Chamfer distance
    checkpoint: Path | None = None  # default: runs/<dataset>/mlps/best.pt; the original release's are read too
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "chairs": Config("chairs", resolution=64),
    "chairs-unseen": Config("chairs-unseen", resolution=64),
    "meshes": Config("data/meshes"),
    "deepsdf": Config("data/deepsdf"),
}


def main(config: Config) -> dict[str, Any]:
    device = pick_device()
    run_dir = config.folders.run(config.dataset, "mlps")
    targets = load_sirens(config.folders, config.dataset, config.split, device)
    if len(targets) < 2 * config.num_pairs:
        raise InputError(
            f"--num-pairs {config.num_pairs}: the {config.split} list has {len(targets)} instances; give fewer"
        )
    made_by, about = command("train_mlps.py", config.dataset), about_sirens(targets.nets[0].trained.widths)
    space = Space.of_checkpoint(config.checkpoint or run_dir / "best.pt", made_by, targets.nets, about).to(device)
    gamma = torch.linspace(0, 1, config.num_gammas, device=device)

    pairs, surfaces = [], []
    for i in tqdm(range(0, 2 * config.num_pairs, 2), "lines", leave=False, unit=" pairs", disable=None):
        pair, meshes = line_between(config, space, targets[i : i + 2], gamma)
        pairs.append(pair)
        surfaces.append(meshes)

    summary = {
        name: facts_of_lines([pair[name] for pair in pairs], pairs[0]["gamma"]) for name in ("latent", "weights")
    }
    results = {**pairs[0], "pairs": pairs, "resolution": config.resolution, "split": config.split, "summary": summary}
    name = "interpolate_mlps" if config.split == "train" else f"interpolate_mlps_{config.split}"

    first, second = (surfaces + surfaces)[:2]
    rows = [ShapeRow("latent", first["latent"], PREDICTED), ShapeRow("latent", second["latent"], PREDICTED)]
    unseen = unseen_pair(config, device)
    if unseen is not None:
        results["unseen"], meshes = line_between(config, space, unseen, gamma)
        rows.append(ShapeRow("unseen", meshes["latent"], PREDICTED))
    rows.append(ShapeRow("weights", first["weights"], WEIGHTS))
    write_json(run_dir / f"{name}.json", {**results, **provenance(config)})

    shown, gammas = slice(None, None, config.shown_every), gamma.cpu().numpy()
    figure = plot_shape_rows([ShapeRow(row.label, row.meshes[shown], row.color) for row in rows], gammas[shown])
    pdf, png = save_figure(figure, run_dir / name)
    *_, glb = write_meshes(run_dir / "shapes", rows, gammas, name)
    page = run_dir / f"{name}.html"
    title = f"{dataset_name(config.dataset)}: from {pairs[0]['from']} to {pairs[0]['to']}"
    names = {"latent": "latent interpolation", "unseen": "between shapes never seen", "weights": "weight interpolation"}
    views = [rows[0], *rows[2:]]  # of the first pair, and the unseen one if there is one
    write_shape_page(page, title, gammas, [replace(row, label=names[row.label]) for row in views])
    for kind, found in summary.items():
        ranks = ["none" if found[end] is None else f"{found[end]:.2f}" for end in ("start", "end")]
        print(
            f"{kind}: {found['empty']} of {found['meshes']} meshes empty, {found['pieces']:.1f} pieces on average; rank "
            f"correlation of gamma with Chamfer distance to the start {ranks[0]}, to the end {ranks[1]}"
        )
    print(f"{png}, {pdf}, {page}, {glb}")
    return results


def line_between(config: Config, space: Space, pair: NetsDataset, gamma: Tensor) -> tuple[dict[str, Any], Surfaces]:
    """Return what is measured along the lines between two instances, in latent space and between weights, and their meshes."""
    rows, net = pair.rows, pair.nets[0]
    along = {"latent": space.decode(interpolate(*space.encode(rows), gamma)), "weights": interpolate(*rows, gamma)}
    meshes = {
        name: level_sets(lambda x, r=each: net.run(r, x), config.resolution, rows.device)
        for name, each in {"ends": rows, **along}.items()
    }
    ends, key = meshes.pop("ends"), (config.seed,)
    facts = {name: facts_along(each, ends, config.chamfer_points, key) for name, each in meshes.items()}
    names = {"from": pair.paths[0].stem, "to": pair.paths[1].stem}
    return {**names, "gamma": gamma.tolist(), **facts}, meshes


def unseen_pair(config: Config, device: torch.device) -> NetsDataset | None:
    """Return the first two held-out instances beside training ones; None if the others are held out, or there are no two."""
    if config.split == "test" or not config.folders.input_list(config.dataset, "mlps", "test").is_file():
        return None
    held_out = load_sirens(config.folders, config.dataset, "test", device)
    return held_out[:2] if len(held_out) > 1 else None


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
