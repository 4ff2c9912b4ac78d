"""What a detector is: parameters, declared columns, and one function that scores and then learns.

Detectors see closed windows in waves. A wave is one window of a rule for many keys at once, each
key in it once; waves come in order of time. A detector keeps no state of its own: it names the
columns that it needs a series, the engine owns them (a series = one key × one detector).

What must hold for all (tests/contract): prefix causality; a batch equals one by one, to the bit;
restored equals never stopped, to the bit; the order of series is irrelevant; NaN, infinite,
constant and zero series neither alarm nor crash; no input is changed; repeatable.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from msgspec import Struct

from processor.model import Bools, Column, Floats, Ints, Rows, State

Direction = Literal["above", "below", "both"]


class Wave(Struct, frozen=True):
    """One closed window for n series.

    `values` is NaN where the window is missing and the aggregate has no value for "nothing
    happened" (a mean); it is 0 for a missing count or sum. `local_ms` is the window's start shifted
    to the rule's time zone: hour of day and of week come from it.
    """

    start_ms: int
    end_ms: int
    local_ms: int
    values: Floats  # float64[n]
    counts: Ints  # int64[n]: records in the window; 0: it is missing


class Verdict(Struct, frozen=True):
    """What a detector saw, float64[n] and bool[n] each; NaN where it can't say."""

    expected: Floats
    lower: Floats
    upper: Floats
    score: Floats
    raised: Bools  # speaks up now (on escalation, for detectors that judge so)
    calm: Bools  # this window gives no reason for alarm: recovery counts these


class Params(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options that every detector takes; each detector's own derive from it. Durations: windows."""

    direction: Direction = "both"
    min_count: int = 0  # windows with fewer records are neither scored nor learnt
    recover_after: int = 3  # calm windows in a row until `resolved`
    severity: Literal["info", "warning", "critical"] = "warning"


class Detector(Protocol):
    """One way to judge a series. Registered by name in `processor.detectors`."""

    kind: ClassVar[str]
    params: ClassVar[type[Params]]

    def columns(self, params: Any) -> tuple[Column, ...]:
        """The state of one series."""

    def threshold(self, params: Any) -> float:
        """The score at which it speaks up, for the event."""

    def judge(self, params: Any, state: State, rows: Rows, wave: Wave) -> Verdict:
        """Score each series' value with what was learnt before it, then learn it.

        `rows`: intp[n], the series' rows in `state`, each once. Rows with a NaN value, or fewer
        records than `min_count`, must stay as they are, score NaN, neither raised nor calm.
        """

    def sentence(self, params: Any, aggregate: str, verdict: Verdict, i: int, wave: Wave) -> str:
        """What happened to series i of the wave, in plain words."""
