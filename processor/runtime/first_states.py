"""Writes the first states of a stream's shards, before any worker runs.

States are put first, then each row is written on the condition that it is as we saw it, as
everything that is done to leases by hand. Killed in between, some rows have their state and others
have none: a worker would do with that, and the same command run again replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex

from msgspec import Struct

from processor.core.leases import firsts
from processor.core.leases.rows import ShardRow
from processor.core.leases.seeking import Change
from processor.core.stored.stream import Part
from processor.errors import Refused
from processor.model import Position, StreamInfo
from processor.runtime.lease import STATE_BYTES_PER_S
from processor.runtime.lease_admin import CALL_TIMEOUT_S, LeaseAdmin, Leases, owners_of
from processor.runtime.state_store import StateStore


class First(Struct, frozen=True):
    """What a shard begins with: `parts` gives its state; None at its end. `position` None: where
    its row says. `seen`: the row that it was made for."""

    seen: ShardRow
    parts: Callable[[], Iterable[Part]] | None
    position: Position | None = None
    caught_up_at_ms: int | None = None


class FirstStates:
    """Those of one stream; `pipeline`: what tells the pipeline from others (`generation`)."""

    def __init__(self, admin: LeaseAdmin, states: StateStore, pipeline: str) -> None:
        self._admin, self._states, self._pipeline = admin, states, pipeline

    def __repr__(self) -> str:
        return f"<FirstStates by {self._admin!r}>"

    async def prepare(self, *, is_relived: bool) -> Leases:
        """The rows that are to be written, once it is sure that they may be.

        `is_relived`: the stream itself is to be read. Refused where there is a state, or a live
        worker; only then the table becomes this application's.
        """
        foreseen = await self._admin.foreseen()
        self._require(foreseen, is_relived=is_relived)
        owners = owners_of(foreseen.shards, foreseen.shards.keys())
        await self._admin.bury(foreseen.stream, owners | foreseen.workers.keys())
        leases = await self._admin.discover()
        self._require(leases, is_relived=is_relived)
        return leases

    def _require(self, leases: Leases, *, is_relived: bool) -> None:
        rows = leases.shards.values()
        firsts.require_none(rows, self._admin.app)
        if is_relived:
            firsts.require_unread(rows)

    async def describe(self) -> StreamInfo:
        return await self._admin.describe()

    async def generation(self) -> int:
        """Our pipeline's number among those that the application ran."""
        return await self._admin.register(self._pipeline)

    async def write(self, each: Sequence[First]) -> int:
        """All of them, in this order; the bytes that were stored. Refused where a row is not as it
        was seen any more."""
        generation, write_id = await self.generation(), f"{firsts.MARK}{token_hex(6)}"
        changes, stored_bytes = [], 0
        for first in each:
            change, size = await self._change(first, write_id, generation)
            changes.append(change)
            stored_bytes += size
        leases = await self._admin.read()
        for change in changes:
            _require_same(change.before, leases.shards.get(change.before.id))
        await self._admin.write(changes)
        return stored_bytes

    async def _change(self, first: First, write_id: str, generation: int) -> tuple[Change, int]:
        """The state is put; nothing refers to it yet."""
        row, ref, size = first.seen, None, 0
        position = first.position or row.position
        after = firsts.begun(row, position, None, write_id, generation, first.caught_up_at_ms)
        if first.parts is not None:
            captured = await self._states.pack(row.id, first.parts(), None, self._admin.clock.cpu_s)
            packed = captured.packed
            stored = await self._admin.repeated(
                lambda: self._states.put(after, after.commit, write_id, packed),
                CALL_TIMEOUT_S + packed.body.size / STATE_BYTES_PER_S,
            )
            ref, size = stored.ref, packed.body.size
        after = firsts.begun(row, position, ref, write_id, generation, first.caught_up_at_ms)
        return Change(row, after), size


def _require_same(seen: ShardRow, now: ShardRow | None) -> None:
    if now is None or not now.same_version(seen) or now.write_id != seen.write_id:
        raise Refused(
            f"{seen.id} changed while we learnt: a worker runs, or somebody set it by hand;"
            " nothing was changed. Stop the workers, and run it again"
        )
