"""Whether ours and the plain way say the same: a benchmark of wrong results is worth nothing."""

from __future__ import annotations

from math import isclose

from bench.plain import Results
from processor.core.pipeline import ShardPipeline
from processor.core.rules import Rule
from processor.core.windows import Panes, Plain
from processor.model import Bools

# Plain float sums of some ten thousand amounts are off by about 1e-12; ours are rounded once.
TOLERANCE = 1e-9


class ResultsDiffer(Exception):
    """The two sides do not agree."""


class Tap:
    """Notes every window that a pipeline closes, as it closes: for the price of one append."""

    def __init__(self, pipeline: ShardPipeline) -> None:
        (rule,) = pipeline._rules
        self._rule = rule
        self._noted: list[tuple[int, Panes]] = []
        assert isinstance(rule, Rule)
        assert isinstance(rule.windows, Plain)
        close, note = rule.windows.close, self._noted.append

        def noted(end_ms: int, only: Bools | None = None) -> Panes:
            closed = close(end_ms, only)
            note((end_ms, closed))
            return closed

        rule.windows.close = noted  # type: ignore[method-assign]

    def results(self) -> Results:
        found: Results = {}
        keys, size_ms = self._rule.keys, self._rule.plan.spec.window.size_ms
        for end_ms, closed in self._noted:
            columns = [column.tolist() for column in closed.values.values()]
            for key, *row in zip(closed.keys.tolist(), *columns, strict=True):
                (_, store), (_, type_) = keys.group(key).key
                n, total, highest, average = row
                found[str(store), str(type_), end_ms - size_ms] = (n, total, highest, average)
        return found


def check(ours: Results, plain: Results, *, late: tuple[int, int]) -> None:
    """Raises ResultsDiffer; `late` are both sides' counts of late records."""
    if not plain:
        raise ResultsDiffer("no window closed: take more records or a longer span")
    if late[0] != late[1]:
        raise ResultsDiffer(f"late records: ours {late[0]}, plain {late[1]}")
    if ours.keys() != plain.keys():
        only = sorted(ours.keys() ^ plain.keys())
        raise ResultsDiffer(f"{len(only)} windows on one side only, the first {only[0]}")
    for key, row in plain.items():
        if not _is_same(ours[key], row):
            raise ResultsDiffer(f"{key}: ours {ours[key]}, plain {row}")


def _is_same(ours: tuple[int, float, float, float], plain: tuple[int, float, float, float]) -> bool:
    """Counts and maxima to the bit, sums and means but for rounding."""
    return (
        ours[0] == plain[0]
        and ours[2] == plain[2]
        and isclose(ours[1], plain[1], rel_tol=TOLERANCE)
        and isclose(ours[3], plain[3], rel_tol=TOLERANCE)
    )
