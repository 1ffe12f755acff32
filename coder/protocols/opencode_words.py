"""Single things of opencode's as our words: a tool's state, a permission, a question, a failure. Pure.

Nothing here trusts a shape: what is missing or of another kind counts as empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from coder.events import AskedFor, Choice, Command, PermissionRequest, Plan, PlanEntry, Question, ToolCall, Usage

KINDS: dict[str, AskedFor] = {
    **dict.fromkeys(("read", "glob", "grep", "list", "lsp"), "read"),
    **dict.fromkeys(("edit", "write", "patch"), "edit"),
    "bash": "execute",
    **dict.fromkeys(("webfetch", "websearch", "codesearch"), "fetch"),
}
PLANNED = ("pending", "in_progress", "completed")
INPUT_CHARACTERS = 262_144


def obj(value: Any) -> Mapping[str, Any]:
    """A JSON object, empty when it is none."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str:
    """A JSON string, empty when it is none."""
    return value if isinstance(value, str) else ""


def items(value: Any) -> list[Any]:
    """A JSON array, empty when it is none."""
    return value if isinstance(value, list) else []


def count(value: Any) -> int:
    """A number of tokens, 0 when it is none."""
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def tool_call(name: str, part: Mapping[str, Any]) -> ToolCall:
    """A tool part's present state.

    Args:
        name: the part's id: those that models give to their calls are not unique everywhere.
    """
    state = obj(part.get("state"))
    told = obj(state.get("metadata"))
    status, code = state.get("status"), told.get("exit")
    arguments = json.dumps(obj(state.get("input")), ensure_ascii=False)
    tool = text(part.get("tool"))
    if status == "completed":
        return ToolCall(name, tool, arguments, "completed", text(state.get("output")), code if isinstance(code, int) else None)
    if status == "error":
        return ToolCall(name, tool, arguments, "failed", text(state.get("error")))
    return ToolCall(name, tool, arguments, "running", text(told.get("output")))


def usage(tokens: Any, *, child: bool) -> Usage:
    """The tokens of one request. opencode counts cached prompt tokens and reasoning apart; a subagent's fill a context of their own."""
    found = obj(tokens)
    cache = obj(found.get("cache"))
    cached = count(cache.get("read"))
    prompt = count(found.get("input")) + cached + count(cache.get("write"))
    written = count(found.get("output")) + count(found.get("reasoning"))
    return Usage(prompt, cached, written, None if child else prompt + written)


def models(providers: Any) -> dict[str, tuple[str, ...]]:
    """The options for thinking of every model, by `provider/model`, of what `GET /config/providers` answers."""
    return {
        f"{text(provider.get('id'))}/{name}": tuple(obj(obj(model).get("variants")))
        for provider in map(obj, items(obj(providers).get("providers")))
        for name, model in obj(provider.get("models")).items()
    }


def plan(todos: Any) -> Plan:
    """The to-do list; what was called off is no longer on it."""
    entries = [obj(todo) for todo in items(todos)]
    return Plan(tuple(PlanEntry(text(e.get("content")), e["status"]) for e in entries if e.get("status") in PLANNED))


def asked(request: Mapping[str, Any], directory: str, call: str | None) -> PermissionRequest:
    """A permission that opencode asks for.

    Args:
        directory: that of the session; paths in patterns start there.
        call: the id of the tool call it belongs to.
    """
    tool, told = text(request.get("permission")), obj(request.get("metadata"))
    patterns = [text(pattern) for pattern in items(request.get("patterns"))]
    kind = KINDS.get(tool, "other")
    named = text(told.get("filepath"))
    paths: tuple[str, ...] = ()
    if named.startswith("/"):
        paths = (named,)
    elif kind in ("read", "edit") or tool == "external_directory":
        paths = tuple(str(PurePosixPath(directory) / pattern) for pattern in patterns)
    title = text(told.get("command")) or text(told.get("url")) or (named if kind == "edit" else "") or ", ".join(patterns) or tool
    arguments = json.dumps(told, ensure_ascii=False)
    if len(arguments) > INPUT_CHARACTERS:
        arguments = json.dumps(arguments[:INPUT_CHARACTERS], ensure_ascii=False)
    return PermissionRequest(text(request.get("id")), tool, kind, title, arguments, paths, call)


def question(request: Mapping[str, Any]) -> list[Question]:
    """The parts of a question. Where there are several, part 2 of `que_x` is `que_x#1`."""
    name, parts = text(request.get("id")), [obj(part) for part in items(request.get("questions"))]
    return [
        Question(
            f"{name}#{number}" if len(parts) > 1 else name,
            text(part.get("question")),
            tuple(Choice(text(obj(o).get("label")), text(obj(o).get("description"))) for o in items(part.get("options"))),
            part.get("multiple") is True,
        )
        for number, part in enumerate(parts)
    ]


def commands(listed: Any) -> tuple[Command, ...]:
    """The slash commands of `GET /command`."""
    found = [obj(entry) for entry in items(listed)]
    return tuple(
        Command(text(e.get("name")), text(e.get("description")), " ".join(text(h) for h in items(e.get("hints"))))
        for e in found
        if text(e.get("name"))
    )


def failure(error: Any) -> str:
    """A sentence for an error of opencode's: who failed, what it said, what to do."""
    found = obj(error)
    name, told = text(found.get("name")), obj(found.get("data"))
    said = (text(told.get("message")) or name or "no reason").splitlines()[0].strip().rstrip(".")
    status = told.get("statusCode")
    if name == "MessageAbortedError":
        return f"opencode called the turn off by itself ({said}); retry the task."
    if name == "ProviderAuthError":
        return f"The provider {text(told.get('providerID')) or 'of the model'} refused opencode's key: {said}; correct the key, then retry."
    if name == "ContextOverflowError":
        return f"The conversation has outgrown the model's context: {said}; go on in a new chat, or use a model with a larger one."
    if "Model not found" in said or "ModelNotFound" in said:
        return f"opencode knows no such model ({said}); `coder agents` shows those it knows."
    if name == "APIError":
        code = f" {status}" if isinstance(status, int) else ""
        return f"The model's endpoint answered opencode with an error{code}: {said}; see the endpoint, then retry."
    return f"opencode could not go on ({said}); see the turn's log, then retry."
