"""Asking something of the alarms by hand: writing it into the table, and hearing who took it.

A command can't know which shard an event came from, so it asks all and waits for a word. What no
shard takes is taken back: it must not lie in wait for some later day.
"""

from __future__ import annotations

from collections.abc import Collection
from secrets import token_hex
from typing import NamedTuple

from processor.core.instructions import (
    INSTRUCTION_BYTES_MAX,
    INSTRUCTIONS_MAX,
    Act,
    Instruction,
    encoded,
)
from processor.errors import Refused, UsageError
from processor.ports import Placed
from processor.runtime.lease_admin import LeaseAdmin

HOUR_MS = 3_600_000
KEPT_MS = 24 * HOUR_MS  # after it served; shards that are parked for longer miss it
POLL_S = 0.5


class Answer(NamedTuple):
    """Who took an instruction, STREAM/SHARD each, of all that it may concern."""

    taken: list[str]
    shards: list[str]
    idle: list[str]  # of these, the ones that no worker reads

    @property
    def is_complete(self) -> bool:
        return set(self.shards) <= set(self.taken)


def instruction(
    act: Act,
    now_ms: int,
    of: str = "",
    rule: str = "",
    key: dict[str, str] | None = None,
    detector: str = "",
    until_ms: int = 0,
) -> Instruction:
    """A new one; UsageError where it is too long for the table."""
    made = Instruction(
        id=f"{now_ms:013d}-{token_hex(4)}",
        act=act,
        expires_ms=max(now_ms, until_ms) + KEPT_MS,
        of=of,
        rule=rule,
        key=key or {},
        detector=detector,
        until_ms=until_ms,
    )
    size = len(encoded(made).encode())
    if size > INSTRUCTION_BYTES_MAX:
        raise UsageError(f"{size} bytes, of at most {INSTRUCTION_BYTES_MAX}: name fewer fields")
    return made


class Desk:
    """Where one asks; `admin` is that of any stage, for they share the table."""

    def __init__(self, admin: LeaseAdmin):
        self._admin = admin
        self._store = admin.instructions
        self.wall_ms = admin.clock.wall_ms

    async def read(self) -> list[Placed]:
        """What has been asked, without what has expired."""
        admin = self._admin
        found = await admin.repeated(lambda: self._store.read(admin.app, consistent=True))
        now_ms = self.wall_ms()
        return [placed for placed in found if placed.instruction.expires_ms >= now_ms]

    async def ask(self, asked: Instruction) -> Placed:
        """Write it down; Refused where there is no place left."""
        admin = self._admin
        used = {placed.place for placed in await self.read()}
        for place in range(INSTRUCTIONS_MAX):
            if place in used:
                continue
            placed = Placed(place, asked)
            await self._clear(place)
            if await self._put(placed):
                return placed
        raise Refused(
            f"there are {INSTRUCTIONS_MAX} instructions for app {admin.app!r} already, as many as"
            " the table has places for: end some mutes (`processor mutes`, `processor unmute`)"
        )

    async def _put(self, placed: Placed) -> bool:
        """Also true where a first try, whose answer was lost, has put it."""
        admin = self._admin
        put = self._store.put
        if await admin.repeated(lambda: put(admin.app, placed, self.wall_ms())):
            return True
        found = await admin.repeated(lambda: self._store.read(admin.app, consistent=True))
        return placed in found

    async def _clear(self, place: int) -> None:
        """What has expired in that place goes, with the word of who took it."""
        admin = self._admin
        found = await admin.repeated(lambda: self._store.read(admin.app, consistent=True))
        for placed in found:
            if placed.place == place and placed.instruction.expires_ms < self.wall_ms():
                await self.take_back(placed)

    async def take_back(self, placed: Placed) -> None:
        """Nobody is asked any more; who took it, took it."""
        admin = self._admin
        await admin.repeated(lambda: self._store.remove(admin.app, placed))

    async def answer(self, asked: Instruction, stages: Collection[LeaseAdmin]) -> Answer:
        """Who took it so far, and which shards there are that have not ended."""
        admin = self._admin
        taken = await admin.repeated(lambda: self._store.taken(admin.app, asked))
        owners: dict[str, str | None] = {}
        for stage in stages:
            leases = await stage.read()
            rows = (row for row in leases.shards.values() if not row.ended)
            owners |= {f"{leases.stream.name}/{row.id}": row.owner for row in rows}
        return Answer(taken, sorted(owners), sorted(id_ for id_ in owners if not owners[id_]))

    async def wait(
        self, asked: Instruction, stages: Collection[LeaseAdmin], wait_s: float, *, for_all: bool
    ) -> Answer:
        """Until one shard took it, or all did, but no longer than `wait_s`."""
        clock = self._admin.clock
        until = clock.monotonic() + wait_s
        while True:
            answer = await self.answer(asked, stages)
            is_done = answer.is_complete if for_all else bool(answer.taken)
            if is_done or clock.monotonic() >= until:
                return answer
            await clock.sleep(POLL_S)
