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
    expected,
    hush,
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
from processor.core.instructions import brief
from processor.detectors.base import Detector, Params, Verdict, Wave
from processor.model import Bools, DetectSpec, Floats, Rows

_TOLD = {"opened": 0, "escalated": 1, "resolved": 2}  # places in the column


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
        self._remember_expected(rows, wave)
        heard = self.hear(rows, wave, values)
        is_open = self.alarms.arrays["is_open"][rows]
        opens = self._opening(rows, heard, is_open)
        escalates = self._escalating(rows, heard, is_open)
        self._open(rows, opens, heard)
        at = np.flatnonzero(is_open | opens)
        if not len(at):
            return []
        over = self._go_on(rows[at], at, heard)
        over |= self.alarms.arrays["hushed"][rows[at]] == hush.EXPECTED
        facts = hush.Facts(opens[at], escalates[at], over)
        told = hush.on_windows(
            self._control, self.series, self.alarms.arrays, rows[at], facts, heard.wave
        )
        self._shut(rows[at[over]], heard.wave)
        return self._pending(rows, at, told, heard)

    def hear(self, rows: Rows, wave: Wave, values: Mapping[str, Floats]) -> Heard:
        """Score and learn, and say what would be enough for an alarm."""
        params, alarms = self.params, self.alarms.arrays
        wave = inputs.prepared(params, self.spec, self._empties, wave, values)
        verdict = self.detector.judge(params, self.state.arrays, rows, wave)
        self._control.on_scores(self.series, verdict.score, wave)
        windows = alarms["windows"][rows]
        judged = ~np.isnan(verdict.score)
        alarms["windows"][rows] = windows + judged
        is_warm = windows >= params.warm_up
        unwanted = self._unwanted(rows, verdict, wave)
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

    def _unwanted(self, rows: Rows, verdict: Verdict, wave: Wave) -> Bools:
        at = np.flatnonzero(verdict.raised)
        unwanted = np.zeros(len(verdict.raised), dtype=np.bool_)
        unwanted[at] = ~wanted.wanted(self.params, verdict, wave.values, at)
        away = expected.distances(self.spec.kind, verdict, wave, at)
        accepted = expected.are_accepted(self.alarms.arrays, rows[at], away)
        self._control.on_untold("expected", int((accepted & ~unwanted[at]).sum()))
        unwanted[at] |= accepted
        return unwanted

    # ---- what changes ---------------------------------------------------------------------------

    def _opening(self, rows: Rows, heard: Heard, is_open: Bools) -> Bools:
        """Which alarms open now, bool[n]."""
        opens = np.zeros(len(rows), dtype=np.bool_)
        at = np.flatnonzero(heard.speaks & ~is_open)
        if len(at):
            scores, chosen = heard.verdict.score[at], rows[at]
            may = recovery.is_cooled(self.params, self.alarms.arrays, chosen, scores, heard.wave)
            opens[at] = may
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
            may = found > levels[rows[at]]
            rises[at] = may
            levels[rows[at[may]]] = found[may]
        return rises

    def _open(self, rows: Rows, opens: Bools, heard: Heard) -> None:
        """Fresh alarms; one about several windows in a row is told at the end, but began before."""
        chosen = rows[opens]
        if not len(chosen):
            return
        wave, verdict, alarms = heard.wave, heard.verdict, self.alarms.arrays
        size_ms = wave.end_ms - wave.start_ms
        alarms["is_open"][chosen] = True
        alarms["is_above"][chosen] = (
            wanted.difference(verdict, wave.values, np.flatnonzero(opens)) > 0
        )
        alarms["opened_ms"][chosen] = wave.start_ms
        run = np.maximum(verdict.run[opens], 1)
        alarms["began_ms"][chosen] = wave.start_ms - (run - 1) * size_ms
        alarms["severity"][chosen] = severity.levels(self.params, verdict.score[opens])
        alarms["calm"][chosen] = 0
        alarms["storm"][chosen] = 0
        alarms["worst"][chosen] = np.nan
        alarms["worst_score"][chosen] = -np.inf
        away = expected.distances(self.spec.kind, verdict, wave, np.flatnonzero(opens))
        expected.on_opened(alarms, chosen, away)

    def _go_on(self, rows: Rows, at: Rows, heard: Heard) -> Bools:
        """Note a window of open alarms; which are over."""
        verdict, beyond, unwanted = heard.verdict, heard.beyond[at], heard.unwanted[at]
        scores = np.where(unwanted, 0.0, verdict.score[at])
        recovery.note_worst(self.alarms.arrays, rows, heard.wave.values[at], scores)
        away = expected.distances(self.spec.kind, verdict, heard.wave, at[beyond])
        expected.on_windows(self.alarms.arrays, rows[beyond], away)
        calm = (verdict.calm[at] | unwanted) & ~beyond
        # A missing window that counts as beyond has no score, and starts recovery anew too.
        scores = np.where(beyond & np.isnan(scores), np.inf, scores)
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
        self.alarms.arrays["hushed"][rows] = hush.TOLD
        if is_gap:
            self.forget_volatile(rows)
            for column in self.state.specs:
                if column.name in self.params.passing:
                    self.state.arrays[column.name][rows] = column.fill

    # ---- what people say ------------------------------------------------------------------------

    def known(self, event: int) -> Rows:
        """The series that an event is about, by its `instructions.brief`."""
        alarms = self.alarms.arrays
        is_told = (alarms["told"] == event).any(axis=1) | (alarms["storm"] == event)
        return np.flatnonzero(is_told & (event != 0))  # 0: of none

    def expect(self, rows: Rows) -> None:
        """What the newest alarms of these series told was to be expected: those that are open
        resolve with the next window, and the like opens none."""
        alarms = self.alarms.arrays
        expected.accept(alarms, rows)
        is_untold = alarms["is_open"][rows] & (alarms["hushed"][rows] != hush.TOLD)
        alarms["is_open"][rows[is_untold]] = False  # nobody heard of it, nor will
        alarms["hushed"][rows] = hush.EXPECTED

    def forget_expected(self, rows: Rows) -> None:
        expected.forget(self.alarms.arrays, rows)

    def _remember_expected(self, rows: Rows, wave: Wave) -> None:
        """A detector with a memory takes in what was expected, as of the window that was told."""
        alarms = self.alarms.arrays
        chosen = rows[alarms["hushed"][rows] == hush.EXPECTED]
        expect = getattr(self.detector, "expect", None)
        for row in [] if expect is None else chosen.tolist():
            ago_ms = wave.start_ms - int(alarms["opened_ms"][row])
            was = Wave(
                wave.start_ms - ago_ms,
                wave.end_ms - ago_ms,
                wave.local_ms - ago_ms,
                alarms["worst"][row : row + 1].copy(),
                np.ones(1, dtype=np.int64),
            )
            if np.isfinite(was.values[0]):
                at = np.array([row], dtype=np.intp)
                expect(self.params, self.state.arrays, at, was.values, was)  # type: ignore[misc]
        alarms["hushed"][chosen[~alarms["is_open"][chosen]]] = hush.TOLD

    # ---- what is told ---------------------------------------------------------------------------

    def _pending(self, rows: Rows, at: Rows, told: hush.Heard, heard: Heard) -> list[Pending]:
        """Of the places `at` of a wave."""
        out = []
        for j in np.flatnonzero(told.opened | told.escalated | told.resolved).tolist():
            i, late = int(at[j]), int(told.late[j])
            row = int(rows[i])
            state: AlarmState = (
                "opened" if told.opened[j] else "resolved" if told.resolved[j] else "escalated"
            )
            place = Place(row, i, self.alarms.arrays, heard.wave, heard.verdict, late)
            make = partial(account.told, self._subject, state, place)
            out.append(Pending(row, make, state, self.series, partial(self._note, state, row)))
        return out

    def _note(self, state: AlarmState, row: int, event_id: str) -> None:
        self.alarms.arrays["told"][row, _TOLD[state]] = brief(event_id)
