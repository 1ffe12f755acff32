"""Guardians with real processes: whatever happens to whom, nothing that an agent has started outlives it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from guarded_processes import (
    COMET,
    ENV,
    PATIENT,
    ROOT,
    Watched,
    descriptors,
    dispatcher,
    line,
    only_child,
    say,
    stubborn,
    until,
)

from coder.backends import guard
from coder.backends.guardian import Guardians
from coder.errors import AgentUnavailable, InternalError

TOP = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descendants are found through Linux's /proc")


@pytest.fixture
async def guardians() -> AsyncIterator[Guardians]:
    guardians = Guardians()
    yield guardians
    await guardians.stop_all()


def test_all_are_gone_2_s_after_the_dispatcher_was_killed(tmp_path: Path) -> None:
    with dispatcher(tmp_path / "lock", lease=0) as (process, guardian, agents):
        assert not agents.gone_within(0)
        killed = time.monotonic()
        process.kill()
        assert agents.gone_within(2)
        assert guardian.gone_within(killed + 2 - time.monotonic())


def test_all_are_gone_2_s_after_the_deadline_of_a_stopped_dispatcher(tmp_path: Path) -> None:
    with dispatcher(tmp_path / "lock", lease=1) as (process, guardian, agents):
        process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        assert agents.gone_within(1 + 2)
        assert guardian.gone_within(stopped + 1 + 2 - time.monotonic())


def test_the_slots_lock_is_free_when_no_agent_lives(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with dispatcher(lock, lease=0) as (process, _, agents), lock.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        subprocess.run(["flock", "--wait", "10", lock, "true"], check=True)
        assert agents.gone_within(0)


async def test_stop_returns_when_nothing_lives(guardians: Guardians) -> None:
    guarded, agents = await stubborn(guardians)
    await guarded.stop()
    assert agents.gone_within(0)
    assert guarded.returncode == -signal.SIGKILL
    await guarded.stop()


async def test_a_cancelled_stop_goes_on(guardians: Guardians) -> None:
    guarded, agents = await stubborn(guardians)
    stopping = asyncio.create_task(guarded.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await guarded.wait() == -signal.SIGKILL
    assert agents.gone_within(0)


async def test_who_obeys_term_has_the_grace_to_end_in_its_own_way(guardians: Guardians) -> None:
    patient = await guardians.spawn([sys.executable, "-c", PATIENT], cwd=ROOT, env=ENV, stdin=PIPE)
    assert await line(patient) == "ready"
    stopping = asyncio.create_task(patient.stop(grace=30))
    assert await line(patient) == "asked"
    other, _ = await stubborn(guardians)
    await other.stop()  # takes the usual grace, which began after the one of 30 s
    assert patient.returncode is None
    await say(patient, "go")
    await stopping
    assert patient.returncode == 7


async def test_no_grace_outlives_the_deadline(guardians: Guardians) -> None:
    guarded, agents = await stubborn(guardians)
    guardians.renew(guard.now() + 1)
    await asyncio.wait_for(guarded.stop(grace=30), 1 + 2)
    assert agents.gone_within(0)


async def test_a_renewed_deadline_holds_and_a_passed_one_ends(guardians: Guardians) -> None:
    guardians.renew(guard.now() + 1)
    kept = await guardians.spawn(["sleep", "1000"], cwd=ROOT, env=ENV)
    guardians.renew(guard.now() + 1000)
    lapsing = Guardians()
    lapsing.renew(guard.now() + 1)
    ended = await lapsing.spawn(["sleep", "1000"], cwd=ROOT, env=ENV)
    assert await asyncio.wait_for(ended.wait(), 3) == -signal.SIGTERM
    await asyncio.wait_for(guardians_answer(guardians), 30)
    assert kept.returncode is None
    assert not Watched([only_child(kept)]).gone_within(0)


async def guardians_answer(guardians: Guardians) -> None:
    """A whole command passes: whatever the other guardians had to notice by now, they have had the time for."""
    assert await (await guardians.spawn(["true"], cwd=ROOT, env=ENV)).wait() == 0


async def test_nothing_begins_after_the_deadline(guardians: Guardians, tmp_path: Path) -> None:
    guardians.renew(guard.now() - 1)
    guarded = await guardians.spawn(["touch", "begun"], cwd=tmp_path, env=ENV)
    assert await guarded.wait() == -signal.SIGTERM
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("code", [0, 3, 127, 255])
async def test_exit_codes_are_kept(guardians: Guardians, code: int) -> None:
    guarded = await guardians.spawn(["sh", "-c", f"exit {code}"], cwd=ROOT, env=ENV)
    assert await guarded.wait() == code == guarded.returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP, signal.SIGPIPE, signal.SIGRTMIN])
async def test_death_by_a_signal_is_reported_as_such(guardians: Guardians, number: int) -> None:
    guarded = await guardians.spawn(["sh", "-c", f"kill -{int(number)} $$"], cwd=ROOT, env=ENV)
    assert await guarded.wait() == -number


async def test_what_a_program_leaves_behind_is_ended(guardians: Guardians) -> None:
    script = "setsid sleep 1000 & echo $!; read line; exit 4"
    guarded = await guardians.spawn(["sh", "-c", script], cwd=ROOT, env=ENV, stdin=PIPE)
    left = Watched([int(await line(guarded))])
    await say(guarded, "go")
    assert await guarded.wait() == 4
    assert left.gone_within(0)


async def test_who_forks_away_from_its_killer_is_caught(guardians: Guardians) -> None:
    guarded = await guardians.spawn([sys.executable, "-c", COMET], cwd=ROOT, env=ENV)
    assert await line(guarded) == "flies"
    await asyncio.wait_for(guarded.stop(), 2)
    assert guarded.stdout is not None
    assert await asyncio.wait_for(guarded.stdout.read(), 1) == b""  # the end of a stream that every one of them held


async def test_output_of_5_mb_is_read_whole(guardians: Guardians) -> None:
    guarded = await guardians.spawn(["sh", "-c", "head -c 5242880 /dev/zero; echo done >&2"], cwd=ROOT, env=ENV)
    assert guarded.stdout is not None
    assert guarded.stderr is not None
    output, errors = await asyncio.gather(guarded.stdout.read(), guarded.stderr.read())
    assert (len(output), errors) == (5_242_880, b"done\n")
    assert await guarded.wait() == 0


async def test_a_stream_ends_when_the_program_closes_it(guardians: Guardians) -> None:
    guarded = await guardians.spawn(["sh", "-c", "exec >&- 2>&-; read line"], cwd=ROOT, env=ENV, stdin=PIPE)
    assert guarded.stdout is not None
    assert await asyncio.wait_for(guarded.stdout.read(), 30) == b""
    assert guarded.returncode is None
    await say(guarded, "go")
    assert await guarded.wait() == 0


async def test_a_program_gets_three_descriptors_its_environment_and_clean_signals(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        guardians = Guardians(lock_fd=lock.fileno())
        guarded = await guardians.spawn(["cat"], cwd=tmp_path, env=ENV, stdin=PIPE)
        await say(guarded, "hello")
        assert await line(guarded) == "hello"
        program = Path(f"/proc/{only_child(guarded)}")
        assert set(os.listdir(program / "fd")) == {"0", "1", "2"}
        assert (program / "environ").read_bytes() == f"PATH={ENV['PATH']}\0".encode()
        assert (program / "cwd").readlink() == tmp_path
        status = dict(entry.split(":\t", 1) for entry in (program / "status").read_text().splitlines())
        assert [int(status[mask], 16) for mask in ("SigIgn", "SigBlk", "SigPnd")] == [0, 0, 0]
        assert status["NoNewPrivs"] == "1"
        assert os.getsid(only_child(guarded)) == only_child(guarded) != os.getsid(guarded.pid) == guarded.pid
        held = {os.readlink(f"/proc/{guarded.pid}/fd/{number}") for number in os.listdir(f"/proc/{guarded.pid}/fd")}
        assert str(tmp_path / "lock") in held
        await guardians.stop_all()


async def test_a_guardian_ignores_what_terminals_send(guardians: Guardians) -> None:
    guarded = await guardians.spawn(["cat"], cwd=ROOT, env=ENV, stdin=PIPE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        await say(guarded, "hello")
        assert await line(guarded) == "hello"
        os.kill(guarded.pid, number)
    assert guarded.stdin is not None
    guarded.stdin.close()
    assert await guarded.wait() == 0


async def test_the_program_dies_with_a_killed_guardian(guardians: Guardians) -> None:
    guarded = await guardians.spawn(["cat"], cwd=ROOT, env=ENV, stdin=PIPE)
    await say(guarded, "hello")
    assert await line(guarded) == "hello"
    program = Watched([only_child(guarded)])
    os.kill(guarded.pid, signal.SIGKILL)
    assert await guarded.wait() == -signal.SIGKILL
    assert program.gone_within(2)


async def test_a_terminal_controls_the_program(guardians: Guardians) -> None:
    master, slave = os.openpty()
    script = "import os; print(os.tcgetpgrp(0) == os.getsid(0) == os.getpid(), os.isatty(2), bool(open('/dev/tty')))"
    guarded = await guardians.spawn(
        [sys.executable, "-c", script], cwd=ROOT, env=ENV, stdin=slave, stdout=slave, stderr=slave, terminal=True
    )
    assert guarded.stdout is None
    assert await guarded.wait() == 0
    assert os.read(master, 100) == b"True True True\r\n"
    os.close(slave)
    os.close(master)


async def test_what_cannot_start_says_so(guardians: Guardians, tmp_path: Path) -> None:
    with pytest.raises(AgentUnavailable, match="no program of that name"):
        await guardians.spawn(["no-such-agent"], cwd=tmp_path, env=ENV)
    with pytest.raises(AgentUnavailable, match="is not a program"):
        await guardians.spawn(["./no-such-agent"], cwd=tmp_path, env=ENV)
    with pytest.raises(InternalError, match="could not be started"):
        await guardians.spawn(["true"], cwd=tmp_path / "missing", env=ENV)
    with pytest.raises(InternalError, match="null byte"):
        await guardians.spawn(["echo", "\0"], cwd=tmp_path, env=ENV)
    (tmp_path / "odd").write_bytes(b"\x7fodd")
    (tmp_path / "odd").chmod(0o755)
    guarded = await guardians.spawn(["./odd"], cwd=tmp_path, env=ENV)
    assert guarded.stderr is not None
    assert await guarded.stderr.read() == f"coder: cannot run {tmp_path}/odd: Exec format error\n".encode()
    assert await guarded.wait() == 127


async def test_no_descriptor_stays_open(guardians: Guardians) -> None:
    before = descriptors()
    for _ in range(5):
        guarded = await guardians.spawn(["cat"], cwd=ROOT, env=ENV, stdin=PIPE)
        abandoned = await guardians.spawn(["cat", "/dev/zero"], cwd=ROOT, env=ENV, limit=1024)
        cancelled = asyncio.create_task(guardians.spawn(["sleep", "1000"], cwd=ROOT, env=ENV, stdin=PIPE))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert abandoned.stdout is not None
        await abandoned.stdout.readexactly(65_536)
        await asyncio.gather(guarded.stop(), abandoned.stop())
    with pytest.raises(AgentUnavailable):
        await guardians.spawn(["no-such-agent"], cwd=ROOT, env=ENV)
    with pytest.raises(InternalError):
        await guardians.spawn(["true"], cwd=ROOT / "missing", env=ENV)
    await guardians.stop_all()
    await guardians.stop_all()
    await until(lambda: descriptors() == before)


async def test_fifty_end_at_once() -> None:
    guardians = Guardians()
    all_of_them = await asyncio.gather(*(guardians.spawn(["cat"], cwd=ROOT, env=ENV, stdin=PIPE) for _ in range(50)))
    for guarded in all_of_them:
        await say(guarded, "hello")
    assert [await line(guarded) for guarded in all_of_them] == ["hello"] * 50
    agents = Watched([pid for guarded in all_of_them for pid in (guarded.pid, only_child(guarded))])
    guardians.kill_all_now()
    assert await asyncio.to_thread(agents.gone_within, 2)
    await guardians.stop_all()
    assert {guarded.returncode for guarded in all_of_them} == {-signal.SIGTERM}


OTHERS = """
import asyncio, os
from pathlib import Path
from subprocess import PIPE
from coder.backends import guardian
from coder.host.loop import run
taken = []
class Watched(guardian.Handed):
    def close(self):
        taken.append(os.open(os.devnull, os.O_RDONLY))  # as another thread may do at this very moment
        super().close()
guardian.Handed = Watched
async def main():
    guardians = guardian.Guardians()
    for _ in range(3):
        guarded = await guardians.spawn(["true"], cwd=Path("/"), env=dict(os.environ), stdin=PIPE)
        await asyncio.gather(guarded.stdout.read(), guarded.stderr.read(), guarded.wait())
        guarded.stdin.close()
        await guarded.stdin.wait_closed()
    await guardians.stop_all()
run(main())
for descriptor in taken:
    os.fstat(descriptor)
print(len(taken))
"""


async def test_the_end_of_a_pipe_closes_no_descriptor_of_another_thread() -> None:
    """On libuv's loop a pipe was closed twice, the second time whatever had got its number in between."""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", OTHERS], capture_output=True, text=True, cwd=TOP)
    assert (done.stdout, done.returncode) == ("9\n", 0), done.stderr


async def test_overhead(guardians: Guardians) -> None:
    """Prints what a guardian adds to a command, in milliseconds; machines differ, so nothing is asserted of it."""
    spent = []
    for _ in range(20):
        begun = time.perf_counter()
        guarded = await guardians.spawn(["true"], cwd=ROOT, env=ENV, stdout=DEVNULL, stderr=DEVNULL)
        spawned = time.perf_counter()
        assert await guarded.wait() == 0
        spent.append(((time.perf_counter() - begun) * 1000, (spawned - begun) * 1000))
    spent.sort()
    print(f"guarded `true`: median {spent[10][0]:.1f} ms, of which the event loop stood still {spent[10][1]:.1f} ms")
