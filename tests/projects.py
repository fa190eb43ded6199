"""One small project, in which every script has run, made once for all tests of a run, and copies of it.

The project's paths are relative: scripts and tests run in its folder. Tests that write use a copy, `own_project`.
"""

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock

from data import load

# `tests.miniature` imports every script, which takes seconds: so it is imported where it is needed.
if TYPE_CHECKING:
    from tests import miniature

Everything = dict[str, "miniature.Ran"]  # what each script wrote, by its name
HERE = Path()
BIG = ("interpolate_mlps.html", "*.glb", "*.ply", "tensorboard", "imports")  # what a copy of a project rarely needs
PARTS = ("multi", "shapes", "zoo", "single")


@pytest.fixture
def few_photos(monkeypatch):
    """Scripts load 1,424 photos instead of 9,000."""
    patch_photos(monkeypatch)


def patch_photos(patch: pytest.MonkeyPatch) -> None:
    """Let scripts load few photos."""
    from tests import miniature

    patch.setitem(load.LOADERS, "photos", lambda data_dir: miniature.few_photos())


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> tuple[Path, Everything]:
    base, worker = folder_of_run(tmp_path_factory), os.environ.get("PYTEST_XDIST_WORKER", "")
    # Two workers begin at two ends, so that neither waits for long.
    parts = PARTS[::-1] if worker.endswith(("1", "3", "5", "7", "9")) else PARTS
    made = {name: once(base / name, lambda root, name=name: run(root, name)) for name in parts}

    def join(root: Path) -> Everything:
        everything: Everything = {}
        for name in PARTS:
            shutil.copytree(base / name, root, dirs_exist_ok=True)
        for part in (*made.values(), run(root, "last")):
            for name, ran in part.items():
                before = everything.get(name, replace(ran, stderr="", files={}))
                everything[name] = replace(ran, stderr=before.stderr + ran.stderr, files={**before.files, **ran.files})
        return everything

    return base / "project", once(base / "project", join)


def folder_of_run(tmp_path_factory) -> Path:
    """Return the temporary folder of this test run; pytest-xdist's workers have folders of their own in it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(root: Path, make: Callable[[Path], Any]) -> Any:
    """Return what `make` returned when the first process of this test run made the folder."""
    result = root.with_suffix(".pickle")
    with FileLock(root.with_suffix(".lock")):
        if not result.is_file():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            result.write_bytes(pickle.dumps(make(root)))
    return pickle.loads(result.read_bytes())


def run(root: Path, part: str) -> Everything:
    """Run a part's scripts in `root`, on few photos."""
    from tests import miniature

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root), torch.random.fork_rng():
        torch.manual_seed(0)
        patch_photos(patch)
        return miniature.run_scripts(miniature.PARTS[part](HERE), HERE)


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
    return HERE


@pytest.fixture
def own_project(project_folder, few_photos, monkeypatch, tmp_path) -> Path:
    """Run the test in its own copy of the project; return the path to the project from there."""
    monkeypatch.chdir(copy_project(project_folder, tmp_path / "project"))
    return HERE


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project, without what is large and rarely needed; return the copy."""
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns(*BIG)))


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
