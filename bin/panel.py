"""What the panel needs of npm: `panel.py install` puts what its lock file names into its folder, once per lock file, and
`panel.py build` makes the pages that the service serves, when their sources are newer than they are (`panel.py fresh` says).

Used by the other scripts, by the tests and by the build of the package; needs Node and npm on the PATH.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

PANEL = Path(__file__).resolve().parents[1] / "coder" / "web" / "panel"
BUILT = PANEL / "dist"
SOURCES = ("src", "public", "index.html", "package-lock.json", "vite.config.ts")


def install(folder: Path = PANEL, *, tools: bool = True) -> None:
    """Have `node_modules` hold what the lock file names. Others who want the same wait.

    Args:
        folder: where package.json and its lock are.
        tools: also what only checks and tests need; what is there with them does without them as well.
    """
    lock = folder / "package-lock.json"
    whole, lean = (folder / "node_modules" / name for name in (".installed", ".installed-lean"))
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if any(done.exists() and done.read_bytes() == lock.read_bytes() for done in ((whole,) if tools else (whole, lean))):
            return
        npm(folder, "ci", *(() if tools else ("--omit=dev",)), "--no-audit", "--no-fund", "--loglevel=error")
        (whole if tools else lean).write_bytes(lock.read_bytes())


def build() -> None:
    """Build the pages unless they are newer than all they are made of. A service that runs has the old ones until they are whole."""
    with (PANEL / "package.json").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if fresh():
            return
        install(tools=False)
        pages = PANEL / ".building"
        shutil.rmtree(pages, ignore_errors=True)
        npm(PANEL, "run", "--silent", "build", "--", "--logLevel", "error", "--outDir", str(pages))
        shutil.rmtree(BUILT, ignore_errors=True)
        pages.rename(BUILT)


def fresh() -> bool:
    index = BUILT / "index.html"
    return index.exists() and newest() <= index.stat().st_mtime


def newest() -> float:
    """When the last of the sources was written."""
    tops = [PANEL / name for name in SOURCES if (PANEL / name).exists()]
    return max(path.stat().st_mtime for top in tops for path in (top, *top.rglob("*")))


def npm(folder: Path, *arguments: str) -> None:
    program = shutil.which("npm")
    if program is None:
        sys.exit("coder: npm is missing; install Node.js 20.19 or newer.")
    done = subprocess.run([program, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr, env={**os.environ, "CI": "true"})
    if done.returncode:
        sys.exit(f"coder: `npm {' '.join(arguments)}` failed in {folder.name}; what it said is above.")


if __name__ == "__main__":
    if sys.argv[1] == "fresh":
        sys.exit(not fresh())
    {"install": install, "build": build}[sys.argv[1]]()
