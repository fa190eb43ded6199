"""What a result was made with: constants, versions, the project's commit."""

import functools
import math
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROJECT = Path(__file__).parent.parent


@functools.cache
def versions() -> dict[str, str]:
    """Of Python, torch and numpy; and the project's commit, "-dirty" where files were changed since, if git knows it."""
    found = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    if not (PROJECT / ".git").exists():
        return found
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return found
    return found if described.returncode else {**found, "commit": described.stdout.strip()}


def provenance(config: Any) -> dict[str, Any]:
    """A config, its folders left out, and the versions: for the JSON of a result."""
    constants = {name: value for name, value in asdict(config).items() if name != "folders"}
    return {"config": {name: as_json(value) for name, value in constants.items()}, "versions": versions()}


def as_json(value: Any) -> Any:
    """Infinity and NaN as their names, paths as text, in whatever they are nested."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value.as_posix() if isinstance(value, Path) else value
