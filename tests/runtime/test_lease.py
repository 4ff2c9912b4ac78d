"""One shard's lease over the memory table: commits, marks, ends, and answers that get lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import pytest
from msgspec.structs import replace

from processor.core.leases.lineage import children_of
from processor.core.leases.rows import ShardRow, StreamKey, claimed, fresh_row, released
from processor.core.leases.seeking import moved_to
from processor.errors import LeaseLost, Outage, StateUnreadable, Throttled
from processor.model import END, TRIM_HORIZON, Mark, Position, Shard
from processor.runtime.lease import Lease, Restored
from processor.runtime.lease_observer import Unobserved
from processor.runtime.state_store import ITEM_BYTES_MAX, StateStore
from processor.stores.memory import MemoryContent, MemoryObjects, MemoryTable
from tests.states import flipped, packed
from tests.virtual_time import VirtualClock, run

STREAM = StreamKey("orders", 1_600_000_000_000)
SHARD = Shard("shardId-000000000000")


def at(number: int) -> Position:
    return Position("after", str(number))


def noise(size: int) -> bytes:
    """Bytes that don't compress."""
    return random.Random(size).randbytes(size)


class Log(Unobserved):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_checkpoint(self, shard_id: str, outcome: str, stored_bytes: int, seconds: float) -> None:
        self.lines.append(outcome)

    def on_fallback(self, shard_id: str, reason: str) -> None:
        self.lines.append(reason)

    def on_error(self, operation: str, error: Exception) -> None:
        self.lines.append(f"{operation}: {error}")


@dataclass
class Faults:
    """A gate that does to the next operations of a name what `script` says."""

    script: list[tuple[str, Literal["refuse", "lose", "hang"]]] = field(default_factory=list)

    async def __call__(self, operation: str, side: Literal["before", "after"]) -> None:
        await asyncio.sleep(0.001)
        if not self.script or self.script[0][0] != operation:
            return
        what = self.script[0][1]
        if what == "refuse" and side == "before":
            self.script.pop(0)
            raise Throttled("memory", operation, "as the test wants it")
        if what == "lose" and side == "after":
            self.script.pop(0)
            raise Outage("memory", operation, "the answer is lost")
        if what == "hang" and side == "after":
            self.script.pop(0)
            await asyncio.sleep(1e6)


class Keeping:
    """A `Keeper` whose validity the test sets."""

    def __init__(self, content: MemoryContent, objects: MemoryObjects | None = None) -> None:
        self.faults = Faults()
        self.content = content
        self.objects = objects or MemoryObjects()
        self.table = MemoryTable(content, self.faults)
        self.states = StateStore(self.table.items, self.objects)
        self.clock = VirtualClock()
        self.rng = random.Random(1)
        self.observer = Log()
        self.valid = asyncio.Event()
        self.valid.set()
        self.ended: list[ShardRow] = []
        self.listing_s = 0.0

        self.generation = 3

    retention_ms = 86_400_000

    def slowest_ms(self) -> int | None:
        return None

    def valid_for_s(self) -> float:
        return 6.0 if self.valid.is_set() else -1.0

    async def await_valid(self) -> None:
        await self.valid.wait()

    async def child_rows(self, row: ShardRow, children: tuple[Shard, ...]) -> list[ShardRow]:
        await asyncio.sleep(self.listing_s)
        return children_of(row, children, {row.id}, TRIM_HORIZON, "a")

    def on_committed(self, row: ShardRow) -> None:
        assert self.row() == row

    def on_ended(self, row: ShardRow, children: list[ShardRow]) -> None:
        self.ended = [row, *children]

    def in_background(self, operation: str, work: Callable[[], Awaitable[object]]) -> None:
        self.last = asyncio.ensure_future(work())

    def row(self) -> ShardRow:
        return self.content.shards[STREAM, SHARD.id]

    def change(self, after: ShardRow) -> None:
        self.content.shards[STREAM, SHARD.id] = after

    def claim(self, owner: str = "a") -> Lease:
        """Own the shard under the next epoch."""
        self.change(claimed(self.row(), owner, 0))
        return Lease(self.row(), self, margin_s=2.0)


def kept() -> Keeping:
    content = MemoryContent()
    content.shards[STREAM, SHARD.id] = fresh_row(STREAM, SHARD, TRIM_HORIZON)
    return Keeping(content)


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            await test()

        run(main())

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


# ---- the good way


@in_virtual_time
async def test_a_fresh_shard_starts_at_its_start_without_state() -> None:
    assert await kept().claim().load() == Restored(TRIM_HORIZON, None, ())


@in_virtual_time
async def test_position_and_state_come_back_together_under_the_next_epoch() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(5), b"five", caught_up_at_ms=123)
    await lease.checkpoint(at(9), b"nine")
    assert await keeper.claim("b").load() == Restored(at(9), b"nine", (), caught_up_at_ms=123)
    assert keeper.row().caught_up_at_ms == 123
    assert keeper.observer.lines == ["committed", "committed"]


@in_virtual_time
async def test_a_note_moves_only_the_time_and_counts_as_a_commit() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(5), b"five", caught_up_at_ms=123)
    before = keeper.row()
    await lease.note(456)
    after = keeper.row()
    assert replace(after, commit=before.commit, write_id=before.write_id) == replace(
        before, caught_up_at_ms=456
    )
    assert after.commit == before.commit + 1
    await lease.checkpoint(at(9), b"nine")
    restored = await keeper.claim("b").load()
    assert (restored.state, restored.caught_up_at_ms) == (b"nine", 456)


@in_virtual_time
async def test_a_note_under_a_lost_lease_is_refused() -> None:
    keeper = kept()
    lease = keeper.claim("a")
    keeper.claim("b")
    with pytest.raises(LeaseLost):
        await lease.note(456)
    assert keeper.row().caught_up_at_ms is None


@in_virtual_time
async def test_small_states_are_items_and_large_ones_objects() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), bytes(10 * ITEM_BYTES_MAX))
    assert (len(keeper.content.blobs), len(keeper.objects.blobs)) == (1, 0)
    large = noise(2 * ITEM_BYTES_MAX)
    await lease.checkpoint(at(2), large)
    assert (len(keeper.content.blobs), len(keeper.objects.blobs)) == (1, 1)
    assert (await keeper.claim().load()).state == large


@in_virtual_time
async def test_a_state_of_many_pieces_comes_back_whole() -> None:
    keeper = kept()
    large = noise(3_000_001)
    await keeper.claim().checkpoint(at(1), large)
    assert (await keeper.claim().load()).state == large


@in_virtual_time
async def test_a_third_commit_removes_what_only_the_first_needed() -> None:
    keeper = kept()
    lease = keeper.claim()
    for number in (1, 2, 3, 4):
        await lease.checkpoint(at(number), b"%d" % number)
    await keeper.last
    referenced = {pair.state.key for pair in keeper.row().pairs if pair.state}
    assert set(keeper.content.blobs) == referenced
    assert len(referenced) == 2


@in_virtual_time
async def test_a_mark_is_committed_and_replayed_until_a_pair_is_past_it() -> None:
    keeper = kept()
    lease = keeper.claim()
    mark = Mark(at(5), "idle", 77)
    await lease.checkpoint(at(5), b"five")
    await lease.mark(mark)
    assert (await keeper.claim("b").load()).marks == (mark,)
    lease = keeper.claim("c")
    await lease.load()
    await lease.checkpoint(at(5), b"five, marked")
    assert (await keeper.claim("d").load()).marks == ()
    older = await keeper.claim("e").load(older=True)
    assert older == Restored(at(5), b"five", (mark,))


@in_virtual_time
async def test_a_shard_ends_with_its_children_and_its_last_state() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(5), b"five")
    children = (Shard("left", parents=(SHARD.id,)), Shard("right", parents=(SHARD.id, "gone")))
    await lease.end(END, b"last", children)
    row = keeper.row()
    assert (row.ended, row.owner, row.position) == (True, None, END)
    assert {one.id for one in keeper.ended} == {SHARD.id, "left", "right"}
    assert keeper.content.shards[STREAM, "right"].shard.parents == (SHARD.id,)
    assert lease.has_ended


@in_virtual_time
async def test_a_child_that_has_nothing_yet_loads_what_its_ended_parents_left() -> None:
    keeper = kept()
    parent = keeper.claim()
    child = fresh_row(STREAM, Shard("left", parents=(SHARD.id, "gone")), TRIM_HORIZON)
    await parent.checkpoint(at(5), b"five")
    assert (await Lease(child, keeper, 2.0).load()).inherited == (), "the parent goes on"
    await parent.end(END, b"last", (child.shard,))
    restored = await Lease(child, keeper, 2.0).load()
    assert restored == Restored(TRIM_HORIZON, None, (), (b"last",))
    by_hand = moved_to(child, TRIM_HORIZON, "id", inherits=False)
    assert (await Lease(by_hand, keeper, 2.0).load()).inherited == (), "an operator's word"


@in_virtual_time
async def test_a_state_is_stored_before_the_row_names_it() -> None:
    keeper = kept()
    order: list[tuple[str, str]] = []

    async def gate(operation: str, side: Literal["before", "after"]) -> None:
        await asyncio.sleep(0.5 if operation == "put" else 0.001)
        order.append((operation, side))

    keeper.table = MemoryTable(keeper.content, gate)
    keeper.states = StateStore(keeper.table.items, keeper.objects)
    await keeper.claim().checkpoint(at(1), b"one")
    assert order.index(("put", "after")) < order.index(("write", "before"))


# ---- answers that were lost


@pytest.mark.parametrize("fault", ["refuse", "lose", "hang"])
@pytest.mark.parametrize("operation", ["write", "put", "read_shard"])
def test_a_commit_gets_through_whatever_call_fails(
    operation: str, fault: Literal["refuse", "lose", "hang"]
) -> None:
    async def main() -> None:
        keeper = kept()
        lease = keeper.claim()
        await lease.checkpoint(at(1), b"one")
        keeper.faults.script = [("write", "lose"), (operation, fault), ("write", "refuse")]
        keeper.faults.script += [("read_shard", "refuse"), (operation, fault)]
        await lease.checkpoint(at(2), b"two")
        keeper.faults.script = []
        assert keeper.row().commit == 2
        assert [pair.position for pair in keeper.row().pairs] == [at(1), at(2)]
        await lease.checkpoint(at(3), b"three")
        assert (await keeper.claim().load()).state == b"three"

    run(main())


@in_virtual_time
async def test_an_applied_commit_whose_answer_was_lost_counts_once() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.faults.script = [("write", "lose")]
    await lease.checkpoint(at(1), b"one")
    assert keeper.row().commit == 1
    assert keeper.observer.lines[-1] == "committed"


@in_virtual_time
async def test_the_end_of_a_shard_waits_for_as_long_as_a_discovery_may_take() -> None:
    keeper = kept()
    keeper.listing_s = 15.0
    lease = keeper.claim()
    async with asyncio.timeout(60):
        await lease.end(END, b"last", (Shard("shardId-000000000001", parents=(SHARD.id,)),))
    assert keeper.row().ended
    assert not any("find children" in line for line in keeper.observer.lines)


@in_virtual_time
async def test_an_end_whose_answer_was_lost_is_recognised() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.faults.script = [("end", "lose")]
    await lease.end(END, b"last", (Shard("child", parents=(SHARD.id,)),))
    assert keeper.row().commit == 1
    assert lease.has_ended


@in_virtual_time
async def test_a_mark_whose_answer_was_lost_is_there_once() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.faults.script = [("write", "lose")]
    await lease.mark(Mark(at(1), "idle", 1))
    assert len(keeper.row().marks) == 1


@in_virtual_time
async def test_after_a_cancelled_commit_the_next_finds_out_whether_it_happened() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), b"one")
    keeper.faults.script = [("write", "hang")]  # applied, and never answered
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await lease.checkpoint(at(2), b"two")
    assert keeper.row().commit == 2
    await lease.checkpoint(at(3), b"three")
    assert keeper.row().commit == 3
    restored = await keeper.claim().load()
    assert (restored.position, restored.state) == (at(3), b"three")


@in_virtual_time
async def test_a_late_landing_commit_never_pairs_one_position_with_anothers_state() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), b"one")
    landing: list[tuple[ShardRow, ShardRow]] = []
    write = keeper.table.write

    async def swallow(before: ShardRow, after: ShardRow):  # type: ignore[no-untyped-def]
        landing.append((before, after))
        await asyncio.sleep(1e6)

    keeper.table.write = swallow  # type: ignore[method-assign]
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await lease.checkpoint(at(2), b"two")

    async def late_first(before: ShardRow, after: ShardRow):  # type: ignore[no-untyped-def]
        if landing:
            assert (await write(*landing.pop())).applied
        return await write(before, after)

    keeper.table.write = late_first  # type: ignore[method-assign]
    await lease.checkpoint(at(3), b"three")
    assert [pair.position for pair in keeper.row().pairs] == [at(1), at(3)]
    assert (await keeper.claim().load()).state == b"three"


# ---- leases that were lost


@in_virtual_time
async def test_nothing_of_a_stale_epoch_is_accepted() -> None:
    keeper = kept()
    lease = keeper.claim("a")
    await lease.checkpoint(at(1), b"one")
    keeper.change(claimed(keeper.row(), "b", 0))
    stolen = keeper.row()
    with pytest.raises(LeaseLost):
        await lease.checkpoint(at(2), b"two")
    with pytest.raises(LeaseLost):
        await lease.mark(Mark(at(2), "idle", 2))
    with pytest.raises(LeaseLost):
        await lease.end(END, b"last", (Shard("child", parents=(SHARD.id,)),))
    assert keeper.content.shards == {(STREAM, SHARD.id): stolen}
    assert keeper.observer.lines == ["committed", "lost", "lost"]


@in_virtual_time
async def test_a_lease_that_an_operator_released_is_lost() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.change(released(keeper.row(), None, moved=False))
    with pytest.raises(LeaseLost):
        await lease.checkpoint(at(2), b"two")


@in_virtual_time
async def test_a_lease_whose_row_is_gone_is_lost() -> None:
    keeper = kept()
    lease = keeper.claim()
    del keeper.content.shards[STREAM, SHARD.id]
    with pytest.raises(LeaseLost):
        await lease.checkpoint(at(2), b"two")


@in_virtual_time
async def test_an_outage_is_waited_out_and_is_no_loss() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.faults.script = [("write", "refuse"), *[("read_shard", "refuse")] * 20]
    await lease.checkpoint(at(1), b"one")
    assert keeper.row().commit == 1


@in_virtual_time
async def test_a_commit_that_is_refused_again_and_again_is_tried_ever_later() -> None:
    keeper = kept()
    lease = keeper.claim()
    refusals = 12
    keeper.faults.script = [("write", "refuse")] * refusals
    began_at = keeper.clock.monotonic()
    await lease.checkpoint(at(1), b"one")
    assert keeper.row().commit == 1
    first_pause_s_max = 1.0
    assert keeper.clock.monotonic() - began_at > refusals * first_pause_s_max


@in_virtual_time
async def test_nothing_starts_while_validity_is_in_doubt() -> None:
    keeper = kept()
    lease = keeper.claim()
    keeper.valid.clear()
    task = asyncio.create_task(lease.checkpoint(at(1), b"one"))
    await asyncio.sleep(100)
    assert not lease.check_valid()
    assert keeper.row().commit == 0
    assert keeper.content.blobs == {}
    keeper.valid.set()
    await task
    assert keeper.row().commit == 1


@in_virtual_time
async def test_a_closed_lease_does_nothing_more() -> None:
    keeper = kept()
    lease = keeper.claim()
    lease.close()
    assert lease.valid_for_s() <= 0
    with pytest.raises(LeaseLost):
        await lease.fence()
    with pytest.raises(LeaseLost):
        await lease.checkpoint(at(1), b"one")
    assert keeper.row().commit == 0


# ---- states that can't be read


async def _two_commits(keeper: Keeping) -> None:
    lease = keeper.claim()
    await lease.checkpoint(at(1), b"one")
    await lease.checkpoint(at(2), b"two")


def spoil(keeper: Keeping, index: int) -> None:
    state = keeper.row().pairs[index].state
    assert state is not None
    keeper.content.blobs[state.key] = flipped(keeper.content.blobs[state.key], 99)


@in_virtual_time
async def test_the_pair_before_it_is_used_where_a_state_is_damaged() -> None:
    keeper = kept()
    await _two_commits(keeper)
    spoil(keeper, -1)
    lease = keeper.claim("b")
    restored = await lease.load()
    assert (restored.position, restored.state) == (at(1), b"one")
    assert "has another digest" in keeper.observer.lines[-1]
    await lease.checkpoint(at(2), b"two again")
    assert [pair.position for pair in keeper.row().pairs] == [at(1), at(2)]
    assert (await keeper.claim("c").load()).state == b"two again"


@in_virtual_time
async def test_marks_after_the_older_pair_are_replayed_with_it() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), b"one")
    await lease.mark(Mark(at(1), "idle", 11))
    await lease.checkpoint(at(2), b"two")
    await lease.mark(Mark(at(2), "idle", 22))
    spoil(keeper, -1)
    restored = await keeper.claim().load()
    assert [mark.watermark_ms for mark in restored.marks] == [11, 22]


@in_virtual_time
async def test_no_readable_state_stops_and_never_starts_from_nothing() -> None:
    keeper = kept()
    await _two_commits(keeper)
    spoil(keeper, 0)
    keeper.content.blobs.pop(keeper.row().pairs[1].state.key)  # type: ignore[union-attr]
    with pytest.raises(StateUnreadable, match=r"item .* has another digest"):
        await keeper.claim().load()


@in_virtual_time
async def test_an_object_that_nobody_configured_is_named() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), noise(20_000))
    await lease.checkpoint(at(2), noise(20_001))
    lease = keeper.claim()
    keeper.states = StateStore(keeper.table.items, None)
    with pytest.raises(StateUnreadable, match=r"state\.objects is not set"):
        await lease.load()


# ---- sweeping


@in_virtual_time
async def test_a_claim_sweeps_what_older_epochs_left_behind() -> None:
    keeper = kept()
    await _two_commits(keeper)
    old, row = keeper.claim("zombie").row, keeper.row()
    await keeper.states.put(old, 3, "w", packed(b"put and never referred to"))
    await keeper.states.put(old, 3, "x", packed(noise(20_000)))
    neighbour = replace(row, shard=replace(row.shard, id=SHARD.id + "1"))
    await keeper.states.put(neighbour, 1, "w", packed(b"another shard's"))
    row = keeper.claim("b").row
    await keeper.states.put(row, 3, "w", packed(b"being put right now"))
    assert await keeper.states.sweep(row) == 2
    assert keeper.objects.blobs == {}
    assert len(keeper.content.blobs) == 4
    assert (await keeper.claim("c").load()).state == b"two"
