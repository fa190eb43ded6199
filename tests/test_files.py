"""The folder walker: which files are read, which are left out and why, whatever else a folder has."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from data.files import Listing, check_regular, is_regular, list_files, list_folders, report_left_out, write_text
from data.folders import Folders, dataset_name
from models.errors import InputError


def names(listing: Listing, folder):
    """Return the files' paths and the reasons by path, both relative to the folder."""
    reasons = {path.relative_to(folder).as_posix(): reason for path, reason in listing.left_out}
    return [path.relative_to(folder).as_posix() for path in listing.files], reasons


def write(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")


def test_only_regular_files_are_listed_by_name_and_suffix(tmp_path):
    write(tmp_path, "b.pt", "a.PT", "c.pth", "d.pt.tar", "e.txt", "pt", "new\nline.pt", "ü;=.pt", "below/f.pt")
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "to file.pt").symlink_to("b.pt")
    (tmp_path / "to nothing.pt").symlink_to("gone.pt")
    (tmp_path / "to itself.pt").symlink_to("to itself.pt")
    (tmp_path / "to device.pt").symlink_to("/dev/zero")
    (tmp_path / "to folder.pt").symlink_to("below")
    with socket.socket(socket.AF_UNIX) as endpoint:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path may be no longer than 100 characters
        endpoint.bind("socket.pt")
        os.chdir(here)
        files, left_out = names(list_files(tmp_path, (".pt", ".tar")), tmp_path)
    assert files == ["a.PT", "b.pt", "d.pt.tar", "new\nline.pt", "to file.pt", "ü;=.pt"]
    assert set(left_out) == {"folder.pt", *(f"to {what}.pt" for what in ("nothing", "itself", "device", "folder")),
                             "pipe.pt", "socket.pt"}  # fmt: skip
    assert (
        "folder" in left_out["folder.pt"] and "regular" in left_out["pipe.pt"] and "link" in left_out["to nothing.pt"]
    )


def test_a_systems_own_files_are_left_out(tmp_path):
    write(
        tmp_path,
        "a.png",
        "._a.png",
        ".b.png",
        ".DS_Store",
        "__MACOSX/._a.png",
        "@eaDir/a.png",
        "lost+found/b.png",
        "$RECYCLE.BIN/c.png",
        ".ipynb_checkpoints/a.png",
    )
    assert names(list_files(tmp_path, {".png"}), tmp_path) == (["a.png"], {"._a.png": "hidden", ".b.png": "hidden"})
    files, left_out = names(list_files(tmp_path, {".png"}, subfolders=True), tmp_path)
    assert files == ["a.png"]
    assert set(left_out) == {
        "._a.png",
        ".b.png",
        "__MACOSX",
        "@eaDir",
        "lost+found",
        "$RECYCLE.BIN",
        ".ipynb_checkpoints",
    }
    assert names(list_folders(tmp_path), tmp_path)[0] == []


def test_subfolders_are_listed_in_order_without_following_loops(tmp_path):
    write(tmp_path, "b/2.pt", "b/c/3.pt", "a.pt", "z.pt", "b.pt", "logs.pt/1.pt")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    files, left_out = names(list_files(tmp_path, [".pt"], subfolders=True), tmp_path)
    assert files == ["a.pt", "b/2.pt", "b/c/3.pt", "b.pt", "logs.pt/1.pt", "z.pt"]
    assert list(left_out) == ["b/loop"]


@pytest.mark.slow
def test_folders_nested_deeper_than_python_recurses_are_listed(tmp_path):
    here, root = os.getcwd(), tmp_path / "root"
    root.mkdir()
    try:
        os.chdir(root)
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
        write(Path(), "a.pt")
        assert len(list_files(root, [".pt"], subfolders=True).files) == 1
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-r", root], check=True)  # Python's own recurses


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    write(tmp_path, "file")
    for name in ("gone", "file"):
        with pytest.raises(InputError, match=name):
            list_files(tmp_path / name, [".pt"])


def test_what_is_left_out_is_one_line(tmp_path, capsys):
    report_left_out([])
    assert capsys.readouterr().err == ""
    report_left_out([(tmp_path / f"a\n\x1b[31m{i}\udcff.png", "hidden") for i in range(5)])
    (line,) = capsys.readouterr().err.splitlines()
    assert "hidden" in line and "2 more" in line and line.isprintable()


def test_only_regular_files_may_be_opened(tmp_path):
    write(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("a")
    assert is_regular(tmp_path / "a") and is_regular(tmp_path / "link")
    check_regular(tmp_path / "link")
    for name in ("pipe", ".", "gone", "null\0byte", 5000 * "long", "/dev/zero"):
        assert not is_regular(tmp_path / name)
        with pytest.raises(InputError):
            check_regular(tmp_path / name)


def test_a_name_that_is_not_utf8_cannot_be_written_and_the_old_file_stays(tmp_path):
    write_text(tmp_path / "a.txt", "ü\n")
    with pytest.raises(InputError, match=r"a\.txt.*net\\udce9\.pt"):
        write_text(tmp_path / "a.txt", "first\nnet\udce9.pt\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "ü\n"


@pytest.mark.parametrize("known", ["photos", "cifar10", "cifar100", "mnist", "tiny-imagenet-200", "chairs"])
def test_a_folder_that_is_called_like_a_known_set_is_a_set_of_its_own(known, tmp_path):
    assert dataset_name(known) == known
    for folder in (f"/data/{known}", f"./{known}", f"{known}/", str(tmp_path / known)):
        assert dataset_name(folder) == f"{known}-folder"
        assert dataset_name(dataset_name(folder)) == f"{known}-folder"
        assert Folders().run(folder, "single").as_posix() == f"runs/{known}-folder/single"


def test_a_data_set_is_called_like_its_folder():
    for name in ("pets", "my pets", "ü", "a=1,b", "..."):
        assert dataset_name(f"/data/{name}") == dataset_name(f"/data/{name}/") == name


@pytest.mark.parametrize(
    "name", ["/", "/data/a;b", "/data/a\nb", "/data/a\rb", "/data/\x1b[31m", "/data/n\udcff", "a\0b"]
)
def test_a_name_that_no_list_can_have_is_refused(name):
    with pytest.raises(InputError):
        dataset_name(name)
