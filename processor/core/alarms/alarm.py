"""An alarm: what is kept of it while it is open, and what is told.

    shut ── beyond, and nothing speaks against it ──→ open     Alarm "opened"
    open ── beyond, at a higher severity ───────────→ open     Alarm "escalated"
    open ── calm, `recover_after` times in a row ───→ shut     Alarm "resolved"

A window is *beyond* where the detector raised and the options want such a value. While an alarm is
open, the like is not told again and starts recovery anew. A window that could not be judged neither
counts as calm nor breaks a row of calm ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from processor.model import Column, DetectSpec

AlarmState = Literal["opened", "escalated", "resolved", "collapsed"]

NEVER_MS = -(2**62)
LONG_AGO = 255  # windows: more than n of m looks back

COLUMNS = (
    Column("is_open", "?"),
    Column("is_above", "?"),
    Column("severity", "u1"),  # the highest of this alarm: its place in `SEVERITIES`
    Column("since_escalation", "u1", LONG_AGO),  # windows, for n of m
    Column("windows", "<u4"),  # judged, ever
    Column("calm", "<u4"),  # calm windows in a row
    Column("peak", "<f4"),  # of the scores in this block of windows
    Column("peak_before", "<f4"),  # … and in the one before
    Column("beyond", "<u8"),  # a bit a window, the last one lowest
    Column("opened_ms", "<i8"),  # start of the window that opened it
    Column("began_ms", "<i8"),  # start of the row of windows that led to it
    Column("calm_since_ms", "<i8"),  # start of the first calm window
    Column("shut_ms", "<i8", NEVER_MS),  # end of the window that resolved the last one
    Column("worst", "<f8"),  # value of the window with the highest score
    Column("worst_score", "<f8"),
    Column("hushed", "u1"),  # why it is open and untold: see `hush`
    Column("storm", "<u8"),  # of the event that the newest was told with: `instructions.brief`
    Column("told", "<u8", 0, 3),  # likewise of its newest events: opened, escalated, resolved
    Column("furthest", "<f8"),  # signed: how far the newest alarm went from what was expected
    Column("accepted", "<f8", 0, 2),  # below, above: so far it may go (see `expected`)
)
# They tell of windows judged by the options themselves, and start anew with other options.
VOLATILE = frozenset({"beyond", "since_escalation"})


class Alarm(Struct, frozen=True):
    """What a detector says of one series; figures are None where it can't say.

    Value, expected value, band, score, part, nearest and bin are of this window.
    """

    row: int
    detect: DetectSpec
    state: AlarmState
    value: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    score: float | None
    threshold: float | None
    direction: Literal["above", "below"]  # of what opened it
    severity: str
    opened_ms: int  # start of the window that opened it
    sentence: str
    difference: float | None = None  # signed, from the expected value or else the bound
    difference_percent: float | None = None  # of the expected value's size
    raised_bar: float | None = None  # what the budget asks for above the threshold
    confidence: float = 1.0  # 0 to 1: how much was learnt before
    expected_every: float | None = None  # windows of the rule's series for one such score
    part: str = "value"  # which part of the detector says most
    nearest: float | None = None  # the remembered value next to it
    nearest_ms: int | None = None  # start of the window in which that was met last
    bin: str = ""  # part of the day or week that it was compared with


_COLLAPSE = DetectSpec("collapse", "collapse", "")  # in the place of a detector


class Collapsed(Struct, frozen=True):
    """What is told of many series at once; `state` "resolved" where the storm is over."""

    state: Literal["collapsed", "resolved"]
    severity: str
    opened_ms: int
    series: int
    by_detector: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    still_open: int
    left: list[dict[str, Any]]  # of those, the first few
    sentence: str
    of: int = 0  # of one that is over: which it was, by the `instructions.brief` of its event
    detect: DetectSpec = _COLLAPSE  # whom metrics count it for


def _forget(event_id: str) -> None:
    pass


class Pending(NamedTuple):
    """An alarm that is certain, but not yet put into words: that takes a hundred times as long,
    and when everything goes silent at once, there is one for each key."""

    row: int
    make: Callable[[], Alarm]
    state: AlarmState = "opened"
    series: str = ""  # what the detector's columns are called
    note: Callable[[str], None] = _forget  # told the id of its event
