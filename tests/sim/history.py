"""What one seed stands for: records, reshards, faults and deploys, each with its moment.

Everything here is drawn from the seed alone, before anything runs. Seconds are the world's. A seed
that is odd has global rules beside the others, and a merge stream that is cut as well.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any, Literal, NamedTuple
from zlib import crc32

from processor.core.plan import Plan, compile
from processor.local.kinesis_stream import hash_key_of
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    MergeSpec,
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


class RuleSaid(NamedTuple):
    """A rule, as the truth knows it: what it counts, of which field's values, in which windows."""

    name: str
    type: str
    field: str  # "": all in one group
    size_ms: int
    every_ms: int = 0  # of hopping windows; else they follow one another

    def starts_ms(self, at_ms: int) -> list[int]:
        """Of the windows that hold that time, first to last."""
        every_ms = self.every_ms or self.size_ms
        last_ms = at_ms // every_ms * every_ms
        return list(range(last_ms - self.size_ms + every_ms, last_ms + 1, every_ms))

    def unit_ms(self, at_ms: int) -> int:
        """The start of what windows are made of."""
        return at_ms - at_ms % (self.every_ms or self.size_ms)

    @property
    def window(self) -> WindowSpec:
        if self.every_ms:
            return WindowSpec(self.size_ms, kind="hopping", every_ms=self.every_ms)
        return WindowSpec(self.size_ms)

    @property
    def is_global(self) -> bool:
        return self.field != "key"


SHARD_RULES = (
    RuleSaid("orders", "order", "key", 60_000),
    RuleSaid("payments", "payment", "key", 90_000),
    RuleSaid("views", "view", "key", 60_000),
)
# A region is independent of the key, so its records are on all shards. Their windows end together
# with those of the rule by key, before them, and after them.
GLOBAL_RULES = (
    RuleSaid("regions", "order", "region", 60_000),
    RuleSaid("takings", "payment", "", 30_000),
    RuleSaid("glances", "view", "region", 120_000, every_ms=60_000),
)
REGIONS = 7
BUCKETS = 2
CHANGED = frozenset(("payments", "takings"))  # what starts anew with the next release
CONVERTED = frozenset(("views",))  # what goes on with its state as another version

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
    """`merge_shards`: of the stream where global rules meet; 0 where there are none."""

    seed: int
    workers: int
    shards: int
    drift: float  # a clock may be so much too fast or too slow
    checkpoint_ms: int
    lulls: tuple[Lull, ...]
    puts: tuple[Put, ...]
    reshards: tuple[Reshard, ...]
    merge_shards: int
    merge_reshards: tuple[Reshard, ...]

    @property
    def rules(self) -> tuple[RuleSaid, ...]:
        return SHARD_RULES + GLOBAL_RULES if self.merge_shards else SHARD_RULES


@cache
def plan_of(checkpoint_ms: int, is_global: bool = False, changed: bool = False) -> Plan:
    """The pipeline. `changed` is the next release's: `orders` and `regions` are the same, what is
    CHANGED starts anew, and `views` goes on with its state under another threshold."""
    total = AggregateSpec("total", "sum", "value")
    other = AggregateSpec("lowest", "min", "value") if changed else HIGHEST
    orders, payments, views = SHARD_RULES
    rules = [
        _rule(orders, total),
        _rule(payments, other),
        _rule(views, HIGHEST, {"above": 6 if changed else 5}),
    ]
    if is_global:
        regions, takings, glances = GLOBAL_RULES
        rules += [_rule(regions, total), _rule(takings, other), _rule(glances, HIGHEST)]
    return compile(
        Pipeline(
            "sim",
            SourceSpec("ticks"),
            EventSpec("id", "at", "ms", "key", out_of_orderness_ms=OUT_OF_ORDERNESS_MS),
            {},
            tuple(rules),
            StateSpec("table", checkpoint_ms=checkpoint_ms),
            DeadLetterSpec("dead"),
            merge=MergeSpec("partials", BUCKETS) if is_global else None,
        )
    )


def _rule(
    said: RuleSaid, aggregate: AggregateSpec, threshold: dict[str, Any] | None = None
) -> RuleSpec:
    return RuleSpec(
        said.name,
        {"type": [said.type]},
        (said.field,) if said.field else (),
        said.window,
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
        **_merging(seed),
    )


def _merging(seed: int) -> dict[str, Any]:
    rng = random.Random(f"merging/{seed}")
    if seed % 2 == 0:
        return {"merge_shards": 0, "merge_reshards": ()}
    reshards = _reshards(rng)[: rng.choice((0, 1, 1, 2))]
    return {"merge_shards": rng.choice((1, 2, 2, 3)), "merge_reshards": reshards}


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
    region = crc32(id_.encode()) % REGIONS
    payload = (
        f'{{"id":"{id_}","type":"{type_}","key":"{key}","region":"r{region}",'
        f'"at":{at_ms},"value":{value}}}'
    )
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
