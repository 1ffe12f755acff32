"""Work that is cut short: by kill -9, by SIGTERM, by a person; what is left of it, and how it goes on."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blocking import Living, blocking, descendants
from checkout import Checkout
from running import Coder

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

DRAIN_SECONDS = 4
POSTGRES_SECONDS = 20  # its shutdown is orderly: it writes to the disk


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    """A service that tests start themselves."""
    folder = tmp_path_factory.mktemp("coder")
    # Unconfined, so that the ids its commands tell are those that the test sees; the sandbox has tests of its own.
    made = Coder(folder, model_base_url=model_server.openai, default_model="m1", drain_seconds=str(DRAIN_SECONDS), sandbox="off")
    yield made
    made.close()


@pytest.fixture
def running(coder: Coder) -> Coder:
    if not coder.alive:
        coder.start()
    return coder


class SilentModel:
    """An endpoint that takes requests and never answers them.

    Attributes:
        asked: one item for each request.
    """

    def __init__(self) -> None:
        self.asked: queue.Queue[str] = queue.Queue()
        asked, self._over = self.asked, threading.Event()
        over = self._over

        class Exchange(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.put(self.path)
                over.wait()

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def test_what_nobody_has_seen_runs_again_by_itself(coder: Coder, checkout: Checkout, model_server: ModelServer) -> None:
    silent = SilentModel()
    try:
        coder.start(model_base_url=silent.url)
        coder.post("/projects", 201, name="unseen", path=str(checkout.path))
        task = coder.queue("unseen", "Add it.", "write extra.txt: x\\n")
        silent.asked.get(timeout=30)
        before = coder.get(f"/tasks/{task}")
        assert (before["state"], before["attempts"], before["first_event_at"]) == ("running", 1, None)
        coder.kill()
        coder.start(model_base_url=model_server.openai)
    finally:
        silent.close()
    done = coder.ended(task)
    assert (done["attempts"], done["reason"], done["retry_of"]) == (2, None, None)
    messages = coder.get(f"/sessions/{done['session_id']}/messages")["items"]
    assert [(message["role"], message["state"]) for message in messages] == [("user", "complete"), ("assistant", "complete")]
    assert coder.change(done)["file_count"] == 1


def test_killed_in_a_command_and_resumed(
    running: Coder, checkout: Checkout, project: str, model_server: ModelServer, tmp_path: Path
) -> None:
    coder = running
    with blocking(tmp_path / "command") as command:
        lines = ("Do it in two halves.", "write one.txt: 1\\n", f"run: {command.command}", "write two.txt: 2\\n", "say: Both are done.")
        task = coder.queue(project, *lines)
        session = coder.get(f"/tasks/{task}")["session_id"]
        agent = command.began()
        after = coder.queue(project, "Then this.", "write three.txt: 3\\n", session=session)
        everything = Living(descendants(coder.process.pid))
        assert len(everything) > 4
        coder.kill()
        assert agent.gone_within(2)
        assert everything.gone_within(POSTGRES_SECONDS)

        coder.start()
        interrupted = coder.ended(task, "interrupted")
        assert (interrupted["reason"], interrupted["attempts"]) == ("crash", 1)
        coder.until(lambda: coder.get(f"/tasks/{task}")["change_id"])
        half = coder.change(coder.get(f"/tasks/{task}"))
        assert (half["state"], half["turn_outcome"], [file["path"] for file in half["files"]]) == ("pending", "interrupted", ["one.txt"])
        assert "Look twice" in coder.cli("change", "show", half["id"])
        assert (coder.get(f"/tasks/{after}")["state"], coder.get(f"/tasks/{after}")["waiting_for"]) == ("pending", "decision")
        held = coder.get(f"/sessions/{session}")
        assert (held["queue_state"], held["held_by"]) == ("held", task)
        assert coder.get(f"/sessions/{session}/messages")["items"][1]["state"] == "interrupted"

        assert "at the head of session" in coder.cli("task", "resume", str(task))
        resumed = coder.ended(coder.get(f"/tasks/{task}")["retried_by"])
    assert (resumed["retry_of"], resumed["output_summary"]) == (task, "Both are done.")
    prompt = model_server.requests("Do it in two halves.")[-1]["messages"]
    assert any("You were interrupted" in str(message["content"]) for message in prompt if message["role"] == "user")
    then = coder.ended(after)
    assert then["claimed_at"] > resumed["ended_at"]
    whole = coder.change(then)
    assert (whole["turn_outcome"], whole["file_count"]) == ("completed", 3)
    assert coder.get(f"/changes/{half['id']}")["state"] == "superseded"
    assert coder.approve(whole)["outcome"] == "approved"
    assert checkout.status() == {"?? one.txt", "?? two.txt", "?? three.txt"}


def test_sigterm_lets_turns_finish_and_interrupts_the_rest(running: Coder, project: str, tmp_path: Path) -> None:
    coder = running
    with ExitStack() as stack:
        commands = [stack.enter_context(blocking(tmp_path / name)) for name in ("quick", "slow", "unwanted")]
        quick, slow, unwanted = (
            coder.queue(project, "Do it.", f"write {number}.txt: x\\n", f"run: {command.command}", "say: Done.")
            for number, command in enumerate(commands)
        )
        agents = [command.began() for command in commands]
        everything = Living(descendants(coder.process.pid))
        before = coder.log.read_text().count(" draining ")
        started = time.monotonic()
        coder.process.send_signal(signal.SIGTERM)
        coder.until(lambda: coder.log.read_text().count(" draining ") > before)
        late = coder.queue(project, "say: Late.")  # the API still answers
        coder.post(f"/tasks/{unwanted}/cancel", 200)
        assert agents[2].gone_within(2)
        assert coder.ended(unwanted, "cancelled")["reason"] == "user"
        commands[0].let_go()
        assert coder.died(DRAIN_SECONDS + POSTGRES_SECONDS) == 0
        assert time.monotonic() - started > DRAIN_SECONDS
        assert agents[0].gone_within(0)
        assert agents[1].gone_within(0)
        assert everything.gone_within(0)

    coder.start()
    coder.ended(late)
    claimed = coder.row("select t.claimed_at > n.started_at as later from tasks t, nodes n where t.id = %s", late)
    assert claimed == {"later": True}
    assert [file["path"] for file in coder.change(coder.ended(quick))["files"]] == ["0.txt"]
    interrupted = coder.ended(slow, "interrupted")
    assert interrupted["reason"] == "shutdown"
    change = coder.change(interrupted)
    assert (change["turn_outcome"], [file["path"] for file in change["files"]]) == ("interrupted", ["1.txt"])
    resumed = coder.ended(coder.post(f"/tasks/{slow}/resume", 201)["id"])
    assert coder.change(resumed)["turn_outcome"] == "completed"


def test_cancelled_by_sql(running: Coder, project: str, tmp_path: Path) -> None:
    coder = running
    with blocking(tmp_path / "command") as command:
        task = coder.queue(project, "Take long.", "write half.txt: x\\n", f"run: {command.command}", "write never.txt: x\\n")
        session = coder.get(f"/tasks/{task}")["session_id"]
        agent = command.began()
        waiting = coder.queue(project, "Wait.", "write wait.txt: x\\n", session=session)
        after = coder.queue(project, "Go on.", "write after.txt: x\\n", session=session)
        coder.rows("update tasks set cancel_requested_at = now() where id = any (%s) returning id", [waiting, task])
        assert agent.gone_within(2)
    cancelled = coder.ended(task, "cancelled")
    assert cancelled["reason"] == "user"
    change = coder.change(cancelled)
    assert (change["turn_outcome"], [file["path"] for file in change["files"]]) == ("cancelled", ["half.txt"])
    assert coder.ended(waiting, "cancelled")["attempts"] == 0
    done = coder.change(coder.ended(after))
    assert {file["path"] for file in done["files"]} == {"half.txt", "after.txt"}
    assert "already ended" in coder.cli("task", "cancel", str(task), code=1)
