"""The one exception for bad input; the command line prints it as a single line and exits with status 2."""


class InputError(ValueError):
    """Something a person gave is wrong. The message is one line: what is wrong, and what to do about it."""
