"""No open leaves the worktree, however the path is spelled and whatever symlinks lie on it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from coder.backends.confine import Confined, Refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub/deep").mkdir(parents=True)
    (tree / "file").write_text("inside")
    (tree / "sub/other").write_text("other")
    (tree / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "outside").mkdir()
    return tree


@pytest.fixture
def confined(root: Path) -> Confined:
    return Confined(root, root)


def text(confined: Confined, path: str) -> str:
    with open(confined.open(path), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize(
    "path",
    [
        "file",
        "./file",
        "sub/../file",
        "sub/deep/../../file",
    ],
)
def test_paths_inside_are_opened(confined: Confined, path: str) -> None:
    assert text(confined, path) == "inside"


def test_an_absolute_path_inside_is_opened(confined: Confined, root: Path) -> None:
    assert text(confined, str(root / "sub/other")) == "other"


def test_relative_paths_start_from_the_working_directory(root: Path) -> None:
    confined = Confined(root, root / "sub")
    assert (text(confined, "other"), text(confined, "../file")) == ("other", "inside")
    with pytest.raises(Refused):
        confined.open("../../secret")


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "/etc/passwd", "..", "/", "", "a\x00b"])
def test_paths_outside_are_refused(confined: Confined, path: str) -> None:
    with pytest.raises(Refused):
        confined.open(path)


@pytest.mark.parametrize("path", [".git", ".git/config", "sub/../.git", "sub/.GIT/config"])
def test_git_is_refused(confined: Confined, path: str) -> None:
    with pytest.raises(Refused, match="git's own"):
        confined.open(path)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("escape", "../secret"),
        ("escape", "/etc/passwd"),
        ("sub/escape", "../../secret"),
        ("escape", "sub/../../secret"),
        ("escape", ".git"),
    ],
)
def test_a_symlink_out_is_refused(confined: Confined, root: Path, link: str, target: str) -> None:
    (root / link).symlink_to(target)
    with pytest.raises(Refused):
        confined.open(link)


def test_a_symlinked_directory_out_is_refused_at_any_component(confined: Confined, root: Path) -> None:
    (root / "sub/out").symlink_to(root.parent / "outside")
    for path in ("sub/out/x", "sub/out", "sub/out/deeper/x"):
        with pytest.raises(Refused), confined.parent(path, create=True):
            pytest.fail("reached the outside")
    assert not any((root.parent / "outside").iterdir())


def test_symlinks_inside_are_followed(confined: Confined, root: Path) -> None:
    (root / "one").symlink_to("sub")
    (root / "sub/two").symlink_to(root / "file")
    (root / "three").symlink_to("one/two")
    assert (text(confined, "one/other"), text(confined, "three")) == ("other", "inside")


def test_a_symlink_loop_ends(confined: Confined, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        confined.open("a")


def test_a_dangling_symlink_names_its_target(confined: Confined, root: Path) -> None:
    (root / "later").symlink_to("sub/new")
    with confined.parent("later") as (directory, name):
        assert (os.readlink(f"/proc/self/fd/{directory}"), name) == (str(root / "sub"), "new")


def test_missing_parents_are_made_on_request_only(confined: Confined, root: Path) -> None:
    with pytest.raises(FileNotFoundError), confined.parent("x/y/z"):
        pytest.fail("there is no x")
    with confined.parent("x/y/z", create=True) as (_, name):
        assert name == "z"
    assert (root / "x/y").is_dir()


def test_pipes_and_sockets_are_refused_at_once(confined: Confined, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(Refused, match="neither a file nor a directory"):
        confined.open("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        with pytest.raises((Refused, OSError)):
            confined.open("socket")


def test_a_directory_swapped_for_a_symlink_on_the_way_does_not_lead_out(confined: Confined, root: Path) -> None:
    """What is open stays what it was; the next walk sees the symlink."""
    with confined.parent("sub/deep/x", create=True) as (directory, name):
        (root / "sub").rename(root / "moved")
        (root / "sub").symlink_to(root.parent / "outside")
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    assert (root / "moved/deep/x").exists()
    with pytest.raises(Refused):
        confined.open("sub/deep/x")


def test_no_descriptor_is_left_open(confined: Confined, root: Path) -> None:
    (root / "escape").symlink_to("../secret")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("file", "sub/other", "escape", "nothing", "sub/nothing/x", ".git"):
        try:
            os.close(confined.open(path))
        except (Refused, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before
