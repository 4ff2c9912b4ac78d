"""The garbage collector's keeper, with the clock in hand."""

import asyncio
import gc
import weakref
from contextlib import suppress

from processor.observe.collector import FIRST_S, THRESHOLDS, Collector
from processor.observe.metrics import Metrics
from tests.observe.test_ticker import LateClock


class Knot:
    """Only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


class Watching(LateClock):
    """Notes at each sleep what the collector is set to."""

    def __init__(self, sleeps: int) -> None:
        super().__init__(*[0.0] * sleeps)
        self.seen: list[tuple[tuple[int, int, int], int]] = []

    async def sleep(self, seconds: float) -> None:
        self.seen.append((gc.get_threshold(), gc.get_freeze_count()))
        await super().sleep(seconds)


async def run(collector: Collector) -> None:
    with suppress(asyncio.CancelledError):
        await collector.run()


async def test_the_heap_is_frozen_after_the_start_and_all_is_as_before_at_the_end() -> None:
    before, clock = (gc.get_threshold(), list(gc.callbacks)), Watching(sleeps=20)
    await run(Collector(Metrics(), clock))
    assert clock.seen[0] == (THRESHOLDS, 0)
    assert clock.now - 100 >= sum(FIRST_S)
    assert clock.seen[-1][1] > 1_000
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0


async def test_a_cycle_that_was_frozen_is_found_by_the_next_full_collection() -> None:
    found: list[bool] = []

    class Dropping(Watching):
        async def sleep(self, seconds: float) -> None:
            if self.seen and self.seen[-1][1] and not found:  # frozen a sleep ago, with the knot
                found.append(True)
                knots.clear()
            await super().sleep(seconds)

    knots = [Knot()]
    alive = weakref.ref(knots[0])
    await run(Collector(Metrics(), Dropping(sleeps=20)))
    assert found
    assert alive() is None


async def test_each_pause_is_told_by_generation() -> None:
    metrics = Metrics()
    await run(Collector(metrics, LateClock(*[0.0] * 20)))
    count = 'processor_collector_pause_seconds_count{generation="2"} 2.0'
    assert count in metrics.text().decode()
