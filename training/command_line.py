"""How every script starts: a preset by name, constants overridden by flags, one clear line for what is wrong."""

import contextlib
import dataclasses
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
from training.distributed import is_first, leave, num_ranks, rank
from training.interruption import Interrupted, obeyed_signals
from training.runtime import prepare_process

Config = TypeVar("Config")
AT_LEAST_2 = ("resolution", "num_gammas")
MAY_BE_INFINITE = ("clip_norm",)
MAY_BE_ZERO = ("seed", "prep_noise", "checkpoint_seconds", "instance", "gamma", "min_delta", "final_share")


def run_script(
    main: Callable[[Config], Any], presets: dict[str, Config], doc: str, split_over_ranks: bool = False
) -> None:
    """Runs `main` on the preset that the command line names (the first one by default).

    Ends with status 2 and one line for bad input, 1 for what should not happen, 143 and 130 for SIGTERM and Ctrl-C;
    `--debug` shows the traceback.

    Under torchrun all ranks run `main` where it splits its work over them, and only the first prints. Where it does not,
    only the first runs, and the others end at once.
    """
    if not (is_first() or split_over_ranks):
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        with obeyed_signals():
            config = read_config(presets, arguments, doc)
            prepare_process()
            with contextlib.redirect_stdout(sys.stdout if is_first() else io.StringIO()):
                main(config)
            leave()
    except (Interrupted, KeyboardInterrupt) as stopped:
        # What a library was making just then may complain when it is taken down half made.
        sys.unraisablehook = lambda _: None
        if is_first():
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(stopped.status if isinstance(stopped, Interrupted) else 130) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = " ".join(str(error).split())
        if isinstance(error, InputError):
            end(message, 2)
        end(f"{type(error).__name__}: {message}; --debug shows where", 1)


def end(message: str, status: int) -> NoReturn:
    whose = f" (rank {rank()})" if num_ranks() > 1 else ""
    print(f"error{whose}: {message}", file=sys.stderr)
    raise SystemExit(status)


def read_config(presets: dict[str, Config], arguments: list[str], doc: str) -> Config:
    """`[PRESET] [--flag value ...]` as a config. Raises InputError for anything that is not one."""
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments[0] if named else next(iter(presets))
    script = Path(sys.argv[0]).name
    if name not in presets:
        raise InputError(
            f"unknown preset '{name}'; choose {', '.join(presets)}, as in: python {script} {next(iter(presets))}; "
            "a data set of your own goes with --dataset, after the preset"
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
    check_numbers(config)
    return config


def wrapped(doc: str) -> str:
    """A docstring's paragraphs, as wide as the terminal, at most 120 columns. Indented lines, commands, stay as they are."""
    width = min(shutil.get_terminal_size().columns, 120)
    paragraphs = [
        paragraph
        if paragraph.startswith(" ")
        else textwrap.fill(" ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False)
        for paragraph in doc.strip().split("\n\n")
    ]
    return "\n\n".join(paragraphs)


def one_line(box: str) -> str:
    """The message in tyro's frame, as one line: what stands between the title and the first rule after it."""
    lines = [line.strip("│|╭╮╰╯─ ") for line in box.splitlines()]
    is_rule = [not line.strip("-") for line in lines]
    start = next((i for i in range(1, len(lines)) if not is_rule[i]), 0)
    end = next((i for i in range(start, len(lines)) if is_rule[i]), len(lines))
    return " ".join(lines[start:end])


def check_numbers(config: Any) -> None:
    """Counts, sizes and rates are positive, whatever the script; a few may be zero. Raises InputError naming the flag."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            flag, may_be_zero = f"--{field.name.replace('_', '-')} {number}", field.name in MAY_BE_ZERO
            if not (number > 0 or may_be_zero and number == 0):
                raise InputError(f"{flag}: must be {'0 or more' if may_be_zero else 'more than 0'}")
            if number < 2 and field.name in AT_LEAST_2:
                raise InputError(f"{flag}: must be 2 or more")
            if number >= 2**63 and field.name not in MAY_BE_INFINITE:
                raise InputError(f"{flag}: is too large for any machine; give less")
