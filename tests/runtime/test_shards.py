"""Whole workers on streams that are resharded, trimmed, or deleted and made again."""

from __future__ import annotations

import asyncio
import json

from processor.core.rows import StreamKey
from processor.model import Shard
from tests.runtime.in_memory import BASE_MS, SHARD, Life, Town, tick, until
from tests.virtual_time import START_MS, run

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
