"""Records that hold several events: how they are packed, and where we begin, shows in no result."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.codecs.kpl import hash_of
from processor.core.events import dead_letter_id
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan, compile
from processor.model import Position, Shard, SourceSpec
from tests.core import streams
from tests.core.streams import SHARD, Record
from tests.kpl import aggregate, number, sealed

N = 300
seeds = st.integers(0, 2**32)


def plan(*decode: str, outside_range: str = "keep") -> Plan:
    source = SourceSpec("orders", decode=decode or ("kpl", "json"), outside_range=outside_range)  # type: ignore[arg-type]
    return compile(replace(streams.plan().pipeline, source=source))


def packed(stream: Sequence[Record], rng: random.Random) -> tuple[list[Record], list[Record]]:
    """The stream in aggregates of some sizes, and the same events as records of their own that
    arrived when their aggregate did."""
    aggregates, plain, at = [], [], 0
    while at < len(stream):
        part = stream[at : at + rng.choice((1, 1, 2, 5, 40))]
        at += len(part)
        arrival_ms, place = part[-1].arrival_ms, part[-1].sequence_number
        same = [one._replace(arrival_ms=arrival_ms) for one in part]
        plain += same
        if len(part) == 1:  # the KPL sends a lone event as it is
            aggregates += same
            continue
        payload = aggregate((one.partition_key, one.payload) for one in part)
        aggregates.append(Record(payload, "a", arrival_ms, place))
    return aggregates, plain


@settings(max_examples=25, deadline=None)
@given(seeds, st.lists(st.integers(1, N - 1), max_size=30))
def test_aggregates_yield_what_their_events_would_as_records(seed: int, cuts: list[int]) -> None:
    aggregates, plain = packed(streams.records(seed, N), random.Random(seed))
    one, two = streams.fresh(plan()), streams.fresh(plan())
    events, letters = streams.yielded([one.feed(page) for page in streams.pages(aggregates, cuts)])
    same_events, same_letters = streams.yielded([two.feed(streams.page(plain))])
    assert events == same_events
    told = [(each.reason, each.payload, each.partition_key) for each in letters]
    assert told == [(each.reason, each.payload, each.partition_key) for each in same_letters]
    assert len({each.id for each in letters}) == len(letters)
    assert one.snapshot() == two.snapshot()


@settings(max_examples=25, deadline=None)
@given(seeds, st.data())
def test_one_can_begin_within_an_aggregate(seed: int, data: st.DataObject) -> None:
    aggregates, plain = packed(streams.records(seed, 100), random.Random(seed))
    at = data.draw(st.integers(0, len(plain) - 1))
    done = [one for one in aggregates if int(one.sequence_number) < int(plain[at].sequence_number)]
    skip = at - len([one for one in plain if _is_in(one, done)])
    first = aggregates[len(done)]
    one, two = streams.fresh(plan()), streams.fresh(plan())
    one.position = Position("at", first.sequence_number, skip)
    rest = aggregates[len(done) :]
    got = streams.yielded([one.feed(page) for page in streams.pages(rest, [1, 3])])[0]
    assert got == streams.yielded([two.feed(streams.page(plain[at:]))])[0]
    assert one.totals == two.totals
    assert one.position == Position("after", aggregates[-1].sequence_number)


def _is_in(event: Record, aggregates: Sequence[Record]) -> bool:
    last = int(aggregates[-1].sequence_number) if aggregates else -1
    return int(event.sequence_number) <= last


def test_a_plain_record_that_was_done_is_left_out_without_any_splitter_too() -> None:
    stream = streams.records(1, 10)
    for decode in (("json",), ("kpl", "json")):
        pipeline = streams.fresh(plan(*decode))
        pipeline.position = Position("at", stream[0].sequence_number, 1)
        pipeline.feed(streams.page(stream[:1]))
        assert pipeline.totals.records == 0
        assert pipeline.position == Position("after", stream[0].sequence_number)
        pipeline.feed(streams.page(stream[1:]))
        assert pipeline.totals.records == 9


def test_what_was_trimmed_meanwhile_takes_nothing_from_the_next_record() -> None:
    stream = streams.records(1, 10)
    pipeline = streams.fresh(plan())
    pipeline.position = Position("at", str(int(stream[0].sequence_number) - 1), 3)
    pipeline.feed(streams.page(stream))
    assert pipeline.totals.records == 10


# ---- dead letters -----------------------------------------------------------------------------


def test_a_bad_event_has_its_place_in_the_record_and_leaves_the_others_be() -> None:
    good = streams.records(3, 40)
    events = [(one.partition_key, one.payload) for one in good[:2]]
    events.insert(1, ("store-9", b"{"))
    record = Record(aggregate(events), "a", good[1].arrival_ms, "77")
    step = streams.fresh(plan()).feed(streams.page([record]))
    (letter,) = [each for each in step.dead_letters if each.payload == b"{"]
    assert (letter.sequence_number, letter.partition_key) == ("77", "store-9")
    assert letter.id == dead_letter_id("orders", SHARD.id, "77", 1)
    assert step.counts.records == 3


def test_an_aggregate_that_cannot_be_read_is_one_dead_letter() -> None:
    payload = sealed(number(1, 7))
    step = streams.fresh(plan()).feed(streams.page([Record(payload, "a", streams.START_MS, "77")]))
    (letter,) = step.dead_letters
    assert (letter.reason, letter.payload) == ("bad_aggregate", payload)
    assert step.counts.rejects == {"bad_aggregate": 1}


def test_a_page_of_nothing_but_empty_aggregates_moves_the_position() -> None:
    pipeline = streams.fresh(plan())
    step = pipeline.feed(streams.page([Record(sealed(number(9, 1)), "a", streams.START_MS, "5")]))
    assert (step.events, step.counts.records) == ([], 0)
    assert pipeline.position == Position("after", "5")


# ---- events of another shard ------------------------------------------------------------------


@pytest.mark.parametrize(("outside_range", "taken"), [("keep", 4), ("drop", 2)])
def test_events_outside_of_the_range_are_counted_and_kept_or_dropped(
    outside_range: str, taken: int
) -> None:
    half = 2**127
    shard = Shard("shardId-000000000001", 0, half - 1)
    inside, outside = (
        next(f"k{i}" for i in range(99) if (hash_of(f"k{i}") < half) is here)
        for here in (True, False)
    )
    payload = b'{"id": "%d", "at": 1700000000000}'
    events = [(inside, payload % 1, None), (outside, payload % 2, None)]
    events += [(outside, payload % 3, 0), (inside, payload % 4, half)]  # by explicit hash keys
    pipeline = ShardPipeline(plan(outside_range=outside_range), shard, "1")
    record = Record(aggregate(events), outside, streams.START_MS, "5")
    step = pipeline.feed(streams.page([record, record._replace(payload=payload % 5)]))
    assert step.counts.outside_range == 2
    assert step.counts.records == taken + 1, "a record of its own is where the service put it"


def test_the_choice_is_part_of_a_rules_version() -> None:
    versions = {plan(outside_range=each).rules[0].version for each in ("keep", "drop")}
    assert len(versions) == 2
    assert plan("json").rules[0].version == streams.plan().rules[0].version, "as it was before"
