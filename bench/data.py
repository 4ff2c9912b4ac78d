"""The workload: seeded events of 213 bytes, 1,000 keys × 5 types, in slight disorder.

All benchmarks share it, so that their figures can be compared.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import orjson
from msgspec import Struct

EVENT_BYTES = 213
TYPES = ("cart.filled", "order.placed", "order.paid", "order.shipped", "order.returned")
START_MS = 1_700_000_000_000
WINDOW_MS = 10_000
OUT_OF_ORDERNESS_MS = 5_000
BEHIND_MAX_MS = 4_000  # of nearly all events: within the out-of-orderness
LATE_SHARE = 0.001
LATE_MS = 30_000  # behind its window's closing for certain


class Workload(Struct, frozen=True):
    """`records` to be measured, after `warm_up` that fill the tables: all keys have come by then.

    Per group that is on average 12 records of warm-up (one in 30,000 groups is missed by it), and
    5 a window.
    """

    records: int = 60_000
    warm_up: int = 60_000
    seed: int = 1
    keys: int = 1_000
    events_per_s: int = 2_500


class Event(NamedTuple):
    payload: bytes
    partition_key: str
    arrival_ms: int


def events(workload: Workload) -> list[Event]:
    """Warm-up and the rest, in order of arrival; the same workload gives the same bytes."""
    rng = random.Random(workload.seed)
    return [_event(rng, workload, i) for i in range(workload.warm_up + workload.records)]


def _event(rng: random.Random, workload: Workload, i: int) -> Event:
    arrival_ms = START_MS + i * 1_000 // workload.events_per_s
    behind_ms = LATE_MS if rng.random() < LATE_SHARE else rng.randrange(BEHIND_MAX_MS)
    store = f"store-{rng.randrange(workload.keys):04d}"
    fields = {
        "id": f"e-{workload.seed:04d}-{i:012d}",
        "at": arrival_ms - behind_ms,
        "type": TYPES[rng.randrange(len(TYPES))],
        "store": store,
        "amount": rng.randrange(100, 20_000) / 100,
        "currency": "EUR",
        "request": f"{rng.getrandbits(64):016x}",
        "customer": f"c-{rng.randrange(10**8):08d}",
        "note": "",
    }
    padding = EVENT_BYTES - len(orjson.dumps(fields))
    fields["note"] = "n" * padding
    return Event(orjson.dumps(fields), store, arrival_ms)
