"""A bounded memory of values already seen, for many series at once, and how new a value is to it.

A series keeps up to 128 prototypes. A value next to one refreshes it; any other is stored, in
place of the one that was met least recently. A prototype not met for 4,000 windows is forgotten.
`novelty` is the distance to the nearest prototype in units of the series' own scale, as a
logarithm: 3 is a distance of one scale, 2 a tenth of it.

Rows are float32 and an empty place holds 3e38: far from everything, so that the inner loop needs
no mask. Call with a few thousand rows at most (`CHUNK`), or the matrix of distances leaves the
cache. All arithmetic is row by row, so what else is in a batch never shows in a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from processor.model import Bools, Column, Floats, Rows, State

Singles = npt.NDArray[np.float32]

CHUNK = 2_048  # rows: their distances are 1 MiB
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


MEAN_GAIN = gain(200)
SPREAD_GAIN = gain(1_500)
RANGE_GAIN = gain(20_000)


class Recall(NamedTuple):
    """What the memory says of values before it learns them; float32[n] unless said."""

    place: Rows  # of the nearest prototype
    nearest: Singles  # that prototype
    distance: Singles  # to it
    scale: Singles
    novelty: Floats  # float64[n]
    is_usual: Bools  # within the ordinary spread: not only met before, but every-day
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
    """Room for the distances of n rows or a chunk; made once a wave, as fresh pages are slow."""
    return np.empty((min(n, CHUNK), PROTOTYPES), dtype=np.float32)


def recall(
    state: State, prefix: str, rows: Rows, values: Singles, warm_up: int, room: Singles
) -> Recall:
    """How new `values` are; `rows` each once, `values` finite and at most 1e31 in size."""
    place, nearest = _nearest(state[f"{prefix}.prototypes"], rows, values, room[: len(rows)])
    distance = np.abs(nearest - values)
    lowest, highest = state[f"{prefix}.lowest"][rows], state[f"{prefix}.highest"][rows]
    spread = state[f"{prefix}.spread"][rows]
    away = np.abs(values - state[f"{prefix}.mean"][rows])
    floor = np.float32(0.01) * (highest - lowest)
    return Recall(
        place=place,
        nearest=nearest,
        distance=distance,
        scale=(scale := spread + np.float32(0.3) * away + floor),
        novelty=_novelty(distance, scale, state[f"{prefix}.windows"][rows] >= warm_up),
        # For a normal distribution four times the mean deviation is 3.2 standard deviations.
        is_usual=away <= np.float32(4) * spread + floor,
        lowest=lowest,
        highest=highest,
    )


def learn(state: State, prefix: str, rows: Rows, values: Singles, seen: Recall) -> None:
    """Take `values` in; `seen` is what `recall` said of them."""
    windows = state[f"{prefix}.windows"]
    met = windows[rows]
    _sweep(state, prefix, rows[met % SWEEP_EVERY == 0])
    place = seen.place.copy()
    is_new = seen.distance > np.float32(NEAR) * seen.scale
    oldest = _oldest(state[f"{prefix}.met"], rows[is_new], met[is_new])
    place[is_new] = oldest
    state[f"{prefix}.prototypes"][rows[is_new], oldest] = values[is_new]
    state[f"{prefix}.met"][rows, place] = (met & 0xFFFF).astype(np.uint16)
    _learn_scale(state, prefix, rows, values, met)
    windows[rows] = met + np.uint32(1)


def reach(scale: Singles, novelty: Floats) -> Floats:
    """The inverse of novelty: the distance at which it is reached, float64[n]."""
    return scale.astype(np.float64) * np.maximum(10.0 ** (novelty - 3.0) - 1e-3, 0.0)


def _nearest(
    prototypes: npt.NDArray[Any], rows: Rows, values: Singles, distances: Singles
) -> tuple[Rows, Singles]:
    # Any mode but the default writes to `out` without a copy; the rows are there in any case.
    np.take(prototypes, rows, axis=0, out=distances, mode="clip")
    np.subtract(distances, values[:, None], out=distances)
    np.abs(distances, out=distances)
    place = distances.argmin(axis=1)
    return place, prototypes[rows, place]


def _novelty(distance: Singles, scale: Singles, is_warm: Bools) -> Floats:
    # In float64 nothing overflows here. A scale of nothing comes with a distance of nothing.
    ratio = distance.astype(np.float64) / np.maximum(scale, np.finfo(np.float32).tiny)
    novelty = np.maximum(np.log10(ratio + 1e-3) + 3.0, 0.0)
    return np.where(is_warm, novelty, 0.0)


def _sweep(state: State, prefix: str, rows: Rows) -> None:
    """Forget what was not met for long, and keep the dates of empty places from wrapping."""
    if not len(rows):
        return
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
    state: State, prefix: str, rows: Rows, values: Singles, windows: npt.NDArray[Any]
) -> None:
    """Exponential means, plain ones while a series is younger than their half-life."""
    age = windows.astype(np.float32)
    is_first = windows == 0
    mean = np.where(is_first, values, state[f"{prefix}.mean"][rows])
    away = values - mean
    mean_gain = np.maximum(np.float32(1) / (age + np.float32(1)), np.float32(MEAN_GAIN))
    state[f"{prefix}.mean"][rows] = mean + away * mean_gain

    spread = state[f"{prefix}.spread"][rows]
    # The first value has no deviation, so the n-th window brings the n-1-th deviation.
    spread_gain = np.maximum(np.float32(1) / np.maximum(age, 1), np.float32(SPREAD_GAIN))
    state[f"{prefix}.spread"][rows] = spread + (np.abs(away) - spread) * spread_gain

    shrink = np.float32(RANGE_GAIN)
    lowest = np.where(is_first, values, state[f"{prefix}.lowest"][rows])
    highest = np.where(is_first, values, state[f"{prefix}.highest"][rows])
    lowest += (mean - lowest) * shrink
    highest -= (highest - mean) * shrink
    state[f"{prefix}.lowest"][rows] = np.minimum(lowest, values)
    state[f"{prefix}.highest"][rows] = np.maximum(highest, values)
