"""Run scripts in miniature on several ranks, for test_distributed.py.

torchrun tests/ranks.py ROOT RUNS_DIR JOB ...
python tests/ranks.py RANKS ROOT RUNS_DIR JOB ...  # quicker: one import for all ranks
"""

from training.command_line import run_script

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
import train_mlps
import train_multi_arch
import train_single_arch
from data import load
from tests import miniature
from training.ensembles import Ensemble

# At the paper's rate. A norm that is never reached: clipping, like Adam, hides gradients' scale.
SHORT = dict(num_steps=20, validate_every=10, schedule="constant", learning_rate=1e-4, clip_norm=1e9, prep_noise=0.2)
CLIPPED = {**SHORT, "clip_norm": 0.1}
FEW = dict(num_train=miniature.of_each(2, 1), num_train_missing=(2, 2), num_val=1, num_test=1)
FEW |= dict(num_epochs=(*miniature.of_each(2, 2)[:2], *miniature.of_each(1, 1)[2:]), teacher="vanilla_cnn")
FEW |= dict(teacher_epochs=1)
INSTANCES = {
    "instances": (
        create_nets_dataset_single,
        lambda root: miniature.create_config(root, num_train=4, num_val=1, num_test=2, lengths=(2, 20, 30)),
    ),
    "instances of several": (create_nets_dataset_multi, lambda root: miniature.create_multi_config(root, **FEW)),
    "shapes": (create_mlp_dataset, lambda root: miniature.create_mlp_config(root)),
}
NET_SPACES = {
    "single": (train_single_arch, lambda root: miniature.train_config(root, **SHORT)),
    "single of 3": (train_single_arch, lambda root: miniature.train_config(root, **SHORT, meta_batch=3)),
    "weights": (
        train_single_arch,
        lambda root: miniature.train_config(root, **SHORT, objective="weights", meta_batch=3),
    ),
    "both": (train_single_arch, lambda root: miniature.train_config(root, **SHORT, objective="both")),
    "multi": (train_multi_arch, lambda root: miniature.train_multi_config(root, **SHORT)),
    "multi of 5": (train_multi_arch, lambda root: miniature.train_multi_config(root, **SHORT, meta_batch=5)),
    "missing": (train_multi_arch, lambda root: miniature.train_multi_config(root, **CLIPPED, setting="missing")),
    "mlps": (train_mlps, lambda root: miniature.train_mlps_config(root, **SHORT)),
}


def run_job(job: str, root: Path, runs_dir: Path) -> None:
    """Run a job, which writes into `runs_dir/job`. NetSpaces train on the lists in `root`."""
    folders = miniature.folders(runs_dir / job)
    if job in INSTANCES:
        script, config_in = INSTANCES[job]
        changes = dict(side_by_side=2, checkpoint_seconds=0)
    else:
        script, config_in = NET_SPACES[job]
        folders, changes = miniature.replace(folders, lists_dir=root / "lists"), {}
    script.main(miniature.changed(config_in(root), folders=folders, **changes))


def become_ranks(number: int) -> None:
    """Return in each of the new processes, with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = dict(MASTER_ADDR="localhost", MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE=str(number))
    for rank in map(str, range(number)):
        if not os.fork():
            os.environ |= {**address, "RANK": rank, "LOCAL_RANK": rank}
            return
    raise SystemExit(max(abs(os.waitstatus_to_exitcode(os.wait()[1])) for _ in range(number)))


def die_once(restart: str, owner: Any, name: str, calls: int) -> None:
    """Kill the last rank, after so many restarts by torchrun, instead of the given call of a function."""
    last = int(os.environ["RANK"]) + 1 == int(os.environ["WORLD_SIZE"])
    if not calls or not last or os.environ["TORCHELASTIC_RESTART_COUNT"] != restart:
        return
    original, left = getattr(owner, name), [calls]

    def counted(*arguments, **keywords):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, counted)


def main() -> None:
    if "RANK" not in os.environ:
        become_ranks(int(sys.argv.pop(1)))
    root, runs_dir, *jobs = sys.argv[1:]
    sys.argv = sys.argv[:1]
    runs_dir = Path(runs_dir.replace("RANK", os.environ["RANK"]))
    load.LOADERS["photos"] = lambda data_dir: miniature.few_photos()
    die_once("0", Ensemble, "step", int(os.environ.get("DIE_AT_STEP", 0)))
    die_once("1", train_multi_arch, "step_losses", int(os.environ.get("DIE_AT_LOSS", 0)))

    def run_all(config) -> None:
        for job in jobs:
            run_job(job, Path(root), runs_dir)

    run_script(run_all, {"all": miniature.create_config(Path(root))}, "", split_over_ranks=True)


if __name__ == "__main__":
    main()
