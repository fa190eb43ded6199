"""Export nets and spaces: a predicted, interpolated or optimized instance, or a trained NetSpace as one folder.

    python export.py                                   # predicted, photos
    python export.py photos --what interpolated --gamma 0.25
    python export.py photos --what interpolated --start A.pt --end B.pt
    python export.py photos --what optimized --formats onnx
    python export.py photos --what space --setting multi

Needs the script that trains the space. Writes runs/<dataset>/<setting>/export/: NAME.safetensors and NAME.pt (the state dict
under the architecture's own names, batch norm fused) and NAME.onnx; or space/, which NetSpace.load reads anywhere."""

from training.command_line import run_script

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data.folders import IMAGE_SETS, Folders, command
from data.nets import read_list
from evaluation.summary import load_search
from models.errors import InputError
from netspace import NetSpace
from training.constants import Flat, Fraction, Index
from training.runtime import versions


@dataclass(frozen=True)
class Config:
    dataset: str  # the preset's, or the folder that the instances were made with
    setting: Literal["single", "multi", "missing", "mlps"] = "single"  # which space
    what: Literal["predicted", "interpolated", "optimized", "space"] = "predicted"  # an instance, or the space
    start: Path | None = None  # an instance file; default: the first of test.txt
    end: Path | None = None  # the end of the line of an interpolated instance; default: the last of test.txt
    gamma: Fraction = 0.5  # position on the line, 0 at the start, 1 at the end
    instance: Index = 0  # index of an optimized instance
    formats: tuple[Literal["safetensors", "pt", "onnx"], ...] = ("safetensors", "pt", "onnx")  # of an instance
    checkpoint: Path | None = None  # default: runs/<dataset>/<setting>/best.pt
    folders: Flat[Folders] = field(default_factory=Folders)


PRESETS = {name: Config(name) for name in IMAGE_SETS}
PRESETS |= {name: Config(name, "mlps") for name in ("chairs", "chairs-unseen")}
PRESETS |= {name: Config(f"data/{name}", "mlps") for name in ("meshes", "deepsdf")}


def main(config: Config) -> list[Path]:
    run_dir = config.folders.run(config.dataset, config.setting)
    space = NetSpace.load(config.checkpoint or run_dir)
    if config.what == "space":
        folder = run_dir / "export" / "space"
        space.save(folder)
        print(f"{folder}: read it with NetSpace.load")
        return [folder]
    start = config.start or read_list(config.folders, config.dataset, config.setting, "test")[0].path
    facts: dict[str, Any] = {"made_by": f"export.py --what {config.what}", "versions": versions()}
    if config.what == "predicted":
        embedding, name = space.encode(start), f"predicted-{start.stem}"
        facts |= {"from": start.as_posix()}
    elif config.what == "interpolated":
        end = config.end or read_list(config.folders, config.dataset, config.setting, "test")[-1].path
        (embedding,) = space.interpolate(start, end, [config.gamma])
        name = f"interpolated-{start.stem}-{end.stem}-{config.gamma:g}"
        facts |= {"from": start.as_posix(), "to": end.as_posix(), "gamma": config.gamma}
    else:
        script = "train_latspace_single.py" if config.setting == "single" else "train_latspace_multi.py"
        search = load_search(run_dir, command(script, config.dataset), several=config.setting != "single")
        instances = search["instances"]
        if config.instance >= len(instances):
            raise InputError(
                f"--instance {config.instance}: {len(instances)} were optimized, give 0 to {len(instances) - 1}"
            )
        start = Path(instances[config.instance])
        embedding, name = search["best"][config.instance], f"optimized-{start.stem}"
        facts |= {"from": start.as_posix(), "steps": search["step"]}
    paths = [run_dir / "export" / f"{name}.{suffix}" for suffix in config.formats]
    for path in paths:
        space.export(embedding, path, facts)
    architecture = space.architectures[space.class_ids(embedding)[0]]
    print(f"{architecture}: {', '.join(str(path) for path in paths)}")
    return paths


if __name__ == "__main__":
    run_script(main, PRESETS, __doc__)
