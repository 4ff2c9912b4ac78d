"""The records of a page that one rule wants, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from processor.core.figures import Readings, some
from processor.core.windows import Sample, SampleOf
from processor.model import Ints, Rows


class Records(NamedTuple):
    """n records of a page, in its order, that a rule wants: none too late, and none twice."""

    keys: Sequence[Sequence[Any]]  # a column a field of `group_by`
    partition_keys: Sequence[str]
    times: Ints  # int64[n]
    readings: Readings
    at: Rows  # intp[n]: each one's place in its page
    judged: Ints  # int64[n]: the watermark by which each is judged, that before it or a floor
    sample_of: SampleOf | None

    def part(self, where: slice | Rows) -> Records:
        """Some of them, in their order."""
        if isinstance(where, slice) and where.indices(len(self.at)) == (0, len(self.at), 1):
            return self
        return Records(
            [some(column, where) for column in self.keys],
            some(self.partition_keys, where),
            self.times[where],
            self.readings.part(where),
            self.at[where],
            self.judged[where],
            self._samples(where),
        )

    def between(self, start: int, stop: int) -> Records | None:
        """Those from place `start` of the page up to `stop`; None: there are none."""
        first, last = np.searchsorted(self.at, [start, stop]).tolist()
        return self.part(slice(first, last)) if first < last else None

    def _samples(self, where: slice | Rows) -> SampleOf | None:
        sample_of = self.sample_of
        if sample_of is None:
            return None
        if isinstance(sample_of, _Samples):  # or a part of a part of … would call as deep
            return _Samples(sample_of.of, sample_of.places[where])
        return _Samples(sample_of, np.arange(len(self.at))[where])


class _Samples:
    """Some records' samples, by their places among all."""

    def __init__(self, of: SampleOf, places: Rows):
        self.of = of
        self.places = places

    def __call__(self, i: int) -> Sample:
        return self.of(int(self.places[i]))
