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
from processor.stores.dynamodb import create_table
from tests.kcl import coordinator_rows, dynamo, lease
from tests.kpl import aggregate
from tests.service import (
    Scene,
    Worker,
    World,
    balanced,
    eventually,
    running_world,
    together,
)
from tests.service.ticks import KEYS, shard_of


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


async def begins_again_before_a_reshard(world: World) -> None:
    """Parents are read again, and their children after them, with what was open at the split."""
    scene = await world.scene("split", shards=1)
    scene.put(95)  # the second window is open when the shard ends
    stream = world.kinesis.model.stream("split", world.kinesis.now_ms())
    stream.split(FIRST, 2**127, world.kinesis.now_ms())
    scene.shards = 2
    scene.put(105)
    scene.flush()
    worker = await (await scene.start_worker()).ready()
    await eventually(lambda: len(scene.by_id()) >= len(scene.expected()), what=scene._progress)
    assert scene.results() == scene.expected()
    assert await worker.stop() == 0
    told = set(scene.by_id())
    one = await leases(scene, "seek", FIRST, "--to", "trim_horizon", "--yes", "split")
    assert (one.code, "has ended" in one.err) == (64, True), one
    answer = await leases(scene, "seek", "--all", "--to", "trim_horizon", "--yes", "split")
    assert (answer.code, "read again" in answer.err) == (0, True), answer
    shown = await listing(scene)
    assert [shown[shard_name(n)]["stage"] for n in range(3)] == [
        "unowned",
        "waits for its parents",
        "waits for its parents",
    ]
    worker = await (await scene.start_worker()).ready()
    await eventually(lambda: len(scene.by_id()) == 2 * len(told), what=scene._progress)
    old = sorted((str(d["key"]), d["window"]["start"], d["count"]) for d in scene.by_id().values())
    assert old[::2] == old[1::2], "the same windows, each twice"
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
    assert wrong.code == 64, wrong
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
        begins_again_before_a_reshard(world),
        goes_on_without_state(world),
        starts_at_a_record(world),
        is_not_done_unasked(world),
    )


async def run_to_the_end(scene: Scene) -> None:
    worker = await (await scene.start_worker()).ready()
    scene.put(200)
    await scene.finish()
    assert await worker.stop() == 0


# ---- export and import ------------------------------------------------------------------------


async def test_positions_go_on_in_a_new_table_under_a_new_name(world: World) -> None:
    """A renamed application goes on where the old one was: no record twice, and none left out."""
    scene = await world.scene("old-name", shards=2)
    await run_to_the_end(scene)
    file = str(scene.folder / "positions.json")
    assert (await leases(scene, "export", file)).code == 0
    to_stdout = await leases(scene, "export", "-")
    assert {one["shard"] for one in to_stdout.json()["shards"]} == scene.shard_ids

    again = await leases(scene, "import", file)
    assert (again.code, "--overwrite" in again.err) == (64, True), again
    again = await leases(scene, "import", file, "--overwrite")
    assert (again.code, "--yes old-name" in again.err) == (64, True), again

    await create_table(world.dynamodb, "new-table")
    text = scene.pipeline.read_text()
    text = text.replace("app: old-name", "app: new-name")
    scene.pipeline.write_text(text.replace("table: old-name", "table: new-table"))
    dry = await leases(scene, "import", file, "--dry-run")
    assert (dry.code, "dry run" in dry.err) == (0, True), dry
    assert await listing(scene) == {}
    answer = await leases(scene, "import", file, "--output", "json")
    assert answer.code == 0, answer
    assert {one["goes_on_at"][:6] for one in answer.json()["shards"]} == {"after:"}

    read = scene.records
    scene.put(100)
    worker = await (await scene.start_worker()).ready()
    await eventually(lambda: has_read(worker, scene.records - read), what=lambda: worker)
    assert await worker.stop() == 0
    bad = scene.folder / "bad.json"
    bad.write_text("{}")
    answer = await leases(scene, "import", str(bad))
    assert (answer.code, f"{bad}: found" in answer.err) == (78, True), answer


async def has_read(worker: Worker, records: int) -> bool:
    shards = (await worker.status())["shards"]
    taken: int = sum(view["totals"]["records"] for view in shards.values())
    assert taken <= records, f"{taken} records of {records}: some came twice"
    return taken == records


# ---- a KCL application is replaced ------------------------------------------------------------


class Kcl:
    """The lease table that a KCL application left, or still works on."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.table = f"{scene.name}-kcl"
        self.stream: str | None = None

    async def make(self) -> Kcl:
        await self.scene.world.dynamodb.create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        )
        return self

    async def put(self, *items: dict[str, Any]) -> None:
        for item in items:
            await self.scene.world.dynamodb.put_item(TableName=self.table, Item=dynamo(item))

    async def leases(self, *arguments: str) -> Answer:
        return await leases(self.scene, "import", "--kcl-table", self.table, *arguments)


def log_of(scene: Scene, shard: int) -> Any:
    kinesis = scene.world.kinesis
    return kinesis.model.stream(scene.name, kinesis.now_ms()).shards[shard_name(shard)]


def done(scene: Scene, by_shard: dict[int, int]) -> None:
    """So many records of each shard were KCL's: what we tell is about the others."""
    seen: dict[int, int] = dict.fromkeys(by_shard, 0)
    kept = []
    for one in scene.ticks.sent:
        shard = shard_of(one[0], scene.shards)
        if shard in by_shard and seen[shard] < by_shard[shard]:
            seen[shard] += 1
        else:
            kept.append(one)
    assert seen == by_shard
    scene.ticks.sent[:] = kept
    scene.records -= sum(by_shard.values())


def put_aggregates(scene: Scene, ticks: int, size: int) -> None:
    """So many more ticks, as the KPL sends them: many in a record, under any key."""
    loaded = scene.ticks.more(ticks, KEYS)
    parts = [loaded[at : at + size] for at in range(0, ticks, size)]
    scene.load(("a", aggregate(part)) for part in parts)
    scene.records += ticks - len(parts)


async def goes_on_after_kcl_2(world: World) -> None:
    """One shard checkpointed, one at its beginning."""
    scene = await world.scene("kcl-two", shards=2)
    kcl = await Kcl(scene).make()
    scene.put(200)
    number = str(log_of(scene, 0).sequence_number(29))
    await kcl.put(
        lease(shard_name(0), checkpoint=number, pending=str(log_of(scene, 0).sequence_number(33))),
        lease(shard_name(1), checkpoint="TRIM_HORIZON"),
    )
    answer = await kcl.leases("--output", "json")
    assert answer.code == 0, answer
    first = answer.json()["shards"][0]
    assert (first["goes_on_at"], "pending" in first["note"]) == (f"after:{number}", True)
    done(scene, {0: 30})
    await (await scene.start_worker()).ready()
    await scene.finish()


async def goes_on_within_an_aggregate_of_kcl_3(world: World) -> None:
    """Of many streams in one table, from the middle of a record; later records come whole."""
    scene = await world.scene("kcl-three", shards=1)
    scene.pipeline.write_text(
        scene.pipeline.read_text().replace("{stream: ", "{decode: [kpl, json], stream: ")
    )
    kcl = await Kcl(scene).make()
    put_aggregates(scene, 300, size=50)
    other, ours = "111122223333:other:1", f"111122223333:{scene.name}:1"
    number = str(log_of(scene, 0).sequence_number(2))
    await kcl.put(
        *coordinator_rows(),
        lease(shard_name(0), checkpoint=number, sub=19, stream=ours, entity_type="LEASE"),
        lease(shard_name(0), checkpoint="SHARD_END", stream=other, owner="w"),
    )
    answer = await kcl.leases()
    assert answer.code == 0, answer
    assert "watching" not in answer.err, "the other stream's owner is nobody's concern"
    done(scene, {0: 120})
    await (await scene.start_worker()).ready()
    put_aggregates(scene, 100, size=7)
    await scene.finish()


async def goes_on_after_a_reshard(world: World) -> None:
    """KCL was through with a parent and forgot it; one child it had begun, one not."""
    scene = await world.scene("kcl-split", shards=1)
    kcl = await Kcl(scene).make()
    scene.put(100)
    stream = scene.world.kinesis.model.stream(scene.name, scene.world.kinesis.now_ms())
    stream.split(shard_name(0), 2**127, scene.world.kinesis.now_ms())
    done(scene, {0: 100})
    scene.shards = 2
    scene.put(100)
    number = str(log_of(scene, 1).sequence_number(9))
    begun = lease(shard_name(1), checkpoint=number, parents=[shard_name(0)])
    await kcl.put(begun, lease(shard_name(2), checkpoint="TRIM_HORIZON"))
    answer = await kcl.leases("--output", "json")
    assert answer.code == 0, answer
    assert answer.json()["shards"][0]["goes_on_at"] == "end"
    done(scene, {0: 10})
    await (await scene.start_worker()).ready()
    await scene.finish()


async def is_not_replaced_while_it_lives(world: World) -> None:
    scene = await world.scene("kcl-alive", shards=1)
    kcl = await Kcl(scene).make()
    scene.put(10)
    number = str(log_of(scene, 0).sequence_number(3))
    mine = lease(shard_name(0), checkpoint=number, owner="worker-1")
    await kcl.put(mine)
    importing = asyncio.create_task(kcl.leases("--kcl-lease-duration", "3s"))
    counter = 17
    while not importing.done():
        counter += 1
        await kcl.put(mine | {"leaseCounter": counter})
        await asyncio.sleep(0.3)
    answer = importing.result()
    assert answer.code == 75, answer
    assert "(owner worker-1) went from counter" in answer.err
    assert all(row.epoch == 0 for row in (await scene.rows())[0].values())
    answer = await kcl.leases("--kcl-lease-duration", "3s")
    assert answer.code == 0, answer
    assert "watching KCL table kcl-alive-kcl for 5 s" in answer.err


async def is_refused_with_the_reason(world: World) -> None:
    scene = await world.scene("kcl-refused", shards=1)
    scene.put(10)
    missing = await leases(scene, "import", "--kcl-table", "nowhere")
    assert (missing.code, "KCL table nowhere: dynamodb:Scan" in missing.err) == (69, True), missing
    wrong = await leases(scene, "import", "--kcl-table", scene.name, "--dry-run")
    assert (wrong.code, "is not known there" in wrong.err) == (64, True), wrong
    kcl = await Kcl(scene).make()
    for checkpoint, sub, code, why in (
        ("LATEST", 0, 64, "KCL never checkpointed it"),
        ("9" * 56, 0, 64, "Is it a sequence number of this stream and shard?"),
        (str(log_of(scene, 0).sequence_number(3)), 2, 78, "[kpl, json]"),
    ):
        await kcl.put(lease(shard_name(0), checkpoint=checkpoint, sub=sub))
        answer = await kcl.leases()
        assert (answer.code, why in answer.err) == (code, True), answer
    await kcl.put(lease(shard_name(0), checkpoint="LATEST"))
    assert (await kcl.leases("--initial", "latest")).code == 0


async def test_a_kcl_application_is_replaced_without_a_gap_or_a_repeat(world: World) -> None:
    await together(
        goes_on_after_kcl_2(world),
        goes_on_within_an_aggregate_of_kcl_3(world),
        goes_on_after_a_reshard(world),
    )


async def test_a_kcl_application_is_not_replaced_while_it_lives_or_where_it_is_unclear(
    world: World,
) -> None:
    await together(is_not_replaced_while_it_lives(world), is_refused_with_the_reason(world))
