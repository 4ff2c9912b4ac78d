"""How long global rules have waited for one and the same shard, by the service's `Date`s.

Only while we read the merge stream to its tip: what a shard told may lie in what is still unread.
Answers more than 5 s apart, or another shard or watermark to wait for, start it again; so a worker
that slept, and an outage of the merge stream, are nobody's standing still.
"""

from __future__ import annotations

from processor.core.merge.members import Behind
from processor.core.progress import ANSWERS_APART_MS_MAX


class Stall:
    """Of one shard of the merge stream. `after_ms`: how long rules wait; None: for ever."""

    def __init__(self, after_ms: int | None) -> None:
        self._after_ms = after_ms
        self._behind: Behind | None = None
        self._since_ms = 0
        self._date_ms = 0

    def __repr__(self) -> str:
        return f"<Stall of {self._behind} for {self._date_ms - self._since_ms} ms>"

    def on_answer(self, behind: Behind | None, millis_behind: int, date_ms: int) -> None:
        """An answer was taken, after every one before it; `behind` is whom the rules now wait for.

        `behind` None: for nobody.
        """
        is_apart = abs(date_ms - self._date_ms) > ANSWERS_APART_MS_MAX
        if behind != self._behind or millis_behind or is_apart:
            self._behind, self._since_ms, self._date_ms = behind, date_ms, date_ms
        else:
            self._date_ms = max(self._date_ms, date_ms)

    def candidate(self) -> Behind | None:
        """Whom to go on without, if it is time."""
        if self._after_ms is None or self._behind is None:
            return None
        return self._behind if self._date_ms - self._since_ms >= self._after_ms else None
