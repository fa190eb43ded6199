"""Text files in the encodings and with the line ends that editors write, tables, JSON: right values, bounded, refused by line."""

import codecs
import json

import pytest

from data.texts import LONGEST_LINE, parse_json, read_json, read_lines, read_table, read_text
from models.errors import InputError
from training.run import read_scalars

COLUMNS = ("file", "accuracy")


def written(tmp_path, content, name="a.txt"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 of Notepad": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 of Notepad": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_the_same_in_every_encoding_and_with_every_end(tmp_path, encoding, end):
    content = ENCODINGS[encoding](end.join(["Möbel", "", "  b c\t", " \t", "last"]) + end)
    assert read_lines(written(tmp_path, content)) == [(1, "Möbel"), (3, "b c"), (5, "last")]


def test_other_separators_of_unicode_end_no_line(tmp_path):
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f"
    assert read_lines(written(tmp_path, text)) == [(1, text)]


def test_an_empty_text_has_no_lines(tmp_path):
    assert read_lines(written(tmp_path, "")) == [] == read_lines(written(tmp_path, b"\xef\xbb\xbf\r\n\n"))
    assert read_text(written(tmp_path, codecs.BOM_UTF16_LE)) == ""


@pytest.mark.parametrize("content", [b"\xff\xff", b"caf\xe9", b"\xff\xfea", b"\xff\xfe\x00\xd8"])
def test_what_is_no_text_is_refused_by_name(tmp_path, content):
    with pytest.raises(InputError, match="a.txt"):
        read_text(written(tmp_path, content))


def test_a_folder_a_missing_file_and_one_too_large_are_refused_by_name(tmp_path):
    for name in ("", "b.txt"):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            read_text(tmp_path / name)
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="large.txt has 1099511627776 bytes"):
        read_text(tmp_path / "large.txt")


def test_a_line_that_is_no_lists_is_refused_by_number(tmp_path):
    assert len(read_lines(written(tmp_path, "a\n" + LONGEST_LINE * "x"))) == 2
    with pytest.raises(InputError, match="a.txt, line 2.*65537"):
        read_lines(written(tmp_path, "a\n" + (LONGEST_LINE + 1) * "x"))


TABLES = {
    "plain": "file,accuracy\nnet0.pt,61.3\nnet1.pt,10\n",
    "a byte order mark": "\ufefffile,accuracy\nnet0.pt,61.3\nnet1.pt,10\n",
    "spaces": " file , accuracy\nnet0.pt, 61.3 \n net1.pt,10\n",
    "capitals": "File,ACCURACY\nnet0.pt,61.3\nnet1.pt,10\n",
    "another order, more columns": "note,accuracy,file\nx,61.3,net0.pt\n,10,net1.pt\n",
    "quotes": '"file", "accuracy"\r\n"net0.pt", "61.3"\r\nnet1.pt,10\r\n',
    "semicolons": "file;accuracy\nnet0.pt;61.3\nnet1.pt;10\n",
    "tabs": "file\taccuracy\nnet0.pt\t61.3\nnet1.pt\t10\n",
    "empty cells at the end": "file,accuracy,\nnet0.pt,61.3,\nnet1.pt,10,,,\n",
    "an old Mac": "file,accuracy\rnet0.pt,61.3\rnet1.pt,10",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_the_same_values_however_it_was_saved(tmp_path, table):
    rows = read_table(written(tmp_path, TABLES[table]), COLUMNS)
    values = [(number, row["file"], row["accuracy"]) for number, row in rows]
    assert values == [(2, "net0.pt", "61.3"), (3, "net1.pt", "10")]


def test_lines_of_a_table_have_their_own_numbers(tmp_path):
    """Blank lines, and quoted values that go over several, do not shift them."""
    text = '\nfile,accuracy,note\n\n"a,b.pt",1,"two\n\nlines"\n\nc.pt,2,\n'
    rows = read_table(written(tmp_path, text), COLUMNS)
    assert [(number, *row.values()) for number, row in rows] == [
        (4, "a,b.pt", "1", "two\n\nlines"),
        (8, "c.pt", "2", ""),
    ]


def test_a_table_of_names_alone_has_no_rows(tmp_path):
    assert read_table(written(tmp_path, "file,accuracy\n"), COLUMNS) == []


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "'file'"),
        ("net0.pt,61.3\n", "'file'.*net0.pt,61.3"),
        ("file,accuracies\nnet0.pt,61.3\n", "'accuracy'.*file,accuracies"),
        ("file,accuracy,Accuracy\nnet0.pt,61.3,62\n", "2 columns 'accuracy'"),
        ("accuracy,file\n10.0,net0.pt\n10.0\n", "line 3.*file"),
        ("file,accuracy\n\nnet0.pt,\n", "line 3.*accuracy"),
        ("file,accuracy\nnet0.pt,61,3\n", "line 2.*3 values"),  # a decimal comma is no other column
        ('file,accuracy\nnet0.pt,"61\nnet1.pt,10\n', "line 2"),
        ('file,accuracy\nnet0.pt,61\nnet1.pt,"1"0\n', "line 3"),
        ("file,accuracy\nnet0.pt," + 200_000 * "9", "line 2"),
        ("file,accuracy\nnet0.pt,\"" + "\n".join(20_000 * ["9999999999"]), "line 2"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_understood_is_refused_by_line(tmp_path, text, match):
    with pytest.raises(InputError, match=f"a.txt.*{match}") as refused:
        read_table(written(tmp_path, text), COLUMNS)
    assert len(str(refused.value)) < 500


def test_json_has_pythons_values():
    value = {"a": [1, -2.5, 1e300, None, True, "ü\n"], "b": {"a": {}}, "c": 2**63 - 1, "d": -(2**63)}
    assert parse_json(json.dumps(value)) == value
    assert parse_json("[NaN]")[0] != parse_json("[NaN]")[0] and parse_json("-Infinity") == float("-inf")
    assert parse_json(64 * "[" + 64 * "]") and parse_json(json.dumps(1000 * [{}])) == 1000 * [{}]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "'a'", "[1]\0", 65 * "[" + 65 * "]", 65 * '{"a":' + "1" + 65 * "}", 100_000 * "[", 10**5 * '{"a":',
     "9" * 400, "[-" + "9" * 400 + "]", str(2**63), "1" * 100_000, '{"a": 1, "b": {"c": 1, "c": 2}}'],
)  # fmt: skip
def test_json_that_cannot_be_used_is_a_value_error(text):
    with pytest.raises(ValueError) as refused:
        parse_json(text)
    assert len(str(refused.value)) < 300


def test_a_json_file_is_an_object(tmp_path):
    assert read_json(written(tmp_path, b"\xef\xbb\xbf" + b'{"a": 1}\r\n'), "") == {"a": 1}
    for text in ("", "[1]", "3", "{", '{"a": ' + 400 * "9" + "}", 100_000 * '{"a":', '{"a": 1, "a": 2}'):
        with pytest.raises(InputError, match="a.txt.*type this"):
            read_json(written(tmp_path, text), "type this")


def test_scalars_are_numbers_by_step(tmp_path):
    path = tmp_path / "scalars.jsonl"
    assert read_scalars(path) == []
    good = '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN, "wins": 3}\n'
    for text in (good, good + '{"step": 3, "lo', good + 4096 * "\0", good.replace("\n", "\r\n") + "\n\n"):
        first, second = read_scalars(written(tmp_path, text, path.name))
        assert first == {"step": 1, "loss": 2.5}
        assert (second["step"], second["wins"]) == (2, 3) and second["loss"] != second["loss"]


@pytest.mark.parametrize(
    "bad",
    [100_000 * '{"a":' + "1" + 100_000 * "}", 5_000 * '{"a":' + "1" + 5_000 * "}", '{"step": ' + 400 * "9" + "}",
     '{"step": true}', '{"step": -1}', '{"step": 1.5}', '{"loss": 1}', '{"step": 2, "loss": "high"}', "{}", "{]}",
     '{"step": 2, "loss": null}', '{"step": 2, "step": 3}', "[1]\n{}"],
)  # fmt: skip
def test_a_line_that_is_no_scalars_is_refused_by_number(tmp_path, bad):
    path = written(tmp_path, f'{{"step": 1}}\n{bad}\n{{"step": 5}}\n', "scalars.jsonl")
    with pytest.raises(InputError, match="scalars.jsonl, line 2") as refused:
        read_scalars(path)
    assert len(str(refused.value)) < 1000
