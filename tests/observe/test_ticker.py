"""The event loop's timer, with the clock in hand."""

import asyncio
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families as parse_text

from processor.observe.metrics import Metrics
from processor.observe.ticker import STALE_S, TICK_S, LoopTicker


class LateClock:
    """Sleeping takes longer than asked, by what `delays_s` says; then it ends for ever."""

    def __init__(self, *delays_s: float) -> None:
        self.now = 100.0
        self._delays_s = list(delays_s)

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return round(self.now * 1_000)

    async def sleep(self, seconds: float) -> None:
        if not self._delays_s:
            raise asyncio.CancelledError
        self.now += seconds + self._delays_s.pop(0)


async def run(ticker: LoopTicker) -> None:
    with suppress(asyncio.CancelledError):
        await ticker.run()


def lag(metrics: Metrics) -> dict[str, float]:
    families = parse_text(metrics.text().decode())
    (family,) = [f for f in families if f.name == "processor_loop_lag_seconds"]
    return {s.labels.get("le", s.name.rpartition("_")[2]): s.value for s in family.samples}


async def test_each_tick_tells_how_late_the_loop_was() -> None:
    metrics = Metrics()
    await run(LoopTicker(metrics, LateClock(0.0, 0.02, 3.0)))
    told = lag(metrics)
    assert told["count"] == 3
    assert round(told["sum"], 6) == 3.02
    assert (told["0.001"], told["0.025"], told["2.5"], told["5.0"]) == (1, 2, 2, 3)


async def test_a_loop_that_ticks_is_well() -> None:
    clock = LateClock(*[0.01] * 100)
    ticker = LoopTicker(Metrics(), clock)
    await run(ticker)
    assert clock.now > 100.0 + 100 * TICK_S
    assert ticker.reasons() == ()


async def test_a_loop_that_has_not_ticked_for_long_is_ill_until_it_ticks() -> None:
    clock = LateClock(0.0)
    ticker = LoopTicker(Metrics(), clock)
    clock.now += STALE_S + 1
    assert ticker.reasons() == ("the event loop has not ticked for 11.0 s",)
    await run(ticker)
    assert ticker.reasons() == ()
