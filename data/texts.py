"""Text files, as all readers of lists, tables, annotations and JSON read them: bounded, and in any editor's encoding of UTF."""

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import check_regular, write_text
from models.errors import InputError, brief

LARGEST_TEXT = 1 << 28  # bytes
MOST_LINES = 10_000_000
LONGEST_LINE = 1 << 16  # characters; of lists and tables
DEEPEST = 64  # levels of lists and objects in JSON
SEPARATORS = (",", ";", "\t")  # of tables: spreadsheets write the second where a comma is the decimal sign


def read_text(path: Path) -> str:
    """Return a text file's content, UTF-8 or, with a byte order mark, UTF-16, without the mark. A `.gz` is unpacked.

    Raise InputError if it is missing, no regular file, too large, or no text.
    """
    check_regular(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_TEXT:
            raise InputError(f"{path} has {size} bytes, too many for a text; replace or remove it")
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                content = file.read(LARGEST_TEXT + 1)  # a few bytes may unpack to any number
            if len(content) > LARGEST_TEXT:
                raise InputError(f"{path} has more than {LARGEST_TEXT} bytes once unpacked; replace or remove it")
        else:
            content = path.read_bytes()
        utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeError:
        raise InputError(f"{path} cannot be read as text in UTF-8; save it as such, if it is a text") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); replace or remove it") from None


def split_lines(path: Path) -> list[str]:
    """Return a text file's lines, which end as on Unix, Windows or an old Mac.

    Raise InputError as `read_text` does, and for a line or a number of lines that is no list's.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MOST_LINES:
        raise InputError(f"{path} has more than {MOST_LINES} lines; is it another kind of file?")
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            raise InputError(f"{path}, line {number} has {len(line)} characters; is it another kind of file?")
    return lines


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1, stripped. Raise InputError as `split_lines` does."""
    return [(number, line.strip()) for number, line in enumerate(split_lines(path), start=1) if line.strip()]


def read_table(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV, with their numbers from 1, as column to text, stripped.

    The first line that is not blank names the columns, in any case and order. They are separated by commas, semicolons or
    tabs. Raise InputError if one of `columns` is missing or there twice, if a line lacks a value of theirs, or if it has more
    values than there are columns.
    """
    lines = split_lines(path)
    if re.fullmatch(r"sep=.", lines[0].strip().strip('"')):
        lines[0] = ""  # Excel's way to say how columns are separated
    first = next((line for line in lines if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)  # the comma if there is none
    (_, header), *rows = csv_rows(path, lines, separator) or [(1, [])]
    names = [name.lower() for name in header]
    for column in columns:
        if names.count(column) != 1:
            what = f"has {names.count(column)} columns '{column}'" if column in names else f"has no column '{column}'"
            first = f"its first line is '{brief(first.strip())}'" if first else "it is empty"
            raise InputError(f"{path} {what}: {first}; name the columns {','.join(columns)} there")
    table = []
    for number, row in rows:
        values = dict(zip(names, row))
        lacking = next((column for column in columns if not values.get(column)), None)
        if lacking is not None or any(row[len(names) :]):
            what = f"has no {lacking}" if lacking else f"has {len(row)} values for {len(names)} columns"
            line = f"{path}, line {number}: '{brief(separator.join(row))}'"
            raise InputError(f"{line} {what}; write {separator.join(brief(name) for name in header[:10])}")
        table.append((number, values))
    return table


def csv_rows(path: Path, lines: list[str], separator: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, stripped, with the number of the line that each begins in, from 1.

    Raise InputError, naming the line, for quotes that do not close.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=True, strict=True)
    rows, number = [], 1
    try:
        for row in reader:
            if any(each.strip() for each in row):
                rows.append((number, [each.strip() for each in row]))
            number = reader.line_num + 1  # a quoted value may go over several lines
    except csv.Error as error:
        raise InputError(f"{path}, line {number} is no line of a CSV ({error}); correct or remove it") from None
    return rows


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, NaN and infinity among its numbers, as Python writes them.

    Raise ValueError for anything else: also if it is nested too deep, has a key twice, or an integer of more than 64 bits.
    """
    try:
        found = json.loads(text, parse_int=parse_integer, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and any(depth > DEEPEST for depth in depths(found)):
        raise ValueError("nested too deep")
    return found


def parse_integer(digits: str) -> int:
    """Return an integer. Raise ValueError for one that numpy and torch could not hold."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raise ValueError for a key that is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = (Counter(key for key, _ in pairs) - Counter(list(found))).popitem()
        raise ValueError(f"'{brief(twice)}' twice")
    return found


def depths(value: Any) -> Iterator[int]:
    """Yield how deep each list and object lies in a JSON value, from 1, without recursion."""
    left = [(value, 1)]
    while left:
        each, depth = left.pop()
        if isinstance(each, (list, dict)):
            yield depth
            left.extend((inside, depth + 1) for inside in (each.values() if isinstance(each, dict) else each))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return a JSON object. Raise InputError, with the remedy, if the file is not one."""
    text = read_text(path)
    try:
        found, reason = parse_json(text), "another value"
    except ValueError as error:
        found, reason = None, brief(str(error))
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object ({reason}); {remedy}")
    return found


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object."""
    write_text(path, json.dumps(value, indent=1) + "\n")
