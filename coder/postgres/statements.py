"""Named SQL: the statements of one `.sql` file, for asyncpg and psycopg alike.

aiosql parses the files; `:name` parameters become `$1`, `$2`, …, which asyncpg and psycopg's raw cursors both take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosql
from aiosql.adapters.asyncpg import AsyncPGAdapter


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement with `$n` placeholders and the parameter name of each."""

    name: str
    sql: str
    parameters: tuple[str, ...]

    def arguments(self, given: Mapping[str, Any]) -> list[Any]:
        """Values in placeholder order; what was not given is None, what is not known is an error."""
        unknown = given.keys() - set(self.parameters)
        if unknown:
            raise TypeError(f"statement {self.name} has no parameter {', '.join(sorted(unknown))}")
        return [_written(given.get(name)) for name in self.parameters]


def _written(value: Any) -> Any:
    """A value as drivers take it: lists of objects go as JSON text."""
    return json.dumps(value) if isinstance(value, list) and value and isinstance(value[0], dict) else value


def load(file: str) -> dict[str, Statement]:
    """The statements of `coder/postgres/<file>` by name."""
    adapter = AsyncPGAdapter()
    queries = aiosql.from_path(Path(__file__).parent / file, lambda: adapter, mandatory_parameters=False)
    names = [name for name in queries.available_queries if not name.endswith("_cursor")]
    return {name: Statement(name, getattr(queries, name).sql, tuple(adapter.var_sorted[name])) for name in names}
