"""The service as it is run: real processes against real sockets, started, stopped and killed."""

from __future__ import annotations

import asyncio
import base64
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from processor import __version__
from processor.core.events import dead_letter_id
from processor.local.kinesis_shards import shard_name
from processor.observe.logs import FIELDS, LEVELS
from tests.faults import fault_proxy
from tests.service import (
    SECRET,
    Scene,
    Worker,
    World,
    balanced,
    eventually,
    running_world,
    together,
)


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


# ---- starts that fail -------------------------------------------------------------------------


async def refusal(worker: Worker, code: int, *parts: str) -> None:
    """It ended with that code, and its last line tells a person all of `parts`."""
    async with asyncio.timeout(30):
        assert await worker.child.wait() == code, worker
    last = worker.output().splitlines()[-1]
    assert not last.startswith("{"), "the last line is for a person"
    for part in parts:
        assert part in last, last
    assert "Traceback" not in worker.output()


async def lacking(world: World, what: str, *parts: str) -> None:
    scene = await world.scene(f"no-{what}", make=False)
    for one in {"stream", "table", "bus", "queue"} - {what}:
        await scene.make(one)
    worker = await scene.start_worker()
    await refusal(worker, 69, scene.name, *parts)
    assert worker.lines()[-1]["level"] == "error", "and it is logged as everything else is"
    assert worker.lines()[-1]["error_kind"] in ("Missing", "Unavailable")


async def without(world: World, name: str, variables: list[str], *parts: str) -> None:
    scene = await world.scene(name)
    worker = await scene.start_worker(**dict.fromkeys(variables))
    await refusal(worker, 69, *parts)


async def port_taken(world: World) -> None:
    scene = await world.scene("port-taken")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        worker = await scene.start_worker("--set", f"http.port={port}")
        await refusal(worker, 69, f"127.0.0.1:{port}", "set http.host and http.port")


async def bad_file(world: World) -> None:
    scene = await world.scene("bad-file", make=False)
    scene.pipeline.write_text(scene.pipeline.read_text().replace("stream:", "strem:"))
    await refusal(await scene.start_worker(), 78)
    assert f"{scene.pipeline}:2: source.strem" in scene.workers[0].output()


async def folder_of_another_user(world: World) -> None:
    scene = await world.scene("no-folder")
    (scene.folder / "state").write_text("a file where a folder should be")
    await refusal(await scene.start_worker(), 69, f"{scene.folder}/state", "make it a folder")


async def test_a_start_that_lacks_something_says_what_and_how_to_make_it(world: World) -> None:
    keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    await together(
        lacking(world, "stream", "kinesis:DescribeStreamSummary", "aws kinesis create-stream"),
        lacking(world, "table", "dynamodb:", "aws dynamodb create-table"),
        lacking(world, "bus", "events:DescribeEventBus", "aws events create-event-bus"),
        lacking(world, "queue", "sqs:GetQueueUrl", "aws sqs create-queue"),
        without(world, "no-keys", keys, "AWS: finding credentials failed", "AWS_ACCESS_KEY_ID"),
        without(world, "no-region", ["AWS_DEFAULT_REGION"], "AWS region", "source.region"),
        port_taken(world),
        bad_file(world),
        folder_of_another_user(world),
    )


# ---- starts that wait -------------------------------------------------------------------------


async def ended_while_starting(world: World, service: str, awaited: str, how: str) -> None:
    """A dependency is out: it says which, is alive and not ready, and ends when asked to."""
    scene = await world.scene(f"awaiting-{service.lower()}")
    door = await scene.door(service)
    await door.refuse() if how == "refuse" else door.hang()
    worker = await (await scene.start_worker()).serving()

    async def says_what() -> bool:
        code, text = await worker.get("/readyz")
        return code == 503 and f"waiting for {awaited}" in text

    await eventually(says_what, what=lambda: worker)
    assert (await worker.get("/healthz"))[0] == 200
    status = await worker.status()
    assert (status["state"], status["worker_id"], status["shards"]) == ("starting", "", {})
    number = signal.SIGINT if how == "refuse" else signal.SIGTERM
    assert await worker.stop(number) == 0, worker
    assert worker.lines()[-1]["event"] == "stopped"


async def begins_when_it_is_back(world: World) -> None:
    scene = await world.scene("back-again")
    door = await scene.door("DYNAMODB")
    await door.refuse()
    worker = await (await scene.start_worker()).serving()
    await eventually(lambda: worker.lines("waiting"), what=lambda: worker)
    await door.open()
    await worker.ready()
    scene.put(50)
    await scene.finish()


async def test_a_start_waits_for_what_is_out_and_can_be_ended(world: World) -> None:
    await together(
        ended_while_starting(world, "KINESIS", "the stream", "refuse"),
        ended_while_starting(world, "DYNAMODB", "the lease table", "hang"),
        ended_while_starting(world, "EVENTBRIDGE", "sink bus", "refuse"),
        ended_while_starting(world, "SQS", "the dead letters' queue", "hang"),
        begins_when_it_is_back(world),
    )


# ---- a record's way ---------------------------------------------------------------------------


async def test_a_record_goes_its_way_and_a_second_worker_goes_on_with_the_figures(
    world: World,
) -> None:
    scene = await world.scene("way", shards=2)
    first = await (await scene.start_worker()).ready()
    await balanced([first], 2)
    scene.put(300)
    await eventually(lambda: is_saved_beside_the_row(scene, "item"), what=lambda: first)
    assert (await first.get("/readyz")) == (200, "ok\n")
    assert await health_exit_code(first) == 0
    await shows_its_metrics(first, scene.shard_ids)

    second = await (await scene.start_worker()).ready()
    await balanced([first, second], 1, 1)
    kept, given = await first.shards(), await second.shards()
    await shows_its_metrics(first, kept, without=given)
    await shows_its_metrics(second, given, without=kept)

    assert await first.stop() == 0, first
    second_id = (await second.status())["worker_id"]
    releases = first.lines("lease_released")
    assert releases[-1]["message"] == f"released to {second_id}", "its successor, by name"
    await balanced([second], 2)
    rows, workers = await scene.rows()
    assert list(workers) == [second_id], "who went left no row"
    assert {row.owner for row in rows.values()} == {second_id}

    scene.put(3_000, keys=[f"{n * 7919 % 100_003:x}-{n:x}" for n in range(3_000)])
    await eventually(lambda: is_saved_beside_the_row(scene, "object"), what=lambda: second)
    await scene.finish()
    assert await second.stop(signal.SIGINT) == 0, second
    assert await health_exit_code(second) == 1
    rows, workers = await scene.rows()
    assert workers == {}
    assert {row.owner for row in rows.values()} == {None}
    for worker in scene.workers:
        speaks_as_it_should(worker)


async def is_saved_beside_the_row(scene: Scene, where: str) -> bool:
    rows, _ = await scene.rows()
    newest = [row.pairs[-1].state for row in rows.values()]
    if not newest or not all(ref is not None and ref.where == where for ref in newest):
        return False
    for ref in newest:
        assert ref is not None
        assert (ref.stored_bytes > 8 * 1024) == (where == "object"), ref
        if where == "object":
            assert (scene.folder / "state" / ref.key).stat().st_size == ref.stored_bytes
    return True


async def health_exit_code(worker: Worker) -> int:
    port = worker.url.rpartition(":")[2]
    arguments = (sys.executable, "-m", "processor", "health", "--port", port)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*arguments, stdout=quiet, stderr=quiet)
    return await process.wait()


async def shows_its_metrics(
    worker: Worker,
    shards: set[str],
    without: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    code, text = await worker.get("/metrics")
    assert code == 200
    stream = worker.child.name.rpartition("-")[0]
    for shard_id in shards:
        for name in ("lag_seconds", "last_read_timestamp_seconds", "watermark_lag_seconds"):
            assert f'processor_{name}{{shard="{shard_id}",stream="{stream}"}}' in text, text
    for shard_id in without:
        assert shard_id not in text, "its series go when the lease goes"
    assert f'processor_leases_held{{stream="{stream}"}} {float(len(shards))}' in text
    assert "processor_records_total " in text
    assert "processor_draining 0.0" in text


def speaks_as_it_should(worker: Worker) -> None:
    """Every line is JSON by the schema, and no secret is in any."""
    assert SECRET not in worker.output()
    lines = worker.lines()
    assert len(lines) == len(worker.output().splitlines())
    for line in lines:
        assert set(line) <= set(FIELDS), line
        assert {"@timestamp", "level", "event", "message", "service", "stream"} <= set(line), line
        assert line["level"] in LEVELS
    assert [line["event"] for line in lines[:3]] == [
        "serving",
        "generation",
        "worker_joined",
    ]
    assert [line["event"] for line in lines[-1:]] == ["stopped"]


async def test_status_and_leases_tell_what_the_demo_and_a_person_need(world: World) -> None:
    scene = await world.scene("status", shards=2)
    worker = await (await scene.start_worker()).ready()
    scene.put(100)
    await scene.finish()
    status = await worker.status()
    assert (status["app"], status["state"], status["version"]) == ("status", "running", __version__)
    assert status["totals"]["records"] == scene.records
    assert status["totals"]["events_published"] == len(scene.expected())
    for view in status["shards"].values():
        assert view["epoch"] == 1
        assert view["position"].startswith("after:")
        assert view["totals"]["windows_closed"] > 0
        assert (view["windows_open"], view["lag_ms"]) == (0, 0)
    leases = orjson.loads((await worker.get("/leases"))[1])
    assert {one["shard_id"]: one["owner"] for one in leases} == dict.fromkeys(
        scene.shard_ids, status["worker_id"]
    )


# ---- workers that come, go and die ------------------------------------------------------------


async def shared_and_moved(world: World) -> None:
    """2:2 of four shards; a third joins; one leaves; one is killed: always exact."""
    scene = await world.scene("shared", shards=4)
    done = asyncio.Event()
    loading = asyncio.create_task(scene.load_until(done))
    first, second = [await scene.start_worker() for _ in range(2)]
    await asyncio.gather(first.ready(), second.ready())
    await balanced([first, second], 2, 2)
    third = await (await scene.start_worker()).ready()
    await balanced([first, second, third], 2, 1, 1)
    assert await first.stop() == 0, first
    await balanced([second, third], 2, 2)
    await second.child.kill()
    await balanced([third], 4, within_s=20)
    done.set()
    await loading
    await scene.finish()
    third_id = (await third.status())["worker_id"]

    async def is_forgotten() -> bool:
        rows, workers = await scene.rows()
        assert {row.owner for row in rows.values()} == {third_id}
        return list(workers) == [third_id]

    await eventually(is_forgotten, what=lambda: f"the dead one's row is still there: {third}")


async def stopped_and_continued(world: World) -> None:
    """A worker that stood still for longer than its leases lived finds that they are not his."""
    scene = await world.scene("zombie", shards=2)
    done = asyncio.Event()
    async with fault_proxy(world.aws_url, TABLE_WRITES) as proxy:
        scene.extra["AWS_ENDPOINT_URL_DYNAMODB"] = proxy.url
        zombie = await (await scene.start_worker()).ready()
        del scene.extra["AWS_ENDPOINT_URL_DYNAMODB"]
        other = await (await scene.start_worker()).ready()
        loading = asyncio.create_task(scene.load_until(done))
        await balanced([zombie, other], 1, 1)
        old_id, its = (await zombie.status())["worker_id"], await zombie.shards()
        zombie.signal(signal.SIGSTOP)
        await eventually(lambda: is_owned_without(scene, old_id), 30, lambda: scene.workers)
        said, epochs = len(proxy.statuses), await scene.epochs()
        proxy.hold("Query", "GetItem")  # or it may read that it is buried before it writes
        zombie.signal(signal.SIGCONT)
        await eventually(lambda: len(proxy.statuses) > said, what=lambda: zombie)
        proxy.release()
        await eventually(lambda: zombie.lines("worker_buried_self"), what=lambda: zombie)
        await eventually(lambda: joined(zombie, but=old_id), what=lambda: zombie)
        answers = list(zip(proxy.passed[said:], proxy.statuses[said:], strict=True))
        writes = [status for body, status in answers if old_id in orjson.dumps(body).decode()]
        assert set(writes) == {400}, "whatever it writes under its old name is refused"
        await balanced([zombie, other], 1, 1)
    assert zombie.lines("worker_buried_self")[0]["worker_id"] == old_id
    status = await zombie.status()
    assert status["worker_id"] != old_id
    for shard_id, view in status["shards"].items():
        assert view["epoch"] > epochs[shard_id], "a lease of its own, not the one that it had"
    assert all(epochs[shard_id] > 1 for shard_id in its)
    assert (await zombie.get("/healthz")) == (200, "ok\n")
    done.set()
    await loading
    await scene.finish()


TABLE_WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


async def is_owned_without(scene: Scene, worker_id: str) -> bool:
    rows, _ = await scene.rows()
    return not {None, worker_id} & {row.owner for row in rows.values()}


async def joined(worker: Worker, *, but: str) -> bool:
    return (await worker.status())["worker_id"] not in ("", but)


async def killed_before_a_checkpoint(world: World) -> None:
    """What was put again after a crash is the same, byte for byte."""
    scene = await world.scene("repeats")
    async with fault_proxy(world.aws_url, {"PutEvents"}) as proxy:
        scene.extra["AWS_ENDPOINT_URL_EVENTBRIDGE"] = proxy.url
        first = await (await scene.start_worker("--set", "state.checkpoint=5m")).ready()
        scene.put(300)
        await scene.finish()
        assert (await scene.rows())[0][shard_name(0)].commit == 0
        await first.child.kill()
        second = await (await scene.start_worker()).ready()
        entries = [entry for request in proxy.passed for entry in request["Entries"]]
        n = len(entries)
        await eventually(lambda: sum(len(r["Entries"]) for r in proxy.passed) == 2 * n)
        again = [entry for request in proxy.passed for entry in request["Entries"]][n:]
        assert sorted(entries, key=detail_of) == sorted(again, key=detail_of)
        scene.put(100)
        await scene.finish()
        assert await second.stop() == 0


def detail_of(entry: Any) -> str:
    text: str = entry["Detail"]
    return text


async def fed_with_bad_records(world: World) -> None:
    """Each goes to the dead letters with its reason, a crash repeats their ids, all else counts."""
    scene = await world.scene("bad")
    first = await (await scene.start_worker("--set", "state.checkpoint=5m")).ready()
    bad = bad_records(scene)
    payloads = [payload for payload, _ in bad]
    scene.load(("any", payload) for payload in payloads)  # a page of nothing else
    await eventually(lambda: len(scene.dead()) == len(bad), what=lambda: first)
    scene.put(50)
    scene.load(("any", payload) for payload in payloads)  # in the midst of good ones
    scene.put(50)
    await scene.finish()
    letters = scene.dead()
    assert len(letters) == 2 * len(bad)
    for letter, (payload, reason) in zip(in_order(letters), bad + bad, strict=True):
        tells_where_it_was(letter, scene, payload, reason)
    await first.child.kill()
    await (await scene.start_worker()).ready()
    await eventually(lambda: len(scene.dead()) == 2 * len(letters), what=lambda: scene.workers)
    assert in_order(scene.dead()[len(letters) :]) == in_order(letters), "the same again"
    await scene.finish()


def bad_records(scene: Scene) -> list[tuple[bytes, str]]:
    good = {"type": "tick", "key": "k", "at": scene.ticks.now_ms, "value": 1}
    ahead_ms = int(time.time() * 1000) + 2 * 3_600_000

    def but(**other: Any) -> bytes:
        return orjson.dumps({k: v for k, v in (good | other).items() if v is not None})

    raw = orjson.dumps(good)
    return [
        (b"", "empty"),
        (b"{", "malformed"),
        (b"not json", "malformed"),
        (raw.replace(b":1}", b":NaN}"), "malformed"),
        (b"\xff\xfe" + raw, "not_utf8"),
        (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b"[]", "wrong_type"),
        (but(value="7"), "wrong_type"),
        (but(key=[1]), "wrong_type"),
        (but(at="soon"), "wrong_type"),
        (but(value=None), "missing_field"),
        (but(key=None), "missing_field"),
        (but(at=None), "missing_field"),
        (but(at=ahead_ms), "future"),
        (but(at=-1), "out_of_range"),
        (raw.replace(b":1}", b":1e999}"), "out_of_range"),
        (raw.replace(b":1}", b":%d}" % 10**400), "out_of_range"),
        (raw.replace(str(scene.ticks.now_ms).encode(), b"9" * 30), "out_of_range"),
        (b"{" + b"x" * 2**20, "malformed"),
        (b'{"type":"' + b"x" * (10 * 2**20 - 100), "malformed"),
    ]


def in_order(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(letters, key=lambda letter: int(letter["sequence_number"]))


def tells_where_it_was(letter: dict[str, Any], scene: Scene, payload: bytes, reason: str) -> None:
    number, shard_id = letter["sequence_number"], shard_name(0)
    assert letter["reason"] == reason, (payload[:80], letter["detail"])
    assert letter["id"] == dead_letter_id(scene.name, shard_id, number, 0)
    assert (letter["stream"], letter["shard_id"]) == (scene.name, shard_id)
    assert (letter["partition_key"], letter["payload_bytes"]) == ("any", len(payload))
    kept = base64.b64decode(letter["payload"])
    assert letter["truncated"] == (len(kept) < len(payload))
    assert payload.startswith(kept)
    assert len(kept) > min(len(payload) - 1, 150_000), "a queue takes 256 KiB"


async def test_workers_that_come_go_stand_still_or_die_lose_and_double_nothing(
    world: World,
) -> None:
    await together(
        shared_and_moved(world),
        stopped_and_continued(world),
        killed_before_a_checkpoint(world),
        fed_with_bad_records(world),
    )
