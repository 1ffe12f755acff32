"""coder change comment, coder change send and coder comment, over SQL and over HTTP."""

from __future__ import annotations

import pytest
from cli_runner import Cli

from coder.cli.comments import where
from coder.errors import InvalidInput

PATH = "caf\ufffd.txt"


def test_a_review_on_the_command_line(cli: Cli) -> None:
    change = str(cli.node.change()["id"])
    assert f"Noted on {PATH}:1; `coder change send {change[:8]}`" in cli("change", "comment", change, f"{PATH}:1", "Why?\x1b[2J").stdout
    file = cli.json("change", "comment", change[:8], PATH, "Needed?")
    assert (file["line"], file["state"]) == (None, "draft")
    listed = cli("comment", "list").stdout
    assert f"{PATH}:1" in listed
    assert "Why?\\x1b[2J" in listed, "a comment moves no cursor"
    assert cli("comment", "edit", file["id"][:8], "-", stdin="Is it needed?").stdout == f"The draft on {PATH} reads anew.\n"
    gone = cli.json("change", "comment", change, PATH, "never mind")
    assert cli("comment", "delete", gone["id"]).stdout == f"The draft on {PATH} is gone.\n"
    sent = cli("change", "send", change, "--message", "Nearly.").stdout
    task = cli.node.row("select id, input from tasks where state = 'pending'")
    assert sent.startswith(f"Sent as task {task['id']};")
    assert "Is it needed?" in task["input"]
    assert "no draft comments" in cli.refused("change", "send", change, code=1)
    assert cli("comment", "resolve", file["id"]).stdout == f"The comment on {PATH} is resolved.\n"
    assert [row["body"] for row in cli.json("comment", "list", "--change", change)] == ["Why?\x1b[2J"]
    assert cli.json("comment", "resolve", "--undo", file["id"])["state"] == "open"
    assert "was sent with task" in cli.refused("comment", "edit", file["id"], "x", code=1)


def test_what_cannot_be_commented_on(cli: Cli) -> None:
    change = str(cli.node.change()["id"])
    assert "does not show line 7" in cli.refused("change", "comment", change, f"{PATH}:7", "Why?", code=2)
    assert "has no file" in cli.refused("change", "comment", change, "nope.txt", "Why?", code=2)
    assert "names no lines" in cli.refused("change", "comment", change, f"{PATH}:0", "Why?", code=2)
    assert "There is no comment whose id begins with ab" in cli.refused("comment", "resolve", "ab", code=2)
    assert "'maybe' is none of these" in cli.refused("comment", "list", "--state", "maybe", code=2)


def test_places_are_named_like_an_editor_names_them() -> None:
    assert where("a.py:3", {"a.py"}) == ("a.py", 3, 3)
    assert where("a.py:3-5", set()) == ("a.py", 3, 5)
    assert where("a:3", {"a:3"}) == ("a:3", None, None), "a file of that name is meant first"
    assert where("dir with\nspace:9", set()) == ("dir with\nspace", 9, 9)
    for wrong in ("a.py:5-3", "a.py:0", "a.py:99999999999"):
        with pytest.raises(InvalidInput):
            where(wrong, {"a.py"})
