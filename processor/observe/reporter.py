"""What adapters and loops report, turned into metrics, totals, latencies and log lines.

    Reporter.reads         ReadObserver    a shard's reader
    Reporter.sinks         SinkObserver    each sink
    Reporter.dead_letters  SinkObserver    the dead letters' queue
    Reporter.steps         StepObserver    a shard's loop
    Reporter.leases                        the lease loop (`observe.leases`)

Each is a thin mapping; nothing here decides or waits. Log lines: one an attempt that failed, an
anomaly or a lease change; single records and windows at debug only.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from msgspec import Struct

from processor.aws_errors import is_throttling
from processor.observe.board import Board, Totals
from processor.observe.latency import Latency
from processor.observe.leases import LeaseReporter
from processor.observe.metrics import Metrics
from processor.observe.steps import StepReporter
from processor.ports import Clock


class About(Struct, frozen=True):
    """What runs: our version, the hash of the resolved pipeline file, each sink's kind, and the
    names of the streams."""

    version: str
    config_hash: str
    services: Mapping[str, str] = {}  # by sink's name; a sink that is not in it speaks for itself
    stream: str = ""
    merge_stream: str | None = None  # None: no rule is global


class ShardFacts(Protocol):
    """What gauges need of a shard that is held; the runtime's view of it has more."""

    @property
    def watermark_ms(self) -> int | None: ...
    @property
    def windows_open(self) -> int: ...
    @property
    def groups(self) -> Mapping[str, int]: ...


class StageReporter:
    """The observers of one of the two stages."""

    def __init__(self, board: Board, *, is_merge: bool = False):
        self.reads = ReadReporter(board)
        self.steps = StepReporter(board, is_merge=is_merge)
        self.leases = LeaseReporter(board)
        self._board = board

    def refresh(self, shards: Mapping[str, ShardFacts], leases_unowned: int) -> None:
        """Bring the gauges up to date; shards not held lose their series."""
        metrics = self._board.metrics
        metrics.keep_shards(shards.keys() | self.leases.held)
        metrics.set("leases_unowned", leases_unowned)
        now_ms = self._board.clock.wall_ms()
        for shard_id, shard in shards.items():
            if shard.watermark_ms is not None:
                lag_s = (now_ms - shard.watermark_ms) / 1_000
                metrics.set("watermark_lag_seconds", lag_s, shard=shard_id)


class Reporter:
    """All observers of a process, on one set of metrics."""

    def __init__(self, metrics: Metrics, log: Any, clock: Clock, about: About):
        board = Board(metrics.of(about.stream), log, clock)
        self.source = StageReporter(board)
        self.reads, self.steps, self.leases = (
            self.source.reads,
            self.source.steps,
            self.source.leases,
        )
        self.sinks = SinkReporter(board, about.services)
        self.dead_letters = DeadLetterReporter(board, about.services)
        self.merge: StageReporter | None = None
        self.partials = PartialReporter(board)
        if about.merge_stream is not None:
            beside = board.beside(metrics, about.merge_stream)
            self.merge, self.partials = (
                StageReporter(beside, is_merge=True),
                PartialReporter(beside),
            )
        self._metrics = metrics
        self._board = board
        self._rules: set[str] = set()
        metrics.set("build_info", 1, version=about.version, python=platform.python_version())
        metrics.set("config_info", 1, hash=about.config_hash)

    def __repr__(self) -> str:
        return f"<Reporter {self._board.totals!r}>"

    @property
    def totals(self) -> Totals:
        return self._board.totals

    def latency(self) -> dict[str, Latency]:
        """Both latencies for `/status`; takes about 4 ms."""
        return {
            "close_to_accepted": self._board.close_to_accepted.summary(),
            "end_to_end": self._board.end_to_end.summary(),
        }

    def refresh(
        self,
        shards: Mapping[str, ShardFacts],
        *,
        leases_unowned: int,
        inflight_bytes: int,
        is_draining: bool,
        merged: Mapping[str, ShardFacts] | None = None,
        merge_unowned: int = 0,
    ) -> Metrics:
        """Bring the gauges up to date, before a scrape; shards not held lose their series.

        `merged` and `merge_unowned`: the same of the merge stream.
        """
        self.source.refresh(shards, leases_unowned)
        if self.merge is not None:
            self.merge.refresh(merged or {}, merge_unowned)
        every = [*shards.values(), *(merged or {}).values()]
        self._metrics.set("inflight_bytes", inflight_bytes)
        self._metrics.set("draining", int(is_draining))
        self._metrics.set("windows_open", sum(shard.windows_open for shard in every))
        self._set_groups(every)
        return self._metrics

    def _set_groups(self, shards: Collection[ShardFacts]) -> None:
        groups = dict.fromkeys(
            self._rules, 0
        )  # a rule whose last shard went is at 0, not as it was
        for shard in shards:
            for rule, n in shard.groups.items():
                groups[rule] = groups.get(rule, 0) + n
        self._rules.update(groups)
        for rule, n in groups.items():
            self._board.metrics.set("groups", n, rule=rule)


class ReadReporter:
    """A `ports.ReadObserver`."""

    def __init__(self, board: Board):
        self._board = board

    def on_read(
        self, shard_id: str, seconds: float, records: int, payload_bytes: int, millis_behind: int
    ) -> None:
        metrics = self._board.metrics
        metrics.observe("read_duration_seconds", seconds)
        metrics.set("lag_seconds", millis_behind / 1_000, shard=shard_id)
        metrics.set("last_read_timestamp_seconds", self._board.wall_s(), shard=shard_id)

    def on_throttled(self, shard_id: str) -> None:
        self._board.metrics.add("throttled_total", service="kinesis", operation="read")
        self._again(shard_id, "Throttled")
        # Other consumers share the limit: it is daily business, and no error.
        self._board.log.info("read_throttled", message="reads slow down", shard_id=shard_id)

    def on_error(self, shard_id: str, kind: str, detail: str) -> None:
        self._board.metrics.add("errors_total", stage="read", kind=kind)
        self._again(shard_id, kind)
        self._board.log.warning(
            "read_failed",
            message="the read is repeated",
            shard_id=shard_id,
            error_kind=kind,
            error=detail,
        )

    def _again(self, shard_id: str, reason: str) -> None:
        self._board.metrics.add("retries_total", service="kinesis", reason=reason)


class SinkReporter:
    """A `ports.SinkObserver` of derived events."""

    def __init__(self, board: Board, services: Mapping[str, str]):
        self._board, self._services = board, services

    def on_request(self, sink: str, seconds: float) -> None:
        self._board.metrics.observe("publish_duration_seconds", seconds, sink=sink)

    def on_published(self, sink: str, kind: str, n: int) -> None:
        self._board.metrics.add("published_total", n, sink=sink, detail_type=kind)
        self._board.totals.events_published += n

    def on_retry(self, sink: str, reason: str, n: int) -> None:
        service = self._services.get(sink, sink)
        metrics = self._board.metrics
        metrics.add("retries_total", n, service=service, reason=reason)
        metrics.add("errors_total", stage="put", kind=reason)
        if is_throttling(reason):
            metrics.add("throttled_total", service=service, operation="put")
        self._board.log.warning(
            "put_failed", message=f"{sink}: {n} entries are put again", error_kind=reason
        )

    def on_failed(self, sink: str, code: str) -> None:
        self._board.metrics.add("publish_failed_total", code=code)
        self._board.metrics.add("errors_total", stage="put", kind=code)
        self._board.log.error(
            "event_refused",
            message=f"{sink} refused an event for good: it goes to the dead letters",
            error_kind=code,
        )


class DeadLetterReporter(SinkReporter):
    """A `ports.SinkObserver` of the dead letters, which are no published events."""

    def on_published(self, sink: str, kind: str, n: int) -> None:
        self._board.metrics.add("dead_letters_total", n, reason=kind)
        self._board.totals.dead_letters += n


class PartialReporter:
    """A `ports.PartialObserver`."""

    def __init__(self, board: Board):
        self._board = board

    def on_request(self, seconds: float) -> None:
        self._board.metrics.observe("publish_duration_seconds", seconds, sink="merge")

    def on_taken(self, records: int, payload_bytes: int) -> None:
        self._board.metrics.add("partials_total", records)
        self._board.metrics.add("partials_bytes_total", payload_bytes)

    def on_retry(self, reason: str, n: int) -> None:
        metrics = self._board.metrics
        metrics.add("retries_total", n, service="kinesis", reason=reason)
        metrics.add("errors_total", stage="merge", kind=reason)
        if reason == "Throttled" or is_throttling(reason):
            metrics.add("throttled_total", service="kinesis", operation="put")
        self._board.log.warning(
            "partials_put_failed",
            message=f"{n} records are put to the merge stream again",
            error_kind=reason,
        )
