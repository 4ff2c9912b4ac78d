"""The values that everything else speaks in: the pipeline, the stream's facts, what a shard yields.

All are frozen. Times are integer milliseconds UTC unless a name says otherwise (`*_s`, `*_at` of
`now`, which is monotonic seconds). Layer 1: imports nothing of ours but `errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

# Raised when a release may change the bytes of a derived event; part of every rule's version.
ENGINE_VERSION = 1
# Raised when a release reads the state of an older one wrongly: every rule then starts anew.
STATE_VERSION = 1

Unit = Literal["s", "ms", "us", "ns", "iso8601"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]


# ---- the pipeline file, resolved ------------------------------------------------------------


class SourceSpec(Struct, frozen=True):
    """Where records come from. `start`: `trim_horizon`, `latest` or an ISO 8601 time.

    `on_gap`: what to do where records were past retention before they were read.
    """

    stream: str  # name or ARN
    start: str = "trim_horizon"
    decode: tuple[str, ...] = ("json",)
    outside_range: Literal["keep", "drop"] = "keep"  # events of an aggregate, by their own key
    region: str | None = None
    on_gap: Literal["stop", "continue"] = "stop"


class EventSpec(Struct, frozen=True):
    """How to read an event: dotted paths of fields, None where the stream has none."""

    id: str | None = None
    time: str | None = None  # None: arrival time
    unit: Unit = "ms"
    partition_key: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    out_of_orderness_ms: int = 5_000
    dedupe_horizon_ms: int = 600_000


class SinkSpec(Struct, frozen=True):
    """A named target: `{eventbridge: shop-events}` has kind `eventbridge`, target `shop-events`."""

    name: str
    kind: str
    target: str
    options: Mapping[str, Any] = {}


WindowKind = Literal["tumbling", "calendar", "hopping", "session", "running"]


class WindowSpec(Struct, frozen=True):
    """How event times make windows `[start, end)`; `kind` says which of the lengths count.

    tumbling  one after the other: `size_ms`, aligned to the epoch plus `offset_ms`
    calendar  days, weeks, months or years of `zone`, each beginning `offset_ms` after its midnight
    hopping   `size_ms` long, one begins every `every_ms`; on panes of their greatest common divisor
    session   of a key's records, each less than `gap_ms` from another; ends a gap after its last
    running   one window a key, never closed: told by early panes, gone after `ttl_ms` of silence
    """

    size_ms: int = 0
    offset_ms: int = 0
    kind: WindowKind = "tumbling"
    every_ms: int = 0
    gap_ms: int = 0
    ttl_ms: int = 0
    calendar: Literal["day", "week", "month", "year"] | None = None
    zone: str | None = None  # IANA name; None: UTC. Detectors take the hour of day from it


class PanesSpec(Struct, frozen=True):
    """When a window is told besides once at its end; None: not so.

    `early_when`: an event pattern over the values of the result, told once a window and key.
    `late_count`: records until a late pane; without it a window is closed for good once told.
    `is_discarding`: a pane tells only what the one before did not; else all so far.
    """

    early_every_ms: int | None = None
    early_count: int | None = None
    early_when: Mapping[str, Any] | None = None
    late_count: int | None = None
    is_discarding: bool = False
    emit_empty: bool = False  # a pane on time also where earlier ones told everything


class AggregateSpec(Struct, frozen=True):
    """One named figure of a window: `kind` is an aggregator's, `field` its input (None: none).

    `where`: an event pattern; the figure counts only records that match. `of`: the figures that a
    derived one is made of. `options` are the aggregator's own parameters, validated.
    """

    name: str
    kind: str
    field: str | None = None
    where: Mapping[str, Any] = {}
    of: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}


class DetectSpec(Struct, frozen=True):
    """One detector on one aggregate; `options` are the detector's own parameters, validated."""

    name: str
    kind: str
    aggregate: str
    options: Mapping[str, Any] = {}
    others: tuple[str, ...] = ()  # further aggregates, of a detector that looks at several


class MaintenanceSpec(Struct, frozen=True):
    """When a rule's detectors are off: once, or every day or week.

    Local times of the rule's zone: `from_ms` and `to_ms` in ms since its 1970-01-01T00:00; `every`
    as `sun 02:00` or `day 02:00`, each `for_ms` long.
    """

    from_ms: int = 0
    to_ms: int = 0
    every: str | None = None
    for_ms: int = 0


Overflow = Literal["other", "evict", "dead_letter"]


class BudgetSpec(Struct, frozen=True):
    """How many alarms a rule may open, as is to be expected."""

    openings: int
    period_ms: int


class CollapseSpec(Struct, frozen=True):
    """More than `over` alarms that open in one window are told as one event."""

    over: int = 200
    by: str | None = None  # a field of the key: counted apart for each of its values


class RuleSpec(Struct, frozen=True):
    """One rule. `where` is an event pattern; `emit_*` name sinks, None where nothing is sent."""

    name: str
    where: Mapping[str, Any]
    group_by: tuple[str, ...]
    window: WindowSpec
    aggregates: tuple[AggregateSpec, ...]
    detect: tuple[DetectSpec, ...] = ()
    emit_windows: str | None = None
    emit_anomalies: str | None = None
    max_groups: int = 100_000
    lateness_ms: int = 0  # how long after its end a window still takes records
    panes: PanesSpec = PanesSpec()
    overflow: Overflow = "other"  # what becomes of a record whose key is one too many
    forget_after_ms: int | None = None  # of silence, in event time: a key is then as if new
    maintenance: tuple[MaintenanceSpec, ...] = ()
    alarm_budget: BudgetSpec | None = None
    collapse: CollapseSpec | None = None


class MergeSpec(Struct, frozen=True):
    """The stream through which global rules meet, and how long they wait for a shard.

    `buckets`: parts of the groups' space; fixed by the first start of an application.
    `on_stall_ms`: after so long without a shard that stands still they go on, incomplete; None:
    never. `max_drift_ms`: how far a shard that catches up may be ahead of the slowest; None: any.
    """

    stream: str  # name or ARN
    buckets: int = 16
    on_stall_ms: int | None = None
    max_drift_ms: int | None = None


class StateSpec(Struct, frozen=True):
    """Where leases and state live. `objects`: `s3://bucket/prefix` or a folder's path."""

    table: str
    objects: str | None = None
    checkpoint_ms: int = 15_000


class DeadLetterSpec(Struct, frozen=True):
    """Where bad records and refused events go: an SQS queue's name or URL."""

    sqs: str


class HttpSpec(Struct, frozen=True):
    """Where health, metrics and status are served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8080


class Pipeline(Struct, frozen=True):
    """A whole pipeline file, resolved and checked."""

    app: str
    source: SourceSpec
    event: EventSpec
    sinks: Mapping[str, SinkSpec]
    rules: tuple[RuleSpec, ...]
    state: StateSpec
    dead_letters: DeadLetterSpec
    http: HttpSpec = HttpSpec()
    merge: MergeSpec | None = None


# ---- the stream -----------------------------------------------------------------------------


class Shard(Struct, frozen=True):
    """A shard as ListShards tells it; hash keys are 128-bit, both ends included."""

    id: str
    first_hash: int = 0
    last_hash: int = 2**128 - 1
    parents: tuple[str, ...] = ()
    is_closed: bool = False  # it has an ending sequence number


class StreamInfo(Struct, frozen=True):
    """A stream's identity: deleted and made again under the same name, it is another stream."""

    name: str
    arn: str
    created_ms: int
    service_date_ms: int  # the service's own `Date` when it told us
    retention_ms: int = 86_400_000  # the service's least


class Position(Struct, frozen=True):
    """Where to go on reading: `after` a sequence number, `at` one, at a time, or from the trim
    horizon.

    `skip`: of the record `at` a sequence number, so many events are done already. Only an operator
    (a seek, an import of sub-sequence numbers) makes an `at`; what we commit ourselves is `after`.
    """

    kind: Literal["after", "at", "at_time", "trim_horizon", "end"]
    value: str = ""  # sequence number, or milliseconds as decimal digits
    skip: int = 0

    def __str__(self) -> str:
        text = f"{self.kind}:{self.value}" if self.value else self.kind
        return f"{text}+{self.skip}" if self.skip else text


TRIM_HORIZON = Position("trim_horizon")
END = Position("end")


class Page(Struct, frozen=True):
    """What one read of a shard gave, in columns of equal length n.

    `children` is None while the shard goes on, else the shards that follow it (this was the last
    page). `millis_behind` is the service's MillisBehindLatest, `date_ms` its `Date` header;
    `errors` counts the requests that failed since the page before. Where records hold several
    events, a page of events repeats their record's sequence number.
    """

    payloads: list[bytes]
    sequence_numbers: list[str]
    partition_keys: list[str]
    arrivals_ms: Ints  # int64[n]
    millis_behind: int
    date_ms: int
    children: tuple[Shard, ...] | None = None
    errors: int = 0
    indexes: list[int] | None = None  # each event's place in its record; None: they are records

    def __len__(self) -> int:
        return len(self.payloads)


Fact = Literal["idle", "quiet", "stalled", "instructed"]


class Mark(Struct, frozen=True):
    """A decision that a clock or a failure forced, as data: committed first, applied after.

    It holds at `position`: after the last record taken, and before the next. `fact` is one of

    idle        the watermark of a shard without records moves to `watermark_ms`
    quiet       global rules without an open window need not wait for this shard until its next
                record
    stalled     global rules go on without the shard `shard_id` ("": without those that never
                came), as far as it still is at `watermark_ms` or behind it; their results are
                incomplete
    instructed  somebody asked for `payload`, an instruction (see `core.instructions`)
    """

    position: Position
    fact: Fact
    watermark_ms: int
    shard_id: str = ""
    payload: str = ""


# ---- what a shard yields --------------------------------------------------------------------


class Reject(Struct, frozen=True):
    """A record that can't be processed: a value, never an exception."""

    index: int  # in its page
    reason: str  # one of a short list, fit for a metric's label
    detail: str  # a sentence that names the field and the value


class DerivedEvent(Struct, frozen=True):
    """One event to publish. Same id, same bytes: a repeat is harmless."""

    id: str
    sink: str
    source: str
    detail_type: str
    time_ms: int
    detail: bytes  # JSON
    group: str  # rule and key: the order within it is kept
    arrival_ms: int  # arrival of the record that closed the window, for latency


class Partial(Struct, frozen=True):
    """What a shard tells of one bucket of a global rule's groups, for the merge stream.

    Those of one bucket are to be put in this order, each once the one before it was accepted. The
    same `body` again is harmless. See `core.merge.partials`.
    """

    shard_id: str  # the shard that tells it: the record's PartitionKey
    bucket: int
    hash_key: int  # where the record is to go: its ExplicitHashKey
    body: bytes


class DeadLetter(Struct, frozen=True):
    """A record or an event that could not be processed, with why. `id` repeats on a repeat."""

    id: str
    reason: str
    detail: str
    payload: bytes
    shard_id: str = ""
    sequence_number: str = ""
    partition_key: str = ""
    arrival_ms: int = 0
    attempts: int = 1


class Counts(Struct):
    """What happened in one step, for metrics; dicts are by rule, reason or detail type."""

    records: int = 0
    payload_bytes: int = 0
    counted: int = 0  # in at least one window
    duplicates: int = 0
    outside_range: int = 0  # of aggregates, by their own key; whether dropped is the source's say
    late: int = 0  # records that came too late for every rule that wanted them
    unmatched: int = 0  # records that no rule wanted
    late_by_rule: dict[str, int] = {}
    evicted: dict[str, int] = {}  # keys
    forgotten: dict[str, int] = {}  # keys
    overflowed: dict[str, int] = {}  # records whose key was one too many
    rejects: dict[str, int] = {}
    windows_closed: int = 0
    anomalies: dict[tuple[str, str, str], int] = {}  # (rule, detector, state)
    untold: dict[tuple[str, str], int] = {}  # alarms that opened without an event: (rule, why)


class Step(Struct, frozen=True):
    """What one page, mark or end of a shard yields; effects happen in this order, then a commit."""

    events: list[DerivedEvent]
    dead_letters: list[DeadLetter]
    counts: Counts
    partials: list[Partial] = []


# ---- columns: what plug-ins declare ---------------------------------------------------------


class Column(NamedTuple):
    """One column of state that a plug-in declares and the engine owns; `fill` is a fresh row."""

    name: str
    dtype: str  # a numpy type such as "<f8"; little-endian, so that snapshots travel
    fill: float = 0
    width: int = 1  # more than 1: a row is an array of that length


class CellSpec(NamedTuple):
    """Sparse memory that an aggregator declares: (slot, cell) → int64 ≥ 0, owned by the engine.

    `combine`: what two values of one cell make: their sum, the larger, or the larger of each of
    their eight bytes. `is_keyed`: cells are texts or integers instead of numbers below 2^40.
    """

    name: str
    combine: Literal["add", "max", "bytes"] = "add"
    is_keyed: bool = False


State = Mapping[str, npt.NDArray[Any]]
