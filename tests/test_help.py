"""What one sees in the terminal: --help of every script, and its progress bar."""

import re
from pathlib import Path

import pytest

from tests.test_bad_input import run

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "run_script(main" in path.read_text(encoding="utf-8"))


def without_help(text):
    """Return flags with nothing but their default beside them; tyro's right column starts where that of -h does."""
    lines = [line.replace("│", " ") for line in text.splitlines()]
    column, helps = next(line.index("show this help") for line in lines if "show this help" in line), {}
    for line in lines:
        if re.match("  --[a-z]", line):
            flag = line.split()[0]
            helps[flag] = ""
        if helps and not line[column - 2 : column].strip():
            helps[flag] += line[column:].strip() + " "
    return [flag for flag, words in helps.items() if not words.partition("(default:")[0].strip()]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_the_terminal_and_explains_every_constant(script, columns, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = run(script, "--help", cwd=tmp_path)
    assert not status
    assert not [line for line in out.splitlines() if len(line) > columns]
    assert f"    python {script}.py" in out
    assert not without_help(out)


@pytest.mark.parametrize(
    ("script", "watched"),
    [
        ("create_nets_dataset_single", ()),
        ("train_single_arch", ("loss=", "val_accuracy_error=", "learning_rate=")),
        ("create_nets_dataset_multi", ()),
        ("train_multi_arch", ("loss=", "right_class_ids=", "val_accuracy=")),
        ("train_latspace_single", ("loss=", "best_val_accuracy=")),
        ("train_latspace_multi", ("loss=", "best_val_accuracy=")),
        ("create_mlp_dataset", ("closeness=", "chamfer=")),
        ("train_mlps", ("loss=", "closeness=")),
    ],
)
def test_bars_show_what_one_watches_and_the_time_left(script, watched, each_script):
    lines = [line for line in each_script[script].stderr.splitlines() if "/s" in line or "s/" in line]
    assert all(any(word in line for line in lines) for word in watched)
    assert not any("=nan" in line or "=inf" in line for line in lines)
    if "latspace" not in script:  # whose end is not known
        assert any(re.search(r"100%.*<00:00", line) for line in lines)
