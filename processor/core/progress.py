"""How far a shard has come: its start, its end, its gaps, and how long it has been idle.

Each of these is told from what the service said, never from our clock: its answers, their `Date`
headers (1 s resolution) and MillisBehindLatest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple
from zlib import crc32

from processor.errors import ConfigError
from processor.model import TRIM_HORIZON, Page, Position

IDLE_AFTER_MS = 30_000
ANSWERS_APART_MS_MAX = 5_000

Outcome = Literal["goes_on", "ended", "ask_list", "garbled"]


# ---- the start ------------------------------------------------------------------------------

START_WORDS = ("trim_horizon", "latest")


def start_position(start: str, service_date_ms: int) -> Position:
    """What `source.start` means: asked once an application, then stored by it.

    `latest` becomes the service's time: a stored LATEST would lose what arrives between a crash
    and the next start. ConfigError if `start` is no time with a zone, or lies in the future.
    """
    if start == "trim_horizon":
        return TRIM_HORIZON
    if start == "latest":
        return Position("at_time", str(service_date_ms))
    at_ms = _time_ms(start)
    if at_ms > service_date_ms:
        raise ConfigError(
            "source.start", f"{start!r}, which is in the future", "a past time, or latest"
        )
    return Position("at_time", str(at_ms))


def _time_ms(text: str) -> int:
    expected = "trim_horizon, latest, or an ISO 8601 time with its zone (2026-01-31T12:00:00Z)"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("source.start", repr(text), expected) from None
    if time.tzinfo is None:
        raise ConfigError("source.start", f"{text!r}, which has no zone", expected)
    return round(time.timestamp() * 1000)


# ---- the end --------------------------------------------------------------------------------


def outcome_of(*, has_records: bool, has_next: bool, has_children: bool) -> Outcome:
    """What an answer to GetRecords says of the shard, by which of its members are there.

    `Records`  `NextShardIterator`  `ChildShards`
        no            –                  –         garbled: read again with the same iterator
        yes          yes                 –         goes_on
        yes           no                yes        ended
        yes           no                 no        ask_list: ListShards decides (`is_end`)
    """
    if not has_records:
        return "garbled"
    if has_next:
        return "goes_on"
    return "ended" if has_children else "ask_list"


def is_end(*, is_listed: bool, is_closed: bool) -> bool:
    """Whether an answer without successor of either kind was the end, by what ListShards says.

    Only an ending sequence number proves it. A shard that is not listed proves nothing.
    """
    return is_listed and is_closed


# ---- gaps -----------------------------------------------------------------------------------

# Dates are whole seconds, hosts of the service differ by up to five, and so may MillisBehindLatest.
GAP_MS_MIN = 10_000
# How old a row's moment may get while a shard is idle. A worker and its successor may thus both be
# away for 23 of the service's least 24 hours; 1,000 idle shards write 0.3 times a second for it.
NOTE_MS = 3_600_000
NOTE_SPREAD_MS = 900_000


class Gap(NamedTuple):
    """Arrival times of records that may be lost: from `first_ms`, and before `last_ms`."""

    first_ms: int
    last_ms: int


class Unread:
    """A moment before which no record of a shard is unread, and what retention took since then.

    A shard that was idle for longer than its retention has no gap as long as somebody kept asking:
    the moment moves on with every empty answer, where the position stands still. None: nobody has
    read the shard yet, and what was gone before we came is no loss of ours.
    """

    def __init__(self, until_ms: int | None) -> None:
        self.until_ms = until_ms

    def __repr__(self) -> str:
        return f"<Unread from {self.until_ms} on>"

    def gap(self, page: Page, retention_ms: int) -> Gap | None:
        """What lies between the moment and the oldest record still held; before `page` is taken.

        The service trims late: a record older than retention that came is the oldest still held.
        """
        if self.until_ms is None or _tells_nothing(page):
            return None
        held_from_ms = page.date_ms - retention_ms
        if len(page):
            held_from_ms = min(held_from_ms, int(page.arrivals_ms[0]))
        if held_from_ms - self.until_ms <= GAP_MS_MIN:
            return None
        return Gap(self.until_ms, held_from_ms)

    def on_taken(self, page: Page) -> None:
        """`page` is counted, whole. The last page of a shard says nothing of its children, who
        begin with the moment of their parents: so its Date does not count, but its records do."""
        if _tells_nothing(page):
            return
        if page.children is None:
            until_ms = page.date_ms - page.millis_behind
        elif len(page):
            until_ms = int(page.arrivals_ms[-1])
        else:
            return
        self.until_ms = until_ms if self.until_ms is None else max(self.until_ms, until_ms)


def is_note_due(until_ms: int | None, noted_ms: int, shard_id: str) -> bool:
    """Whether the moment should be committed though nothing else is to be; spread over shards."""
    spread_ms = crc32(shard_id.encode()) % NOTE_SPREAD_MS
    return until_ms is not None and until_ms - noted_ms >= NOTE_MS - spread_ms


def _tells_nothing(page: Page) -> bool:
    """An empty page while behind is the service's way of looking further: no record, no end."""
    return not len(page) and page.millis_behind > 0 and page.children is None


# ---- idle is not behind ---------------------------------------------------------------------


class Idle:
    """How far the watermark of one idle shard may move on without records (SEMANTICS §3).

    Idle means: every answer for 30 s was empty with MillisBehindLatest = 0, and no two of their
    Dates lie more than 5 s apart. Any record, error or pause starts it again.
    """

    def __init__(self, out_of_orderness_ms: int) -> None:
        self._behind_ms = out_of_orderness_ms + IDLE_AFTER_MS
        self._since_ms: int | None = None  # Date of the first answer of this stretch
        self._date_ms = 0  # of the last
        self._floor_ms: int | None = None  # the watermark when the stretch began

    def __repr__(self) -> str:
        if self._since_ms is None:
            return "<Idle: no>"
        return f"<Idle: for {self._date_ms - self._since_ms} ms>"

    def on_answer(self, records: int, millis_behind: int, date_ms: int) -> None:
        """An answer was taken, after every one before it."""
        if records or millis_behind:
            self._since_ms = None
        elif self._since_ms is None or abs(date_ms - self._date_ms) > ANSWERS_APART_MS_MAX:
            self._begin(date_ms)
        else:
            self._date_ms = max(self._date_ms, date_ms)  # hosts of the service differ a little

    def on_pause(self) -> None:
        """Nobody asked for a while."""
        self._since_ms = None

    def on_error(self) -> None:
        """A request failed: what the shard held meanwhile is unknown."""
        self._since_ms = None

    @property
    def is_certain(self) -> bool:
        """Whether the shard has been idle for long enough to be told so."""
        return self._since_ms is not None and self._date_ms - self._since_ms >= IDLE_AFTER_MS

    def candidate_ms(self, watermark_ms: int | None) -> int | None:
        """Where the watermark may go now, or None; `watermark_ms` is the shard's present one.

        May lie behind the present one where that ran ahead of arrival: a watermark never goes back.
        In a stretch only what this function gave may have moved the watermark, so the first one it
        is told of is that of the beginning. Where there is none yet, idleness makes none.
        """
        if self._since_ms is None or watermark_ms is None:
            return None
        if self._floor_ms is None:
            self._floor_ms = watermark_ms
        passed_ms = self._date_ms - self._since_ms
        if passed_ms < IDLE_AFTER_MS:
            return None
        return min(self._floor_ms + passed_ms, self._date_ms - self._behind_ms)

    def _begin(self, date_ms: int) -> None:
        self._since_ms = self._date_ms = date_ms
        self._floor_ms = None
