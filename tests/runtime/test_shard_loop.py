"""A shard's loop: what is put before what is committed, and what a kill or an end leaves behind.

In memory and in virtual time. Windows are a minute; the watermark follows the newest tick at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from processor.core.events import dead_letter_id
from processor.core.leases.rows import MARKS_MAX, StateRef
from processor.core.snapshots import SNAPSHOT_VERSION
from processor.errors import Outage
from processor.model import END, DetectSpec, Shard
from processor.runtime.worker import STUCK_AFTER_S
from processor.sinks.memory import MemoryTarget
from tests.runtime.in_memory import SHARD, Life, Side, Town, tick, ticks, until
from tests.states import packed
from tests.virtual_time import run

NEVER_MS = 3_600_000


def has_taken(life: Life, records: int) -> bool:
    view = life.worker.shards().get(SHARD)
    return view is not None and view.totals.records == records


# ---- the order of effects -----------------------------------------------------------------------


def test_a_window_is_put_before_the_position_past_it_is_committed() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        town.bus.is_down = True
        life = town.start()
        town.put(*ticks("ab", range(3)), tick("a", 61))
        await until(lambda: has_taken(life, 7))
        await asyncio.sleep(2 * STUCK_AFTER_S)
        assert town.commit == 0, "nothing that was not put may be passed over"
        assert life.worker.stuck() == [], "a target that is down is waited for"
        town.bus.is_down = False
        await until(lambda: town.commit > 0)
        assert town.windows() == {("a", 0): (3, 3), ("b", 0): (3, 3)}
        await life.stop()

    run(main())


@pytest.mark.parametrize("payload", [tick("a", 61), b"bad"])
def test_nothing_is_put_while_it_is_in_doubt_whose_the_shard_is(payload: bytes) -> None:
    """No heartbeat gets through; what comes now must wait, though bus and queue are there."""

    async def main() -> None:
        async def out(operation: str, side: Side) -> None:
            raise Outage("dynamodb", operation, "refused")

        town = Town(checkpoint_ms=NEVER_MS)
        life = town.start()
        town.put(*ticks("a", range(3)))
        await until(lambda: has_taken(life, 3))
        town.gate = out
        await until(lambda: not life.worker.is_alive)
        town.put(payload)
        await until(lambda: has_taken(life, 4))
        await asyncio.sleep(60)
        assert (town.bus.arrivals, town.dead.arrivals) == ([], [])
        town.gate = None
        await until(lambda: len(town.bus.arrivals) + len(town.dead.arrivals) == 1)
        await life.stop()

    run(main())


def test_a_checkpoint_is_made_when_due_and_only_if_there_is_something_new() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=15_000)
        life = town.start()
        town.put(*ticks("a", range(3)))
        await until(lambda: has_taken(life, 3))
        assert town.commit == 0
        await asyncio.sleep(16)
        assert town.commit == 1
        await asyncio.sleep(10)
        assert town.commit == 1
        await life.stop()
        assert town.commit == 1, "what was committed is not committed again at the end"

    run(main())


def test_a_page_of_nothing_but_bad_records_is_passed_and_committed() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        life = town.start()
        town.put(b"", b"{", b"\xff", b"[]")
        await until(lambda: town.commit > 0)
        reasons = [letter.of.reason for letter in town.dead.arrivals]
        assert reasons == ["empty", "malformed", "not_utf8", "wrong_type"]
        ids = [dead_letter_id("ticks", SHARD, str(n), 0) for n in range(1, 5)]
        assert [letter.id for letter in town.dead.arrivals] == ids
        assert town.row().position.value == "4"
        await life.stop()

    run(main())


def test_an_event_that_the_bus_refuses_for_good_is_a_dead_letter_under_its_own_id() -> None:
    (event,) = run(_closed_window({})).bus.arrivals
    town = run(_closed_window({event.id: "NotAuthorized"}))
    assert town.bus.arrivals == []
    (letter,) = town.dead.arrivals
    assert (letter.id, letter.body, letter.of.reason) == (event.id, event.body, "refused")
    assert "NotAuthorized" in letter.of.detail


def test_of_several_events_it_is_the_refused_one_that_becomes_a_dead_letter() -> None:
    all_three = run(_closed_window({}, "abc")).bus.arrivals
    refused = all_three[1]
    town = run(_closed_window({refused.id: "NotAuthorized"}, "abc"))
    (letter,) = town.dead.arrivals
    assert (letter.id, letter.body) == (refused.id, refused.body)
    assert {one.id for one in town.bus.arrivals} == {one.id for one in all_three} - {refused.id}


async def _closed_window(refuse: dict[str, str], keys: str = "a") -> Town:
    town = Town(bus=MemoryTarget(refuse=refuse))
    life = town.start()
    town.put(*ticks(keys, range(3)), tick("a", 61))
    await until(lambda: has_taken(life, 3 * len(keys) + 1))
    await life.stop()
    return town


# ---- idle shards --------------------------------------------------------------------------------


async def idle_for_a_window(town: Town) -> Life:
    """Three ticks in the first minute, and then silence until a mark closed their window."""
    life = town.start()
    town.put(*ticks("a", range(3)))
    await until(lambda: town.row().marks if town.content.shards else False, 180)
    return life


def test_an_idle_shards_window_closes_by_a_mark_that_the_row_keeps() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=NEVER_MS)
        life = await idle_for_a_window(town)
        await until(lambda: town.windows() == {("a", 0): (3, 3)})
        (entry,) = town.row().marks
        assert (entry.mark.fact, entry.mark.position.value) == ("idle", "3")
        assert town.clock.monotonic() > 60, "not before the window's minute was over"
        await life.kill()

    run(main())


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_mark_takes_no_effect_before_it_is_committed(side: Side) -> None:
    """Killed as the mark is written: no event is out yet, whether it was written or not."""

    async def main() -> None:
        town, killed = Town(checkpoint_ms=NEVER_MS), asyncio.Event()

        async def gate(operation: str, at: Side) -> None:
            is_first = has_taken(life, 3) and town.row().epoch == 1
            if (operation, at) == ("write", side) and is_first:
                killed.set()
                await asyncio.Event().wait()

        life = town.start()
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(killed.is_set, 400)
        await life.kill()
        assert town.bus.arrivals == []
        assert len(town.row().marks) == (side == "after")

        # A tick for the window that the mark closed: late if the mark stands, else in time.
        town.put(tick("a", 5, 100))
        second = town.start()
        await until(town.windows, 180)
        await second.stop()
        was_closed = side == "after"
        assert town.windows() == {("a", 0): (3, 3) if was_closed else (4, 103)}
        assert sum(s.counts.late for s in second.steps.steps) == was_closed

    run(main())


def test_a_mark_is_replayed_at_its_position_by_every_later_owner() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=NEVER_MS)
        first = await idle_for_a_window(town)
        town.put(tick("a", 5, 100), tick("a", 200))
        await until(lambda: has_taken(first, 5))
        once = town.bus.by_id()
        await first.kill()
        for _ in range(2):
            life = town.start()
            await until(lambda life=life: has_taken(life, 5))
            await life.kill()
        assert len(town.bus.arrivals) == 3 * len(once)
        assert town.bus.by_id() == once
        assert town.windows()["a", 0] == (3, 3)

    run(main())


def test_a_mark_at_the_checkpoints_own_position_takes_effect_without_another_record() -> None:
    async def main() -> None:
        town, killed = Town(checkpoint_ms=15_000), asyncio.Event()

        async def gate(operation: str, at: Side) -> None:
            if town.commit and town.row().marks:
                killed.set()
                await asyncio.Event().wait()

        life = town.start()
        town.gate = gate
        town.put(*ticks("a", range(3)))
        await until(killed.is_set, 400)
        await life.kill()
        town.gate = None
        assert (town.row().position, town.bus.arrivals) == (town.row().marks[0].mark.position, [])
        second = town.start()
        await until(lambda: second.worker.shards())
        await asyncio.sleep(1)
        assert town.windows() == {("a", 0): (3, 3)}
        assert len(town.row().marks) == 1, "no second one was needed"
        await second.stop()

    run(main())


async def killed_when(town: Town, life: Life, holds: Callable[[], Any]) -> None:
    """Killed at the first operation of the table at which it holds."""
    is_there = asyncio.Event()

    async def gate(operation: str, at: Side) -> None:
        if holds():
            is_there.set()
            await asyncio.Event().wait()

    town.gate = gate
    await until(is_there.is_set, 400)
    await life.kill()
    town.gate = None


@pytest.mark.parametrize("taken", ["1", "2", "3"])
def test_a_mark_outlives_the_checkpoints_of_owners_who_have_not_come_to_it(taken: str) -> None:
    """One is killed at the mark; the next one on its way there, having committed often."""

    async def main() -> None:
        town = Town(checkpoint_ms=NEVER_MS, page_records_max=1)
        first = town.start()
        town.put(*ticks("a", range(3)))
        await until(lambda: has_taken(first, 3))
        await killed_when(town, first, lambda: town.row().marks)
        assert town.commit == 1
        town.checkpoint_ms = 0
        second = town.start()
        await killed_when(town, second, lambda: town.row().position.value >= taken)
        town.checkpoint_ms = NEVER_MS
        town.put(tick("a", 5, 100))
        third = town.start()
        await until(lambda: has_taken(third, 4))
        assert third.worker.shards()[SHARD].totals.late == 1
        await third.stop()
        assert town.windows() == {("a", 0): (3, 3)}

    run(main())


def test_a_shard_that_idles_often_keeps_its_marks_few() -> None:
    """Absence gives a window to judge each five seconds; checkpoints come only each hour."""

    async def main() -> None:
        absence = (DetectSpec("absence", "absence", "n"),)
        town = Town(checkpoint_ms=NEVER_MS, window_ms=5_000, detect=absence)
        life = town.start()
        most = 0
        for _ in range(40):
            town.put(tick("a", 20 + town.clock.monotonic()))
            await asyncio.sleep(90)
            most = max(most, len(town.row().marks))
        assert 100 < most < MARKS_MAX
        assert town.row().epoch == 1, "it never failed"
        await life.stop()

    run(main())


def test_a_mark_goes_when_two_checkpoints_are_past_it() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=15_000)
        life = await idle_for_a_window(town)
        await asyncio.sleep(16)
        assert len(town.row().marks) == 1, "the older pair lies before it"
        town.put(tick("a", 300))
        await asyncio.sleep(16)
        assert town.row().marks == ()
        await life.stop()

    run(main())


def test_reads_that_fail_keep_a_shard_from_idling() -> None:
    """Each second read fails for ten minutes: what the stream held meanwhile is unknown."""

    async def main() -> None:
        town = Town(checkpoint_ms=NEVER_MS)
        life = town.start(source=Flaky(town.source))
        town.put(*ticks("a", range(3)))
        await asyncio.sleep(600)
        assert town.row().marks == ()
        assert town.bus.arrivals == []
        await life.kill()

    run(main())


class Flaky:
    """A source whose readers failed once before every answer."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def open(self, shard_id: str, position: Any) -> Any:
        reader = self._source.open(shard_id, position)
        read = reader.read

        async def read_after_a_failure() -> Any:
            return replace(await read(), errors=1)

        reader.read = read_after_a_failure
        return reader


# ---- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill_at", range(24))
def test_killed_at_any_moment_of_the_table_the_next_one_loses_and_doubles_nothing(
    kill_at: int,
) -> None:
    """Each tick is counted once, in its window or as late; each id has one content."""

    async def main() -> None:
        town, moments, killed = Town(checkpoint_ms=5_000), 0, asyncio.Event()

        async def gate(operation: str, at: Side) -> None:
            nonlocal moments
            if operation in ("write", "put"):
                moments += 1
                if moments == kill_at + 1:
                    killed.set()
                    await asyncio.Event().wait()

        town.gate = gate
        life = town.start()
        sending = asyncio.create_task(_send(town))
        await until(killed.is_set, 400)
        await life.kill()
        life = town.start()
        await sending
        await until(lambda: has_taken(life, SENT))
        totals = life.worker.shards()[SHARD].totals
        await life.stop()
        assert totals.counted + totals.late == SENT - 2, "but for the bad one and the last"
        assert sum(n for n, _ in town.windows().values()) == totals.counted
        assert len(town.dead.by_id()) == 1

    run(main())


SENT = 20 + 4 + 12 + 10 + 1


async def _send(town: Town) -> None:
    """Three minutes of ticks, pauses that make the shard idle, a bad record, and a last flush."""
    await asyncio.sleep(5)
    town.put(*ticks("ab", range(0, 50, 5)))
    await asyncio.sleep(95)
    town.put(tick("a", 30), tick("a", 70), b"bad", tick("b", 75))
    town.put(*ticks("ab", range(80, 110, 5)))
    await asyncio.sleep(100)
    town.put(*ticks("ab", range(205, 230, 5)))
    await asyncio.sleep(30)
    town.put(json.dumps({"type": "flush", "key": "a", "at": _at(400)}).encode())


def _at(second: int) -> int:
    at_ms: int = json.loads(tick("a", second))["at"]
    return at_ms


def test_asked_to_end_while_the_bus_is_down_it_gives_up_and_the_next_one_puts_it() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        first = town.start()
        town.put(*ticks("a", range(3)))
        await until(lambda: town.commit == 1)
        town.bus.is_down = True
        town.put(tick("a", 61))
        await until(lambda: has_taken(first, 4))
        asked_at = town.clock.monotonic()
        await first.stop()
        assert town.clock.monotonic() - asked_at < 30
        assert (town.row().owner, town.row().position.value) == (None, "3")
        town.bus.is_down = False
        second = town.start()
        await until(lambda: has_taken(second, 4))
        await second.stop()
        assert town.windows() == {("a", 0): (3, 3)}

    run(main())


def test_at_a_shards_end_its_children_take_its_windows_over_and_tell_each_once() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        life = town.start()
        town.put(*ticks("ab", range(3)))
        await until(lambda: has_taken(life, 6))
        children = _split(town)
        await until(lambda: set(life.worker.shards()) == {child.id for child in children})
        assert (town.row().ended, town.row().position) == (True, END)
        assert town.windows() == {}
        for key in "ab":  # "a" belongs to the lower half, "b" to the upper
            town.put(tick(key, 30, 7), tick(key, 61), shard=children["ab".index(key)].id)
        await until(lambda: len(town.windows()) == 2)
        assert town.windows() == {("a", 0): (4, 10), ("b", 0): (4, 10)}
        await life.stop()

    run(main())


def test_a_child_commits_what_it_took_over_before_its_first_record() -> None:
    """Else its parents' states would have to stay as long as nobody writes to it."""

    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        life = town.start()
        town.put(*ticks("ab", range(3)))
        await until(lambda: has_taken(life, 6))
        children = _split(town)
        await until(lambda: len(town.content.shards) == 3)
        await until(lambda: all(town.row(child.id).commit > 0 for child in children))
        await life.kill()
        town.put(tick("a", 61), shard=children[0].id)
        successor = town.start()
        await until(lambda: len(town.windows()) == 1)
        assert town.windows() == {("a", 0): (3, 3)}
        await successor.stop()

    run(main())


def test_what_a_busy_parent_left_open_closes_though_the_other_was_quiet_for_a_day() -> None:
    async def main() -> None:
        town = Town(shards=2, checkpoint_ms=1_000)
        life = town.start()
        parents = ("shardId-000000000000", "shardId-000000000001")
        town.put(tick("a", 0, 3), shard=parents[0])
        town.put(tick("b", -86_400, 4), shard=parents[1])
        await until(lambda: sum(v.totals.records for v in life.worker.shards().values()) == 2)
        for parent in parents:
            town.source.close(parent, children=[Shard("shardId-000000000002", parents=parents)])
        await until(lambda: len(town.windows()) == 2)
        assert town.windows() == {("a", 0): (1, 3), ("b", -1_440): (1, 4)}
        await life.stop()

    run(main())


def _split(town: Town) -> list[Shard]:
    half = 2**127
    children = [
        Shard("shardId-000000000001", 0, half - 1, (SHARD,)),
        Shard("shardId-000000000002", half, 2**128 - 1, (SHARD,)),
    ]
    town.source.close(SHARD, children=children)
    return children


# ---- states that can't be used --------------------------------------------------------------


def test_a_state_that_can_be_read_but_not_restored_is_left_for_the_one_before_it() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        first = town.start()
        town.put(*ticks("a", range(2)))
        await until(lambda: town.commit == 1)
        town.put(*ticks("a", range(2, 4)))
        await until(lambda: town.commit == 2)
        await first.stop()
        _exchange_newest_state(town, b"from another world")
        second = town.start()
        town.put(tick("a", 61))
        await until(lambda: has_taken(second, 5))
        assert len(second.steps.refused) == 1
        await second.stop()
        assert town.windows() == {("a", 0): (4, 2)}

    run(main())


def test_with_no_state_left_a_shard_is_parked_and_never_begun_from_nothing() -> None:
    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        first = town.start()
        for n in range(3):
            town.put(*ticks("a", range(2 * n, 2 * n + 2)))
            await until(lambda n=n: town.commit == n + 1)
        await first.stop()
        town.content.blobs.clear()
        second = town.start()
        await until(lambda: _stage(second) == "parked")
        await asyncio.sleep(300)
        assert _stage(second) == "parked"
        assert second.steps.steps == []
        await second.stop()

    run(main())


def test_a_child_whose_parents_state_is_refused_is_parked_with_that_reason() -> None:
    """As after a return to an older release in the midst of a reshard."""

    async def main() -> None:
        town = Town(checkpoint_ms=1_000)
        first = town.start()
        for n in range(2):
            town.put(*ticks("a", range(2 * n, 2 * n + 2)))
            await until(lambda n=n: town.commit == n + 1)
        await first.stop()
        _exchange_newest_state(town, msgspec.msgpack.encode({"version": SNAPSHOT_VERSION + 1}))
        row = town.row()
        last = replace(row.pairs[-1], position=END)
        town.content.shards[row.stream, row.id] = replace(row, pairs=(last,), ended=True)
        (child, _) = _split(town)
        second = town.start()
        await until(lambda: child.id in second.seen.parked)
        assert "a newer release wrote it" in second.seen.parked[child.id]
        await second.stop()

    run(main())


def _stage(life: Life) -> str | None:
    return next((lease.stage for lease in life.worker.leases()), None)


def _exchange_newest_state(town: Town, state: bytes) -> None:
    """The newest pair then refers to bytes that are whole, and of no use."""
    (key, row), body = next(iter(town.content.shards.items())), packed(state).body
    older, newest = row.pairs
    assert newest.state is not None
    ref = StateRef("item", newest.state.key, body.digest, body.size)
    (town.content.blobs[ref.key],) = body.segments
    pairs = (older, replace(newest, state=ref))
    town.content.shards[key] = replace(row, pairs=pairs)
