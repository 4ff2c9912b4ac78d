"""A rule's windows: what is counted in each, and when each tells what.

grid, finding   which windows a record belongs to: those of a grid, or its key's session
table           counted units of a grid, and the windows that are made of them
plain           windows told once, at their end: the fast way
ledger          windows that tell more than once, and what each has told
careful         when those tell: early, on time, late, for the last time
"""

from __future__ import annotations

from processor.core.windows import careful, plain
from processor.core.windows.base import (
    NO_SAMPLE,
    NOBODY,
    ON_TIME,
    Batch,
    Panes,
    Sample,
    SampleOf,
    Told,
    no_panes,
)
from processor.core.windows.careful import Careful, Policy, Predicate
from processor.core.windows.finding import Finder, Gridded, Sessions
from processor.core.windows.grid import Grid
from processor.core.windows.plain import Plain
from processor.core.windows.table import Saved, WindowTable
from processor.model import PanesSpec, RuleSpec

SavedPlain = plain.Saved
SavedCareful = careful.Saved

__all__ = [
    "NOBODY",
    "NO_SAMPLE",
    "ON_TIME",
    "Batch",
    "Careful",
    "Grid",
    "Panes",
    "Plain",
    "Predicate",
    "Sample",
    "SampleOf",
    "Saved",
    "SavedCareful",
    "SavedPlain",
    "Told",
    "WindowTable",
    "no_panes",
    "open_for",
]


def open_for(rule: RuleSpec, grid: Grid | None, when: Predicate | None) -> Plain | Careful:
    """The windows of a rule; `grid` is None where windows depend on a key's records."""
    if grid is not None and not rule.lateness_ms and rule.panes in (PanesSpec(), _EMPTY):
        return Plain(grid, rule.aggregates)
    policy = Policy(rule.panes, rule.lateness_ms, rule.window.offset_ms)
    gap_ms = rule.window.ttl_ms if rule.window.kind == "running" else rule.window.gap_ms
    finder: Finder = Sessions(gap_ms) if grid is None else Gridded(grid)
    return Careful(finder, rule.aggregates, policy, when)


_EMPTY = PanesSpec(emit_empty=True)
