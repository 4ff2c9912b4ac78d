"""Absence: false alarms while windows are empty by chance, and how soon an outage is found.

A series has records in a window with probability p. `shop` always has some by day and never any
at night: its nights must not count as outages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench.detection import families, judged
from bench.detection.bars import Bar, Part, shown
from bench.detection.families import DAY, STEP_MS, Panel
from bench.detection.judged import Kind
from bench.harness import Table

ABSENCE = Kind("absence", "absence")
LEARN_DAYS = 28
OUTAGE = 100  # windows
DELAYS = {1.0: 2, 0.8: 6, 0.3: 26}  # windows until an outage is to be found, by p
FALSE_ALARMS = 0.3  # in 10,000 windows


class Outcome(NamedTuple):
    false_alarms: float  # in 10,000 windows after the first day
    n_false: int
    n_windows: int
    delay: float | None  # median, windows of the outage until it was told; None for none
    delay_worst: float | None
    found: float  # share of outages


def run(seed: int, n_each: int) -> Part:
    named = {f"p = {p:g}": p for p in DELAYS}
    outcomes = {name: outcome(seed, p, n_each) for name, p in named.items()}
    outcomes["shop"] = outcome(seed, None, n_each)
    n_windows = sum(found.n_windows for found in outcomes.values())
    pooled = sum(found.n_false for found in outcomes.values()) / n_windows * 10_000
    figures = {name: found._asdict() for name, found in outcomes.items()}
    bars = [Bar("absence, false alarms in 10,000", pooled, FALSE_ALARMS)] + [
        Bar(f"absence, delay at {name}", outcomes[name].delay, DELAYS[p])
        for name, p in named.items()
    ]
    return Part({**figures, "pooled": pooled}, [_table(outcomes)], bars)


def outcome(seed: int, p: float | None, n_each: int) -> Outcome:
    """Of `n_each` series with that p, or of as many shops."""
    panel = presence(seed, p, n_each)
    opened = judged.judge(ABSENCE, panel, empty=0.0).opened
    at = LEARN_DAYS * DAY
    usual, outage = opened[DAY:at], opened[at:]
    delays = np.where(outage.any(axis=0), outage.argmax(axis=0) + 1.0, np.nan)
    found = delays[~np.isnan(delays)]
    return Outcome(
        float(usual.mean() * 10_000),
        int(usual.sum()),
        usual.size,
        float(np.median(found)) if len(found) else None,
        float(found.max()) if len(found) else None,
        len(found) / n_each,
    )


def presence(seed: int, p: float | None, n_each: int) -> Panel:
    """1 where a window has records, NaN where not; four weeks, then an outage at noon of the next
    day, when a shop is open."""
    n = LEARN_DAYS * DAY + OUTAGE
    rng = np.random.default_rng([seed, 3_000, int(1_000 * (p or 0))])
    at = np.arange(n)[:, None] + DAY // 2
    share = np.where(at % DAY // (DAY // 24) >= 8, 1.0, 0.0) if p is None else np.full((n, 1), p)
    is_there = rng.random((n, n_each)) < share
    is_there[LEARN_DAYS * DAY :] = False
    noon_ms = families.START_MS + DAY // 2 * STEP_MS
    times_ms = noon_ms + STEP_MS * np.arange(n, dtype=np.int64)
    return Panel(times_ms, STEP_MS, np.where(is_there, 1.0, np.nan))


def _table(outcomes: dict[str, Outcome]) -> Table:
    rows = [
        [
            *(name, shown(o.false_alarms, 3), str(o.n_false), f"{o.n_windows:,}"),
            *(shown(number, 0) for number in (o.delay, o.delay_worst, 100 * o.found)),
        ]
        for name, o in outcomes.items()
    ]
    header = ["series", "false alarms in 10,000", "false", "windows"]
    header += ["windows to outage", "at worst", "found %"]
    return Table("Absence", header, rows)
