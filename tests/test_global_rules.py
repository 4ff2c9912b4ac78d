"""Rules over all shards as they are run: real processes, two streams, and what happens to them."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from processor.local.kinesis_shards import shard_name
from tests.service import Scene, Worker, World, eventually, running_world
from tests.service.ticks import WINDOW_MS
from tests.test_service import refusal

GLOBAL = """\
  everything:
    where: {{type: [tick]}}
    group_by: []
    window: {{tumbling: 5s}}
    aggregates: {{n: count, total: {{sum: value}}}}
    emit: {{windows: bus}}
merge: {{stream: {name}-merge, buckets: 4}}
state:"""
MIDDLE = 2**127

Totals = dict[int, tuple[int, int]]  # window's start → count, sum


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


async def global_scene(world: World, name: str, *, shards: int) -> Scene:
    """A scene with a rule over all shards and a merge stream of one shard."""
    scene = await world.scene(name, shards=shards)
    world.kinesis.create_stream(f"{name}-merge", 1)
    source = scene.pipeline.read_text()
    scene.pipeline.write_text(source.replace("state:", GLOBAL.format(name=name), 1))
    return scene


def changed(scene: Scene) -> None:
    """Another figure: the rule is another one from now on."""
    source = scene.pipeline.read_text()
    more = source.replace("group_by: []", "group_by: []\n    max_groups: 7", 1)
    assert more != source
    scene.pipeline.write_text(more)


def expected(scene: Scene) -> Totals:
    counts, sums = Counter[int](), Counter[int]()
    for (_, start_ms), (n, total) in scene.expected().items():
        counts[start_ms] += n
        sums[start_ms] += total
    return {start_ms: (n, sums[start_ms]) for start_ms, n in counts.items()}


def totals(scene: Scene) -> dict[str, Totals]:
    """By version of the rule; without windows of which a version saw a part only."""
    found: dict[str, Totals] = {}
    for detail in scene.by_id().values():
        if detail["rule"] == "everything" and not detail.get("partial"):
            told = found.setdefault(detail["rule_version"], {})
            start_ms = detail["window"]["start"]
            assert start_ms not in told, f"{start_ms} came under two ids"
            told[start_ms] = (detail["values"]["n"], detail["values"]["total"])
    return found


def partial(scene: Scene) -> set[int]:
    """Starts of windows that began before a version of the rule did, and were told by it."""
    details = scene.by_id().values()
    return {d["window"]["start"] for d in details if d.get("partial")}


def newest(scene: Scene) -> int:
    """The start of the newest window that was told."""
    return max((max(told) for told in totals(scene).values() if told), default=0)


async def goes_on(scene: Scene, windows: int = 4) -> None:
    """Until so many newer windows were told."""
    target = newest(scene) + windows * WINDOW_MS
    within_s, workers = 60.0, scene.workers
    await eventually(lambda: newest(scene) >= target, within_s, lambda: list(map(repr, workers)))


async def stopped(worker: Worker) -> None:
    assert await worker.stop() == 0, worker


async def test_totals_are_right_through_a_kill_reshards_a_drain_and_a_deploy(world: World) -> None:
    scene = await global_scene(world, "all", shards=2)
    first, second = await scene.start_worker(), await scene.start_worker()
    await first.serving()
    done = asyncio.Event()
    load = asyncio.create_task(scene.load_until(done))
    await goes_on(scene, windows=1)
    await first.child.kill()
    third = await scene.start_worker()
    await goes_on(scene)
    kinesis = world.kinesis
    kinesis.model.stream("all", kinesis.now_ms()).split(
        shard_name(0), MIDDLE // 2, kinesis.now_ms()
    )
    kinesis.model.stream("all-merge", kinesis.now_ms()).split(
        shard_name(0), MIDDLE, kinesis.now_ms()
    )
    await goes_on(scene)
    await stopped(second)
    await goes_on(scene)
    changed(scene)
    fourth = await scene.start_worker()
    await fourth.serving()
    await stopped(third)
    await eventually(lambda: len(totals(scene)) == 2, 60, lambda: fourth)
    await goes_on(scene)
    done.set()
    await load
    scene.flush()
    scene.load(scene.ticks.flush(4))  # the halves of the shard that was split, too
    wanted = expected(scene)
    await eventually(lambda: newest(scene) == max(wanted), 60, lambda: fourth)
    old, new = totals(scene).values()
    for told in (old, new):
        assert told == {start_ms: wanted[start_ms] for start_ms in told}
    assert min(old) == min(wanted)
    old_tells, new_tells = at_the_deploy(scene, fourth)
    assert old.keys() == old_tells
    assert new.keys() | partial(scene) == new_tells
    await shows_both_stages(fourth)
    await stopped(fourth)


def at_the_deploy(scene: Scene, heir: Worker) -> tuple[set[int], set[int]]:
    """Starts of the windows that each version has to tell, by where the heir of all shards began.

    The old one tells what had ended by then in every shard. The changed one starts anew: it tells
    each window of which a record was left, and begins with none. A window of which all records were
    read but whose end no later record had passed is told by neither.
    """
    kinesis = scene.world.kinesis
    shards = kinesis.model.stream(scene.name, kinesis.now_ms()).shards
    read_up_ms, left = [], set[int]()
    for line in heir.lines("lease_claimed"):
        if line["stream"] == scene.name:
            shard = shards[line["shard_id"]]
            records = shard.read(0, shard.next_index, 2**62).fragments
            times = [orjson.loads(b64decode(orjson.loads(one)["Data"])) for one in records]
            stop = shard.index_after(int(line["message"].rpartition("after:")[2]))
            read_up_ms.append(max(one["at"] for one in times[:stop]))
            left |= {one["at"] // WINDOW_MS * WINDOW_MS for one in times[stop:] if "value" in one}
    assert len(read_up_ms) == 3, heir
    return {start for start in expected(scene) if start + WINDOW_MS <= min(read_up_ms)}, left


async def shows_both_stages(worker: Worker) -> None:
    status = await worker.status()
    assert status["merge"]["stream"] == "all-merge"
    assert set(status["merge"]["shards"]) == {shard_name(1), shard_name(2)}
    leases = orjson.loads((await worker.get("/leases"))[1])
    assert {lease["stream"] for lease in leases} == {"all", "all-merge"}
    _, metrics = await worker.get("/metrics")
    for stream, held in (("all", 3), ("all-merge", 2)):
        assert f'processor_leases_held{{stream="{stream}"}} {held}.0' in metrics, metrics
    assert {"all", "all-merge"} == {line["stream"] for line in worker.lines()}


async def test_a_start_without_its_merge_stream_tells_how_to_make_it(world: World) -> None:
    scene = await global_scene(world, "none", shards=1)
    source = scene.pipeline.read_text()
    scene.pipeline.write_text(source.replace("none-merge", "nowhere"))
    worker = await scene.start_worker()
    parts = ("merge stream nowhere", "aws kinesis create-stream --stream-name nowhere")
    await refusal(worker, 69, *parts)


async def test_a_start_with_other_buckets_is_refused(world: World) -> None:
    scene = await global_scene(world, "few", shards=1)
    first = await scene.start_worker()
    await first.serving()
    await eventually(first.shards, 30, lambda: first)
    await stopped(first)
    source = scene.pipeline.read_text()
    scene.pipeline.write_text(source.replace("buckets: 4", "buckets: 5"))
    await refusal(await scene.start_worker(), 78, "merge.buckets: found 5, expected 4")
