"""The contents of many blobs, read and written by one process each."""

from __future__ import annotations

import os
import tempfile

from coder.git.repository import Repository


def read_blobs(repository: Repository, blobs: list[str]) -> list[bytes]:
    """The contents of blobs, in order."""
    out = repository.run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode()).out if blobs else b""
    contents = []
    at = 0
    for _ in blobs:
        head, _, _ = out[at : at + 200].partition(b"\n")
        start = at + len(head) + 1
        at = start + int(head.split(b" ")[2]) + 1
        contents.append(out[start : at - 1])
    return contents


def write_blobs(repository: Repository, contents: list[bytes]) -> list[str]:
    """Store contents as they are; answers the blobs, in order."""
    if not contents:
        return []
    with tempfile.TemporaryDirectory(prefix="coder-blobs-") as directory:
        names = [os.path.join(directory, str(number)) for number in range(len(contents))]
        for name, content in zip(names, contents, strict=True):
            with open(name, "wb") as file:
                file.write(content)
        return repository.line("hash-object", "-w", "--no-filters", "--stdin-paths", stdin="\n".join(names).encode()).split("\n")
