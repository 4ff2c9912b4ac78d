"""Whole workers on streams that are resharded, trimmed, or deleted and made again."""

from __future__ import annotations

import asyncio
import json
from hashlib import md5

import pytest

from processor.core.leases.rows import StreamKey, fresh_row
from processor.errors import ConfigError, Outage
from processor.model import TRIM_HORIZON, Shard
from processor.runtime.shards import Follower, Shards
from processor.sources.memory import MemorySource
from processor.stores.memory import MemoryTable
from tests.runtime.in_memory import BASE_MS, SHARD, Life, Town, tick, until
from tests.virtual_time import START_MS, VirtualClock, run

HALF = 2**127
DAY_S = 86_400
LEFT = Shard("shardId-000000000001", 0, HALF - 1, (SHARD,))
RIGHT = Shard("shardId-000000000002", HALF, 2**128 - 1, (SHARD,))


def counts(town: Town) -> dict[tuple[str, int, int], int]:
    """(key, window's minute, incarnation's place) → count."""
    found = {}
    for body in town.bus.by_id().values():
        detail = json.loads(body)
        minute = (detail["window"]["start"] - BASE_MS) // 60_000
        key = (detail["key"]["key"], minute)
        found.setdefault(key, []).append(detail["values"]["n"])
    return found


def epochs_of(town: Town, created_ms: int) -> dict[str, int]:
    rows = town.content.shards.items()
    return {id_: row.epoch for (stream, id_), row in rows if stream.created_ms == created_ms}


async def stop(*lives: Life) -> None:
    for life in lives:
        await life.stop()


def test_a_stream_made_again_is_followed_by_all_workers_from_its_beginning() -> None:
    async def main() -> None:
        town = Town(shards=2)
        first, second = town.start(), town.start()
        town.put(*(tick("a", second) for second in range(70)))  # one window closes
        await until(lambda: town.windows() == {("a", 0): (60, 60)})
        town.source.make_again([Shard("shardId-000000000000")])
        made_ms = town.source.created_ms()
        town.put(*(tick("a", second) for second in range(0, 70, 2)))
        await until(lambda: len(town.bus.by_id()) == 2, within_s=60)
        assert counts(town) == {("a", 0): [60, 30]}  # one window of each stream, under two ids
        assert set(epochs_of(town, made_ms)) == {SHARD}
        assert len(epochs_of(town, START_MS)) == 2  # the old rows are left alone
        await asyncio.sleep(30)
        assert len(town.content.workers) == 2
        assert {stream for stream, _ in town.content.workers} == {StreamKey("ticks", made_ms)}
        await stop(first, second)
        assert town.content.workers == {}

    run(main())


def test_a_stream_that_is_away_for_long_before_it_is_made_again_is_waited_for() -> None:
    async def main() -> None:
        town = Town()
        life = town.start()
        town.put(*(tick("a", second) for second in range(70)))
        await until(lambda: len(town.bus.by_id()) == 1)
        town.source.delete()
        await asyncio.sleep(600)
        assert not life.task.done()
        assert life.worker.is_alive
        town.source.make_again([Shard(SHARD)])
        town.put(*(tick("a", second) for second in range(70)))
        await until(lambda: len(town.bus.by_id()) == 2)
        await stop(life)

    run(main())


def test_what_a_stream_held_before_anybody_noticed_it_is_not_skipped_by_latest() -> None:
    async def main() -> None:
        town = Town(start_at="latest")
        life = town.start()
        await until(lambda: len(town.content.workers) == 1)
        town.source.make_again([Shard(SHARD)])
        town.put(*(tick("a", second) for second in range(70)))
        await until(lambda: town.windows() == {("a", 0): (60, 60)})
        await stop(life)

    run(main())


def test_a_worker_that_is_told_to_stop_while_its_stream_is_away_stops() -> None:
    async def main() -> None:
        town = Town()
        life = town.start()
        await until(lambda: len(life.worker.shards()) == 1)
        town.source.delete()
        await asyncio.sleep(60)
        await life.stop()
        assert town.content.workers == {}

    run(main())


# ---- retention


async def seen_and_left(town: Town, away_s: float) -> None:
    """A minute's ticks are read by a worker that then is killed; records come, time passes."""
    life = town.start()
    town.put(*(tick("a", second) for second in range(61)))
    await until(lambda: town.commit > 0)
    await life.kill()
    town.put(*(tick("lost", second) for second in range(60, 70)))
    await asyncio.sleep(away_s)


def test_records_lost_to_retention_park_the_shard_and_say_so() -> None:
    async def main() -> None:
        town = Town()
        await seen_and_left(town, DAY_S + 3_600)
        life, known = town.start(), dict(town.bus.by_id())
        await until(lambda: [one.stage for one in life.worker.leases()] == ["parked"])
        (gap,) = life.steps.gaps
        assert gap.first_ms // 60_000 == START_MS // 60_000
        assert 3_500_000 < gap.last_ms - gap.first_ms < 3_700_000
        assert "set source.on_gap to continue" in str(gap)
        town.put(tick("a", DAY_S + 3_700))
        await asyncio.sleep(60)
        assert life.worker.leases()[0].stage == "parked"
        assert town.bus.by_id() == known
        await stop(life)

    run(main())


def test_with_continue_the_gap_is_told_once_and_becomes_a_dead_letter_and_reading_goes_on() -> None:
    async def main() -> None:
        town = Town(on_gap="continue")
        await seen_and_left(town, DAY_S + 3_600)
        life = town.start()
        await until(lambda: len(life.steps.gaps) == 1)
        town.put(tick("a", DAY_S + 3_700))
        await until(lambda: ("a", 1) in town.windows())
        assert town.windows()["a", 1] == (1, 1)  # open when the worker died, and not lost
        assert not [key for key, _ in town.windows() if key == "lost"]
        (letter,) = (arrival.of for arrival in town.dead.arrivals)
        assert letter.reason == "retention_gap"
        assert "are past the stream's retention, and were not read" in letter.detail
        await stop(life)
        again = town.start()
        await asyncio.sleep(60)
        assert (len(life.steps.gaps), again.steps.gaps) == (1, [])
        await stop(again)

    run(main())


def test_a_shard_that_can_not_tell_of_its_gap_waits_and_is_not_taken_for_stalled() -> None:
    async def main() -> None:
        town = Town(on_gap="continue")
        await seen_and_left(town, DAY_S + 3_600)
        town.dead.is_down = True
        life = town.start()
        await until(lambda: len(life.steps.gaps) == 1)
        await asyncio.sleep(200)
        assert (life.seen.stalled, life.worker.stuck()) == ([], [])
        town.dead.is_down = False
        await until(lambda: len(town.dead.arrivals) == 1)
        await stop(life)

    run(main())


def test_a_worker_that_is_away_for_less_than_retention_finds_no_gap() -> None:
    async def main() -> None:
        town = Town()
        await seen_and_left(town, DAY_S - 3_600)
        life = town.start()
        town.put(tick("a", DAY_S))
        await until(lambda: ("lost", 1) in town.windows())
        assert life.steps.gaps == []
        await stop(life)

    run(main())


def test_a_shard_that_is_idle_for_long_is_not_taken_for_one_that_nobody_read() -> None:
    """Its position is older than retention; the row's moment is not, for a write an hour."""

    async def main() -> None:
        town = Town(caught_up_s=30, retention_ms=70 * 60_000)
        life = town.start()
        town.put(tick("a", 0))
        await asyncio.sleep(600)
        commits = town.commit
        await asyncio.sleep(2 * 3_600)
        assert town.commit - commits == 2
        await life.kill()
        await asyncio.sleep(300)
        other = town.start()
        town.put(tick("a", 3 * 3_600))
        await until(lambda: ("a", 0) in town.windows())
        assert other.steps.gaps == []
        await stop(other)

    run(main())


def test_a_child_begins_where_its_parent_stopped_and_not_at_an_old_start() -> None:
    """The start is older than retention when the shard is split; the child holds all it had."""

    async def main() -> None:
        town = Town(start_at="latest", caught_up_s=10, retention_ms=600_000)
        life = town.start()
        town.put(tick("a", 0))
        await asyncio.sleep(1_800)
        town.source.close(SHARD, children=[LEFT, RIGHT])
        town.put(tick("b", 1_800), tick("b", 1_870), shard=LEFT.id)
        await until(lambda: ("b", 30) in town.windows())
        assert life.steps.gaps == []
        await stop(life)

    run(main())


def test_a_child_that_nobody_read_for_too_long_has_a_gap() -> None:
    async def main() -> None:
        town = Town(on_gap="continue")
        life = town.start()
        town.put(tick("a", 0))
        await asyncio.sleep(60)
        town.source.close(SHARD, children=[LEFT, RIGHT])
        await until(lambda: len(town.content.shards) == 3)
        await life.kill()
        assert town.row(LEFT.id).commit == 0
        town.put(tick("b", 60), shard=LEFT.id)
        await asyncio.sleep(2 * DAY_S)
        other = town.start()
        await until(lambda: len(other.steps.gaps) == 2)
        assert {gap.shard_id for gap in other.steps.gaps} == {LEFT.id, RIGHT.id}
        await stop(other)

    run(main())


# ---- shards past retention


def test_a_shard_that_went_while_nobody_read_it_ends_and_leaves_its_state_to_its_children() -> None:
    async def main() -> None:
        town = Town(on_gap="continue", window_ms=DAY_S * 1_000)
        life = town.start()
        town.put(*(tick("a", second) for second in range(60)))
        await until(lambda: town.commit > 0)
        await life.kill()
        town.source.close(SHARD, children=[LEFT, RIGHT])
        await asyncio.sleep(2 * DAY_S)
        assert [shard.id for shard in await town.source.list_shards()] == [LEFT.id, RIGHT.id]
        other = town.start()
        await until(lambda: _is_owned(town, LEFT.id) and _is_owned(town, RIGHT.id))
        assert town.row().ended
        home = LEFT.id if _hash("a") < HALF else RIGHT.id
        town.put(tick("a", 100), shard=home)
        town.put(tick("b", 2 * DAY_S), shard=home)
        await until(lambda: _count_of(town, "a") == 61)
        await stop(other)

    run(main())


def test_where_its_children_went_too_their_children_take_its_state() -> None:
    async def main() -> None:
        town = Town(on_gap="continue", window_ms=DAY_S * 1_000)
        life = town.start()
        town.put(*(tick("a", second) for second in range(60)))
        await until(lambda: town.commit > 0)
        await life.kill()
        town.source.close(SHARD, children=[LEFT, RIGHT])
        merged = Shard("shardId-000000000003", parents=(LEFT.id, RIGHT.id))
        town.source.close(LEFT.id, RIGHT.id, children=[merged])
        await asyncio.sleep(2 * DAY_S)
        other = town.start()
        await until(lambda: _is_owned(town, merged.id))
        assert town.row(merged.id).shard.parents == (SHARD,)
        assert set(_ids(town)) == {SHARD, merged.id}
        town.put(tick("a", 100), shard=merged.id)
        town.put(tick("b", 2 * DAY_S), shard=merged.id)
        await until(lambda: _count_of(town, "a") == 61)
        await stop(other)

    run(main())


def _hash(key: str) -> int:
    return int.from_bytes(md5(key.encode()).digest(), "big")


def _count_of(town: Town, key: str) -> int:
    """Over all events of a key, of which each is of other records."""
    details = map(json.loads, town.bus.by_id().values())
    return sum(detail["values"]["n"] for detail in details if detail["key"]["key"] == key)


def _ids(town: Town) -> list[str]:
    return [shard_id for _, shard_id in town.content.shards]


def _is_owned(town: Town, shard_id: str) -> bool:
    return shard_id in _ids(town) and town.row(shard_id).owner is not None


def test_who_ends_a_shard_without_any_listed_child_names_the_oldest_of_its_hash_keys() -> None:
    """Before any discovery has seen them: else they would begin without what it leaves."""

    async def main() -> None:
        source, table = MemorySource("ticks", [Shard(SHARD)], VirtualClock()), MemoryTable()
        shards = Shards(table, source, Follower("shop"))
        await shards.open()
        (row,), _ = await shards.discover(0.0)
        source.close(SHARD, children=[LEFT, RIGHT])
        merged = Shard("shardId-000000000003", parents=(LEFT.id, RIGHT.id))
        source.close(LEFT.id, RIGHT.id, children=[merged])
        await asyncio.sleep(2 * DAY_S)
        (child,) = await shards.child_rows(row, (), {SHARD}, "me")
        assert (child.id, child.shard.parents, child.successor) == (merged.id, (SHARD,), "me")

    run(main())


class Stale(MemorySource):
    """Its listings are those of before, until it is told to tell the truth."""

    is_stale = False

    async def list_shards(self) -> list[Shard]:
        listing = await super().list_shards()
        return [shard for shard in listing if shard.id == SHARD] if self.is_stale else listing


def test_a_listing_that_is_older_than_the_children_says_nothing_of_their_other_parents() -> None:
    """Half of a merge ends while the other half is not yet known: it must be waited for."""

    async def main() -> None:
        source, table = Stale("ticks", [Shard(SHARD)], VirtualClock()), MemoryTable()
        shards = Shards(table, source, Follower("shop"))
        await shards.open()
        await shards.discover(0.0)
        source.close(SHARD, children=[LEFT, RIGHT])
        merged = Shard("shardId-000000000003", parents=(LEFT.id, RIGHT.id))
        source.close(LEFT.id, RIGHT.id, children=[merged])
        left = fresh_row(StreamKey("ticks", BASE_MS), LEFT, TRIM_HORIZON)
        source.is_stale = True
        with pytest.raises(Outage, match="children"):
            await shards.child_rows(left, (merged,), {SHARD, LEFT.id}, "me")
        source.is_stale = False
        (child,) = await shards.child_rows(left, (merged,), {SHARD, LEFT.id}, "me")
        assert child.shard.parents == (LEFT.id, RIGHT.id)

    run(main())


def test_more_heirs_than_a_transaction_takes_are_created_before_the_end() -> None:
    """A stream that was scaled far while nobody read: the service takes 100 items at once."""

    async def main() -> None:
        parts = [Shard(f"shardId-{n:012d}", n, n, (SHARD,)) for n in range(1, 151)]
        source, table = MemorySource("ticks", [Shard(SHARD)], VirtualClock()), MemoryTable()
        shards = Shards(table, source, Follower("shop"))
        await shards.open()
        (row,), _ = await shards.discover(0.0)
        source.close(SHARD, children=parts)
        ended_with = await shards.child_rows(row, tuple(parts), {SHARD}, "me")
        created = {one.id: one for one in await shards.read() if one.id != SHARD}
        assert len(ended_with) + 1 <= 100
        assert {one.id for one in ended_with} | set(created) == {part.id for part in parts}
        assert all(one.shard.parents == (SHARD,) for one in created.values())

    run(main())


def test_another_number_of_buckets_is_refused_with_what_to_do() -> None:
    """Groups would be looked for where they are not."""

    async def main() -> None:
        source, table = MemorySource("merge", [Shard(SHARD)], VirtualClock()), MemoryTable()
        await Shards(table, source, Follower("shop", buckets=16)).open()
        await Shards(table, source, Follower("shop", buckets=16)).open()
        with pytest.raises(ConfigError, match=r"merge.buckets: found 8, expected 16.*merge.stream"):
            await Shards(table, source, Follower("shop", buckets=8)).open()

    run(main())
