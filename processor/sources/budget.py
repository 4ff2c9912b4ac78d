"""How much memory the read pages of a process may take, shared by all its shards.

Half of it is cut into equal parts, one reserved for each shard: the page that a shard is at can
always be held, so a shared budget can't deadlock. Pages shrink when the shards are many. The other
half is for reading ahead, first come first served: who gets nothing reads when asked.
"""

from __future__ import annotations

from processor.model import Page

# What a payload byte costs while its page is read: 1.33 of base64 in chunks, as much again where
# they are joined, and itself; the rest is for the objects around small payloads.
FOOTPRINT = 4
# Objects of one record: bytes, two short strings, their places in the columns.
RECORD_BYTES = 256


def held_bytes(page: Page) -> int:
    """About what a decoded page occupies."""
    return sum(map(len, page.payloads)) + RECORD_BYTES * len(page)


class ByteBudget:
    """Counts bytes and shards; every reader joins once and leaves once."""

    def __init__(self, total_bytes: int) -> None:
        self._half_bytes = total_bytes // 2
        self._readers = 0
        self._ahead_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<ByteBudget {self._readers} readers, pages of {self.page_bytes()} B,"
            f" {self._ahead_bytes} of {self._half_bytes} B read ahead>"
        )

    @property
    def ahead_bytes(self) -> int:
        """What is read ahead, or will be when the reads under way are answered."""
        return self._ahead_bytes

    def join(self) -> None:
        self._readers += 1

    def leave(self) -> None:
        assert self._readers > 0, "a reader left twice"
        self._readers -= 1

    def page_bytes(self) -> int:
        """How many payload bytes a page may have."""
        return self._half_bytes // max(1, self._readers) // FOOTPRINT

    def try_take(self, amount: int) -> bool:
        """Take `amount` for a page read ahead, if it is there."""
        if self._ahead_bytes + amount > self._half_bytes:
            return False
        self._ahead_bytes += amount
        return True

    def correct(self, by: int) -> None:
        """A page turned out larger or smaller; may go over the total, by a page a shard at most."""
        self._ahead_bytes += by

    def give_back(self, amount: int) -> None:
        self._ahead_bytes -= amount
        assert self._ahead_bytes >= 0, "more was given back than taken"
