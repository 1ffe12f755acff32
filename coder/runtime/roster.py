"""Which agents this host can run: found by probes, in the background, and again when somebody asks for it.

A node starts without waiting for them. A task that names an agent waits for that agent's first probe, so that it
neither falls back nor fails only because the node is young.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import structlog

from coder.errors import CoderError, Unavailable
from coder.ports import AgentFacts, Backend, Clock, TaskStore
from coder.runtime.background import Background
from coder.runtime.wake import Wake

PROBE_SECONDS = 30.0
AT_ONCE = 4
LOOK_SECONDS = 30.0

log = structlog.get_logger(__name__)


class Roster(Background):
    """Args: backends: by the name of the agent they run."""

    def __init__(self, store: TaskStore, backends: Mapping[str, Backend], clock: Clock, *, host: UUID) -> None:
        self._store = store
        self._backends = backends
        self._clock = clock
        self._host = host
        self._bell = Wake(clock)
        self._probed = {name: asyncio.Event() for name in backends}
        self._found: dict[str, tuple[AgentFacts, ...]] = {}
        self._recorded: dict[str, tuple[AgentFacts, ...]] = {}
        self._some = asyncio.Semaphore(AT_ONCE)

    def wake(self) -> None:
        self._bell.wake()

    async def available(self, agent: str) -> frozenset[str]:
        """The agents that can be run here; `agent` has been looked for by then."""
        if agent in self._probed:
            await self._probed[agent].wait()
        return frozenset(facts.agent for found in self._found.values() for facts in found if facts.available)

    async def _run(self) -> None:
        done: datetime | None = None
        first = True
        while True:
            try:
                wanted = await self._store.probe_wanted(self._host)
                if first or wanted != done:
                    self._recorded.clear()
                    await self._round(self._backends)
                    done, first = wanted, False
                elif unfinished := {name for name, found in self._found.items() if any(facts.unfinished for facts in found)}:
                    await self._round({name: self._backends[name] for name in unfinished})
            except Unavailable as error:
                log.warning("agents cannot be recorded while the database is away", why=error.message)
                if first:
                    await self._clock.sleep(1.0)
                    continue
            except Exception:
                log.exception("the roster met an error it does not know; it goes on with the next look")
            await self._bell.wait(LOOK_SECONDS)

    async def _round(self, backends: Mapping[str, Backend]) -> None:
        """Probe these agents, each recorded as soon as it is known."""
        await asyncio.gather(*(self._probe(name, backend) for name, backend in backends.items()))
        await self._store.forget_agents(self._host, [facts.agent for found in self._found.values() for facts in found])

    async def _probe(self, name: str, backend: Backend) -> None:
        async with self._some:
            found = self._found[name] = await self._facts(name, backend)
        self._probed[name].set()
        if self._recorded.get(name) != found:  # what is unfinished is looked at again and again, and mostly the same
            await self._store.record_agents(self._host, found)
            self._recorded[name] = found

    async def _facts(self, name: str, backend: Backend) -> tuple[AgentFacts, ...]:
        """What a probe finds, in bounded time; one that goes wrong is a fact as well."""
        probing = asyncio.ensure_future(backend.probe())
        timer = asyncio.ensure_future(self._clock.sleep(PROBE_SECONDS))
        try:
            await asyncio.wait({probing, timer}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done():
                return probing.result()
            why = f"It did not say within {PROBE_SECONDS:g} s what it is; run it by hand to see why."
        except CoderError as error:
            why = error.message
        except Exception as error:
            log.exception("an agent could not be probed", agent=name)
            why = f"It could not be probed ({type(error).__name__}: {error}); see the service's log."
        finally:
            probing.cancel()
            timer.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        return (AgentFacts(name, backend.execution_path, False, detail=why),)
