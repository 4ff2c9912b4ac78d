"""Forest: windows whose figures, taken together, lie apart from all that were there of late.

Robust random cut forest (Guha et al., Robust Random Cut Forest Based Anomaly Detection On Streams,
ICML 2016), by the Rust core of AWS as the package `krcf` brings it. A point is up to eight figures
of the last four windows, each figure in its own deviations. What the forest scores is judged by the
series' own tail (`_tail`). About 0.2 ms a window and up to 0.6 MB a series: for few keys.

The state is a ring of the last windows, and nothing else: at fixed windows, every 128, a series'
forest is planted anew from the 256 before, with a fixed seed, and grows from there. So a forest is
a function of the ring. Grown ones are kept aside, by a digest of all windows that they have seen;
where one is not found it is grown again, in some 20 ms, to the same bit.

Windows before a gap (maintenance, or history that ended) and after it make no point together: the
first three after it are neither scored nor grown into the forest.
"""

from __future__ import annotations

import importlib.util
import math
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from processor.detectors import _band, _tail
from processor.detectors.base import (
    VALUE_MAX,
    Params,
    SensitiveParams,
    Sensitivity,
    Verdict,
    Wave,
    back_to_normal,
    figure,
    judgeable,
    silence,
)
from processor.model import Column, Floats, Rows, State

if TYPE_CHECKING:
    from krcf import RandomCutForest

FIGURES_MAX = 8
KEYS_MAX = 200  # a rule and shard: all forests after a restart are then grown in some 4 s
TOGETHER = 4  # windows a point is made of
PAST, BLOCK = 256, 128  # windows that a forest is planted from, and until the next one is
RING = PAST + BLOCK + TOGETHER
TREES, SEED = 30, 7
FORESTS_MAX = 2 * KEYS_MAX  # kept grown, for all rules and shards of a process: 200 MB
FAR = 1e3  # deviations; what is further is as far
NOTHING = np.zeros(0)

_grown: OrderedDict[int, RandomCutForest] = OrderedDict()


class ForestParams(SensitiveParams, frozen=True, kw_only=True):
    """What all detectors with a sensitivity take."""

    passing: ClassVar[frozenset[str]] = frozenset({"run"})
    levels: ClassVar[Mapping[Sensitivity, float]] = _tail.LEVELS

    def __post_init__(self) -> None:
        super().__post_init__()
        if importlib.util.find_spec("krcf") is None:
            raise ValueError(
                "found no package krcf, which forest is made of; install processor[forest]"
            )


class Forest:
    """Several figures at once: `{forest: [orders, revenue]}`, at most eight.

    Expected: the mean of late of the first figure. There is no band. A rule with it takes at most
    200 groups a shard.
    """

    kind: ClassVar[str] = "forest"
    is_scale_free: ClassVar[bool] = False  # up to when it plants: that hangs on the first value
    params: ClassVar[type[Params]] = ForestParams
    parts: ClassVar[tuple[str, ...]] = tuple(f"figure {i + 1}" for i in range(FIGURES_MAX))
    figures_max: ClassVar[int] = FIGURES_MAX
    keys_max: ClassVar[int] = KEYS_MAX

    def columns(self, params: ForestParams) -> tuple[Column, ...]:
        return (
            Column("first", "<f8", 0, FIGURES_MAX),
            Column("ring", "<f4", 0, RING * FIGURES_MAX),  # less the first
            Column("seen_all", "<u4"),  # windows
            Column("phase", "<u1"),  # in which window of a block it plants: not all series at once
            Column("digest", "<u8"),  # of all windows seen, and where gaps were
            Column("run", "<u1"),  # windows since the last gap, up to TOGETHER
            Column("after_gap", "<u4"),  # the first of them
            *_tail.COLUMNS,
        )

    def threshold(self, params: ForestParams) -> float:
        return params.limit

    def judge(self, params: ForestParams, state: State, rows: Rows, wave: Wave) -> Verdict:
        verdict = silence(len(rows))
        values = np.stack([wave.values, *wave.others], axis=1)
        judged = np.flatnonzero(judgeable(params, wave) & (np.abs(values) <= VALUE_MAX).all(axis=1))
        digits = np.full(len(rows), np.nan)
        for i in judged.tolist():
            series = _Series(state, int(rows[i]), values.shape[1])
            digits[i], verdict.expected[i], verdict.part[i] = series.on_window(values[i])
        at = judged[~np.isnan(digits[judged])]
        away = np.expm1(digits[at])  # the forest's score is a logarithm already
        score = _tail.score(state, rows[at], away)
        _band.fill(verdict, at, score, score >= params.limit)
        _tail.learn(state, rows[at], away)
        return verdict

    def sentence(
        self, params: ForestParams, aggregate: str, verdict: Verdict, i: int, wave: Wave
    ) -> str:
        if not wave.others:
            return (
                f"{aggregate} is {figure(wave.values[i])}, with a mean of late of "
                f"{figure(verdict.expected[i])}; the last {TOGETHER} windows lie apart from others"
            )
        part, names = int(verdict.part[i]), (aggregate, *wave.names)
        most = float((wave.values, *wave.others)[part][i])
        return (
            f"{', '.join(names[:-1])} and {names[-1]} lie, taken together, "
            f"apart from other windows; most so {names[part]}, which is {figure(most)}"
        )

    def farewell(self, aggregate: str, lasted: str, worst: float) -> str:
        return back_to_normal(aggregate, lasted, worst)

    def bin(self, params: Any, wave: Wave) -> str:
        return ""

    def pause(self, params: ForestParams, state: State, rows: Rows) -> None:
        state["run"][rows] = 0


class _Series:
    """One row of the columns, of `n` figures."""

    def __init__(self, state: State, row: int, n: int):
        self._state, self._row, self._n = state, row, n
        self._ring = state["ring"][row].reshape(RING, FIGURES_MAX)

    def on_window(self, values: Floats) -> tuple[float, float, int]:
        """Score and take in; the forest's score (NaN while there is none), the first figure's mean
        of late, and the figure that deviates most."""
        seen = int(self._state["seen_all"][self._row])
        if not seen:
            self._on_birth(values)
        run = int(self._state["run"][self._row])
        if not run:
            self._on_gap(seen)
        self._state["run"][self._row] = min(run + 1, TOGETHER)
        self._ring[seen % RING, : self._n] = values - self._state["first"][self._row, : self._n]
        base = self._base(seen)
        digest = int(self._state["digest"][self._row])
        learnt = _digest(digest, values)
        self._state["digest"][self._row] = learnt
        self._state["seen_all"][self._row] = seen + 1
        if base < BLOCK // 2 or not self._is_point(seen):  # too little to plant from, or to judge
            return math.nan, math.nan, 0
        mean, deviation = self._scales(base)
        forest = _grown.pop(digest, None) or self._grow(base, seen, mean, deviation)
        point = self._point(seen, mean, deviation)
        score, part = forest.score(point), self._most(forest, point)
        if self._base(seen + 1) == base:
            forest.update(point)
            _keep(learnt, forest)
        return score, float(self._state["first"][self._row, 0] + mean[0]), part

    def _on_birth(self, values: Floats) -> None:
        self._state["first"][self._row, : self._n] = values
        self._state["phase"][self._row] = _digest(0, values) % BLOCK

    def _on_gap(self, seen: int) -> None:
        """Or else a forest grown without the gap would be taken for this one."""
        self._state["after_gap"][self._row] = seen
        self._state["digest"][self._row] = _digest(int(self._state["digest"][self._row]), NOTHING)

    def _is_point(self, window: int) -> bool:
        """Whether the windows that its point is made of came one after the other."""
        after_gap = int(self._state["after_gap"][self._row])
        return not after_gap <= window < after_gap + TOGETHER - 1

    def _base(self, seen: int) -> int:
        """The window at which the forest was planted that judges window `seen`; below 1: none."""
        phase = int(self._state["phase"][self._row])
        return (seen + phase) // BLOCK * BLOCK - phase

    def _scales(self, base: int) -> tuple[Floats, Floats]:
        at = np.arange(max(base - PAST, 0), base) % RING
        past = self._ring[at, : self._n].astype(np.float64)
        deviation = past.std(axis=0)
        return past.mean(axis=0), np.where(deviation > 0, deviation, 1.0)

    def _point(self, window: int, mean: Floats, deviation: Floats) -> list[float]:
        at = np.arange(window - TOGETHER + 1, window + 1) % RING
        far = (self._ring[at, : self._n].astype(np.float64) - mean) / deviation
        point: list[float] = np.clip(far, -FAR, FAR).reshape(-1).tolist()
        return point

    def _grow(self, base: int, seen: int, mean: Floats, deviation: Floats) -> RandomCutForest:
        from krcf import RandomCutForest  # an extra: only who uses it needs it

        forest = RandomCutForest(
            {
                "dimensions": TOGETHER * self._n,
                "shingle_size": 1,
                "num_trees": TREES,
                "sample_size": PAST,
                "output_after": 1,
                "random_seed": SEED,
                "parallel_execution_enabled": False,
            }
        )
        for window in range(max(base - PAST, 0) + TOGETHER - 1, seen):
            if self._is_point(window):
                forest.update(self._point(window, mean, deviation))
        return forest

    def _most(self, forest: RandomCutForest, point: list[float]) -> int:
        if self._n == 1:
            return 0
        said = forest.attribution(point)
        whole = np.add(said["high"], said["low"]).reshape(TOGETHER, self._n)
        return int(whole.sum(axis=0).argmax())


def _digest(before: int, values: Floats) -> int:
    return int.from_bytes(
        blake2b(before.to_bytes(8, "little") + values.tobytes(), digest_size=8).digest(), "little"
    )


def _keep(digest: int, forest: RandomCutForest) -> None:
    """The one that was used longest ago goes."""
    _grown[digest] = forest
    if len(_grown) > FORESTS_MAX:
        _grown.popitem(last=False)
