"""Text files, as all readers of lists, tables, annotations and JSON read them: bounded, and in any editor's encoding of UTF."""

import csv
import json
from pathlib import Path
from typing import Any

from data.files import check_regular, write_text
from models.errors import InputError, brief

LARGEST_TEXT = 1 << 28  # bytes
LONGEST_LINE = 1 << 16  # characters; of lists and tables
LONGEST_INTEGER = 300  # digits; more do not fit a float


def read_text(path: Path) -> str:
    """Return a text file's content, UTF-8 or, with a byte order mark, UTF-16, without the mark.

    Raise InputError if it is missing, no regular file, too large, or no text.
    """
    check_regular(path)
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise InputError(f"{path} has {path.stat().st_size} bytes, too many for a text; replace or remove it")
        content = path.read_bytes()
        utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__}); replace or remove it") from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1, stripped. Raise InputError as `read_text` does."""
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}, line {number} has {len(line)} characters; is it another kind of file?")
        if line.strip():
            found.append((number, line.strip()))
    return found


def read_table(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV, with their numbers from 1, as column to text. The first line names the columns, in any case.

    Raise InputError if a column is missing, or a line has too few values.
    """
    lines = read_lines(path)
    try:
        rows = [[each.strip() for each in row] for row in csv.reader(line for _, line in lines)]
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV ({error}); replace or remove it") from None
    names = [name.lower() for name in rows[0]] if rows else []
    for column in columns:
        if column not in names:
            first = f"its first line is {brief(lines[0][1])}" if lines else "it is empty"
            raise InputError(f"{path} has no column '{column}': {first}; name the columns {','.join(columns)} there")
    if len(rows) != len(lines):
        raise InputError(f"{path} has values that go over several lines; write one line for each")
    for (number, line), row in zip(lines, rows):
        if len(row) < len(names):
            raise InputError(f"{path}, line {number}: '{brief(line)}' has {len(row)} values, expected {len(names)}")
    return [(number, dict(zip(names, row))) for (number, _), row in zip(lines[1:], rows[1:])]


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raise ValueError for anything else, also if it is nested too deep."""
    try:
        return json.loads(text, parse_int=parse_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_integer(digits: str) -> int:
    """Return an integer. Raise ValueError for one that no float can hold."""
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return a JSON object. Raise InputError, with the remedy, if the file is not one."""
    try:
        found = parse_json(read_text(path))
    except InputError:
        raise
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object; {remedy}")
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object."""
    write_text(path, json.dumps(value, indent=1) + "\n")
