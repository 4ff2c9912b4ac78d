"""What a point costs in CPU time, and a series in memory.

CPU time of this process over whole waves through `Scorer` and, of that, the detector alone, with
memories full as after two days of five-minute windows. The fastest of several rounds counts: what
else runs on the machine takes caches away and only ever adds. Figures of different machines do not
compare; ratios do. At one series a point is a wave, so nearly all of it is the price of a call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.detection import families
from bench.detection.bars import Bar, Part, shown
from bench.detection.families import STEP_MS
from bench.detection.judged import Kind
from bench.harness import Table
from processor.core.alarms.scorer import Scorer
from processor.model import DetectSpec, Floats

N_SERIES = (1, 1_000, 100_000)
WAVES = {1: 400, 1_000: 40, 100_000: 2}  # a round; as many rounds as ROUNDS
ROUNDS = 5
SEED_SERIES = 500  # so many are filled, the others are copies
FILL = 600  # windows: enough that every place of a memory is taken
US = 1e6
POINT_MAX = {"full": 0.6, "lite": 0.25}  # µs at 100,000 series
BYTES_MAX = {"full": 3_500.0, "lite": 1_000.0}
ALONE_MAX = 200.0  # µs


class Cost(NamedTuple):
    us: Mapping[int, float]  # a point, by number of series: all of scoring
    us_detector: Mapping[int, float]  # … the detector alone
    bytes_state: float  # a series: what the detector learnt
    bytes_all: float  # … and what the alarm logic keeps


def run(measured: Sequence[Kind], seed: int, sizes: Sequence[int] = N_SERIES) -> Part:
    costs = {kind.name: cost(kind, seed, sizes) for kind in measured}
    figures = {name: _in_json(found) for name, found in costs.items()}
    return Part(figures, [_table(costs, sizes)], _bars(costs))


def cost(kind: Kind, seed: int, sizes: Sequence[int] = N_SERIES) -> Cost:
    filled, values = _filled(kind, seed)
    whole, alone = {}, {}
    for n in sizes:
        scorer = _copies(kind, filled, n)
        start_ms = families.START_MS + FILL * STEP_MS
        whole[n], alone[n] = _timed(scorer, values, n, start_ms)
    saved = filled.snapshot(SEED_SERIES)
    learnt = sum(len(data) for name, data in saved.items() if ".state." in name)
    everything = sum(map(len, saved.values()))
    return Cost(whole, alone, learnt / SEED_SERIES, everything / SEED_SERIES)


def _filled(kind: Kind, seed: int) -> tuple[Scorer, Floats]:
    """A scorer that has seen two days, and values for the windows to come."""
    n = FILL + WAVES[1] * ROUNDS
    values = np.concatenate(
        [
            families.draw(name, seed, n, SEED_SERIES // 5)
            for name in ("daily", "weekly", "counts", "heavy tail", "sluggish")
        ],
        axis=1,
    )
    scorer = Scorer([DetectSpec(kind.name, kind.kind, "value", dict(kind.options))], {"value": 0.0})
    scorer.ensure(SEED_SERIES)
    rows, counts = np.arange(SEED_SERIES, dtype=np.intp), np.ones(SEED_SERIES, dtype=np.int64)
    for i in range(FILL):
        start_ms = families.START_MS + i * STEP_MS
        scorer.judge(start_ms, start_ms + STEP_MS, rows, counts, {"value": values[i]})
    return scorer, values[FILL:]


def _copies(kind: Kind, filled: Scorer, n: int) -> Scorer:
    """n series, each as one of those that are filled."""
    scorer = Scorer([DetectSpec(kind.name, kind.kind, "value", dict(kind.options))], {"value": 0.0})
    scorer.ensure(n)
    for first in range(0, n, SEED_SERIES):
        rows = np.arange(first, min(first + SEED_SERIES, n), dtype=np.intp)
        scorer.put(rows, filled.take(np.arange(len(rows), dtype=np.intp)))
    return scorer


def _timed(scorer: Scorer, values: Floats, n: int, start_ms: int) -> tuple[float, float]:
    """µs a point of the fastest round: all of it, and the detector alone."""
    rows, counts = np.arange(n, dtype=np.intp), np.ones(n, dtype=np.int64)
    inside = _Clock(scorer)
    whole, alone = [], []
    for round_ in range(ROUNDS):
        waves = range(round_ * WAVES[n], (round_ + 1) * WAVES[n])
        columns = [np.resize(values[i], n) for i in waves]
        inside.seconds = 0.0
        began = time.process_time()
        for i, column in zip(waves, columns, strict=True):
            at_ms = start_ms + i * STEP_MS
            scorer.judge(at_ms, at_ms + STEP_MS, rows, counts, {"value": column})
        whole.append((time.process_time() - began) / len(waves) / n * US)
        alone.append(inside.seconds / len(waves) / n * US)
    return min(whole), min(alone)


class _Clock:
    """Stands in front of a scorer's detector and adds up its CPU time."""

    def __init__(self, scorer: Scorer):
        (watch,) = scorer._watches
        self._detector = watch.detector
        self.seconds = 0.0
        watch.detector = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)

    def judge(self, *arguments: object) -> object:
        began = time.process_time()
        verdict = self._detector.judge(*arguments)  # type: ignore[arg-type]
        self.seconds += time.process_time() - began
        return verdict


def _in_json(found: Cost) -> dict[str, object]:
    return {
        "us_a_point": {str(n): us for n, us in found.us.items()},
        "us_a_point_detector": {str(n): us for n, us in found.us_detector.items()},
        "bytes_state": found.bytes_state,
        "bytes_all": found.bytes_all,
    }


def _table(costs: Mapping[str, Cost], sizes: Sequence[int]) -> Table:
    rows = [
        [
            name,
            *(f"{shown(found.us[n])} / {shown(found.us_detector[n])}" for n in sizes),
            f"{found.bytes_all:,.0f} / {found.bytes_state:,.0f}",
        ]
        for name, found in costs.items()
    ]
    header = ["all of scoring / the detector alone", *(f"{n:,} series" for n in sizes), "bytes"]
    return Table("µs of CPU a point, bytes a series", header, rows)


def _bars(costs: Mapping[str, Cost]) -> list[Bar]:
    bars = []
    largest = max(N_SERIES)
    for name in [name for name in POINT_MAX if name in costs]:
        found = costs[name]
        if largest in found.us:
            bars.append(Bar(f"{name}, µs a point", found.us[largest], POINT_MAX[name]))
        bars.append(Bar(f"{name}, bytes a series", found.bytes_all, BYTES_MAX[name]))
        if 1 in found.us:
            bars.append(Bar(f"{name}, µs of a point alone", found.us[1], ALONE_MAX))
    return bars
