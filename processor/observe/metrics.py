"""Every metric of the service, as one list; registry and documentation are made from it.

    python -m processor.observe.metrics          prints the list as a Markdown table

A label's values are bounded. Those that stand in the pipeline file (rule, detector, sink) are few
by nature, and series of a shard go with its lease; what comes from outside (reasons, codes, kinds)
is cut off at VALUES_MAX different values a label, and counted as `other` from there on.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import exposition as text
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics

PREFIX = "processor_"
OTHER = "other"
# A rule file has some tens of rules, a service some tens of error codes. Ten times that is an
# attack or a bug, and 500 series of a counter are still no burden to Prometheus.
VALUES_MAX = 500
VALUE_CHARS_MAX = 128  # EventBridge's limit of a detail type, the longest of our labels
SHARD, STREAM = "shard", "stream"

# 1 ms is a fast answer on one machine, 60 s is past every time-out of a request.
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# From one machine's own pace to an outage of an hour. Tail figures stand in /status.
_DELAY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600)
# 1 ms is the timer's own doing; a page of records costs 5 to 50 ms; liveness ends after 10 s.
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metric(Struct, frozen=True):
    """One metric: what it is called without the prefix, and what a reader must know of it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    sentence: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, unit: str, sentence: str, *labels: str) -> Metric:
    return Metric(name, "counter", unit, sentence, labels)


def _gauge(name: str, unit: str, sentence: str, *labels: str) -> Metric:
    return Metric(name, "gauge", unit, sentence, labels)


def _histogram(
    name: str, buckets: tuple[float, ...], sentence: str, labels: tuple[str, ...] = ()
) -> Metric:
    return Metric(name, "histogram", "seconds", sentence, labels, buckets)


METRICS: tuple[Metric, ...] = (
    # intake
    _counter("records_total", "records", "Records processed, repeats after a takeover included."),
    _counter("bytes_total", "bytes", "Payload bytes of the records processed."),
    _counter("counted_total", "records", "Records that are in at least one window."),
    _counter("duplicates_total", "records", "Records dropped because their event id was known."),
    _counter(
        "outside_range_total",
        "events",
        "Events of KPL aggregates whose own key is not their shard's; `source.outside_range`.",
    ),
    _counter("unmatched_total", "records", "Records that no rule wanted."),
    _counter("rejects_total", "records", "Records sent to the dead letters.", "reason"),
    _counter("retention_gaps_total", "gaps", "Times retention took records before they were read."),
    _counter("retention_gap_seconds_total", "seconds", "Arrival time that such gaps span."),
    _gauge(
        "lag_seconds",
        "seconds",
        "How far the last read was behind the tip of the shard (MillisBehindLatest).",
        STREAM,
        SHARD,
    ),
    _gauge(
        "last_read_timestamp_seconds", "seconds", "When the last read was answered.", STREAM, SHARD
    ),
    _histogram("read_duration_seconds", _REQUEST, "Time from a read's request to its answer."),
    _counter(
        "throttled_total", "requests", "Times a service asked to slow down.", "service", "operation"
    ),
    # leases
    _gauge("leases_held", "leases", "Leases that this worker holds.", STREAM),
    _gauge(
        "leases_barred",
        "leases",
        "Free leases that this worker may not claim, as a newer pipeline file holds their state.",
        STREAM,
    ),
    _gauge(
        "pipeline_generation", "files", "This pipeline file's number of those the app ran.", STREAM
    ),
    _gauge(
        "leases_unowned", "leases", "Leases without an owner, as this worker last saw them.", STREAM
    ),
    _gauge(
        "hash_range_holes",
        "ranges",
        "Hash key ranges that no shard has covered for a while.",
        STREAM,
    ),
    _counter(
        "lease_events_total",
        "events",
        "Changes of this worker's leases; `stalled` and `parked` ask for a look.",
        "event",
    ),
    _histogram(
        "handoff_seconds",
        _DELAY,
        "Parts of handing a lease over: until its taker was `ready` (the giver works on), from the"
        " stop of the giver's task to the `release`, and, of every claim, until its state is there"
        " (`load`).",
        ("part",),
    ),
    _histogram("heartbeat_duration_seconds", _REQUEST, "Time that a heartbeat took."),
    _counter("checkpoints_total", "checkpoints", "Checkpoints, by how they ended.", "outcome"),
    _gauge(
        "last_checkpoint_timestamp_seconds",
        "seconds",
        "When the last checkpoint was done.",
        STREAM,
        SHARD,
    ),
    _gauge("snapshot_bytes", "bytes", "Size of the state in the last checkpoint.", STREAM, SHARD),
    # pipeline
    _histogram(
        "stage_seconds",
        _DELAY,
        "Time that a page took until its effects were done (`step`), and a `checkpoint`.",
        ("stage",),
    ),
    _gauge("windows_open", "windows", "Windows of one key that are open, over all shards held."),
    _counter("windows_closed_total", "windows", "Windows of one key that were closed."),
    _counter("late_total", "records", "Records that came after their window had fired.", "rule"),
    _gauge(
        "watermark_lag_seconds", "seconds", "How far event time is behind the clock.", STREAM, SHARD
    ),
    _gauge("groups", "keys", "Keys that a rule knows, over all shards held.", "rule"),
    _counter("groups_evicted_total", "keys", "Keys that went for a new one.", "rule"),
    _counter("groups_forgotten_total", "keys", "Keys that went as they were silent.", "rule"),
    _counter(
        "groups_overflow_total",
        "records",
        "Records of one key more than a rule has room for: in `other`, or dead letters.",
        "rule",
    ),
    _counter(
        "anomalies_total",
        "alarms",
        "Alarms that a detector opened, escalated or resolved.",
        "rule",
        "detector",
        "severity",
        "state",
    ),
    _counter(
        "anomalies_untold_total",
        "alarms",
        "Alarms without an event: `muted`, `expected`, below the `budget`'s bar, `collapsed`.",
        "rule",
        "reason",
    ),
    _gauge("inflight_bytes", "bytes", "Memory taken by pages that are read ahead."),
    # global rules
    _counter("partials_total", "records", "Records that the merge stream took from this worker."),
    _counter("partials_bytes_total", "bytes", "Bytes of those records."),
    _counter("merged_total", "records", "Records of the merge stream that were processed."),
    _counter(
        "left_behind_total",
        "shards",
        "Times that global rules went on without a shard that stood still (`merge.on_stall`).",
    ),
    # output
    _counter("published_total", "events", "Events that a target took.", "sink", "detail_type"),
    _histogram(
        "publish_duration_seconds", _REQUEST, "Time from a put's request to its answer.", ("sink",)
    ),
    _counter("publish_failed_total", "events", "Events that a target refused for good.", "code"),
    _counter(
        "retries_total",
        "requests",
        "Requests (reads) or entries (puts) that go again.",
        "service",
        "reason",
    ),
    _counter("dead_letters_total", "letters", "Dead letters that their queue took.", "reason"),
    _histogram(
        "end_to_end_seconds",
        _DELAY,
        "Time from the arrival of the record that closed a window to the acceptance of its events.",
    ),
    _histogram(
        "close_to_accepted_seconds",
        _DELAY,
        "Time from taking the page that closed a window to the acceptance of its events.",
    ),
    # process
    _counter("errors_total", "errors", "Attempts that failed, by stage and kind.", "stage", "kind"),
    _histogram("loop_lag_seconds", _LAG, "How late the event loop was with a timer."),
    _histogram(
        "collector_pause_seconds",
        _LAG,
        "Pauses of Python's garbage collector, by generation; 2 is a full collection.",
        ("generation",),
    ),
    _gauge("draining", "", "1 while the worker hands its shards over before it ends, else 0."),
    _gauge("build_info", "", "Always 1; the labels say what runs.", "version", "python"),
    _gauge("config_info", "", "Always 1; the hash of the resolved pipeline file.", "hash"),
)
BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
_TYPES = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Metrics:
    """The list as series, in a registry of their own.

    An unknown name, the wrong kind, or labels other than declared are our own mistake:
    AssertionError.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families: dict[str, Any] = {m.name: _family(m, self._registry) for m in METRICS}
        self._values: dict[str, set[str]] = {}  # by label, those that have a series
        self._shards: set[tuple[str, str]] = set()  # of which stream

    def __repr__(self) -> str:
        return f"<Metrics of {len(self._families)} families, shards {sorted(self._shards)}>"

    def of(self, stream: str) -> StreamMetrics:
        """The same metrics, for one who writes of one stream only."""
        return StreamMetrics(self, stream)

    def add(self, name: str, n: float = 1, /, **labels: str) -> None:
        """A counter grows by n."""
        self._series(name, "counter", labels).inc(n)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """A gauge is at value."""
        self._series(name, "gauge", labels).set(value)

    def observe(
        self, name: str, value: float, /, *, trace_id: str | None = None, **labels: str
    ) -> None:
        """A histogram takes a value; the trace is shown beside its bucket in OpenMetrics."""
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        self._series(name, "histogram", labels).observe(value, exemplar)

    def keep_shards(self, stream: str, held: Collection[str]) -> None:
        """Remove the series of all the stream's shards but these: the others' leases went."""
        for shard_id in [shard_id for of, shard_id in self._shards if of == stream]:
            if shard_id not in held:
                self.forget_shard(stream, shard_id)

    def forget_shard(self, stream: str, shard_id: str) -> None:
        """Remove a shard's series; an unknown one is no error."""
        self._shards.discard((stream, shard_id))
        for metric in METRICS:
            if SHARD in metric.labels:
                labels = {STREAM: stream, SHARD: shard_id}
                self._families[metric.name].remove_by_labels(labels)

    def text(self) -> bytes:
        """All series as Prometheus text (`TEXT_TYPE`)."""
        return text.generate_latest(_WithoutCreated(self._registry))

    def openmetrics(self) -> bytes:
        """All series as OpenMetrics (`OPENMETRICS_TYPE`), with exemplars and times of creation."""
        exposed: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
        return exposed

    def _series(self, name: str, kind: str, labels: Mapping[str, str]) -> Any:
        metric = BY_NAME.get(name)
        assert metric is not None, f"metric {name} is not in METRICS"
        assert metric.kind == kind, f"metric {name} is a {metric.kind}, not a {kind}"
        assert set(labels) == set(metric.labels), f"metric {name} has labels {metric.labels}"
        family = self._families[name]
        if not labels:
            return family
        if SHARD in labels:
            self._shards.add((labels[STREAM], labels[SHARD]))
        return family.labels(**{label: self._bounded(label, labels[label]) for label in labels})

    def _bounded(self, label: str, value: str) -> str:
        if label in (SHARD, STREAM):  # they go with their leases, and a process reads two streams
            return value
        known = self._values.setdefault(label, set())
        if value not in known:
            if len(known) >= VALUES_MAX or not 0 < len(value) <= VALUE_CHARS_MAX:
                return OTHER
            known.add(value)
        return value


class StreamMetrics:
    """`Metrics` where the label `stream` is known: left out by the caller, set where it belongs."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self.stream = stream
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<StreamMetrics of {self.stream}>"

    def add(self, name: str, n: float = 1, /, **labels: str) -> None:
        self._metrics.add(name, n, **self._labels(name, labels))

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self._metrics.set(name, value, **self._labels(name, labels))

    def observe(
        self, name: str, value: float, /, *, trace_id: str | None = None, **labels: str
    ) -> None:
        self._metrics.observe(name, value, trace_id=trace_id, **self._labels(name, labels))

    def keep_shards(self, held: Collection[str]) -> None:
        self._metrics.keep_shards(self.stream, held)

    def forget_shard(self, shard_id: str) -> None:
        self._metrics.forget_shard(self.stream, shard_id)

    def _labels(self, name: str, labels: dict[str, str]) -> dict[str, str]:
        metric = BY_NAME.get(name)
        if metric is not None and STREAM in metric.labels:
            return {STREAM: self.stream, **labels}
        return labels


TEXT_TYPE = text.CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS_TYPE = openmetrics.CONTENT_TYPE_LATEST


class _WithoutCreated:
    """A registry without `_created`, which text shows as a second gauge for each series."""

    def __init__(self, registry: CollectorRegistry):
        self._registry = registry

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def _family(metric: Metric, registry: CollectorRegistry) -> Any:
    options = {"buckets": metric.buckets} if metric.buckets else {}
    return _TYPES[metric.kind](
        PREFIX + metric.name, metric.sentence, metric.labels, registry=registry, **options
    )


def document() -> str:
    """The list as a Markdown table."""
    lines = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{PREFIX}{metric.name}`", metric.kind, metric.unit, labels, metric.sentence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
