"""A rule's detectors over its closed windows: a table a detector, a row a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from processor.core.alarms.alarm import Pending
from processor.core.alarms.control import Control, Uncontrolled
from processor.core.alarms.watch import Watch
from processor.core.columns import Columns
from processor.detectors.base import Wave
from processor.model import Bools, DetectSpec, Floats, Ints, Rows


class Scorer:
    """All detectors of one rule, over columns with a row a key."""

    def __init__(
        self,
        detects: Sequence[DetectSpec],
        empties: Mapping[str, float],
        series: Sequence[str] | None = None,
        control: Control | None = None,
    ):
        """`empties`: by aggregate, the value of a window without records; NaN for none. `series`:
        what each detector's columns are called in a snapshot; by their order where it is None.

        Raises msgspec.ValidationError where a detector does not know its options.
        """
        names = [str(i) for i in range(len(detects))] if series is None else series
        self._watches = tuple(
            Watch(spec, name, empties, control or Uncontrolled())
            for spec, name in zip(detects, names, strict=True)
        )

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
            value = values[watch.spec.aggregate]
            wave = Wave(start_ms, end_ms, start_ms + shift_ms, value, counts)
            out += watch.judge(rows, wave, values)
        return out

    def pass_over(self, rows: Rows) -> None:
        """A window of the keys `rows` is neither scored nor learnt, and no silence either."""
        for watch in self._watches:
            watch.pass_over(rows)

    @property
    def alarms(self) -> dict[str, Columns]:
        """What is kept of alarms, by what a detector's columns are called."""
        return {watch.series: watch.alarms for watch in self._watches}

    def knows(self, event: int) -> bool:
        """Whether an event is about one of these series, by its `instructions.brief`."""
        return any(len(watch.known(event)) for watch in self._watches)

    def expect(self, event: int) -> None:
        """What that event told was to be expected: see `Watch.expect`."""
        for watch in self._watches:
            watch.expect(watch.known(event))

    def forget_expected(self, event: int) -> None:
        """Accept nothing of that event's series any more."""
        for watch in self._watches:
            watch.forget_expected(watch.known(event))

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
            watch.forget_volatile(rows)

    def shut(self, rows: Rows, *, is_gap: bool) -> None:
        """Alarms of these keys were told to nobody: none is open, none counts for a cool-down.
        `is_gap`: their next window does not follow their last one."""
        for watch in self._watches:
            watch.shut(rows, is_gap=is_gap)

    def _tables(self) -> dict[str, Columns]:
        """All memory, by the prefix of its names in a snapshot."""
        tables: dict[str, Columns] = {}
        for watch in self._watches:
            tables[f"{watch.series}.state."] = watch.state
            tables[f"{watch.series}.alarm."] = watch.alarms
        return tables


def _prefixed(tables: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    return {f"{prefix}{name}": of for prefix, table in tables.items() for name, of in table.items()}
