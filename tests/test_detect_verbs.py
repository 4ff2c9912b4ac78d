"""What people say to alarms, as it is said: a worker, a table, and the commands, all real."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from processor.cli import main
from tests.service import Scene, World, eventually, running_world

START_MS = 1_767_225_600_000  # 2026-01-01
WINDOW_MS = 60_000
FAR = "2999-01-01T00:00:00Z"

PIPELINE = """\
app: {name}
source: {{stream: {name}}}
event: {{time: at, unit: ms, partition_key: key, out_of_orderness: 0s}}
sinks: {{bus: {{eventbridge: {name}}}}}
rules:
  ticks:
    group_by: [key]
    window: {{tumbling: 1m}}
    aggregates: {{total: {{sum: value}}}}
    detect: [{{threshold: total, above: 10, recover_after: 1}}]
    emit: {{anomalies: bus}}
state: {{table: {name}, objects: {folder}/state, checkpoint: 1s}}
dead_letters: {{sqs: {name}-dead}}
http: {{host: 127.0.0.1, port: 0}}
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def plain(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


class Shop:
    """Minutes of traffic, what came of them, and the commands."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.minute = 0
        scene.pipeline.write_text(PIPELINE.format(name=scene.name, folder=scene.folder))

    def see(self, **totals: int) -> None:
        """One more minute, and the beginning of the next one, which closes it."""
        at_ms = START_MS + self.minute * WINDOW_MS
        self.minute += 1
        rows = [(key, at_ms, total) for key, total in totals.items()]
        rows.append(("clock", at_ms + WINDOW_MS, 0))
        self.scene.load(
            (key, orjson.dumps({"key": key, "at": at, "value": value})) for key, at, value in rows
        )

    def told(self) -> list[tuple[str, str]]:
        """(key, state), in order of arrival."""
        return [(one["key"]["key"], one["anomaly"]["state"]) for one in self._anomalies()]

    async def until(self, *told: tuple[str, str]) -> str:
        """The id of the last of these, which are all that was told so far."""
        await eventually(lambda: len(self.told()) >= len(told), what=lambda: self.scene.workers)
        assert sorted(self.told()) == sorted(told)
        return str(self._anomalies()[-1]["id"])

    def _anomalies(self) -> list[dict[str, Any]]:
        return [one for one in self.scene.by_id().values() if one["kind"] == "anomaly"]

    async def say(self, *words: str) -> Said:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "processor", *words, "-c", str(self.scene.pipeline)),
            env=self.scene.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        assert b"Traceback" not in err, err.decode()
        return Said(child.returncode or 0, out.decode(), err.decode())

    async def ask(self, *words: str) -> Any:
        return (await self.say(*words, "--output", "json")).plain


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(ministack, tmp_path) as world:
        yield world


async def test_people_mark_mute_and_unmute_and_are_told_which_shards_took_it(world: World) -> None:
    shop = Shop(await world.scene("shop"))
    worker = await (await shop.scene.start_worker()).ready()
    shard = "shop/shardId-000000000000"

    shop.see(a=30)
    event = await shop.until(("a", "opened"))
    marked = await shop.say("mark-expected", event)
    assert (marked.code, marked.err) == (0, "")
    assert f"accepted: the like stays silent for its series ({shard})" in marked.out
    shop.see(a=30)
    shop.see(a=32, b=30)
    told = [("a", "opened"), ("a", "resolved"), ("b", "opened")]
    await shop.until(*told)

    undone = await shop.ask("mark-expected", event, "--undo")
    assert undone == {"event": event, "act": "unexpect", "taken": [shard]}
    shop.see(a=30, b=30)
    await shop.until(*told, ("a", "opened"))
    shop.see()
    shop.see()
    told += [("a", "opened"), ("a", "resolved"), ("b", "resolved")]
    await shop.until(*told)

    mute = await shop.ask("mute", "--rule", "ticks", "--key", "a", "--until", FAR)
    assert (mute["taken"], mute["missing"]) == ([shard], [])
    [listed] = (await shop.ask("mutes"))["instructions"]
    assert (listed["id"], listed["key"], listed["until"]) == (mute["id"], {"key": "a"}, FAR)
    assert listed["taken"] == "1 of 1 shards"
    assert mute["id"] in (await shop.say("mutes")).out
    shop.see(a=30, b=30)
    told.append(("b", "opened"))
    await shop.until(*told)

    over = await shop.ask("unmute", "--rule", "ticks", "--key", "a")
    assert (over["act"], over["taken"]) == ("unmute", [shard])
    shop.see(a=30, b=30)
    told.append(("a", "opened"))
    await shop.until(*told)
    acts = [one["act"] for one in (await shop.ask("mutes"))["instructions"]]
    assert "mute" not in acts

    unknown = await shop.say("mark-expected", "b" * 40, "--wait", "7")
    assert unknown.code == 69, unknown
    assert "finding a shard that knows it, for 7 s, failed; each series knows" in unknown.err
    assert "nothing was changed" in unknown.err
    assert await worker.stop() == 0


async def test_without_a_worker_a_mute_stays_in_the_table_and_a_mark_is_taken_back(
    world: World,
) -> None:
    shop = Shop(await world.scene("closed"))
    worker = await (await shop.scene.start_worker()).ready()
    shop.see(a=30)
    event = await shop.until(("a", "opened"))
    assert await worker.stop() == 0

    marked = await shop.say("mark-expected", event, "--wait", "1")
    assert marked.code == 69
    assert "1 of 1 shards are read by no worker (closed/shardId-000000000000)" in marked.err
    assert "nothing was changed" in marked.err
    mute = await shop.say("mute", "--rule", "ticks", "--for", "9000d", "--wait", "1")
    assert mute.code == 0
    assert "0 of 1 shards took it so far, not yet closed/shardId-000000000000" in mute.out
    [listed] = (await shop.ask("mutes"))["instructions"]
    assert (listed["act"], listed["taken"]) == ("mute", "0 of 1 shards")

    await (await shop.scene.start_worker()).ready()

    async def is_taken() -> bool:
        [listed] = (await shop.ask("mutes"))["instructions"]
        return bool(listed["taken"] == "1 of 1 shards")

    await eventually(is_taken)


PLAIN = PIPELINE.format(name="shop", folder="unused")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("mark-expected 123", "EVENT_ID: found '123'; expected the detail.id of an event"),
        ("mute --rule tics --for 2h", "--rule: found 'tics'; rules with detectors: ticks"),
        ("mute --for 2h", "--rule: is missing; rules with detectors: ticks"),
        ("mute --rule ticks --for soon", "--for: found 'soon'; expected a duration"),
        ("mute --rule ticks --until noon", "--until: found 'noon'; expected a time with its zone"),
        (
            "mute --rule ticks --key b=1,2 --for 2h --detector x",
            "--detector: found 'x'; rule ticks",
        ),
        ("unmute", "name a mute: its ID, or --rule"),
        ("unmute x --wait -1", "--wait: found '-1'; expected seconds, 0 or more"),
    ],
)
def test_words_are_checked_before_anything_is_asked_of_a_service(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: str,
    why: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # where nobody answers
    file = tmp_path / "pipeline.yaml"
    file.write_text(PLAIN)
    assert main([*words.split(), "-c", str(file)]) == 64
    said = capsys.readouterr().err
    assert why in said
    assert "trying again" not in said
