"""Pages that wait: they are counted together, as if they had been read at once, or not yet."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.core.turns import joined
from processor.model import Mark, Page, Position, Step
from tests.core import streams
from tests.core.streams import MINUTE_MS, START_MS

N = 400
CUTS = st.lists(st.integers(1, N - 1), min_size=10, max_size=120)


def waiting(pipeline: ShardPipeline, page: Page) -> list[Step]:
    return list(pipeline.steps(page, may_wait=True))


def started() -> ShardPipeline:
    """With a watermark, in a window that ends in a minute."""
    pipeline = streams.fresh(streams.plan())
    pipeline.feed(page_of(0, START_MS + 6_000))
    return pipeline


def page_of(i: int, at_ms: int, payload: bytes | None = None) -> Page:
    made = b'{"id":"w%d","at":%d,"type":"order","store":"store-1","amount":1}' % (i, at_ms)
    return streams.page(
        [streams.Record(payload or made, "store-1", START_MS + 10_000 + i, str(10**55 + i))]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), CUTS, st.sets(st.integers(0, 120)))
def test_waiting_changes_no_bit_of_events_letters_or_state(
    seed: int, where: list[int], settled: set[int]
) -> None:
    stream, plan = streams.records(seed, N), streams.plan()
    steady, one = streams.fresh(plan), streams.fresh(plan)
    at_once, waited = [], []
    for i, page in enumerate(streams.pages(stream, where)):
        at_once.append(steady.feed(page))
        waited += waiting(one, page)
        if i in settled:
            waited += one.settle()
    waited += one.settle()
    assert streams.yielded(waited) == streams.yielded(at_once)
    assert sum(s.counts.records for s in waited) == sum(s.counts.records for s in at_once)
    assert one.snapshot() == steady.snapshot()
    assert one.position == steady.position


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), CUTS, st.integers(0, 120))
def test_a_checkpoint_while_pages_wait_is_one_from_before_they_were_read(
    seed: int, where: list[int], stop: int
) -> None:
    stream, plan = streams.records(seed, N), streams.plan()
    parts = streams.pages(stream, where)
    killed, steady = streams.fresh(plan), streams.fresh(plan)
    before = [step for page in parts[:stop] for step in waiting(killed, page)]
    heir = _heir(plan, killed)
    number = "" if killed.position is None else killed.position.value
    rest = [record for record in stream if record.sequence_number > number]
    after = [joined(heir.steps(streams.page(rest)))] if rest else []
    whole = [steady.feed(page) for page in parts]
    assert streams.yielded([*before, *after]) == streams.yielded(whole)
    assert heir.snapshot() == steady.snapshot()


def _heir(plan: Plan, of: ShardPipeline) -> ShardPipeline:
    heir = streams.fresh(plan)
    if of.position is not None:
        heir.restore(of.snapshot(), of.position)
    return heir


def test_small_pages_wait_until_a_window_may_end() -> None:
    pipeline = started()
    for i in range(1, 5):
        (step,) = waiting(pipeline, page_of(i, START_MS + 6_000 + i))
        assert step.counts.records == 0
    assert pipeline.position == Position("after", str(10**55))
    (step,) = waiting(pipeline, page_of(5, START_MS + MINUTE_MS + 5_000))
    assert step.counts.records == 5
    assert [event.detail_type for event in step.events] == ["Window Result"]
    assert pipeline.position == Position("after", str(10**55 + 5))


def test_what_waits_is_counted_before_a_mark_an_empty_page_and_the_shards_end() -> None:
    def counted(*steps: Step) -> int:
        return sum(step.counts.records for step in steps)

    for end in (
        lambda of: of.steps(Mark(Position("end"), "idle", START_MS + 2_000)),
        lambda of: of.steps(streams.page([])),
        lambda of: of.finish(),
        lambda of: of.settle(),
    ):
        pipeline = started()
        assert counted(*waiting(pipeline, page_of(1, START_MS + 6_000))) == 0
        assert counted(*end(pipeline)) == 1


def test_a_bad_record_and_one_a_second_later_wait_for_nothing() -> None:
    for last in (page_of(2, START_MS + 6_000, b"{"), page_of(1_100, START_MS + 6_000)):
        pipeline = started()
        waiting(pipeline, page_of(1, START_MS + 6_000))
        (step,) = waiting(pipeline, last)
        assert step.counts.records == 2
