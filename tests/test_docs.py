"""The pages are true: commands parse, flags, files and links exist, keys and files are those that scripts write."""

from training.command_line import read_config

import dataclasses
import importlib
import importlib.util
import json
import re
import shlex
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from data.instance_files import read_instance
from tests.test_help import SCRIPTS

ROOT = Path(__file__).parent.parent
README, INDEX = ROOT / "README.md", ROOT / "docs/README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAGRAPHS = ["Needs", "Writes", "Logs", "Paper"]  # of a script's section
AT_ROOT = {"lists": "models/input_lists"}  # folders of the miniature
LOCKS = {".lock", ".locked-by"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
name_of = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
script_of = pytest.mark.parametrize("script", SCRIPTS)


@cache
def text_of(page):
    return page.read_text(encoding="utf-8")


@cache
def section(script):
    """Return the section of a script, which is on one page."""
    heading = rf"^##+ `{script}\.py`\n(.*?)(?=^#+ |\Z)"
    (found,) = (each for page in PAGES for each in re.findall(heading, text_of(page), re.M | re.S))
    return found


@cache
def paragraph(script, name):
    """Return what follows a paragraph's name in bold, with its tables."""
    ((_, found),) = re.findall(
        rf"^\*\*({name})\*\*(.*?)(?=^\*\*(?:{'|'.join(PARAGRAPHS)})\*\*|\Z)", section(script), re.M | re.S
    )
    return found


@cache
def without_blocks(page):
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)


def commands(page):
    """Every python, make or torchrun command of a page, in a block or between backticks, without its comment."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text_of(page), re.M | re.S)).replace("\\\n", " ")
    found = [*blocks.splitlines(), *re.findall(r"`([^`]+)`", without_blocks(page))]
    for line in (re.sub(r"[][]", "", " ".join(each.split())) for each in found):
        if re.match("(python|make|torchrun) ", line):
            yield shlex.split(line, comments=True)


def flags_of(config):
    flags = {"--help", "--debug"}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flags |= flags_of(value)
        else:
            flags.add("--" + field.name.replace("_", "-"))
            flags |= {"--no-" + field.name.replace("_", "-")} if isinstance(value, bool) else set()
    return flags


def layout():
    """Return the names and patterns in README's layout."""
    (block,) = re.findall(r"^## Layout\n+```\n(.*?)^```", text_of(README), re.M | re.S)
    return [name for line in block.splitlines() for name in re.split(r" {2,}", line)[0].split()]


@script_of
def test_every_script_has_a_section_with_the_same_paragraphs(script):
    assert re.findall(r"^\*\*(\w+)\*\*", section(script), re.M) == PARAGRAPHS
    (usage,) = re.findall(r"^```\n(.*?)^```", section(script), re.M | re.S)
    assert f"python {script}.py" in usage
    assert re.search(rf"\]\(\w+\.md#{script}py\)", text_of(INDEX))
    assert f"`python {script}.py" in text_of(README)
    assert any(fnmatch(f"{script}.py", pattern) for pattern in layout())


def test_readme_and_docs_are_short():
    assert len(text_of(README).splitlines()) <= 150
    assert len(list((ROOT / "docs").glob("*.md"))) <= 13


def test_the_layout_of_the_readme_is_that_of_the_repository():
    for name in layout():
        assert list(ROOT.glob(name)), f"{name} does not exist"
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= {name.rstrip("/") for name in layout()}


def test_every_page_is_in_the_index_and_every_figure_on_a_page():
    for page in (ROOT / "docs").glob("*.md"):
        assert page == INDEX or f"]({page.name})" in text_of(INDEX), page.name
    for figure in (ROOT / "docs").glob("*.png"):
        assert any(figure.name in text_of(page) for page in PAGES), figure.name


@name_of
def test_commands_parse(page):
    for words in commands(page):
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for target in targets), words
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), words
        elif "-c" not in words and "..." not in words and "SCRIPT.py" not in words:
            (place,) = (i for i, word in enumerate(words) if word.endswith(".py"))
            assert (ROOT / words[place]).is_file(), words
            script = importlib.import_module(words[place].removesuffix(".py"))
            read_config(script.PRESETS, words[place + 1 :], script.__doc__)


@script_of
def test_flags_in_a_section_are_the_scripts(script):
    """Or those of another script in its usage."""
    names = {script, *re.findall(r"^python (\w+)\.py", section(script), re.M)}
    presets = [preset for name in names for preset in importlib.import_module(name).PRESETS.values()]
    known = set().union(*map(flags_of, presets))
    known |= {"--logdir", "--nproc-per-node"}  # of tensorboard and torchrun
    assert set(re.findall(r"--[a-z][a-z0-9-]*", section(script))) <= known


@name_of
def test_files_of_the_repository_that_a_page_names_exist(page):
    for name in re.findall(r"`([\w./-]+\.(?:py|toml|cff)|Makefile)`", text_of(page)):
        anywhere = [] if "/" in name else list(ROOT.glob(f"*/{name}"))  # named after others of its folder
        assert anywhere or (ROOT / name).is_file(), name


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@name_of
def test_links_resolve(page):
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text_of(page))
    for link in ("".join(pair) for pair in links):
        if not link.startswith(("https://", "http://")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@name_of
def test_tables_are_whole(page):
    """A table has one head, a rule below it, and as many cells in every row; what follows it is no row of another."""
    tables = re.findall(r"(?:^\|.*\n)+", without_blocks(page), re.M)
    for table in tables:
        rows = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert re.fullmatch(r"[|: -]+", table.splitlines()[1]) and len(set(rows)) == 1, table.splitlines()[0]


def written_by(script, each_script):
    """Return what a script wrote, by path as pages give it, without locks."""
    written = {}
    for path, content in each_script[script].files.items():
        first, _, rest = path.partition("/")
        if Path(path).name not in LOCKS:
            written[f"{AT_ROOT.get(first, first)}/{rest}"] = content
    return written


def as_regex(pattern):
    """Return the paths that a page means: <...> and * stand for a name, {a,b} for one of several, a folder for all in it."""
    escaped = re.sub(r"<\w+>|\*", "[^/]+", re.sub(r"[.+]", r"\\\g<0>", pattern))
    return re.sub(r"\{([^}]+)\}", lambda names: f"({names[1].replace(',', '|')})", escaped) + (
        ".+" if pattern[-1] == "/" else ""
    )


def paths_in(text):
    return re.findall(r"`((?:runs|models/input_lists)/[^`]+)`", text)


def test_every_script_with_a_command_line_runs_in_miniature(each_script):
    assert not set(SCRIPTS) ^ set(each_script), "the runs of tests/miniature.py must have every script"


@script_of
def test_files_that_a_section_lists_are_those_written(script, each_script):
    written, patterns = written_by(script, each_script), paths_in(paragraph(script, "Writes"))
    for pattern in patterns:
        assert any(re.fullmatch(as_regex(pattern), path) for path in written), f"{pattern} is not written"
    for path in written:
        assert any(re.fullmatch(as_regex(pattern), path) for pattern in patterns), f"{path} is not in the section"


@script_of
def test_files_that_a_script_needs_are_written_by_another(script, each_script):
    there = {path for other in each_script for path in written_by(other, each_script)}
    for pattern in paths_in(paragraph(script, "Needs")):
        assert any(re.fullmatch(as_regex(pattern), path) for path in there), pattern


def keys(value, prefix=""):
    """Yield the keys of a JSON object, those of objects in it after dots; `config` and `versions` are one key each."""
    for name, each in value.items():
        if isinstance(each, dict) and name not in ("config", "versions"):
            yield from keys(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def keys_in_files(script, name, each_script, folder):
    found = set()
    for path, content in written_by(script, each_script).items():
        if fnmatch(Path(path).name, name):
            if name.endswith(".safetensors"):
                (folder / "facts.safetensors").write_bytes(content)
                found |= set(read_instance(folder / "facts.safetensors")[1])  # without the hash (docs/design.md)
            else:
                for text in content.decode().splitlines() if name.endswith(".jsonl") else [content]:
                    found |= set(keys(json.loads(text)))
    return found


@script_of
def test_keys_that_a_section_lists_are_those_written(script, each_script, tmp_path):
    """A table whose head names a file lists its keys, all of them; a name in capitals stands for any."""
    tables = {}
    for head, rows in re.findall(r"^\| `([^`]+)` \|.*\n\|[-|]+\n((?:^\|.*\n)+)", section(script), re.M):
        tables[head] = [key for row in rows.splitlines() for key in re.findall(r"`([^`]+)`", row.split("|")[1])]
    for path in written_by(script, each_script):
        if not path.endswith((".json", ".jsonl", ".safetensors")):
            continue
        if path.endswith(".safetensors") and not keys_in_files(script, Path(path).name, each_script, tmp_path):
            continue
        assert any(fnmatch(Path(path).name, name) for name in tables), f"no table of the keys of {path}"
    for name, listed in tables.items():
        found = keys_in_files(script, name, each_script, tmp_path)
        patterns = {
            key: re.compile(re.sub(r"[A-Z]{2,}", r"[^.]+(\\.\\d+)?", key.replace(".", r"\."))) for key in listed
        }
        assert len(patterns) == len(listed), f"{name}: a key is listed twice"
        assert not [key for key, pattern in patterns.items() if not any(map(pattern.fullmatch, found))], name
        assert not [key for key in found if not any(pattern.fullmatch(key) for pattern in patterns.values())], name


def test_make_help_lists_every_target_but_the_parts_of_demos():
    phony, parts = (line.split() for line in re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.M))
    described = re.findall(r"^([a-z0-9-]+):.*## \w", MAKEFILE, re.M)
    assert sorted(phony) == sorted(described)
    targets = {name for line in re.findall(r"^([a-z0-9 -]+):", MAKEFILE, re.M) for name in line.split()}
    assert targets == {*described, *parts} and all(part.startswith(("photos-", "unseen-")) for part in parts)
