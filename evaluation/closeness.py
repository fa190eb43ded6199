"""How close signed distance functions are: a SIREN to its shape, a predicted SIREN to its target (supplement Sec. V)."""

from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from data.instance_files import read_instance
from data.mlps import SdfNetsDataset
from data.plans import Plan
from evaluation.surfaces import chamfer_distance, level_set
from models.prep import pack, unpack
from models.prep_autoencoder import PrepAutoencoder
from models.siren import SirenNets

AT_ONCE = 16  # instances that are measured at once


def closeness(predicted: Tensor, target: Tensor, tolerance: float = 0.01) -> Tensor:
    """Share of distances that lie within `tolerance` of the target's, (..., S) to (...) (supplement Sec. V)."""
    return ((predicted - target).abs() < tolerance).float().mean(-1)


@torch.no_grad()
def outputs_of(targets: SdfNetsDataset, rows: Tensor) -> Tensor:
    """What rows (N, P) say at the targets' samples, (N, S), a few instances at a time."""
    parts = zip(rows.split(AT_ONCE), targets.samples.split(AT_ONCE))
    return torch.cat([targets.nets.run(part, samples[..., :3]) for part, samples in parts])


def closeness_of_predicted(net_space: PrepAutoencoder, targets: SdfNetsDataset) -> Tensor:
    """Closeness (N,) of predicted SIRENs to their targets, at the targets' samples."""
    preps = net_space.decode(net_space.encode(pack(targets.rows, net_space.sizes.prep_shape)))
    predicted = unpack(preps, targets.nets.num_parameters)
    return closeness(outputs_of(targets, predicted), outputs_of(targets, targets.rows))


@torch.no_grad()
def measure_fit(
    nets: SirenNets,
    row: Tensor,
    samples: Tensor,
    mesh: Path,
    resolution: int,
    chamfer_points: int,
    key: tuple[int, ...],
) -> dict[str, float]:
    """How close a SIREN, row (1, P), is to its shape: `closeness` at samples (S, 4) and, where its `mesh` is there, `chamfer`."""
    fit = {"closeness": closeness(nets.run(row, samples[:, :3])[0], samples[:, 3]).item()}
    if mesh.is_file():
        surface = level_set(lambda points: nets.run(row, points)[0], resolution, row.device)
        fit["chamfer"] = chamfer_distance(surface, trimesh.load(mesh), chamfer_points, key)
    return fit


def read_fits(plans: list[Plan]) -> dict[str, dict[str, float]]:
    """What measure_fit said of planned SIRENs, by shape, from the files' facts."""
    facts = [read_instance(plan.path)[1] for plan in plans]
    return {each["shape"]: {name: each[name] for name in ("closeness", "chamfer") if name in each} for each in facts}


def describe_fits(fits: dict[str, dict[str, float]]) -> str:
    """A line for each kind of distance that there is."""
    kinds = {"closeness": "share of distances within 0.01", "chamfer": "Chamfer distance to the true mesh"}
    lines = []
    for kind, what in kinds.items():
        values = np.array([fit[kind] for fit in fits.values() if kind in fit])
        if len(values):
            spread = f"{values.min():.4f} to {values.max():.4f}, n = {len(values)}"
            lines.append(f"{what}: median {np.median(values):.4f}, {spread}")
    return "\n".join(lines)
