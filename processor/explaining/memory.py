"""What a rule's keys take, on one shard: by what its figures and detectors declare."""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from processor.config.checks import is_global
from processor.config.lints import span_of
from processor.core.alarms.scorer import Scorer
from processor.core.figures import bytes_per_group
from processor.core.versions import memory_ids
from processor.model import EventSpec, PanesSpec, RuleSpec

# Measured with texts of a dozen characters: 130 for a key's text, its entry in a hash table, its
# place and kind, and as much again of slack while tables grow by doubling. Longer keys take more.
BYTES_A_KEY = 200
# An open window of a key besides its figures: key, count and panes told (40), and its entry in a
# hash table that is a quarter to a half full (48).
BYTES_A_WINDOW = 88
ROWS = 64


class Memory(Struct, frozen=True):
    """In bytes, on one shard, with few and with many different values in each window."""

    a_window: int  # the figures of one open window (or pane) of a key
    a_key: int
    a_key_most: int  # where figures with sparse memory (quantile, distinct, top_k) are full
    windows_a_key: int  # open at once, while records keep coming
    detectors_a_key: int

    def of(self, keys: int) -> int:
        return keys * self.a_key


def memory_of(rule: RuleSpec, event: EventSpec) -> Memory:
    names = memory_ids(rule.aggregates)  # figures of one memory are counted once
    units = {names[a.name]: bytes_per_group(a) for a in rule.aggregates if a.name in names}
    usual = BYTES_A_WINDOW + sum(unit.usual for unit in units.values())
    most = BYTES_A_WINDOW + sum(unit.most for unit in units.values())
    windows = windows_a_key(rule, event)
    series = _series_bytes(rule)
    fixed = BYTES_A_KEY + series
    return Memory(usual, fixed + windows * usual, fixed + windows * most, windows, series)


def windows_a_key(rule: RuleSpec, event: EventSpec) -> int:
    """Windows of one key that are open at once: the present one, and those that may still be late.

    Of hopping windows panes, where these are told but once or go through the merge stream.
    """
    size_ms = span_of(rule.window)
    if size_ms is None:
        return 1
    waiting_ms = event.out_of_orderness_ms + rule.lateness_ms
    if rule.window.kind == "hopping":
        every_ms = rule.window.every_ms
        shares = is_global(event, rule) or not (rule.lateness_ms or has_panes(rule.panes))
        step_ms = math.gcd(size_ms, every_ms) if shares else every_ms
        return math.ceil((size_ms + waiting_ms) / step_ms)
    return 1 + math.ceil(waiting_ms / size_ms)


def has_panes(panes: PanesSpec) -> bool:
    """Whether a window is told more than once."""
    return replace(panes, emit_empty=False) != PanesSpec()


def _series_bytes(rule: RuleSpec) -> int:
    """The columns of one key, of all detectors and their alarms; as many rows as a table begins
    with say it exactly."""
    scorer = Scorer(rule.detect, dict.fromkeys((a.name for a in rule.aggregates), math.nan))
    scorer.ensure(ROWS)
    return scorer.nbytes // ROWS
