"""Scripts in miniature under torchrun, for test_distributed.py: torchrun tests/ranks.py ROOT RUNS_DIR JOB ..."""

import os
import signal
import sys
from pathlib import Path

import create_nets_dataset_multi
import create_nets_dataset_single
import train_multi_arch
import train_single_arch
from data import load
from tests import miniature
from training.command_line import run_script
from training.ensembles import Ensemble
from training.runs import Run

SHORT = dict(
    image_batch=102, num_epochs=2, validate_every=1, prep_noise=0.2, schedule="constant", learning_rate=1e-4
)  # 10 steps an epoch
FEW = dict(num_train=(2, 1, 1, 2), num_train_missing=(2, 2), num_val=1, num_test=1, num_epochs=(2, 2, 1, 1))
JOBS = {
    "instances": (
        create_nets_dataset_single,
        lambda root: miniature.create_config(
            root, num_train=4, num_val=1, num_test=2, lengths=(2, 60, 70), side_by_side=2, checkpoint_seconds=0
        ),
    ),
    "instances of several": (
        create_nets_dataset_multi,
        lambda root: miniature.create_multi_config(
            root, **FEW, teacher="vanilla_cnn", teacher_epochs=1, side_by_side=3, checkpoint_seconds=0
        ),
    ),
    "single": (train_single_arch, lambda root: miniature.train_config(root, **SHORT)),
    "single of 3": (train_single_arch, lambda root: miniature.train_config(root, **SHORT, meta_batch=3)),
    "multi": (train_multi_arch, lambda root: miniature.train_multi_config(root, **SHORT)),
    "multi of 5": (train_multi_arch, lambda root: miniature.train_multi_config(root, **SHORT, meta_batch=5)),
    "missing": (train_multi_arch, lambda root: miniature.train_multi_config(root, **SHORT, setting="missing")),
}


def run_job(job: str, root: Path, runs_dir: Path) -> None:
    """Each job writes into a folder of its own, with the lists in `root` unless it makes lists."""
    script, config_in = JOBS[job]
    folders = miniature.folders(runs_dir / job)
    if not job.startswith("instances"):
        folders = miniature.replace(folders, lists_dir=root / "lists")
    script.main(miniature.replace(config_in(root), folders=folders))


def die_once(owner: type, name: str, calls: int) -> None:
    """The last rank is killed instead of the given call of a method, unless it was started again already."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0" or int(os.environ["RANK"]) + 1 < int(os.environ["WORLD_SIZE"]):
        return
    original, left = getattr(owner, name), [calls]

    def counted(*arguments, **keywords):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, counted)


def main() -> None:
    root, runs_dir, *jobs = sys.argv[1:]
    sys.argv = sys.argv[:1]
    load.LOADERS["photos"] = lambda data_dir: miniature.few_photos()
    if os.environ.get("DIE_AT_STEP"):
        die_once(Ensemble, "step", int(os.environ["DIE_AT_STEP"]))
    if os.environ.get("DIE_AT_LOG"):
        die_once(Run, "log", int(os.environ["DIE_AT_LOG"]))
    runs_dir = runs_dir.replace("RANK", os.environ["RANK"])

    def run_all(config) -> None:
        for job in jobs:
            run_job(job, Path(root), Path(runs_dir))

    run_script(run_all, {"all": miniature.create_config(Path(root))}, "", split_over_ranks=True)


if __name__ == "__main__":
    main()
