"""What one seed stands for: records, reshards, faults and deploys, each with its moment.

Everything here is drawn from the seed alone, before anything runs. Seconds are the world's.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Literal, NamedTuple

from processor.core.plan import Plan, compile
from processor.local.kinesis_stream import hash_key_of
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    Pipeline,
    RuleSpec,
    SourceSpec,
    StateSpec,
    WindowSpec,
)
from tests.virtual_time import START_MS

RECORDS_UNTIL_S = 400.0
FAULTS_UNTIL_S = 410.0
OWNED_BY_S = 470.0  # every readable shard: a minute after the last fault
CLOSING_S = 530.0  # one more worker starts, then the others leave in good order
CLOSING_S_MAX = 700.0  # not before all windows closed: a hand-off makes idleness begin anew
SWEPT_S = 40.0  # all of it claimed, and swept
END_S = 600.0
OUT_OF_ORDERNESS_MS = 5_000
KEYS = tuple(f"k{i}" for i in range(16))
HASHES = {key: hash_key_of(key) for key in KEYS}
TYPES = ("order", "order", "payment", "view", "other")  # nobody wants the last
HIGHEST = AggregateSpec("highest", "max", "value")
SIZES_MS = {
    "order": 60_000,
    "payment": 90_000,
    "view": 60_000,
}  # windows by type; other types have none

ReshardKind = Literal["split", "merge", "scale"]


class Put(NamedTuple):
    """One record: when it is put, under which key, and what it says; no type: it is broken."""

    at_s: float
    key: str
    payload: bytes
    type: str = ""
    at_ms: int = 0  # its event time


class Lull(NamedTuple):
    """Keys whose hash lies in that range have no records for a while: their shards become idle."""

    from_s: float
    to_s: float
    first: int
    last: int


class Reshard(NamedTuple):
    at_s: float
    kind: ReshardKind
    draw: float  # in [0, 1): which shard, and where it is cut


class History(NamedTuple):
    seed: int
    workers: int
    shards: int
    drift: float  # a clock may be so much too fast or too slow
    checkpoint_ms: int
    lulls: tuple[Lull, ...]
    puts: tuple[Put, ...]
    reshards: tuple[Reshard, ...]


@cache
def plan_of(checkpoint_ms: int, changed: bool = False) -> Plan:
    """The pipeline. `changed` is the next release's: `orders` is the same, `payments` starts anew,
    and `views` goes on with its state under another threshold."""
    payment = AggregateSpec("lowest", "min", "value") if changed else HIGHEST
    rules = (
        _rule("orders", "order", AggregateSpec("total", "sum", "value")),
        _rule("payments", "payment", payment),
        _rule("views", "view", HIGHEST, {"above": 6 if changed else 5}),
    )
    return compile(
        Pipeline(
            "sim",
            SourceSpec("ticks"),
            EventSpec("id", "at", "ms", "key", out_of_orderness_ms=OUT_OF_ORDERNESS_MS),
            {},
            rules,
            StateSpec("table", checkpoint_ms=checkpoint_ms),
            DeadLetterSpec("dead"),
        )
    )


def _rule(
    name: str, type_: str, aggregate: AggregateSpec, threshold: dict[str, Any] | None = None
) -> RuleSpec:
    return RuleSpec(
        name,
        {"type": [type_]},
        ("key",),
        WindowSpec(SIZES_MS[type_]),
        (AggregateSpec("n", "count"), aggregate),
        (DetectSpec("threshold", "threshold", "n", threshold),) if threshold else (),
        emit_windows="bus",
        emit_anomalies="bus",
    )


def history(seed: int) -> History:
    rng = random.Random(f"history/{seed}")
    lulls = tuple(_lull(rng) for _ in range(3))
    return History(
        seed,
        workers=rng.choice((3, 3, 3, 4)),
        shards=rng.choice((4, 4, 5)),
        drift=rng.choice((0.0, 0.001, 0.01)),
        checkpoint_ms=rng.choice((5_000, 8_000, 10_000, 15_000)),
        lulls=lulls,
        puts=_puts(rng, lulls),
        reshards=_reshards(rng),
    )


# ---- records --------------------------------------------------------------------------------


def _puts(rng: random.Random, lulls: tuple[Lull, ...]) -> tuple[Put, ...]:
    """Batches every few seconds. Some records are broken, some come twice."""
    puts: list[Put] = []
    at_s, number = 2.0, 0
    while at_s < RECORDS_UNTIL_S:
        for _ in range(rng.randrange(14, 34)):
            key = rng.choice(KEYS)
            if any(_is_quiet(key, at_s, lull) for lull in lulls):
                continue
            number += 1
            puts.append(_put(rng, puts, at_s, key, number))
        at_s += rng.uniform(2.0, 5.0)
    return tuple(puts)


def _lull(rng: random.Random) -> Lull:
    from_s = rng.uniform(60, 290)
    first = rng.randrange(4) * 2**126
    return Lull(from_s, from_s + rng.uniform(50, 90), first, first + 2**126 + 2**125)


def _is_quiet(key: str, at_s: float, lull: Lull) -> bool:
    return lull.from_s <= at_s < lull.to_s and lull.first <= HASHES[key] <= lull.last


def _put(rng: random.Random, before: list[Put], at_s: float, key: str, number: int) -> Put:
    draw = rng.random()
    if draw < 0.02 and len(before) > 50:
        old = before[-rng.randrange(1, 50)]
        return old._replace(at_s=at_s)
    if draw < 0.03:
        return Put(at_s, key, b'{"id":"broken%d"' % number)
    behind_s = rng.uniform(0, 4.9) if draw < 0.5 else 0.0
    type_ = rng.choice(TYPES)
    at_ms = START_MS + int((at_s - behind_s) * 1000)
    return record(at_s, key, f"e{number}", type_, at_ms, rng.randrange(1, 1000))


def record(at_s: float, key: str, id_: str, type_: str, at_ms: int, value: int) -> Put:
    payload = f'{{"id":"{id_}","type":"{type_}","key":"{key}","at":{at_ms},"value":{value}}}'
    return Put(at_s, key, payload.encode(), type_, at_ms)


# ---- reshards -------------------------------------------------------------------------------


def _reshards(rng: random.Random) -> tuple[Reshard, ...]:
    """Two to four, some of them one upon the other."""
    made: list[Reshard] = []
    at_s = rng.uniform(30, 150)
    for _ in range(rng.choice((2, 3, 3, 4))):
        kind: ReshardKind = rng.choice(("split", "split", "merge", "merge", "scale"))
        made.append(Reshard(at_s, kind, rng.random()))
        at_s += rng.choice((rng.uniform(0.5, 15), rng.uniform(30, 100)))
    return tuple(one for one in made if one.at_s < RECORDS_UNTIL_S - 20)
