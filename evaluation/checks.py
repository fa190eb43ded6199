"""Checks of values in the JSON files that scripts write: each accepts a value, or raises ValueError that says what is wrong."""

import math
from collections.abc import Callable
from typing import Any

from models.errors import brief

LONGEST_LIST = 1_000_000
LARGEST = 1e15
LONGEST_NAME = 4096  # characters; names of architectures and paths of instances

Check = Callable[[Any], None]  # raises ValueError for a value that is not as it should be


def number(value: Any) -> None:
    """Accept a number, neither NaN nor infinite nor larger than anything that is measured here."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        raise ValueError(f"{brief(value)} is not a number that is measured here")


def number_or_nan(value: Any) -> None:
    """Accept a number, or NaN, which is the distance of an empty mesh and the mean of nothing."""
    if not (isinstance(value, float) and math.isnan(value)):
        number(value)


def gamma(value: Any) -> None:
    """Accept a number from 0 to 1."""
    number(value)
    if not 0 <= value <= 1:
        raise ValueError(f"{brief(value)} is not from 0 to 1")


def number_or_none(value: Any) -> None:
    """Accept a number, or None where it is not defined."""
    if value is not None:
        number(value)


def count(value: Any) -> None:
    """Accept a whole number from 0, small enough to count with."""
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"{brief(value)} is not a whole number from 0")


def name(value: Any) -> None:
    """Accept a text that one line shows."""
    if not isinstance(value, str) or len(value) > LONGEST_NAME or "\n" in value:
        raise ValueError(f"{brief(value)} is not a name")


def name_or_none(value: Any) -> None:
    """Accept a name, or None where there is none."""
    if value is not None:
        name(value)


def list_of(check: Check, at_least: int = 1, at_most: int = LONGEST_LIST) -> Check:
    """Return the check of a list."""

    def check_list(value: Any) -> None:
        if not isinstance(value, list) or not at_least <= len(value) <= at_most:
            raise ValueError(f"{brief(value)} is not a list of {at_least} to {at_most} values")
        for each in value:
            check(each)

    return check_list


def object_of(*alike: str, **checks: Check) -> Check:
    """Return the check of an object that has these entries at least; the lists `alike` are of one length."""

    def check_object(value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{brief(value)} is not an object")
        for key, check in checks.items():
            if key not in value:
                raise ValueError(f"'{key}' is missing")
            try:
                check(value[key])
            except ValueError as error:
                raise ValueError(f"'{key}': {error}") from None
        if len({len(value[key]) for key in alike}) > 1:
            lengths = ", ".join(f"{len(value[key])} in '{key}'" for key in alike)
            raise ValueError(f"as many values are expected in each: {lengths}")

    return check_object


def map_of(check: Check, at_most: int = LONGEST_LIST) -> Check:
    """Return the check of an object whose entries are all alike, under any names."""

    def check_map(value: Any) -> None:
        if not isinstance(value, dict) or len(value) > at_most:
            raise ValueError(f"{brief(value)} is not an object of at most {at_most} entries")
        for key, each in value.items():
            name(key)
            try:
                check(each)
            except ValueError as error:
                raise ValueError(f"'{brief(key)}': {error}") from None

    return check_map


def both(*checks: Check) -> Check:
    """Return the check of all of them, one after the other."""

    def check_all(value: Any) -> None:
        for check in checks:
            check(value)

    return check_all


def interval_or_none(value: Any) -> None:
    """Accept two numbers, the first not above the second, or None where there is no interval."""
    if value is not None:
        list_of(number, 2, 2)(value)
        if value[0] > value[1]:
            raise ValueError(f"{brief(value)} is not an interval")


def fraction(value: Any) -> None:
    """Accept a number from 0 to 1, or a little above by rounding."""
    number(value)
    if not 0 <= value <= 1 + 1e-6:
        raise ValueError(f"{brief(value)} is not from 0 to 1")


def not_negative(value: Any) -> None:
    """Accept a number from 0."""
    number(value)
    if value < 0:
        raise ValueError(f"{brief(value)} is below 0")


def flag(value: Any) -> None:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{brief(value)} is not true or false")


numbers, counts, names = list_of(number), list_of(count), list_of(name)
