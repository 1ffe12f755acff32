"""The wiring of the command line: what its commands need of the worlds, and the entry point."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from coder.cli.app import build
from coder.errors import NotFound, Unavailable
from coder.ports import Finding, SyncDoor

STOP_SECONDS = 60.0
QUEUE = """bin/coder psql -c "insert into tasks (project_id, input) select id, 'say hello' from projects where name = 'NAME'\""""

if TYPE_CHECKING:
    from coder.change import Gone
    from coder.config import Role, Settings
    from coder.service import Ready


class CommandHouse:
    """Implements `cli.house.House`. What a command does not need is not imported for it."""

    def __init__(self) -> None:
        self._settings: Settings | None = None

    def settings(self) -> Settings:
        from coder.config import Settings

        if self._settings is None:
            self._settings = Settings()
        return self._settings

    def door(self) -> SyncDoor:
        from coder.postgres.sync import PsycopgDoor

        return PsycopgDoor(self.database_url())

    def database_url(self) -> str:
        from coder.where import database_url

        return database_url(self.settings())

    def host_id(self) -> UUID:
        """This machine's id, known to the database, so that a project may belong to it before its first node runs."""
        from coder.host.identity import host_id, host_name
        from coder.where import data_dir

        host, door = host_id(data_dir(self.settings())), self.door()
        try:
            door.row("host_add", id=host, name=host_name())
        finally:
            door.close()
        return host

    def up(self, role: Role, demo: bool) -> int:
        """Run the service in the foreground until it is stopped."""
        from coder.demo.show import Demo
        from coder.service import Service

        settings = self.settings()
        if running := [each for each in self._running() if each.get("role") == role]:
            raise Unavailable(f"coder already runs on this data directory (pid {running[0]['pid']}); stop it with `coder down` first.")
        if not demo:
            return Service(settings, role).run(self._say_ready)
        shown = Demo(settings, self.door, self.psql)
        with shown as chosen:
            return Service(chosen, role).run(lambda ready: shown.show(ready.url, lambda: self._say_ready(ready)))

    async def _say_ready(self, ready: Ready) -> None:
        print(f"ready: {ready.url or 'dispatching (no API in this process)'}", flush=True)
        if ready.panel:
            print(f"panel: {ready.panel}   (lets one browser in; `bin/coder login` prints another)", flush=True)
        if ready.token:
            print(f"token: {ready.token}   (shown this once; CODER_ADMIN_TOKEN sets one of your own)", flush=True)
        print(f"queue: {QUEUE}", flush=True)

    def _running(self) -> list[dict[str, object]]:
        """The services of this data directory that live: those that still hold the lock of what they noted."""
        from coder.host.slot import lock, read
        from coder.where import data_dir

        found = []
        for path in sorted(data_dir(self.settings()).glob("service-*.json")):
            with path.open("rb") as file:
                if not lock(file.fileno()):
                    found.append(read(file.fileno()))
        return [each for each in found if "pid" in each]

    def live(self) -> tuple[str, str]:
        """Where the API of this data directory is, and the token that its owner may use while it runs."""
        elsewhere = "or set CODER_URL and CODER_TOKEN to those of one that runs elsewhere"
        try:
            served = [each for each in self._running() if each.get("url")]
        except PermissionError as error:
            raise Unavailable(f"Only its owner may read {error.filename}; be that user, {elsewhere}.") from error
        if not served:
            raise Unavailable(f"No coder with an API runs on this data directory; start one with `coder up`, {elsewhere}.")
        return str(served[0]["url"]), str(served[0]["token"])

    def down(self) -> str:
        """Ask the services of this data directory to stop, and wait until they have."""
        from coder.host.slot import alive

        running = self._running()
        if not running:
            return "Nothing of this data directory runs."
        pids = [int(str(each["pid"])) for each in running]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS + self.settings().drain_seconds
        while any(alive(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise Unavailable(f"Process {pids} was asked to stop but still runs; look at its log.")
            time.sleep(0.05)
        return f"Stopped (pid {', '.join(map(str, pids))})."

    def login(self) -> str:
        """The panel's address with a fresh code, for a service of this data directory that has an API."""
        from coder.service import login_link

        url = next((str(each["url"]) for each in self._running() if "url" in each), None)
        if url is None:
            raise Unavailable("No coder with an API runs on this data directory; start one with `coder up`.")
        address, code = login_link(url)
        door = self.door()
        try:
            if not door.rows("login_link", hash=code, name="admin"):
                raise NotFound(kind="token", name="admin", look="coder psql -c 'select name from api_tokens'")
        finally:
            door.close()
        return address

    def migrate(self) -> str:
        from coder.postgres.schema import migrate

        before, after = migrate(self.database_url())
        return f"The schema is version {after}." if before == after else f"The schema went from version {before} to {after}."

    def psql(self) -> list[str]:
        """The command line of psql, the bundled one where it is there."""
        from coder.postgres.binaries import find_binaries

        bundled = find_binaries().psql
        return [str(bundled) if bundled else "psql", self.database_url()]

    def doctor(self) -> list[Finding]:
        from coder.doctor import examine

        return asyncio.run(examine(self.settings()))

    def gc(self, dry_run: bool) -> list[Gone]:
        from coder.doctor import collect

        return asyncio.run(collect(self.settings(), self.database_url(), dry_run))

    def task_log(self, task_id: int) -> Path:
        from coder.host.logbook import FileLogbook
        from coder.where import data_dir

        path = FileLogbook(data_dir(self.settings())).path(task_id)
        if not path.exists():
            raise NotFound(kind="log of task", name=task_id, look="coder task show")
        return path


def main() -> None:
    """The `coder` command."""
    sys.exit(build(CommandHouse())())
