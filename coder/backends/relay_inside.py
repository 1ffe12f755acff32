"""The inside of the relay: opens the doors of one program's own network, hands them to the dispatcher, and becomes the program.

bubblewrap runs it in the sandbox as `python -I -S relay_inside.py <socket> <plan> <program> <argv…>` (see `relay.py`). A socket
stays in the network it was made in, whoever holds it: so what listens here is accepted from outside, and what is connected here
is spoken through from outside. No byte of a connection passes through this process, which is gone when the program runs; where
the program is to be reached from outside, one more stays, which connects to a loopback port when it is asked to.

bubblewrap has made a network, but nobody in it may give it addresses or listen below port 1024 (bubblewrap's namespace for users, to
which it belongs, lies above the program's). Where that is needed this makes another one.

Invariant: the program has no capability that it would not have without this. What is needed for another network is given up before it
begins; `no_new_privs`, which bubblewrap sets, keeps it away.

Standard library only, and nothing of coder, as in `guard.py`. Sources: capabilities(7), netdevice(7), network_namespaces(7).
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

CLONE_NEWNET = 0x40000000
CAPABILITIES = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "SYS_ADMIN": 21}
"""What is needed here and given up, with the kernel's numbers."""

CAPABILITY_VERSION = 0x20080522
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
UP_AND_RUNNING = 0x41
IPV6_FREEBIND = 78
BACKLOG = 128
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    outside = socket.socket(fileno=int(sys.argv[1]))
    plan = json.loads(sys.argv[2])
    program, argv = sys.argv[3], sys.argv[3:]
    os.set_inheritable(outside.fileno(), False)
    try:
        if plan["apart"]:
            make_network(plan["addresses"])
        doors = [(number, door) for number, place in enumerate(plan["listen"]) if (door := listening(*place)) is not None]
        if plan["apart"]:
            give_up_capabilities()
    except OSError as error:
        outside.send(f"{error.strerror} ({type(error).__name__})".encode())
        os._exit(126)
    socket.send_fds(outside, [json.dumps([number for number, _ in doors]).encode()], [door.fileno() for _, door in doors])
    if plan["entered"] and orphaned():
        connect_when_asked(outside)
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, argv, own_environment())
    except OSError as error:
        os.write(2, f"coder: cannot run {program}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127)


def make_network(addresses: list[str]) -> None:
    """Leave the present network for an empty one, in which loopback works and has these addresses besides its own."""
    done(libc.unshare(CLONE_NEWNET))
    with socket.socket() as four:
        fcntl.ioctl(four, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", UP_AND_RUNNING))
        for number, address in enumerate(each for each in addresses if ":" not in each):
            name = f"lo:{number + 1}".encode()
            for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.255")):
                fcntl.ioctl(four, request, struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(value)))
    for address in (each for each in addresses if ":" in each):
        with socket.socket(socket.AF_INET6) as six:
            fcntl.ioctl(
                six, SIOCSIFADDR, struct.pack("=16sIi", socket.inet_pton(socket.AF_INET6, address), 128, socket.if_nametoindex("lo"))
            )


def listening(host: str, port: int, needed: bool) -> socket.socket | None:
    """A socket that listens; None where that is no loss, as on a machine without IPv6."""
    try:
        door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if ":" in host:
            door.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)  # an address that was only just given may not be ready
        door.bind((host, port))
    except OSError:
        if needed:
            raise
        return None
    door.listen(BACKLOG)
    return door


def give_up_capabilities() -> None:
    """Take what is only needed here from all sets that a program could have it from."""
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    done(libc.capget(header, held))
    mask = ~sum(1 << number for number in CAPABILITIES.values())
    low = [each & mask & 0xFFFFFFFF for each in struct.unpack("6I", held.raw)[:3]]
    done(libc.capset(header, struct.pack("6I", *low, *struct.unpack("6I", held.raw)[3:])))


def done(result: int) -> None:
    """Raise OSError where a call of the C library failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def orphaned() -> bool:
    """Fork a process that is nobody's child here, so that the program has none it does not know of; true in that one."""
    child = os.fork()
    if child == 0:
        if os.fork():
            os._exit(0)
        return True
    os.waitpid(child, 0)
    return False


def connect_when_asked(outside: socket.socket) -> NoReturn:
    """Connect to loopback ports that the dispatcher names, and hand the connections over, until it is gone."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)  # else whoever reads the program's output would not see its end
    while port := outside.recv(16):
        try:
            with socket.create_connection(("127.0.0.1", int(port))) as connection:
                socket.send_fds(outside, [b"here"], [connection.fileno()])
        except OSError as error:
            outside.send(str(error.strerror).encode())
    os._exit(0)


def own_environment() -> dict[bytes, bytes]:
    """The environment as it was given: Python adds LC_CTYPE to its own in a C locale (PEP 538)."""
    with open("/proc/self/environ", "rb") as environ:
        entries = (entry.partition(b"=") for entry in environ.read().split(b"\0") if entry)
        return {name: value for name, _, value in entries}


if __name__ == "__main__":
    main()
