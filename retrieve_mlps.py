"""Retrieval: the training shape nearest to each held-out one, by embedding, and where it is among the nearest by Chamfer distance.

    python retrieve_mlps.py chairs-unseen
    python retrieve_mlps.py deepsdf --dataset FOLDER

Beside it are the nearest training SIREN by its parameters, and chance. Surfaces are the SIRENs' level sets. Needs train_mlps.py.
Writes runs/<dataset>/mlps/retrieve_mlps.json."""

from training.command_line import run_script

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from data.folders import Folders, command
from data.nets import NetsDataset, load_sirens
from data.texts import write_json
from evaluation.retrieval import Points, chamfer_distances, nearest_by, points_on, ranks_of
from evaluation.spaces import Space, about_sirens
from evaluation.surfaces import level_sets
from models.errors import InputError
from training.constants import AtLeast2, Count, Flat, Seed
from training.runtime import pick_device, provenance


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    split: Literal["val", "test"] = "test"  # the held-out instances that neighbours are found for
    near: Count = 5  # nearest training shapes by Chamfer distance, among which the one found should be
    resolution: AtLeast2 = 64  # of the grid that is meshed, points a side
    chamfer_points: Count = 1000  # on each surface, for the Chamfer distance
    checkpoint: Path | None = None  # default: runs/<dataset>/mlps/best.pt; the original release's are read too
    seed: Seed = 0  # random seed
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {
    "chairs": Config("chairs"),
    "chairs-unseen": Config("chairs-unseen"),
    "meshes": Config("data/meshes"),
    "deepsdf": Config("data/deepsdf"),
}


def main(config: Config) -> dict[str, Any]:
    device = pick_device()
    run_dir = config.folders.run(config.dataset, "mlps")
    train, held_out = (load_sirens(config.folders, config.dataset, split, device) for split in ("train", config.split))
    if len(train) < config.near:
        raise InputError(f"--near {config.near}: there are {len(train)} training instances; give fewer")
    made_by, about = command("train_mlps.py", config.dataset), about_sirens(train.nets[0].trained.widths)
    space = Space.of_checkpoint(config.checkpoint or run_dir / "best.pt", made_by, train.nets, about).to(device)

    chosen = {
        "embedding": nearest_by(space.encode(held_out.rows), space.encode(train.rows)),
        "weights": nearest_by(held_out.rows, train.rows),
    }
    ours, others = surface_points(config, held_out, 0), surface_points(config, train, 1)
    distances = chamfer_distances(ours, others)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : config.near]
    ranks = {name: ranks_of(columns, distances) for name, columns in chosen.items()}
    among = {name: float(np.mean(np.array(each) <= config.near)) for name, each in ranks.items()}
    names = [path.stem for path in train.paths]
    found = {
        path.stem: {name: names[columns[i]] for name, columns in chosen.items()}
        | {"chamfer": [names[j] for j in nearest[i]]}
        for i, path in enumerate(held_out.paths)
    }
    chance = config.near / len(train)
    results = {"near": config.near, "among_nearest": among, "chance": chance, "ranks": ranks, "found": found}
    write_json(run_dir / "retrieve_mlps.json", {**results, **provenance(config)})
    print(
        f"nearest of {len(train)} training shapes among the {config.near} nearest by Chamfer distance, for {len(held_out)} held-out "
        f"ones: by embedding {among['embedding']:.3f}, by parameters {among['weights']:.3f}, by chance {chance:.3f}"
    )
    return results


def surface_points(config: Config, sirens: NetsDataset, which: int) -> list[Points]:
    """Return points on the level set of each SIREN."""
    meshes = []
    for row in tqdm(sirens.rows, "surfaces", leave=False, disable=None):
        meshes += level_sets(lambda x, r=row: sirens.nets[0].run(r[None], x), config.resolution, sirens.rows.device)
    return points_on(meshes, config.chamfer_points, config.seed, which)


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
