"""The verbs of `processor leases` against a table in memory: what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from processor import config
from processor.app import LeaseTools
from processor.cli import main
from processor.cli_leases import list_, release, reset, seek, show
from processor.cli_positions import export, import_
from processor.core.leases.rows import ShardRow, WorkerRow
from processor.errors import ProcessorError, Refused, Unavailable, UsageError
from processor.model import Shard
from processor.runtime.lease_admin import AdminPorts, LeaseAdmin
from processor.runtime.shards import Follower
from processor.sources.memory import MemorySource
from processor.stores.memory import MemoryContent, MemoryTable
from tests.virtual_time import VirtualClock, run


class Desk:
    """A stream of two shards that nobody has read yet, and the tools of a command."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.content = MemoryContent()
        self.said: list[str] = []
        self.source = MemorySource("orders", [Shard("s0"), Shard("s1")], self.clock)
        self.merge = MemorySource("shop-merge", [Shard("s0")], self.clock)

    def tools(self, app: str, *, merge: bool = False) -> LeaseTools:
        own = LeaseAdmin(self._ports(self.source), Follower(app, "latest"))
        other = LeaseAdmin(self._ports(self.merge), Follower(app, buckets=16))
        return LeaseTools(own, no_kcl_table, other if merge else None)

    def _ports(self, source: MemorySource) -> AdminPorts:
        return AdminPorts(MemoryTable(self.content), source, self.clock, self.said.append)

    def row(self, stream: str, shard_id: str) -> ShardRow:
        [found] = [
            row
            for (of, id_), row in self.content.shards.items()
            if (of.name, id_) == (stream, shard_id)
        ]
        return found


def no_kcl_table(name: str) -> Any:
    raise AssertionError(f"KCL table {name} was asked for")


SHOP = str(Path(__file__).parent / "pipelines" / "shop.yaml")
PIPELINE = config.load(SHOP, {})


def arguments(**given: Any) -> Namespace:
    return Namespace(
        **({"shard": None, "all": False, "to": "latest", "output": "text", "merge": False} | given)
    )


WRONG = [
    (seek, arguments(shard="foo"), "no lease of a shard 'foo'; the table has s0, s1"),
    (seek, arguments(shard="s0", to="yesterday"), "found 'yesterday'"),
    (seek, arguments(all=True, to="2999-01-01T00:00:00Z"), "in the future"),
    (reset, arguments(shard="foo"), "no lease of a shard 'foo'; the table has s0, s1"),
]


@pytest.mark.parametrize(("verb", "args", "why"), WRONG)
def test_a_command_that_fails_on_its_arguments_leaves_a_new_table_empty(
    verb: Any, args: Namespace, why: str
) -> None:
    async def scene() -> None:
        desk = Desk()
        with pytest.raises(ProcessorError, match=f"(?i){why}"):
            await verb(desk.tools("wrong"), PIPELINE, args)
        assert desk.content == MemoryContent()

    run(scene())


@pytest.mark.parametrize("verb", [list_, show, release, export, seek, reset])
def test_the_leases_of_another_application_are_refused(verb: Any) -> None:
    async def scene() -> None:
        desk = Desk()
        await desk.tools("shop").admin.discover()
        before = deepcopy(desk.content)
        with pytest.raises(Unavailable, match="as app 'wrong' failed; app 'shop' follows it"):
            await verb(desk.tools("wrong"), PIPELINE, arguments(shard="s0", file="-"))
        assert desk.content == before

    run(scene())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("seek s0 --to yesterday --yes shop", "--to: found 'yesterday', expected trim_horizon"),
        ("seek --all --to 123 --yes shop", "name the shard"),
        ("import nofile", "nofile: found No such file"),
        (
            "import --kcl-table t --initial 123",
            "--initial: found '123', expected trim_horizon, latest, or a time",
        ),
        ("import --kcl-table t --kcl-lease-duration soon", "--kcl-lease-duration: found 'soon'"),
    ],
)
def test_words_are_checked_before_anything_is_asked_of_a_service(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    why: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # where nobody answers
    assert main(["leases", *words.split(), "-c", SHOP]) in (64, 78)
    said = capsys.readouterr().err
    assert why in said
    assert "trying again" not in said


def test_times_are_utc_for_people_and_as_they_are_stored_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        desk = Desk()
        to = arguments(shard="s0", to="2001-09-09T03:46:40+02:00")
        await seek(desk.tools("shop"), PIPELINE, to)
        assert "→ at_time:2001-09-09T01:46:40.000Z, epoch 1" in capsys.readouterr().err
        for verb in (list_, show):
            await verb(desk.tools("shop"), PIPELINE, arguments(shard="s0"))
            assert "at_time:2001-09-09T01:46:40.000Z" in capsys.readouterr().out
        await show(desk.tools("shop"), PIPELINE, arguments(shard="s0", output="json"))
        assert '"at_time:1000000000000"' in capsys.readouterr().out

    run(scene())


def test_a_shard_that_nobody_has_read_yet_can_be_sought() -> None:
    async def scene() -> None:
        desk = Desk()
        await seek(desk.tools("shop"), PIPELINE, arguments(shard="s1", to="trim_horizon"))
        at = {row.id: row.position.kind for row in desk.content.shards.values()}
        assert at == {"s0": "at_time", "s1": "trim_horizon"}
        assert [app.app for app in desk.content.apps.values()] == ["shop"]

    run(scene())


def test_an_import_tells_each_position_once(capsys: pytest.CaptureFixture[str]) -> None:
    async def scene() -> None:
        desk = Desk()
        await desk.tools("shop").admin.discover()
        await export(desk.tools("shop"), PIPELINE, arguments(file="-"))
        given = {"body": capsys.readouterr().out.encode(), "file": "-", "kcl_table": None}
        desk.content = MemoryContent()
        words = arguments(**given, initial=None, overwrite=False, dry_run=False)
        await import_(desk.tools("renamed"), PIPELINE, words)
        told = capsys.readouterr()
        assert [line.split()[0] for line in told.out.splitlines()] == ["SHARD", "s0", "s1"]
        assert told.err == ""

    run(scene())


# ---- both streams -----------------------------------------------------------------------------


def test_list_shows_both_streams_whose_shards_are_called_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        desk = Desk()
        tools = desk.tools("shop", merge=True)
        assert tools.merge is not None
        for admin in (tools.admin, tools.merge):
            await admin.discover()
        await list_(tools, PIPELINE, arguments())
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.split()[:2] == ["STREAM", "SHARD"]
        found = [line.split()[:2] for line in lines]
        assert found == [["orders", "s0"], ["orders", "s1"], ["shop-merge", "s0"]]
        await list_(tools, PIPELINE, arguments(output="json"))
        told = json.loads(capsys.readouterr().out)
        assert [row["shard"] for row in told["shards"]] == ["s0", "s1"]
        assert [row["shard"] for row in told["merge"]["shards"]] == ["s0"]
        assert told["merge"]["stream"].startswith("shop-merge@")

    run(scene())


def test_a_shard_of_the_merge_stream_is_shown_and_released_by_that_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scene() -> None:
        desk = Desk()
        tools = desk.tools("shop", merge=True)
        assert tools.merge is not None
        await tools.merge.discover()
        await show(tools, PIPELINE, arguments(shard="s0", merge=True))
        assert "shop-merge@" in capsys.readouterr().out
        await release(tools, PIPELINE, arguments(shard="s0", merge=True))
        assert "s0 is owned by nobody" in capsys.readouterr().err
        with pytest.raises(UsageError, match="no global rule, and so no merge stream"):
            await show(desk.tools("shop"), PIPELINE, arguments(shard="s0", merge=True))

    run(scene())


@pytest.mark.parametrize("verb", [seek, reset])
def test_all_shards_anew_is_also_all_that_global_rules_know(verb: Any) -> None:
    """What was told of the former life is past the position from which the merge stage goes on."""

    async def scene() -> None:
        desk = Desk()
        tools = desk.tools("shop", merge=True)
        assert tools.merge is not None
        await tools.admin.discover()
        await tools.merge.discover()
        before = desk.row("shop-merge", "s0")
        await asyncio.sleep(5)
        await verb(tools, PIPELINE, arguments(all=True, to="trim_horizon"))
        after = desk.row("shop-merge", "s0")
        assert (after.seeks, after.epoch) == (before.seeks + 1, before.epoch + 1)
        assert (after.position.kind, after.pairs[-1].state) == ("at_time", None)
        assert int(after.position.value) == desk.merge.date_ms()
        assert desk.row("orders", "s0").seeks == 1
        await verb(tools, PIPELINE, arguments(shard="s0"))
        assert desk.row("orders", "s0").seeks == 2
        assert desk.row("shop-merge", "s0") == after, "one shard's is left alone"

    run(scene())


@pytest.mark.parametrize("stream", ["orders", "shop-merge"])
def test_nothing_is_forgotten_under_a_live_worker_of_either_stream(stream: str) -> None:
    async def scene() -> None:
        desk = Desk()
        tools = desk.tools("shop", merge=True)
        assert tools.merge is not None
        for admin in (tools.admin, tools.merge):
            await admin.discover()
        table, [key] = MemoryTable(desk.content), {k for k in desk.content.apps if k.name == stream}
        await table.join(key, WorkerRow("alive"))

        async def beat() -> None:
            for counter in range(1, 100):
                await table.heartbeat(key, WorkerRow("alive", counter))
                await asyncio.sleep(3)

        beating = asyncio.create_task(beat())
        rows = dict(desk.content.shards)
        with pytest.raises(Refused, match="worker alive is alive"):
            await reset(tools, PIPELINE, arguments(all=True))
        assert desk.content.shards == rows
        beating.cancel()

    run(scene())
