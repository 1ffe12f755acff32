"""What an agent must not touch in the project's repository, as one digest.

Job: config, hooks, ignore and attribute rules of the repository, and its refs outside `refs/coder/`. Invariant: packing refs
does not change the digest, moving one does; no git process is started where refs are plain files, since this is read twice a
turn. Omitted: HEAD (whose moves show in no ref but its branch's) and everything in the checkout itself.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from coder.git.repository import Repository

_FILES = ("config", "config.worktree", "info/exclude", "info/attributes", "info/grafts")
_OURS = b"refs/coder/"


def guard_digest(project: Repository) -> str:
    """The digest, in hex."""
    common = project.common_dir
    digest = hashlib.sha256()
    for name in _FILES:
        _feed(digest, name.encode(), _content(common / name))
    hooks = common / "hooks"
    for hook in sorted(os.listdir(hooks)) if hooks.is_dir() else []:
        place = hooks / hook
        mode = b"%o" % place.lstat().st_mode
        _feed(digest, b"hook " + os.fsencode(hook), mode, os.fsencode(os.readlink(place)) if place.is_symlink() else b"", _content(place))
    for ref, target in sorted(_refs(project).items()):
        _feed(digest, ref, target)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        digest.update(b"%d:" % len(part) + part)


def _content(place: Path) -> bytes:
    return b"=" + place.read_bytes() if place.is_file() else b"none"


def _refs(project: Repository) -> dict[bytes, bytes]:
    if (project.common_dir / "reftable").is_dir():
        lines = project.run("for-each-ref", "--format=%(objectname) %(refname)").out.splitlines()
    else:
        # A loose ref overrules the packed one of the same name.
        lines = [*_packed(project.common_dir / "packed-refs"), *_loose(project.common_dir / "refs")]
    refs = {ref: target for target, _, ref in (line.partition(b" ") for line in lines)}
    return {ref: target for ref, target in refs.items() if not ref.startswith(_OURS)}


def _packed(place: Path) -> list[bytes]:
    lines = place.read_bytes().splitlines() if place.is_file() else []
    return [line for line in lines if not line.startswith((b"#", b"^"))]


def _loose(refs: Path) -> list[bytes]:
    lines = []
    top = os.fsencode(refs.parent)
    for place, names, files in os.walk(os.fsencode(refs)):
        if place == os.fsencode(refs) and b"coder" in names:
            names.remove(b"coder")
        for name in files:
            path = os.path.join(place, name)
            try:
                with open(path, "rb") as file:
                    target = file.read().strip()
            except FileNotFoundError:
                # Packed between the listing and the reading; git writes the packed file first.
                continue
            if not name.endswith(b".lock"):
                lines.append(target.replace(b" ", b"") + b" " + os.path.relpath(path, top))
    return lines
