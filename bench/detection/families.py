"""Made series: 11 kinds that are clean, and 8 kinds of anomalies put into them.

All is drawn from a seed. Windows are of five minutes, a series has an arbitrary scale and phase,
and an anomaly is half to all as large as the series' own range (first to 99th percentile), and
beyond that range for a spike or a dip: what a person sees on a chart. A kind of anomaly is only put
where it can be seen: no phase is flipped where there is none, and nothing drops to nothing where
nothing is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from processor.model import Bools, Floats, Ints

STEP_MS = 300_000
DAY = 86_400_000 // STEP_MS  # windows
START_MS = 1_767_571_200_000  # Monday, 5 January 2026, midnight UTC


class Family(NamedTuple):
    """One kind of clean series; `make` gives float64[n_windows, n_series] before scaling."""

    make: Callable[[np.random.Generator, int, int], Floats]
    is_count: bool = False  # whole numbers, never scaled
    unfit: frozenset[str] = frozenset()  # kinds of anomalies that could not be seen


class Panel(NamedTuple):
    """Series side by side, a column each; all on one time axis."""

    times_ms: Ints  # int64[n_windows], starts
    step_ms: int
    values: Floats  # float64[n_windows, n_series]
    labels: tuple[str, ...] = ()  # of each series: its family, or family/anomaly
    onsets: Ints = np.zeros(0, np.int64)  # of injected ones: the first window …
    ends: Ints = np.zeros(0, np.int64)  # … and past the last that counts as found
    local_ms: Ints | None = None  # int64[n_windows], where the rule's zone is not UTC

    @property
    def n_series(self) -> int:
        return int(self.values.shape[1])


def clean(seed: int, n_days: int, n_each: int) -> Panel:
    """`n_each` series of every family."""
    n = n_days * DAY
    parts = [draw(name, seed, n, n_each) for name in FAMILIES]
    labels = tuple(name for name in FAMILIES for _ in range(n_each))
    return Panel(times(n), STEP_MS, np.concatenate(parts, axis=1), labels)


def injected(seed: int, n_each: int, learn_days: int = 15, rest_days: int = 8) -> Panel:
    """`n_each` series of every family and fitting kind of anomaly, with one anomaly each.

    It starts at a random window of the day after `learn_days`.
    """
    n = (learn_days + rest_days) * DAY
    columns: list[Floats] = []
    labels: list[str] = []
    onsets: list[int] = []
    ends: list[int] = []
    for name, family in FAMILIES.items():
        for kind, anomaly in ANOMALIES.items():
            if kind in family.unfit:
                continue
            rng = _rng(seed, name, kind)
            values = draw(name, seed + 1_000, n, n_each, kind)
            for i in range(n_each):
                at = learn_days * DAY + int(rng.integers(DAY))
                length = anomaly.put(rng, values[:, i], at, family)
                columns.append(values[:, i])
                labels.append(f"{name}/{kind}")
                onsets.append(at)
                ends.append(at + length)
    return Panel(
        times(n), STEP_MS, np.stack(columns, axis=1), tuple(labels), _ints(onsets), _ints(ends)
    )


def times(n: int) -> Ints:
    return START_MS + STEP_MS * np.arange(n, dtype=np.int64)


def is_weekend(times_ms: Ints) -> Bools:
    """The epoch was a Thursday."""
    weekday = (times_ms // 86_400_000 + 3) % 7
    saturday_on: Bools = weekday >= 5
    return saturday_on


def _ints(numbers: list[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)


def _rng(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *"/".join(names).encode()])


def draw(name: str, seed: int, n: int, n_each: int, salt: str = "") -> Floats:
    """Series of a family, float64[n, n_each]; `salt` makes others of the same seed."""
    rng = _rng(seed, name, salt)
    values = FAMILIES[name].make(rng, n, n_each)
    if FAMILIES[name].is_count:
        return values
    return values * 10.0 ** rng.uniform(-2, 4, n_each)


# Families


def _hours(n: int) -> Floats:
    """Hour of the week of each window, float64[n, 1]; the first is Monday's midnight."""
    hours: Floats = np.arange(n, dtype=np.float64)[:, None] * (24 / DAY)
    return hours


def _day_wave(rng: np.random.Generator, n: int, k: int) -> Floats:
    wave: Floats = np.sin((_hours(n) + rng.uniform(0, 24, k)) * (2 * np.pi / 24))
    return wave


def _constant(rng: np.random.Generator, n: int, k: int) -> Floats:
    return np.full((n, k), 10.0)


def _white_noise(rng: np.random.Generator, n: int, k: int) -> Floats:
    return 100.0 + rng.normal(0, 10, (n, k))


def _daily(rng: np.random.Generator, n: int, k: int) -> Floats:
    return 100.0 + 50 * _day_wave(rng, n, k) + rng.normal(0, 5, (n, k))


def _weekly(rng: np.random.Generator, n: int, k: int) -> Floats:
    """A shop: busy by day, half as busy at weekends."""
    hours = _hours(n)
    busy = 1.0 + np.maximum(np.sin((hours % 24 - 6) * (2 * np.pi / 24)), 0.0)
    week = np.where(hours // 24 % 7 >= 5, 0.5, 1.0)
    noisy: Floats = 100.0 * busy * week * (1 + rng.normal(0, 0.05, (n, k)))
    return noisy


def _counts(rng: np.random.Generator, n: int, k: int) -> Floats:
    busiest = 10.0 ** rng.uniform(1.5, 3, k)
    rate = busiest * (0.6 + 0.4 * _day_wave(rng, n, k))
    return rng.poisson(rate).astype(np.float64)


def _sparse(rng: np.random.Generator, n: int, k: int) -> Floats:
    return rng.poisson(rng.uniform(0.02, 0.3, k), (n, k)).astype(np.float64)


def _heavy_tail(rng: np.random.Generator, n: int, k: int) -> Floats:
    return rng.lognormal(3, 0.7, (n, k))


def _spikes(rng: np.random.Generator, n: int, k: int) -> Floats:
    """A job each night for half an hour, and a small one every hour."""
    at = np.arange(n)[:, None]
    night = rng.integers(0, DAY, k)
    nightly = (at - night) % DAY < 6
    hourly = (at - rng.integers(0, 12, k)) % 12 == 0
    noise = rng.normal(0, 2, (n, k))
    values: Floats = 40.0 + noise + nightly * rng.normal(200, 10, (n, k)) + hourly * 30.0
    return values


def _walk(rng: np.random.Generator, n: int, k: int) -> Floats:
    return 1_000.0 + np.cumsum(rng.normal(0, 1, (n, k)), axis=0)


def _sluggish(rng: np.random.Generator, n: int, k: int) -> Floats:
    """AR(1) with 0.95, started in its steady state."""
    noise = rng.normal(0, 1, (n, k))
    values = np.empty((n, k))
    values[0] = noise[0] / np.sqrt(1 - 0.95**2)
    for i in range(1, n):
        values[i] = 0.95 * values[i - 1] + noise[i]
    return 100.0 + values


def _on_off(rng: np.random.Generator, n: int, k: int) -> Floats:
    """On for eight hours a day."""
    at = np.arange(n)[:, None]
    is_on = (at - rng.integers(0, DAY, k)) % DAY < DAY // 3
    return 20.0 + 60.0 * is_on + rng.normal(0, 1, (n, k))


# Anomalies: each changes one series from a window on, and says how many windows count as found.


class Anomaly(NamedTuple):
    put: Callable[[np.random.Generator, Floats, int, Family], int]
    delay_max: float | None = None  # windows, that the median delay may have


def _size(rng: np.random.Generator, series: Floats, at: int) -> float:
    """Half to all of the range; of half the level where the series does not move."""
    low, high = np.quantile(series[:at], (0.01, 0.99))
    extent = float(high - low) or float(abs(np.median(series[:at]))) / 2 or 5.0
    return float(rng.uniform(0.5, 1.0)) * extent


def _rounded(series: Floats, family: Family) -> None:
    """Counts stay whole and at least 0."""
    if family.is_count:
        series[:] = np.maximum(np.round(series), 0.0)


def _spike(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    length = int(rng.integers(1, 4))
    top = float(np.quantile(series[:at], 0.99))
    series[at : at + length] = top + _size(rng, series, at)
    _rounded(series, family)
    return length


def _dip(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    length = int(rng.integers(1, 4))
    bottom = float(np.quantile(series[:at], 0.01))
    series[at : at + length] = bottom - _size(rng, series, at)
    _rounded(series, family)
    return length


def _nothing(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    length = int(rng.integers(6, 37))
    series[at : at + length] = 0.0
    return length


def _up(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    series[at:] += _size(rng, series, at)
    _rounded(series, family)
    return DAY // 2


def _down(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    series[at:] -= _size(rng, series, at)
    _rounded(series, family)
    return DAY // 2


def _drift(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    """Within two days to twice the size."""
    slope = np.minimum(np.arange(len(series) - at) / (2 * DAY), 1.0)
    series[at:] += 2 * _size(rng, series, at) * slope
    _rounded(series, family)
    return 2 * DAY


def _variance(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    """For a day five times as far from what this time of day usually has."""
    days = at // DAY
    usual = series[at - days * DAY : at].reshape(days, DAY).mean(axis=0)
    part = series[at : at + DAY]
    part[:] = usual + 5 * (part - usual)
    _rounded(series, family)
    return DAY


def _flip(rng: np.random.Generator, series: Floats, at: int, family: Family) -> int:
    """For a day the season of half a day before."""
    series[at : at + DAY] = series[at - DAY // 2 : at + DAY // 2].copy()
    return DAY


ANOMALIES: Mapping[str, Anomaly] = {
    "spike": Anomaly(_spike, 0),
    "dip": Anomaly(_dip, 0),
    "nothing": Anomaly(_nothing, 0),
    "up": Anomaly(_up, 3),
    "down": Anomaly(_down, 3),
    "drift": Anomaly(_drift),
    "variance": Anomaly(_variance),
    "flip": Anomaly(_flip),
}

_NO_SEASON = frozenset({"flip"})
_NEAR_ZERO = frozenset({"dip", "nothing", "down"})

FAMILIES: Mapping[str, Family] = {
    "constant": Family(_constant, unfit=_NO_SEASON | {"variance"}),
    "white noise": Family(_white_noise, unfit=_NO_SEASON),
    "daily": Family(_daily),
    "weekly": Family(_weekly, unfit=frozenset({"variance"})),  # its mean of a day means little
    "counts": Family(_counts, is_count=True, unfit=_NEAR_ZERO - {"nothing"}),
    "sparse counts": Family(_sparse, is_count=True, unfit=_NO_SEASON | _NEAR_ZERO | {"variance"}),
    "heavy tail": Family(_heavy_tail, unfit=_NO_SEASON | {"variance"}),
    "regular spikes": Family(_spikes),
    "random walk": Family(_walk, unfit=_NO_SEASON | {"variance", "drift"}),
    "sluggish": Family(_sluggish, unfit=_NO_SEASON),
    "on and off": Family(_on_off),
}
