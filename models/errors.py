"""The one exception for bad input. The command line prints it as a single line and exits with status 2."""


class InputError(ValueError):
    """Report bad input. The message is one line: what is wrong, where, and what to do about it."""
