"""What a series costs people in its first weeks, and on the day on which the clocks change.

All is told at medium sensitivity: alarms a series and day, over the families of clean series. For
the change of clocks, seasons follow the local time; bins that do so too must not notice it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from bench.detection import families, judged, kinds
from bench.detection.bars import Bar, Part, shown
from bench.detection.families import DAY, FAMILIES, STEP_MS, Panel
from bench.detection.judged import Kind
from bench.harness import Table
from processor.model import Bools, Floats, Ints

N_DAYS = 21
SEASONAL = ("daily", "weekly", "counts", "regular spikes", "on and off")
ZONE = ZoneInfo("Europe/Berlin")
LEARN_DAYS = 20  # before the Sunday of the change: a series of nearly three weeks
# Mondays 20 days before the clocks go forward (29 March) and back (25 October), local midnight.
STARTS = {"forward": datetime(2026, 3, 9, tzinfo=ZONE), "back": datetime(2026, 10, 5, tzinfo=ZONE)}
FROM_DAY = 3


class Outcome(NamedTuple):
    by_day: Sequence[float]  # alarms a series on each day of life
    first_weekend: float  # a series and day
    clocks: Mapping[str, float]  # alarms a series on the Sunday of the change, with local bins
    clocks_in_utc: Mapping[str, float]  # … with bins that ignore it
    usual_day: float  # of the same series with local bins, the week before the change

    @property
    def first_day(self) -> float:
        return self.by_day[0]

    @property
    def later(self) -> float:
        """The worst day from the third on."""
        return max(self.by_day[FROM_DAY - 1 :])

    def in_json(self) -> dict[str, Any]:
        return {**self._asdict(), "first_day": self.first_day, "from_third_day": self.later}


def run(measured: Sequence[Kind], seed: int, n_each: int, pool: Executor) -> Part:
    found = pool.map(_outcome_of, [(kind, seed, n_each) for kind in measured])
    outcomes = dict(zip((kind.name for kind in measured), found, strict=True))
    figures = {name: outcome.in_json() for name, outcome in outcomes.items()}
    n = n_each * len(FAMILIES)
    return Part(figures, [_table(outcomes, n)], _bars(outcomes))


def outcome(kind: Kind, seed: int, n_each: int) -> Outcome:
    panel = families.clean(seed + 2_000, N_DAYS, n_each)
    opened = judged.judge(kinds.at(kind, "medium"), panel).opened
    by_day = opened.reshape(N_DAYS, DAY, -1).sum(axis=1).mean(axis=1)
    weekend = families.is_weekend(panel.times_ms[::DAY])[:7]
    clocks, in_utc, usual = {}, {}, []
    for name in STARTS:
        local = clock_change(name, seed, n_each)
        in_zone = _on_days(kind, local)
        clocks[name] = in_zone[LEARN_DAYS]
        usual += in_zone[LEARN_DAYS - 7 : LEARN_DAYS]
        in_utc[name] = _on_days(kind, local._replace(local_ms=None))[LEARN_DAYS]
    return Outcome(
        by_day.tolist(), float(by_day[:7][weekend].mean()), clocks, in_utc, float(np.mean(usual))
    )


def clock_change(name: str, seed: int, n_each: int) -> Panel:
    """Series whose seasons follow the clocks of Berlin, up to the day after these change."""
    start_ms = int(STARTS[name].timestamp() * 1000)
    times_ms = start_ms + STEP_MS * np.arange((LEARN_DAYS + 2) * DAY, dtype=np.int64)
    local_ms = times_ms + _shifts_ms(times_ms)
    at = (local_ms - local_ms[0]) // STEP_MS
    n = int(at.max()) + 1
    parts: list[Floats] = [families.draw(family, seed, n, n_each, name)[at] for family in SEASONAL]
    labels = tuple(family for family in SEASONAL for _ in range(n_each))
    return Panel(times_ms, STEP_MS, np.concatenate(parts, axis=1), labels, local_ms=local_ms)


def _shifts_ms(times_ms: Ints) -> Ints:
    moments = (datetime.fromtimestamp(ms / 1000, UTC).astimezone(ZONE) for ms in times_ms.tolist())
    offsets = (moment.utcoffset() for moment in moments)
    return np.array([int(o.total_seconds()) * 1000 for o in offsets if o is not None])


def _on_days(kind: Kind, panel: Panel) -> list[float]:
    """Alarms a series on each local day."""
    opened: Bools = judged.judge(kinds.at(kind, "medium"), panel).opened
    local_ms = panel.times_ms + _shifts_ms(panel.times_ms)
    days = (local_ms - local_ms[0]) // 86_400_000
    return [float(opened[days == day].sum() / panel.n_series) for day in range(days.max() + 1)]


def _outcome_of(task: tuple[Kind, int, int]) -> Outcome:
    return outcome(*task)


def _table(outcomes: Mapping[str, Outcome], n: int) -> Table:
    header = ["detector", "day 1", "day 2", "day 3", "worst from day 3", "first weekend"]
    header += ["clocks forward", "back", "forward, UTC bins", "back, UTC bins", "usual day"]
    rows = [
        [
            name,
            *map(shown, (*found.by_day[:3], found.later, found.first_weekend)),
            *map(shown, (*found.clocks.values(), *found.clocks_in_utc.values(), found.usual_day)),
        ]
        for name, found in outcomes.items()
    ]
    return Table(f"Alarms a series and day, of {n} clean series in their life", header, rows)


def _bars(outcomes: Mapping[str, Outcome]) -> list[Bar]:
    bars = []
    for name in ("lite", "standard", "full"):
        if name in outcomes:
            found = outcomes[name]
            bars += [
                Bar(f"{name}, alarms a series on its first day", found.first_day, 0.5),
                Bar(f"{name}, alarms a series and day from the third", found.later, 0.2),
                Bar(f"{name}, alarms when clocks change", max(found.clocks.values()), 0.1),
            ]
    return bars
