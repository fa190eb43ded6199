"""The one exception for bad input, which the command line prints as a single line with status 2; limits of numbers."""

import reprlib
from dataclasses import dataclass
from typing import Any

LONGEST_MESSAGE = 1500  # characters
BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 3, 100, 100


class InputError(ValueError):
    """Report bad input. The message is one printable line: what is wrong, where, and what to do about it."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """Return a message as one line of at most LONGEST_MESSAGE characters, with control characters escaped.

    A long one loses its middle: what is wrong stands at the start, what to do at the end.
    """
    if len(message) > LONGEST_MESSAGE:
        half = LONGEST_MESSAGE // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return printable(" ".join(message.split()))


def printable(text: str) -> str:
    """Return a text with everything escaped that is not printable, but for ends of lines.

    Such are escape sequences of terminals, and the surrogates that stand for bytes of a name that is not UTF-8.
    """
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def brief(value: Any) -> str:
    """Return a short text of a value from a file, however long or deeply nested it is: only its beginning is read."""
    return value[:100] if isinstance(value, str) else BRIEF.repr(value)


@dataclass(frozen=True)
class Limits:
    """The range of a number: from `low` to `high`, without `low` itself if it is `above`."""

    low: float = 0
    high: float = 2**63 - 1
    above: bool = False

    def check(self, flag: str, value: float) -> None:
        """Raise InputError, naming the flag, unless the value lies in the range."""
        if not (value > self.low or value == self.low and not self.above):
            raise InputError(f"{flag} {value}: must be {'more than' if self.above else 'at least'} {self.low}")
        if value > self.high:
            raise InputError(f"{flag} {value}: must be at most {self.high}")
