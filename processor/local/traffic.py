"""The demo's traffic: a fortnight of eight stores, with anomalies planted, as a function of a seed.

    plan = plan_traffic(seed=1, end_ms=..., duration_s=60)
    plan.shards[i]   what shard i gets, in this order; each record says what must become of it

Fates hold by the order within a shard alone, however it is cut into batches and whenever it is
sent. With 30 minutes of out-of-orderness a watermark runs 30 minutes behind the shard's largest
time so far:

    counted    at most 15 minutes (JITTER) behind it, so always ahead of the watermark
    late       4 to 10 hours behind it: even its longest window (3 h) closed half an hour earlier
    duplicate  a counted record's bytes, within 2 hours after it: inside the horizon of 6 hours
    broken     no time of its own, or one that is refused, so it moves no watermark

So does a shard's share of the plan when the shard is split, and a union of shares that is in order
of due times when shards are merged: a store's own records alone tell the time to within JITTER.

The truth about each is a `check.Sent`; the check adds them up by itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from processor.local.broken import BROKEN_KINDS
from processor.local.check import DAY_MS, HOUR_MS, Planted, Sent

SPAN_MS = 14 * DAY_MS
MINUTE_MS = 60_000
SHARDS = 4
STORES = ("sofia", "perth", "lima", "cairo", "oslo", "quito", "kyoto", "tunis")  # two a shard
REGIONS = ("emea", "apac", "americas", "emea", "emea", "americas", "apac", "emea")  # by store
RATE_PER_S = 2_000  # of real time: half of what four shards take, so that anomalies fit as well
PEAK_HOUR, RHYTHM = 14, 0.6  # the daily rhythm: ± 60 %, most at 14:00 UTC
JITTER_MS = 15 * MINUTE_MS
PAYMENT_SHARE = 0.35  # 15.6 payments an hour and store, 25 at the peak: see demo.yaml for why
FAILED_SHARE, FAILED_SHARE_PLANTED = 0.03, 0.5
BROKEN, DUPLICATES, LATE = 0.001, 0.005, 0.003  # shares of all records
DUPLICATE_WITHIN_MS = 2 * HOUR_MS
LATE_MIN_MS, LATE_MAX_MS = 4 * HOUR_MS, 10 * HOUR_MS
EDGE_MS = 1_000  # no late record is that near to a window's edge
PLANTED_FROM_MS = 8 * DAY_MS  # day 9
CENTS_MIN, CENTS_MEDIAN, CENTS_SIGMA = 100, 2_500, 0.6  # amounts of 1.00 and more, log-normal

_Ints = npt.NDArray[np.int64]
_Rng = np.random.Generator


class Record(NamedTuple):
    """One record to put: when (in the fortnight's time), under which key, and its truth."""

    due_ms: int
    store: str
    payload: bytes
    sent: Sent


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a run's traffic, by shard."""

    seed: int
    start_ms: int
    end_ms: int
    duration_s: float
    shards: tuple[tuple[Record, ...], ...]
    planted: tuple[Planted, ...]

    def due_s(self, due_ms: int) -> float:
        """When a record is due, in seconds since the traffic began."""
        return (due_ms - self.start_ms) * self.duration_s / (self.end_ms - self.start_ms)

    @property
    def total(self) -> int:
        return sum(map(len, self.shards))


def fortnight_end_ms(now_ms: int) -> int:
    """Two hours ago, rounded down to the hour."""
    return (now_ms - 2 * HOUR_MS) // HOUR_MS * HOUR_MS


def hash_of(store: str) -> int:
    """The hash key under which Kinesis puts a store's records."""
    return int.from_bytes(hashlib.md5(store.encode(), usedforsecurity=False).digest(), "big")


def shard_of(store: str) -> int:
    """Kinesis gives a record to the shard whose even share of MD5's range holds its key's hash."""
    return hash_of(store) * SHARDS >> 128


def flush_record(at_ms: int, store: str) -> bytes:
    """A record that no rule counts; its time closes every window that ends before it."""
    return orjson.dumps({"id": f"flush-{store}", "type": "flush", "at": at_ms, "store": store})


def flush_ms(end_ms: int) -> int:
    """An hour past the end: with 30 minutes of out-of-orderness all is closed up to the end."""
    return end_ms + HOUR_MS


def plan_traffic(seed: int, end_ms: int, duration_s: float, rate_per_s: float = RATE_PER_S) -> Plan:
    """The whole plan: exactly `duration_s * rate_per_s` records, alike for alike arguments."""
    rng = np.random.default_rng(seed)
    total = round(duration_s * rate_per_s)
    start_ms = end_ms - SPAN_MS
    planted = _plant(rng, start_ms, end_ms)
    counts = [math.ceil(total * share) for share in (BROKEN, DUPLICATES, LATE)]
    base = _base_events(rng, total - sum(counts), start_ms, planted)
    makers = (_broken, _duplicates, _late)
    extra = [
        record
        for maker, count in zip(makers, counts, strict=True)
        for record in maker(rng, count, base, end_ms)
    ]
    by_due = sorted([*base, *extra], key=lambda record: record.due_ms)  # stable: originals first
    shards = tuple(
        tuple(record for record in by_due if shard_of(record.store) == shard)
        for shard in range(SHARDS)
    )
    return Plan(seed, start_ms, end_ms, duration_s, shards, planted)


# ---- anomalies ------------------------------------------------------------------------------


def _plant(rng: _Rng, start_ms: int, end_ms: int) -> tuple[Planted, ...]:
    """Each on a store and from day 9 on, at hours with enough traffic to tell."""
    first = -(-(start_ms + PLANTED_FROM_MS) // DAY_MS) * DAY_MS  # the midnight (UTC) from which
    days = [first + i * DAY_MS for i in range((end_ms - first) // DAY_MS)]
    surge, silence, failing, drift = (str(name) for name in rng.permutation(STORES)[:4])

    def plant(name: str, detector: str, store: str, hours: tuple[int, int]) -> Planted:
        whole_days = -(-hours[1] // 24)
        day = days[int(rng.integers(len(days) - whole_days + 1))]
        begin, end = (day + hour * HOUR_MS for hour in hours)
        return Planted(name, detector, store, begin, end)

    hour = int(rng.integers(11, 17))
    return (
        plant("surge", "novelty", surge, (hour, hour + 1)),
        plant("silence", "absence", silence, (12, 14)),
        plant("failing", "threshold", failing, (11, 17)),
        plant("drift", "novelty", drift, (0, 48)),
    )


def _factor(one: Planted, minutes: _Ints) -> npt.NDArray[np.float64]:
    """By how much an anomaly multiplies its store's traffic, minute by minute."""
    inside = (minutes >= one.start_ms) & (minutes < one.end_ms)
    progress = (minutes - one.start_ms) / (one.end_ms - one.start_ms)
    drift: npt.NDArray[np.float64] = 1.0 + 2.0 * progress
    shapes = {"surge": 4.0, "silence": 0.0, "failing": 1.0}
    factor: npt.NDArray[np.float64] = np.where(inside, shapes.get(one.name, drift), 1.0)
    return factor


# ---- records --------------------------------------------------------------------------------


def _weights(start_ms: int, planted: Sequence[Planted]) -> npt.NDArray[np.float64]:
    """float64[store, minute]: how likely an event falls there, up to a constant."""
    minutes = np.arange(start_ms, start_ms + SPAN_MS, MINUTE_MS)
    hours = minutes / HOUR_MS - PEAK_HOUR
    weights = np.tile(1 + RHYTHM * np.cos(2 * np.pi * hours / 24), (len(STORES), 1))
    for one in planted:
        weights[STORES.index(one.store)] *= _factor(one, minutes)
    return weights


def _base_events(rng: _Rng, count: int, start_ms: int, planted: Sequence[Planted]) -> list[Record]:
    """`count` events that count, spread as a Poisson process with the weights would."""
    weights = _weights(start_ms, planted)
    per_minute = rng.multinomial(count, (weights / weights.sum()).ravel())
    cells = np.repeat(np.arange(weights.size), per_minute)
    stores, minutes = np.divmod(cells, weights.shape[1])
    at = start_ms + minutes * MINUTE_MS + rng.integers(MINUTE_MS, size=count)
    due = at + rng.integers(JITTER_MS, size=count)
    is_payment = rng.random(count) < PAYMENT_SHARE
    cents = rng.lognormal(math.log(CENTS_MEDIAN), CENTS_SIGMA, count).astype(np.int64)
    amounts = np.maximum(cents, CENTS_MIN) / 100
    failed = rng.random(count) < FAILED_SHARE
    for one in planted:
        if one.name == "failing":
            hit = (stores == STORES.index(one.store)) & (at >= one.start_ms) & (at < one.end_ms)
            failed = np.where(hit, rng.random(count) < FAILED_SHARE_PLANTED, failed)
    columns = (due, stores, at, is_payment, amounts, failed, rng.integers(5_000, size=count))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [_event(f"e-{i:07d}", *row) for i, row in enumerate(rows)]


def _event(
    id_: str,
    due_ms: int,
    store_index: int,
    at_ms: int,
    is_payment: bool,
    amount: float,
    failed: bool,
    user: int,
) -> Record:
    store = STORES[store_index]
    region = REGIONS[store_index]
    body = _body(id_, "order.placed", at_ms, store, user, amount)
    what = "order"
    if is_payment:
        what = "payment"
        body["type"] = "payment.failed" if failed else "payment.settled"
        body["failed"] = int(failed)
    sent = Sent(id_, "counted", what, store, at_ms, amount, int(failed), region)
    return Record(due_ms, store, orjson.dumps(body), sent)


def _body(id_: str, type_: str, at_ms: int, store: str, user: int, amount: float) -> dict[str, Any]:
    return {
        "id": id_,
        "type": type_,
        "at": at_ms,
        "store": store,
        "region": REGIONS[STORES.index(store)],
        "user": f"u-{user}",
        "amount": amount,
        "correlation_id": f"c-{id_}",
    }


def _duplicates(rng: _Rng, count: int, base: Sequence[Record], end_ms: int) -> list[Record]:
    """Copies of different records, each sent again within two hours and before the end."""
    last_ms = end_ms + JITTER_MS
    originals = [base[i] for i in rng.choice(len(base), size=count, replace=False)]
    out = []
    for record, share in zip(originals, rng.random(count), strict=True):
        span = min(DUPLICATE_WITHIN_MS, last_ms - record.due_ms)
        due_ms = record.due_ms + math.ceil(float(share) * span)
        out.append(record._replace(due_ms=due_ms, sent=record.sent._replace(fate="duplicate")))
    return out


def _late(rng: _Rng, count: int, base: Sequence[Record], end_ms: int) -> list[Record]:
    """New events, each placed behind one that its shard has already passed by hours."""
    out = []
    latest = _latest_times(base)
    # Half a day after the beginning there is something to be late for.
    begin_ms = end_ms - SPAN_MS + DAY_MS // 2
    places = [i for i, record in enumerate(base) if record.due_ms >= begin_ms]
    chosen = rng.choice(len(places), size=count, replace=False)
    behind = rng.integers(LATE_MIN_MS, LATE_MAX_MS, size=count)
    for n, (place, behind_ms) in enumerate(zip(chosen.tolist(), behind.tolist(), strict=True)):
        leader = base[places[place]]
        at_ms = _off_the_edge(latest[places[place]] - behind_ms)
        is_payment = leader.sent.what == "payment"
        store = STORES.index(leader.store)
        late = _event(
            f"l-{n:07d}", leader.due_ms, store, at_ms, is_payment, leader.sent.amount, False, n
        )
        out.append(late._replace(sent=late.sent._replace(fate="late")))
    return out


def _latest_times(base: Sequence[Record]) -> dict[int, int]:
    """For each event, the largest event time that its shard has had when it comes."""
    latest = [0] * SHARDS
    out = {}
    for i in sorted(range(len(base)), key=lambda i: base[i].due_ms):
        shard = shard_of(base[i].store)
        latest[shard] = max(latest[shard], base[i].sent.at_ms)
        out[i] = latest[shard]
    return out


def _off_the_edge(at_ms: int) -> int:
    """A time a little earlier if need be, so that no window's edge is within a second.

    Every window is a multiple of ten minutes long, and so is every edge.
    """
    within = at_ms % (10 * MINUTE_MS)
    if within <= EDGE_MS:
        return at_ms - within - EDGE_MS - 1
    return at_ms - EDGE_MS if within >= 10 * MINUTE_MS - EDGE_MS else at_ms


def _broken(rng: _Rng, count: int, base: Sequence[Record], end_ms: int) -> list[Record]:
    """Each kind in turn, beside randomly chosen good ones."""
    kinds = list(BROKEN_KINDS.values())
    out = []
    for n, place in enumerate(rng.choice(len(base), size=count, replace=False).tolist()):
        near = base[place]
        id_ = f"b-{n:07d}"
        body = _body(id_, "order.placed", near.sent.at_ms, near.store, n, near.sent.amount)
        payload = kinds[n % len(kinds)](body, end_ms)
        out.append(Record(near.due_ms, near.store, payload, Sent(id_, "broken")))
    return out
