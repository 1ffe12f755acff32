"""Run measurements and print the table: `python -m tests.bench [NAME…] [--json] [--quick]`."""

from __future__ import annotations

import asyncio
from tests.bench import bed, cycles
from tests.bench.figure import table, load
import sys
if __name__ == "__main__":
    with bed.server("--quick" in sys.argv) as b:
        print(load())
        print(table(asyncio.run(cycles.claim_finish(b))))
