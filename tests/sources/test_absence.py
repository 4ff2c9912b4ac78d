"""Shards that the service does not find: away, made again, a mishap, or past retention."""

from __future__ import annotations

import asyncio

import pytest

from processor.core.leases.rows import StreamKey
from processor.errors import Missing, StreamReplaced
from processor.model import TRIM_HORIZON, Position, Shard, StreamInfo
from processor.runtime.shards import Follower, Shards
from processor.sources.absence import LOOK_S, Absence, Look, Looks
from processor.stores.memory import MemoryTable
from tests.clocks import VirtualClock
from tests.sources.conftest import SHARD, LocalBench

MADE_MS = 1_700_000_000_000


def look(*listed: str, at: float, created_ms: int = MADE_MS) -> Look:
    info = StreamInfo("orders", "arn", created_ms, MADE_MS)
    return Look(info, [Shard(shard_id) for shard_id in listed], at)


def test_two_looks_in_a_row_without_the_shard_are_its_end() -> None:
    absence = Absence(SHARD, MADE_MS)
    assert not absence.on_look(look("other", at=0))
    assert not absence.on_look(look("other", at=0))  # the same look, told again
    assert absence.on_look(look("other", at=5))


def test_a_shard_that_is_listed_in_between_is_not_gone() -> None:
    absence = Absence(SHARD, MADE_MS)
    for at in range(10):
        listed = ["other", SHARD] if at % 2 else ["other"]
        assert not absence.on_look(look(*listed, at=at))


def test_a_younger_stream_is_another_one_and_an_older_description_only_lags() -> None:
    absence = Absence(SHARD, MADE_MS)
    assert not absence.on_look(look(SHARD, at=0, created_ms=MADE_MS - 1))
    with pytest.raises(StreamReplaced, match="stream orders was deleted, and made again at 2023"):
        absence.on_look(look(SHARD, at=1, created_ms=MADE_MS + 1))


class Counted:
    """A stream that counts how often it is asked, and fails when it is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def describe(self) -> StreamInfo:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise Missing("stream orders", "reading", "make it")
        return look(at=0).info

    async def list_shards(self) -> list[Shard]:
        return [Shard(SHARD)]


async def test_all_readers_of_a_process_share_a_look_while_it_is_fresh() -> None:
    stream, clock = Counted(), VirtualClock()
    looks = Looks(stream, clock)
    found = await asyncio.gather(*(looks.look() for _ in range(100)))
    assert (stream.asked, len({one.at for one in found})) == (1, 1)
    clock.now += LOOK_S
    await looks.look()
    assert stream.asked == 2


async def test_they_share_a_look_that_failed_too_and_take_another_when_it_is_stale() -> None:
    stream, clock = Counted(), VirtualClock()
    looks = Looks(stream, clock)
    stream.is_away = True
    failed = await asyncio.gather(*(looks.look() for _ in range(100)), return_exceptions=True)
    assert stream.asked == 1
    assert all(isinstance(one, Missing) for one in failed)
    stream.is_away = False
    clock.now += LOOK_S
    assert (await looks.look()).listing == [Shard(SHARD)]


# ---- over our local Kinesis


async def test_workers_go_over_to_a_stream_that_was_made_again(local: LocalBench) -> None:
    table, source = MemoryTable(), local.source()
    shards = Shards(table, source, Follower("shop", "latest"))
    await shards.open()
    await shards.discover(0.0)
    local.clock.now += 60
    local.server.model.delete_stream("orders")
    with pytest.raises(Missing):
        await shards.discover(1.0)
    local.server.create_stream("orders", 2)
    with pytest.raises(StreamReplaced):
        await shards.discover(2.0)
    await shards.open(is_made_again=True)
    rows, found = await shards.discover(3.0)
    again = StreamKey("orders", MADE_MS + 60_000)
    assert [(row.stream, row.position) for row in rows] == [(again, TRIM_HORIZON)] * 2
    assert len(found.create) == 2
    old = await table.read_shards(StreamKey("orders", MADE_MS))
    assert [row.position for row in old] == [Position("at_time", str(MADE_MS))]


async def test_a_position_in_a_stream_that_was_deleted_is_never_read_on_in_its_heir(
    local: LocalBench,
) -> None:
    source = local.source()
    await source.describe()
    local.load([b"old"] * 5)
    first = source.open(SHARD, TRIM_HORIZON)
    page = await first.read()
    await first.close()
    local.clock.now += 60
    local.server.model.delete_stream("orders")
    local.server.create_stream("orders", 1)
    local.load([b"new"] * 5)
    reader = source.open(SHARD, Position("after", page.sequence_numbers[-1]))
    with pytest.raises(StreamReplaced):
        await reader.read()
    await reader.close()
