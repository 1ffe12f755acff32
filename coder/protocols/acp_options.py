"""What an ACP agent lets one choose for a session: mode, model, thinking. Pure.

Agents tell it in two ways, `modes` and config options with a category; where both speak of modes, the first is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing to choose.

    Attributes:
        option: id of the config option that sets it; None = there is none: modes have a call of their own, models cannot be set.
        current: the value as of now.
        values: what may be chosen, with the name people know each value by.
    """

    option: str | None = None
    current: str | None = None
    values: tuple[tuple[str, str], ...] = ()

    def value(self, wanted: str) -> str | None:
        """The value that goes by that id or name, None when there is none."""
        if any(wanted == value for value, _ in self.values):
            return wanted
        return next((value for value, name in self.values if wanted == name), None)

    @property
    def ids(self) -> tuple[str, ...]:
        """What people may ask for: names where the ids are the agent's internal ones."""
        return tuple(name if value.startswith("$") and name else value for value, name in self.values)


@dataclass(frozen=True, slots=True)
class Options:
    """What a session lets one choose."""

    mode: Choice = Choice()
    model: Choice = Choice()
    thinking: Choice = Choice()


def told(result: Mapping[str, Any]) -> Options:
    """Read the answer to `session/new`, `session/load` or `session/resume`."""
    options = _by_config(Options(), result.get("configOptions"))
    modes = result.get("modes")
    if isinstance(modes, Mapping) and (values := _values(modes.get("availableModes"), "id")):
        options = replace(options, mode=Choice(None, _word(modes.get("currentModeId")), values))
    return options


def updated(options: Options, update: Mapping[str, Any]) -> Options:
    """Take over what a `session/update` tells of choices; the same object when it tells nothing of them."""
    if update.get("sessionUpdate") == "config_option_update":
        changed = _by_config(options, update.get("configOptions"))
        if options.mode.option is None and options.mode.values:
            return replace(changed, mode=replace(options.mode, current=changed.mode.current))
        return changed
    if update.get("sessionUpdate") == "current_mode_update":
        return replace(options, mode=replace(options.mode, current=_word(update.get("currentModeId"))))
    return options


def _by_config(options: Options, listed: Any) -> Options:
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, Mapping) or each.get("type") != "select":
            continue
        name, category = _word(each.get("id")), each.get("category")
        flat = [option for entry in each.get("options") or [] for option in _leaves(entry)]
        choice = Choice(name, _word(each.get("currentValue")), _values(flat, "value"))
        if "mode" in (category, name if category is None else None):
            options = replace(options, mode=choice)
        elif "model" in (category, name if category is None else None):
            options = replace(options, model=choice)
        elif category == "thought_level":
            options = replace(options, thinking=choice)
    return options


def _leaves(entry: Any) -> list[Any]:
    """Options may come in groups."""
    return entry["options"] if isinstance(entry, Mapping) and isinstance(entry.get("options"), list) else [entry]


def _values(listed: Any, key: str) -> tuple[tuple[str, str], ...]:
    found = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    return tuple((str(each[key]), str(each.get("name") or "")) for each in found if isinstance(each.get(key), str))


def _word(found: Any) -> str | None:
    return found if isinstance(found, str) and found else None
