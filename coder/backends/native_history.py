"""The provider messages of a chat, as JSON text that only ever grows at its end.

Invariant: the text of a turn starts, byte for byte, with the text it was given (but for the closing bracket), so that what
goes to the provider keeps its prefix and the provider's prompt cache holds. It ends with something a next prompt may follow:
no answer that was broken off, no tool call without a result. No U+0000 and no lone surrogate is in it.

A summary begins a chat of its own: its history is the question for it and the answer.
Loads pydantic-ai, so it is imported only once a turn runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse, TextPart, ThinkingPart, repair_messages

from coder.transcript import clean_value


def load(text: str | None) -> list[ModelMessage] | None:
    """The messages in a text of `grown`, [] for None; None when the text is none of ours."""
    if text is None:
        return []
    try:
        return repair_messages(ModelMessagesTypeAdapter.validate_json(text))
    except ValidationError:
        return None


def grown(before: str | None, added: Sequence[ModelMessage]) -> str | None:
    """The text with messages added behind it; None when there are none at all.

    Args:
        before: a text that `load` understood, or None.
    """
    if not added:
        return before
    values = clean_value(ModelMessagesTypeAdapter.dump_python(list(added), mode="json"))
    tail = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    head = (before or "[]").rstrip().removesuffix("]").rstrip()
    return tail if head == "[" else f"{head},{tail[1:]}"


def complete(added: Sequence[ModelMessage]) -> list[ModelMessage]:
    """What a turn added, without an answer that was broken off, and with a result for every tool call.

    A call that was stopped gets pydantic-ai's own result, which tells the model that it was interrupted.
    """
    kept = list(added)
    while kept and isinstance(last := kept[-1], ModelResponse) and (last.state != "complete" or not last.parts):
        kept.pop()
    return repair_messages(kept)


def summary(added: Sequence[ModelMessage]) -> str | None:
    """The history of a chat that goes on from a summary, None when there is no text in it.

    Args:
        added: what the turn that summarised added to the chat before: the question first, the summary last.
    """
    last = added[-1] if added else None
    if not isinstance(last, ModelResponse):
        return None
    words = [part for part in last.parts if isinstance(part, TextPart)]
    if not any(part.content.strip() for part in words):
        return None
    return grown(None, [added[0], replace(last, parts=words)])


def thinking_field(messages: Sequence[ModelMessage], provider: str) -> str | None:
    """The field of its OpenAI answers in which a provider last gave reasoning, None when it gave none yet."""
    parts = (part for message in messages if isinstance(message, ModelResponse) for part in message.parts)
    fields = [part.id for part in parts if isinstance(part, ThinkingPart) and part.provider_name == provider]
    return fields[-1] if fields and fields[-1] in ("reasoning", "reasoning_content") else None
