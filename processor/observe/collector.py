"""Python's garbage collector, kept off the road of records: collected rarely, pauses measured.

A full collection walks every container of the process, and Python starts one whenever those that
survived the younger ones are a quarter more: with a thousand shards that is 60 ms and more, several
times a minute at first. What is there when a worker has started, stays; so it is frozen, which
hides it from the collector. What shards and connections leave in cycles later, is found by a full
collection each ten minutes, which looks through everything and freezes what is left.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import Final

from processor.observe.metrics import Metrics
from processor.ports import Clock

# Some 1 ms a young collection: 20,000 containers, of which pages make next to none (their records
# are not tracked). The last: a full one by itself after 40 million, should cycles pile up faster.
THRESHOLDS: Final = (20_000, 20, 100)
# Imports and the first leases are there after some seconds, the states of all shards by a minute.
FIRST_S: Final = (10.0, 50.0)
FULL_S: Final = 600.0
DRAIN_S: Final = 5.0  # between two looks at what the callback noted
PAUSES_MAX: Final = 1_000  # noted and not yet told; 200 a second, past which the oldest are dropped


class Collector:
    """Run `run` as a task for as long as the process serves."""

    def __init__(self, metrics: Metrics, clock: Clock):
        self._metrics, self._clock = metrics, clock
        # The callback may come amid any allocation, so also where a metric's lock is held.
        self._pauses: deque[tuple[int, float]] = deque(maxlen=PAUSES_MAX)
        self._began_at = 0.0

    def __repr__(self) -> str:
        return f"<Collector {len(self._pauses)} pauses to tell, {gc.get_freeze_count()} frozen>"

    async def run(self) -> None:
        """Until cancelled, which is safe: the collector is then as it was before."""
        before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._on_collection)
        try:
            for wait_s in FIRST_S:
                await self._tell_for(wait_s)
                collect_all()
            while True:
                await self._tell_for(FULL_S)
                collect_all()
        finally:
            gc.callbacks.remove(self._on_collection)
            gc.set_threshold(*before)
            gc.unfreeze()

    async def _tell_for(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while (left_s := until - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(DRAIN_S, left_s))
            self._tell()

    def _tell(self) -> None:
        while self._pauses:
            generation, seconds = self._pauses.popleft()
            self._metrics.observe("collector_pause_seconds", seconds, generation=str(generation))

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began_at = now
        else:
            self._pauses.append((info["generation"], now - self._began_at))


def collect_all() -> None:
    """One full collection, of what was frozen before, too; what is left is frozen."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
