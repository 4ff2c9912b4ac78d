"""Sends series through the shipped scoring, and notes scores and alarms window by window.

Every figure of the benchmark comes from `Scorer`, as a rule uses it: no detector is called in
another way, and no alarm logic is repeated here. To see what a detector says at every threshold, it
runs at one that is next to nothing; where scores rise above all recent ones is then seen too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.detection.families import Panel
from processor.core.alarms.alarm import Pending
from processor.core.alarms.scorer import Scorer
from processor.core.alarms.watch import Heard
from processor.model import Bools, DetectSpec, Floats, Ints

NEXT_TO_NOTHING = 1e-9
WEEK_MS = 7 * 86_400_000
MONDAY_MS = 4 * 86_400_000  # the epoch was a Thursday


class Kind(NamedTuple):
    """A detector with its options, under a name for tables."""

    name: str
    kind: str
    options: Mapping[str, Any] = {}


class Judged(NamedTuple):
    """What was said of a panel; float64 or bool [n_windows, n_series]."""

    scores: Floats  # NaN where there is none
    raised: Bools  # enough for an alarm: past the threshold and, where asked, all recent scores
    opened: Bools  # that was told
    expected: Floats
    lower: Floats
    upper: Floats

    @property
    def marks(self) -> Floats:
        """The score where it raised, NaN elsewhere: what raises at each threshold."""
        return np.where(self.raised, self.scores, np.nan)


class _Notes:
    """Keeps what a scorer's only watch heard last."""

    def __init__(self, scorer: Scorer):
        (watch,) = scorer._watches
        self.heard: Heard | None = None
        self._hear = watch.hear
        watch.hear = self._noted  # type: ignore[method-assign, assignment]

    def _noted(self, *arguments: Any) -> Heard:
        self.heard = self._hear(*arguments)
        return self.heard


def judge(kind: Kind, panel: Panel, *, empty: float = np.nan) -> Judged:
    """Run a panel through one detector; NaN is a missing window."""
    out = _room(panel.values.shape)
    scorer, notes = _scorer(kind, panel.n_series, empty)
    rows = np.arange(panel.n_series, dtype=np.intp)
    local_ms = panel.times_ms if panel.local_ms is None else panel.local_ms
    waves = zip(panel.times_ms.tolist(), local_ms.tolist(), strict=True)
    for i, (start_ms, shown_ms) in enumerate(waves):
        values = panel.values[i]
        counts = (~np.isnan(values)).astype(np.int64)
        end_ms = start_ms + panel.step_ms
        told = scorer.judge(start_ms, end_ms, rows, counts, {"value": values}, shown_ms - start_ms)
        assert notes.heard is not None
        _keep(out, i, rows, notes.heard, slice(None))
        for row in _opened(told):
            out.opened[i, row] = True
    return out


def judge_apart(kind: Kind, series: Sequence[tuple[Ints, Floats, int]]) -> list[Judged]:
    """Series with a time axis each, given as (starts, values, size of a window).

    Those that have a window at the same time are judged together, as a rule would.
    """
    outs = [_room((len(times_ms), 1)) for times_ms, _, _ in series]
    scorer, notes = _scorer(kind, len(series), np.nan)
    for start_ms, step_ms, rows, at in _waves(series):
        values = np.array([series[row][1][i] for row, i in zip(rows, at, strict=True)])
        counts = (~np.isnan(values)).astype(np.int64)
        chosen = np.array(rows, dtype=np.intp)
        told = scorer.judge(start_ms, start_ms + step_ms, chosen, counts, {"value": values})
        opened = _opened(told)
        assert notes.heard is not None
        for j, (row, i) in enumerate(zip(rows, at, strict=True)):
            _keep(outs[row], i, 0, notes.heard, j)
            outs[row].opened[i, 0] = row in opened
    return outs


def _waves(
    series: Sequence[tuple[Ints, Floats, int]],
) -> Iterator[tuple[int, int, list[int], list[int]]]:
    """Start, size, series and their windows; a time that comes twice makes two waves."""
    found: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
    for row, (times_ms, _, step_ms) in enumerate(series):
        # Whole weeks change no hour of day or week, so that series of other years go along.
        times_ms = times_ms - (times_ms[0] - MONDAY_MS) // WEEK_MS * WEEK_MS
        latest, again, last = -(2**63), 0, -(2**63)
        for i, time_ms in enumerate(times_ms.tolist()):
            latest = max(latest, time_ms)  # a clock that went back does not take the rule along
            again = again + 1 if latest == last else 0
            last = latest
            rows, at = found.setdefault((latest, again, step_ms), ([], []))
            rows.append(row)
            at.append(i)
    for (start_ms, _, step_ms), (rows, at) in sorted(found.items(), key=lambda item: item[0]):
        yield start_ms, step_ms, rows, at


def _scorer(kind: Kind, n_series: int, empty: float) -> tuple[Scorer, _Notes]:
    detect = DetectSpec(kind.name, kind.kind, "value", dict(kind.options))
    scorer = Scorer([detect], {"value": empty})
    scorer.ensure(n_series)
    return scorer, _Notes(scorer)


def _room(shape: tuple[int, ...]) -> Judged:
    nothing = [np.full(shape, np.nan) for _ in range(4)]
    return Judged(nothing[0], np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), *nothing[1:])


def _opened(told: Sequence[Pending]) -> set[int]:
    return {pending.row for pending in told if pending.state == "opened"}


def _keep(out: Judged, i: int, at: Any, heard: Heard, j: Any) -> None:
    out.scores[i, at] = heard.verdict.score[j]
    out.raised[i, at] = heard.speaks[j]
    out.expected[i, at] = heard.verdict.expected[j]
    out.lower[i, at] = heard.verdict.lower[j]
    out.upper[i, at] = heard.verdict.upper[j]
