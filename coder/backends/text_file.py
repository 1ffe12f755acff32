"""The bytes of a text file and the text in them: what a model reads, and what an edit leaves as it was.

Invariant: an edit changes the matched text and nothing else: encoding, byte order mark and every other line ending stay.

Omitted on purpose: opening files, and encodings other than UTF-8 and, for what is not UTF-8, Latin-1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from coder.backends.confine import Refused

_BOM = b"\xef\xbb\xbf"


def is_binary(data: bytes) -> bool:
    """Whether the bytes are no text, as git sees it: a NUL among the first 8000."""
    return b"\x00" in data[:8000]


def decode(data: bytes) -> str:
    """The bytes as text: UTF-8, else Latin-1, which takes any byte."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file's content, with what it takes to write it back in its own way.

    Attributes:
        text: the content, line endings as they are.
        encoding: `utf-8` or `latin-1`.
        bom: whether it starts with a UTF-8 byte order mark, which is not in `text`.
        newline: the ending most lines have.
    """

    text: str
    encoding: str
    bom: bool
    newline: str

    @classmethod
    def of(cls, data: bytes) -> TextFile:
        bom = data.startswith(_BOM)
        content = data[len(_BOM) :] if bom else data
        text = decode(content)
        try:
            content.decode()
            encoding = "utf-8"
        except UnicodeDecodeError:
            encoding = "latin-1"
        crlf = text.count("\r\n")
        return cls(text, encoding, bom, "\r\n" if crlf * 2 > text.count("\n") else "\n")

    def replaced(self, old: str, new: str, every: bool) -> tuple[bytes, int]:
        """The file's bytes with `old` replaced by `new`, and how often it was.

        A line break in `old` matches either ending; one in `new` gets the ending of what it replaces, else the file's.

        Args:
            every: replace all; otherwise `old` must be there exactly once.

        Raises:
            Refused: `old` is empty, the same as `new`, not there, there more than once, or the encoding lacks a character of `new`.
        """
        old, new = _unix(old), _unix(new)
        if not old:
            raise Refused("The text to replace is empty; give the exact text as it stands in the file, or use write.")
        if old == new:
            raise Refused("The new text is the same as the old one; nothing was changed.")
        pattern = re.compile(re.escape(old).replace("\\\n", "\r?\n"))
        lines = [self.text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(self.text)]
        if not lines:
            raise Refused("The text to replace is not in the file; read it again and give the text exactly, with its indentation.")
        if len(lines) > 1 and not every:
            where = ", ".join(map(str, lines[:10]))
            raise Refused(f"The text to replace is there {len(lines)} times (lines {where}); give more of its surroundings, or set all.")

        def ending(match: re.Match[str]) -> str:
            found = re.search("\r?\n", match.group())
            return new.replace("\n", found.group() if found else self.newline)

        return self.encoded(pattern.sub(ending, self.text)), len(lines)

    def rewritten(self, text: str) -> bytes:
        """Another text in this file's ways; its line endings follow the file's unless it brings `\\r\\n` itself."""
        if self.newline == "\r\n" and "\r\n" not in text:
            text = text.replace("\n", "\r\n")
        return self.encoded(text)

    def encoded(self, text: str) -> bytes:
        try:
            return (_BOM if self.bom else b"") + text.encode(self.encoding)
        except UnicodeEncodeError as error:
            lacking = error.object[error.start : error.end]
            raise Refused(
                f"The file is in {self.encoding}, which has no {lacking!r}; use other characters, or convert the file."
            ) from error


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")
