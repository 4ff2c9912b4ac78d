"""How much a rule tells a day, by a rate and a number of keys.

Records are taken to come at random (as a Poisson process), evenly over keys, shards and the day,
all of them wanted by the rule's `where`: then a window of length s of one key, which gets r records
a second, is not empty with probability 1 − exp(−r s), and a session ends after a record with
probability exp(−r gap). What comes in bursts makes fewer windows and sessions, never more.
"""

from __future__ import annotations

from math import ceil, exp, floor

from msgspec import Struct

from processor.config.lints import closing_period_of, period_of, span_of
from processor.explaining import prices
from processor.model import MergeSpec, PanesSpec, RuleSpec

DAY_S = 86_400.0
# Of a group in a partial: its values as text, lengths, and the ordinal of its window.
BYTES_A_GROUP = 60
BYTES_A_PARTIAL = 100  # what stands at its head


class Assumed(Struct, frozen=True):
    """What is not in the file: records a second over all shards, keys of each rule, shards."""

    rate: float = 1_000.0
    keys: int = 100
    shards: int = 4


class Traffic(Struct, frozen=True):
    """A day's. `events_at_most`: with the panes that a predicate may add."""

    events: float
    usd: float  # on EventBridge; 0 where results go elsewhere
    merge_puts: float = 0.0  # records put into the merge stream
    merge_usd: float = 0.0


def traffic_of(
    rule: RuleSpec, assumed: Assumed, merge: MergeSpec | None, *, is_paid: bool, a_window: int
) -> Traffic:
    """`merge`: of a global rule; `a_window`: bytes of one window's figures."""
    events = events_a_day(rule, assumed) if rule.emit_windows is not None else 0.0
    usd = events * prices.USD_PER_MILLION_EVENTS / 1e6 if is_paid else 0.0
    if merge is None:
        return Traffic(events, usd)
    puts, units = puts_a_day(rule, assumed, merge, a_window)
    return Traffic(events, usd, puts, units * prices.USD_PER_MILLION_PUT_UNITS / 1e6)


def events_a_day(rule: RuleSpec, assumed: Assumed) -> float:
    """Window results; what detectors say comes besides."""
    window, keys = rule.window, groups(rule, assumed)
    each = assumed.rate / keys  # records of a key a second
    records = assumed.rate * DAY_S
    if window.kind == "session":
        gap_s = window.gap_ms / 1000
        whole, length_s = records * exp(-each * gap_s), gap_s
    elif window.kind == "running":
        whole, length_s = 0.0, DAY_S
    else:
        span_ms, period_ms = span_of(window), period_of(window)
        assert span_ms is not None
        assert period_ms is not None
        length_s = span_ms / 1000
        whole = keys * DAY_S / (period_ms / 1000) * (1 - exp(-each * length_s))
    closing = whole if rule.lateness_ms and rule.panes.late_count is not None else 0.0
    return whole + closing + _early(rule.panes, whole or keys, each, length_s)


def groups(rule: RuleSpec, assumed: Assumed) -> int:
    """Without group_by there is one; on each shard no more than max_groups are told apart."""
    return min(assumed.keys, rule.max_groups * assumed.shards) if rule.group_by else 1


def _early(panes: PanesSpec, windows: float, each: float, length_s: float) -> float:
    """Panes before the end, of so many windows with `each` records a second."""
    found = 0.0
    if panes.early_every_ms is not None:
        every_s = panes.early_every_ms / 1000
        found += windows * max(0, ceil(length_s / every_s) - 1) * (1 - exp(-each * every_s))
    if panes.early_count is not None:
        found += windows * floor(each * length_s / panes.early_count)
    if panes.early_when is not None:
        found += windows
    return found


def puts_a_day(
    rule: RuleSpec, assumed: Assumed, merge: MergeSpec, a_window: int
) -> tuple[float, float]:
    """Records of the merge stream, and the units that are paid: one a bucket, shard and end."""
    period_ms = closing_period_of(rule.window)
    assert period_ms is not None, "a global rule's windows end for all keys at once"
    keys = groups(rule, assumed)
    counted = keys * (1 - exp(-assumed.rate / assumed.shards / keys * period_ms / 1000))
    held = BYTES_A_PARTIAL + ceil(counted / merge.buckets) * (BYTES_A_GROUP + a_window)
    puts = assumed.shards * merge.buckets * DAY_S / (period_ms / 1000)
    return puts, puts * ceil(held / prices.PUT_UNIT_BYTES)
