"""What a detector is: parameters, declared columns, and one function that scores and then learns.

Detectors see closed windows in waves. A wave is one window of a rule for many keys at once, each
key in it once; waves come in order of time. A detector keeps no state of its own: it names the
columns that it needs a series, the engine owns them (a series = one key × one detector).

What must hold for all (tests/contract): prefix causality; a batch equals one by one, to the bit;
restored equals never stopped, to the bit; the order of series is irrelevant; NaN, infinite,
constant and zero series neither alarm nor crash; no input is changed; repeatable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import fields as struct_fields

from processor.model import Bools, Column, Floats, Ints, Rows, State

HOUR_MS = 3_600_000
HOURS = 24

# Beyond this a value says "broken", not "large": rows of float32 end at 3.4e38, and differences
# and sums of values must stay below that. The largest sum of a window is some 1e26.
VALUE_MAX = 1e30

Windows = Annotated[int, Meta(ge=1, le=100_000)]
NotNegative = Annotated[float, Meta(ge=0)]
Few = Annotated[
    int, Meta(ge=1, le=64)
]  # windows: a column of 64 bits holds whether each was beyond
Direction = Literal["above", "below", "both"]
Missing = Literal["default", "zero", "skip", "breach"]
Sensitivity = Literal["high", "medium", "low"]
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")  # ascending


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
    others: tuple[Floats, ...] = ()  # further figures, for detectors that look at several
    names: tuple[str, ...] = ()  # … their aggregates, for sentences


class Verdict(Struct, frozen=True):
    """What a detector saw, one entry a series; NaN where it can't say."""

    expected: Floats
    lower: Floats
    upper: Floats
    score: Floats
    raised: Bools  # the score is at the threshold or beyond; what becomes of it, `core.alarms` says
    calm: Bools  # this window gives no reason for alarm: recovery counts these
    run: Ints  # windows in a row, this one included, that say what it says; 0 where nothing is said
    part: Ints  # which of the detector's `parts` says most; 0 for those that have but one
    nearest: Floats  # the remembered value next to it
    nearest_ms: Ints  # start of the window in which that was met last; 0 where there is none


class Params(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options that every detector takes; each detector's own derive from it. Durations: windows.

    All but `min_count`, `missing` and the clamps are kept for the detector by `core.alarms`: it
    neither reads nor minds them. A kind refuses what makes no sense for it: `refused` says why.

    A change of an option that is `tunable` leaves what was learnt as good as it was: it says when
    to speak up, and how. Any other shapes what is learnt, and its change starts the rule anew.
    Columns that are `volatile` tell of windows judged by the options themselves, such as how many
    in a row were beyond a bound: they start anew whenever the rule goes on under other options.
    Columns that are `passing` tell of the windows just before, such as how many in a row were
    empty: they start anew where what was learnt from history goes on in the stream, after a gap.
    """

    tunable: ClassVar[frozenset[str]] = frozenset(
        {
            *("direction", "min_delta", "min_delta_relative", "only_above", "only_below"),
            *("n_of_m", "escalation_only", "recover_after", "recover_below", "cool_down"),
            *("warm_up", "severity"),
        }
    )
    volatile: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[Mapping[str, str]] = {}  # option → what to do instead
    passing: ClassVar[frozenset[str]] = frozenset()

    # What is scored and learnt.
    min_count: Annotated[int, Meta(ge=0)] = 0  # with fewer records neither scored nor learnt
    missing: Missing = "default"  # what a window without records is
    clamp_min: float | None = None  # values beyond count as the bound
    clamp_max: float | None = None
    # What is an alarm.
    direction: Direction = "both"  # of the expected value
    min_delta: NotNegative = 0.0  # from the expected value, or else from the bound
    min_delta_relative: NotNegative = 0.0  # … as a share of its size
    only_above: float | None = None  # never unless the value itself is beyond one of these
    only_below: float | None = None
    n_of_m: tuple[Few, Few] = (1, 1)  # of the last m windows, n must be beyond the threshold
    escalation_only: bool = False  # only where the score passes all of the last 100 to 200 windows
    warm_up: Annotated[int, Meta(ge=0, le=100_000)] = 0  # windows judged before the first alarm
    # How it goes on, and is told.
    recover_after: Windows = 3  # calm windows in a row until `resolved`
    recover_below: Annotated[float, Meta(gt=0)] | None = None  # a calm window scores less, too
    cool_down: Annotated[int, Meta(ge=0, le=100_000)] = 0  # windows after `resolved` without alarm
    severity: Severity | dict[Severity, float] = "warning"  # or by the score it takes

    def __post_init__(self) -> None:
        """Raises ValueError: "found …; what to do"."""
        for field in struct_fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.encode_name}: found {value}; give a finite number")
            if field.encode_name in self.refused and value != field.default:
                why = self.refused[field.encode_name]
                raise ValueError(f"found {field.encode_name}: {value}; {why}")
        self._check_pairs()
        if isinstance(self.severity, dict):
            _check_severities(self.severity)

    def _check_pairs(self) -> None:
        n, m = self.n_of_m
        if n > m:
            raise ValueError(f"found n_of_m: [{n}, {m}]; of {m} windows at most {m} can be beyond")
        low, high = self.clamp_min, self.clamp_max
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"found clamp_min: {low:g}, clamp_max: {high:g}; give a larger maximum"
            )
        above, below = self.only_above, self.only_below
        if above is not None and below is not None and above < below:
            found = f"found only_above: {above:g}, only_below: {below:g}"
            raise ValueError(f"{found}; swap them, or every value is beyond one of them")
        if above is not None and below is None and high is not None and high <= above:
            found = f"found only_above: {above:g}, clamp_max: {high:g}"
            raise ValueError(f"{found}; no value would ever be above: give a larger clamp_max")
        if below is not None and above is None and low is not None and low >= below:
            found = f"found only_below: {below:g}, clamp_min: {low:g}"
            raise ValueError(f"{found}; no value would ever be below: give a smaller clamp_min")


class SensitiveParams(Params, frozen=True, kw_only=True):
    """Of detectors whose score means the same for all series. `threshold`, where given, overrides
    `sensitivity`, whose `levels` are the kind's."""

    tunable: ClassVar[frozenset[str]] = Params.tunable | {"sensitivity", "threshold"}
    levels: ClassVar[Mapping[Sensitivity, float]] = {}

    sensitivity: Sensitivity = "medium"
    threshold: Annotated[float, Meta(gt=0)] | None = None
    escalation_only: bool = True
    warm_up: Windows = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recover_below is not None and self.recover_below > self.limit:
            raise ValueError(
                f"found recover_below: {self.recover_below:g}; give at most the threshold, "
                f"{self.limit:g}, or an alarm could be over while it is raised"
            )

    @property
    def limit(self) -> float:
        """The score at which it speaks up."""
        return self.levels[self.sensitivity] if self.threshold is None else self.threshold


def _check_severities(limits: Mapping[Severity, float]) -> None:
    known = [(name, limits[name]) for name in SEVERITIES if name in limits]
    if not known:
        raise ValueError("found severity: {}; give scores by name, or one name")
    for name, limit in known:
        if not math.isfinite(limit):
            raise ValueError(f"severity.{name}: found {limit}; give a finite score")
    for (name, limit), (higher, at) in itertools.pairwise(known):
        if limit >= at:
            raise ValueError(
                f"found severity {name} at {limit:g} and {higher} at {at:g}; "
                f"give {higher} the higher score"
            )


class Detector(Protocol):
    """One way to judge a series. Registered by name in `processor.detectors`."""

    kind: ClassVar[str]
    params: ClassVar[type[Params]]
    is_scale_free: ClassVar[bool]  # a series' scale and offset leave its scores as they are
    parts: ClassVar[tuple[str, ...]]  # what `Verdict.part` counts; ("value",) where there is one

    def columns(self, params: Any) -> tuple[Column, ...]:
        """The state of one series."""

    def threshold(self, params: Any) -> float:
        """The score at which it speaks up, for the event."""

    def judge(self, params: Any, state: State, rows: Rows, wave: Wave) -> Verdict:
        """Score each series' value with what was learnt before it, then learn it.

        `rows`: intp[n], the series' rows in `state`, each once. Rows that are not `judgeable` must
        stay as they are, score NaN, neither raised nor calm. (Absence alone judges all rows: a
        missing window is what it is about.)
        """

    def sentence(self, params: Any, aggregate: str, verdict: Verdict, i: int, wave: Wave) -> str:
        """What happened to series i of the wave, in plain words; asked where it `raised`."""

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        """That it is over: `lasted` as `duration` puts it, `worst` the value of highest score."""

    def bin(self, params: Any, wave: Wave) -> str:
        """The part of the day or week that the window was compared with, such as `08:00–09:00` or
        `Mon 08:00`; "" where there is none."""


class Seeing(Protocol):
    """Besides, of a detector that looks at several figures: its `parts` are these."""

    figures_max: ClassVar[int]


class Sharing(Protocol):
    """Besides, of a detector whose `expected` is no value of the aggregate's (absence: a share)."""

    expects_values: ClassVar[bool]  # False


class Expecting(Protocol):
    """Besides, of a detector with a memory that a person may correct."""

    def expect(self, params: Any, state: State, rows: Rows, values: Floats, wave: Wave) -> None:
        """Take `values` (float64[n]) in as met before: the like is to raise no more."""


class Choosy(Protocol):
    """Besides, of a detector that can't judge windows of each length."""

    def window_fault(self, params: Any, every_ms: int) -> str | None:
        """Of windows that begin every `every_ms`: what they should be; None where they are good."""


class Pausing(Protocol):
    """Besides, of a detector that counts on what lies between windows it judged."""

    def pause(self, params: Any, state: State, rows: Rows) -> None:
        """Windows of `rows` were passed over, and may not count for anything."""


def judgeable(params: Params, wave: Wave) -> Bools:
    """bool[n]: which windows hold a value that can be scored and learnt."""
    # Comparisons with NaN are false, so this is also the test for NaN and infinity.
    return (np.abs(wave.values) <= VALUE_MAX) & (wave.counts >= params.min_count)


def silence(n: int) -> Verdict:
    """The verdict of a detector that has nothing to say on n series; fill in what it does say."""
    return Verdict(
        expected=np.full(n, np.nan),
        lower=np.full(n, np.nan),
        upper=np.full(n, np.nan),
        score=np.full(n, np.nan),
        raised=np.zeros(n, dtype=np.bool_),
        calm=np.zeros(n, dtype=np.bool_),
        run=np.zeros(n, dtype=np.int64),
        part=np.zeros(n, dtype=np.int64),
        nearest=np.full(n, np.nan),
        nearest_ms=np.zeros(n, dtype=np.int64),
    )


def hour_of_day(wave: Wave) -> int:
    """0 to 23, in the rule's time zone."""
    return wave.local_ms // HOUR_MS % HOURS


def hours(wave: Wave) -> str:
    """The window's hour of day in words: `08:00–09:00`."""
    hour = hour_of_day(wave)
    return f"{hour:02}:00–{(hour + 1) % HOURS:02}:00"


def figure(value: float) -> str:
    """A number as one writes it in a sentence.

    >>> figure(7.2468), figure(12345.6), figure(0.5), figure(28.0), figure(3.2e12)
    ('7.25', '12,346', '0.5', '28', '3.2e+12')
    >>> figure(999.7), figure(999.4), figure(-0.0)
    ('1,000', '999', '0')
    """
    value += 0.0  # nobody writes -0
    # From 999.5 on three digits would be 1e+03.
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e9 else f"{value:.3g}"


def duration(ms: int) -> str:
    """A length of time as one says it, to the two largest units.

    >>> duration(2_400_000), duration(7_200_000), duration(183_600_000), duration(1_500)
    ('40 min', '2 h', '2 d 3 h', '1.5 s')
    """
    if ms < 60_000:
        return f"{ms / 1000:g} s"
    parts = []
    for unit, length in (("d", 86_400_000), ("h", HOUR_MS), ("min", 60_000), ("s", 1_000)):
        if ms >= length:
            parts.append(f"{ms // length} {unit}")
        ms %= length
    return " ".join(parts[:2])


def back_to_normal(aggregate: str, lasted: str, worst: float) -> str:
    """A farewell for detectors of values."""
    at_worst = "" if np.isnan(worst) else f"; at worst it was {figure(worst)}"
    return f"{aggregate} is back to normal after {lasted}{at_worst}"
