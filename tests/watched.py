"""Processes that are watched until they have gone."""

from __future__ import annotations

import os
import select
import time


class Watched:
    """Processes held by pidfd, so that their end can be waited for and no id be mistaken."""

    def __init__(self, pids: list[int]) -> None:
        self.handles = [os.pidfd_open(pid) for pid in pids]

    def gone_within(self, seconds: float) -> bool:
        poller = select.poll()
        for handle in self.handles:
            poller.register(handle, select.POLLIN)
        deadline = time.monotonic() + seconds
        living = set(self.handles)
        while living:
            ended = poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ended:
                return False
            for handle, _ in ended:
                poller.unregister(handle)
                living.remove(handle)
        return True
