"""A clock for tests: time passes when somebody sleeps, and at once."""

import asyncio

START_S = 1_700_000_000.0


class VirtualClock:
    """A `ports.Clock`; all of its users share the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def cpu_s(self) -> float:
        return 0.0

    def wall_s(self) -> float:
        return START_S + self.now

    def wall_ms(self) -> int:
        return round(self.wall_s() * 1000)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
