"""What a latent space optimization left in its folder, and the paper's Table I of it."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from models.errors import InputError
from training.checkpoints import load_checkpoint
from training.logs import read_scalars


def load_search(run_dir: Path, made_by: str) -> dict[str, Any]:
    """`latspace.pt`. Raises InputError if there is none (`made_by` is the command that makes it) or it is no such file."""
    path = run_dir / "latspace" / "latspace.pt"
    search = load_checkpoint(path, made_by, ("constants", "initial", "best", "step"))
    instances = search["constants"].get("instances", ()) if isinstance(search["constants"], dict) else ()
    for name in ("initial", "best"):
        values = search[name]
        if not isinstance(values, Tensor) or values.dim() != 2 or len(values) != len(instances):
            raise InputError(
                f"{path}: '{name}' are no embeddings of {len(instances)} instances; make it with: {made_by}"
            )
        if not values.isfinite().all():
            raise InputError(f"{path}: '{name}' holds NaN or infinity; delete it and run: {made_by}")
    return search


def read_curve(run_dir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a scalar. Raises InputError if it was not written."""
    path = run_dir / "latspace" / "scalars.jsonl"
    lines = read_scalars(path)
    if not lines or not all(name in line for line in lines):
        raise InputError(f"{path} lacks {name}; delete {path.parent} and run the optimization again")
    return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines])


def markdown_table(columns: list[str], rows: dict[str, list[float]]) -> str:
    """Percentages under the names of architectures, as in Table I."""
    lines = ["| test accuracy (%) | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"
