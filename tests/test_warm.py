"""`processor warm` as it is run: real processes, recordings in S3, and the stream itself."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson
import pytest

from processor.cli import main
from tests.service import Scene, World, eventually, running_world
from tests.support import aws_client

WINDOW_MS = 600_000
NOW_MS = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS
BURST = -4  # window
KEYS = ("a", "b", "c")

PIPELINE = """\
app: {name}
source: {{stream: {name}}}
event: {{time: at, partition_key: key, out_of_orderness: 0s}}
sinks: {{bus: {{eventbridge: {name}}}}}
rules:
  ticks:
    group_by: [key]
    window: {{tumbling: 10m}}
    aggregates: {{n: count}}
    detect: [{{novelty: n}}]
    emit: {{anomalies: bus}}
state: {{table: {name}, objects: {folder}/state, checkpoint: 1s}}
dead_letters: {{sqs: {name}-dead}}
http: {{host: 127.0.0.1, port: 0}}
"""


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


async def scene_of(world: World, name: str) -> Scene:
    scene = await world.scene(name)
    scene.pipeline.write_text(PIPELINE.format(name=name, folder=scene.folder))
    return scene


def traffic(windows: Iterable[int]) -> list[tuple[str, bytes]]:
    """Of windows counted from now; far more in one of them."""
    made = []
    for nth in windows:
        count = (6 + crc32(b"%d" % nth) % 4) * (20 if nth == BURST else 1)
        for n in range(count):
            at = NOW_MS + nth * WINDOW_MS + n * WINDOW_MS // count
            made += [(key, orjson.dumps({"key": key, "at": at})) for key in KEYS]
    return made


async def warm(scene: Scene, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary, and what it said."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "processor", "warm", "-c", str(scene.pipeline)),
        *("--output", "json", *arguments),
        env=scene.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await child.communicate()
    return child.returncode or 0, json.loads(out or b"{}"), said.decode()


async def opened(scene: Scene) -> set[tuple[str, int]]:
    """Key and window of each alarm, once the first day is through."""
    worker = await (await scene.start_worker()).ready()
    live = traffic(range(-12, 0))
    scene.load(live)

    async def is_through() -> bool:
        status = await worker.status()
        return bool(status["totals"]["records"] == len(live))

    await eventually(is_through, 60, lambda: worker)
    assert await worker.stop() == 0
    details = [event["detail"] for event in await told(scene)]
    return {
        (d["key"]["key"], (d["window"]["start"] - NOW_MS) // WINDOW_MS)
        for d in details
        if d["anomaly"]["state"] == "opened"
    }


async def told(scene: Scene) -> list[dict[str, Any]]:
    """What the bus has brought, once nothing more comes: a stopped worker has put all."""
    events = scene.events
    assert events is not None
    await eventually(lambda: events.quiet_s() > 2)
    return [orjson.loads(body) for body in events.bodies]


async def put_history(url: str) -> None:
    lines = [payload for _, payload in traffic(range(-1_000, -20))]
    async with aws_client("s3", url) as client:
        await client.create_bucket(Bucket="captures")
        half = len(lines) // 2
        for name, part in (("1.gz", lines[:half]), ("2.gz", [b"no JSON", *lines[half:]])):
            body = gzip.compress(b"\n".join(part))
            await client.put_object(Bucket="captures", Key=f"orders/{name}", Body=body)


async def test_a_warm_start_from_s3_finds_on_the_first_day_what_a_cold_one_does_not(
    world: World,
) -> None:
    await put_history(world.aws_url)
    scene, cold = await scene_of(world, "warm"), await scene_of(world, "cold")
    code, summary, said = await warm(scene, "--from", "s3://captures/orders/")
    assert code == 0, said
    assert summary["records"] == len(traffic(range(-1_000, -20)))
    assert (summary["bad_lines"], summary["unplaced"], summary["late"]) == (1, 0, 0)
    assert summary["rules"] == [{"rule": "ticks", "keys": 3, "days": 6.79}]
    assert "s3://captures/orders/2.gz:1: not JSON" in said
    assert await opened(scene) == {(key, BURST) for key in KEYS}
    assert await opened(cold) == set()
    code, _, said = await warm(scene, "--from", "s3://captures/orders/")
    assert code == 75, said
    assert "processor leases reset --all --yes warm" in said


async def test_a_stream_is_relived_up_to_now_and_a_live_owner_is_not_cut_in_on(
    world: World,
) -> None:
    scene = await scene_of(world, "again")
    scene.load(traffic(range(-900, -12)))
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    code, summary, said = await warm(scene, "--stream-from", start)
    assert code == 0, said
    assert summary["records"] == len(traffic(range(-900, -12)))
    assert await opened(scene) == {(key, BURST) for key in KEYS}
    other = await scene_of(world, "owned")
    worker = await (await other.start_worker()).ready()
    await eventually(worker.shards, 30, lambda: worker)
    code, _, said = await warm(other, "--stream-from", start)
    assert code == 75, said
    assert "is alive" in said
    assert await worker.stop() == 0


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ("", 64, "one of the arguments --from --stream-from is required"),
        ("--from none.jsonl", 64, "--from none.jsonl: no such file"),
        ("--stream-from soon", 64, "found 'soon'"),
        ("--from a --stream-from latest", 64, "not allowed with"),
    ],
)
def test_words_are_checked_before_anything_is_asked_of_a_service(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
    why: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # where nobody answers
    pipeline = Path(__file__).parent / "pipelines" / "shop.yaml"
    assert main(["warm", *words.split(), "-c", str(pipeline)]) == code
    assert why in capsys.readouterr().err
