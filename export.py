"""Take nets and spaces away: a predicted, interpolated or optimized instance, or a trained NetSpace as one folder.

    python export.py                                   # predicted, photos
    python export.py photos --what interpolated --gamma 0.25
    python export.py photos --what interpolated --start A.pt --end B.pt
    python export.py photos --what optimized --formats onnx
    python export.py photos --what space --setting multi

Needs the script that trains the space. Writes runs/<dataset>/<setting>/export/: NAME.safetensors and NAME.pt (the state dict
under the architecture's own names, batch norm fused) and NAME.onnx; or space/, which NetSpace.load reads anywhere."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro

from data.folders import Folders
from data.nets import listed_paths
from evaluation.latspace import load_search
from models.errors import InputError
from netspace import NetSpace
from training.command_line import run_script
from training.provenance import versions


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    setting: Literal["single", "multi", "missing", "mlps"] = "single"  # which space
    what: Literal["predicted", "interpolated", "optimized", "space"] = "predicted"  # an instance, or the space
    start: Path | None = None  # an instance file; the first of test.txt unless given
    end: Path | None = None  # of the line of what is interpolated; the last of test.txt unless given
    gamma: float = 0.5  # the place on it, 0 at the start, 1 at the end
    instance: int = 0  # which one of those that were optimized
    formats: tuple[Literal["safetensors", "pt", "onnx"], ...] = ("safetensors", "pt", "onnx")  # of an instance
    checkpoint: Path | None = None  # runs/<dataset>/<setting>/best.pt unless given
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in ("photos", "cifar10", "tiny-imagenet-200")}
PRESETS |= {"chairs": Config("chairs", "mlps"), "deepsdf": Config("data/deepsdf", "mlps")}


def main(config: Config) -> list[Path]:
    run_dir = config.folders.run(config.dataset, config.setting)
    space = NetSpace.load(config.checkpoint or run_dir)
    if config.what == "space":
        space.save(run_dir / "export" / "space")
        print(f"{run_dir / 'export' / 'space'}: read it with NetSpace.load")
        return [run_dir / "export" / "space"]
    start = config.start or listed_paths(config.folders, config.dataset, config.setting, "test")[0]
    facts: dict[str, Any] = {"made_by": f"export.py --what {config.what}", "versions": versions()}
    if config.what == "predicted":
        embedding, name = space.encode(start), f"predicted-{start.stem}"
        facts |= {"from": start.as_posix()}
    elif config.what == "interpolated":
        end = config.end or listed_paths(config.folders, config.dataset, config.setting, "test")[-1]
        (embedding,) = space.interpolate(start, end, [config.gamma])
        name = f"interpolated-{start.stem}-{end.stem}-{config.gamma:g}"
        facts |= {"from": start.as_posix(), "to": end.as_posix(), "gamma": config.gamma}
    else:
        script = "train_latspace_single.py" if config.setting == "single" else "train_latspace_multi.py"
        search = load_search(run_dir, f"python {script} {config.dataset}")
        instances = search["constants"]["instances"]
        if config.instance >= len(instances):
            raise InputError(
                f"--instance {config.instance}: {len(instances)} were optimized, give 0 to {len(instances) - 1}"
            )
        start = Path(instances[config.instance])
        embedding, name = search["best"][config.instance], f"optimized-{start.stem}"
        facts |= {"from": start.as_posix(), "steps": search["step"]}
    paths = [run_dir / "export" / f"{name}.{kind}" for kind in config.formats]
    for path in paths:
        space.export(embedding, path, facts)
    architecture = space.architectures[space.class_ids(embedding)[0]]
    print(f"{architecture}: {', '.join(str(path) for path in paths)}")
    return paths


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
