"""An event loop whose time is virtual: when nothing is left to do, it is at once the next timer's.

`run(main)` runs a coroutine on it. Everything that waits through asyncio (sleep, timeouts) takes no
real time, and a seed is a history. Nothing may wait for a socket or a thread.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_700_000_000_000


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting, moves the loop's time on."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits, and no timer is set: nothing will ever happen")
        self.loop.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _NoWaiting()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class VirtualClock:
    """`ports.Clock` of the loop that runs; `skew` makes one worker's wall clock wrong."""

    def __init__(self, skew_ms: int = 0) -> None:
        self._skew_ms = skew_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def cpu_s(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return START_MS + self._skew_ms + int(self.monotonic() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
