"""Both stages in memory and in virtual time: what global rules tell is what was sent, whatever
happens to workers, leases and shards of either stream."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from processor.core.plan import compile
from processor.errors import ConfigError
from processor.model import MergeSpec, Page, Position, Shard, StreamInfo
from processor.sinks.memory import AnswerLost, Dropped, Throttled
from tests.runtime.in_memory import BASE_MS, Life, Town, tick, until
from tests.virtual_time import run

SHARDS = [f"shardId-{n:012d}" for n in range(8)]


class Sent:
    """Ticks over some shards, in order of time, and what they add up to."""

    def __init__(self, town: Town, *shards: str) -> None:
        self._town = town
        self.shards = list(shards)
        self._rng = random.Random(7)
        self.totals: Counter[int] = Counter()
        self.counts: Counter[int] = Counter()

    def minutes(self, first: float, last: float, per_minute: int = 20) -> None:
        """So many ticks a shard and minute; the last minute ends without one."""
        for n in range(round((last - first) * per_minute)):
            second = (first + n / per_minute) * 60
            for shard in self.shards:
                value = self._rng.randrange(100)
                self._town.put(tick(shard, second, value), shard=shard)
                self.counts[int(second // 60)] += 1
                self.totals[int(second // 60)] += value

    def expected(self, until: int) -> dict[int, tuple[int, int]]:
        return {m: (self.counts[m], self.totals[m]) for m in sorted(self.counts) if m < until}


def _town(shards: int = 4, merge_shards: int = 2, **more: object) -> tuple[Town, Sent]:
    town = Town(shards=shards, merge_shards=merge_shards, **more)  # type: ignore[arg-type]
    return town, Sent(town, *SHARDS[:shards])


async def told(town: Town, sent: Sent, minutes: int) -> None:
    await until(lambda: len(town.totals()) >= minutes, within_s=300)
    assert town.totals() == sent.expected(minutes)


async def stop(*lives: Life) -> None:
    for life in lives:
        await life.stop()


def test_what_all_shards_counted_is_told_once_by_whoever_has_the_merge_streams_lease() -> None:
    async def main() -> None:
        town, sent = _town()
        lives = [town.start(), town.start()]
        sent.minutes(0, 3.5)
        await told(town, sent, 3)
        assert len(town.windows()) == 4 * 3, "the rule by key goes on as ever"
        owners = {of.name: set() for of, _ in town.content.shards}
        for (of, _), row in town.content.shards.items():
            owners[of.name].add(row.owner)
        assert len(owners["ticks"]) == len(owners["merge"]) == 2, "both streams are shared out"
        await stop(*lives)
        assert all(row.owner is None for row in town.content.shards.values())

    run(main())


def test_a_shard_without_records_holds_up_nobody_for_longer_than_half_a_minute() -> None:
    async def main() -> None:
        town, _ = _town()
        sent = Sent(town, *SHARDS[:2])
        life = town.start()
        sent.minutes(0, 2.5)
        await told(town, sent, 2)
        late = Sent(town, SHARDS[3])
        late.minutes(3, 4.5)
        sent.minutes(2.5, 4.5)
        await until(lambda: len(town.totals()) >= 4, within_s=300)
        expected = {m: (c, t) for m, (c, t) in sent.expected(4).items()}
        c, t = expected[3]
        expected[3] = (c + late.counts[3], t + late.totals[3])
        assert town.totals() == expected
        await life.stop()

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_drains_at_any_moment_show_in_no_total(seed: int) -> None:
    async def main() -> None:
        town, sent = _town(checkpoint_ms=2_000)
        rng = random.Random(seed)
        lives = [town.start(), town.start()]
        for minute in range(5):
            town.records.script.extend([Dropped(), AnswerLost(), Throttled(frozenset({0}))])
            sent.minutes(minute, minute + 1)
            await asyncio.sleep(rng.uniform(0, 20))
            life = lives.pop(0)
            await (life.kill() if rng.random() < 0.6 else life.stop())
            lives.append(town.start())
        sent.minutes(5, 5.5)
        await told(town, sent, 5)
        await stop(*lives)

    run(main())


def test_both_streams_may_be_resharded_under_way() -> None:
    async def main() -> None:
        town, sent = _town(shards=2, merge_shards=1)
        lives = [town.start(), town.start()]
        sent.minutes(0, 1.5)
        await until(lambda: len(town.totals()) == 1)
        middle, last = 2**127, 2**128 - 1
        halves = [
            Shard(SHARDS[2], 0, middle // 2 - 1, (SHARDS[0],)),
            Shard(SHARDS[3], middle // 2, middle - 1, (SHARDS[0],)),
        ]
        town.source.close(SHARDS[0], children=halves)
        parts = [
            Shard(SHARDS[1], 0, middle - 1, (SHARDS[0],)),
            Shard(SHARDS[2], middle, last, (SHARDS[0],)),
        ]
        town.merge.close(SHARDS[0], children=parts)
        sent.shards = [SHARDS[1], SHARDS[2], SHARDS[3]]
        sent.minutes(1.5, 3.5)
        await told(town, sent, 3)
        whole = Shard(SHARDS[4], 0, middle - 1, (SHARDS[2], SHARDS[3]))
        town.source.close(SHARDS[2], SHARDS[3], children=[whole])
        town.merge.close(
            SHARDS[1], SHARDS[2], children=[Shard(SHARDS[3], 0, last, (SHARDS[1], SHARDS[2]))]
        )
        sent.shards = [SHARDS[1], SHARDS[4]]
        sent.minutes(3.5, 5.5)
        await told(town, sent, 5)
        await stop(*lives)

    run(main())


def test_a_changed_rule_is_told_anew_beside_the_old_one_until_its_last_worker_has_gone() -> None:
    async def main() -> None:
        town, sent = _town()
        lives = [town.start(), town.start()]
        sent.minutes(0, 1.5)
        await until(lambda: len(town.totals()) == 1)
        before = town.plan().pipeline
        rules = (before.rules[0], replace(before.rules[1], name="anew"))
        plan = compile(replace(before, rules=rules))
        lives.append(town.start(plan=plan))
        await asyncio.sleep(3)
        await lives.pop(0).stop()
        sent.minutes(1.5, 2.5)
        lives.append(town.start(plan=plan))
        await asyncio.sleep(3)
        await lives.pop(0).stop()
        sent.minutes(2.5, 5.5)
        await until(lambda: 4 in town.totals("anew"), within_s=300)
        anew = town.totals("anew")
        expected = sent.expected(5)
        assert anew == {minute: expected[minute] for minute in anew}
        assert {3, 4} <= anew.keys(), "its first window may be partial"
        old = town.totals()
        assert old == {minute: expected[minute] for minute in old}
        assert town.windows(), "the rule that did not change went on"
        await stop(*lives)

    run(main())


def test_what_a_stopping_worker_told_last_is_read_before_its_merge_stage_goes() -> None:
    """Nobody else may be able to: the rule is another one in a newer pipeline file."""

    async def main() -> None:
        town, sent = _town(caught_up_s=0.02)  # the merge stage asks each 250 ms
        life = town.start()
        sent.minutes(0, 1.5)
        await told(town, sent, 1)
        await asyncio.sleep(75.0)  # or times were too far ahead of their arrival
        sent.minutes(1.5, 2.5)
        records = sum(sent.counts.values())
        while sum(view.totals.records for view in life.worker.shards().values()) < records:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert len(town.totals()) == 1, "the merge stage has not heard of it yet"
        await life.stop()
        assert town.totals() == sent.expected(2)

    run(main())


def test_a_merge_stage_that_does_not_get_on_is_handed_over_unread() -> None:
    """Within the time that a process has to end."""

    async def main() -> None:
        town, sent = _town()
        life = town.start()
        sent.minutes(0, 1.5)
        await told(town, sent, 1)
        town.merge.delete()
        began_at = asyncio.get_running_loop().time()
        await life.stop()
        assert asyncio.get_running_loop().time() < began_at + 30
        assert all(row.owner is None for row in town.content.shards.values())

    run(main())


def test_all_that_a_stopping_worker_counted_is_told_before_its_merge_stage_goes() -> None:
    async def main() -> None:
        town, sent = _town()
        life = town.start()
        sent.minutes(0, 1.5)
        await told(town, sent, 1)
        assert life.merge is not None
        life.stopping.set()
        while life.worker.shards():
            assert life.merge.shards()
            await asyncio.sleep(0.001)
        assert life.merge.shards()
        await life.task
        assert not life.merge.shards()

    run(main())


def test_other_buckets_than_at_the_first_start_are_refused_before_anything_is_read() -> None:
    async def main() -> None:
        town, sent = _town()
        life = town.start()
        await until(lambda: life.merge is not None and life.merge.shards())
        await life.stop()
        town.merging = MergeSpec("merge", 8)
        sent.minutes(0, 1.5)
        with pytest.raises(ConfigError, match=r"merge\.buckets: found 8, expected 4"):
            await town.start().task
        assert town.records.taken == 0

    run(main())


def test_while_the_merge_stream_is_out_shards_wait_and_nothing_is_lost() -> None:
    async def main() -> None:
        town, sent = _town()
        life = town.start()
        sent.minutes(0, 1.5)
        await told(town, sent, 1)
        town.records.is_down = True
        sent.minutes(1.5, 2.5)
        await asyncio.sleep(120)
        assert len(town.totals()) == 1
        assert life.worker.stuck() == [], "it waits for something with a name"
        town.records.is_down = False
        await told(town, sent, 2)
        await life.stop()

    run(main())


class Undescribed:
    """A source that nobody can describe until it is open."""

    def __init__(self, town: Town) -> None:
        self._source = town.source
        self.is_open = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def describe(self) -> StreamInfo:
        await self.is_open.wait()
        return await self._source.describe()


def test_the_merge_stage_begins_when_it_is_known_which_generation_we_are() -> None:
    """Till then it could not tell what older pipeline files told from what newer ones did."""

    async def main() -> None:
        town, _ = _town()
        source = Undescribed(town)
        life = town.start(source=source)
        assert life.merge is not None
        await asyncio.sleep(10)
        assert not life.merge.shards()
        source.is_open.set()
        await until(lambda: life.merge is not None and life.merge.shards())
        assert life.worker.generation == 1
        await life.stop()

    run(main())


class Blocked:
    """A source of which nobody reads one shard, until it is open again."""

    def __init__(self, town: Town, shard_id: str) -> None:
        self._source, self._shard_id = town.source, shard_id
        self.is_open = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def open(self, shard_id: str, position: Position) -> Any:
        reader = self._source.open(shard_id, position)
        if shard_id == self._shard_id:
            read = reader.read

            async def waiting() -> Page:
                await self.is_open.wait()
                return await read()

            reader.read = waiting
        return reader


@pytest.mark.parametrize("on_stall_ms", [None, 120_000])
def test_a_shard_that_stands_still_is_waited_for_as_long_as_the_file_says(
    on_stall_ms: int | None,
) -> None:
    async def main() -> None:
        town, sent = _town(shards=2, merging=MergeSpec("merge", 4, on_stall_ms))
        source = Blocked(town, SHARDS[1])
        source.is_open.set()
        life = town.start(source=source)
        sent.minutes(0, 1.5)
        await told(town, sent, 1)
        source.is_open.clear()
        await asyncio.sleep(70)  # or these would be too far in the future to move time
        sent.minutes(1.5, 2.5)
        await asyncio.sleep(100)
        assert len(town.totals()) == 1
        await asyncio.sleep(40)
        assert town.incomplete() == ([] if on_stall_ms is None else [1, 2])
        assert set(life.steps.left_behind) == (set() if on_stall_ms is None else {SHARDS[1]})
        source.is_open.set()
        await asyncio.sleep(60)
        now = (town.clock.wall_ms() - BASE_MS) // 60_000  # idleness moved the other's time on
        sent.minutes(now, now + 0.9)
        await asyncio.sleep(60)
        sent.minutes(now + 1, now + 1.2)
        await until(lambda: now in town.totals(), within_s=300)
        found, expected = town.totals(), sent.expected(now + 1)
        for minute in town.incomplete():
            assert found.pop(minute) < expected.pop(minute)
        assert found == expected
        await life.stop()

    run(main())


class Slow:
    """A source of which a page of some shard takes so many seconds."""

    def __init__(self, town: Town, page_s: dict[str, float]) -> None:
        self._source, self._page_s = town.source, page_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def open(self, shard_id: str, position: Position) -> Any:
        reader = self._source.open(shard_id, position)
        read = reader.read

        async def slowly() -> Page:
            await asyncio.sleep(self._page_s[shard_id])
            return await read()

        reader.read = slowly
        return reader


@pytest.mark.parametrize(("max_drift_ms", "least", "most"), [(None, 30, 60), (120_000, 2, 16)])
def test_a_shard_that_catches_up_stays_near_the_slowest_if_the_file_says_so(
    max_drift_ms: int | None, least: int, most: int
) -> None:
    """Half a minute of events a page: one shard takes 0.2 s for it, the other, elsewhere, 1 s. How
    far that one has come is known 4 s later, so it is no strict bound."""

    async def main() -> None:
        merging = MergeSpec("merge", 4, max_drift_ms=max_drift_ms)
        town, sent = _town(shards=2, merging=merging, page_records_max=10)
        await asyncio.sleep(3_600)  # or all would be in the future
        sent.minutes(0, 40.5)
        source = Slow(town, {SHARDS[0]: 0.2, SHARDS[1]: 1.0})
        lives = [town.start(source=source), town.start(source=source)]
        drift = 0
        while len(town.totals()) < 40:
            held = [view for life in lives for view in life.worker.shards().values()]
            times = [view.watermark_ms for view in held if view.watermark_ms is not None]
            if len(times) == 2:
                drift = max(drift, max(times) - min(times))
            await asyncio.sleep(0.1)
        assert least <= drift / 60_000 <= most
        assert town.totals() == sent.expected(40)
        assert all(life.worker.stuck() == [] for life in lives)
        await stop(*lives)

    run(main())
