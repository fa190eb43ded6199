"""How every script starts: a preset by name, constants changed by flags, one clear line for what is wrong.

Scripts import this module first. It does something when it is imported, as no other does (`prepare_imports`), and imports
torch only once it runs: what a script imports takes seconds, in which Ctrl-C and closed streams must not surprise anyone.
"""

import contextlib
import io
import os
import select
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from models.errors import InputError, one_line, printable

PROJECT = Path(__file__).parent.parent
PIPE_CLOSED = 128 + signal.SIGPIPE  # as shells report it
Config = TypeVar("Config")


def prepare_imports() -> None:
    """Open streams that are closed, and let Ctrl-C end a script without a traceback until `run_script` handles signals."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Else a file that is opened later, such as a checkpoint, gets the stream's number, and what libraries print.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    script = getattr(sys.modules["__main__"], "__file__", None)
    is_script = script is not None and Path(script).resolve().parent == PROJECT  # not a test that imports one
    if is_script and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


class Printable(io.TextIOBase):
    """A text stream that escapes what is not printable, as in the names of files. Its errors are those of `writing`."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        with writing(self.stream):
            self.stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with writing(self.stream):
            self.stream.flush()


def run_script(
    main: Callable[[Config], Any], presets: dict[str, Config], doc: str, split_over_ranks: bool = False
) -> None:
    """Run `main` on the preset that the command line names, by default the first one.

    Exit with status 2 and one line for bad input, 1 for an unexpected error, 143 and 130 for SIGTERM and Ctrl-C; `--debug`
    prints the traceback. Under torchrun, if the script splits its work over ranks, all run `main` and only the first prints.
    If it does not, the first runs and the others end at once. If nobody reads what it prints any more, as behind
    `| head`, it ends without a word.
    """
    from training.distributed import end_with_parent, is_first, leave
    from training.runtime import Interrupted, handled_signals, prepare_process

    try:
        first = is_first()
    except InputError as error:  # the ranks are wrong, which is not for one of them to say
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if not (first or split_over_ranks):
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale may lack a letter
    end_with_parent()
    try:
        with handled_signals():
            config = read_config(presets, arguments, doc)
            prepare_process()
            with contextlib.redirect_stdout(Printable(sys.stdout) if is_first() else io.StringIO()):
                main(config)
            leave()
            with writing(sys.stdout):
                sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as stopped:
        # Objects that a library was building may complain when they are deleted.
        sys.unraisablehook = lambda _: None
        if is_first():
            print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        raise SystemExit(stopped.status if isinstance(stopped, Interrupted) else 130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and nobody_reads(sys.stdout):
            discard_output(sys.stdout)
            raise SystemExit(PIPE_CLOSED) from None
        if debug:
            sys.stderr.write(printable(traceback.format_exc()))
        if isinstance(error, InputError):
            end(str(error), 2)
        end(f"{type(error).__name__}: {one_line(str(error))}; --debug shows where", 1)


def end(message: str, status: int) -> NoReturn:
    """Print an error and exit."""
    from training.distributed import num_ranks, rank

    whose = f" (rank {rank()})" if num_ranks() > 1 else ""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"error{whose}: {message}\n")  # at once: the lines of several ranks do not mix
    raise SystemExit(status)


def nobody_reads(stream: TextIO) -> bool:
    """Return whether a stream is a pipe whose reader has ended."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))
    except (OSError, ValueError):  # no file, as in tests
        return False


@contextlib.contextmanager
def writing(stream: TextIO) -> Iterator[None]:
    """Raise InputError if what is printed in this context cannot be written, BrokenPipeError if nobody reads it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output(stream)
        raise InputError(f"what is printed cannot be written ({error.strerror}); make room, and run it again") from None


def discard_output(stream: TextIO) -> None:
    """Let what is printed and not written yet go nowhere, without a complaint when Python ends."""
    with open(os.devnull, "w") as nowhere, contextlib.suppress(OSError, ValueError):  # tests print to no file
        os.dup2(nowhere.fileno(), stream.fileno())


def read_config(presets: dict[str, Config], arguments: list[str], doc: str) -> Config:
    """Return the config of `[PRESET] [--flag value ...]`. Raise InputError for anything else."""
    import tyro

    from training.constants import check_limits

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
        with writing(sys.stdout):
            print(f"{wrapped(doc)}\n\n{wrapped(of_preset)}\n")
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), writing(sys.stdout):
            config = tyro.cli(
                type(presets[name]),
                default=presets[name],
                args=arguments[named:],
                description="",
                prog=f"{script} {name}",
            )
    except SystemExit as error:
        if not error.code:  # --help
            with writing(sys.stdout):
                sys.stdout.flush()
            raise
        raise InputError(f"{text_in_box(output.getvalue())}; see: python {script} {name} --help") from None
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


def text_in_box(box: str) -> str:
    """Return the message in tyro's frame as one line: the text between the title and the first rule.

    tyro has no public way to get the message itself (1.0.17).
    """
    lines = [line.strip("│|╭╮╰╯─ ") for line in box.splitlines()]
    is_rule = [not line.strip("-") for line in lines]
    start = next((i for i in range(1, len(lines)) if not is_rule[i]), 0)
    end = next((i for i in range(start, len(lines)) if is_rule[i]), len(lines))
    return " ".join(lines[start:end])


prepare_imports()
