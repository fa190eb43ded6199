"""Every script's configuration in miniature: real data and code, few and short instances."""

from dataclasses import replace
from pathlib import Path

import create_nets_dataset_single
import eval_single
import interpolate_single_arch
import train_single_arch
import visualize_prep
from data.folders import Folders
from models.netspace import Sizes


def folders(root: Path) -> Folders:
    return Folders(root / "data", root / "lists", root / "runs")


def create_config(root: Path, **changes) -> create_nets_dataset_single.Config:
    small = dict(num_train=6, num_val=3, num_test=4, lengths=(2, 30, 80), seed=5)
    return replace(create_nets_dataset_single.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def train_config(root: Path, **changes) -> train_single_arch.Config:
    sizes = Sizes((8, 640), emb_size=256, grid=16, row_length=64, row_channels=32)
    small = dict(sizes=sizes, num_epochs=2, validate_every=1)
    return replace(train_single_arch.PRESETS["photos"], **{**small, "folders": folders(root), **changes})


def look_config(script, root: Path, **changes):
    return replace(script.PRESETS["photos"], folders=folders(root), **changes)


def run_all(root: Path) -> Path:
    """Runs the five scripts and returns the run folder."""
    create_nets_dataset_single.main(create_config(root))
    train_single_arch.main(train_config(root))
    for script in (eval_single, interpolate_single_arch, visualize_prep):
        script.main(look_config(script, root))
    return root / "runs" / "photos" / "single"
