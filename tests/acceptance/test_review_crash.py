"""kill -9 of the service anywhere in an approval: after a restart the change is approved, whole, and never half there.

One service is killed at one point after the other. Each has a change of its own, in a project of its own; all of them are made
before the first death.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from checkout import Checkout, Content, clone_of
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

INIT = "more_itertools/__init__.py"
LINES = (
    "Rework it.",
    f"edit {INIT}: __version__ = '10.5.0' => __version__ = '10.6.0'",
    "write more_itertools/extra.py: EXTRA = 1\\n",
    "write a/deep/place.txt: x\\n",
    "run: rm docs/make.bat docs/testing.rst && chmod +x setup.py && ln -s LICENSE COPYING && printf '\\\\000\\\\377' > blob",
)
FILES = {INIT, "more_itertools/extra.py", "a/deep/place.txt", "docs/make.bat", "docs/testing.rst", "setup.py", "COPYING", "blob"}
CASES = ("begin", "place", "move", "settle", "branch", "again", "person", "database", *(f"parts {n}" for n in range(5)), "undo")
REBASES = ("begin 0", "settle 0", "shift 0", "shifted 0")
PUSHES = ("push 0", "settle 0")
CASES += (*(f"rebase {n}" for n in range(len(REBASES))), *(f"push {n}" for n in range(len(PUSHES))))
APPROVED = {INIT, "more_itertools/extra.py", "blob"}
REJECTED = {"a/deep/place.txt", "docs/make.bat"}


@dataclass
class Case:
    """A checkout with a person's work in it, and a change that waits for it."""

    checkout: Checkout
    change: dict[str, Any]
    patched: dict[str, Content]

    def __post_init__(self) -> None:
        self.checkout.write("NOTES", "staged\n")
        self.checkout.git("add", "NOTES")
        self.checkout.write("README.rst", "being written\n")
        self.before, self.index, self.head = self.checkout.files(), self.checkout.index(), self.checkout.head()

    def require_whole(self) -> None:
        """The checkout holds the change and the person's work."""
        expected = {path: held for path, held in self.before.items() if path not in FILES}
        assert self.checkout.files() == expected | {path: held for path, held in self.patched.items() if path in FILES}
        assert not list((self.checkout.path / ".git").glob("coder-staging*"))

    def written(self) -> int:
        """How many of the change's files are there; the rest is as it was."""
        found = self.checkout.files()
        new = [path for path in FILES if found.get(path) == self.patched.get(path)]
        assert all(found.get(path) == self.before.get(path) for path in FILES - set(new))
        return len(new)


@pytest.fixture(scope="module")
def death(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("death") / "order"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer, death: Path) -> Iterator[Coder]:
    program = (sys.executable, str(Path(__file__).with_name("mortal.py")), "up")
    folder = tmp_path_factory.mktemp("coder")
    yield from running(Coder(folder, program=program, model_base_url=model_server.openai, default_model="m1", test_death=str(death)))


@pytest.fixture(scope="module")
def cases(service: Coder, package: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    tasks = {}
    folder = tmp_path_factory.mktemp("cases")
    for name in CASES:
        clone_of(package.path, folder / name)
        service.post("/projects", 201, name=name.replace(" ", "-"), path=str(folder / name))
        tasks[name] = service.queue(name.replace(" ", "-"), *LINES)
    changes = {name: service.change(service.ended(task)) for name, task in tasks.items()}
    patched = Checkout(folder / CASES[0]).patched(folder / "oracle", service.diff(changes[CASES[0]]))
    return {name: Case(Checkout(folder / name), changes[name], patched) for name in CASES}


@pytest.fixture
def coder(service: Coder, cases: dict[str, Case], death: Path) -> Coder:
    """The service, alive whatever the test before has left."""
    death.unlink(missing_ok=True)
    if not service.alive:
        service.start()
    service.until(lambda: not service.rows("select from decisions where state in ('queued', 'running')"))
    return service


def die(coder: Coder, death: Path, point: str, change: dict[str, Any], **how: Any) -> None:
    """Approve a change, with the service dying at a point."""
    death.write_text(point)
    with pytest.raises(httpx.TransportError):
        coder.approve(change, **how)
    assert coder.died() == -signal.SIGKILL
    assert not death.exists()


def settled(coder: Coder, change: dict[str, Any]) -> dict[str, Any]:
    """The one decision on a change, once it has been carried out."""

    def ended() -> dict[str, Any] | None:
        row = coder.row("select * from decisions where change_id = %s", change["id"])
        return row if row["state"] in ("done", "failed") else None

    return coder.until(ended)


def require_approved(coder: Coder, change: dict[str, Any]) -> None:
    """Approved once, and the session's base moved once."""
    decision = settled(coder, change)
    assert (decision["state"], decision["outcome"], decision["error"]) == ("done", "approved", None)
    assert coder.get(f"/changes/{change['id']}")["state"] == "approved"
    worktree = coder.worktree(change["session_id"])
    assert (worktree["base_version"], worktree["base_commit"]) == (2, change["snapshot_commit"])


@pytest.mark.parametrize(
    ("point", "commit", "written"), [("begin 0", False, 0), ("place 4", False, 6), ("move 0", True, 8), ("settle 0", True, 8)]
)
def test_killed_while_it_applies(coder: Coder, death: Path, cases: dict[str, Case], point: str, commit: bool, written: int) -> None:
    case = cases[point.split()[0]]
    die(coder, death, point, case.change, commit=commit)
    assert case.written() == written
    coder.start()
    require_approved(coder, case.change)
    case.require_whole()
    if commit:
        assert case.checkout.git("rev-parse", "HEAD^@") == case.head
        assert set(case.checkout.git("show", "--format=", "--name-only", "HEAD").splitlines()) == FILES
        assert case.checkout.status() == {"A  NOTES", " M README.rst"}
    else:
        assert (case.checkout.index(), case.checkout.head()) == (case.index, case.head)
    coder.until(lambda: case.checkout.git("for-each-ref", "refs/coder/plans") == "")


def test_killed_while_it_moves_a_branch(coder: Coder, death: Path, cases: dict[str, Case]) -> None:
    case = cases["branch"]
    die(coder, death, "move 0", case.change, target="branch", branch="made")
    assert case.checkout.git("branch", "--list", "made") == ""
    coder.start()
    require_approved(coder, case.change)
    assert case.checkout.git("rev-parse", "made^") == case.head
    assert set(case.checkout.git("show", "--format=", "--name-only", "made").splitlines()) == FILES
    assert (case.checkout.files(), case.checkout.index(), case.checkout.head()) == (case.before, case.index, case.head)


@pytest.mark.parametrize(("number", "point"), [*enumerate(("begin 0", "place 1", "settle 0", "shift 0", "shifted 0"))])
def test_killed_while_parts_are_decided_on(coder: Coder, death: Path, cases: dict[str, Case], number: int, point: str) -> None:
    """Approved, rejected and left parts are exactly those, in the checkout and in the worktree, wherever it died."""
    case = cases[f"parts {number}"]
    session = case.change["session_id"]
    verdicts = {"approve": APPROVED, "reject": REJECTED}
    parts = [{"path": path, "verdict": verdict} for verdict, paths in verdicts.items() for path in sorted(paths)]
    death.write_text(point)
    with suppress(httpx.TransportError):  # the worktree's files come after the answer
        coder.api.post(f"/changes/{case.change['id']}/decide", json={"fingerprint": case.change["fingerprint"], "parts": parts})
    assert coder.died() == -signal.SIGKILL
    coder.start()
    decision = settled(coder, case.change)
    assert (decision["state"], decision["outcome"], decision["error"]) == ("done", "approved", None)
    assert case.checkout.files() == case.before | {path: case.patched[path] for path in APPROVED}
    coder.until(lambda: coder.worktree(session)["shifts"] == [])
    expected = {path: held for path, held in case.patched.items() if path not in REJECTED} | {"docs/make.bat": case.before["docs/make.bat"]}
    assert Checkout(Path(coder.worktree(session)["path"])).files() == expected
    left = coder.get(f"/changes/{decision['left_change']}")
    assert (left["state"], {file["path"] for file in left["files"]}) == ("pending", FILES - APPROVED - REJECTED)
    assert coder.worktree(session)["base_version"] == 2
    coder.approve(left)
    gone = {path for path in FILES if path not in expected}
    everything = {path: held for path, held in case.before.items() if path not in gone}
    assert case.checkout.files() == everything | {path: expected[path] for path in FILES - gone}


@pytest.mark.parametrize(("number", "point"), [*enumerate(REBASES)])
def test_killed_while_it_rebases(coder: Coder, death: Path, cases: dict[str, Case], number: int, point: str) -> None:
    """The checkout is not touched; the worktree has its edits and the agent's, once, and the change is what it was, on them."""
    case, session = cases[f"rebase {number}"], cases[f"rebase {number}"].change["session_id"]
    case.checkout.write("later.txt", "later\n")
    case.checkout.write("README.rst", "came meanwhile\n")
    case.checkout.commit("went on")
    held, index = case.checkout.files(), case.checkout.index()
    death.write_text(point)
    with suppress(httpx.TransportError):  # the worktree's files come after the answer
        coder.api.post(f"/changes/{case.change['id']}/rebase", json={"fingerprint": case.change["fingerprint"]})
    assert coder.died() == -signal.SIGKILL
    coder.start()
    decision = settled(coder, case.change)
    assert (decision["state"], decision["outcome"], decision["error"]) == ("done", "rebased", None)
    assert (case.checkout.files(), case.checkout.index()) == (held, index)
    coder.until(lambda: coder.worktree(session)["shifts"] == [])
    expected = {path: content for path, content in held.items() if path not in FILES}
    expected |= {path: content for path, content in case.patched.items() if path in FILES}
    assert Checkout(Path(coder.worktree(session)["path"])).files() == expected
    left = coder.get(f"/changes/{decision['left_change']}")
    assert (left["state"], {file["path"] for file in left["files"]}) == ("pending", FILES)
    assert coder.worktree(session)["base_version"] == 2
    coder.approve(left)
    assert case.checkout.files() == expected


@pytest.mark.parametrize(("number", "point"), [*enumerate(PUSHES)])
def test_killed_while_it_pushes(coder: Coder, death: Path, cases: dict[str, Case], tmp_path: Path, number: int, point: str) -> None:
    """The remote has the branch, whether it was killed before the push or after it."""
    case = cases[f"push {number}"]
    case.checkout.git("clone", "-q", "--bare", ".", str(tmp_path / "remote"))
    case.checkout.git("remote", "set-url", "origin", str(tmp_path / "remote"))
    die(coder, death, point, case.change, target="branch", branch="made", push=True)
    coder.start()
    require_approved(coder, case.change)
    decision = settled(coder, case.change)
    assert decision["facts"]["pushed"] == {"remote": "origin", "error": None}
    assert case.checkout.git("ls-remote", "origin", "refs/heads/made").split()[0] == case.checkout.git("rev-parse", "made")
    assert case.checkout.git("rev-parse", "made^") == case.head


def test_killed_while_it_undoes(coder: Coder, death: Path, cases: dict[str, Case]) -> None:
    case = cases["undo"]
    coder.approve(case.change)
    case.require_whole()
    death.write_text("place 1")
    with pytest.raises(httpx.TransportError):
        coder.api.post(f"/changes/{case.change['id']}/undo", json={})
    assert coder.died() == -signal.SIGKILL
    coder.start()
    coder.until(lambda: coder.get(f"/changes/{case.change['id']}")["state"] == "undone")
    assert (case.checkout.files(), case.checkout.index(), case.checkout.head()) == (case.before, case.index, case.head)
    worktree = coder.worktree(case.change["session_id"])
    assert (worktree["base_commit"], worktree["undo_decision"]) == (case.change["base_commit"], None)


def test_killed_and_killed_again_while_it_recovers(coder: Coder, death: Path, cases: dict[str, Case]) -> None:
    case = cases["again"]
    die(coder, death, "begun 0", case.change)
    assert case.written() == 0
    death.write_text("unlink 1")
    coder.launch()
    assert coder.died() == -signal.SIGKILL
    assert case.written() == 1
    coder.start()
    require_approved(coder, case.change)
    case.require_whole()


def test_a_person_edits_a_file_meanwhile(coder: Coder, death: Path, cases: dict[str, Case]) -> None:
    case = cases["person"]
    die(coder, death, "place 2", case.change)
    case.checkout.write(INIT, "rescued by hand\n")
    coder.start()
    decision = settled(coder, case.change)
    assert (decision["state"], decision["outcome"], decision["facts"]) == ("failed", "conflict", {"files": [INIT]})
    assert INIT in decision["error"]
    assert coder.get(f"/changes/{case.change['id']}")["state"] == "conflicted"
    assert case.checkout.read(INIT) == "rescued by hand\n"
    assert coder.worktree(case.change["session_id"])["base_version"] == 1

    # What is there already is no obstacle to the next approval.
    case.checkout.git("checkout", "HEAD", "--", INIT)
    assert coder.approve(case.change)["outcome"] == "approved"
    case.require_whole()


def test_the_database_dies_in_the_middle(coder: Coder, death: Path, cases: dict[str, Case]) -> None:
    """The service lives on, starts the database again and goes on with the decision by itself."""
    case = cases["database"]
    death.write_text("settle-database 0")
    answer = coder.api.post(f"/changes/{case.change['id']}/approve", json={"fingerprint": case.change["fingerprint"]})
    assert answer.status_code in (200, 202), answer.text
    assert not death.exists()
    coder.hang_up()
    coder.until(lambda: coder.api.get("/ready").status_code == 200)
    require_approved(coder, case.change)
    case.require_whole()
