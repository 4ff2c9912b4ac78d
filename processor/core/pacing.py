"""When a shard may be read again, and how much at once.

Kinesis allows 5 GetRecords a second and 2 MB/s a shard, for all consumers together; we take four
fifths. Rules (SEMANTICS §1):

    budget      a token bucket that holds one token: reads are at least 1/rate apart
    throttled   rate × 0.5, not under 0.5/s; each 10 s without another throttle give back 0.25/s
    failed      full jitter: anywhere between at once and 100 ms, 200 ms, … 10 s later
    caught up   250 ms after the answer; each further empty answer a quarter later, up to 1 s
    behind      at once within the budget, after an empty page too
    page        what the shard can give in the time between two reads, in records of the size seen
                lately: a page of 1,000 is twice as cheap a record as one of 10,000

One token, because a bucket of two would allow six reads in a second. `now` is monotonic seconds;
`jitter` is drawn by the shell, uniformly from [0, 1).
"""

from __future__ import annotations

from msgspec import Struct


class Pace(Struct, frozen=True):
    """The figures; the defaults are the service's limits less a fifth for other consumers."""

    reads_per_s: float = 4.0
    reads_per_s_min: float = 0.5
    recovery_reads_per_s: float = 0.25  # given back at each step
    recovery_s: float = 10.0
    caught_up_s: float = 0.25
    caught_up_s_max: float = 1.0
    caught_up_growth: float = 1.25
    backoff_s: float = 0.1
    backoff_s_max: float = 10.0
    shard_bytes_per_s: int = 2 * 1024 * 1024  # what a shard gives to all its polling consumers
    records_min: int = 1_000
    records_max: int = 10_000  # the service's own
    page_bytes_max: int = 4 * 1024 * 1024  # 2 s of a shard; the service's 10 MiB block it for 5 s


# How much a page's mean record size counts in the running mean: five pages make the most of it.
_NEWEST = 0.2


class Pacing:
    """One shard's reading in time. Facts go in by `on_*`; `next_at` and `limit` ask."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._rate = pace.reads_per_s
        self._rate_at = now  # of the last throttle, or of the last step of recovery
        self._requested_at: float | None = None
        self._ready_at = now
        self._caught_up_s = pace.caught_up_s
        self._failures = 0
        self._record_bytes = 0.0  # running mean; 0: no record seen yet

    def __repr__(self) -> str:
        return (
            f"<Pacing {self._rate:g} reads/s, {self._failures} failures in a row,"
            f" {self._record_bytes:.0f} B a record>"
        )

    @property
    def reads_per_s(self) -> float:
        return self._rate

    def next_at(self, now: float) -> float:
        """When the next read may start: `now` or earlier means at once."""
        self._recover(now)
        if self._requested_at is None:
            return self._ready_at
        return max(self._ready_at, self._requested_at + 1 / self._rate)

    def limit(self, bytes_max: int) -> int:
        """How many records to ask for, when memory allows a page of `bytes_max` payload bytes."""
        pace = self._pace
        if not self._record_bytes:
            return pace.records_min
        needed = pace.shard_bytes_per_s / self._rate / self._record_bytes
        fitting = min(pace.page_bytes_max, bytes_max) / self._record_bytes
        return max(1, int(min(max(needed, pace.records_min), fitting, pace.records_max)))

    def page_bytes(self, bytes_max: int) -> int:
        """About how many payload bytes the next page has at most."""
        return int(self.limit(bytes_max) * self._record_bytes)

    def on_request(self, now: float) -> None:
        """A read starts: it takes the token, whatever comes of it."""
        self._requested_at = now

    def on_page(self, records: int, payload_bytes: int, millis_behind: int, now: float) -> None:
        """A good answer came."""
        self._failures = 0
        self._ready_at = now
        if records:
            self._learn(payload_bytes / records)
        if records or millis_behind:
            self._caught_up_s = self._pace.caught_up_s
        if millis_behind == 0:
            self._ready_at = now + self._caught_up_s
        if not records and millis_behind == 0:
            longer_s = self._caught_up_s * self._pace.caught_up_growth
            self._caught_up_s = min(longer_s, self._pace.caught_up_s_max)

    def on_throttle(self, jitter: float, now: float) -> None:
        """The service asked us to slow down."""
        self._recover(now)
        self._rate = max(self._pace.reads_per_s_min, self._rate / 2)
        self._rate_at = now
        self.on_error(jitter, now)

    def on_error(self, jitter: float, now: float) -> None:
        """No answer, or none that is of use."""
        longest_s = min(
            self._pace.backoff_s * 2.0 ** min(self._failures, 30), self._pace.backoff_s_max
        )
        self._failures += 1
        self._ready_at = now + jitter * longest_s

    def _learn(self, record_bytes: float) -> None:
        known = self._record_bytes
        self._record_bytes = known + _NEWEST * (record_bytes - known) if known else record_bytes

    def _recover(self, now: float) -> None:
        pace = self._pace
        steps = int((now - self._rate_at) / pace.recovery_s)
        if steps > 0:
            self._rate = min(pace.reads_per_s, self._rate + steps * pace.recovery_reads_per_s)
            self._rate_at += steps * pace.recovery_s
