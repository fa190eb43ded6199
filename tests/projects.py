"""One small project, in which every script has run, made once for all tests of a run, and copies of it.

The project's paths are relative: scripts and tests run in its folder. Tests that write use a copy, `own_project`.
"""

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from data import load
from tests import miniature

Everything = dict[str, miniature.Ran]  # what each script wrote, by its name
PARTS = {"single": miniature.single_runs, "multi": miniature.multi_runs, "shapes": miniature.shape_runs}


@pytest.fixture
def few_photos(monkeypatch):
    """Scripts load 1,424 photos instead of 9,000."""
    monkeypatch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> tuple[Path, Everything]:
    base, worker = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER", "")
    base = base.parent if worker else base  # pytest-xdist's workers have folders of their own there
    # Two workers begin at two ends, so that neither waits for long.
    parts = dict(sorted(PARTS.items(), reverse=worker.endswith(("1", "3", "5", "7", "9"))))
    made = {name: once(base / name, lambda root, runs=runs: run(root, runs)) for name, runs in parts.items()}

    def join(root: Path) -> Everything:
        for name in PARTS:
            shutil.copytree(base / name, root, dirs_exist_ok=True)
        ran = run(root, miniature.last_runs)
        for part in made.values():
            for name, each in part.items():
                files = {**each.files, **ran[name].files} if name in ran else each.files
                ran[name] = miniature.Ran(each.stderr, files)
        return ran

    return base / "project", once(base / "project", join)


def once(root: Path, make: Callable[[Path], Everything]) -> Everything:
    """Return what `make` returned when the first process of this test run made the folder."""
    result = root.with_suffix(".pickle")
    with FileLock(root.with_suffix(".lock")):
        if not result.is_file():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            result.write_bytes(pickle.dumps(make(root)))
    return pickle.loads(result.read_bytes())


def run(root: Path, runs: Callable[[Path], miniature.Runs]) -> Everything:
    """Run scripts in `root`, on few photos."""
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root), torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())
        return miniature.run_scripts(runs(miniature.HERE), miniature.HERE)


@pytest.fixture(scope="session")
def each_script(_made) -> Everything:
    """What every script wrote, in miniature, by name."""
    return _made[1]


@pytest.fixture(scope="session")
def project_folder(_made) -> Path:
    """The project's folder. Nothing may write there."""
    return _made[0]


@pytest.fixture
def project(project_folder, few_photos, monkeypatch) -> Path:
    """Run the test in the project's folder, where it may only read; return the path to the project from there."""
    monkeypatch.chdir(project_folder)
    return miniature.HERE


@pytest.fixture
def own_project(project_folder, few_photos, monkeypatch, tmp_path) -> Path:
    """Run the test in its own copy of the project; return the path to the project from there."""
    monkeypatch.chdir(copy_project(project_folder, tmp_path / "project"))
    return miniature.HERE


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project, without what is large and rarely needed; return the copy."""
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns(*miniature.BIG)))


@contextlib.contextmanager
def changed_text(path: Path, text: str | None) -> Iterator[None]:
    """Let a file have another text within this context, or (None) be absent."""
    good = path.read_bytes()
    try:
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
        yield
    finally:
        path.write_bytes(good)
