"""The git processes that stay: what they write is what git writes, they are replaced when they must be, and they outlive nobody."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from gitbench import Bench, Tree
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coder.diff import RawRow, parse_raw
from coder.errors import InternalError
from coder.git.keeper import Keeper, _Crew
from coder.git.present import put_entries
from coder.git.repository import CODER, Repository, open_repository, temporary_index

REF = "refs/coder/x/1"


@pytest.fixture
def repository(repo: Tree) -> Repository:
    return open_repository(str(repo.path), "demo")


@pytest.fixture
def tree(repository: Repository) -> str:
    return repository.line("rev-parse", "HEAD^{tree}")


def keep(keeper: Keeper, repository: Repository, tree: str) -> str:
    head = repository.resolve("HEAD") or ""
    commit = keeper.keep(tree, head, REF)
    assert repository.resolve(REF) == commit
    assert repository.line("rev-list", "--no-walk", "--no-commit-header", "--format=%T %P %s", commit) == f"{tree} {head} coder"
    return commit


def resting(keeper: Keeper) -> _Crew:
    (crew,) = keeper._resting
    return crew


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_the_commit_is_the_one_commit_tree_makes(tmp_path: Path, form: str) -> None:
    repo = Tree(tmp_path / "formed")
    repo.path.mkdir()
    repo.git("init", "-q", f"--object-format={form}")
    repo.write("a", "a")
    repo.commit()
    repository = open_repository(str(repo.path), "demo")
    tree = repository.line("rev-parse", "HEAD^{tree}")
    commit = keep(Keeper(repository), repository, tree)
    when = repository.line("log", "-1", "--format=%ad", "--date=raw", commit)
    repository.run("update-ref", "-d", REF)
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    head = repository.resolve("HEAD") or ""
    assert repository.commit_tree(tree, head, message="coder\n", environment={**CODER, **dates}) == commit
    repo.git("fsck", "--strict")


def test_one_crew_does_for_many(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    first = resting(keeper)
    keep(keeper, repository, repository.line("mktree"))
    assert resting(keeper) is first
    assert first.uses == 2


@pytest.mark.parametrize("which", [2, 3])
def test_a_killed_process_is_made_up_for(repository: Repository, tree: str, which: int) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    killed = resting(keeper)
    process = killed.processes[which]
    process.kill()
    process.wait()
    keep(keeper, repository, repository.line("mktree"))
    assert keeper._resting == []
    keep(keeper, repository, tree)
    assert resting(keeper) is not killed


def test_a_changed_config_has_new_processes(repository: Repository, repo: Tree, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    first = resting(keeper)
    repo.git("config", "core.compression", "0")
    keep(keeper, repository, tree)
    assert resting(keeper) is not first


def test_often_used_processes_are_replaced(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    first = resting(keeper)
    first.uses = 1000
    keep(keeper, repository, tree)
    assert resting(keeper) is not first


def test_what_git_refuses_is_said_in_its_words(repository: Repository, repo: Tree, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    repo.write(f".git/{REF}.lock", "")
    with pytest.raises(InternalError, match=r"1\.lock"):
        keeper.keep(tree, repository.resolve("HEAD") or "", REF)
    repo.at(f".git/{REF}.lock").unlink()
    keep(keeper, repository, tree)


def test_processes_end_with_their_keeper(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    processes = resting(keeper).processes
    assert [process.poll() for process in processes] == [None] * 4
    del keeper
    gc.collect()
    assert [process.returncode for process in processes] == [0] * 4


async def test_snapshots_share_them(bench: Bench) -> None:
    worktree, tree = await bench.start()
    for content in ("one\n", "two\n", "three\n"):
        tree.write("a.txt", content)
        snapshot, worktree = await bench.snapshot(worktree)
        assert tree.git("rev-parse", f"refs/coder/{worktree.session_id}/{worktree.snapshots}") == snapshot.commit
    (keeper,) = bench.worktrees._snapshots._keepers.values()
    assert resting(keeper).uses == 6


MODES = st.sampled_from(["100644", "100755", "120000", "160000"])
NAMES = st.sampled_from([b"a", b"a-", b"a.b", b"b", b"\xff\n"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
FILES = st.dictionaries(PATHS, st.tuples(MODES, st.integers(0, 3)), max_size=8).map(
    lambda files: {path: entry for path, entry in files.items() if not any(other.startswith(path + b"/") for other in files)}
)


@dataclass
class Forest:
    """Trees that git makes of made-up files."""

    repository: Repository
    keeper: Keeper
    blobs: list[str]
    commit: str

    def tree(self, files: dict[bytes, tuple[str, int]]) -> str:
        entries = {path: (self.commit if mode == "160000" else self.blobs[which], mode) for path, (mode, which) in files.items()}
        with temporary_index() as index:
            put_entries(self.repository, index, entries)
            return self.repository.line("write-tree", index=index)


@pytest.fixture
def forest(repository: Repository) -> Forest:
    blobs = [repository.line("hash-object", "-w", "--stdin", stdin=f"content {n}\n".encode() * n) for n in range(4)]
    return Forest(repository, Keeper(repository), blobs, repository.resolve("HEAD") or "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=FILES, after=FILES)
@example(before={b"a": ("100644", 1)}, after={b"a/a": ("100644", 1), b"a/b": ("100644", 2)})
@example(before={b"a/b/a": ("100644", 1)}, after={b"a": ("120000", 1)})
@example(before={b"a/b/a": ("100644", 1)}, after={})
@example(before={b"a/a": ("100644", 1), b"a-": ("100644", 2)}, after={b"a": ("160000", 0), b"a.b": ("100644", 2)})
def test_the_tree_is_the_one_write_tree_makes(
    forest: Forest, before: dict[bytes, tuple[str, int]], after: dict[bytes, tuple[str, int]]
) -> None:
    base, wanted = forest.tree(before), forest.tree(after)
    rows = parse_raw(forest.repository.run("diff-tree", "-r", "-z", "-M", "--raw", "--ignore-submodules=none", base, wanted).out)
    assert forest.keeper.tree(base, rows) == wanted


def test_rows_that_do_not_fit_are_left_to_git(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    unknown = RawRow("100644", "000000", "0" * 40, None, "D", b"not-there")
    assert keeper.tree(tree, [unknown]) is None


def test_a_change_all_over_the_place_is_left_to_git(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    blob = repository.line("hash-object", "-w", "--stdin", stdin=b"x")
    rows = [RawRow("000000", "100644", None, blob, "A", b"%d/x" % number) for number in range(33)]
    assert keeper.tree(tree, rows) is None
    assert keeper.tree(tree, rows[:32]) is not None


async def test_a_large_change_is_recorded_all_the_same(bench: Bench) -> None:
    worktree, tree = await bench.start()
    for number in range(40):
        tree.write(f"{number}/x", "x\n")
    snapshot, _ = await bench.snapshot(worktree)
    assert len(snapshot.files) == 40
    assert tree.git("ls-tree", "-r", "--name-only", snapshot.commit).count("/x") == 40


_DYING = """
import os, signal, sys
from coder.git.keeper import Keeper
from coder.git.repository import open_repository
repository = open_repository(sys.argv[1], "demo")
keeper = Keeper(repository)
keeper.keep(repository.line("rev-parse", "HEAD^{tree}"), repository.resolve("HEAD"), "refs/coder/x/1")
(crew,) = keeper._resting
print(*(process.pid for process in crew.processes), flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells when somebody else's process ended")
def test_processes_end_however_we_die(repo: Tree) -> None:
    dying = subprocess.Popen([sys.executable, "-c", _DYING, str(repo.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert dying.stdin is not None
    assert dying.stdout is not None
    descriptors = [os.pidfd_open(int(pid)) for pid in dying.stdout.readline().split()]
    dying.stdin.close()
    assert dying.wait() == -signal.SIGKILL
    dying.stdout.close()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 10)[0] == [descriptor]
        os.close(descriptor)
