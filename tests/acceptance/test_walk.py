"""The walk: a task by psql, real work on a real package, its tests, review, and every way a change can be decided on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkout import Checkout
from running import Coder

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

INIT = "more_itertools/__init__.py"


def bumped(old: str, new: str) -> str:
    return f"edit {INIT}: __version__ = '{old}' => __version__ = '{new}'"


def operations(coder: Coder, change: dict[str, Any]) -> dict[str, str]:
    rows = coder.rows("select display, operation from change_files where change_id = %s", change["id"])
    return {row["display"]: row["operation"] for row in rows}


def open_changes(coder: Coder, session: str) -> list[dict[str, Any]]:
    return coder.rows("select * from pending_changes where session_id = %s and state in ('pending', 'applying', 'conflicted')", session)


# --- from psql to the checkout

TRIPLES = "from itertools import islice\\n\\n\\ndef triples(items):\\n    return zip(*[iter(items)] * 3)\\n"
TRIPLES_TEST = (
    "from unittest import TestCase\\n\\nfrom more_itertools.triples import triples\\n\\n\\nclass TriplesTests(TestCase):\\n"
    "    def test_whole(self):\\n        self.assertEqual(list(triples('abcdef')), [('a', 'b', 'c'), ('d', 'e', 'f')])\\n"
)
FIRST = "\n".join(
    (
        "Add triples(), and tidy up.",
        "read more_itertools/recipes.py",
        "edit more_itertools/recipes.py: Return first *n* items of the iterable as a list. => Return the first *n* items as a list.",
        f"+ edit {INIT}: from .recipes import *  # noqa => from .recipes import *  # noqa\\nfrom .triples import *  # noqa",
        f"write more_itertools/triples.py: {TRIPLES}",
        f"+ write tests/test_triples.py: {TRIPLES_TEST}",
        "run: rm docs/make.bat && chmod +x setup.py && mv docs/testing.rst docs/how-to-test.rst && ln -s ../LICENSE docs/LICENSE",
        "run: printf '\\\\000\\\\377\\\\r\\\\n\\\\001' > docs/_static/logo.bin",
        f"run: '{sys.executable}' -m unittest -q tests.test_recipes tests.test_triples",
        "say: triples() is there and tested.",
    )
)
OPERATIONS = {
    INIT: "modified",
    "more_itertools/recipes.py": "modified",
    "more_itertools/triples.py": "added",
    "tests/test_triples.py": "added",
    "docs/make.bat": "deleted",
    "setup.py": "modified",
    "docs/how-to-test.rst": "renamed",
    "docs/LICENSE": "added",
    "docs/_static/logo.bin": "added",
}


def person_at_work(checkout: Checkout) -> None:
    """Staged, half staged, unstaged, deleted and new: all a checkout can hold besides the change's files."""
    checkout.write("NOTES", "staged\n")
    checkout.replace("README.rst", "Python iterables", "Python's iterables")
    checkout.git("add", "NOTES", "README.rst")
    checkout.write("README.rst", checkout.read("README.rst") + "\nmore, not staged\n")
    checkout.write("tests/test_more.py", checkout.read("tests/test_more.py") + "\n# not staged\n")
    (checkout.path / "docs/license.rst").unlink()
    checkout.write("scratch ü.py", "print('mine')\n")


def test_from_psql_to_the_checkout(coder: Coder, checkout: Checkout, tmp_path: Path) -> None:
    coder.cli("project", "add", "walk", str(checkout.path / "docs"))
    literal = FIRST.replace("'", "''")
    task_id = int(
        coder.psql(f"insert into tasks (project_id, input) select id, '{literal}' from projects where name = 'walk' returning id")
    )
    before, index = checkout.files(), checkout.index()
    task = coder.ended(task_id)
    assert (task["execution_path"], task["attempts"], task["output_summary"]) == ("native", 1, "triples() is there and tested.")
    *_, ran = coder.tools(task)
    assert (ran["status"], ran["exit_code"]) == ("completed", 0)
    assert "OK" in ran["output"]

    first = json.loads(coder.cli("change", "show", task["session_id"], "--json"))
    assert (first["state"], first["turn_outcome"], first["warnings"]) == ("pending", "completed", [])
    assert operations(coder, first) == OPERATIONS
    by_path = {file["path"]: file for file in first["files"]}
    assert (by_path["setup.py"]["old_mode"], by_path["setup.py"]["new_mode"]) == ("100644", "100755")
    assert by_path["docs/how-to-test.rst"]["old_path"] == "docs/testing.rst"
    assert by_path["docs/_static/logo.bin"]["additions"] is None
    assert (checkout.files(), checkout.index(), checkout.status()) == (before, index, set())

    second = second_turn(coder, task, first)
    person_at_work(checkout)
    approved_exactly(coder, checkout, second, tmp_path)
    assert "OK" in checkout.tests("tests.test_recipes", "tests.test_triples")


def second_turn(coder: Coder, task: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """More work in the same session: its change holds everything and takes the first one's place."""
    lines = (
        "Say whose it is.",
        "write docs/für alle.txt: Gewidmet allen.\\n",
        "edit more_itertools/triples.py: triples(items) => triples(items, /)",
    )
    second = coder.change(coder.turn("walk", *lines, session=task["session_id"]))
    assert second["state"] == "pending"
    assert operations(coder, second) == OPERATIONS | {"docs/für alle.txt": "added"}
    was = coder.get(f"/changes/{first['id']}")
    assert (was["state"], was["superseded_by"]) == ("superseded", second["id"])
    (only,) = open_changes(coder, task["session_id"])
    assert str(only["id"]) == second["id"]
    refused = coder.approve(first, 409)
    assert (refused["code"], refused["superseded_by"]) == ("superseded", second["id"])
    return second


def approved_exactly(coder: Coder, checkout: Checkout, change: dict[str, Any], tmp_path: Path) -> None:
    """Approve; the checkout then holds the change and the person's own work, and nothing else happened."""
    patched = checkout.patched(tmp_path / "oracle", coder.diff(change))
    before, index, head, own = checkout.files(), checkout.index(), checkout.head(), checkout.status()
    touched = {*operations(coder, change), "docs/testing.rst"}

    decision = coder.approve(change)

    assert (decision["state"], decision["outcome"], decision["change_state"]) == ("done", "approved", "approved")
    assert (decision["actor"], decision["target"], decision["commit"]) == ("admin", "checkout", False)
    expected = {path: found for path, found in before.items() if path not in touched}
    assert checkout.files() == expected | {path: found for path, found in patched.items() if path in touched}
    assert (checkout.index(), checkout.head()) == (index, head)
    assert checkout.status() == own | {
        f" M {INIT}", " M more_itertools/recipes.py", " M setup.py", " D docs/make.bat", " D docs/testing.rst", "?? docs/LICENSE",
        "?? docs/_static/logo.bin", '?? "docs/für alle.txt"', "?? docs/how-to-test.rst", "?? more_itertools/triples.py",
        "?? tests/test_triples.py",
    }  # fmt: skip
    worktree = coder.worktree(change["session_id"])
    assert (worktree["base_version"], worktree["base_commit"]) == (2, change["snapshot_commit"])
    assert Checkout(Path(worktree["path"])).files() == patched
    stored = coder.row("select kind, state, outcome, actor from decisions where change_id = %s", change["id"])
    assert stored == {"kind": "approve", "state": "done", "outcome": "approved", "actor": "admin"}
    assert coder.row("select state, decided_at is not null as decided from pending_changes where id = %s", change["id"]) == {
        "state": "approved",
        "decided": True,
    }
    assert coder.approve(change, 409)["code"] == "superseded"


# --- the same lines again


def test_the_same_lines_again_with_and_without_a_commit(coder: Coder, checkout: Checkout, project: str) -> None:
    task = coder.turn(project, "Release it.", bumped("10.5.0", "10.5.1"))
    session = task["session_id"]
    coder.approve(coder.change(task))
    assert "'10.5.1'" in checkout.read(INIT)

    change = coder.change(coder.turn(project, "And again.", bumped("10.5.1", "10.5.2"), session=session))
    assert (change["additions"], change["deletions"]) == (1, 1)
    assert "-__version__ = '10.5.1'\n+__version__ = '10.5.2'\n" in change["diff"]
    coder.cli("change", "approve", change["id"][:8])
    assert checkout.status() == {f" M {INIT}"}
    assert "'10.5.2'" in checkout.read(INIT)

    change = coder.change(coder.turn(project, "And again.", bumped("10.5.2", "10.5.3"), session=session))
    checkout.replace(INIT, "More routines for operating", "Even more routines for operating")
    checkout.commit("release, and a line of my own")
    coder.psql(f"select coder.approve('{change['id']}', '{change['fingerprint']}', p_actor => 'ada')")
    coder.until(lambda: coder.get(f"/changes/{change['id']}")["state"] == "approved")
    assert checkout.git("diff", "-U0", "HEAD").splitlines()[-2:] == ["-__version__ = '10.5.2'", "+__version__ = '10.5.3'"]
    assert checkout.git("diff", "--shortstat", "HEAD") == " 1 file changed, 1 insertion(+), 1 deletion(-)"
    assert "Even more routines" in checkout.read(INIT)

    assert coder.worktree(session)["base_version"] == 4
    decided = coder.rows("select actor, outcome from decisions where session_id = %s order by created_at", session)
    assert [row["outcome"] for row in decided] == ["approved"] * 3
    assert (decided[0]["actor"], decided[2]["actor"]) == ("admin", "ada")
    assert coder.turn(project, "Nothing to do.", "say: Indeed.", session=session)["change_id"] is None


# --- rejections


def test_reject_and_keep(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    task = coder.turn(project, "Add a module.", "write more_itertools/extra.py: EXTRA = 1\\n")
    session, change, before = task["session_id"], coder.change(task), checkout.files()
    coder.cli("change", "reject", session, "--fingerprint", change["fingerprint"], "--reason", "keep-xylophone: say what it is for")
    worktree = coder.worktree(session)
    assert coder.get(f"/changes/{change['id']}")["state"] == "rejected"
    assert (worktree["base_version"], worktree["discard_decision"]) == (1, None)

    quiet = coder.turn(project, "Think about it.", "say: I did.", session=session)
    (request,) = model_server.requests("keep-xylophone")
    told = f"A reviewer rejected the change of task {task['id']} with this reason: keep-xylophone: say what it is for."
    assert request["messages"][-1]["content"].startswith(f"{told} That work is still in the worktree.\n\nThink about it.")
    assert quiet["change_id"] is None
    assert [row["state"] for row in coder.rows("select state from pending_changes where session_id = %s", session)] == ["rejected"]

    better = coder.turn(project, "Say it.", "edit more_itertools/extra.py: EXTRA = 1 => EXTRA = 1  # spare", session=session)
    assert model_server.requests("keep-xylophone")[-1]["messages"][-1]["role"] == "tool"
    assert json.dumps(model_server.requests("Say it.")[0]["messages"]).count("keep-xylophone") == 1
    assert operations(coder, coder.change(better)) == {"more_itertools/extra.py": "added"}
    assert "+EXTRA = 1  # spare" in coder.change(better)["diff"]
    assert (Path(worktree["path"]) / "more_itertools/extra.py").read_text() == "EXTRA = 1  # spare\n"
    assert (checkout.files(), checkout.status()) == (before, set())


def test_reject_and_discard(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    lines = ("write more_itertools/extra.py: EXTRA = 2\\n", bumped("10.5.0", "11.0.0"), "run: rm LICENSE")
    task = coder.turn(project, "Add a module.", *lines)
    session, change, before = task["session_id"], coder.change(task), checkout.files()
    assert coder.reject(change, reason="discard-xylophone", work="discard")["change_state"] == "rejected"

    coder.until(lambda: coder.worktree(session)["discard_decision"] is None)
    assert Checkout(Path(coder.worktree(session)["path"])).files() == before
    saved = f"refs/coder/{session}/discarded/1"
    assert checkout.git("show", f"{saved}:more_itertools/extra.py") == "EXTRA = 2"
    assert "'11.0.0'" in checkout.git("show", f"{saved}:{INIT}")
    assert "LICENSE" not in checkout.git("ls-tree", "--name-only", saved).splitlines()

    again = coder.change(coder.turn(project, "Another way.", bumped("10.5.0", "10.6.0"), session=session))
    told = model_server.requests("discard-xylophone")[0]["messages"][-1]["content"]
    assert told.startswith(
        f"A reviewer rejected the change of task {task['id']} with this reason: discard-xylophone. That work was taken out"
    )
    assert operations(coder, again) == {INIT: "modified"}
    assert again["base_commit"] == checkout.head()
    assert (checkout.files(), checkout.status()) == (before, set())


# --- other targets


def test_into_a_branch(coder: Coder, checkout: Checkout, project: str, tmp_path: Path) -> None:
    task = coder.turn(project, "Release 10.6.0", bumped("10.5.0", "10.6.0"), "run: printf '\\\\000\\\\377' > docs/blob && rm Makefile")
    session, change = task["session_id"], coder.change(task)
    patched = checkout.patched(tmp_path / "oracle", coder.diff(change))
    checkout.write(INIT, "somebody's half-finished work\n")
    before, index, head, own = checkout.files(), checkout.index(), checkout.head(), checkout.status()

    refused = coder.approve(change, 409, target="branch", branch="main")
    assert refused["code"] == "wrong_branch"
    assert coder.get(f"/changes/{change['id']}")["state"] == "pending"

    said = coder.cli("change", "approve", change["id"], "--branch", "release/10.6")
    assert "release/10.6" in said
    commit = checkout.git("rev-parse", "release/10.6")
    assert checkout.git("rev-parse", f"{commit}^@") == head
    assert checkout.git("log", "-1", "--format=%s", commit) == "Release 10.6.0"
    checkout.git("worktree", "add", "-q", "--detach", str(tmp_path / "branch"), commit)
    assert Checkout(tmp_path / "branch").files() == patched
    assert (checkout.files(), checkout.index(), checkout.head(), checkout.status()) == (before, index, head, own)

    change = coder.change(coder.turn(project, "Release 10.6.1", bumped("10.6.0", "10.6.1"), session=session))
    decision = coder.approve(change, target="branch", branch="release/10.6")
    assert checkout.git("rev-parse", "release/10.6^") == commit
    assert decision["facts"]["commit"] == checkout.git("rev-parse", "release/10.6")
    assert checkout.git("diff", "--shortstat", "release/10.6^", "release/10.6") == " 1 file changed, 1 insertion(+), 1 deletion(-)"
    assert (checkout.files(), checkout.index(), checkout.head()) == (before, index, head)


def test_with_a_commit(coder: Coder, checkout: Checkout, project: str) -> None:
    lines = (bumped("10.5.0", "10.6.0"), "write more_itertools/extra.py: EXTRA = 3\\n", "run: rm docs/make.bat && chmod +x setup.py")
    change = coder.change(coder.turn(project, "Release 10.6.0", *lines))
    person_at_work(checkout)
    own, staged, head = checkout.status(), checkout.git("diff", "--cached"), checkout.head()

    decision = coder.approve(change, commit=True)

    assert decision["facts"]["commit"] == checkout.head()
    assert checkout.git("rev-parse", "HEAD^@") == head
    assert checkout.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert set(checkout.git("show", "--format=", "--name-status", "HEAD").splitlines()) == {
        f"M\t{INIT}",
        "A\tmore_itertools/extra.py",
        "D\tdocs/make.bat",
        "M\tsetup.py",
    }
    assert checkout.git("log", "-1", "--format=%s") == "Release 10.6.0"
    assert (checkout.status(), checkout.git("diff", "--cached")) == (own, staged)
    assert coder.worktree(change["session_id"])["base_version"] == 2
