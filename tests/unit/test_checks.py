"""What is kept of a check's output."""

from __future__ import annotations

import pytest

from coder.checks import OUTPUT_CHARACTERS, shown


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[1;32mok\x1b[0m\x1b[K\n", "ok\n"),
        ("\x1b]8;;https://x.test\x1b\\link\x1b]8;;\x07\n", "link\n"),
        ("\x1b(Bweiter\x1b=\r\nnext", "weiter\nnext"),
        ("10%\r20%\r", "10%\r20%\r"),
        ("[31m is no escape", "[31m is no escape"),
    ],
)
def test_colours_and_movements_go(printed: str, kept: str) -> None:
    assert shown(printed) == kept


def test_a_long_output_keeps_its_beginning_and_its_end() -> None:
    kept = shown("begin" + "x" * 1_000_000 + "end")
    assert len(kept) <= OUTPUT_CHARACTERS
    assert kept.startswith("beginxxx")
    assert kept.endswith("xxxend")
    assert "characters cut out here" in kept
