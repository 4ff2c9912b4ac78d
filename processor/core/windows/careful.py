"""Windows that tell more than once: early panes, panes on time, late ones, and a last word.

What a record or the watermark makes due is told before the next record is counted, so a page is
counted in stretches. Within a stretch nothing becomes due but at its end: the watermark passes no
moment at which a window has to tell something, and no window gets a record after the one that may
make it tell.

    record        counted in its windows
                  early    `count` records since the last pane; or `when` is true, once a window
                  late     the first record after the end of a window that had none, at once;
                           then `late_count` records since the last pane; named early where the
                           window is a session that they made end after the watermark
    watermark     early    a moment of the grid of `early_every`, where something new came
                  on_time  the window's end
                  final    past the end and the lateness, and for a session past the gap, within
                           which a record may still join it: where late panes could come
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from processor.core.figures import Readings
from processor.core.windows import ledger as ledger_
from processor.core.windows.base import FINAL, NEVER_MS, NO_SAMPLE, ON_TIME, Batch, Moment, Told
from processor.core.windows.finding import Finder, Pairs
from processor.core.windows.ledger import OPEN, SHUT, TOLD, Ledger
from processor.core.windows.table import WindowTable
from processor.model import AggregateSpec, Bools, Ints, PanesSpec, Rows

# Of a record and a window, counted in one go: some 20 MB of arrays.
PAIRS_MAX = 200_000

# Which of n results a predicate takes: their figures by name → bool[n].
Predicate = Callable[[Mapping[str, Any], int], Bools]


class Policy(Struct, frozen=True):
    """When windows tell; `every_offset_ms`: where the grid of early panes begins."""

    panes: PanesSpec
    lateness_ms: int = 0
    every_offset_ms: int = 0

    @property
    def judges_records(self) -> bool:
        return self.panes.early_count is not None or self.panes.early_when is not None


class Saved(Struct, frozen=True, tag="careful"):
    """A snapshot."""

    rows: ledger_.Saved
    passed_ms: Moment


class Careful:
    """See `base.Windows`."""

    def __init__(
        self,
        finder: Finder,
        aggregates: Sequence[AggregateSpec],
        policy: Policy,
        when: Predicate | None = None,
    ):
        self.finder = finder
        self.policy = policy
        self._aggregates = aggregates
        self._ledger = Ledger(aggregates)
        self._when = when
        self._passed_ms = NEVER_MS
        self.late_at: list[Rows] = []

    def __len__(self) -> int:
        return len(self._ledger.rows(OPEN, TOLD))

    def __repr__(self) -> str:
        return f"<Careful {self._ledger!r}>"

    @property
    def _open_ms(self) -> int:
        """How long after its end a window may still meet a record that is not late by itself."""
        return self.policy.lateness_ms + self.finder.kept_ms()

    @property
    def dropped(self) -> int:
        return self.finder.dropped

    @dropped.setter
    def dropped(self, n: int) -> None:
        self.finder.dropped = n

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        return self.finder.late(times, watermarks, self.policy.lateness_ms)

    def first_ends(self, times: Ints) -> Ints:
        return self.finder.first_ends(times)

    def take(self, batch: Batch | None, after: Ints, watermark_ms: int) -> Iterator[Told]:
        counted = 0
        for place in self._places(batch, after, watermark_ms):
            if batch is not None:
                stop = int(np.searchsorted(batch.at, place, side="right"))
                yield from self._count(batch.part(slice(counted, stop)))
                counted = stop
            if 0 < place <= len(after):  # what the page's records before moved, as in a page apart
                self._passed_ms = max(self._passed_ms, int(after[place - 1]))
            passed_ms = int(after[place]) if place < len(after) else watermark_ms
            yield from self._pass(passed_ms, place)
        if batch is not None:
            yield from self._count(batch.part(slice(counted, None)))
        self._passed_ms = max(self._passed_ms, watermark_ms)
        self._sweep()

    def is_due(self, watermark_ms: int) -> bool:
        if self._crosses(self._passed_ms, watermark_ms) and self._with_news(watermark_ms).any():
            return True
        ends = self._ledger.column("end_ms")
        finals = ends[self._ledger.rows(TOLD)] + self._open_ms
        return bool(
            (ends[self._ledger.rows(OPEN)] <= watermark_ms).any() or (finals < watermark_ms).any()
        )

    def finish(self, only: Bools) -> Iterator[Told]:
        ledger = self._ledger
        rows = ledger.all[only[ledger.column("key")[ledger.all]]]
        names = np.where(ledger.column("state")[rows] == OPEN, ON_TIME, FINAL)
        speaks = ledger.column("state")[rows] != SHUT
        speaks &= (names == FINAL) | self._has_word(rows)
        told = rows[speaks]
        is_final = np.ones(len(told), dtype=np.bool_)
        yield from self._telling(told, names[speaks].tolist(), is_final, 0)
        self._free(rows)

    def holds(self, n_keys: int) -> Bools:
        """Which of n keys have a window, or had one that may still refuse a record."""
        held = np.zeros(n_keys, dtype=np.bool_)
        held[self._ledger.column("key")[self._ledger.all]] = True
        return held

    # ---- when something may be due ------------------------------------------------------------

    def _places(self, batch: Batch | None, after: Ints, watermark_ms: int) -> list[int]:
        """Places in the page after which the watermark may make something due, ascending."""
        if not len(after):
            return [0]
        ends = self._ledger.column("end_ms")[self._ledger.rows(OPEN, TOLD)]
        if batch is not None:
            ends = np.concatenate([ends, self.finder.ends(batch)])
        moments = np.concatenate([ends, ends + self._open_ms + 1])
        moments = np.unique(moments[(moments > self._passed_ms) & (moments <= watermark_ms)])
        places = np.searchsorted(after, moments)
        places = np.concatenate([places, self._crossings(after, watermark_ms)])
        found: list[int] = np.unique(places).tolist()
        return found

    def _crossings(self, after: Ints, watermark_ms: int) -> Rows:
        """Places where the watermark, up to there, passes the grid of early panes."""
        every_ms = self.policy.panes.early_every_ms
        if every_ms is None:
            return np.zeros(0, dtype=np.intp)
        before = np.concatenate(([self._passed_ms], after[:-1]))
        offset_ms = self.policy.every_offset_ms
        steps = (after - offset_ms) // every_ms > (before - offset_ms) // every_ms
        return np.flatnonzero(steps & (before > NEVER_MS) & (after <= watermark_ms))

    def _crosses(self, from_ms: int, to_ms: int) -> bool:
        every_ms, offset_ms = self.policy.panes.early_every_ms, self.policy.every_offset_ms
        if every_ms is None or from_ms == NEVER_MS:  # no moment has passed before there was one
            return False
        return (to_ms - offset_ms) // every_ms > (from_ms - offset_ms) // every_ms

    # ---- counting ---------------------------------------------------------------------------

    def _count(self, batch: Batch) -> Iterator[Told]:
        """Records between which the watermark makes nothing due."""
        step = max(1, PAIRS_MAX // self.finder.windows_max)
        for start in range(0, len(batch.keys), step):
            part = batch.part(slice(start, start + step))
            for stretch in self._stretches(part):
                yield from self._count_stretch(part.part(stretch))

    def _stretches(self, batch: Batch) -> Iterator[slice]:
        """Cut so that no window gets a record after one of another place that may make it tell.

        Cut by key, which is more than by window, and needs no window to be there.
        """
        tells = batch.judged >= self.finder.first_ends(batch.times)
        if self.policy.judges_records:
            tells[:] = True
        elif self.finder.kept_ms() and self.policy.panes.late_count is not None:
            # A session that was told and grows tells by its count, whatever the watermark.
            told = self._ledger.column("key")[self._ledger.rows(TOLD)]
            tells |= np.isin(batch.keys, np.concatenate((told, batch.keys[tells])))
        if not tells.any():
            yield slice(0, len(batch.keys))
            return
        start, told_at = 0, dict[int, int]()
        rows = zip(batch.keys.tolist(), batch.at.tolist(), tells.tolist(), strict=True)
        for i, (key, place, may_tell) in enumerate(rows):
            if told_at.get(key, place) != place:
                yield slice(start, i)
                start, told_at = i, {}
            if may_tell:
                told_at[key] = place
        yield slice(start, len(batch.keys))

    def _count_stretch(self, batch: Batch) -> Iterator[Told]:
        ledger = self._ledger
        pairs = self.finder.find(ledger, batch, self.policy.lateness_ms)
        is_live = ledger.column("state")[pairs.rows] != SHUT
        live = Pairs(pairs.records[is_live], pairs.rows[is_live])
        tardy = np.delete(batch.at, live.records)
        self.finder.dropped += len(tardy)
        self.late_at += [tardy] if len(tardy) else []
        if not len(live.rows):
            return
        for name in ("n", "since"):
            np.add.at(ledger.column(name), live.rows, 1)
        self._note_told(live.rows, 1)
        is_whole = np.array_equal(live.records, np.arange(len(batch.keys)))
        readings = batch.readings if is_whole else batch.readings.part(live.records)
        ledger.figures.update(live.rows, readings)
        self._note_samples(batch, live)
        yield from self._judge(batch, live)

    def merge(self, parts: WindowTable, judged_ms: int) -> Iterator[Told]:
        """See `base.Windows`."""
        ledger = self._ledger
        slots, ordinals = parts.all_slots()
        n = parts.figures.arrays["n"][slots]
        batch = _as_records(parts, slots, ordinals, judged_ms)
        pairs = self.finder.find(ledger, batch, self.policy.lateness_ms)
        is_live = ledger.column("state")[pairs.rows] != SHUT
        live = Pairs(pairs.records[is_live], pairs.rows[is_live])
        is_lost = np.ones(len(slots), dtype=np.bool_)
        is_lost[live.records] = False
        self.finder.dropped += int(n[is_lost].sum())
        for name in ("n", "since"):
            np.add.at(ledger.column(name), live.rows, n[live.records])
        self._note_told(live.rows, n[live.records])
        if not len(live.rows):
            return
        for some in _each_once(live, ordinals):
            ledger.figures.merge(live.rows[some], parts.figures, slots[live.records[some]])
        self._note_samples(batch, live)
        yield from self._judge(batch, live)

    def _note_told(self, rows: Rows, n: int | Ints) -> None:
        """Count records of windows that were told on time."""
        ledger = self._ledger
        is_told = ledger.column("state")[rows] == TOLD
        np.add.at(ledger.column("since_told"), rows, n * is_told)

    def _note_samples(self, batch: Batch, live: Pairs) -> None:
        """A window's sample is of its oldest record, of several the first that came."""
        if batch.sample_of is None:
            return
        times = batch.times[live.records]
        order = np.lexsort((live.records, times, live.rows))
        rows, firsts = np.unique(live.rows[order], return_index=True)
        at = order[firsts]
        sample_ms = self._ledger.column("sample_ms")
        older = times[at] < sample_ms[rows]
        for row, i in zip(rows[older].tolist(), at[older].tolist(), strict=True):
            sample_ms[row] = times[i]
            self._ledger.samples[row] = batch.sample_of(int(live.records[i]))

    def _judge(self, batch: Batch, live: Pairs) -> Iterator[Told]:
        """Tell what the records made due: each window by its last record."""
        ledger, panes = self._ledger, self.policy.panes
        backwards = live.rows[::-1]
        rows, firsts = np.unique(backwards, return_index=True)
        records = live.records[::-1][firsts]
        is_past = ledger.column("end_ms")[rows] <= batch.judged[records]
        # A session that was told, and has grown beyond the watermark, stays told: no second pane
        # on time.
        is_open = ledger.column("state")[rows] == OPEN
        is_early = is_open & ~is_past
        is_due = is_open & is_past
        if panes.late_count is not None:
            is_due |= ~is_open & (ledger.column("since_told")[rows] >= panes.late_count)
        if panes.early_count is not None:
            is_due |= is_early & (ledger.column("since")[rows] >= panes.early_count)
        if self._when is not None:
            is_due |= self._matches(rows, is_early)
        rows, places, is_past = rows[is_due], batch.at[records[is_due]], is_past[is_due]
        for place in np.unique(places).tolist():
            these = places == place
            yield from self._tell_judged(rows[these], is_past[these], place)

    def _tell_judged(self, rows: Rows, is_past: Bools, place: int) -> Iterator[Told]:
        ledger = self._ledger
        kinds = np.where(is_past, "late", "early")
        counts = np.where(is_past, ledger.column("late")[rows], ledger.column("early")[rows])
        names = [f"{kind}:{k}" for kind, k in zip(kinds.tolist(), counts.tolist(), strict=True)]
        is_final = is_past & (self.policy.panes.late_count is None)
        yield from self._telling(rows, names, is_final, place)
        ledger.column("late")[rows[is_past]] += 1
        ledger.column("early")[rows[~is_past]] += 1
        self._set_told(rows[is_past])

    def _matches(self, rows: Rows, may_match: Bools) -> Bools:
        """For which rows the predicate is true for the first time."""
        assert self._when is not None
        ledger = self._ledger
        is_matched = ledger.column("is_matched")
        found: Bools = may_match & ~is_matched[rows]
        asked = rows[found]
        if len(asked):
            lengths = ledger.column("end_ms")[asked] - ledger.column("start_ms")[asked]
            found[np.flatnonzero(found)] = self._when(ledger.values(asked, lengths), len(asked))
            is_matched[rows[found]] = True
        return found

    # ---- the watermark ----------------------------------------------------------------------

    def _pass(self, watermark_ms: int, place: int) -> Iterator[Told]:
        """Tell what is due when the watermark gets there, in order of the windows' ends."""
        ledger, open_ms = self._ledger, self._open_ms
        if watermark_ms <= self._passed_ms:
            return
        crossed = self._crosses(self._passed_ms, watermark_ms)
        self._passed_ms = watermark_ms
        told = ledger.rows(TOLD)
        told = told[ledger.column("end_ms")[told] + open_ms < watermark_ms]
        ended = ledger.rows(OPEN)
        ended = ended[ledger.column("end_ms")[ended] <= watermark_ms]
        yield from self._telling(told, [FINAL] * len(told), np.ones(len(told), np.bool_), place)
        self._shut(told)
        can_be_late = self.policy.panes.late_count is not None
        past = ledger.column("end_ms")[ended] + open_ms < watermark_ms
        has_word = self._has_word(ended)
        finals = past if can_be_late else np.ones(len(ended), dtype=np.bool_)
        yield from self._telling(
            ended[has_word], [ON_TIME] * int(has_word.sum()), finals[has_word], place, on_time=True
        )
        self._set_told(ended[~finals])
        self._shut(ended[finals])
        if crossed:
            rows = ledger.rows(OPEN)
            yield from self._tell_early(rows[self._with_news(watermark_ms)], place)

    def _with_news(self, watermark_ms: int) -> Bools:
        """Which open rows have something new, and are not due by themselves at that watermark."""
        rows = self._ledger.rows(OPEN)
        has_news: Bools = self._ledger.column("since")[rows] > 0
        has_news &= self._ledger.column("end_ms")[rows] > watermark_ms
        return has_news

    def _tell_early(self, rows: Rows, place: int) -> Iterator[Told]:
        early = self._ledger.column("early")
        names = [f"early:{k}" for k in early[rows].tolist()]
        yield from self._telling(rows, names, np.zeros(len(rows), dtype=np.bool_), place)
        self._ledger.column("early")[rows] += 1

    def _has_word(self, rows: Rows) -> Bools:
        """Which rows have a pane on time: all but those that told everything, piece by piece."""
        panes = self.policy.panes
        if panes.emit_empty or not panes.is_discarding:
            return np.ones(len(rows), dtype=np.bool_)
        has_word: Bools = self._ledger.column("since")[rows] > 0
        return has_word

    # ---- telling ----------------------------------------------------------------------------

    def _telling(
        self,
        rows: Rows,
        names: Sequence[str],
        is_final: Bools,
        place: int,
        *,
        on_time: bool = False,
    ) -> Iterator[Told]:
        """Panes of rows, in order of their ends; what they told is no news any more."""
        ledger = self._ledger
        ends = ledger.column("end_ms")[rows]
        for end_ms in np.unique(ends).tolist():
            these = np.flatnonzero(ends == end_ms)
            panes = ledger.panes(rows[these], [names[i] for i in these.tolist()], is_final[these])
            yield Told(place, end_ms, on_time, panes)
        for name in ("since", "since_told"):
            ledger.column(name)[rows] = 0
        if self.policy.panes.is_discarding and len(rows):
            ledger.empty(rows)

    def _set_told(self, rows: Rows) -> None:
        if self.policy.panes.late_count is None:
            self._shut(rows)
        else:
            self._ledger.column("state")[rows] = TOLD

    def _shut(self, rows: Rows) -> None:
        """Told for good: a row stays without its figures for as long as a record may meet it."""
        if len(rows):
            self._ledger.empty(rows)
            self._ledger.column("since")[rows] = 0
            self._ledger.column("state")[rows] = SHUT

    def _sweep(self) -> None:
        """Forget what no record can meet any more."""
        rows = self._ledger.rows(SHUT)
        if len(rows):
            self._free(rows[self._ledger.column("end_ms")[rows] + self._open_ms < self._passed_ms])

    def _free(self, rows: Rows) -> None:
        if len(rows):
            self.finder.forget(self._ledger, rows)
            self._ledger.free(rows)

    # ---- bytes ------------------------------------------------------------------------------

    def fresh(self) -> Careful:
        """Empty ones of the same rule."""
        return Careful(self.finder.fresh(), self._aggregates, self.policy, self._when)

    @property
    def next_end_ms(self) -> int | None:
        """The first end of a window that is to be told; None where there is none."""
        ends = self._ledger.column("end_ms")[self._ledger.rows(OPEN)]
        return int(ends.min()) if len(ends) else None

    def snapshot(self) -> Saved:
        return Saved(self._ledger.snapshot(), self._passed_ms)

    def restore(self, saved: Any, n_keys: int) -> None:
        """Into empty ones; raises ValueError where it is no ledger of n keys."""
        self.adopt(saved, np.arange(n_keys))
        self._passed_ms = saved.passed_ms

    def adopt(self, saved: Any, heirs: Ints) -> None:
        """Take over the windows of the keys that have an heir: its index, -1 for none; int64[n].

        No heir may have windows here yet. Raises ValueError where it is no ledger of n keys.
        """
        if not isinstance(saved, Saved):
            raise ValueError("windows of a rule that told only once")
        self.finder.know(self._ledger, self._ledger.adopt(saved.rows, heirs))


def _as_records(parts: WindowTable, slots: Rows, ordinals: Ints, judged_ms: int) -> Batch:
    """Counted units as if each were a record of its first moment; of one place, so that they are
    judged once."""
    samples = [parts.samples.get(slot, NO_SAMPLE) for slot in slots.tolist()]
    return Batch(
        parts.keys(slots),
        Readings(parts.grid.unit_times(ordinals)),
        np.zeros(len(slots), dtype=np.intp),
        np.full(len(slots), judged_ms),
        samples.__getitem__ if parts.samples else None,
    )


def _each_once(pairs: Pairs, ordinals: Ints) -> Iterator[Rows]:
    """The pairs in parts that have no record and no row twice: by the unit that a record is, and
    by which of its windows the row is."""
    first = np.searchsorted(pairs.records, pairs.records)
    nth = np.arange(len(pairs.records)) - first
    codes = np.stack([ordinals[pairs.records], nth])
    _, which = np.unique(codes, axis=1, return_inverse=True)
    which = which.reshape(-1)
    for part in range(int(which.max(initial=-1)) + 1):
        yield np.flatnonzero(which == part)
