"""States fetched ahead, for shards that are about to be released to us.

Kept as they are stored, compressed, until their shard was loaded here or goes elsewhere. What finds
no room isn't fetched ahead: it is then loaded as any other state, only later.
"""

from __future__ import annotations

from processor.core.leases.rows import LinkRef
from processor.core.stored.chain import Body

# The states of some tens of shards, or that of one with 100,000 keys and a full detector.
BYTES_MAX = 512 * 1024 * 1024
REFS_MAX = 1_024  # in all: the chains of some hundred shards that come at once when a worker leaves


class Prefetched:
    """Stored links by shard; room is reserved before anything is fetched."""

    def __init__(self, bytes_max: int = BYTES_MAX, refs_max: int = REFS_MAX) -> None:
        self._left_bytes, self._left_refs = bytes_max, refs_max
        self._bodies: dict[str, dict[LinkRef, Body | None]] = {}  # None: on its way

    def __repr__(self) -> str:
        return f"<Prefetched for {sorted(self._bodies)}, room for {self._left_bytes} bytes>"

    def reserve(self, shard_id: str, link: LinkRef) -> bool:
        """Whether to fetch it: there is room, and it is neither here nor on its way."""
        known = self._bodies.setdefault(shard_id, {})
        if link in known or not self._left_refs or link.stored_bytes > self._left_bytes:
            return False
        known[link] = None
        self._left_bytes -= link.stored_bytes
        self._left_refs -= 1
        return True

    def keep(self, shard_id: str, link: LinkRef, body: Body | None) -> None:
        """It came; None: nothing came of it. What was dropped meanwhile is not kept."""
        known = self._bodies.get(shard_id, {})
        if link not in known:
            return
        if body is None:
            del known[link]
            self._give_back(link)
        else:
            known[link] = body

    def find(self, shard_id: str, link: LinkRef) -> Body | None:
        """By place and key, which are no other's; its digest is for the reader to check."""
        return self._bodies.get(shard_id, {}).get(link)

    def drop(self, shard_id: str) -> None:
        """The shard was loaded, or does not come."""
        for link in self._bodies.pop(shard_id, {}):
            self._give_back(link)

    def _give_back(self, link: LinkRef) -> None:
        self._left_bytes += link.stored_bytes
        self._left_refs += 1
