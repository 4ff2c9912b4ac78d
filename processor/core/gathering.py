"""Small pages, kept back until there are enough of them to count in one go.

To count a page costs some 0.3 ms whatever it holds, as much as several hundred records do. What is
kept back is as if it had not been read: position and state stay before it, and it is counted as
one page, which changes no result. Nothing is kept back that could make a window end, that has a
record which can't be decoded, or that is a second older than the newest by the service's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace

from processor.codecs.base import Decoded
from processor.model import Page

RECORDS_MAX = 2_048  # from there on a page's own cost is a tenth of its records'
BYTES_MAX = 4 * 1024 * 1024  # of payloads; what they are decoded to is held, too
AGE_MAX_MS = 1_000

T = TypeVar("T")


class Gathered:
    """Pages that were decoded and not counted, in their order."""

    def __init__(self) -> None:
        self._pages: list[Page] = []
        self._rows: list[Any] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Gathered {len(self)} records of {len(self._pages)} pages>"

    def has_room(self, page: Page) -> bool:
        """Whether it may wait with the others."""
        first = self._pages[0] if self._pages else page
        return (
            len(self) + len(page) < RECORDS_MAX
            and self._bytes + sum(map(len, page.payloads)) < BYTES_MAX
            and page.children is None
            and page.date_ms - first.date_ms < AGE_MAX_MS
        )

    def add(self, page: Page, decoded: Decoded) -> None:
        """A page without faults."""
        assert not decoded.faults, "a bad record waits for nothing"
        self._pages.append(page)
        self._rows += decoded.rows
        self._bytes += sum(map(len, page.payloads))

    def with_(self, page: Page, decoded: Decoded) -> tuple[Page, Decoded]:
        """All that was kept back and a page, as one; nothing is kept back then."""
        if not self._pages:
            return page, decoded
        n = len(self)
        whole, rest = self.taken()
        faults = {n + i: fault for i, fault in decoded.faults.items()}
        return _joined([whole, page]), Decoded([*rest.rows, *decoded.rows], faults)

    def taken(self) -> tuple[Page, Decoded]:
        """All that was kept back; nothing is then."""
        whole = _joined(self._pages), Decoded(self._rows, {})
        self._pages, self._rows, self._bytes = [], [], 0
        return whole


def _joined(pages: list[Page]) -> Page:
    """As if they had been read at once, when the last one was."""
    return replace(
        pages[-1],
        payloads=_all(page.payloads for page in pages),
        sequence_numbers=_all(page.sequence_numbers for page in pages),
        partition_keys=_all(page.partition_keys for page in pages),
        arrivals_ms=np.concatenate([page.arrivals_ms for page in pages]),
    )


def _all(lists: Iterable[list[T]]) -> list[T]:
    return [each for one in lists for each in one]
