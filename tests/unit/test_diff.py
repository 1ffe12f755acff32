"""Reading what git prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coder.change import ConflictHunk, FileChange, Hunk
from coder.diff import parse_conflicts, parse_diff, parse_merge, parse_raw

BLOB = "1" * 40
ZERO = "0" * 40
PATHS = st.binary(min_size=1, max_size=30).filter(lambda path: b"\0" not in path)
COUNTS = st.none() | st.integers(0, 10**6)
PLAIN = st.tuples(st.sampled_from("AMDT"), PATHS, st.none(), COUNTS)
MOVED = st.tuples(st.sampled_from("RC"), PATHS, PATHS, COUNTS)
NAMES = {"A": "added", "M": "modified", "D": "deleted", "T": "type_changed", "R": "renamed", "C": "copied"}


def _number(count: int | None) -> bytes:
    return b"-" if count is None else b"%d" % count


@given(st.lists(PLAIN | MOVED, min_size=1, max_size=8), st.binary(max_size=200))
def test_any_listing_is_read_back(rows: list[tuple[str, bytes, bytes | None, int | None]], patch: bytes) -> None:
    raw = counts = b""
    expected = []
    for letter, path, old_path, count in rows:
        old, new = ("000000", ZERO) if letter == "A" else ("100644", BLOB), ("000000", ZERO) if letter == "D" else ("100755", BLOB)
        status = letter + ("075" if old_path else "")
        raw += f":{old[0]} {new[0]} {old[1]} {new[1]} {status}\0".encode() + (old_path + b"\0" if old_path else b"") + path + b"\0"
        counts += _number(count) + b"\t" + _number(count) + b"\t" + (b"\0" + old_path + b"\0" if old_path else b"") + path + b"\0"
        expected.append(FileChange(path, NAMES[letter], count, count, old[0], new[0], old_path))  # type: ignore[arg-type]
    files, read = parse_diff(raw + counts + b"\0" + patch)
    assert list(files) == expected
    assert read == patch
    assert [(row.path, row.old_path, row.status) for row in parse_raw(raw)] == [(row[1], row[2], row[0]) for row in rows]


def test_hunks_are_found_file_by_file() -> None:
    """Also behind content that looks like a hunk or a file, beside binary files, and of a file whose type changed."""
    rows = b"".join(
        f":{old} {new} {BLOB} {BLOB} {letter}\0".encode() + name + b"\0"
        for letter, old, new, name in (
            ("M", "100644", "100644", b"a"),
            ("M", "100644", "100644", b"bin"),
            ("T", "100644", "120000", b"link"),
            ("M", "100644", "100755", b"mode"),
            ("D", "100644", "000000", b"z"),
        )
    )
    counts = b"3\t1\ta\0-\t-\tbin\0" + b"1\t1\tlink\0" + b"0\t0\tmode\0" + b"0\t1\tz\0"
    patch = (
        b"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1,3 @@ def f():\n x\n+@@ -9 +9 @@\n+diff --git a/x b/x\n-y\n"
        b"@@ -10 +11,2 @@\n u\n+v\n\\ No newline at end of file\n"
        b"diff --git a/bin b/bin\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\nliteral 0\nHcmV?d00001\n\n"
        b"diff --git a/link b/link\ndeleted file mode 100644\n@@ -1 +0,0 @@\n-x\n"
        b"diff --git a/link b/link\nnew file mode 120000\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n"
        b"diff --git a/mode b/mode\nold mode 100644\nnew mode 100755\n"
        b"diff --git a/z b/z\ndeleted file mode 100644\n@@ -1 +0,0 @@\n-z\n"
    )
    files, _ = parse_diff(rows + counts + b"\0" + patch)
    assert {file.path: file.hunks for file in files} == {
        b"a": (Hunk(1, 2, 1, 3, 4, 5), Hunk(10, 1, 11, 2, 9, 4)),
        b"bin": (),
        b"link": (),
        b"mode": (),
        b"z": (Hunk(1, 1, 0, 0, 35, 2),),
    }
    lines = patch.split(b"\n")
    assert all(lines[hunk.diff_line - 1].startswith(b"@@ ") for file in files for hunk in file.hunks)


def test_nothing() -> None:
    assert parse_diff(b"") == ((), b"")
    assert parse_raw(b"") == ()


def test_no_file_is_no_blob() -> None:
    (row,) = parse_raw(f":000000 100644 {ZERO} {BLOB} A\0new\0".encode())
    assert (row.old_blob, row.new_blob) == (None, BLOB)


def test_a_clean_merge() -> None:
    assert parse_merge(f"{BLOB}\0".encode()).tree == BLOB
    merged = parse_merge(f"{BLOB}\0\0001\0f\0Auto-merging\0Auto-merging f\n\0".encode())
    assert merged.conflicted == ()
    assert merged.messages == (((b"f",), "Auto-merging", "Auto-merging f"),)


@given(st.lists(PATHS.filter(lambda path: b"\t" not in path), min_size=1, max_size=5, unique=True))
def test_a_conflicting_merge(paths: list[bytes]) -> None:
    stages = b"".join(f"100644 {BLOB} {n}\t".encode() + path + b"\0" for path in paths for n in (1, 2, 3))
    told = b"%d\0" % len(paths) + b"\0".join(paths) + b"\0CONFLICT (contents)\0CONFLICT (content): Merge conflict\n\0"
    merged = parse_merge(f"{BLOB}\0".encode() + stages + b"\0" + told)
    assert list(merged.conflicted) == paths
    assert merged.messages == ((tuple(paths), "CONFLICT (contents)", "CONFLICT (content): Merge conflict"),)


LINES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20).filter(lambda line: line != "=" * 7), max_size=5
)
OURS, THEIRS = "a" * 40, "b" * 40


@given(st.lists(st.tuples(LINES, LINES, LINES), max_size=4), st.sampled_from(["", ":old/name"]))
def test_conflicts_are_found_with_line_and_both_sides(parts: list[tuple[list[str], list[str], list[str]]], suffix: str) -> None:
    lines: list[str] = []
    expected = []
    for before, ours, theirs in parts:
        lines += before
        expected.append(ConflictHunk(len(lines) + 1, "".join(f"{x}\n" for x in ours), "".join(f"{x}\n" for x in theirs)))
        lines += [f"<<<<<<< {OURS}{suffix}", *ours, "=======", *theirs, f">>>>>>> {THEIRS}{suffix}"]
    lines.append("the end")
    assert list(parse_conflicts("\n".join(lines).encode(), OURS, THEIRS)) == expected


def test_text_about_conflicts_is_no_conflict() -> None:
    assert parse_conflicts(b"<<<<<<< HEAD\nmine\n=======\nyours\n>>>>>>> other\n", OURS, THEIRS) == ()


def test_longer_markers_and_crlf() -> None:
    text = f"<<<<<<<<<< {OURS}\r\nours\r\n=======\r\n==========\r\ntheirs\r\n>>>>>>> {THEIRS}\r\n>>>>>>>>>> {THEIRS}\r\n"
    assert parse_conflicts(text.encode(), OURS, THEIRS) == (ConflictHunk(1, "ours\r\n=======\r\n", f"theirs\r\n>>>>>>> {THEIRS}\r\n"),)
