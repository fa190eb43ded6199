"""Fig. 4: shapes along the line between two SIRENs, in NetSpace's latent space and between their weights.

    python interpolate_mlps.py                           # chairs
    python interpolate_mlps.py deepsdf --dataset FOLDER
    python interpolate_mlps.py chairs --split test       # held-out ones

The pairs are the 1st and 2nd instance of the list, the 3rd and 4th, and so on. The figure shows two of them in latent space
and the first in weight space, numbers are of all. Needs train_mlps.py. Writes runs/<dataset>/mlps/interpolate_mlps.json,
.pdf, .png and .html (a page with a slider), and the meshes, shapes/*.ply and one .glb.
chairs takes 90 seconds on 2 CPU cores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
import tyro
from torch import Tensor
from tqdm import tqdm

from data.files import write_json
from data.folders import Folders
from data.load import dataset_name
from data.mlps import load_mlps
from evaluation.correlation import correlation
from evaluation.interpolation import interpolate
from evaluation.plots import PREDICTED, WEIGHTS, save_figure
from evaluation.shape_figures import ShapeRow, plot_shape_rows, write_meshes, write_shape_page
from evaluation.surfaces import chamfer_distance, level_sets, mesh_facts
from models.errors import InputError
from models.prep import pack, unpack
from models.siren import SirenNets
from training.checkpoints import restore_net_space
from training.command_line import run_script
from training.provenance import provenance
from training.runtime import pick_device


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    split: Literal["train", "test"] = "train"  # between which instances; the paper shows training ones
    num_pairs: int = 4  # of instances, one line between each
    num_gammas: int = 11  # points on each line, ends included
    shown_every: int = 2  # every so many points are in the figure; the page and the numbers have all
    resolution: int = 128  # of the grid that is meshed, points a side
    chamfer_points: int = 30_000  # on each surface, for the Chamfer distance
    checkpoint: Path | None = None  # runs/<dataset>/mlps/best.pt unless given; the original release's are read too
    seed: int = 0  # of the points on surfaces
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {
    "chairs": Config("chairs", resolution=64),
    "meshes": Config("data/meshes"),
    "deepsdf": Config("data/deepsdf"),
}


def main(config: Config) -> dict[str, Any]:
    device = pick_device()
    run_dir = config.folders.run(config.dataset, "mlps")
    targets = load_mlps(config.folders, config.dataset, config.split, device)
    if len(targets) < 2 * config.num_pairs:
        raise InputError(
            f"--num-pairs {config.num_pairs}: the {config.split} list has {len(targets)} instances; give fewer"
        )
    made_by = f"python train_mlps.py, with the preset or --dataset of {run_dir.parent.name}"
    net_space = restore_net_space(config.checkpoint or run_dir / "best.pt", made_by, device)
    nets, prep_shape = targets.nets, net_space.sizes.prep_shape
    gamma = torch.linspace(0, 1, config.num_gammas, device=device)

    lines = []
    for i in tqdm(range(0, 2 * config.num_pairs, 2), "lines", leave=False, unit=" pairs", disable=None):
        start, end = targets.rows[i], targets.rows[i + 1]
        embeddings = net_space.encode(pack(targets.rows[i : i + 2], prep_shape))
        latent = unpack(net_space.decode(interpolate(*embeddings, gamma)), nets.num_parameters)
        ends = mesh_all(nets, torch.stack([start, end]), config, device)
        meshes = {"latent": mesh_all(nets, latent, config, device)}
        meshes["weights"] = mesh_all(nets, interpolate(start, end, gamma), config, device)
        facts = {space: facts_along(meshes[space], ends, config) for space in meshes}
        names = {"from": targets.paths[i].stem, "to": targets.paths[i + 1].stem}
        lines.append(({**names, "gamma": gamma.tolist(), **facts}, meshes))

    pairs = [line for line, _ in lines]
    results = {**pairs[0], "pairs": pairs, "resolution": config.resolution, "split": config.split}
    results["summary"] = {
        space: summary([pair[space] for pair in pairs], pairs[0]["gamma"]) for space in ("latent", "weights")
    }
    name = "interpolate_mlps" if config.split == "train" else f"interpolate_mlps_{config.split}"
    write_json(run_dir / f"{name}.json", {**results, **provenance(config)})

    first, second = (meshes for _, meshes in (lines + lines)[:2])
    rows = [ShapeRow("latent", first["latent"], PREDICTED), ShapeRow("latent", second["latent"], PREDICTED)]
    rows.append(ShapeRow("weights", first["weights"], WEIGHTS))
    shown = slice(None, None, config.shown_every)
    gammas = gamma.cpu().numpy()
    figure = plot_shape_rows([ShapeRow(row.label, row.meshes[shown], row.color) for row in rows], gammas[shown])
    pdf, png = save_figure(figure, run_dir / name)
    *_, glb = write_meshes(run_dir / "shapes", rows, gammas, name)
    page = run_dir / f"{name}.html"
    title = f"{dataset_name(config.dataset)}: from {pairs[0]['from']} to {pairs[0]['to']}"
    both = first["latent"], first["weights"]
    write_shape_page(page, title, gammas, *both, *([mesh_facts(mesh) for mesh in meshes] for meshes in both))
    for space, found in results["summary"].items():
        ranks = ["none" if found[end] is None else f"{found[end]:.2f}" for end in ("start", "end")]
        print(
            f"{space}: {found['empty']} of {found['meshes']} meshes empty, {found['pieces']:.1f} pieces on average; rank "
            f"correlation of gamma with Chamfer distance to the start {ranks[0]}, to the end {ranks[1]}"
        )
    print(f"{png}, {pdf}, {page}, {glb}")
    return results


def mesh_all(nets: SirenNets, rows: Tensor, config: Config, device: torch.device) -> list[trimesh.Trimesh]:
    """Surfaces of SIRENs, rows (K, P)."""
    return level_sets(lambda points: nets.run(rows, points), config.resolution, device)


def facts_along(meshes: list[trimesh.Trimesh], ends: list[trimesh.Trimesh], config: Config) -> dict[str, list]:
    """Per gamma: volume, pieces, and Chamfer distance to the surfaces of the two target SIRENs (None where one is empty)."""
    facts = [mesh_facts(mesh) for mesh in meshes]
    along: dict[str, list] = {name: [each[name] for each in facts] for name in ("volume", "pieces")}
    for which, end in zip(("start", "end"), ends):
        far = [chamfer_distance(mesh, end, config.chamfer_points, (config.seed, 6)) for mesh in meshes]
        along[f"chamfer_to_{which}"] = [None if np.isnan(each) else each for each in far]
    return along


def summary(lines: list[dict[str, list]], gamma: list[float]) -> dict[str, float | None]:
    """Over all pairs: empty meshes, pieces, and the mean rank correlation of gamma with the distances.

    Empty meshes have no distance and are left out of it; a line of fewer than three others has no correlation.
    """
    pieces = np.array([line["pieces"] for line in lines])
    found = {"meshes": pieces.size, "empty": int((pieces == 0).sum()), "pieces": float(pieces.mean())}
    for which in ("start", "end"):
        ranks = []
        for line in lines:
            there = [(g, far) for g, far in zip(gamma, line[f"chamfer_to_{which}"]) if far is not None]
            rank = correlation(*zip(*there), ranks=True) if len(there) > 2 else None
            if rank is not None:
                ranks.append(rank)
        found[which] = float(np.mean(ranks)) if ranks else None
    return found


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
