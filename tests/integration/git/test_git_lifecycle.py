"""Worktrees come, stay, come back and go."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from gitbench import SESSION, Bench, Tree, locked_elsewhere, run_python

from coder.errors import Held, InternalError, NoCommit, NoProjectPath, NotARepository
from coder.git import GitWorktrees


async def test_a_worktree_is_detached_at_the_projects_head(bench: Bench) -> None:
    worktree, tree = await bench.start()
    assert worktree.path == str(bench.data.resolve() / "worktrees" / str(bench.project.id) / str(SESSION))
    assert worktree.base_commit == bench.repo.git("rev-parse", "HEAD") == tree.git("rev-parse", "HEAD")
    assert worktree.base_branch == "main"
    assert tree.git("symbolic-ref", "-q", "HEAD", ok=False) == ""
    assert tree.git("status", "--porcelain") == ""
    assert tree.files() == bench.repo.files()
    assert os.access(tree.at("run.sh"), os.X_OK)


async def test_ensure_finds_what_is_there(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "work")
    assert await bench.worktrees.ensure(bench.project, SESSION, worktree) == worktree
    # A process that died before it wrote the worktree down asks again without knowing it.
    assert await GitWorktrees(bench.data).ensure(bench.project, SESSION, None) == worktree
    assert tree.read("new.txt") == b"work"


async def test_a_worktree_found_again_keeps_its_base_when_the_project_moved_on(bench: Bench) -> None:
    worktree, _ = await bench.start()
    bench.repo.write("later.txt", "x")
    bench.repo.commit()
    assert (await bench.worktrees.ensure(bench.project, SESSION, None)).base_commit == worktree.base_commit


async def test_many_sessions_at_once_in_one_repository(bench: Bench) -> None:
    sessions = [uuid4() for _ in range(8)]
    others = [GitWorktrees(bench.data) for _ in sessions]
    made = await asyncio.gather(*(w.ensure(bench.project, s, None) for w, s in zip(others, sessions, strict=True)))
    assert len({worktree.path for worktree in made}) == 8
    assert bench.repo.git("worktree", "list").count("\n") == 8


async def test_the_same_session_twice_at_once_is_one_worktree(bench: Bench) -> None:
    first, second = await asyncio.gather(bench.start(), bench.start())
    assert first == second


async def test_deleted_by_hand_it_comes_back_as_of_the_last_snapshot(bench: Bench) -> None:
    other, _ = await bench.start(uuid4())
    worktree, tree = await bench.start()
    tree.write("new.txt", "kept")
    tree.at("b.txt").unlink()
    snapshot, worktree = await bench.snapshot(worktree)
    shutil.rmtree(worktree.path)
    stale = bench.repo.path.parent / "gone-too"
    bench.repo.git("worktree", "add", "-q", "--detach", str(stale))
    shutil.rmtree(stale)

    again = await bench.worktrees.ensure(bench.project, SESSION, worktree)
    assert again == worktree
    assert tree.read("new.txt") == b"kept"
    assert not tree.at("b.txt").exists()
    assert tree.git("rev-parse", "HEAD") == worktree.base_commit
    assert tree.git("status", "--porcelain").splitlines() == [" D b.txt", "?? new.txt"]
    assert (await bench.worktrees.snapshot(again)).commit == snapshot.commit
    # Only this session's record was renewed: somebody else's stale one is not ours to prune.
    assert str(stale) in bench.repo.git("worktree", "list")
    assert other.path in bench.repo.git("worktree", "list")


async def test_deleted_before_any_snapshot_it_comes_back_as_of_its_base(bench: Bench) -> None:
    worktree, tree = await bench.start()
    shutil.rmtree(worktree.path)
    bench.repo.write("later.txt", "x")
    bench.repo.commit()
    assert await bench.worktrees.ensure(bench.project, SESSION, worktree) == worktree
    assert "later.txt" not in tree.files()


@pytest.mark.parametrize("known", [False, True])
async def test_half_made_by_a_crash_it_is_made_again(bench: Bench, known: bool) -> None:
    worktree, tree = await bench.start()
    for name in ("a.txt", ".git"):
        tree.at(name).unlink()
    tree.at(f"../{SESSION}.making").touch()
    again = await bench.worktrees.ensure(bench.project, SESSION, worktree if known else None)
    assert again == worktree
    assert tree.files() == bench.repo.files()
    assert not tree.at(f"../{SESSION}.making").exists()


async def test_a_killed_creation_leaves_the_next_one_free(bench: Bench) -> None:
    script = (
        "import asyncio, os, signal, sys; from uuid import UUID; from pathlib import Path\n"
        "from coder.git import GitWorktrees, worktrees; from coder.task import Project\n"
        "worktrees.copy_index = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "project = Project(id=UUID(sys.argv[2]), name='demo', path=sys.argv[3], agent_fallback='native')\n"
        "asyncio.run(GitWorktrees(Path(sys.argv[1])).ensure(project, UUID(sys.argv[4]), None))\n"
    )
    arguments = [str(bench.data), str(bench.project.id), bench.project.path, str(SESSION)]
    assert run_python(script, *arguments) == -signal.SIGKILL
    half = bench.data.resolve() / "worktrees" / str(bench.project.id) / str(SESSION)
    assert half.is_dir()
    _, tree = await bench.start()
    assert tree.path == half
    assert tree.git("status", "--porcelain") == ""


async def test_a_missing_record_of_git_is_made_again(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "work")
    shutil.rmtree(bench.repo.path / ".git/worktrees")
    assert await bench.worktrees.ensure(bench.project, SESSION, worktree) == worktree
    assert tree.git("status", "--porcelain") == "?? new.txt"
    assert tree.read("new.txt") == b"work"


async def test_a_moved_project_takes_its_worktrees_along(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "work")
    moved = Tree(bench.repo.path.rename(bench.repo.path.with_name("moved")))
    again = await bench.worktrees.ensure(replace(bench.project, path=str(moved.path)), SESSION, worktree)
    assert again == replace(worktree, repository=str(moved.path))
    assert tree.git("status", "--porcelain") == "?? new.txt"


async def test_no_directory(bench: Bench) -> None:
    missing = replace(bench.project, path=str(bench.repo.path / "nowhere"))
    with pytest.raises(NoProjectPath, match=r"Project demo points to .*nowhere, which is not a directory"):
        await bench.worktrees.ensure(missing, SESSION, None)


@pytest.mark.parametrize("kind", ["plain", "bare", "below", "inside"])
async def test_no_repository(bench: Bench, tmp_path: Path, kind: str) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    bare = tmp_path / "bare"
    bench.repo.git("init", "-q", "--bare", str(bare))
    bench.repo.at("below").mkdir()
    path, detail = {
        "plain": (plain, "not a git repository"),
        "bare": (bare, "it is a bare repository"),
        "below": (bench.repo.at("below"), f"the top level of the repository it lies in is {bench.repo.path}"),
        "inside": (bench.repo.at(".git"), "must be run in a work tree"),
    }[kind]
    with pytest.raises(NotARepository) as refused:
        await bench.worktrees.ensure(replace(bench.project, path=str(path)), SESSION, None)
    assert detail in refused.value.message
    assert not (bench.data / "worktrees" / str(bench.project.id)).exists()


async def test_no_commit(bench: Bench, tmp_path: Path) -> None:
    empty = Tree(tmp_path / "empty")
    empty.path.mkdir()
    empty.git("init", "-q")
    with pytest.raises(NoCommit, match="has no commit yet"):
        await bench.worktrees.ensure(replace(bench.project, path=str(empty.path)), SESSION, None)


async def test_a_project_that_is_a_linked_worktree_itself(bench: Bench, tmp_path: Path) -> None:
    bench.repo.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    linked = Tree(tmp_path / "linked")
    linked.write("side.txt", "side")
    head = linked.commit()
    project = replace(bench.project, path=str(linked.path))
    worktree = await bench.worktrees.ensure(project, SESSION, None)
    assert (worktree.base_commit, worktree.base_branch, worktree.repository) == (head, "side", str(linked.path))
    Tree(Path(worktree.path)).write("side.txt", "changed")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot)
    assert linked.read("side.txt") == b"changed"
    assert not bench.repo.at("side.txt").exists()


async def test_a_detached_project_and_a_link_to_a_project(bench: Bench, tmp_path: Path) -> None:
    bench.repo.git("checkout", "-q", "--detach")
    (tmp_path / "link").symlink_to(bench.repo.path)
    worktree = await bench.worktrees.ensure(replace(bench.project, path=str(tmp_path / "link")), SESSION, None)
    assert worktree.base_branch is None
    assert worktree.repository == str(bench.repo.path)


async def test_a_repository_of_sha256(bench: Bench, tmp_path: Path) -> None:
    modern = Tree(tmp_path / "modern")
    modern.path.mkdir()
    modern.git("init", "-q", "-b", "main", "--object-format=sha256")
    modern.write("a.txt", "a")
    modern.write("b.txt", "b")
    modern.commit()
    worktree = await bench.worktrees.ensure(replace(bench.project, path=str(modern.path)), SESSION, None)
    assert len(worktree.base_commit) == 64
    tree = Tree(Path(worktree.path))
    tree.at("a.txt").unlink()
    tree.write("c.txt", "c")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, target="branch", branch="made")
    await bench.approve(worktree, snapshot, commit=True)
    assert modern.files() == {"b.txt": b"b", "c.txt": b"c"}
    assert modern.git("status", "--porcelain") == ""


async def test_inherited_variables_do_not_lead_git_elsewhere(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "wrong"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "wrong-index"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody")
    worktree = await bench.worktrees.ensure(bench.project, SESSION, None)
    Tree(Path(worktree.path)).write("new.txt", "x")
    snapshot = await bench.worktrees.snapshot(worktree)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_LITERAL_PATHSPECS", "GIT_AUTHOR_NAME"):
        monkeypatch.delenv(name)
    assert bench.repo.git("log", "-1", "--format=%an <%ae> %cn <%ce>", snapshot.commit) == "coder <coder@localhost> coder <coder@localhost>"


async def test_one_holder_at_a_time(bench: Bench) -> None:
    other = GitWorktrees(bench.data)
    async with bench.worktrees.hold(SESSION):
        with pytest.raises(Held, match=f"session {SESSION} is in use"):
            async with other.hold(SESSION):
                pass
        async with other.hold(uuid4()):
            pass
    async with other.hold(SESSION):
        pass


async def test_a_dead_holder_holds_nothing(bench: Bench) -> None:
    with locked_elsewhere(bench.data / "worktrees" / f"{SESSION}.lock"), pytest.raises(Held):
        async with bench.worktrees.hold(SESSION):
            pass
    async with bench.worktrees.hold(SESSION):
        pass


async def test_remove_saves_what_no_snapshot_has(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "unsaved")
    tree.git("-c", "user.name=Agent", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "an agent's own")
    agents = tree.git("rev-parse", "HEAD")
    tree.write("cache/deep/file", "x")
    tree.write(".gitignore", "cache/\n")
    tree.at("cache/deep").chmod(0o555)
    async with bench.worktrees.hold(SESSION):
        assert await bench.worktrees.remove(worktree) == f"refs/coder/{SESSION}/discarded/1"
    assert not tree.path.exists()
    assert [path.name for path in tree.path.parent.iterdir()] == []
    assert not (bench.data / "worktrees" / f"{SESSION}.lock").exists()
    assert str(tree.path) not in bench.repo.git("worktree", "list")
    assert bench.repo.git("show", f"refs/coder/{SESSION}/discarded/1:new.txt") == "unsaved"
    assert bench.repo.git("rev-parse", f"refs/coder/{SESSION}/head") == agents
    await bench.worktrees.remove(worktree)
    again, _ = await bench.start()
    assert again == worktree


async def test_remove_saves_nothing_twice(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "kept")
    _, worktree = await bench.snapshot(worktree)
    assert await bench.worktrees.remove(worktree) is None
    assert bench.repo.git("for-each-ref", "--format=%(refname)", f"refs/coder/{SESSION}/").splitlines() == [
        f"refs/coder/{SESSION}/1",
        f"refs/coder/{SESSION}/base",
    ]


async def test_nothing_is_removed_that_cannot_be_saved(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "only here")
    bench.repo.path.rename(bench.repo.path.with_name("away"))
    with pytest.raises(NoProjectPath):
        await bench.worktrees.remove(worktree)
    assert tree.read("new.txt") == b"only here"


async def test_orphans_are_found_saved_and_removed(bench: Bench) -> None:
    kept, kept_tree = await bench.start()
    lost, lost_tree = await bench.start(uuid4())
    stale, _ = await bench.start(uuid4())
    clean, _ = await bench.start(uuid4())
    lost_tree.write("only-here.txt", "saved")
    shutil.rmtree(stale.path)
    place, records = lost_tree.path.parent, bench.repo.path / ".git/worktrees"
    kept_tree.write(f"../{SESSION}.gone/rest", "half removed")
    kept_tree.write("../somebody-elses/file", "x")
    bench.repo.git("worktree", "add", "-q", "--detach", str(bench.repo.path.with_name("foreign")))

    found = await bench.worktrees.orphans(bench.project, {kept.session_id})
    assert set(found) == {
        lost_tree.path,
        Path(clean.path),
        place / f"{stale.session_id}.index",
        place / f"{SESSION}.gone",
        records / str(stale.session_id),
    }
    for path in found:
        await bench.worktrees.remove_orphan(bench.project, path)
    assert await bench.worktrees.orphans(bench.project, {kept.session_id}) == []
    assert {path.name for path in place.iterdir()} == {str(SESSION), f"{SESSION}.index", "somebody-elses"}
    assert {path.name for path in records.iterdir()} == {str(SESSION), "foreign"}
    assert bench.repo.git("show", f"refs/coder/{lost.session_id}/discarded/1:only-here.txt") == "saved"
    assert bench.repo.git("for-each-ref", "--format=%(refname)", f"refs/coder/{clean.session_id}") == f"refs/coder/{clean.session_id}/base"


async def test_an_orphan_in_use_or_unreadable_stays(bench: Bench) -> None:
    worktree, tree = await bench.start()
    async with bench.worktrees.hold(SESSION):
        with pytest.raises(Held):
            await bench.worktrees.remove_orphan(bench.project, tree.path)
    assert tree.path.is_dir()
    bench.repo.git("update-ref", "-d", f"refs/coder/{SESSION}/base")
    broken = bench.repo.path / ".git/objects" / worktree.base_commit[:2] / worktree.base_commit[2:]
    broken.chmod(0o644)
    broken.write_bytes(b"rubbish")
    with pytest.raises(InternalError):
        await bench.worktrees.remove_orphan(bench.project, tree.path)
    assert tree.path.is_dir()
