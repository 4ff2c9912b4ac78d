"""What has to be reached: a figure, its bar, and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.harness import Table


class Bar(NamedTuple):
    """A figure that must be at least, or else at most, as large as its limit."""

    name: str
    value: float | None  # None: could not be measured, which misses the bar
    limit: float
    is_floor: bool = False  # the limit is the least that will do, not the most

    @property
    def is_met(self) -> bool:
        if self.value is None or self.value != self.value:
            return False
        return self.value >= self.limit if self.is_floor else self.value <= self.limit

    def in_json(self) -> dict[str, Any]:
        return {**self._asdict(), "is_met": self.is_met}


class Part(NamedTuple):
    """One part of the benchmark: its figures by name, tables for people, and bars."""

    figures: Mapping[str, Any] = {}
    tables: Sequence[Table] = ()
    bars: Sequence[Bar] = ()


def table(bars: Sequence[Bar]) -> Table:
    rows = [
        [
            bar.name,
            shown(bar.value),
            f"{'≥' if bar.is_floor else '≤'} {bar.limit:g}",
            "pass" if bar.is_met else "MISS",
        ]
        for bar in bars
    ]
    return Table("bars", ["figure", "is", "asked", ""], rows)


def shown(value: float | None, digits: int = 2) -> str:
    """A figure in a table; a dash where there is none.

    >>> shown(76.4321), shown(0.0312), shown(None), shown(float("nan"))
    ('76.43', '0.031', '–', '–')
    """
    if value is None or value != value:
        return "–"
    return f"{value:,.{digits}f}" if abs(value) >= 0.1 or not value else f"{value:.{digits + 1}f}"
