"""Which worker rows to read when: all of a small fleet, the next few of a large one.

    all      each `read_s`; of a large fleet each `all_s`, once the first reads have shown it, or
             each `uneven_s` while we may be given leases
    near     of a large fleet: our own row and the `near` next ones, each `read_s`
    awaited  of a large fleet: the takers of our leases, as long as we wait for them

Times count from a read's send: slow answers add no gap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf

from processor.core.leases.commands import ReadWorkers, Timing

SETTLED_READS = 2  # of all worker rows: workers that started with us have shown up by then


class Reading:
    """The reads of worker rows that are under way or due."""

    def __init__(self, me: str, timing: Timing) -> None:
        self._me = me
        self._timing = timing
        self.expects = False  # to be given leases, by workers whom we don't watch
        self._all_reads = 0
        self._sent_at: dict[str | None, float] = {}

    @property
    def is_settled(self) -> bool:
        return self._all_reads >= SETTLED_READS

    def on_sent(self, read: ReadWorkers, now: float) -> None:
        self._sent_at[read.first] = now

    def on_read(self, read: ReadWorkers) -> None:
        self._all_reads += read.first is None

    def hurry(self, *, is_all: bool) -> None:
        """Read our surroundings again at once; or all rows."""
        self._sent_at.pop(None, None) if is_all else self._sent_at.pop(self._me, None)

    def due(
        self, is_large: bool, awaited: Collection[str], is_urgent: bool
    ) -> Iterator[tuple[float, ReadWorkers]]:
        """Each read and when it is due. `is_urgent`: somebody awaited is about to answer."""
        soon_s = self._timing.poll_s if is_urgent else self._timing.read_s
        if not is_large:
            yield self._at(None, soon_s if awaited else self._timing.read_s), ReadWorkers()
            return
        all_s = self._timing.uneven_s if self.expects else self._timing.all_s
        all_s = all_s if self.is_settled else self._timing.read_s
        yield self._at(None, all_s), ReadWorkers()
        yield self._at(self._me, self._timing.read_s), ReadWorkers(self._me, self._timing.near + 1)
        for worker_id in sorted(awaited):
            yield self._at(worker_id, soon_s), ReadWorkers(worker_id, 1)

    def keep(self, awaited: Collection[str]) -> None:
        """Forget about reads of whom we wait for no more."""
        known = {None, self._me, *awaited}
        self._sent_at = {first: at for first, at in self._sent_at.items() if first in known}

    def _at(self, first: str | None, period_s: float) -> float:
        return self._sent_at.get(first, -inf) + period_s
