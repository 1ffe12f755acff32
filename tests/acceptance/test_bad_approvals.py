"""Approvals that cannot be carried out: 409 with a code and the facts, nothing touched, and the change waits on."""

from __future__ import annotations

from typing import Any

import pytest
from bad_git import commit, git, seen
from bad_house import House, refused

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_unfinished_work_in_a_file_of_the_change(house: House) -> None:
    project = await house.project(files={"README": "one\n", "mine": "m\n", "other": "o\n"})
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write README: agent's\\n\nwrite new: n"), "README", "new")
    (checkout / "README").write_text("somebody's\n")
    (checkout / "new").write_text("somebody's too\n")
    (checkout / "other").write_text("does not matter\n")
    git(checkout, "add", "other")
    before = seen(checkout)
    for asked in ({}, {"commit": True}):
        problem = refused(await house.approve(change, **asked), "checkout_dirty", str(checkout), "README", "new", "commit or stash")
        assert problem["files"] == ["README", "new"]
        assert (await house.client.get(f"/decisions/{problem['decision_id']}")).json()["state"] == "failed"
        assert await house.state_of(change) == "pending"
        assert seen(checkout) == before
    git(checkout, "checkout", "--", "README")
    (checkout / "new").unlink()
    await house.approved(change)
    assert (checkout / "README").read_text() == "agent's\n"
    assert (checkout / "other").read_text() == "does not matter\n"
    assert git(checkout, "diff", "--cached", "--name-only") == "other"
    await house.at_rest()


async def test_another_branch(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    git(checkout, "switch", "-q", "-c", "elsewhere")
    before = seen(checkout)
    problem = refused(
        await house.approve(change), "wrong_branch", "branch elsewhere", "from branch main", "switch to main", "into a branch"
    )
    assert (problem["expected"], problem["actual"]) == ("main", "elsewhere")
    git(checkout, "switch", "-q", "--detach")
    refused(await house.approve(change), "wrong_branch", "detached")
    git(checkout, "switch", "-q", "elsewhere")
    assert seen(checkout) == before
    # Into a branch that is checked out somewhere, or that no git takes for one: neither.
    for branch, word in (("elsewhere", "elsewhere"), ("-x", "-x"), ("a..b", "a..b")):
        refused(await house.approve(change, target="branch", branch=branch), "wrong_branch", word)
    assert await house.state_of(change) == "pending"
    git(checkout, "switch", "-q", "main")
    await house.approved(change)
    await house.at_rest()


async def test_an_unresolved_merge_in_the_index(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write README: agent's"), "README")
    git(checkout, "switch", "-q", "-c", "theirs")
    (checkout / "README").write_text("theirs\n")
    commit(checkout)
    git(checkout, "switch", "-q", "main")
    (checkout / "README").write_text("ours\n")
    commit(checkout)
    git(checkout, "merge", "-q", "theirs", accept=(1,))
    before = seen(checkout)
    problem = refused(await house.approve(change), "checkout_dirty", "README", "a merge there is not resolved")
    assert problem["files"] == ["README"]
    assert seen(checkout) == before
    assert await house.state_of(change) == "pending"
    git(checkout, "merge", "--abort")
    git(checkout, "reset", "-q", "--hard", "HEAD~1")
    await house.approved(change)
    await house.at_rest()


async def conflicted(house: House) -> tuple[str, dict[str, Any]]:
    """A project whose checkout was committed to in the lines of a change, and that change after somebody approved it."""
    project = await house.project(files={"README": "one\ntwo\nthree\n", "same": "s\n"})
    checkout = house.checkout(project)
    task = await house.completed(project, "edit README: two => agent's\nwrite new: n")
    change = await house.open_change(task, "README", "new")
    (checkout / "README").write_text("one\nuser's\nthree\n")
    commit(checkout)
    before = seen(checkout)
    problem = refused(await house.approve(change), "conflict", "README", "the checkout", "nothing was touched", "approve again")
    assert problem["files"] == ["README"]
    assert seen(checkout) == before
    change = await house.open_change(task, "README", "new")
    assert change["state"] == "conflicted"
    (conflict,) = change["conflicts"]
    assert conflict["path"] == "README"
    assert conflict["hunks"] == [{"line": 2, "ours": "user's\n", "theirs": "agent's\n"}]
    assert "content" in conflict["detail"].lower()
    return project, change


async def test_a_conflict_that_is_resolved_in_the_checkout(house: House) -> None:
    project, change = await conflicted(house)
    checkout = house.checkout(project)
    refused(await house.approve(change), "conflict", "README")
    (checkout / "README").write_text("one\nagent's\nthree\n")
    commit(checkout, "resolved")
    await house.approved(change, commit=True)
    assert (checkout / "new").read_text() == "n"
    assert git(checkout, "status", "--porcelain") == ""
    await house.at_rest()


async def test_a_lock_of_another_git_while_a_resolved_conflict_is_applied(house: House) -> None:
    """The refusal comes when the change is being applied already: it must wait for a decision again, not for ever."""
    project, change = await conflicted(house)
    checkout = house.checkout(project)
    (checkout / "README").write_text("one\nagent's\nthree\n")
    commit(checkout, "resolved")
    lock = checkout / ".git/index.lock"
    lock.touch()
    before = seen(checkout)
    refused(await house.approve(change, commit=True), "checkout_dirty", str(lock), "approve again")
    assert await house.state_of(change) == "pending"
    assert seen(checkout) == before
    lock.unlink()
    await house.approved(change, commit=True)
    await house.at_rest()


async def test_a_conflict_that_is_rejected_or_sent_back(house: House) -> None:
    project, change = await conflicted(house)
    before = seen(house.checkout(project))
    answer = await house.client.post(
        f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"], "reason": "Mind the user's line"}
    )
    assert (answer.status_code, answer.json()["change_state"]) == (200, "rejected")
    refused(await house.approve(change), "superseded", "rejected")
    again = await house.completed(project, "edit README: agent's => two\nsay: better", change["session_id"])
    better = await house.open_change(again, "new")
    assert seen(house.checkout(project)) == before
    await house.approved(better)
    assert (house.checkout(project) / "README").read_text() == "one\nuser's\nthree\n"
    await house.at_rest()


async def test_a_fingerprint_that_is_not_the_present_one(house: House) -> None:
    project = await house.project()
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    before = seen(house.checkout(project))
    for action in ("approve", "reject"):
        for fingerprint in ("0" * 64, "", "nonsense"):
            answer = await house.client.post(f"/changes/{change['id']}/{action}", json={"fingerprint": fingerprint})
            problem = refused(answer, "stale", change["id"], change["fingerprint"], "read it again")
            assert problem["fingerprint"] == change["fingerprint"]
    with pytest.raises(Exception, match="not what was shown") as error:
        await house.sql.execute("select coder.approve($1, $2)", change["id"], "0" * 64)
    assert getattr(error.value, "sqlstate", "") == "CD410"
    assert await house.sql.fetchval("select count(*) from decisions where change_id = $1", change["id"]) == 0
    assert seen(house.checkout(project)) == before
    await house.approved(change)
    await house.at_rest()


async def test_a_change_that_a_newer_one_superseded(house: House) -> None:
    project = await house.project()
    task = await house.completed(project, "write a.txt: a")
    old = await house.open_change(task, "a.txt")
    new = await house.open_change(await house.completed(project, "write b.txt: b", task["session_id"]), "a.txt", "b.txt")
    problem = refused(await house.approve(old), "superseded", old["id"], "superseded", new["id"])
    assert problem["superseded_by"] == new["id"]
    assert (await house.client.get(f"/changes/{old['id']}")).json()["superseded_by"] == new["id"]
    await house.approved(new)
    refused(await house.approve(new), "superseded", "approved")
    await house.at_rest()
