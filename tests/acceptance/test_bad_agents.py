"""What an agent may do to its worktree and its repository, and what of it a reviewer gets to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bad_git import commit, git, seen
from bad_house import House

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_agent_that_takes_its_work_back_leaves_nothing_to_approve(house: House) -> None:
    project = await house.project()
    before = seen(house.checkout(project))
    task = await house.completed(project, "write a.txt: a\nedit README: two => zwei")
    change = await house.open_change(task, "README", "a.txt")
    back = await house.completed(project, "run: rm a.txt\nedit README: zwei => two", task["session_id"])
    assert await house.change(task["session_id"]) is None
    assert back["change_id"] is None
    shown = (await house.client.get(f"/changes/{change['id']}")).json()
    assert (shown["state"], shown["superseded_by"]) == ("superseded", None)
    refused = await house.approve(change)
    assert (refused.status_code, refused.json()["code"]) == (409, "superseded")
    assert seen(house.checkout(project)) == before
    await house.open_change(await house.completed(project, "write b.txt: b", task["session_id"]), "b.txt")
    await house.at_rest()


async def test_an_emptied_gitignore_exposes_no_copied_secret(house: House) -> None:
    project = await house.project(files={".gitignore": ".env\n*.log\n", "README": "r\n"}, copy_globs=[".env"])
    (house.checkout(project) / ".env").write_text("SECRET=hunter2\n")
    steps = "run: cat .env\nrun: : > .gitignore\nwrite debug.log: noise\nrun: git add --all --force; git stash list"
    task = await house.completed(project, steps)
    assert "hunter2" in (await house.answer(task))["tool_calls"][0]["output"]  # it was there to be worked with
    change = await house.open_change(task, ".gitignore", "debug.log")
    assert "hunter2" not in change["diff"]
    shown, unhidden = change["warnings"]
    assert all(words in shown for words in ("ignore file was changed", "debug.log", "look for secrets"))
    assert all(words in unhidden for words in ("would no longer be ignored", ".env", "look for secrets"))
    stored = await house.sql.fetchval("select snapshot_commit from pending_changes where id = $1", change["id"])
    assert ".env" not in git(house.checkout(project), "ls-tree", "-r", "--name-only", stored).split()
    await house.at_rest()


async def test_a_hooks_path_and_a_monitor_that_an_agent_sets_are_never_run_by_coder(house: House, tmp_path: Path) -> None:
    project = await house.project()
    checkout, marker, hooks = house.checkout(project), tmp_path / "ran", tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-commit", "post-merge"):
        (hooks / hook).write_text(f"#!/bin/sh\necho {hook} >> {marker}\n")
        (hooks / hook).chmod(0o755)
    (hooks / "monitor").write_text(f"#!/bin/sh\necho monitor >> {marker}\n")
    (hooks / "monitor").chmod(0o755)
    steps = f"run: git config core.hooksPath {hooks} && git config core.fsmonitor {hooks}/monitor\nwrite a.txt: a"
    task = await house.completed(project, steps)
    change = await house.open_change(task, "a.txt")
    (warning,) = change["warnings"]
    assert all(words in warning for words in ("configuration", "hooks", ".git/config", "before approving"))
    assert task["notices"] == [warning]
    # The next turns, a new session and both ways to approve run plenty of git.
    second = await house.completed(project, "write b.txt: b", task["session_id"])
    assert (await house.open_change(second, "a.txt", "b.txt"))["warnings"] == []
    await house.approved(await house.open_change(second, "a.txt", "b.txt"), commit=True)
    other = await house.completed(project, "write c.txt: c")
    await house.approved(await house.open_change(other, "c.txt"), target="branch", branch="topic")
    assert not marker.exists()
    git(checkout, "commit", "-q", "--allow-empty", "-m", "a person's own git does run them")
    assert "post-commit" in marker.read_text()
    await house.at_rest()


async def test_a_symlink_that_leads_out_of_the_worktree(house: House, tmp_path: Path) -> None:
    project = await house.project()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there").write_text("not yours\n")
    task = await house.completed(
        project,
        f"run: ln -s {outside} link && ln -s {outside}/there file\nwrite link/new: x\nedit file: not yours => mine\nread link/there\n"
        f"write {outside}/direct: x\nwrite ../sideways: x\nsay: tried",
    )
    calls = (await house.answer(task))["tool_calls"]
    assert [call["status"] for call in calls] == ["completed", *["failed"] * 5]
    assert all("worktree" in call["output"] for call in calls[1:]), calls
    assert sorted(os.listdir(outside)) == ["there"]
    assert (outside / "there").read_text() == "not yours\n"
    change = await house.open_change(task, "file", "link")
    assert {file["new_mode"] for file in change["files"]} == {"120000"}
    # A command can follow the link; what it writes there is nobody's change.
    task = await house.completed(project, "run: echo by a command > link/new\nwrite in: i", task["session_id"])
    change = await house.open_change(task, "file", "in", "link")
    assert "by a command" not in change["diff"]
    assert "not yours" not in change["diff"]
    await house.approved(change)
    assert os.readlink(house.checkout(project) / "link") == str(outside)
    await house.at_rest()


async def test_an_agent_that_commits_in_its_worktree(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    identity = "git -c user.name=a -c user.email=a@example.org"
    task = await house.completed(project, f"write a.txt: a\nrun: git add a.txt && {identity} commit -qm mine && git rm -q README")
    change = await house.open_change(task, "README", "a.txt")
    assert change["warnings"] == []
    task = await house.completed(project, f"write b.txt: b\nrun: git add -A && {identity} commit -qm more", task["session_id"])
    change = await house.open_change(task, "README", "a.txt", "b.txt")
    before = git(checkout, "rev-parse", "HEAD")
    await house.approved(change)
    assert git(checkout, "rev-parse", "HEAD") == before
    assert git(checkout, "status", "--porcelain").splitlines() == [" D README", "?? a.txt", "?? b.txt"]
    task = await house.completed(project, "write c.txt: c", task["session_id"])
    await house.open_change(task, "c.txt")
    await house.at_rest()


async def test_an_agent_that_switches_branches(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    (checkout / "README").write_text("else\n")
    git(checkout, "switch", "-q", "-c", "other")
    commit(checkout)
    git(checkout, "switch", "-q", "main")
    before = seen(checkout)
    task = await house.completed(project, "write a.txt: a\nrun: git switch -q other")
    change = await house.open_change(task, "README", "a.txt")
    assert change["warnings"] == []  # what the files are is in the diff; no ref moved
    task = await house.completed(project, "run: git switch -q -c mine main && git branch -f other main", task["session_id"])
    change = await house.open_change(task, "a.txt")
    (warning,) = change["warnings"]
    assert "branches" in warning
    refused = await house.approve(change, target="branch", branch="mine")
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong_branch")
    git(checkout, "branch", "-f", "other", before["git"][2].split("\n")[1].split(" ")[0])
    await house.approved(change)
    assert seen(checkout)["files"] == {**before["files"], "a.txt": b"a"}
    await house.at_rest()


async def test_an_agent_that_makes_a_repository_inside(house: House) -> None:
    project = await house.project()
    identity = "-c user.name=a -c user.email=a@example.org"
    task = await house.completed(
        project,
        "write a.txt: a\nwrite empty/f: e\nwrite full/f: f\n"
        f"run: git init -q empty && git init -q full && cd full && git add f && git {identity} commit -qm inner",
    )
    change = await house.open_change(task, "a.txt")
    assert all("inside the worktree" in warning and "delete its .git" in warning for warning in change["warnings"])
    assert {name for name in ("empty", "full") for warning in change["warnings"] if name in warning} == {"empty", "full"}
    task = await house.completed(project, "run: rm -rf empty/.git full/.git", task["session_id"])
    change = await house.open_change(task, "a.txt", "empty/f", "full/f")
    assert change["warnings"] == []
    await house.approved(change)
    assert (house.checkout(project) / "full/f").read_text() == "f"
    await house.at_rest()


async def test_an_agent_that_moves_the_branch_under_the_checkout(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    head = git(checkout, "rev-parse", "HEAD")
    identity = "git -c user.name=a -c user.email=a@example.org"
    steps = f"write a.txt: a\nrun: git add -A && {identity} commit -qm mine && git update-ref refs/heads/main HEAD"
    change = await house.open_change(await house.completed(project, steps), "a.txt")
    (warning,) = change["warnings"]
    assert "branches" in warning
    git(checkout, "update-ref", "refs/heads/main", head)
    await house.approved(change)
    assert git(checkout, "status", "--porcelain") == "?? a.txt"
    await house.at_rest()


async def test_names_and_contents_in_latin_1(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    name, content = "caf\u00e9.txt".encode("latin-1"), "na\u00efve\nzwei\n".encode("latin-1")
    (checkout / os.fsdecode(name)).write_bytes(content)
    commit(checkout)
    script = r"n=$(printf 'caf\\351.txt'); printf 'dr\\351i\n' >> \"$n\"; cp \"$n\" \"$(printf 'neu\\374')\""
    task = await house.completed(project, f"run: {script}".replace('\\"', '"').replace("\n", "\\n"))
    change = await house.open_change(task, "caf\ufffd.txt", "neu\ufffd")
    assert "dréi" in change["diff"]
    raw = (await house.client.get(f"/changes/{change['id']}/diff")).content
    assert b"+dr\xe9i\n" in raw
    stored = await house.sql.fetch("select path from change_files where change_id = $1 order by path", change["id"])
    assert [row["path"] for row in stored] == [name, b"neu\xfc"]
    text = await house.sql.fetchval("select diff from changes where id = $1", change["id"])
    assert "dréi" in text
    await house.approved(change)
    assert (checkout / os.fsdecode(name)).read_bytes() == content + b"dr\xe9i\n"
    assert (checkout / os.fsdecode(b"neu\xfc")).read_bytes() == content + b"dr\xe9i\n"
    await house.at_rest()


async def test_latin_1_is_edited_as_latin_1(house: House) -> None:
    project = await house.project()
    (house.checkout(project) / "old.txt").write_bytes("na\u00efve\n".encode("latin-1"))
    commit(house.checkout(project))
    task = await house.completed(
        project, "read old.txt\nedit old.txt: na\u00efve => caf\u00e9\nedit old.txt: caf\u00e9 => \u20ac\nsay: tried"
    )
    calls = (await house.answer(task))["tool_calls"]
    assert calls[0]["output"] == "naïve"
    assert [call["status"] for call in calls] == ["completed", "completed", "failed"]
    assert "latin-1" in calls[2]["output"]
    await house.approved(await house.open_change(task, "old.txt"))
    assert (house.checkout(project) / "old.txt").read_bytes() == b"caf\xe9\n"
    await house.at_rest()


async def test_files_with_nul_bytes(house: House) -> None:
    """Git takes a file for text when its first 8000 bytes hold no NUL: then the diff itself holds one."""
    project = await house.project()
    task = await house.completed(
        project, r"run: printf 'a\\000b' > binary; (head -c 9000 /dev/zero | tr '\\0' x; printf '\\nq\\000r\\\\000\\n') > late"
    )
    change = await house.open_change(task, "binary", "late")
    assert "GIT binary patch" in change["diff"]
    assert "+q\ufffdr\\000\n" in change["diff"]
    assert await house.sql.fetchval("select diff from changes where id = $1", change["id"]) == change["diff"]
    assert b"+q\0r\\000\n" in (await house.client.get(f"/changes/{change['id']}/diff")).content
    task = await house.completed(project, r"run: printf 'caf\\351\\n' > latin", task["session_id"])
    change = await house.open_change(task, "binary", "late", "latin")
    assert "+café\n" in change["diff"]
    await house.approved(change)
    assert (house.checkout(project) / "binary").read_bytes() == b"a\0b"
    assert (house.checkout(project) / "late").read_bytes().endswith(b"\nq\0r\\000\n")
    await house.at_rest()
