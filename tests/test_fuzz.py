"""Damaged files of every kind that is read: refused in one line that names the file, or read as values of the right kind.

Files are made from nothing, damaged as mutations.py does, and read by the function that the project uses, in a process of its
own: a crash, a hang and memory are noticed there. Everything is drawn from the kind's name and the case's number.
"""

import contextlib
import io
import os
import pickle
import resource
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from models.errors import InputError
from tests.mutations import damaged
from tests.readable import KINDS

SECONDS = 10  # for one file
MEMORY = 500 << 20  # bytes that one file may take
ADDRESSES = (
    8 << 30
)  # bytes that may be reserved beside those in use, so that a failure here does not take the machine's memory
LONGEST_LINE = 2000

CASES = {"results": 60, "pictures": 80, "input list": 40, "Tiny-ImageNet": 30}
FEW = 30


def fault_of(read: Callable[[], Any], path: Path) -> str:
    """Return what is wrong with how a damaged file is read, or nothing."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except InputError as error:
        message = str(error)
        if not message.isprintable() or len(message) > LONGEST_LINE:
            return f"message {message[:300]!r} of {len(message)} characters"
        if path.name not in message and path.parent.name not in message:
            return f"{message[:300]!r} does not name {path.name}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(each.filename).name}:{each.lineno}" for each in where if "site-packages" not in each.filename]
        return f"{type(error).__name__}: {str(error)[:200]!r} at {ours[-3:]}"
    return ""


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def read_damaged(kind: str, root: Path, cases: range, report: Path) -> None:
    """Read so many damaged files; write what was wrong, case to text, and before each case its number."""
    files, read = KINDS[kind](root)
    read()  # the undamaged ones are right
    good = {path: path.read_bytes() for path in files}
    faults: dict[str, str] = {}
    for case in cases:
        rng = Random(f"{kind} {case}")
        path = rng.choice(files)
        path.write_bytes(damaged(good[path], path.name, rng))
        report.write_bytes(pickle.dumps({**faults, f"{case}, {path.name}": "crashed or took too long"}))
        before = peak_memory()
        signal.alarm(SECONDS)
        fault = fault_of(read, path)
        signal.alarm(0)
        if peak_memory() - before > MEMORY:
            fault += f" took {(peak_memory() - before) >> 20} MB"
        if fault:
            faults[f"{case}, {path.name}"] = fault
        path.write_bytes(good[path])
    report.write_bytes(pickle.dumps(faults))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_or_read_as_what_it_is(kind, tmp_path):
    root, report = tmp_path / "files", tmp_path / "report"
    root.mkdir()
    process = os.fork()
    if not process:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever library it is in
            torch.set_num_threads(1)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + ADDRESSES
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            read_damaged(kind, root, range(CASES.get(kind, FEW)), report)
            os._exit(0)
        except BaseException:
            report.write_bytes(pickle.dumps({"undamaged": traceback.format_exc()}))
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    faults = pickle.loads(report.read_bytes())
    assert not faults and not status, "\n".join(
        [f"status {status}", *(f"{case}: {fault}" for case, fault in faults.items())]
    )


def test_there_are_enough_cases():
    assert sum(CASES.get(kind, FEW) for kind in KINDS) >= 300
