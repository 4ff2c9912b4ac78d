"""What goes into a rule's windows, and what they tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

import numpy as np
from msgspec import Meta, Struct

from processor.core.figures import Readings
from processor.model import AggregateSpec, Bools, Ints, Rows

if TYPE_CHECKING:
    from processor.core.windows.table import WindowTable

Sample = tuple[str | None, str | None]  # correlation id and traceparent of a window's first record
SampleOf = Callable[[int], Sample]
NO_SAMPLE: Sample = (None, None)

NEVER_MS, FOREVER_MS = -(2**62), 2**62  # before and after all times
Moment = Annotated[int, Meta(ge=NEVER_MS, le=FOREVER_MS)]  # as it stands in a snapshot

ON_TIME = "on_time"
FINAL = "final"


class Batch(NamedTuple):
    """n records of a page that a rule counts, in their order."""

    keys: Rows  # intp[n]
    readings: Readings
    at: Rows  # intp[n], ascending: each one's place in its page; those of one place are judged once
    judged: Ints  # int64[n], ascending for a key: the watermark by which each is judged
    sample_of: SampleOf | None = None

    @property
    def times(self) -> Ints:
        return self.readings.times

    def part(self, where: slice | Rows) -> Batch:
        return Batch(
            self.keys[where],
            self.readings.part(where),
            self.at[where],
            self.judged[where],
            self._samples(where),
        )

    def _samples(self, where: slice | Rows) -> SampleOf | None:
        sample_of = self.sample_of
        if sample_of is None:
            return None
        if isinstance(where, slice):
            start = where.start or 0
            return lambda i: sample_of(start + i)
        rows = where
        return lambda i: sample_of(int(rows[i]))


NOBODY = np.zeros(0, dtype=np.intp)


class Panes(Struct, frozen=True):
    """What n windows of one end tell; a key is there once."""

    keys: Rows  # intp[n], ascending
    starts: Ints  # int64[n]
    counts: Ints  # int64[n]: records that the figures are of
    values: Mapping[str, Any]  # figure → int64[n], float64[n] or object[n]
    samples: Sequence[Sample]
    names: Sequence[str]  # `early:k`, `on_time`, `late:k` or `final`
    finals: Sequence[bool]  # whether nothing more will be told of the window

    def __len__(self) -> int:
        return len(self.keys)


def no_panes(aggregates: Sequence[AggregateSpec]) -> Panes:
    """Of a window in which nobody had records."""
    nothing = np.zeros(0, dtype=np.int64)
    values = {spec.name: np.zeros(0) for spec in aggregates}
    return Panes(NOBODY, nothing, nothing, values, (), (), ())


class Told(NamedTuple):
    """Panes of windows with one end, told at one record. `on_time`: those that detectors see."""

    record: int  # its place in the page; the page's length where a mark fired it
    end_ms: int
    is_on_time: bool
    panes: Panes


class Windows(Protocol):
    """The open windows of one rule on one shard."""

    dropped: int  # records not counted, or lost, as their window had been told for good
    late_at: list[Rows]  # places in the page of those that `take` did not count

    def __len__(self) -> int: ...

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which records no window can hold any more, by the watermark before each."""

    def first_ends(self, times: Ints) -> Ints:
        """The end of the first window that holds each time."""

    def take(self, batch: Batch | None, after: Ints, watermark_ms: int) -> Iterator[Told]:
        """Count records, and tell what they and the watermark make due; in order of record.

        `after`: int64[page], the watermark after each record of the page; nothing where a mark
        moves it to `watermark_ms`. Works as it is iterated; to be taken to the end.
        """

    def merge(self, parts: WindowTable, judged_ms: int) -> Iterator[Told]:
        """Count units that were counted elsewhere, judged by a watermark; may empty `parts`.

        What is told is of record 0. As `take`, to be taken to the end.
        """

    def is_due(self, watermark_ms: int) -> bool:
        """Whether that watermark makes a window tell something."""

    def finish(self, only: Bools) -> Iterator[Told]:
        """Close all windows of some keys, bool[n_keys], in order of their end; nothing stays of
        those keys. To be taken to the end."""

    def holds(self, n_keys: int) -> Bools:
        """Of which of n keys something would be lost if it were forgotten: bool[n]."""
