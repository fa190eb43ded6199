"""What a latent space optimization left in its folder, and the paper's Table I of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoints import load_checkpoint


def load_search(run_dir: Path, made_by: str) -> dict[str, Any]:
    """`latspace.pt`. Raises InputError if there is none (`made_by` is the command that makes it)."""
    return load_checkpoint(run_dir / "latspace" / "latspace.pt", made_by)


def read_curve(run_dir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a scalar."""
    lines = [json.loads(line) for line in (run_dir / "latspace" / "scalars.jsonl").read_text().splitlines()]
    return np.array([line["step"] for line in lines]), np.array([line[name] for line in lines])


def markdown_table(columns: list[str], rows: dict[str, list[float]]) -> str:
    """Percentages under the names of architectures, as in Table I."""
    lines = ["| test accuracy (%) | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for name, values in rows.items()]
    return "\n".join(lines) + "\n"
