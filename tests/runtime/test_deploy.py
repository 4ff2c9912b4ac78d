"""A rolling deploy of a changed pipeline file, in memory and in virtual time: old and new at once.

Two rules: `ticks` is the same in all files, `totals` changes. Windows of `ticks` are a minute.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from processor.core.plan import Plan, compile
from processor.model import AggregateSpec, DetectSpec, RuleSpec, WindowSpec
from tests.runtime.in_memory import BASE_MS, MINUTE_MS, Life, Town, plan_of, tick, until
from tests.virtual_time import run

SECONDS = 480
KEYS = ("a", "b", "c")


def plan(seconds: int, above: int = 10**6) -> Plan:
    """`totals` in windows of so many seconds, and with a bound."""
    pipeline = plan_of(5_000).pipeline
    totals = RuleSpec(
        "totals",
        {"type": ["tick"]},
        ("key",),
        WindowSpec(seconds * 1_000),
        (AggregateSpec("n", "count"), AggregateSpec("total", "sum", "value")),
        (DetectSpec("high", "threshold", "n", {"above": above}),),
        emit_windows="bus",
    )
    return compile(replace(pipeline, rules=(*pipeline.rules, totals)))


OLD, RESIZED, TUNED = plan(60), plan(40), plan(60, above=10**7)


async def send(town: Town, seconds: int = SECONDS) -> None:
    """A tick a second of each key, over all shards; what closes the last windows comes after."""
    for second in range(seconds):
        for n, key in enumerate(KEYS):
            town.put(tick(key, second), shard=f"shardId-{n % town.shards:012d}")
        await asyncio.sleep(1)
    for n, key in enumerate(KEYS):
        town.put(tick(key, seconds + 600), shard=f"shardId-{n % town.shards:012d}")


def told(town: Town, rule: str) -> list[dict[str, Any]]:
    """Window results, each id once; an AssertionError if one came with two contents."""
    details = [json.loads(body) for body in town.bus.by_id().values()]
    return [d for d in details if d["rule"] == rule and d["kind"] == "window"]


def check_unchanged(town: Town) -> None:
    found = {
        (d["key"]["key"], (d["window"]["start"] - BASE_MS) // MINUTE_MS): d
        for d in told(town, "ticks")
    }
    assert found.keys() >= {(key, minute) for key in KEYS for minute in range(SECONDS // 60)}
    assert len(found) == len(told(town, "ticks")), "a window came under two ids"
    assert {d["count"] for (_, minute), d in found.items() if minute < SECONDS // 60} == {60}
    assert not any("partial" in d for d in found.values())


def check_changed(town: Town, versions: dict[str, int]) -> None:
    """Each version's windows, `seconds` long, are partial or hold each second's tick once."""
    for detail in told(town, "totals"):
        seconds = versions[detail["rule_version"]]
        start = (detail["window"]["start"] - BASE_MS) // 1_000
        due = len(range(max(start, 0), min(start + seconds, SECONDS)))
        if "partial" in detail:
            assert detail["count"] < due
        elif start + seconds <= SECONDS:
            assert detail["count"] == due


async def settled(town: Town, *lives: Life) -> None:
    minute = SECONDS // 60 - 1
    done = {(key, BASE_MS + minute * MINUTE_MS) for key in KEYS}
    await until(
        lambda: done <= {(d["key"]["key"], d["window"]["start"]) for d in told(town, "ticks")},
        within_s=240,
    )
    for life in lives:
        await life.stop()


def versions(*plans: tuple[Plan, int]) -> dict[str, int]:
    return {plan.rules[1].version: seconds for plan, seconds in plans}


def held(*lives: Life) -> list[int]:
    return [len(life.worker.shards()) for life in lives]


@pytest.mark.parametrize("crash", [False, True], ids=["in order", "with crashes"])
@pytest.mark.parametrize(("other", "seconds"), [(RESIZED, 40), (TUNED, 60)], ids=["reset", "tuned"])
def test_a_rollout_leaves_no_gap_and_repeats_nothing_where_a_rule_is_unchanged(
    other: Plan, seconds: int, crash: bool
) -> None:
    async def main() -> None:
        town = Town(shards=3, checkpoint_ms=20_000)
        sending = asyncio.create_task(send(town))
        old = [town.start(plan=OLD), town.start(plan=OLD)]
        await asyncio.sleep(90)
        new = [town.start(plan=other)]
        await asyncio.sleep(47)
        await (old[0].kill() if crash else old[0].stop())
        new.append(town.start(plan=other))
        await asyncio.sleep(47)
        await (old[1].kill() if crash else old[1].stop())
        await until(lambda: sum(held(*new)) == 3)
        await sending
        await settled(town, *new)
        assert {row.generation for row in town.content.shards.values()} == {2}
        check_unchanged(town)
        check_changed(town, versions((OLD, 60), (other, seconds)))
        partial = [d for d in told(town, "totals") if "partial" in d]
        assert bool(partial) == (other is RESIZED)

    run(main())


@pytest.mark.parametrize("other", [RESIZED, TUNED], ids=["reset", "tuned"])
def test_a_rollout_that_is_rolled_back_by_hand_tells_nothing_in_two_ways(other: Plan) -> None:
    """Both new workers crash on their way, and the old file comes back as the newest."""

    async def main() -> None:
        town = Town(shards=3, checkpoint_ms=30_000)
        sending = asyncio.create_task(send(town))
        old = town.start(plan=OLD)
        await asyncio.sleep(80)
        new = [town.start(plan=other), town.start(plan=other)]
        await asyncio.sleep(40)
        await old.kill()
        await asyncio.sleep(55)
        await new[0].kill()
        back = [town.start(plan=OLD, is_rollback=True)]
        await asyncio.sleep(33)
        await new[1].kill()
        await until(lambda: held(*back) == [3])
        await sending
        await settled(town, *back)
        assert {row.generation for row in town.content.shards.values()} == {3}
        check_unchanged(town)
        check_changed(town, versions((OLD, 60), (other, 40 if other is RESIZED else 60)))

    run(main())


def test_an_old_worker_that_restarts_takes_nothing_back_and_says_why() -> None:
    async def main() -> None:
        town = Town(shards=2, checkpoint_ms=1_000)
        sending = asyncio.create_task(send(town))
        first = town.start(plan=OLD)
        await asyncio.sleep(20)
        new = town.start(plan=RESIZED)
        await until(lambda: held(first, new) == [1, 1])
        await first.stop()
        await until(lambda: held(new) == [2])
        await asyncio.sleep(5)  # and it commits
        await new.stop()
        restarted = town.start(plan=OLD)
        await asyncio.sleep(60)
        assert held(restarted) == [0]
        said = restarted.worker.barred()
        assert said is not None
        assert "2 shards can't be claimed" in said
        assert "--rollback" in said
        again = town.start(plan=RESIZED)
        await until(lambda: held(again) == [2])
        await until(lambda: restarted.worker.barred() is None)
        await sending
        await settled(town, again, restarted)
        check_unchanged(town)

    run(main())
