"""One aggregator on a few slots, driven as a rule's windows drive it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from processor.core.figures import Figures, Readings
from processor.model import AggregateSpec


class Slots:
    """Slots 0 to 4 of one figure."""

    def __init__(self, kind: str, **options: Any):
        self.figures = Figures([AggregateSpec("figure", kind, "field", options=options)])
        self.figures.ensure(5)

    def add(
        self, records: Sequence[Any], slot: int = 0, times: Sequence[int] | None = None
    ) -> Slots:
        """Numbers or keys."""
        n = len(records)
        at = np.arange(n) if times is None else np.array(times, dtype=np.int64)
        is_numeric = not n or isinstance(records[0], float)
        numbers = np.array(records, dtype=np.float64) if is_numeric else np.zeros(n)
        slots = np.full(n, slot, dtype=np.intp)
        self.figures.update(slots, Readings(at, {"field": numbers}, {"field": records}))
        return self

    def merge(self, into: int, other: Slots, slot: int) -> Slots:
        self.figures.merge(np.array([into]), other.figures, np.array([slot]))
        return self

    def result(self, slot: int = 0) -> Any:
        return self.figures.results(np.array([slot]), 1_000)["figure"].tolist()[0]

    def saved(self) -> dict[str, bytes]:
        return self.figures.take(np.arange(5))
