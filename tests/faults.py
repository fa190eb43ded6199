"""Kill scripts in miniature, for test_faults.py.

Each attempt is a process of its own, forked from one that has imported everything.

A script's files are compared with those of an unbroken run in a copy of the same folder, by the same relative paths.
"""

from training.command_line import run_script

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import compare_objectives
import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
import eval_latspace_multi
import eval_latspace_single
import eval_multi
import eval_single
import export
import import_instances
import interpolate_mlps
import interpolate_multi_arch
import interpolate_single_arch
import report
import stitch_nets
import train_latspace_multi
import train_latspace_single
import train_mlps
import train_multi_arch
import train_single_arch
import visualize_prep
from data import load
from tests import miniature
from training.runtime import versions

HERE = Path()
NOT_COMPARED = (".out", ".err", ".lock", ".locked-by", ".moments")
MULTI = dict(num_train=miniature.of_each(2, 1), num_train_missing=(2, 2), num_val=1, num_test=1)
MULTI |= dict(num_epochs=(*miniature.of_each(2, 2)[:2], *miniature.of_each(2, 1)[2:]))
MULTI |= dict(teacher="lenetlike", teacher_epochs=2, checkpoint_seconds=0, side_by_side=2)
SINGLE = dict(num_train=3, num_val=1, num_test=2, lengths=(2, 10, 15), checkpoint_seconds=0, side_by_side=3)
# In the order in which they need each other.
SCRIPTS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "create_nets_dataset_single": (create_nets_dataset_single, lambda: miniature.create_config(HERE, **SINGLE)),
    "create_nets_dataset_multi": (create_nets_dataset_multi, lambda: miniature.create_multi_config(HERE, **MULTI)),
    "create_mlp_dataset": (create_mlp_dataset, lambda: miniature.create_mlp_config(HERE, checkpoint_seconds=0)),
    "train_single_arch": (train_single_arch, lambda: miniature.train_config(HERE, num_steps=32, validate_every=16)),
    "train_single_arch by weights": (
        train_single_arch,
        lambda: miniature.train_config(HERE, num_steps=32, validate_every=16, objective="weights"),
    ),
    "train_single_arch by both": (
        train_single_arch,
        lambda: miniature.train_config(HERE, num_steps=32, validate_every=16, objective="both"),
    ),
    "train_multi_arch": (train_multi_arch, lambda: miniature.train_multi_config(HERE, num_steps=32, validate_every=16)),
    "train_mlps": (train_mlps, lambda: miniature.train_mlps_config(HERE)),
    "train_latspace_single": (train_latspace_single, lambda: miniature.search_config(train_latspace_single, HERE)),
    "train_latspace_multi": (
        train_latspace_multi,
        lambda: miniature.search_config(train_latspace_multi, HERE, per_class=1),
    ),
    "eval_single": (eval_single, lambda: miniature.config_of(eval_single, HERE)),
    "eval_multi": (eval_multi, lambda: miniature.config_of(eval_multi, HERE)),
    "eval_latspace_single": (eval_latspace_single, lambda: miniature.config_of(eval_latspace_single, HERE)),
    "eval_latspace_multi": (eval_latspace_multi, lambda: miniature.config_of(eval_latspace_multi, HERE)),
    "interpolate_single_arch": (interpolate_single_arch, lambda: miniature.config_of(interpolate_single_arch, HERE)),
    "interpolate_multi_arch": (interpolate_multi_arch, lambda: miniature.config_of(interpolate_multi_arch, HERE)),
    "interpolate_mlps": (interpolate_mlps, lambda: miniature.interpolate_mlps_config(HERE)),
    "compare_objectives": (compare_objectives, lambda: miniature.config_of(compare_objectives, HERE)),
    "visualize_prep": (visualize_prep, lambda: miniature.config_of(visualize_prep, HERE)),
    "export": (export, lambda: miniature.config_of(export, HERE)),
    "export of a space": (export, lambda: miniature.config_of(export, HERE, what="space")),
    "import_instances": (import_instances, lambda: miniature.import_config(HERE, num_val=1, num_test=1)),
    "stitch_nets": (stitch_nets, lambda: miniature.stitch_config(HERE, checkpoint_seconds=0)),
    "report": (report, lambda: miniature.config_of(report, HERE)),
}


def start(name: str, folder: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run a script in `folder`, after `before`, in a new process; return its number.

    What it prints goes to .out and .err.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.chdir(folder)
        script, config = SCRIPTS[name]
        sys.argv = [f"{name}.py"]
        torch.set_num_threads(1)
        torch.manual_seed(0)
        load.LOADERS["photos"] = lambda data_dir: miniature.few_photos()
        for descriptor, name_of_it in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(name_of_it, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        before()
        run_script(script.main, {"miniature": config()}, "")
        status = 0
    except SystemExit as ended:
        status = ended.code
    finally:
        for each in (sys.stdout, sys.stderr):
            each.flush()
        os._exit(status)


def wait(process: int) -> int:
    """Return the exit status, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def send_at_write(number: int, which: int) -> Callable[[], None]:
    """Send its own process a signal before or after the n-th time that it syncs, moves or deletes a file."""

    def prepare() -> None:
        left = [which]
        for name in ("fsync", "replace", "unlink"):
            original = getattr(os, name)

            def counted(*arguments, original=original, **keywords):
                for call in (None, original):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), number)
                    found = call(*arguments, **keywords) if call else None
                return found

            setattr(os, name, counted)

    return prepare


def writes_of(name: str, folder: Path) -> tuple[int, float]:
    """Run a script unbroken; return how many moments send_at_write has in it, and how long it took, seconds."""
    counter = folder / ".moments"

    def prepare() -> None:
        seen = [0]
        for each in ("fsync", "replace", "unlink"):
            original = getattr(os, each)

            def counted(*arguments, original=original, **keywords):
                seen[0] += 2
                counter.write_text(str(seen[0]))
                return original(*arguments, **keywords)

            setattr(os, each, counted)

    since = time.monotonic()
    status = wait(start(name, folder, prepare))
    assert status == 0, (folder / ".err").read_text()
    return int(counter.read_text()) if counter.is_file() else 0, time.monotonic() - since


def kill_and_finish(name: str, folder: Path, kills: int, moments: int, seconds: float, rng: random.Random) -> int:
    """Run a script again and again, killed at a random moment each of `kills` times at most, until it is done.

    Half of the moments are next to a file being written, half anywhere; every second signal is SIGTERM. Return how many
    attempts were ended by a signal. Assert that SIGTERM ends with status 143 and one line.
    """
    killed = 0
    for _ in range(kills):
        number = rng.choice((signal.SIGKILL, signal.SIGTERM))
        if moments and rng.random() < 0.5:
            process = start(name, folder, send_at_write(number, rng.randint(1, moments)))
        else:
            process = start(name, folder)
            time.sleep(rng.uniform(0, seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        status = wait(process)
        said = (folder / ".err").read_text() if (folder / ".err").is_file() else ""
        if status == 0:
            break
        assert status in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), (status, said)
        if status == 128 + signal.SIGTERM:
            assert len(said.splitlines()) == 1 and said.startswith("stopped"), said
        killed += 1
    status = wait(start(name, folder))
    assert status == 0, (folder / ".err").read_text()
    return killed


def contents(folder: Path) -> dict[str, Any]:
    """Return what there is, by relative path: bytes, or what a checkpoint has; without TensorBoard's times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or "tensorboard" in inside.parts or path.name in NOT_COMPARED:
            continue
        if path.suffix == ".pt":
            found[str(inside)] = torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                found[str(inside)] = tensors | (file.metadata() or {})
        else:
            found[str(inside)] = path.read_bytes()
    return found


def difference(one: Any, other: Any, where: str = "") -> str:
    """Return where two differ first, bit for bit, or nothing."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return "" if one.dtype == other.dtype and torch.equal(one, other) else where
    if isinstance(one, dict) and isinstance(other, dict):
        if set(one) != set(other):
            return f"{where}: {sorted(map(str, set(one) ^ set(other)))}"
        return next(filter(None, (difference(one[key], other[key], f"{where}/{key}") for key in one)), "")
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return next(filter(None, (difference(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(one, other)))), "")
    return "" if type(one) is type(other) and one == other else where


def main(root: Path, kills: int, seed: int, names: list[str]) -> None:
    """Run scripts in order in `root/whole`, each also in a copy of what was there before it, killed so many times."""
    whole, broken = root / "whole", root / "broken"
    whole.mkdir(parents=True)
    rng = random.Random(seed)
    versions()  # now, for all attempts: a commit that is made meanwhile is no difference
    for name in names:
        before = root / "before"
        shutil.copytree(whole, before)
        moments, seconds = writes_of(name, whole)
        left = kills
        while left > 0:
            shutil.copytree(before, broken)
            killed = kill_and_finish(name, broken, left, moments, seconds, rng)
            differs = difference(contents(whole), contents(broken))
            assert not differs, f"{name}, killed {killed} times: {differs} is not that of an unbroken run"
            shutil.rmtree(broken)
            print(f"{name}: killed {killed} times; {moments} moments, {seconds:.1f} s", flush=True)
            left -= max(killed, 1)
        shutil.rmtree(before)


if __name__ == "__main__":
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # of the figures
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] or list(SCRIPTS))
