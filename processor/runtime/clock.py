"""The machine's clocks; everything that decides takes its `now` from here."""

from __future__ import annotations

import asyncio
import time

# CLOCK_MONOTONIC stands still while a laptop sleeps or a virtual machine is paused: a lease would
# seem valid long after others took the shard over. Linux has CLOCK_BOOTTIME; on macOS, Python's
# monotonic clock is mach_absolute_time, which sleeps too, but CLOCK_MONOTONIC there goes on.
_CLOCK_ID: int | None = next(
    (
        getattr(time, name)
        for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC")
        if hasattr(time, name) and hasattr(time, "clock_gettime")
    ),
    None,
)


class SystemClock:
    """`ports.Clock` of this machine."""

    def monotonic(self) -> float:
        return time.monotonic() if _CLOCK_ID is None else time.clock_gettime(_CLOCK_ID)

    def cpu_s(self) -> float:
        return time.thread_time()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
