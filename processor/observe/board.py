"""What all observers of a process write on: metrics, totals, latencies, the log."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from processor.observe.latency import LatencyRecorder
from processor.observe.metrics import Metrics
from processor.ports import Clock


class Totals(Struct):
    """What this process did since it began, for `/status`."""

    records: int = 0
    payload_bytes: int = 0
    counted: int = 0
    duplicates: int = 0
    late: int = 0
    unmatched: int = 0
    rejects: int = 0
    events_published: int = 0
    dead_letters: int = 0


class Board:
    """Shared by the observers of one process. `log`: a structlog logger, see `observe.logs`."""

    def __init__(self, metrics: Metrics, log: Any, clock: Clock):
        self.metrics, self.log, self.clock = metrics, log, clock
        self.totals = Totals()
        self.end_to_end = LatencyRecorder()
        self.close_to_accepted = LatencyRecorder()

    def wall_s(self) -> float:
        return self.clock.wall_ms() / 1_000
