"""What the service needs is out, for longer than a lease lives, under load: nothing is lost.

Refused: connections are cut and no new ones taken. Hung: bytes are taken, and nothing is answered.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from processor.core.leases.commands import Timing
from processor.local.door import Door
from processor.local.emulator import Emulator
from processor.local.kinesis_faults import Fault
from tests.service import Scene, Worker, World, balanced, eventually, running_world, together

# Longer than leases live without heartbeats, and than any time-out of a request.
OUTAGE_S = Timing().dead_after_s + 3


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


async def under_load(world: World, name: str, service: str, how: str, workers: int = 1) -> Scene:
    """The whole course: load, the outage amid it, and all figures right at its end."""
    scene = await world.scene(name, shards=2)
    door = await scene.door(service)
    started = [await scene.start_worker() for _ in range(workers)]
    await asyncio.gather(*(worker.ready() for worker in started))
    await balanced(started, *[2 // workers] * workers)
    done = asyncio.Event()
    loading = asyncio.create_task(scene.load_until(done, ticks_per_s=50))
    await eventually(scene.by_id, what=lambda: started)
    epochs = await scene.epochs()
    await outage(door, how, started)
    done.set()
    await loading
    await scene.finish()
    assert await scene.epochs() == epochs, "no lease was claimed anew"
    return scene


async def outage(door: Door, how: str, workers: list[Worker]) -> None:
    await door.refuse() if how == "refuse" else door.hang()
    await asyncio.sleep(OUTAGE_S)  # it has a length; what comes of it is waited for
    for worker in workers:
        assert (await worker.get("/healthz")) == (200, "ok\n"), "a restart would not help"
    await door.open()


async def table_out(world: World, how: str) -> None:
    """The figures are right, and nobody was taken for dead: both work on under their ids."""
    scene = await under_load(world, f"table-{how}", "DYNAMODB", how, workers=2)
    for worker in scene.workers:
        assert len(worker.lines("worker_joined")) == 1
        assert not worker.lines("worker_buried")
        assert worker.lines("lease_call_failed")


async def bus_out(world: World, how: str) -> None:
    scene = await under_load(world, f"bus-{how}", "EVENTBRIDGE", how)
    assert scene.workers[0].lines("put_failed")


async def queue_out(world: World) -> None:
    """Bad records wait for the queue; the shard waits with them."""
    scene = await world.scene("queue-refuse")
    door = await scene.door("SQS")
    worker = await (await scene.start_worker()).ready()
    await balanced([worker], 1)
    await door.refuse()
    scene.put(100)
    scene.load([("any", b"bad %d" % n) for n in range(30)])
    scene.put(100)
    await eventually(lambda: worker.lines("put_failed"), what=lambda: worker)
    await asyncio.sleep(OUTAGE_S)
    assert (await worker.get("/healthz")) == (200, "ok\n")
    assert not scene.dead()
    await door.open()
    await scene.finish()
    await eventually(lambda: len({letter["id"] for letter in scene.dead()}) == 30)


async def stream_out(world: World) -> None:
    scene = await under_load(world, "stream-refuse", "KINESIS", "refuse")
    assert scene.workers[0].lines("read_failed")


async def stream_failing(aws_url: str, folder: Path) -> None:
    """Throttles, failures, cut and empty answers, expired iterators: in the midst of a load."""
    async with running_world(aws_url, folder) as world:  # faults are a whole Kinesis'
        scene = await world.scene("stream-faults", shards=2)
        worker = await (await scene.start_worker()).ready()
        await balanced([worker], 2)
        scene.put(200)
        kinds = ("throttle", "internal", "reset", "cut", "empty", "expired_iterator")
        world.kinesis.faults.add(*(Fault(kind, "GetRecords", times=2) for kind in kinds))
        await eventually(lambda: not world.kinesis.faults, within_s=40, what=lambda: worker)
        scene.put(200)
        await scene.finish()


async def all_stopped(folder: Path) -> None:
    """DynamoDB, EventBridge and SQS in one process, which is frozen and thawed."""
    async with (
        Emulator(folder, ["dynamodb", "events", "sqs"]) as emulator,
        running_world(emulator.url, folder) as world,
    ):
        scene = await world.scene("all-stopped", shards=2)
        worker = await (await scene.start_worker()).ready()
        await balanced([worker], 2)
        scene.put(200)
        os.kill(emulator.pid, signal.SIGSTOP)
        scene.put(200)
        scene.load([("any", b"bad")])
        await asyncio.sleep(OUTAGE_S)
        assert (await worker.get("/healthz")) == (200, "ok\n")
        code, text = await worker.get("/readyz")
        assert (code, "heartbeat" in text) == (503, True)
        os.kill(emulator.pid, signal.SIGCONT)
        await scene.finish()
        await eventually(lambda: len({letter["id"] for letter in scene.dead()}) == 1)
        assert len(worker.lines("worker_joined")) == 1


async def ended_while_the_bus_is_down(world: World) -> None:
    """For this worker: it gives up after its drain time, and the next one puts the rest."""
    scene = await world.scene("end-bus", shards=2)
    door = await scene.door("EVENTBRIDGE")
    first = await (await scene.start_worker()).ready()
    await balanced([first], 2)
    door.hang()
    scene.put(200)
    await eventually(lambda: first.lines("put_failed"), what=lambda: first)
    ending = asyncio.create_task(first.stop())
    scene.doors.clear()
    second = await (await scene.start_worker()).ready()
    assert (await first.get("/readyz"))[1].startswith("draining")
    assert await ending == 0, first
    await scene.finish()
    assert len(first.lines("lease_released")) == 2, "at the last checkpoint, which was none"
    assert list((await scene.rows())[1]) == [(await second.status())["worker_id"]]


async def ended_while_the_table_is_down(world: World) -> None:
    """For this worker: it can hand over nothing, ends in time all the same, and is followed."""
    scene = await world.scene("end-table")
    door = await scene.door("DYNAMODB")
    first = await (await scene.start_worker()).ready()
    await balanced([first], 1)
    await door.refuse()
    scene.put(200)
    ending = asyncio.create_task(first.stop())
    scene.doors.clear()
    second = await (await scene.start_worker()).ready()
    await scene.finish()
    assert second.lines("worker_buried")
    assert await ending == 0, first


async def test_nothing_is_lost_or_doubled_whatever_is_out(
    world: World, ministack: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await together(
        table_out(world, "refuse"),
        table_out(world, "hang"),
        bus_out(world, "refuse"),
        bus_out(world, "hang"),
        queue_out(world),
        stream_out(world),
        stream_failing(ministack, tmp_path_factory.mktemp("faults")),
        all_stopped(tmp_path_factory.mktemp("stopped")),
        ended_while_the_bus_is_down(world),
        ended_while_the_table_is_down(world),
    )
