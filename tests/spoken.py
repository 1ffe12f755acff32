"""A session in which much was said, for tests and measurements: copies of a turn that was really done, written past every trigger."""

from __future__ import annotations

import psycopg
from psycopg import sql

ANSWER = """### Turn NUMBER

I looked at `src/module_NUMBER.py`, and **changed** it:

```python
def total(items: list[Item]) -> Decimal:
    return sum(item.price * item.count for item in items if not item.refunded)
```

| file | before | after |
|---|---:|---:|
| `src/module_NUMBER.py` | NUMBER | 62 |

1. The test is in `tests/test_module_NUMBER.py`.
2. Nothing else calls it.
"""
COLUMNS = "select column_name from information_schema.columns where table_name = 'tasks' and is_generated = 'NEVER'"
FILL = """
insert into tasks ({columns}) overriding system value
select {columns} from (select t as task, n, nextval(pg_get_serial_sequence('tasks', 'id')) as new_id
                       from tasks t, generate_series(1, %(turns)s) n where t.id = %(task)s order by n) told,
    lateral jsonb_populate_record(told.task, jsonb_build_object(
        'id', new_id, 'position', new_id, 'epoch', nextval('epoch_seq'), 'input', 'What about number ' || n || '?',
        'answer', replace(%(answer)s, 'NUMBER', n::text))) r
"""


def fill(dsn: str, task: int, turns: int) -> None:
    """Say and answer more in the session of a task that is completed.

    Args:
        dsn: of the service's database, as its owner.
        turns: how many; each is two messages.
    """
    with psycopg.connect(dsn) as connection:
        connection.execute("set session_replication_role = replica")
        columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in connection.execute(COLUMNS))
        connection.execute(sql.SQL(FILL).format(columns=columns), {"task": task, "turns": turns, "answer": ANSWER})
