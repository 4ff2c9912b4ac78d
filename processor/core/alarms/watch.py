"""One detector on one aggregate of a rule: what it learnt, and its alarms.

Nothing here is done for all series that could be done for those that are open or raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from processor import detectors
from processor.core.alarms import (
    account,
    escalation,
    inputs,
    n_of_m,
    recovery,
    severity,
    wanted,
)
from processor.core.alarms.account import Place, Subject
from processor.core.alarms.alarm import COLUMNS, NEVER_MS, VOLATILE, AlarmState, Pending
from processor.core.alarms.control import Control
from processor.core.columns import Columns
from processor.detectors.base import Detector, Params, Verdict, Wave
from processor.model import Bools, DetectSpec, Floats, Rows


class Heard(NamedTuple):
    """One wave, judged: columns of n."""

    wave: Wave  # as the detector saw it
    verdict: Verdict
    beyond: Bools  # strange, and asked for
    unwanted: Bools  # strange, and not asked for
    speaks: Bools  # enough for an alarm


class Watch:
    """Raises msgspec.ValidationError where the detector does not know its options."""

    def __init__(
        self, spec: DetectSpec, series: str, empties: Mapping[str, float], control: Control
    ):
        self.spec = spec
        self.series = series
        self._empties = empties
        self._control = control
        self.detector: Detector = detectors.get(spec.kind)
        self.params: Params = msgspec.convert(dict(spec.options), self.detector.params)
        self.state = Columns(self.detector.columns(self.params))
        self.alarms = Columns(COLUMNS)
        self._subject = Subject(spec, series, self.detector, self.params, control)

    def judge(self, rows: Rows, wave: Wave, values: Mapping[str, Floats]) -> list[Pending]:
        """One window of the keys `rows`; `values`: float64[n] by aggregate."""
        heard = self.hear(rows, wave, values)
        is_open = self.alarms.arrays["is_open"][rows]
        opens = self._opening(rows, heard, is_open)
        escalates = self._escalating(rows, heard, is_open)
        self._open(rows, opens, heard)
        at = np.flatnonzero(is_open | opens)
        if not len(at):
            return []
        over = self._go_on(rows[at], at, heard)
        self._shut(rows[at[over]], heard.wave)
        return self._pending(rows, at[over | opens[at] | escalates[at]], opens, escalates, heard)

    def hear(self, rows: Rows, wave: Wave, values: Mapping[str, Floats]) -> Heard:
        """Score and learn, and say what would be enough for an alarm."""
        params, alarms = self.params, self.alarms.arrays
        wave = inputs.prepared(params, self.spec, self._empties, wave, values)
        verdict = self.detector.judge(params, self.state.arrays, rows, wave)
        self._control.on_scores(self.series, verdict.score)
        windows = alarms["windows"][rows]
        judged = ~np.isnan(verdict.score)
        alarms["windows"][rows] = windows + judged
        is_warm = windows >= params.warm_up
        unwanted = self._unwanted(verdict, wave)
        breaches = inputs.breaches(params, wave)
        beyond = ((verdict.raised & ~unwanted) | breaches) & is_warm
        speaks = beyond.copy()
        escalates = speaks
        if params.escalation_only:
            scores = np.where(unwanted | ~is_warm, np.where(judged, 0.0, np.nan), verdict.score)
            escalates = escalation.on_scores(alarms, rows, windows, scores) | breaches
            speaks &= escalates
        n, m = params.n_of_m
        if m > 1:
            n_of_m.on_windows(alarms, rows, beyond, judged | breaches, m)
            n_of_m.on_escalations(alarms, rows, escalates & beyond, judged | breaches)
            at = np.flatnonzero(beyond)
            speaks[at] = n_of_m.beyond_of(alarms, rows[at]) >= n
            speaks[at] &= alarms["since_escalation"][rows[at]] < m
        return Heard(wave, verdict, beyond, unwanted, speaks)

    def _unwanted(self, verdict: Verdict, wave: Wave) -> Bools:
        at = np.flatnonzero(verdict.raised)
        unwanted = np.zeros(len(verdict.raised), dtype=np.bool_)
        unwanted[at] = ~wanted.wanted(self.params, verdict, wave.values, at)
        return unwanted

    # ---- what changes ---------------------------------------------------------------------------

    def _opening(self, rows: Rows, heard: Heard, is_open: Bools) -> Bools:
        """Which alarms open now, bool[n]."""
        opens = np.zeros(len(rows), dtype=np.bool_)
        at = np.flatnonzero(heard.speaks & ~is_open)
        if len(at):
            scores, chosen = heard.verdict.score[at], rows[at]
            may = recovery.is_cooled(self.params, self.alarms.arrays, chosen, scores, heard.wave)
            bar = self._control.bar(self.series)
            if bar > 0:
                may &= ~(scores < self.detector.threshold(self.params) + bar)
            opens[at] = may & ~self._suppressed(rows, at, heard)
        return opens

    def _escalating(self, rows: Rows, heard: Heard, is_open: Bools) -> Bools:
        """Which open alarms rise in severity now, bool[n]."""
        rises = np.zeros(len(rows), dtype=np.bool_)
        if not isinstance(self.params.severity, dict):
            return rises
        at = np.flatnonzero(heard.beyond & is_open)
        if len(at):
            levels = self.alarms.arrays["severity"]
            found = severity.levels(self.params, heard.verdict.score[at])
            may = (found > levels[rows[at]]) & ~self._suppressed(rows, at, heard)
            rises[at] = may
            levels[rows[at[may]]] = found[may]
        return rises

    def _suppressed(self, rows: Rows, at: Rows, heard: Heard) -> Bools:
        differences = wanted.difference(heard.verdict, heard.wave.values, at)
        return self._control.suppressed(self.series, rows[at], differences, heard.wave)

    def _open(self, rows: Rows, opens: Bools, heard: Heard) -> None:
        """Fresh alarms; one about several windows in a row is told at the end, but began before."""
        chosen = rows[opens]
        if not len(chosen):
            return
        wave, verdict, alarms = heard.wave, heard.verdict, self.alarms.arrays
        values = wave.values[opens]
        size_ms = wave.end_ms - wave.start_ms
        alarms["is_open"][chosen] = True
        alarms["is_above"][chosen] = (values > verdict.expected[opens]) | (
            values > verdict.upper[opens]  # where there is a bound and no expectation
        )
        alarms["opened_ms"][chosen] = wave.start_ms
        run = np.maximum(verdict.run[opens], 1)
        alarms["began_ms"][chosen] = wave.start_ms - (run - 1) * size_ms
        alarms["severity"][chosen] = severity.levels(self.params, verdict.score[opens])
        alarms["calm"][chosen] = 0
        alarms["worst"][chosen] = np.nan
        alarms["worst_score"][chosen] = -np.inf

    def _go_on(self, rows: Rows, at: Rows, heard: Heard) -> Bools:
        """Note a window of open alarms; which are over."""
        verdict, beyond, unwanted = heard.verdict, heard.beyond[at], heard.unwanted[at]
        scores = np.where(unwanted, 0.0, verdict.score[at])
        recovery.note_worst(self.alarms.arrays, rows, heard.wave.values[at], scores)
        calm = (verdict.calm[at] | unwanted) & ~beyond
        return recovery.on_windows(self.params, self.alarms.arrays, rows, calm, scores, heard.wave)

    def _shut(self, rows: Rows, wave: Wave) -> None:
        self.alarms.arrays["is_open"][rows] = False
        self.alarms.arrays["shut_ms"][rows] = wave.end_ms
        n_of_m.forget(self.alarms.arrays, rows)

    def pass_over(self, rows: Rows) -> None:
        """A window that nobody is to look at."""
        pause = getattr(self.detector, "pause", None)
        if pause is not None:
            pause(self.params, self.state.arrays, rows)

    def forget_volatile(self, rows: Rows) -> None:
        """The options have changed: what told of the former ones starts anew for these keys."""
        for table, names in ((self.state, self.params.volatile), (self.alarms, VOLATILE)):
            for column in table.specs:
                if column.name in names:
                    table.arrays[column.name][rows] = column.fill

    def shut(self, rows: Rows, *, is_gap: bool) -> None:
        """See `Scorer.shut`."""
        self.alarms.arrays["is_open"][rows] = False
        self.alarms.arrays["shut_ms"][rows] = NEVER_MS
        if is_gap:
            self.forget_volatile(rows)
            for column in self.state.specs:
                if column.name in self.params.passing:
                    self.state.arrays[column.name][rows] = column.fill

    # ---- what is told ---------------------------------------------------------------------------

    def _pending(
        self, rows: Rows, at: Rows, opens: Bools, escalates: Bools, heard: Heard
    ) -> list[Pending]:
        """Of the places `at` of a wave."""
        out = []
        for i, row in zip(at.tolist(), rows[at].tolist(), strict=True):
            state: AlarmState = (
                "opened" if opens[i] else "escalated" if escalates[i] else "resolved"
            )
            place = Place(row, i, self.alarms.arrays, heard.wave, heard.verdict)
            make = partial(account.told, self._subject, state, place)
            out.append(Pending(row, make, state, self.series))
        return out
