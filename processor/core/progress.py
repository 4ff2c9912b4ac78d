"""How far a shard has come: its start, its end, its gaps, and how long it has been idle.

Each of these is told from what the service said, never from our clock: its answers, their `Date`
headers (1 s resolution) and MillisBehindLatest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from processor.errors import ConfigError
from processor.model import TRIM_HORIZON, Position

IDLE_AFTER_MS = 30_000
ANSWERS_APART_MS_MAX = 5_000

Outcome = Literal["goes_on", "ended", "ask_list", "garbled"]


# ---- the start ------------------------------------------------------------------------------


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


def read_until_ms(millis_behind: int, date_ms: int) -> int:
    """A moment before which no record of the shard is unread, by the last answer taken.

    `Date` is cut to whole seconds, so it may be early, never late: the moment is safe.
    """
    return date_ms - millis_behind


def retention_gap_ms(read_until_ms: int, date_ms: int, retention_ms: int) -> int:
    """How much arrival time lies between what was read and what is still held; 0: nothing is lost.

    A shard that was idle for longer than its retention has no gap as long as somebody kept asking:
    `read_until_ms` moves on with every empty answer, where the position stands still.
    """
    return max(0, date_ms - retention_ms - read_until_ms)


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
