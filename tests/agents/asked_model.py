"""Asks the model that the environment names, as an agent does: what the stand-in agents say for `model: TEXT`."""

from __future__ import annotations

import json
import os
import urllib.request


def asked_model(text: str) -> str:
    """The answer to one message; an `OSError` in words where the model is not reached."""
    body = {"model": "m1", "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        f"{os.environ['OPENAI_BASE_URL']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            said: str = json.load(answer)["choices"][0]["message"]["content"]
    except OSError as error:
        return f"no model: {error}"
    return said
