"""Programs in a network of their own: what they reach by the relay, what they do not reach, how they are reached, and what stays."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import STDOUT
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from guarded_processes import Watched, until

from coder.agents import Host
from coder.backends.guard import children
from coder.backends.guardian import Guarded, Guardians
from coder.backends.relay import Plan
from coder.backends.sandbox import Sandbox
from coder.errors import AgentUnavailable

pytestmark = pytest.mark.skipif(not Sandbox("auto", Path("/nowhere")).works, reason="agents cannot be confined on this machine")

PYTHON = os.path.realpath(sys.executable)
IPV6 = Path("/proc/net/if_inet6").exists()
NAMES = {name: line.split()[0] for line in Path("/etc/hosts").read_text().splitlines() for name in line.partition("#")[0].split()[1:]}

POORER = """#!{python} -IS
import os, sys
words = sys.argv[1:]
if "CAP_SYS_ADMIN" in words:
    at = words.index("CAP_SYS_ADMIN")
    del words[at - 1 : at + 1]
os.execv("{bwrap}", ["{bwrap}", *words])
"""
"""A bubblewrap that may not let make networks."""

TELL = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=20) as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            print(place, b"".join(iter(lambda: connection.recv(65536), b"")).decode())
    except OSError as error:
        print(place, type(error).__name__, error.strerror or error)
"""
"""A program that says hello at each place and prints what it hears."""

SERVE = """
import http.server, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"inside " + self.path.encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass
class Echo:
    """A server out here that answers what it hears, and remembers it."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(b"")
        while piece := await reader.read(65_536):
            self.heard[-1] += piece
            writer.write(piece)
            await writer.drain()
        writer.close()


async def echo(address: str = "127.0.0.1") -> Echo:
    made = Echo()
    made.port = (await asyncio.start_server(made, address, 0)).sockets[0].getsockname()[1]
    return made


@dataclass
class House:
    """A data directory with a worktree and a home, deep enough that no Unix socket's whole path would do."""

    sandbox: Sandbox
    guardians: Guardians
    worktree: Path
    home: Path

    async def start(self, hosts: tuple[Host, ...], script: str, *words: str, **values: Any) -> Guarded:
        cell = self.sandbox.cell(self.guardians, worktree=self.worktree, home=self.home, network=False, hosts=hosts)
        env = cell.environment({"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"})
        argv = (PYTHON, "-I", "-S", "-c", script, *words)
        return await cell.spawn(argv, cwd=self.worktree, env=env, stderr=STDOUT, **values)

    async def said(self, hosts: tuple[Host, ...], script: str, *words: str) -> list[str]:
        guarded = await self.start(hosts, script, *words)
        assert guarded.stdout is not None
        said = (await guarded.stdout.read()).decode()
        await guarded.wait()
        return said.splitlines()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    data = tmp_path / "a-directory-with-a-long-name-as-people-have-them" / "and-another-one-below-that-which-is-not-shorter"
    made = House(Sandbox("required", data), Guardians(), data / "worktrees/1/session", data / "homes/0/agent-with-a-name")
    for folder in (made.worktree, made.home):
        folder.mkdir(parents=True)
    yield made
    await made.guardians.stop_all()


async def test_the_hosts_of_the_list_are_reached_and_nothing_else(house: House) -> None:
    model, other = await echo(), await echo()
    said = await house.said(
        (Host("127.0.0.1", model.port),), TELL, f"127.0.0.1:{model.port}", f"127.0.0.1:{other.port}", "203.0.113.1:80", "example.org:80"
    )
    assert said[0] == f"127.0.0.1:{model.port} hello"
    assert said[1].startswith(f"127.0.0.1:{other.port} ConnectionRefusedError")
    assert said[2] == "203.0.113.1:80 OSError Network is unreachable"
    assert said[3].startswith("example.org:80 gaierror")
    assert (model.heard, other.heard) == ([b"hello"], [])


async def test_localhost_is_reached_in_both_families_and_named_twice_it_is_there_once(house: House) -> None:
    model = await echo()
    hosts = (Host("localhost", model.port), Host("127.0.0.1", model.port), Host("0.0.0.0", model.port))
    said = await house.said(hosts, TELL, f"localhost:{model.port}", f"127.0.0.1:{model.port}", f"[::1]:{model.port}")
    assert [line.split()[-1] for line in said[:2]] == ["hello", "hello"]
    assert said[2].endswith("hello") or not IPV6


async def test_names_and_addresses_of_others_lead_out_by_loopback_also_at_low_ports(house: House) -> None:
    """They lead to who is not there, so all that is heard is the end of the connection, which began: without the relay none does."""
    hosts = (Host("model.invalid", 443), Host("203.0.113.9", 443), Host("2001:db8::9", 80))
    said = await house.said(hosts, TELL + "print(open('/etc/hosts').read())", "model.invalid:443", "203.0.113.10:443")
    assert said[0] in ("model.invalid:443 ", "model.invalid:443 ConnectionResetError Connection reset by peer")
    assert said[1] == "203.0.113.10:443 OSError Network is unreachable"
    assert said[2] == "127.1.0.1 model.invalid"
    listening = "print(*(line.split()[1] for name in ('tcp', 'tcp6') for line in list(open('/proc/net/' + name))[1:]))"
    (places,) = await house.said(hosts, listening)
    assert "0100017F:01BB" in places  # 127.1.0.1:443, as the kernel writes it
    assert "097100CB:01BB" in places
    assert "B80D0120000000000000000009000000:0050" in places or not IPV6


async def test_a_name_of_this_machine_is_reached_by_that_name(house: House) -> None:
    aliases = {name: at for name, at in NAMES.items() if name != "localhost" and at in ("127.0.0.1", "::1")}
    if not aliases:
        pytest.skip("This machine has no name at a loopback address but localhost.")
    name, at = next(iter(aliases.items()))
    model = await echo(at)
    said = await house.said((Host(name, model.port),), TELL, f"{name}:{model.port}", f"127.0.0.1:{model.port}")
    assert said[0] == f"{name}:{model.port} hello"
    assert "ConnectionRefusedError" in said[1]


@pytest.mark.parametrize("host", [Host("127.0.0.1", 8080), Host("model.invalid", 443), Host("203.0.113.9", 8080)], ids=str)
async def test_nothing_that_the_inside_needed_is_left_to_the_program(host: Host, house: House) -> None:
    look = """
import os
wanted = ("CapPrm", "CapEff", "CapInh", "CapAmb")
print(*(line.split()[1] for line in open("/proc/self/status") if line[:6] in wanted))
print(sorted(os.listdir("/proc/self/fd")))
print([name for name in os.environ if "proxy" in name.lower()])
print([line.split()[1] for line in open("/proc/self/status") if line[:6] in ("SigIgn", "SigBlk")])
"""
    said = await house.said((host,), look)
    assert said == await house.said((), look)
    capabilities, _, proxies, _ = said
    assert proxies == "[]"
    assert all(not int(word, 16) & (1 << 10 | 1 << 12 | 1 << 21) for word in capabilities.split())


async def test_much_goes_both_ways_and_each_end_is_told(house: House) -> None:
    model = await echo()
    script = """
import socket, sys, threading
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def send():
    for _ in range(160):
        c.sendall(b"x" * 65536)
    c.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
print(sum(map(len, iter(lambda: c.recv(1 << 20), b""))))
"""
    assert await house.said((Host("127.0.0.1", model.port),), script, str(model.port)) == [str(160 * 65536)]


async def test_more_connections_than_a_program_may_have_are_refused_and_the_rest_works(house: House) -> None:
    model = await echo()
    script = """
import socket, sys
def talk():
    c = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
    try:
        c.sendall(b"a")
        return c if c.recv(1) else None
    except OSError:
        return None
held = [c for _ in range(300) if (c := talk())]
print(len(held))
"""
    assert await house.said((Host("127.0.0.1", model.port),), script, str(model.port)) == ["256"]
    said = await house.said((Host("127.0.0.1", model.port),), TELL, f"127.0.0.1:{model.port}")
    assert said == [f"127.0.0.1:{model.port} hello"]


async def test_a_server_inside_is_reached_and_its_entrance_goes_with_it(house: House) -> None:
    guarded = await house.start((), SERVE, entered=True)
    assert guarded.stdout is not None
    assert guarded.relay is not None
    port = int(await guarded.stdout.readline())
    entrance = await guarded.relay.enter(port, house.home)
    for path in (b"/one", b"/two"):
        reader, writer = await asyncio.open_unix_connection(entrance)
        writer.write(b"GET %s HTTP/1.0\r\n\r\n" % path)
        assert (await reader.read()).endswith(b"inside " + path)
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert [path.name for path in house.home.iterdir() if path.is_socket()] == ["entrance"]
    before = len(os.listdir("/proc/self/fd"))
    await guarded.stop()
    await until(lambda: not (house.home / "entrance").exists())
    await until(lambda: len(os.listdir("/proc/self/fd")) < before)


async def test_who_cannot_be_reached_any_more_is_ended(house: House) -> None:
    guarded = await house.start((), SERVE, entered=True)
    assert guarded.stdout is not None
    assert guarded.relay is not None
    entrance = await guarded.relay.enter(int(await guarded.stdout.readline()), house.home)
    (bubblewrap,) = children(guarded.pid)
    (first,) = children(bubblewrap)
    (connects,) = (pid for pid in children(first) if "relay_inside" in command_line(pid))
    watched = Watched([guarded.pid, bubblewrap, first, *children(first)])
    os.kill(connects, 9)
    reader, writer = await asyncio.open_unix_connection(entrance)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    with suppress(ConnectionResetError):  # which of the two is seen first
        assert await reader.read() == b""
    assert watched.gone_within(2)
    assert await guarded.wait() != 0


async def test_an_inside_that_fails_is_a_sentence_and_leaves_nothing(house: House) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AgentUnavailable, match=r"could not be given a network of its own .* use native"):
        await house.start((Host("224.0.0.1", 80),), TELL)
    await house.guardians.stop_all()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_machine_where_it_does_not_work_is_found_out(house: House, tmp_path: Path) -> None:
    assert [house.sandbox.why_no_relay(port) for port in (443, 8443)] == ["", ""]
    program = tmp_path / "bwrap"
    program.write_text(POORER.format(python=PYTHON, bwrap=house.sandbox.program))
    program.chmod(0o755)
    poorer = Sandbox("auto", tmp_path, bwrap=str(program))
    assert poorer.works
    assert [poorer.why_no_relay(port) for port in (443, 8443)] == ["Operation not permitted (PermissionError)", ""]


async def test_a_program_that_is_ended_at_once_leaves_no_listener(house: House) -> None:
    model = await echo()
    guarded = await house.start((Host("127.0.0.1", model.port),), "import time; print('there', flush=True); time.sleep(1000)")
    assert guarded.stdout is not None
    await guarded.stdout.readline()
    before = len(os.listdir("/proc/self/fd"))
    await guarded.stop()
    await until(lambda: len(os.listdir("/proc/self/fd")) < before - 2)


def test_a_hosts_file_says_ours_once() -> None:
    plan = Plan.of((Host("api.example.org", 443), Host("other.example.org", 443), Host("api.example.org", 80)))
    present = "127.0.0.1 localhost\n10.0.0.1 api.example.org api # ours\n# note\n10.0.0.2 mine.example.org\n"
    assert plan.hosts_file(present).decode().splitlines() == [
        "127.1.0.1 api.example.org", "127.1.0.2 other.example.org", "127.0.0.1 localhost", "# note", "10.0.0.2 mine.example.org",
    ]  # fmt: skip
    assert [(at, port) for at, port, _ in plan.listen] == [("127.1.0.1", 443), ("127.1.0.2", 443), ("127.1.0.1", 80)]
    assert socket.inet_aton("127.1.0.2")
