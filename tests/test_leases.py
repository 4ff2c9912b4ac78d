"""`processor leases` as it is run: processes against a table that workers have used."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from processor.local.kinesis_shards import shard_name
from tests.service import Scene, World, balanced, eventually, running_world, together


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


class Answer:
    """What a command said."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.out, self.err = code, out.decode(), err.decode()

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"

    def json(self) -> Any:
        return json.loads(self.out)


async def leases(scene: Scene, *arguments: str) -> Answer:
    """Run `processor leases ARGUMENTS` against a scene."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processor", "leases", *arguments, "-c", str(scene.pipeline)),
        env=scene.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return Answer(process.returncode or 0, out, err)


async def listing(scene: Scene) -> dict[str, dict[str, Any]]:
    answer = await leases(scene, "list", "--output", "json")
    assert answer.code == 0, answer
    return {one["shard"]: one for one in answer.json()["shards"]}


FIRST = shard_name(0)


# ---- seeing -----------------------------------------------------------------------------------


async def what_is_seen(world: World) -> None:
    scene = await world.scene("seen", shards=2)
    answer = await leases(scene, "list")
    assert (answer.code, answer.out) == (0, "")
    assert "nobody has read seen" in answer.err
    worker = await (await scene.start_worker()).ready()
    await balanced([worker], 2)
    scene.put(100)
    await eventually(lambda: saved(scene))
    worker_id = (await worker.status())["worker_id"]
    shown = await listing(scene)
    assert set(shown) == scene.shard_ids
    assert {(one["owner"], one["stage"], one["epoch"]) for one in shown.values()} == {
        (worker_id, "held", 1)
    }
    table = await leases(scene, "list")
    header, *rows = table.out.splitlines()
    assert header.split()[:5] == ["SHARD", "STAGE", "OWNER", "EPOCH", "POSITION"]
    assert [row.split()[0] for row in rows] == sorted(scene.shard_ids)
    await one_is_shown(scene, worker_id)
    assert await worker.stop() == 0
    assert {one["stage"] for one in (await listing(scene)).values()} == {"unowned"}


async def one_is_shown(scene: Scene, worker_id: str) -> None:
    row = (await scene.rows())[0][FIRST]
    shown = (await leases(scene, "show", FIRST, "--output", "json")).json()
    assert shown["owner"] == worker_id
    assert shown["pairs"][-1]["state"]["key"].startswith("seen@")
    assert shown["hash_range"][0] == "0"
    assert shown["incarnation"] == row.incarnation
    told = await leases(scene, "show", FIRST)
    assert "hash range" in told.out.replace("_", " ")
    missing = await leases(scene, "show", "shardId-9")
    assert (missing.code, FIRST in missing.err) == (64, True), missing


async def saved(scene: Scene) -> bool:
    """Whether every shard has a committed state."""
    rows, _ = await scene.rows()
    return bool(rows) and all(row.pairs[-1].state is not None for row in rows.values())


async def nothing_to_see(world: World) -> None:
    scene = await world.scene("unmade", make=False)
    await scene.make("stream")
    answer = await leases(scene, "list")
    assert answer.code == 69, answer
    assert "aws dynamodb create-table" in answer.err


async def test_leases_are_listed_and_shown(world: World) -> None:
    await together(what_is_seen(world), nothing_to_see(world))


# ---- who is alive -----------------------------------------------------------------------------


async def test_a_live_owner_is_not_cut_in_on_and_a_dead_one_is_replaced(world: World) -> None:
    scene = await world.scene("owner", shards=1)
    worker = await (await scene.start_worker()).ready()
    await balanced([worker], 1)
    scene.put(100)
    await eventually(lambda: saved(scene))
    alive = await asyncio.gather(
        leases(scene, "release", FIRST),
        leases(scene, "seek", FIRST, "--to", "trim_horizon", "--yes", "owner"),
        leases(scene, "reset", "--all", "--yes", "owner"),
    )
    for answer in alive:
        assert answer.code == 75, answer
        assert "is alive (its counter went from" in answer.err
    row = (await scene.rows())[0][FIRST]
    assert (row.epoch, row.seeks) == (1, 0)

    await worker.child.kill()
    answer = await leases(scene, "release", FIRST)
    assert answer.code == 0, answer
    assert "watching worker" in answer.err
    rows, workers = await scene.rows()
    assert rows[FIRST].owner is None
    assert [one.buried for one in workers.values()] == [True]
    assert "nobody" in (await leases(scene, "release", FIRST)).err

    second = await (await scene.start_worker()).ready()
    await balanced([second], 1)
    await scene.finish()


# ---- seek and reset ---------------------------------------------------------------------------


async def begins_again(world: World) -> None:
    """Everything is told once more, under new ids."""
    scene = await world.scene("again", shards=2)
    await run_to_the_end(scene)
    told = set(scene.by_id())
    answer = await leases(scene, "seek", "--all", "--to", "trim-horizon", "--yes", "again")
    assert answer.code == 0, answer
    assert {one["stage"] for one in (await listing(scene)).values()} == {"unowned"}
    worker = await (await scene.start_worker()).ready()
    await eventually(lambda: len(scene.by_id()) == 2 * len(told), what=scene._progress)
    fresh = {id_: one for id_, one in scene.by_id().items() if id_ not in told}
    old = sorted((str(d["key"]), d["window"]["start"], d["count"]) for d in scene.by_id().values())
    assert old[::2] == old[1::2], "the same windows, each twice"
    assert len(fresh) == len(told)
    assert await worker.stop() == 0


async def goes_on_without_state(world: World) -> None:
    """A reset keeps the position: nothing that was read is read again."""
    scene = await world.scene("reset", shards=1)
    await run_to_the_end(scene)
    before = (await scene.rows())[0][FIRST]
    answer = await leases(scene, "reset", FIRST, "--yes", "reset")
    assert answer.code == 0, answer
    row = (await scene.rows())[0][FIRST]
    assert (row.position, row.pairs[-1].state, row.marks) == (before.position, None, ())
    assert (row.seeks, row.epoch) == (before.seeks + 1, before.epoch + 1)
    read = scene.records
    scene.put(100)
    worker = await (await scene.start_worker()).ready()

    async def has_read() -> bool:
        shards = (await worker.status())["shards"]
        return [view["totals"]["records"] for view in shards.values()] == [scene.records - read]

    await eventually(has_read, what=lambda: worker)
    assert await worker.stop() == 0


async def starts_at_a_record(world: World) -> None:
    """A sequence number is the first record that is read; one that it never gave is refused."""
    scene = await world.scene("record", shards=2)
    scene.put(100)
    log = world.kinesis.model.stream("record", world.kinesis.now_ms()).shards[shard_name(1)]
    number = str(log.sequence_number(10))
    wrong = await leases(scene, "seek", FIRST, "--to", "9" * 56, "--yes", "record")
    assert wrong.code == 69, wrong
    assert "InvalidArgumentException" in wrong.err
    answer = await leases(scene, "seek", shard_name(1), "--to", number, "--yes", "record")
    assert answer.code == 0, answer
    worker = await (await scene.start_worker()).ready()

    async def has_read() -> bool:
        shards = (await worker.status())["shards"]
        view = shards.get(shard_name(1))
        return bool(view) and view["totals"]["records"] == log.next_index - 10

    await eventually(has_read, what=lambda: worker)
    assert await worker.stop() == 0


async def is_not_done_unasked(world: World) -> None:
    scene = await world.scene("unasked", shards=1)
    for given in ([], ["--yes", "other"]):
        answer = await leases(scene, "seek", "--all", "--to", "latest", *given)
        assert answer.code == 64, answer
        assert "--yes unasked" in answer.err
    bad = await leases(scene, "seek", "--all", "--to", "yesterday", "--yes", "unasked")
    assert (bad.code, "a time with its zone" in bad.err) == (64, True), bad
    assert (await leases(scene, "seek", "--all", FIRST, "--to", "latest")).code == 64


async def test_seek_and_reset_drop_state_and_begin_a_new_incarnation(world: World) -> None:
    await together(
        begins_again(world),
        goes_on_without_state(world),
        starts_at_a_record(world),
        is_not_done_unasked(world),
    )


async def run_to_the_end(scene: Scene) -> None:
    worker = await (await scene.start_worker()).ready()
    scene.put(200)
    await scene.finish()
    assert await worker.stop() == 0
