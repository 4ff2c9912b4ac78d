"""What all observers of a process write on: metrics, totals, latencies, the log."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from processor.observe.latency import LatencyRecorder
from processor.observe.metrics import Metrics, StreamMetrics
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
    """Shared by the observers of one stream. `log`: a structlog logger, see `observe.logs`."""

    def __init__(self, metrics: StreamMetrics, log: Any, clock: Clock):
        self.metrics, self.log, self.clock = metrics, log, clock
        self.totals = Totals()
        self.end_to_end = LatencyRecorder()
        self.close_to_accepted = LatencyRecorder()

    def beside(self, metrics: Metrics, stream: str) -> Board:
        """Another stream's board of the same process: totals and latencies are shared."""
        other = Board(metrics.of(stream), self.log.bind(stream=stream), self.clock)
        other.totals = self.totals
        other.end_to_end, other.close_to_accepted = self.end_to_end, self.close_to_accepted
        return other

    def wall_s(self) -> float:
        return self.clock.wall_ms() / 1_000
