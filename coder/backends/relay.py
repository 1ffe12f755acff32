"""The relay: the only ways between a program in a network of its own and what is outside, kept open as long as the program lives.

A program whose project keeps it off the network runs in an empty one. In that, `relay_inside.py` opens a listening socket for each
host that the program may reach, and hands it out; what is accepted from it here is connected to that host and no other. So an address
of the model works unchanged: a loopback port is the same there, a name leads to a loopback address by an `/etc/hosts` of the sandbox's
own, and TLS ends at the host itself. In the other direction `enter` gives a Unix socket through which a server in there is spoken to.

Invariant: nothing but the hosts of its list is reached through a relay, and when its program has ended, nothing is left of it: it has no
process of its own out here, and its one file, the Unix socket, is removed.

Omitted: proxies. Hosts are connected to directly.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from coder.agents import Host
from coder.backends import relay_inside
from coder.errors import AgentUnavailable

if TYPE_CHECKING:
    from coder.backends.guardian import Guarded

PIECE_BYTES = 65_536
CONNECTIONS = 256
"""Of one program at once; more are refused, so that none takes all of the dispatcher's descriptors."""

CONNECT_SECONDS = 10.0
START_SECONDS = 30.0
ENTER_SECONDS = 5.0
NAMES = Path("/etc/hosts")
MESSAGE_BYTES = 4096
FIRST_FREE_PORT = 1024  # net.ipv4.ip_unprivileged_port_start of a new network
MOST_DOORS = 253
"""Sockets that one message carries (SCM_MAX_FD, unix(7)); `MOST_HOSTS` and the endpoint come to fewer."""

log = structlog.get_logger(__name__)

Connect: TypeAlias = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made inside.

    Attributes:
        listen: address, port, whether the program can do nothing without it; the host of each in `leads_to`.
        addresses: what loopback is given besides its own.
        names: addresses by name.
    """

    listen: list[tuple[str, int, bool]] = field(default_factory=list)
    leads_to: list[Host] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def apart(self) -> bool:
        """Whether that takes a network that is made with capabilities, see `relay_inside.py`."""
        return bool(self.addresses) or any(port < FIRST_FREE_PORT for _, port, _ in self.listen)

    @classmethod
    def of(cls, hosts: Sequence[Host]) -> Plan:
        plan = cls()
        for host in dict.fromkeys(hosts):
            for number, address in enumerate(plan._addresses_of(host.name)):
                if not any((address, host.port) == (at, port) for at, port, _ in plan.listen):  # `localhost` and 127.0.0.1 are one
                    plan.listen.append((address, host.port, number == 0))
                    plan.leads_to.append(host)
        return plan

    def _addresses_of(self, name: str) -> tuple[str, ...]:
        """Where the program will look for a host; `localhost` in both families, since nobody knows in which."""
        if name == "localhost":
            return "127.0.0.1", "::1"
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            # 127.0.0.1 and its neighbours are left to the program's own servers.
            return (self.names.setdefault(name, f"127.1.0.{len(self.names) + 1}"),)
        if address.is_unspecified:
            return ("127.0.0.1" if address.version == 4 else "::1",)
        if not address.is_loopback and name not in self.addresses:
            self.addresses.append(name)
        return (name,)

    def hosts_file(self, present: str) -> bytes:
        """This machine's `/etc/hosts` with our names in it and nowhere else."""
        kept = [line for line in present.splitlines() if not set(line.partition("#")[0].split()[1:]) & set(self.names)]
        return "".join(f"{line}\n" for line in (*(f"{at} {name}" for name, at in self.names.items()), *kept)).encode()


class Relay:
    """The ways out of, and into, one program. Made before its start; `open` follows the start, or `abandon`.

    Args:
        hosts: what the program may reach.
        entered: whether it is to be reached from outside.

    Raises:
        AgentUnavailable: names cannot be made known to it.
    """

    def __init__(self, name: str, hosts: Sequence[Host], *, entered: bool = False) -> None:
        self._name = name
        self._plan = Plan.of(hosts)
        names = b""
        if self._plan.names:
            try:
                names = self._plan.hosts_file(NAMES.read_text("utf-8", "replace"))
            except OSError as error:
                raise AgentUnavailable(
                    f"{name} cannot be told where its model is: there is no {NAMES} to put names over; make one."
                ) from error
        self._entered = entered
        self._socket, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._inside = inside
        self._hosts_file = -1
        self._servers: list[asyncio.Server] = []
        self._talking: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        self._answers: asyncio.Queue[tuple[bytes, list[socket.socket]]] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._guarded: Guarded | None = None
        self._path: Path | None = None
        self._folder = -1
        if names:
            self._hosts_file = os.memfd_create("hosts")
            with open(self._hosts_file, "wb", closefd=False) as file:
                file.write(names)
            os.lseek(self._hosts_file, 0, os.SEEK_SET)

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors that the program's start must hand on."""
        return tuple(fd for fd in (self._inside.fileno(), self._hosts_file) if fd >= 0)

    @property
    def shown(self) -> tuple[Path, ...]:
        """What must be seen in the sandbox."""
        return Path(relay_inside.__file__), Path(interpreter()), Path(sys.base_prefix)

    def walls(self) -> list[str]:
        """Arguments of bubblewrap that the inside needs."""
        needed = relay_inside.CAPABILITIES if self._plan.apart else ()
        return [word for name in needed for word in ("--cap-add", f"CAP_{name}")]

    def binds(self) -> list[str]:
        """Arguments of bubblewrap that put names into the sandbox."""
        return ["--ro-bind-data", str(self._hosts_file), os.path.realpath(NAMES)] if self._hosts_file >= 0 else []

    def before(self) -> list[str]:
        """What stands before the program on its command line."""
        plan = {
            "listen": self._plan.listen,
            "apart": self._plan.apart,
            "addresses": self._plan.addresses,
            "entered": self._entered,
        }
        return [interpreter(), "-I", "-S", relay_inside.__file__, str(self._inside.fileno()), json.dumps(plan)]

    async def open(self, guarded: Guarded) -> None:
        """Take over the listening sockets of a program that has been started, and relay until it has ended.

        Raises:
            AgentUnavailable: the inside could not do its part; the program has been ended.
        """
        self._started()
        self._guarded = guarded
        self._watching = asyncio.create_task(self._watch(guarded), name=f"relay of {self._name}")
        try:
            async with asyncio.timeout(START_SECONDS):
                said, sockets = await self._message()
        except TimeoutError:
            said, sockets = b"it took too long", []
        if not said.startswith(b"["):
            await guarded.stop()
            why = said.decode("utf-8", "replace") or "it ended at once; `coder doctor` says more"
            raise AgentUnavailable(
                f"{self._name} could not be given a network of its own with a way to its model: {why}. The project keeps its agents off "
                "the network; use native, for which coder asks the model, or switch the project's network on."
            )
        for number, door in zip(json.loads(said), sockets, strict=True):
            host = self._plan.leads_to[number]
            door.setblocking(False)

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: Host = host) -> None:
                with suppress(asyncio.CancelledError):  # by `abandon`
                    await self._talk(reader, writer, lambda: asyncio.open_connection(host.name, host.port), str(host))

            self._servers.append(await asyncio.start_server(accept, sock=door))
        if self._entered:
            self._listening = asyncio.create_task(self._listen(), name=f"the inside of {self._name}")

    def tried(self) -> str:
        """After a trial, in which nothing was opened, has ended: why the inside could not do its part; empty where it could."""
        self._started()
        said, doors = self._received()
        for door in doors:
            door.close()
        return "" if said.startswith(b"[") else said.decode("utf-8", "replace")

    async def enter(self, port: int, folder: Path) -> str:
        """Make a loopback port of the program reachable from outside, at a Unix socket.

        Args:
            folder: where the socket is made; nobody else may look into it.

        Returns:
            The socket's path, which is short however deep the folder lies (a socket's may have 107 bytes).
        """
        self._path = folder / "entrance"
        self._path.unlink(missing_ok=True)  # left by a dispatcher that was killed
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        short = f"/proc/self/fd/{self._folder}/{self._path.name}"
        entrance = socket.socket(socket.AF_UNIX)
        entrance.bind(short)
        entrance.setblocking(False)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.CancelledError):  # by `abandon`
                await self._talk(reader, writer, lambda: self._connected(port), f"its port {port}")

        self._servers.append(await asyncio.start_unix_server(accept, sock=entrance))
        return short

    def abandon(self) -> None:
        """The program was not started, or has ended: nothing is kept."""
        self._started()
        if self._listening is not None:
            self._listening.cancel()
        self._socket.close()
        for server in self._servers:
            server.close()
        for task in self._talking:
            task.cancel()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._folder)
            self._path = None

    def _started(self) -> None:
        """What was handed on is not ours any more."""
        self._inside.close()
        if self._hosts_file >= 0:
            os.close(self._hosts_file)
            self._hosts_file = -1

    async def _watch(self, guarded: Guarded) -> None:
        try:
            await guarded.wait()
        finally:
            self.abandon()

    async def _message(self) -> tuple[bytes, list[socket.socket]]:
        """The next message of the inside, empty at its end, with the sockets in it."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket.fileno(), _settle, arrived)
        try:
            await arrived
        finally:
            loop.remove_reader(self._socket.fileno())
        return self._received()

    def _received(self) -> tuple[bytes, list[socket.socket]]:
        try:
            said, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, MOST_DOORS)
        except ConnectionError:
            return b"", []
        return said, [socket.socket(fileno=fd) for fd in fds]

    async def _connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a loopback port of the program.

        Raises:
            OSError: nobody listens there, or who connects inside does not answer; then the program is ended, since it cannot be reached.
        """
        async with self._asking:
            try:
                async with asyncio.timeout(ENTER_SECONDS):
                    self._socket.send(str(port).encode())
                    said, sockets = await self._answers.get()
            except (OSError, TimeoutError) as error:
                self._unreachable()
                raise ConnectionAbortedError(f"{self._name} cannot be reached any more") from error
        if not sockets:
            raise ConnectionRefusedError(said.decode("utf-8", "replace"))
        sockets[0].setblocking(False)
        return await asyncio.open_connection(sock=sockets[0])

    async def _listen(self) -> None:
        """Take what the inside answers, and notice when it is gone."""
        while (answer := await self._message())[0]:
            self._answers.put_nowait(answer)
        self._unreachable()

    def _unreachable(self) -> None:
        guarded, self._guarded = self._guarded, None
        if guarded is not None and guarded.returncode is None:
            log.warning("who connects to a server without network is gone, so the server is ended", agent=self._name)
            guarded.end()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Connect, to: str) -> None:
        """Connect and pass bytes on in both directions until both are at their end or one breaks."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._talking) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._talking.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                answers, far = await connect()
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass(reader, far))
                both.create_task(_pass(answers, writer))
            for end in (writer, far):
                end.close()  # when all is written
        except* (OSError, TimeoutError) as errors:
            if far is None:
                why = str(errors.exceptions[0]) or "it took too long"
                log.warning("an agent without network could not be connected", agent=self._name, to=to, why=why)
        finally:
            self._talking.discard(task)
            for each in (writer, far):
                if each is not None and not each.is_closing():
                    each.transport.abort()


def _settle(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    with suppress(OSError):  # the other side has heard enough
        writer.write_eof()


def interpreter() -> str:
    """The Python that also runs without its virtual environment, which may lie where the sandbox shows nothing."""
    return os.path.realpath(sys.executable)
