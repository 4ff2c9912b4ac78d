"""A bounded memory of values already seen, for many series at once, and how new a value is to it.

A series keeps up to 128 prototypes. A value next to one refreshes it; any other is stored, in
place of the one that was met least recently. A prototype not met for 4,000 windows is forgotten.
Novelty is the distance to the nearest prototype in units of the series' own scale, as a logarithm:
3 is a distance of one scale, 2 a tenth of it; `Recall.newness` is the same before the logarithm.

Rows are float32 and an empty place holds 3e38: far from everything, so that the inner loop needs
no mask. Call with a few thousand rows at most (`CHUNK`), or the columns of a chunk leave the cache.
All arithmetic is row by row, so what else is in a batch never shows in a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processor.model import Bools, Column, Floats, Ints, Rows, State

Singles = npt.NDArray[np.float32]

CHUNK = 2_048  # rows a call
_STRIP = 512  # rows whose distances are taken at once: 256 KiB. 256 rows cost 0.05 µs a point more
PROTOTYPES = 128  # half as many cost 3 points on NAB
EMPTY = 3e38
FORGET_AFTER = 4_000  # windows
SWEEP_EVERY = 256  # windows, for it costs as much as scoring; so one may live 255 longer
NEAR = 0.05  # of the scale: within it a value counts as met before

# Places are dated with the low 16 bits of the series' window count. Sweeping sets the date of every
# old or empty place to this age, so no age ever comes near 2^16 and empty places count as oldest.
_OLD = FORGET_AFTER + 1
_NEVER = 2**16 - _OLD


def gain(half_life: float) -> float:
    """The gain of an exponential mean, from its half-life in windows."""
    return 1.0 - float(2.0 ** (-1.0 / half_life))


# What the scale is made of, beside the spread. Against 0.3 and 0.01: half as many false alarms on
# clean series with heavy tails at the threshold that is best for NAB, which itself is 1 point up.
AWAY_WEIGHT = 0.5  # of a value's distance from the mean: far out, gaps are wide by nature
RANGE_WEIGHT = 0.03
NEWNESS_MIN = 1e-3

MEAN_GAIN = gain(500)  # 200 costs 0.6 points on NAB, and 0.1 of the threshold on random walks
SPREAD_GAIN = gain(1_500)
RANGE_GAIN = gain(20_000)


class Recall(NamedTuple):
    """What the memory says of values before it learns them; float32[n] unless said."""

    place: Rows  # of the nearest prototype
    nearest: Singles  # that prototype
    distance: Singles  # to it
    scale: Singles
    newness: Floats  # float64[n]: distance / scale, and a thousandth; `novelty` without logarithm
    away: Singles  # from the recent mean
    spread: Singles
    lowest: Singles  # of the range, as far as it is remembered
    highest: Singles


def columns(prefix: str) -> tuple[Column, ...]:
    """One memory's columns; a detector may hold several under different prefixes."""
    return (
        Column(f"{prefix}.prototypes", "<f4", EMPTY, PROTOTYPES),
        Column(f"{prefix}.met", "<u2", _NEVER, PROTOTYPES),
        Column(f"{prefix}.windows", "<u4"),
        Column(f"{prefix}.mean", "<f4"),
        Column(f"{prefix}.spread", "<f4"),
        Column(f"{prefix}.lowest", "<f4"),
        Column(f"{prefix}.highest", "<f4"),
    )


def scratch(n: int) -> Singles:
    """Room for the distances of n rows or a strip; made once a wave, as fresh pages are slow."""
    return np.empty((min(n, _STRIP), PROTOTYPES), dtype=np.float32)


def recall(
    state: State, prefix: str, rows: Rows, values: Singles, warm_up: int, room: Singles
) -> Recall:
    """How new `values` are; `rows` each once, `values` finite and at most 1e31 in size."""
    at = span(rows)
    place, nearest = _nearest(state[f"{prefix}.prototypes"], rows, values, room)
    distance = np.abs(nearest - values)
    lowest, highest = state[f"{prefix}.lowest"][at], state[f"{prefix}.highest"][at]
    spread = state[f"{prefix}.spread"][at]
    away = np.abs(values - state[f"{prefix}.mean"][at])
    scale = spread + np.float32(AWAY_WEIGHT) * away + np.float32(RANGE_WEIGHT) * (highest - lowest)
    is_warm = state[f"{prefix}.windows"][at] >= warm_up
    return Recall(
        place,
        nearest,
        distance,
        scale,
        _newness(distance, scale, is_warm),
        away,
        spread.copy(),
        lowest.copy(),
        highest.copy(),
    )


def is_usual(seen: Recall) -> Bools:
    """Within the ordinary spread: not only met before, but every-day."""
    # For a normal distribution four times the mean deviation is 3.2 standard deviations.
    floor = np.float32(0.01) * (seen.highest - seen.lowest)
    usual: Bools = seen.away <= np.float32(4) * seen.spread + floor
    return usual


def learn(state: State, prefix: str, rows: Rows, values: Singles, seen: Recall) -> None:
    """Take `values` in; `seen` is what `recall` said of them."""
    at = span(rows)
    windows = state[f"{prefix}.windows"]
    met = windows[at].copy()
    due = met % SWEEP_EVERY == 0
    if due.any():
        _sweep(state, prefix, rows[due])
    _store(state, prefix, rows, values, met, seen)
    _learn_scale(state, prefix, at, values, met)
    windows[at] = met + np.uint32(1)


def keep(state: State, prefix: str, rows: Rows, values: Singles) -> None:
    """Remember `values` as if met in the window before, and nothing else."""
    seen = recall(state, prefix, rows, values, 0, scratch(len(rows)))
    windows = state[f"{prefix}.windows"][rows]
    _store(state, prefix, rows, values, windows - np.minimum(windows, 1), seen)


def reach(scale: Singles, novelty: float, more: Floats) -> Floats:
    """The distance at which a novelty of `novelty + more` is reached, float64[n]."""
    newness = np.full(len(scale), 10.0 ** (novelty - 3.0))
    some = np.flatnonzero(more)
    newness[some] *= 10.0 ** more[some]
    far: Floats = scale.astype(np.float64) * np.maximum(newness - NEWNESS_MIN, 0.0)
    return far


def ages(state: State, prefix: str, rows: Rows, place: Rows) -> Ints:
    """How many windows ago the prototypes at `place` were met last; int64[n], before `learn`."""
    now = (state[f"{prefix}.windows"][rows] & 0xFFFF).astype(np.uint16)
    return (now - state[f"{prefix}.met"][rows, place]).astype(np.int64)


def span(rows: Rows) -> Any:
    """The rows as a slice, where they lie side by side in order: views instead of copies."""
    n = len(rows)
    if n and rows[-1] - rows[0] == n - 1 and (n == 1 or bool((rows[1:] > rows[:-1]).all())):
        return slice(int(rows[0]), int(rows[0]) + n)
    return rows


def _nearest(
    prototypes: npt.NDArray[Any], rows: Rows, values: Singles, room: Singles
) -> tuple[Rows, Singles]:
    place = np.empty(len(rows), dtype=np.intp)
    for first in range(0, len(rows), _STRIP):
        strip = rows[first : first + _STRIP]
        distances = room[: len(strip)]
        if isinstance(at := span(strip), slice):
            np.subtract(prototypes[at], values[first : first + _STRIP, None], out=distances)
        else:
            # Any mode but the default writes to `out` without a copy; the rows are there anyway.
            np.take(prototypes, strip, axis=0, out=distances, mode="clip")
            np.subtract(distances, values[first : first + _STRIP, None], out=distances)
        np.abs(distances, out=distances)
        np.argmin(distances, axis=1, out=place[first : first + _STRIP])
    return place, prototypes[rows, place]


def _newness(distance: Singles, scale: Singles, is_warm: Bools) -> Floats:
    # In float64 nothing overflows here. A scale of nothing comes with a distance of nothing.
    ratio = distance.astype(np.float64) / np.maximum(scale, np.finfo(np.float32).tiny)
    newness: Floats = np.where(is_warm, ratio, 0.0) + NEWNESS_MIN
    return newness


def _store(
    state: State,
    prefix: str,
    rows: Rows,
    values: Singles,
    windows: npt.NDArray[Any],
    seen: Recall,
) -> None:
    """A value near a prototype refreshes it; another takes the place of the oldest."""
    place = seen.place
    new = np.flatnonzero(seen.distance > np.float32(NEAR) * seen.scale)
    if len(new):
        place = place.copy()
        place[new] = _oldest(state[f"{prefix}.met"], rows[new], windows[new])
        state[f"{prefix}.prototypes"][rows[new], place[new]] = values[new]
    state[f"{prefix}.met"][rows, place] = (windows & 0xFFFF).astype(np.uint16)


def _sweep(state: State, prefix: str, rows: Rows) -> None:
    """Forget what was not met for long, and keep the dates of empty places from wrapping."""
    met = state[f"{prefix}.met"][rows]
    now = (state[f"{prefix}.windows"][rows] & 0xFFFF).astype(np.uint16)[:, None]
    is_old = (now - met) > FORGET_AFTER
    state[f"{prefix}.prototypes"][rows] = np.where(
        is_old, np.float32(EMPTY), state[f"{prefix}.prototypes"][rows]
    )
    state[f"{prefix}.met"][rows] = np.where(is_old, now - np.uint16(_OLD), met)


def _oldest(met: npt.NDArray[Any], rows: Rows, windows: npt.NDArray[Any]) -> Rows:
    now = (windows & 0xFFFF).astype(np.uint16)
    oldest: Rows = (now[:, None] - met[rows]).argmax(axis=1)
    return oldest


def _learn_scale(
    state: State, prefix: str, at: Any, values: Singles, windows: npt.NDArray[Any]
) -> None:
    """Exponential means, plain ones while a series is younger than their half-life."""
    age = windows.astype(np.float32)
    is_first = windows == 0
    mean = np.where(is_first, values, state[f"{prefix}.mean"][at])
    away = values - mean
    mean_gain = np.maximum(np.float32(1) / (age + np.float32(1)), np.float32(MEAN_GAIN))
    state[f"{prefix}.mean"][at] = mean + away * mean_gain

    spread = state[f"{prefix}.spread"][at]
    # The first value has no deviation, so the n-th window brings the n-1-th deviation.
    spread_gain = np.maximum(np.float32(1) / np.maximum(age, 1), np.float32(SPREAD_GAIN))
    state[f"{prefix}.spread"][at] = spread + (np.abs(away) - spread) * spread_gain

    shrink = np.float32(RANGE_GAIN)
    lowest = np.where(is_first, values, state[f"{prefix}.lowest"][at])
    highest = np.where(is_first, values, state[f"{prefix}.highest"][at])
    lowest += (mean - lowest) * shrink
    highest -= (highest - mean) * shrink
    state[f"{prefix}.lowest"][at] = np.minimum(lowest, values)
    state[f"{prefix}.highest"][at] = np.maximum(highest, values)
