"""SIGTERM and Ctrl-C: training finishes the step at hand, writes a checkpoint and ends; everything else ends at once."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """A signal asked the script to end. No Exception, as KeyboardInterrupt is none: what handles errors lets it pass."""

    def __init__(self, number: int):
        self.status = 128 + number  # as a shell tells it


class Signals:
    """What has come in, and whether somebody asks for it between steps."""

    received: int | None = None
    asked_for = False

    @classmethod
    def handle(cls, number: int, frame: FrameType | None) -> None:
        cls.received = number
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process wherever it is
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not cls.asked_for:
            raise Interrupted(number)


@contextlib.contextmanager
def obeyed_signals() -> Iterator[None]:
    """Within, a signal raises Interrupted: at once, or where training asks for it. For the main thread."""
    Signals.received, Signals.asked_for = None, False
    before = {number: signal.signal(number, Signals.handle) for number in SIGNALS}
    try:
        yield
    except Exception as error:
        if Signals.received is not None and not Signals.asked_for:
            # A library's compiled code may tell the Interrupted that came in its way as an error of its own.
            raise Interrupted(Signals.received) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        Signals.received, Signals.asked_for = None, False


def must_stop() -> bool:
    """Whether a signal has come. From the first call on none interrupts: the caller asks again between steps."""
    Signals.asked_for = True
    return Signals.received is not None


def stop() -> NoReturn:
    assert Signals.received is not None
    raise Interrupted(Signals.received)
