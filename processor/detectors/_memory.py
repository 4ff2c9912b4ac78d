"""A bounded memory of values already seen, for many series at once, and how new a value is to it.

Up to 112 or 128 prototypes are kept. A value next to one refreshes it; any other is stored, in
place of the one that was met least recently. A prototype not met for 4,000 windows is forgotten.
Novelty is the distance to the nearest prototype in units of the series' own scale, as a logarithm:
3 is a distance of one scale, 2 a tenth of it; `Recall.newness` is the same before the logarithm.

The looks at a series lie side by side, and each is a *cell*: all of them are searched and learnt in
the same calls, which at one series are nearly all that a point costs. Prototypes are float32 and an
empty place holds 3e38: far from everything, so that the inner loop needs no mask. Call with a few
thousand series at most (`CHUNK`), or the columns of a chunk leave the cache. All arithmetic is cell
by cell, so what else is in a batch never shows in a result.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processor.model import Bools, Column, Floats, Ints, Rows, State

Singles = npt.NDArray[np.float32]
Dates = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.uint32]

CHUNK = 2_048  # series a call
_STRIP = 512  # cells whose distances are taken at once: 256 KiB
PROTOTYPES = 128
FEW = 112  # where a series is to take less than 1 kB
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


# What the scale is made of, beside the spread: the more of both, the fewer false alarms where tails
# are heavy.
AWAY_WEIGHT = 0.5  # of a value's distance from the mean: far out, gaps are wide by nature
RANGE_WEIGHT = 0.03
NEWNESS_MIN = 1e-3
_TINY = np.finfo(np.float32).tiny

MEAN_GAIN = gain(500)
SPREAD_GAIN = gain(1_500)
RANGE_GAIN = gain(20_000)


class Cells(NamedTuple):
    """The looks at n series, a memory each: the columns, and where in them these are."""

    at: Any  # a slice where they lie side by side, else as `rows`
    rows: Rows  # intp[n · looks]
    prototypes: Singles  # [cells, prototypes a cell]
    met: Dates  # likewise
    mean: Singles  # [cells], as are the others
    spread: Singles
    lowest: Singles
    highest: Singles


class Recall(NamedTuple):
    """What the memory says of values before it learns them; float32 and one a cell unless said.

    Of series side by side some are views, which `learn` changes.
    """

    spot: Rows  # where the nearest prototype is, in all prototypes
    nearest: Singles  # that prototype
    distance: Singles  # to it
    scale: Singles
    newness: Floats  # float64: distance / scale, and a thousandth; `novelty` without logarithm
    away: Singles  # from the recent mean
    spread: Singles
    lowest: Singles  # of the range, as far as it is remembered
    highest: Singles


def columns(looks: int, kept: int) -> tuple[Column, ...]:
    """The memories of one series; what `windows` counts is the same for all of its looks, each of
    which has room for `kept` prototypes."""
    return (
        Column("prototypes", "<f4", EMPTY, looks * kept),
        Column("met", "<u2", _NEVER, looks * kept),
        Column("windows", "<u4"),
        Column("mean", "<f4", 0, looks),
        Column("spread", "<f4", 0, looks),
        Column("lowest", "<f4", 0, looks),
        Column("highest", "<f4", 0, looks),
    )


def scratch(state: State, looks: int, n: int) -> Singles:
    """Room for the distances of n series or a strip; made once a wave, as fresh pages are slow."""
    return np.empty((min(n * looks, _STRIP), _kept(state, looks)), dtype=np.float32)


def cells(state: State, at: Any, rows: Rows, looks: int) -> Cells:
    """Of series at `rows`, each once; `at` is `span(rows)`."""
    kept = _kept(state, looks)
    if looks > 1:
        rows = (rows[:, None] * looks + _lanes(looks)).ravel()
        at = slice(at.start * looks, at.stop * looks) if isinstance(at, slice) else rows
    return Cells(
        at,
        rows,
        state["prototypes"].reshape(-1, kept),
        state["met"].reshape(-1, kept),
        state["mean"].reshape(-1),
        state["spread"].reshape(-1),
        state["lowest"].reshape(-1),
        state["highest"].reshape(-1),
    )


def recall(memory: Cells, values: Singles, is_warm: Bools, room: Singles) -> Recall:
    """How new `values` are to each cell; finite and at most 1e31 in size."""
    at = memory.at
    spot = _nearest(memory, values, room)
    nearest = memory.prototypes.reshape(-1)[spot]
    distance = np.abs(nearest - values)
    lowest, highest, spread = memory.lowest[at], memory.highest[at], memory.spread[at]
    away = np.abs(values - memory.mean[at])
    scale = spread + np.float32(AWAY_WEIGHT) * away + np.float32(RANGE_WEIGHT) * (highest - lowest)
    newness = _newness(distance, scale, is_warm)
    return Recall(spot, nearest, distance, scale, newness, away, spread, lowest, highest)


def learn(memory: Cells, values: Singles, windows: Counts, seen: Recall) -> None:
    """Take `values` in; `seen` is what `recall` said of them, `windows` the number before, each a
    cell's."""
    due = np.flatnonzero(windows % SWEEP_EVERY == 0)
    if len(due):
        _sweep(memory, memory.rows[due], windows[due])
    _store(memory, values, windows, seen)
    _learn_scale(memory, values, windows)


def keep(memory: Cells, values: Singles, windows: Counts, room: Singles) -> None:
    """Remember `values` as if met in the window before, and nothing else."""
    cold = np.zeros(len(values), dtype=np.bool_)
    seen = recall(memory, values, cold, room)
    _store(memory, values, windows - np.minimum(windows, 1), seen)


def ages(memory: Cells, spot: Rows, windows: Counts) -> Ints:
    """How many windows ago the prototypes at `spot` were met last; int64, before `learn`."""
    return (_date(windows) - memory.met.reshape(-1)[spot]).astype(np.int64)


def span(rows: Rows) -> Any:
    """The rows as a slice, where they lie side by side in order: views instead of copies."""
    n = len(rows)
    if n and rows[-1] - rows[0] == n - 1 and (n == 1 or bool((rows[1:] > rows[:-1]).all())):
        return slice(int(rows[0]), int(rows[0]) + n)
    return rows


@cache
def _lanes(looks: int) -> Rows:
    return np.arange(looks, dtype=np.intp)


def _kept(state: State, looks: int) -> int:
    return int(state["prototypes"].shape[1]) // looks


def _date(windows: Counts) -> Dates:
    return windows.astype(np.uint16)  # the low 16 bits


def _nearest(memory: Cells, values: Singles, room: Singles) -> Rows:
    rows, prototypes = memory.rows, memory.prototypes
    place = np.empty(len(rows), dtype=np.intp)
    begin = memory.at.start if isinstance(memory.at, slice) else None
    for first in range(0, len(rows), _STRIP):
        strip = values[first : first + _STRIP, None]
        distances = room[: len(strip)]
        if begin is not None:
            there = prototypes[begin + first : begin + first + len(strip)]
            np.subtract(there, strip, out=distances)
        else:
            # Any mode but the default writes to `out` without a copy; the rows are there anyway.
            chosen = rows[first : first + _STRIP]
            np.take(prototypes, chosen, axis=0, out=distances, mode="clip")
            np.subtract(distances, strip, out=distances)
        np.abs(distances, out=distances)
        distances.argmin(axis=1, out=place[first : first + _STRIP])
    place += rows * prototypes.shape[1]
    return place


def _newness(distance: Singles, scale: Singles, is_warm: Bools) -> Floats:
    # In float64 nothing overflows here. A scale of nothing comes with a distance of nothing.
    newness = distance.astype(np.float64)
    newness /= np.maximum(scale, _TINY)
    newness *= is_warm
    newness += NEWNESS_MIN
    return newness


def _store(memory: Cells, values: Singles, windows: Counts, seen: Recall) -> None:
    """A value near a prototype refreshes it; another takes the place of the oldest."""
    spot, date = seen.spot, _date(windows)
    new = np.flatnonzero(seen.distance > np.float32(NEAR) * seen.scale)
    if len(new):
        spot = spot.copy()
        oldest = _oldest(memory.met, memory.rows[new], date[new])
        spot[new] = oldest
        memory.prototypes.reshape(-1)[oldest] = values[new]
    memory.met.reshape(-1)[spot] = date


def _sweep(memory: Cells, rows: Rows, windows: Counts) -> None:
    """Forget what was not met for long, and keep the dates of empty places from wrapping."""
    met, now = memory.met[rows], _date(windows)[:, None]
    is_old = (now - met) > FORGET_AFTER
    memory.prototypes[rows] = np.where(is_old, np.float32(EMPTY), memory.prototypes[rows])
    memory.met[rows] = np.where(is_old, now - np.uint16(_OLD), met)


def _oldest(met: Dates, rows: Rows, now: Dates) -> Rows:
    """Where the date is the longest ago, in all dates."""
    place: Rows = rows * met.shape[1]
    for first in range(0, len(rows), _STRIP):
        ages = met[rows[first : first + _STRIP]]
        np.subtract(now[first : first + _STRIP, None], ages, out=ages)
        place[first : first + _STRIP] += ages.argmax(axis=1)
    return place


def _learn_scale(memory: Cells, values: Singles, windows: Counts) -> None:
    """Exponential means, plain ones while a series is younger than their half-life."""
    at, age = memory.at, windows.astype(np.float32)
    first = np.flatnonzero(windows == 0)
    if len(first):
        rows = memory.rows[first]
        for column in (memory.mean, memory.lowest, memory.highest):
            column[rows] = values[first]
    mean, spread = memory.mean[at], memory.spread[at]
    lowest, highest = memory.lowest[at], memory.highest[at]
    away = values - mean
    # The first value has no deviation, so the n-th window brings the n-1-th deviation.
    spread_gain = np.maximum(np.float32(1) / np.maximum(age, 1), np.float32(SPREAD_GAIN))
    memory.spread[at] = spread + (np.abs(away) - spread) * spread_gain
    shrink = np.float32(RANGE_GAIN)
    memory.lowest[at] = np.minimum(lowest + (mean - lowest) * shrink, values)
    memory.highest[at] = np.maximum(highest - (highest - mean) * shrink, values)
    mean_gain = np.maximum(np.float32(1) / (age + np.float32(1)), np.float32(MEAN_GAIN))
    memory.mean[at] = mean + away * mean_gain
