"""Damage to files, for test_fuzz.py: what disks, editors, other programs and attackers do. Every choice is drawn from `rng`."""

import io
import json
import struct
import zipfile
from random import Random
from typing import Any

NUMBERS = (
    "nan",
    "inf",
    "-1",
    "0",
    "-0.0",
    "1e999",
    "1e30",
    "2.5",
    str(2**31),
    str(2**63),
    400 * "9",
    "0x10",
    "²",
    "1_0",
)
PIECES = (
    "\0",
    "\ufeff",
    "\x1b[31m",
    "\u2028",
    ";",
    ",",
    '"',
    "\\",
    "../../",
    "/dev/zero",
    "é",
    "\t",
    "{",
    70_000 * "x",
    "#",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e308,
    float("nan"),
    "",
    "text",
    [],
    {},
    [[]],
    [None],
    1000 * "x",
)


def damaged(content: bytes, name: str, rng: Random) -> bytes:
    """Return a file's content with one or two kinds of damage, some that only files of this name's suffix have."""
    suffix = name[name.rfind(".") :] if "." in name else ""
    ways = [bits, cut, inserted, block_repeated, blocks_swapped, filled]
    if suffix in INSIDE and rng.random() < 0.6:
        ways = list(INSIDE[suffix])
    for _ in range(rng.choice((1, 1, 1, 2))):
        content = rng.choice(ways)(content, rng)
    return content


def position(content: bytes, rng: Random) -> int:
    """Return where to damage: half of the time near the start, where headers are, a quarter near the end."""
    size = max(len(content), 1)
    return rng.choice(
        (rng.randrange(min(size, 300)),) * 2 + (rng.randrange(size), size - 1 - rng.randrange(min(size, 300)))
    )


def bits(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8)) if content else 0):
        changed[position(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: Random) -> bytes:
    return content[: position(content, rng)]


def inserted(content: bytes, rng: Random) -> bytes:
    at = position(content, rng)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 100))) + content[at:]


def block_repeated(content: bytes, rng: Random) -> bytes:
    at, size = position(content, rng), rng.choice((1, 8, 64, 1000))
    return content[:at] + content[at : at + size] * rng.choice((2, 3, 50)) + content[at + size :]


def blocks_swapped(content: bytes, rng: Random) -> bytes:
    a, b, size = position(content, rng), position(content, rng), rng.choice((1, 16, 200))
    a, b = min(a, b), max(a, b, min(a, b) + size)
    return content[:a] + content[b : b + size] + content[a + size : b] + content[a : a + size] + content[b + size :]


def filled(content: bytes, rng: Random) -> bytes:
    at, size = position(content, rng), rng.choice((1, 2, 4, 8, 64))
    return content[:at] + rng.choice((b"\0", b"\xff", b"\x7f")) * size + content[at + size :]


# Texts


def lines_changed(content: bytes, rng: Random) -> bytes:
    lines = content.decode("utf-8", "replace").split("\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        del lines[a]
    elif what == 1:
        lines.insert(b, lines[a])
    elif what == 2:
        lines[a], lines[b] = lines[b], lines[a]
    elif what == 3:
        lines[a] = lines[a][: rng.randrange(len(lines[a]) + 1)]
    else:
        lines[a] = lines[a] + lines[b]
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode()


def number_replaced(content: bytes, rng: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    starts = [i for i, each in enumerate(text) if each in "0123456789" and (not i or text[i - 1] not in "0123456789.")]
    if not starts:
        return content
    start = end = rng.choice(starts)
    while end < len(text) and text[end] in "0123456789.":
        end += 1
    return (text[:start] + rng.choice(NUMBERS) + text[end:]).encode()


def piece_inserted(content: bytes, rng: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    at = rng.randrange(len(text) + 1)
    return (text[:at] + rng.choice(PIECES) + text[at:]).encode()


def recoded(content: bytes, rng: Random) -> bytes:
    return content.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")))


# JSON, and what has JSON inside


def value_changed(value: Any, rng: Random) -> Any:
    """Return a JSON value in which one value, somewhere, is another or is gone."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return rng.choice(VALUES) if rng.random() < 0.95 else deep(rng)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    changed = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.1:
        del changed[key]
    else:
        changed[key] = value_changed(value[key], rng)
    return changed


def deep(rng: Random) -> Any:
    """Return a value nested deeper than readers may follow."""
    value: Any = 1
    for _ in range(rng.choice((70, 500))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def json_changed(content: bytes, rng: Random) -> bytes:
    try:
        return json.dumps(value_changed(json.loads(content), rng)).encode()
    except (ValueError, RecursionError):  # damaged before
        return number_replaced(content, rng)


def json_line_changed(content: bytes, rng: Random) -> bytes:
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = json_changed(lines[at], rng)
    return b"\n".join(lines)


def header_changed(content: bytes, rng: Random) -> bytes:
    """Change the header of a `.safetensors`."""
    size = int.from_bytes(content[:8], "little")
    header = json_changed(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def scene_changed(content: bytes, rng: Random) -> bytes:
    """Change the JSON of a `.glb`."""
    size = int.from_bytes(content[12:16], "little")
    scene = json_changed(content[20 : 20 + size], rng)
    scene += b" " * (-len(scene) % 4)
    total = len(content) + len(scene) - size
    return content[:8] + struct.pack("<II", total, len(scene)) + content[16:20] + scene + content[20 + size :]


# Archives


def member_changed(content: bytes, rng: Random) -> bytes:
    """Damage one file in a zip archive, so that the archive is whole; or store it twice, or not, or compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    except Exception:  # damaged before
        return bits(content, rng)
    pickles = [i for i, (name, _) in enumerate(members) if name.endswith(".pkl")]
    at = rng.choice(pickles) if pickles and rng.random() < 0.7 else rng.randrange(len(members))
    name, inside = members[at]
    what = rng.random()
    if what < 0.8:
        members[at] = (name, rng.choice((bits, bits, cut, inserted, block_repeated, filled))(inside, rng))
    elif what < 0.9:
        del members[at]
    else:
        members[at] = (name, inside + bytes(30_000_000))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if what > 0.75 else zipfile.ZIP_STORED) as archive:
        for each in members:
            archive.writestr(*each)
    return packed.getvalue()


TEXT = (lines_changed, number_replaced, piece_inserted, recoded)
INSIDE = {
    **dict.fromkeys((".txt", ".csv", ".obj", ".off"), TEXT),
    ".json": (json_changed, json_changed, *TEXT),
    ".jsonl": (json_line_changed, *TEXT),
    ".safetensors": (header_changed,),
    ".glb": (scene_changed,),
    **dict.fromkeys((".pt", ".ckpt", ".npz"), (member_changed,)),
}
