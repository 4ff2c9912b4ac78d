"""People ask things of alarms, and workers do them, once, whatever happens to them meanwhile."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from processor.core.instructions import Instruction
from processor.core.plan import compile
from processor.model import DetectSpec
from processor.ports import Placed
from processor.stores.memory import MemoryTable
from tests.runtime.in_memory import BASE_MS, Life, Town, tick
from tests.virtual_time import run

NEVER_MS = 2**53
LIMIT = DetectSpec("limit", "threshold", "total", {"above": 10, "recover_after": 1})


class Shop:
    """One rule with a limit of 10 a minute and key; minutes are told by their totals."""

    def __init__(self) -> None:
        self.town = Town(detect=(LIMIT,))
        plan = self.town.plan()
        rule = plan.pipeline.rules[0]
        self.plan = compile(replace(plan.pipeline, rules=(replace(rule, emit_anomalies="bus"),)))
        self.minute = 0
        self.asked = 0

    def start(self) -> Life:
        return self.town.start(plan=self.plan)

    async def see(self, **totals: int) -> None:
        """One more minute, and the beginning of the next one."""
        await self._wait_until(60 * self.minute + 30)
        for key, total in totals.items():
            self.town.put(tick(key, 60 * self.minute + 1, total))
        self.minute += 1
        await self._wait_until(60 * self.minute + 1)
        self.town.put(tick("clock", 60 * self.minute, 0))
        await asyncio.sleep(3)

    async def _wait_until(self, second: float) -> None:
        now_s = (self.town.clock.wall_ms() - BASE_MS) / 1_000
        await asyncio.sleep(max(0.0, second - now_s))

    async def ask(self, act: str, **more: object) -> Instruction:
        self.asked += 1
        instruction = Instruction(f"{self.asked:013d}-00000000", act, NEVER_MS, **more)  # type: ignore[arg-type]
        desk = MemoryTable(self.town.content).instructions
        assert await desk.put("shop", Placed(self.asked, instruction), now_ms=0)
        await asyncio.sleep(12)
        return instruction

    async def taken(self, instruction: Instruction) -> list[str]:
        return await MemoryTable(self.town.content).instructions.taken("shop", instruction)

    def told(self) -> list[tuple[str, str]]:
        """(key, state) of all alarms so far, each id once."""
        return [(key, state) for key, state, _ in self.events()]

    def events(self) -> list[tuple[str, str, str]]:
        found = {}
        for body in self.town.bus.by_id().values():
            detail = json.loads(body)
            if detail["kind"] == "anomaly":
                state = detail["anomaly"]["state"]
                found[detail["id"]] = (detail["key"]["key"], state, detail["id"])
        return list(found.values())


def test_what_was_marked_as_expected_resolves_and_stays_silent_but_more_of_it_does_not() -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        await shop.see(a=30)
        [(_, _, event)] = shop.events()
        asked = await shop.ask("expect", of=event)
        assert await shop.taken(asked) == ["ticks/shardId-000000000000"]
        await shop.see(a=30)
        await shop.see(a=32)
        assert shop.told() == [("a", "opened"), ("a", "resolved")]
        await shop.see(a=50)
        assert shop.told()[2:] == [("a", "opened")]
        await life.stop()

    run(main())


def test_an_event_that_nobody_knows_is_taken_by_nobody() -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        await shop.see(a=30)
        asked = await shop.ask("expect", of="a" * 39 + "b")
        assert await shop.taken(asked) == []
        await life.stop()

    run(main())


def test_a_muted_key_is_silent_until_the_end_and_then_what_is_still_open_is_told() -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        until_ms = BASE_MS + 3 * 60_000
        await shop.see(a=1, b=1)
        await shop.ask("mute", rule="ticks", key={"key": "a"}, until_ms=until_ms)
        await shop.see(a=30, b=30)
        await shop.see(a=30, b=30)
        assert shop.told() == [("b", "opened")]
        await shop.see(a=30, b=30)
        assert shop.told() == [("b", "opened"), ("a", "opened")]
        await life.stop()

    run(main())


def test_a_mute_may_end_before_its_time() -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        mute = await shop.ask("mute", rule="ticks", until_ms=NEVER_MS)
        await shop.see(a=30)
        assert shop.told() == []
        await shop.ask("unmute", rule="ticks", of=mute.id)
        await shop.see(a=30)
        assert shop.told() == [("a", "opened")]
        await life.stop()

    run(main())


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_worker_killed_as_it_commits_an_instruction_leaves_it_to_the_next_one(side: str) -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        await shop.see(a=30)
        [(_, _, event)] = shop.events()

        async def gate(operation: str, at: str) -> None:
            marks = [row.marks for row in shop.town.content.shards.values()]
            is_marked = any(m.mark.fact == "instructed" for each in marks for m in each)
            if operation == "write" and at == side and (side == "before" or is_marked):
                shop.town.gate = None
                asyncio.get_running_loop().call_soon(life.task.cancel)
                await asyncio.sleep(1)

        shop.town.gate = gate
        asked = await shop.ask("expect", of=event)
        await asyncio.wait([life.task])
        heir = shop.start()
        await asyncio.sleep(40)
        assert await shop.taken(asked) == ["ticks/shardId-000000000000"]
        await shop.see(a=30)
        await shop.see(a=30)
        assert shop.told() == [("a", "opened"), ("a", "resolved")]
        marks = [row.marks for row in shop.town.content.shards.values()]
        assert sum(m.mark.fact == "instructed" for each in marks for m in each) <= 1
        await heir.stop()

    run(main())


def test_a_successor_says_again_what_was_taken_for_the_word_may_have_been_lost() -> None:
    async def main() -> None:
        shop = Shop()
        life = shop.start()
        await shop.see(a=1)
        mute = await shop.ask("mute", rule="ticks", until_ms=NEVER_MS)
        await life.stop()
        shop.town.content.taken.clear()
        heir = shop.start()
        await shop.see(a=1)
        await asyncio.sleep(20)
        assert await shop.taken(mute) == ["ticks/shardId-000000000000"]
        assert sum(len(row.marks) for row in shop.town.content.shards.values()) <= 1
        await heir.stop()

    run(main())
