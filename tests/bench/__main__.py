"""Run measurements and print the table: `python -m tests.bench [NAME…] [--quick] [--json]`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Awaitable, Callable

import structlog

from coder.host.loop import run
from tests.bench import acp, agents, bed, cycles, live, panel, places, reviews, sessions, turns
from tests.bench.figure import Figure, load, table

FIGURES: dict[str, Callable[[bed.Bed], Awaitable[list[Figure]]]] = {
    "latency": turns.latency,
    "claim-finish": cycles.claim_finish,
    "null-turns": turns.null_turns,
    "git-turns": turns.git_turns,
    "depth": cycles.depth,
    "live": live.live,
    "sessions": sessions.sessions,
    "snapshots": places.snapshots,
    "reviews": reviews.reviews,
    "service": places.service,
    "panel": panel.panel,
    "opencode": agents.opencode,
    "acp-relay": acp.relay,
    "acp-memory": acp.memory,
    "acp-goose": acp.goose,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/bench", description="Measure, against a floor in the same run; nothing is asserted.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(FIGURES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    given = parser.parse_args()
    if unknown := set(given.names) - set(FIGURES):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; choose from {', '.join(FIGURES)}")
    # As the service writes it with CODER_LOG_FORMAT=json, but for the last step.
    stamps = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    structlog.configure(
        [*stamps, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    busy = load()
    figures: list[Figure] = []
    for name in given.names or FIGURES:
        with bed.server(given.quick) as place:
            figures += run(FIGURES[name](place))  # type: ignore[arg-type]
    if given.json:
        print(json.dumps({"machine": busy, "figures": [figure.json() for figure in figures]}, indent=2))
    else:
        print(f"{busy}\n{table(figures)}")


if __name__ == "__main__":
    main()
