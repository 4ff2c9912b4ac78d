"""Virtual time for several processes in one: each has its own clock, and may be frozen.

Which process a callback belongs to stands in its context, and tasks inherit it. What a process asks
the loop for (the time, a timer) is in its own time, which may run fast or slow; the world's time is
the true one. A frozen process runs nothing; what falls due meanwhile runs when it thaws, as after a
SIGSTOP. Nothing takes real time, nothing comes from outside, so a run repeats itself exactly.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.virtual_time import START_MS

T = TypeVar("T")

CURRENT: contextvars.ContextVar[Host | None] = contextvars.ContextVar("host", default=None)
_WORLD = contextvars.Context()  # in which CURRENT is not set


class Host:
    """Where a process runs: its clock, and whether it runs at all."""

    name = ""

    def __init__(
        self, loop: SimLoop, rate: float = 1.0, zero_at: float = 0.0, skew_ms: int = 0
    ) -> None:
        self.loop = loop
        self.rate = rate
        self.zero_at = zero_at  # the true moment at which its clock showed 0
        self.skew_ms = skew_ms
        self.is_frozen = False
        self.is_dead = False
        self.thawed_at = -1.0
        self.held: list[asyncio.Handle] = []

    # As `ports.Clock`, for whatever runs here:

    def monotonic(self) -> float:
        return self.local(self.loop.now)

    def cpu_s(self) -> float:
        return 0.0  # work takes no virtual time

    def wall_ms(self) -> int:
        return START_MS + self.skew_ms + int(self.monotonic() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # For the loop:

    def local(self, true_s: float) -> float:
        return (true_s - self.zero_at) * self.rate

    def true(self, local_s: float) -> float:
        """The first true moment at which the host's clock shows `local_s`, or more."""
        true_s = local_s / self.rate + self.zero_at
        while self.local(true_s) < local_s:
            true_s = math.nextafter(true_s, math.inf)
        return true_s


class SimLoop(BaseEventLoop):
    """The event loop of all processes and of the world around them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        host = CURRENT.get()
        return self.now if host is None else host.local(self.now)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        host = CURRENT.get()
        true_s = when if host is None else host.true(when)
        return super().call_at(true_s, callback, *args, context=context)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        # As the base's, without its checks for debugging: half of all that a run does comes by.
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def in_the_world(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back after true seconds, whatever becomes of the process that asks."""
        handle = asyncio.TimerHandle(self.now + delay_s, callback, args, self, _WORLD)
        heapq.heappush(self._scheduled, handle)  # type: ignore[attr-defined]

    def freeze(self, host: Host) -> None:
        host.is_frozen = True

    def thaw(self, host: Host) -> None:
        host.is_frozen = False
        host.thawed_at = self.now
        self._ready.extend(host.held)  # type: ignore[attr-defined]
        host.held.clear()

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        if not ready:
            assert scheduled, "everybody waits, and no timer is set: nothing will ever happen"
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            ready.append(heapq.heappop(scheduled))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            host = handle._context.get(CURRENT)
            if host is not None and host.is_frozen:
                host.held.append(handle)
            else:
                handle._run()


def run(main: Callable[[SimLoop], Coroutine[Any, Any, T]]) -> T:
    """Run the world's main coroutine to its end, on a loop of its own."""
    loop = SimLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def on_host(host: Host, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that belongs to the host, and so will all that it starts."""
    context = contextvars.copy_context()
    context.run(CURRENT.set, host)
    return asyncio.get_running_loop().create_task(work, context=context)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError(f"{work} waits")
