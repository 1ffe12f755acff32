"""What the scripted demo model answers, as a function of the request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coder.demo.model import PLAIN, Reply, directives, reply


def tool(name: str, *parameters: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"properties": {parameter: {} for parameter in parameters}}}}


OURS = [
    tool("read", "path", "start", "lines"),
    tool("edit", "path", "old", "new", "all"),
    tool("write", "path", "content"),
    tool("run", "command"),
]
CALLED = {"role": "assistant", "tool_calls": [{"id": "1"}]}


def answer(
    prompt: str, *after: dict[str, Any], tools: list[dict[str, Any]] | None = None, before: tuple[dict[str, Any], ...] = ()
) -> Reply:
    messages = [{"role": "system", "content": "run: false"}, *before, {"role": "user", "content": prompt}, *after]
    return reply({"model": "demo", "messages": messages, "tools": OURS if tools is None else tools})


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("write a/b.txt: one\\ntwo\\\\n", "write", {"path": "a/b.txt", "content": "one\ntwo\\n"}),
        ("edit a.py: x = 1 => x = 2", "edit", {"path": "a.py", "old": "x = 1", "new": "x = 2"}),
        ("read a.py", "read", {"path": "a.py"}),
        ("run: make test => out", "run", {"command": "make test => out"}),
    ],
)
def test_a_directive_is_a_tool_call(line: str, name: str, arguments: dict[str, str]) -> None:
    got = answer(f"Please do this.\n  {line}\nThanks")
    assert (got.tool, json.loads(got.arguments)) == (name, arguments)


def test_one_call_per_answer_in_order_and_then_what_to_say() -> None:
    prompt = "say: first\nrun: a\nrun: b\nsay: one\nsay: two"
    result = {"role": "tool", "content": "ok"}
    assert answer(prompt) == Reply("first", "run", '{"command": "a"}')
    assert answer(prompt, CALLED, result) == Reply("", "run", '{"command": "b"}')
    assert answer(prompt, CALLED, result, CALLED, result) == Reply("one\ntwo")
    assert answer("run: a", CALLED, result) == Reply("Done.")


def test_earlier_turns_do_not_count() -> None:
    before = ({"role": "user", "content": "run: a"}, CALLED, {"role": "tool"}, {"role": "assistant", "content": "Done."})
    assert answer("run: b", before=before).arguments == '{"command": "b"}'


def test_the_names_of_other_agents_tools_are_found() -> None:
    got = answer("write a: x", tools=[tool("bash", "command"), tool("write_file", "file_path", "contents")])
    assert (got.tool, json.loads(got.arguments)) == ("write_file", {"file_path": "a", "contents": "x"})


def test_without_directives_or_tools_it_says_what_it_is() -> None:
    assert answer("Build me a compiler") == Reply(PLAIN)
    assert answer("run: ls", tools=[]) == Reply(PLAIN)
    assert reply({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}) == Reply(PLAIN)


def test_content_in_parts_is_read() -> None:
    assert [step.kind for step in directives("say: a\nrun: b\nnothing: c\nreadme")] == ["say", "run"]
