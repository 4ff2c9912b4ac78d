"""Scoring: runs a rule's detectors over closed windows and tells when an alarm opens or resolves.

An alarm is open or not, for each series (a key's row) and detector:

    shut ── raised ──────────────────────────────→ open     Alarm "opened"
    open ── calm, `recover_after` times in a row ─→ shut    Alarm "resolved"

While open, a further raise is not told again and starts recovery anew. A window that could not be
judged neither counts as calm nor breaks a row of calm ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from processor import detectors
from processor.core.columns import Columns
from processor.detectors.base import Detector, Params, Verdict, Wave, duration
from processor.model import Bools, Column, DetectSpec, Floats, Ints, Rows

_ALARM_COLUMNS = (
    Column("is_open", "?"),
    Column("is_above", "?"),
    Column("opened_ms", "<i8"),  # start of the window that raised it
    Column("began_ms", "<i8"),  # start of the row of windows that led to it
    Column("calm", "<u4"),  # calm windows in a row
    Column("calm_since_ms", "<i8"),  # start of the first of them
    Column("worst", "<f8"),  # value of the window with the highest score
    Column("worst_score", "<f8"),
)


class Alarm(Struct, frozen=True):
    """What a detector says of one series; figures are None where it can't say."""

    row: int
    detect: DetectSpec
    state: Literal["opened", "resolved"]
    value: float | None  # of this window, as are expected value, band and score
    expected: float | None
    lower: float | None
    upper: float | None
    score: float | None
    threshold: float | None
    direction: Literal["above", "below"]  # of what opened it
    severity: str
    opened_ms: int  # start of the window that opened it
    sentence: str


class Pending(NamedTuple):
    """An alarm that is certain, but not yet put into words: that takes a hundred times as long,
    and when everything goes silent at once, there is one for each key."""

    row: int
    make: Callable[[], Alarm]


class Scorer:
    """All detectors of one rule, over columns with a row a key."""

    def __init__(
        self,
        detects: Sequence[DetectSpec],
        empties: Mapping[str, float],
        series: Sequence[str] | None = None,
    ):
        """`empties`: by aggregate, the value of a window without records; NaN for none. `series`:
        what each detector's columns are called in a snapshot; by their order where it is None.

        Raises msgspec.ValidationError where a detector does not know its options.
        """
        self._watches = tuple(_Watch(spec, empties[spec.aggregate]) for spec in detects)
        self._series = [str(i) for i in range(len(detects))] if series is None else series

    def __repr__(self) -> str:
        watches = ", ".join(
            f"{watch.spec.name} on {watch.spec.aggregate}" for watch in self._watches
        )
        return f"<Scorer {watches or 'without detectors'}, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for table in self._tables().values())

    def judge(
        self,
        start_ms: int,
        end_ms: int,
        rows: Rows,
        counts: Ints,
        values: Mapping[str, Floats],
        shift_ms: int = 0,
    ) -> list[Pending]:
        """Judge the window `[start_ms, end_ms)` of the keys `rows`; windows come in order of time.

        `rows`: intp[n], each once and below what was ensured; `counts`: int64[n], 0 where the
        window is missing; `values`: float64[n] by aggregate, NaN where there is none. `shift_ms` is
        what the rule's time zone adds to UTC at `start_ms`. Alarms come in the order of the
        detectors, then of `rows`; they are to be made out before the next window is judged.
        """
        out: list[Pending] = []
        for watch in self._watches:
            filled = np.where(counts == 0, watch.empty, values[watch.spec.aggregate])
            wave = Wave(start_ms, end_ms, start_ms + shift_ms, filled, counts)
            out += watch.judge(rows, wave)
        return out

    def ensure(self, n_keys: int) -> None:
        """Have rows for at least so many keys."""
        for table in self._tables().values():
            table.ensure(n_keys)

    def is_open(self, rows: Rows) -> Bools:
        """Which of these keys have an alarm that is open."""
        found = np.zeros(len(rows), dtype=np.bool_)
        for watch in self._watches:
            found |= watch.alarms.arrays["is_open"][rows]
        return found

    def reset(self, rows: Rows) -> None:
        """Forget these keys: their rows are as new."""
        for table in self._tables().values():
            table.reset(rows)

    def take(self, rows: Rows) -> dict[str, bytes]:
        """All that is known of these keys."""
        return _prefixed({prefix: t.take(rows) for prefix, t in self._tables().items()})

    def put(self, rows: Rows, saved: Mapping[str, bytes], chosen: Bools | None = None) -> None:
        """The inverse of `take`, of all saved rows or the `chosen`; raises as `Columns.put`."""
        for table, columns in self._columns_of(saved):
            table.put(rows, columns, chosen)

    def snapshot(self, n: int) -> dict[str, bytes]:
        """The first n rows, as views of live memory: encode them before anything changes."""
        return _prefixed({prefix: t.snapshot(n) for prefix, t in self._tables().items()})

    def restore(self, saved: Mapping[str, bytes], n: int) -> None:
        """The inverse of `snapshot`; raises as `put` does."""
        for _ in self.restoring(saved, n):
            pass

    def restoring(self, saved: Mapping[str, bytes], n: int) -> Iterator[None]:
        """`restore` in turns of a column; to be taken to the end."""
        for table, columns in self._columns_of(saved):
            yield from table.restoring(columns, n)

    def _columns_of(self, saved: Mapping[str, bytes]) -> list[tuple[Columns, dict[str, bytes]]]:
        """What was saved, by table."""
        tables = self._tables()
        names = {f"{prefix}{spec.name}" for prefix, t in tables.items() for spec in t.specs}
        if names != saved.keys():
            raise ValueError(f"columns {sorted(saved)}, expected {sorted(names)}")
        return [
            (table, {spec.name: saved[f"{prefix}{spec.name}"] for spec in table.specs})
            for prefix, table in tables.items()
        ]

    def forget_volatile(self, rows: Rows) -> None:
        """The options have changed: what told of the former ones starts anew for these keys."""
        for watch in self._watches:
            for column in watch.state.specs:
                if column.name in watch.params.volatile:
                    watch.state.arrays[column.name][rows] = column.fill

    def _tables(self) -> dict[str, Columns]:
        """All memory, by the prefix of its names in a snapshot."""
        tables: dict[str, Columns] = {}
        for name, watch in zip(self._series, self._watches, strict=True):
            tables[f"{name}.state."] = watch.state
            tables[f"{name}.alarm."] = watch.alarms
        return tables


class _Watch:
    """One detector on one aggregate: what it learnt, and its alarms."""

    def __init__(self, spec: DetectSpec, empty: float):
        self.spec = spec
        self.empty = empty
        self.detector: Detector = detectors.get(spec.kind)
        self.params: Params = msgspec.convert(dict(spec.options), self.detector.params)
        self.state = Columns(self.detector.columns(self.params))
        self.alarms = Columns(_ALARM_COLUMNS)

    def judge(self, rows: Rows, wave: Wave) -> list[Pending]:
        verdict = self.detector.judge(self.params, self.state.arrays, rows, wave)
        is_open = self.alarms.arrays["is_open"][rows]
        opens = verdict.raised & ~is_open
        self._open(rows, opens, verdict, wave)
        at = np.flatnonzero(is_open | opens)
        if not len(at):
            return []
        self._note_worst(rows[at], wave.values[at], verdict.score[at])
        self._note_calm(rows[at], verdict, at, wave)
        resolves = self.alarms.arrays["calm"][rows[at]] >= self.params.recover_after
        self.alarms.arrays["is_open"][rows[at[resolves]]] = False
        chosen = at[opens[at] | resolves]
        told = zip(chosen.tolist(), rows[chosen].tolist(), opens[chosen].tolist(), strict=True)
        return [
            Pending(row, partial(self._opened if is_new else self._resolved, row, i, verdict, wave))
            for i, row, is_new in told
        ]

    def _open(self, rows: Rows, opens: Bools, verdict: Verdict, wave: Wave) -> None:
        """Fresh alarms; one about several windows in a row is told at the end, but began before."""
        chosen, values = rows[opens], wave.values[opens]
        if not len(chosen):
            return
        alarms = self.alarms.arrays
        size_ms = wave.end_ms - wave.start_ms
        alarms["is_open"][chosen] = True
        alarms["is_above"][chosen] = (values > verdict.expected[opens]) | (
            values > verdict.upper[opens]  # where there is a bound and no expectation
        )
        alarms["opened_ms"][chosen] = wave.start_ms
        alarms["began_ms"][chosen] = wave.start_ms - (verdict.run[opens] - 1) * size_ms
        alarms["calm"][chosen] = 0
        alarms["worst"][chosen] = np.nan
        alarms["worst_score"][chosen] = -np.inf

    def _note_worst(self, rows: Rows, values: Floats, scores: Floats) -> None:
        alarms = self.alarms.arrays
        is_worse = scores > alarms["worst_score"][rows]  # never where the score is NaN
        alarms["worst"][rows[is_worse]] = values[is_worse]
        alarms["worst_score"][rows[is_worse]] = scores[is_worse]

    def _note_calm(self, rows: Rows, verdict: Verdict, at: Rows, wave: Wave) -> None:
        alarms = self.alarms.arrays
        before = alarms["calm"][rows]
        is_calm = verdict.calm[at] & ~verdict.raised[at]
        was_judged = ~np.isnan(verdict.score[at])
        alarms["calm"][rows] = np.where(
            is_calm, before + np.uint32(1), np.where(was_judged, np.uint32(0), before)
        )
        alarms["calm_since_ms"][rows[is_calm & (before == 0)]] = wave.start_ms

    def _opened(self, row: int, i: int, verdict: Verdict, wave: Wave) -> Alarm:
        sentence = self.detector.sentence(self.params, self.spec.aggregate, verdict, i, wave)
        return self._alarm("opened", row, i, verdict, wave, sentence)

    def _resolved(self, row: int, i: int, verdict: Verdict, wave: Wave) -> Alarm:
        alarms = self.alarms.arrays
        lasted = duration(int(alarms["calm_since_ms"][row] - alarms["began_ms"][row]))
        worst = float(alarms["worst"][row])
        sentence = self.detector.farewell(self.spec.aggregate, lasted, worst)
        return self._alarm("resolved", row, i, verdict, wave, sentence)

    def _alarm(
        self,
        state: Literal["opened", "resolved"],
        row: int,
        i: int,
        verdict: Verdict,
        wave: Wave,
        sentence: str,
    ) -> Alarm:
        alarms = self.alarms.arrays
        value = float(wave.values[i])
        return Alarm(
            row=row,
            detect=self.spec,
            state=state,
            value=value if math.isfinite(value) else None,
            expected=_rounded(verdict.expected[i]),
            lower=_rounded(verdict.lower[i]),
            upper=_rounded(verdict.upper[i]),
            score=_rounded(verdict.score[i]),
            threshold=_rounded(self.detector.threshold(self.params)),
            direction="above" if alarms["is_above"][row] else "below",
            severity=self.params.severity,
            opened_ms=int(alarms["opened_ms"][row]),
            sentence=sentence,
        )


def _prefixed(tables: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    return {f"{prefix}{name}": of for prefix, table in tables.items() for name, of in table.items()}


def _rounded(number: float) -> float | None:
    """Six digits: what a person can use, and the last bits are no two processors' business."""
    return float(f"{number:.6g}") if math.isfinite(number) else None
