"""What people asked of the alarms, as a worker last read it; and its word that a shard took it.

One eventually consistent Query every POLL_S a stage: where there is nothing, 0.1 read units a
second. While the table is out, what was read before holds. What this release does not understand
is told of once, and left to workers that do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from processor.core.instructions import TAKEN_MAX, Instruction
from processor.errors import Outage, Unavailable
from processor.ports import Clock, Instructions
from processor.runtime.waiting import unless

POLL_S = 5.0
TIMEOUT_S = 5.0
RETRY_S = 1.0
Report = Callable[[str, Exception], None]


class Inbox:
    """Of one application, for the shards of one stage."""

    def __init__(self, store: Instructions, app: str, clock: Clock, report: Report) -> None:
        """`report`: told of each call that failed; it is made again."""
        self.asked: tuple[Instruction, ...] = ()
        self._store, self._app, self._clock, self._report = store, app, clock, report
        self._words: dict[tuple[str, str], Instruction] = {}
        self._strange: set[str] = set()  # ids that were told of
        self._has_words = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Inbox {len(self.asked)} instructions, {len(self._words)} words to send>"

    def say_taken(self, instruction: Instruction, shard: str) -> None:
        """Let whoever asked know, as soon as may be. Past TAKEN_MAX the oldest words are dropped:
        whoever asked hears less than is true."""
        self._words[instruction.id, shard] = instruction
        if len(self._words) > TAKEN_MAX:
            del self._words[next(iter(self._words))]
        self._has_words.set()

    async def run(self) -> None:
        """For ever. Cancelling is safe."""
        while True:
            await self.look()
            until = self._clock.monotonic() + POLL_S
            while (left_s := until - self._clock.monotonic()) > 0:
                await unless(self._has_words, self._clock.sleep(left_s))
                if self._has_words.is_set() and not await self._carefully(
                    "acknowledge an instruction", self._send
                ):
                    await self._clock.sleep(RETRY_S)

    async def look(self) -> None:
        """Read once."""
        await self._carefully("read instructions", self._read)

    async def _carefully(self, what: str, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await work()
        except (Outage, Unavailable, TimeoutError) as error:
            self._report(what, error)
            return False
        return True

    async def _read(self) -> None:
        strange: dict[str, Exception] = {}
        found = await self._store.read(self._app, on_strange=strange.__setitem__)
        for id_ in strange.keys() - self._strange:
            self._report(f"understand instruction {id_}, which is left to others", strange[id_])
        self._strange = set(strange)
        self.asked = tuple(sorted((one.instruction for one in found), key=lambda one: one.id))

    async def _send(self) -> None:
        while self._words:
            (id_, shard), instruction = next(iter(self._words.items()))
            await self._store.acknowledge(self._app, instruction, shard)
            self._words.pop((id_, shard), None)
        self._has_words.clear()
