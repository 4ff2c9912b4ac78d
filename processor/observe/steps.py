"""What a shard's steps tell: counts, latencies, a line for every anomaly and every bad record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec
from msgspec import Struct

from processor.core.events import ANOMALY_TYPES
from processor.errors import RetentionGap
from processor.model import Counts, DeadLetter, DerivedEvent, Step
from processor.observe.board import Board

# A page of nothing but bad records, or a storm of alarms, must not fill the disk: of each kind so
# many lines a step, and one that says how many more there were. Metrics count them all.
LINES_MAX = 100

_ANOMALIES = frozenset(ANOMALY_TYPES.values())
# Metrics and totals that are a plain number in `Counts`.
_PLAIN = {
    "records": "records_total",
    "payload_bytes": "bytes_total",
    "counted": "counted_total",
    "duplicates": "duplicates_total",
    "outside_range": "outside_range_total",
    "unmatched": "unmatched_total",
}


class _Anomaly(Struct, frozen=True):
    detector: str
    severity: str
    state: str
    sentence: str


class _Detail(Struct, frozen=True):
    """What a log line says of an anomaly's detail."""

    rule: str
    key: dict[str, str | int]
    anomaly: _Anomaly
    correlation_ids: list[str] = []
    traceparent: str | None = None

    @property
    def trace_id(self) -> str | None:
        return None if self.traceparent is None else self.traceparent.split("-")[1]


_details = msgspec.json.Decoder(_Detail)


class StepReporter:
    """A `ports.StepObserver`."""

    def __init__(self, board: Board, *, is_merge: bool = False):
        self._board = board
        self._is_merge = is_merge  # its records are partials, which no event came as

    def on_step(self, shard_id: str, step: Step, seconds: float) -> None:
        """Its events were accepted (or refused for good) `seconds` after its page was taken."""
        self._board.metrics.observe("stage_seconds", seconds, stage="step")
        self._count(step.counts)
        told = {
            event.id: _details.decode(event.detail)
            for event in step.events
            if event.detail_type in _ANOMALIES
        }
        self._measure(step.events, told, seconds)
        for detail in told.values():
            self._count_anomaly(detail)
        self._tell_anomalies(shard_id, told)
        self._tell_rejects(step.dead_letters)
        self._tell_windows(shard_id, step.events)

    def on_gap(self, shard_id: str, error: RetentionGap) -> None:
        metrics = self._board.metrics
        metrics.add("retention_gaps_total")
        metrics.add("retention_gap_seconds_total", (error.last_ms - error.first_ms) / 1_000)
        self._board.log.error(
            "retention_gap", message="records were lost", shard_id=shard_id, error=error
        )

    def on_left_behind(self, shard_id: str, source_shard_id: str) -> None:
        self._board.metrics.add("left_behind_total")
        which = source_shard_id or "the shards that never told anything"
        self._board.log.warning(
            "left_behind",
            message=f"global rules go on without {which}: it stood still for merge.on_stall",
            shard_id=shard_id,
        )

    def on_state_refused(self, shard_id: str, error: Exception) -> None:
        """A state that was read can't be restored; the pair before it is tried."""
        self._board.metrics.add("errors_total", stage="restore", kind=type(error).__name__)
        self._board.log.error(
            "state_refused",
            message="the newest state can't be restored; the one before it is tried",
            shard_id=shard_id,
            error=error,
        )

    # ---- figures ----------------------------------------------------------------------------

    def _count(self, counts: Counts) -> None:
        metrics, totals = self._board.metrics, self._board.totals
        for rule, n in counts.late_by_rule.items():
            metrics.add("late_total", n, rule=rule)
        for name, by_rule in (
            ("groups_evicted_total", counts.evicted),
            ("groups_forgotten_total", counts.forgotten),
            ("groups_overflow_total", counts.overflowed),
        ):
            for rule, n in by_rule.items():
                metrics.add(name, n, rule=rule)
        for (rule, reason), n in counts.untold.items():
            metrics.add("anomalies_untold_total", n, rule=rule, reason=reason)
        for reason, n in counts.rejects.items():
            metrics.add("rejects_total", n, reason=reason)
        metrics.add("windows_closed_total", counts.windows_closed)
        if self._is_merge:
            metrics.add("merged_total", counts.records)
            return
        for field, name in _PLAIN.items():
            metrics.add(name, getattr(counts, field))
        totals.records += counts.records
        totals.payload_bytes += counts.payload_bytes
        totals.counted += counts.counted
        totals.duplicates += counts.duplicates
        totals.late += counts.late
        totals.unmatched += counts.unmatched
        totals.rejects += sum(counts.rejects.values())

    def _count_anomaly(self, detail: _Detail) -> None:
        anomaly = detail.anomaly
        self._board.metrics.add(
            "anomalies_total",
            rule=detail.rule,
            detector=anomaly.detector,
            severity=anomaly.severity,
            state=anomaly.state,
        )

    def _measure(
        self, events: Sequence[DerivedEvent], told: Mapping[str, _Detail], seconds: float
    ) -> None:
        """Both latencies of each event. Where no record's arrival closed it, there is no end."""
        if not events:
            return
        board = self._board
        now_ms = board.clock.wall_ms()
        board.close_to_accepted.record(seconds, len(events))
        for event in events:
            trace_id = told[event.id].trace_id if event.id in told else None
            board.metrics.observe("close_to_accepted_seconds", seconds)
            if event.arrival_ms:
                # Arrival is told by the service's clock, acceptance by ours: below 0 means 0.
                age_s = max(0, now_ms - event.arrival_ms) / 1_000
                board.end_to_end.record(age_s)
                board.metrics.observe("end_to_end_seconds", age_s, trace_id=trace_id)

    # ---- lines ------------------------------------------------------------------------------

    def _tell_anomalies(self, shard_id: str, told: Mapping[str, _Detail]) -> None:
        for event_id, detail in islice(told.items(), LINES_MAX):
            self._board.log.info(
                f"anomaly_{detail.anomaly.state}",
                message=detail.anomaly.sentence,
                shard_id=shard_id,
                event_id=event_id,
                correlation_id=next(iter(detail.correlation_ids), None),
                trace_id=detail.trace_id,
                rule=detail.rule,
                key=key_text(detail.key.items()),
            )
        self._tell_rest("anomalies", len(told), shard_id)

    def _tell_rejects(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters[:LINES_MAX]:
            self._board.log.warning(
                "record_rejected",
                message="the record went to the dead letters",
                shard_id=letter.shard_id,
                sequence_number=letter.sequence_number,
                event_id=letter.id,
                error_kind=letter.reason,
                error=letter.detail,
            )
        if letters:
            self._tell_rest("rejected records", len(letters), letters[0].shard_id)

    def _tell_windows(self, shard_id: str, events: Sequence[DerivedEvent]) -> None:
        windows = (event for event in events if event.detail_type not in _ANOMALIES)
        for event in islice(windows, LINES_MAX):
            self._board.log.debug(
                "derived_event",
                message=event.detail_type,
                shard_id=shard_id,
                event_id=event.id,
                key=event.group,
            )

    def _tell_rest(self, what: str, n: int, shard_id: str) -> None:
        if n > LINES_MAX:
            message = f"{n - LINES_MAX} more {what} in this step, without a line each"
            self._board.log.warning("lines_cut", message=message, shard_id=shard_id)


def key_text(fields: Iterable[tuple[str, str | int]]) -> str:
    """A rule's key as a person reads it.

    >>> key_text([("store", 7), ("product", "milk")])
    'store=7 product=milk'
    """
    return " ".join(f"{field}={value}" for field, value in fields)
