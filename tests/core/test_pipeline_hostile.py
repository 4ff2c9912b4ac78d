"""The promise under hostile input: whatever records and states hold, nothing breaks.

Records are put together from values of every kind and size; states are damaged ones.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.core.snapshots import SNAPSHOT_VERSION
from processor.errors import StateUnreadable
from processor.model import AggregateSpec, Mark, Page, Position, Shard, WindowSpec
from tests.core import streams
from tests.core.streams import MINUTE_MS, START_MS, Record

NOW_MS = START_MS
MINUTE = NOW_MS // MINUTE_MS * MINUTE_MS
BIG = "1" + "0" * 400

# What a field may hold, as JSON text; an empty one leaves it out.
KEYS = ['"a"', '"b"', "1", '"1"', "-1", "0", '"__other__"', '""', '"é"', '"\\u0000"']
KEYS += ["null", "", "1.5", "true", BIG, '"%s"' % ("x" * 600), '"\\ud800"', "[]"]
TIMES = [str(NOW_MS + ms) for ms in (0, 1, 999, -4_999, -5_001, 59_999, 60_001, 3_600_000)]
TIMES += [str(MINUTE + ms) for ms in (-1, 0, 1, 59_999, 60_000, -MINUTE_MS, 10 * MINUTE_MS)]
TIMES += ["0", "1", "-1", "-0.0", "1.5", "1e308", "1e400", BIG, "null", "", '"now"']
TIMES += [str(NOW_MS + 3_600_001), f"{NOW_MS}.75", "9223372036854775808"]
AMOUNTS = ["1", "0", "-0.0", "0.1", "-1e-300", "9007199254740992", "-9007199254740992"]
AMOUNTS += ["9007199254740994", "1e300", "1e400", BIG, "null", "", '"7"', "true", "NaN"]
KINDS = ['"order"', '"order"', '"order"', '"payment"', '"view"', "null", "", "7", '["order"]', "{}"]
WHOLE = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 3_000, b'{"id": "\xff"}']


def text(field: str, values: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(values).map(lambda value: value and f'"{field}": {value}')


objects = st.tuples(
    text("id", KEYS + [f'"e{i}"' for i in range(20)]),
    text("at", TIMES),
    text("type", KINDS),
    text("store", KEYS),
    text("amount", AMOUNTS),
    text("request", KEYS),
).map(lambda fields: f"{{{', '.join(filter(None, fields))}}}".encode())
payloads = st.one_of(objects, objects, objects, objects, st.sampled_from(WHOLE))
partition_keys = st.sampled_from(["a", "b", "1", "-1", "", "é", "__other__", "somebody"])
delays = st.sampled_from([0, 1, 500, 30_000, 600_000])


@st.composite
def hostile(draw: st.DrawFn) -> list[Record]:
    n = draw(st.integers(1, 25))
    made, arrival_ms = [], NOW_MS
    for i in range(n):
        arrival_ms += draw(delays)
        made.append(Record(draw(payloads), draw(partition_keys), arrival_ms, str(10**55 + i)))
    return made


ALL = streams.rule("all", where={}, window=WindowSpec(MINUTE_MS, 7_000), max_groups=3)
SUMS = (AggregateSpec("n", "count"), AggregateSpec("paid", "sum", "amount"))
PLANS: dict[str, Plan] = {
    "usual": streams.plan(),
    "without where, with an offset, few groups": streams.plan(ALL),
    "keys of two fields": streams.plan(streams.rule(group_by=("request", "store"))),
    "one field in two roles": streams.plan(
        streams.rule("by time", where={"amount": [{"exists": True}]}, aggregates=SUMS, detect=()),
        streams.rule(
            "times", aggregates=(AggregateSpec("last", "max", "at"),), detect=(), emit_windows=None
        ),
        streams.rule("keys", where={"store": [{"anything-but": "a"}]}, detect=()),
    ),
    "without ids": streams.plan(id=None, correlation_id=None),
    "arrival is the time": streams.plan(time=None, partition_key=None),
    "seconds": streams.plan(unit="s"),
}


def fed(plan: Plan, pages: Sequence[Page]) -> tuple[Any, bytes]:
    pipeline = streams.fresh(plan)
    return streams.yielded([pipeline.feed(page) for page in pages]), pipeline.snapshot()


@pytest.mark.parametrize("name", PLANS)
@settings(deadline=None, max_examples=60)
@given(stream=hostile(), cuts=st.sets(st.integers(1, 24)))
def test_hostile_records_break_nothing_and_no_cut_shows(
    name: str, stream: list[Record], cuts: set[int]
) -> None:
    whole = fed(PLANS[name], streams.pages(stream, []))
    assert fed(PLANS[name], streams.pages(stream, cuts)) == whole
    assert fed(PLANS[name], streams.pages(stream, range(len(stream)))) == whole


@pytest.mark.parametrize("name", PLANS)
@settings(deadline=None, max_examples=30)
@given(stream=hostile())
def test_each_hostile_record_ends_once(name: str, stream: list[Record]) -> None:
    pipeline = streams.fresh(PLANS[name])
    step = pipeline.feed(streams.page(stream))
    t = pipeline.totals
    assert t.records == len(stream)
    assert t.records == t.counted + t.duplicates + t.late + t.unmatched + t.rejects
    assert t.rejects == len(step.dead_letters)
    for event in step.events:
        assert json.loads(event.detail)["id"] == event.id


# ---- pages that hold only one kind of trouble -----------------------------------------------


def good(at_ms: int, n: int, **more: Any) -> Record:
    event = {"id": f"x{n}", "at": at_ms, "type": "order", "store": "a", "amount": 1, **more}
    return Record(json.dumps(event).encode(), "a", max(at_ms, NOW_MS), str(10**55 + n))


def test_a_first_page_of_faults_only_makes_no_watermark_and_no_difference() -> None:
    plan = streams.plan()
    pipeline, other = streams.fresh(plan), streams.fresh(plan)
    faults = [Record(payload, "a", NOW_MS, str(10**54 + i)) for i, payload in enumerate(WHOLE)]
    step = pipeline.feed(streams.page(faults))
    assert len(step.dead_letters) == len(faults)
    assert pipeline.watermark_ms is None
    assert pipeline.position == Position("after", faults[-1].sequence_number)
    later = streams.page([good(MINUTE, 1), good(MINUTE + 3 * MINUTE_MS, 2)])
    assert pipeline.feed(later) == other.feed(later)


def test_a_page_of_late_records_only_changes_nothing_but_counts() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    pipeline.feed(streams.page([good(MINUTE + 10 * MINUTE_MS, 0)]))
    before, watermark = pipeline.windows_open, pipeline.watermark_ms
    step = pipeline.feed(streams.page([good(MINUTE, i) for i in range(1, 5)]))
    assert (step.events, step.dead_letters) == ([], [])
    assert (step.counts.late, step.counts.late_by_rule) == (4, {"orders": 4})
    assert (pipeline.windows_open, pipeline.watermark_ms) == (before, watermark)


def test_a_late_record_is_no_duplicate_of_a_late_record() -> None:
    pipeline = streams.fresh(streams.plan())
    pipeline.feed(streams.page([good(MINUTE + 10 * MINUTE_MS, 0)]))
    pipeline.feed(streams.page([good(MINUTE, 1), good(MINUTE, 1)]))
    assert (pipeline.totals.late, pipeline.totals.duplicates) == (2, 0)


def test_an_empty_page_changes_nothing() -> None:
    pipeline = streams.fresh(streams.plan())
    step = pipeline.feed(streams.page([]))
    assert (step.events, step.dead_letters, step.counts.records) == ([], [], 0)
    assert pipeline.position is None


def test_integer_and_text_keys_are_different_groups_with_different_ids() -> None:
    pipeline = streams.fresh(streams.plan(streams.rule(detect=())))
    keys: list[str | int] = [1, "1", -1]
    stream = [
        good(MINUTE, i, store=key)._replace(partition_key=str(key)) for i, key in enumerate(keys)
    ]
    step = pipeline.feed(streams.page([*stream, good(MINUTE + 3 * MINUTE_MS, 9)]))
    details = [json.loads(event.detail) for event in step.events]
    assert {(type(d["key"]["store"]), d["key"]["store"]) for d in details} == {
        (type(key), key) for key in keys
    }
    assert all("part" not in d for d in details)
    assert len({event.id for event in step.events}) == 3


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 400), max_size=8))
def test_marks_in_small_steps_are_one_mark(minutes: set[int]) -> None:
    """Also past the horizon of absence: 100 empty windows are judged, in however many steps."""
    plan, start = streams.plan(), streams.pages(streams.records(3, 300), [])
    one, many = streams.fresh(plan), streams.fresh(plan)
    one.feed(start[0])
    many.feed(start[0])
    assert one.position is not None
    base = one.watermark_ms
    assert base is not None
    steps = [
        many.mark(Mark(one.position, "idle", base + minute * MINUTE_MS))
        for minute in [*sorted(minutes), 400]
    ]
    whole = one.mark(Mark(one.position, "idle", base + 400 * MINUTE_MS))
    assert streams.yielded(steps) == streams.yielded([whole])
    assert many.snapshot() == one.snapshot()


# ---- states ---------------------------------------------------------------------------------

LENGTH = 250
STREAM = streams.records(1, LENGTH + 100)


def state() -> dict[str, Any]:
    """What a used pipeline keeps, as plain values."""
    used = streams.fresh(PLANS["usual"])
    used.feed(streams.page(STREAM[:LENGTH]))
    decoded: dict[str, Any] = msgspec.msgpack.decode(used.snapshot())
    return decoded


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All paths into a state, of lists only the first members."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else []
    for name, member in [*inner, *(enumerate(value[:2]) if isinstance(value, list) else [])]:
        found += places(member, (*path, name))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def damaged(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = damaged(value[path[0]], path[1:], new)
    return copy


WRONG: list[Any] = [None, 0, -1, 2**63, 1.5, "x", b"", b"abc", b"\xff" * 8, [], {}, [1], [[None]]]


def resized(value: Any) -> list[Any]:
    """The same with something lost or too much."""
    if isinstance(value, bytes):
        return [value[:-1], value[8:], value + value, value + bytes(8)]
    if isinstance(value, list):
        return [value[1:], value + value[:1]]
    if isinstance(value, dict):
        return [dict(list(value.items())[1:]), value | {"more": b""}]
    return []


def restored(plan: Plan, value: Any) -> ShardPipeline:
    pipeline = streams.fresh(plan)
    pipeline.restore(msgspec.msgpack.encode(value), Position("after", str(10**55 + LENGTH - 1)))
    return pipeline


def test_a_state_of_another_shape_is_refused_or_serves_but_never_breaks_the_shard() -> None:
    """Another value of the same kind and size may pass: that is for the stores' digest to tell."""
    saved, rest = state(), streams.page(STREAM[LENGTH:])
    refused = 0
    for path in places(saved):
        old = at(saved, path)
        for new in [*WRONG, *resized(old)]:
            try:
                pipeline = restored(PLANS["usual"], damaged(saved, path, new))
            except StateUnreadable:
                refused += 1
                continue
            pipeline.feed(rest)
            assert not isinstance(old, bytes) or len(old) == len(new)
    assert refused > 1_000


def test_a_child_refuses_a_parents_state_of_another_shape_or_goes_on_with_it() -> None:
    """What the child has no use for (the bytes of keys without an heir) may pass unseen."""
    saved, rest = state(), streams.page(STREAM[LENGTH:])
    refused = 0
    for path in places(saved):
        for new in [*WRONG, *resized(at(saved, path))]:
            child = ShardPipeline(PLANS["usual"], Shard("child", 0, 2**127), "1")
            try:
                child.inherit([msgspec.msgpack.encode(damaged(saved, path, new))])
            except StateUnreadable:
                refused += 1
                continue
            child.feed(rest)
            child.snapshot()
    assert refused > 1_000


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8), st.booleans())
def test_bytes_that_were_overwritten_or_inserted_raise_nothing_else(
    place: int, new: bytes, inserts: bool
) -> None:
    used = streams.fresh(PLANS["usual"])
    used.feed(streams.page(STREAM[:40]))
    saved = used.snapshot()
    at = place % len(saved)
    broken = saved[:at] + new + saved[at if inserts else at + len(new) :]
    with contextlib.suppress(StateUnreadable):
        streams.fresh(PLANS["usual"]).restore(broken, Position("after", "1"))


@pytest.mark.parametrize(("by", "said"), [(1, "a newer release"), (-1, "an older release")])
def test_a_state_of_another_format_is_refused_with_who_wrote_it(by: int, said: str) -> None:
    with pytest.raises(StateUnreadable, match=said):
        restored(PLANS["usual"], state() | {"version": SNAPSHOT_VERSION + by})


@pytest.mark.parametrize(("by", "said"), [(1, "a newer release"), (-1, "an older release")])
def test_so_is_one_of_another_shape_as_other_versions_are(by: int, said: str) -> None:
    other = {"version": SNAPSHOT_VERSION + by, "shard_id": "shardId-000000000000", "more": [1]}
    with pytest.raises(StateUnreadable, match=said):
        restored(PLANS["usual"], other)
    with pytest.raises(StateUnreadable, match="missing required field"):
        restored(PLANS["usual"], other | {"version": SNAPSHOT_VERSION})


def test_a_changed_rule_starts_anew_and_the_others_keep_their_state() -> None:
    changed = streams.plan(
        streams.rule(), streams.rule("payments", "payment", 3 * MINUTE_MS, max_groups=7)
    )
    pipeline = restored(changed, state())
    groups = restored(PLANS["usual"], state()).groups
    assert pipeline.groups == groups | {"payments": 0}
