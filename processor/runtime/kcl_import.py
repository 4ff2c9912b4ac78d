"""Taking over from a KCL application: read its table, watch that nobody works on it any more.

KCL's leases can't be fenced from outside, so the watching is all there is: for a lease's duration
no counter, owner or checkpoint may change. What is read at the end of it is what is taken over.
"""

from __future__ import annotations

from typing import Any, Protocol

from processor.core.leases import kcl
from processor.core.leases.kcl import KclLease
from processor.core.leases.rows import StreamKey
from processor.runtime.lease_admin import LeaseAdmin

LOOKS = 4  # at the table while it is watched: KCL renews each lease three times in its duration
MARGIN_S = 2.0


class KclItems(Protocol):
    """What this needs of the table."""

    table: str

    async def items(self) -> list[dict[str, Any]]:
        """All items, their values plain."""


async def read(
    admin: LeaseAdmin, table: KclItems, stream: StreamKey, wanted: str | None
) -> list[KclLease]:
    """The leases of our stream, in order of shards."""
    items = await admin.repeated(table.items)
    return kcl.of_stream(kcl.leases_of(items, table.table), stream, wanted)


async def watched(
    admin: LeaseAdmin,
    table: KclItems,
    stream: StreamKey,
    wanted: str | None,
    lease_duration_s: float,
) -> list[KclLease]:
    """The same, once it is sure that nobody works on them; Refused if somebody does."""
    before = await read(admin, table, stream, wanted)
    names = kcl.owners(before)
    if not names:
        return before
    watch_s = lease_duration_s + MARGIN_S
    admin.say(
        f"watching KCL table {table.table} for {watch_s:g} s: {len(names)} workers own leases"
        " there, and one is dead when it has renewed none for a lease's duration"
    )
    now = before
    for _ in range(LOOKS):
        await admin.clock.sleep(watch_s / LOOKS)
        now = await read(admin, table, stream, wanted)
        kcl.require_still(before, now)
    return now
