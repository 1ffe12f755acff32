"""The words of changes: what is empty, what a fingerprint is, how paths are shown."""

from __future__ import annotations

import hashlib

import pytest

from coder.change import OPEN_CHANGE, ChangeState, Snapshot, display_path, fingerprint

BASE, TREE = "a" * 40, "b" * 40


def test_a_fingerprint_is_the_sha256_of_both_trees() -> None:
    assert fingerprint(BASE, TREE) == hashlib.sha256(f"{BASE}:{TREE}".encode()).hexdigest()
    assert fingerprint(BASE, TREE) != fingerprint(TREE, BASE)


def test_a_snapshot_is_empty_when_its_trees_are_equal_whatever_its_commits_are() -> None:
    assert Snapshot("c1", TREE, 1, "c2", TREE, b"", ()).empty
    taken = Snapshot("c1", BASE, 1, "c1", TREE, b"x", ())
    assert not taken.empty
    assert taken.fingerprint == fingerprint(BASE, TREE)


def test_open_changes_are_those_that_can_still_be_decided_on() -> None:
    assert set(ChangeState) - OPEN_CHANGE == {ChangeState.APPROVED, ChangeState.REJECTED, ChangeState.SUPERSEDED, ChangeState.UNDONE}


@pytest.mark.parametrize(("path", "shown"), [
    (b"src/main.py", "src/main.py"),
    ("größe.txt".encode(), "größe.txt"),
    (b"caf\xe9", "caf\ufffd"),
    (b"a\x00b", "a\ufffdb"),
    (b"", ""),
])  # fmt: skip
def test_any_path_can_be_shown_and_stored(path: bytes, shown: str) -> None:
    assert display_path(path) == shown
    shown.encode()
