"""What a process tells of itself while it works: its most memory, and how late its loop is."""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path

from hdrh.histogram import HdrHistogram

TICK_S = 0.005  # a fifth of the lag that is allowed; 200 wake-ups a second cost 0.2 % of a core
LONGEST_US = 60_000_000
DIGITS = 3


def histogram() -> HdrHistogram:
    """Of µs up to a minute, to three digits."""
    return HdrHistogram(1, LONGEST_US, DIGITS)


def rss_mb() -> float:
    """The most memory that this process ever held, in MB.

    `ru_maxrss` would be inherited from the parent that started us, where /proc tells better.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return kib * 1024 / 1e6


class LoopLag:
    """How late a timer of 5 ms is called; a long turn counts for each tick that it swallowed."""

    def __init__(self) -> None:
        self._found = histogram()

    async def run(self) -> None:
        """Until cancelled, which is safe."""
        while True:
            began_at = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late_s = max(0.0, time.perf_counter() - began_at - TICK_S)
            self._found.record_corrected_value(max(1, int(late_s * 1e6)), int(TICK_S * 1e6))

    def ms(self, percentile: float) -> float:
        """0 before the first tick."""
        if not self._found.get_total_count():
            return 0.0
        return float(self._found.get_value_at_percentile(percentile)) / 1e3
