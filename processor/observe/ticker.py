"""Whether the event loop gets its turn: a timer that measures how late it is called."""

from __future__ import annotations

from typing import Final

from processor.observe.metrics import Metrics
from processor.ports import Clock

TICK_S: Final = 0.5  # short against a probe's 10 s, and two timers a second cost nothing
STALE_S: Final = 10.0  # a loop that stood still so long has lost its leases (validity is 8 s)


class LoopTicker:
    """Run `run` as a task for as long as the process serves; ask `reasons` for `/healthz`."""

    def __init__(self, metrics: Metrics, clock: Clock):
        self._metrics, self._clock = metrics, clock
        self._ticked_at = clock.monotonic()

    def __repr__(self) -> str:
        return f"<LoopTicker last at {self._ticked_at:.1f}>"

    async def run(self) -> None:
        """Until cancelled, which is safe."""
        self._ticked_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(TICK_S)
            now = self._clock.monotonic()
            self._metrics.observe("loop_lag_seconds", max(0.0, now - self._ticked_at - TICK_S))
            self._ticked_at = now

    def reasons(self) -> tuple[str, ...]:
        """Why the loop is ill, if it is: it stood still, or nobody runs the ticker any more."""
        silent_s = self._clock.monotonic() - self._ticked_at
        return (
            (f"the event loop has not ticked for {silent_s:.1f} s",) if silent_s > STALE_S else ()
        )
