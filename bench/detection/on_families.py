"""The part on made series: false alarms by family, and what is found of each kind of anomaly.

One threshold is shared by all families: the one that gives one false alarm in 10,000 windows over
all clean series. A series' first week does not count there: what it may cost is in `life`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np

from bench.detection import families, judged, kinds
from bench.detection.bars import Bar, Part, shown
from bench.detection.families import ANOMALIES, DAY, FAMILIES, Panel
from bench.detection.judged import Judged, Kind
from bench.harness import Table
from processor.model import Bools, Floats

GROWN = 7 * DAY  # windows
SHARE = 1e-4  # false alarms a window at the shared threshold
IN_10_000 = 10_000.0


class Size(NamedTuple):
    """How much is drawn: days and series a family; series a family and kind of anomaly."""

    n_days: int = 28
    n_clean: int = 20
    n_injected: int = 8


class Finding(NamedTuple):
    """Of one kind of anomaly."""

    n: int
    recall: float
    delay: float | None  # median, windows; of those found
    precision: float | None  # share of hits among them and what was raised in the week before
    openings: float | None  # a found anomaly, at medium sensitivity

    def in_json(self) -> dict[str, Any]:
        return self._asdict()


class Outcome(NamedTuple):
    threshold: float  # shared
    false_alarms: Mapping[str, float]  # by family, in 10,000 windows, at the shared threshold
    at_medium: Mapping[str, float]  # … and told at medium sensitivity
    pooled_at_medium: float
    recall: float
    findings: Mapping[str, Finding]  # by kind of anomaly
    missed: Mapping[str, float]  # share, by family/anomaly, where there is any
    openings: float  # a found anomaly, at medium sensitivity
    shifts_told: float  # in the week after a lasting level shift, a series
    trade_off: Sequence[tuple[float, float, float]]  # threshold, false alarms in 10,000, recall

    def in_json(self) -> dict[str, Any]:
        found = {name: finding.in_json() for name, finding in self.findings.items()}
        return {**self._asdict(), "findings": found}


def run(measured: Sequence[Kind], seed: int, size: Size, pool: Executor) -> Part:
    found = pool.map(_outcome_of, [(kind, seed, size) for kind in measured])
    outcomes = dict(zip((kind.name for kind in measured), found, strict=True))
    figures = {name: outcome.in_json() for name, outcome in outcomes.items()}
    return Part(figures, _tables(outcomes, size), _bars(outcomes))


def outcome(kind: Kind, clean: Panel, injected: Panel) -> Outcome:
    quiet, loud = (judged.judge(kinds.wide_open(kind), panel) for panel in (clean, injected))
    threshold = shared_threshold(quiet.marks[GROWN:])
    told_clean, told = (judged.judge(kinds.at(kind, "medium"), p) for p in (clean, injected))
    delays = delays_at(loud.marks, injected, threshold)
    openings = _openings(told.opened, injected)
    found = ~np.isnan(delays_at(_told_marks(told), injected, 1.0))
    return Outcome(
        threshold,
        _rates(quiet.marks[GROWN:] >= threshold, clean.labels),
        _rates(told_clean.opened[GROWN:], clean.labels),
        float(told_clean.opened[GROWN:].mean() * IN_10_000),
        float((~np.isnan(delays)).mean()),
        _findings(delays, loud.marks >= threshold, openings, found, injected),
        _missed(delays, injected.labels),
        _mean(openings[found]) or 0.0,
        _shifts_told(told.opened, injected),
        _trade_off(quiet.marks[GROWN:], loud.marks, injected),
    )


def shared_threshold(marks: Floats) -> float:
    """The lowest score that at most one clean window in 10,000 reaches."""
    raised = np.sort(marks[~np.isnan(marks)])[::-1]
    allowed = int(marks.size * SHARE)
    return float(np.nextafter(raised[allowed], np.inf)) if allowed < len(raised) else 0.0


def delays_at(marks: Floats, panel: Panel, threshold: float) -> Floats:
    """Windows until each anomaly was raised, float64[n_series]; NaN where it never was."""
    delays = np.full(panel.n_series, np.nan)
    for i, (onset, end) in enumerate(zip(panel.onsets, panel.ends, strict=True)):
        hits = np.flatnonzero(marks[onset:end, i] >= threshold)
        if len(hits):
            delays[i] = hits[0]
    return delays


def _told_marks(told: Judged) -> Floats:
    return np.where(told.opened, 1.0, np.nan)


def _openings(opened: Bools, panel: Panel) -> Floats:
    """Alarms told of each anomaly while it counts as found, float64[n_series]."""
    spans = zip(panel.onsets, panel.ends, strict=True)
    return np.array([opened[onset:end, i].sum() for i, (onset, end) in enumerate(spans)], float)


def _rates(alarms: Bools, labels: Sequence[str]) -> dict[str, float]:
    of = np.array(labels)
    return {name: float(alarms[:, of == name].mean() * IN_10_000) for name in dict.fromkeys(labels)}


def _findings(
    delays: Floats, raised: Bools, openings: Floats, found: Bools, panel: Panel
) -> dict[str, Finding]:
    kinds_of = np.array([label.split("/")[1] for label in panel.labels])
    hit, other = _meant(raised, panel)
    return {
        name: Finding(
            int((of := kinds_of == name).sum()),
            float((~np.isnan(delays[of])).mean()),
            _median(delays[of & ~np.isnan(delays)]),
            _share(hit[of].sum(), other[of].sum()),
            _mean(openings[of & found]),
        )
        for name in ANOMALIES
    }


def _meant(raised: Bools, panel: Panel) -> tuple[Floats, Floats]:
    """How many raises each anomaly has (1 at most), and how many its series had in the week before:
    as many windows for every kind, and none in which the anomaly still echoes."""
    hits, others = np.zeros(panel.n_series), np.zeros(panel.n_series)
    for i, (onset, end) in enumerate(zip(panel.onsets, panel.ends, strict=True)):
        hits[i] = raised[onset:end, i].any()
        others[i] = raised[max(onset - 7 * DAY, 0) : onset, i].sum()
    return hits, others


def _missed(delays: Floats, labels: Sequence[str]) -> dict[str, float]:
    of = np.array(labels)
    shares = {name: float(np.isnan(delays[of == name]).mean()) for name in dict.fromkeys(labels)}
    return {name: share for name, share in shares.items() if share}


def _shifts_told(opened: Bools, panel: Panel) -> float:
    """Alarms in the week from a lasting level shift on, the mean over series."""
    shifted = [i for i, label in enumerate(panel.labels) if label.split("/")[1] in ("up", "down")]
    told = [opened[panel.onsets[i] : panel.onsets[i] + 7 * DAY, i].sum() for i in shifted]
    return float(np.mean(told))


def _trade_off(quiet: Floats, loud: Floats, panel: Panel) -> list[tuple[float, float, float]]:
    """At rates from one in a million windows to one in a hundred."""
    raised = np.sort(quiet[~np.isnan(quiet)])[::-1]
    points = []
    for rate in np.geomspace(1e-6, 1e-2, 25):
        allowed = int(quiet.size * rate)
        if allowed >= len(raised):
            break
        threshold = float(np.nextafter(raised[allowed], np.inf))
        recall = float((~np.isnan(delays_at(loud, panel, threshold))).mean())
        points.append((threshold, allowed / quiet.size * IN_10_000, recall))
    return points


def _median(numbers: Floats) -> float | None:
    return float(np.median(numbers)) if len(numbers) else None


def _mean(numbers: Floats) -> float | None:
    return float(np.mean(numbers)) if len(numbers) else None


def _share(part: float, rest: float) -> float | None:
    return float(part / (part + rest)) if part + rest else None


def _outcome_of(task: tuple[Kind, int, Size]) -> Outcome:
    kind, seed, size = task
    clean = families.clean(seed, size.n_days, size.n_clean)
    return outcome(kind, clean, families.injected(seed, size.n_injected))


_OVERALL = (
    "detector",
    "shared threshold",
    "false alarms at medium",
    "recall %",
    "openings an anomaly",
    "told in a week after a level shift",
)


def _tables(outcomes: Mapping[str, Outcome], size: Size) -> list[Table]:
    n = (size.n_days * DAY - GROWN) * size.n_clean
    names = list(outcomes)
    at_shared = [[family, *(_two(outcomes[name], family) for name in names)] for family in FAMILIES]
    recalls = [
        [kind, *(_found(outcomes[name].findings[kind]) for name in names)] for kind in ANOMALIES
    ]
    overall = [
        [
            name,
            *map(shown, (o.threshold, o.pooled_at_medium, 100 * o.recall, o.openings)),
            shown(o.shifts_told),
        ]
        for name, o in outcomes.items()
    ]
    return [
        Table(
            f"False alarms in 10,000 windows ({n:,} each), shared threshold / told at medium",
            ["family", *names],
            at_shared,
        ),
        Table(
            "Recall % at the shared threshold, median delay in windows, precision %",
            ["anomaly", *names],
            recalls,
        ),
        Table(
            "Over all made series",
            _OVERALL,
            overall,
        ),
    ]


def _two(outcome: Outcome, family: str) -> str:
    return f"{shown(outcome.false_alarms[family])} / {shown(outcome.at_medium[family])}"


def _found(finding: Finding) -> str:
    precision = None if finding.precision is None else 100 * finding.precision
    delay = shown(finding.delay, 0)
    return f"{shown(100 * finding.recall, 0)} · {delay} · {shown(precision, 0)}"


def _bars(outcomes: Mapping[str, Outcome]) -> list[Bar]:
    bars = [
        Bar(f"recall of {name}", outcomes[name].recall, least, True)
        for name, least in (("full", 0.85), ("lite", 0.78))
        if name in outcomes
    ]
    if "full" in outcomes:
        full = outcomes["full"]
        bars += [
            Bar(f"full, median delay of {kind}", full.findings[kind].delay, anomaly.delay_max)
            for kind, anomaly in ANOMALIES.items()
            if anomaly.delay_max is not None
        ]
    for name in ("lite", "standard", "full"):
        if name in outcomes:
            o = outcomes[name]
            bars.append(Bar(f"{name}, false alarms in 10,000 at medium", o.pooled_at_medium, 1.0))
            bars.append(Bar(f"{name}, openings an anomaly", o.openings, 1.5))
            bars.append(Bar(f"{name}, alarms in a week after a level shift", o.shifts_told, 3.0))
    return bars
