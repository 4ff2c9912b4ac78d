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
from collections import deque
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
        self.held: list[Handle] = []

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


class Handle:
    """A callback that was asked for; `asyncio.Handle` without what debugging needs."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(
        self, callback: Any, args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.callback, self.args = callback, args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.is_cancelled


class SimLoop(BaseEventLoop):
    """The event loop of all processes and of the world around them.

    Of the base it keeps tasks and futures, and the way to run to a future's end. An exception in a
    callback is the simulator's own mistake, and ends the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._due: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._timers_set = 0  # two of one moment go in the order in which they were set

    def time(self) -> float:
        host = CURRENT.get()
        return self.now if host is None else host.local(self.now)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context)
        self._due.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        host = CURRENT.get()
        true_s = when if host is None else host.true(when)
        return self._set(true_s, Handle(callback, args, context))

    def in_the_world(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back after true seconds, whatever becomes of the process that asks."""
        self._set(self.now + delay_s, Handle(callback, args, _WORLD))

    def freeze(self, host: Host) -> None:
        host.is_frozen = True

    def thaw(self, host: Host) -> None:
        host.is_frozen = False
        host.thawed_at = self.now
        self._due.extend(host.held)
        host.held.clear()

    def _set(self, true_s: float, handle: Handle) -> Handle:
        self._timers_set += 1
        heapq.heappush(self._timers, (true_s, self._timers_set, handle))
        return handle

    def _run_once(self) -> None:
        """What the base calls in a loop until it is told to stop."""
        due, timers = self._due, self._timers
        while not self._stopping:  # type: ignore[attr-defined]
            if not due:
                assert timers, "everybody waits, and no timer is set: nothing will ever happen"
                while timers[0][2].is_cancelled:
                    heapq.heappop(timers)
                self.now = max(self.now, timers[0][0])
            while timers and timers[0][0] <= self.now:
                due.append(heapq.heappop(timers)[2])
            for _ in range(len(due)):
                handle = due.popleft()
                if handle.is_cancelled:
                    continue
                host = handle.context.get(CURRENT)
                if host is not None and host.is_frozen:
                    host.held.append(handle)
                else:
                    handle.context.run(handle.callback, *handle.args)


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
