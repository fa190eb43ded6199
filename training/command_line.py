"""How every script starts: a preset by name, constants changed by flags, one clear line for what is wrong."""

import contextlib
import io
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from models.errors import InputError
from training.constants import check_limits
from training.distributed import is_first, leave, num_ranks, rank
from training.runtime import Interrupted, handled_signals, prepare_process

Config = TypeVar("Config")


def run_script(
    main: Callable[[Config], Any], presets: dict[str, Config], doc: str, split_over_ranks: bool = False
) -> None:
    """Run `main` on the preset that the command line names, by default the first one.

    Exit with status 2 and one line for bad input, 1 for an unexpected error, 143 and 130 for SIGTERM and Ctrl-C; `--debug`
    prints the traceback. Under torchrun, if the script splits its work over ranks, all run `main` and only the first prints.
    If it does not, the first runs and the others end at once.
    """
    if not (is_first() or split_over_ranks):
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        with handled_signals():
            config = read_config(presets, arguments, doc)
            prepare_process()
            with contextlib.redirect_stdout(sys.stdout if is_first() else io.StringIO()):
                main(config)
            leave()
    except (Interrupted, KeyboardInterrupt) as stopped:
        # Objects that a library was building may complain when they are deleted.
        sys.unraisablehook = lambda _: None
        if is_first():
            print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        raise SystemExit(stopped.status if isinstance(stopped, Interrupted) else 130) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = " ".join(str(error).split())
        if isinstance(error, InputError):
            end(message, 2)
        end(f"{type(error).__name__}: {message}; --debug shows where", 1)


def end(message: str, status: int) -> NoReturn:
    """Print an error and exit."""
    whose = f" (rank {rank()})" if num_ranks() > 1 else ""
    sys.stderr.write(f"error{whose}: {message}\n")  # at once: the lines of several ranks do not mix
    raise SystemExit(status)


def read_config(presets: dict[str, Config], arguments: list[str], doc: str) -> Config:
    """Return the config of `[PRESET] [--flag value ...]`. Raise InputError for anything else."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else next(iter(presets))
    script = Path(sys.argv[0]).name
    if name not in presets:
        raise InputError(
            f"unknown preset '{name}'; choose {', '.join(presets)}, as in: python {script} {next(iter(presets))}; "
            "for a data set of your own, give --dataset after the preset"
        )
    if {"-h", "--help"} & set(arguments):
        of_preset = f"Presets: {', '.join(presets)}. The options below are those of '{name}'. --debug shows tracebacks."
        print(f"{wrapped(doc)}\n\n{wrapped(of_preset)}\n")
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            config = tyro.cli(
                type(presets[name]),
                default=presets[name],
                args=arguments[named:],
                description="",
                prog=f"{script} {name}",
            )
    except SystemExit as error:
        if not error.code:
            raise  # --help
        raise InputError(f"{one_line(output.getvalue())}; see: python {script} {name} --help") from None
    check_limits(config)
    return config


def wrapped(doc: str) -> str:
    """Wrap a docstring's paragraphs to the terminal, at most 120 columns. Indented lines, which are commands, stay."""
    width = min(shutil.get_terminal_size().columns, 120)
    paragraphs = [
        paragraph
        if paragraph.startswith(" ")
        else textwrap.fill(" ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False)
        for paragraph in doc.strip().split("\n\n")
    ]
    return "\n\n".join(paragraphs)


def one_line(box: str) -> str:
    """Return the message in tyro's frame as one line: the text between the title and the first rule.

    tyro has no public way to get the message itself (1.0.17).
    """
    lines = [line.strip("│|╭╮╰╯─ ") for line in box.splitlines()]
    is_rule = [not line.strip("-") for line in lines]
    start = next((i for i in range(1, len(lines)) if not is_rule[i]), 0)
    end = next((i for i in range(start, len(lines)) if is_rule[i]), len(lines))
    return " ".join(lines[start:end])
