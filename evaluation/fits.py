"""How close SIRENs are to the shapes that they are fitted to, which is saved with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor
from tqdm import tqdm

from data.instance_files import save_instance
from data.shapes import first_of_halves
from evaluation.metrics import closeness
from evaluation.surfaces import chamfer_distance, level_set
from models.instances import TargetNet
from training.distributed import hide_bar
from training.ensembles import Ensemble
from training.runtime import versions
from training.zoo import Plan


def save_fits(
    config: Any, plans: list[Plan], shapes: list[Path], ensemble: Ensemble, samples: Tensor, measured: Tensor
) -> None:
    """Save SIRENs with `num_stored` of their samples (M, S, 4) and, among their facts, how close they are to their shapes.

    `config` is that of create_mlp_dataset.py.
    """
    sdf, state = first_of_halves(samples, config.num_stored), ensemble.state()
    bar = tqdm(plans, "fits measured", leave=False, disable=hide_bar())
    for i, plan in enumerate(bar):
        if plan.path.is_file():  # it trained again because of others in its stack
            continue
        row, mesh = ensemble.rows[[i]].detach(), shapes[plan.index].with_suffix(".ply")
        key = (config.seed, plan.index)
        fit = measure_fit(ensemble.net, row, measured[i], mesh, config.resolution, config.chamfer_points, key)
        bar.set_postfix({name: f"{value:.3f}" for name, value in fit.items()})
        facts = {**plan.facts, **fit, "versions": versions()}
        save_instance(plan.path, {**{name: value[i] for name, value in state.items()}, "sdf": sdf[i]}, facts)


@torch.no_grad()
def measure_fit(
    net: TargetNet,
    row: Tensor,
    samples: Tensor,
    mesh: Path,
    resolution: int,
    chamfer_points: int,
    key: tuple[int, ...],
) -> dict[str, float]:
    """Return how close a SIREN, row (1, P), is to its shape: `closeness` at samples (S, 4), `chamfer` if there is a mesh."""
    fit = {"closeness": closeness(net.run(row, samples[:, :3])[0], samples[:, 3]).item()}
    if mesh.is_file():
        surface = level_set(lambda points: net.run(row, points)[0], resolution, row.device)
        fit["chamfer"] = chamfer_distance(surface, trimesh.load(mesh), chamfer_points, key)
    return fit


def describe_fits(fits: dict[str, dict[str, float]]) -> str:
    """Return a line for each kind of distance."""
    kinds = {"closeness": "fraction of distances within 0.01", "chamfer": "Chamfer distance to the true mesh"}
    lines = []
    for kind, what in kinds.items():
        values = np.array([fit[kind] for fit in fits.values() if kind in fit])
        if len(values):
            spread = f"{values.min():.4f} to {values.max():.4f}, n = {len(values)}"
            lines.append(f"{what}: median {np.median(values):.4f}, {spread}")
    return "\n".join(lines)


def fits_in(facts: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what `measure_fit` found, by shape, from instance files' facts."""
    return {each["shape"]: {name: each[name] for name in ("closeness", "chamfer") if name in each} for each in facts}
