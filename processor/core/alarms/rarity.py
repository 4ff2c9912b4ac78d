"""How rare a score is: two histograms a detector of a rule, fading by event time.

    windows    the scores of all windows: how often one as high comes
    openings   the scores with which alarms opened: how many would open above a bar

Buckets are those of HdrHistogram (Tene, 2013): 32 an octave, equally wide within it, which is the
top of the bits of a double; so a bucket is a shift, and the same on every machine. Counts fade by
half every HALF_LIFE_MS, and so does the time over which they were counted: a rate stays what it is.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from processor.model import Floats, Rows

_SHIFT = 52 - 5  # 5 bits of a double's mantissa: buckets are 1.6 to 3.1 % wide
_LOWEST, _HIGHEST = 2.0**-4, 2.0**16  # scores beyond count as these
_BASE = int(np.float64(_LOWEST).view(np.int64)) >> _SHIFT
BUCKETS = (int(np.float64(_HIGHEST).view(np.int64)) >> _SHIFT) - _BASE

HALF_LIFE_MS = 7 * 86_400_000  # a week: weekends are in it, and last month's storm is not
WINDOWS_MIN = 1_000  # with fewer, "once in so many" would be a guess


def bucket(scores: Floats) -> Rows:
    """intp[n]: each score's bucket; those at or below the lowest are in the first."""
    places = (np.maximum(scores, _LOWEST).view(np.int64) >> _SHIFT) - _BASE
    capped: Rows = np.minimum(places, BUCKETS - 1).astype(np.intp)
    return capped


def edge(place: int) -> float:
    """The lowest score of a bucket."""
    return float(np.int64((place + _BASE) << _SHIFT).view(np.float64))


class Saved(Struct, frozen=True, array_like=True):
    """A Rarity in a snapshot."""

    windows: bytes
    openings: bytes
    span_ms: float
    at_ms: int | None


class Rarity:
    """Of one detector of one rule, on one shard."""

    def __init__(self) -> None:
        self._windows: Floats = np.zeros(BUCKETS)
        self._openings: Floats = np.zeros(BUCKETS)
        self._span_ms = 0.0  # over which was counted, faded as the counts are
        self._at_ms: int | None = None  # end of the last window

    def __repr__(self) -> str:
        return f"<Rarity of {self._windows.sum():.0f} windows, {self._openings.sum():.1f} openings>"

    def on_wave(self, end_ms: int, size_ms: int, scores: Floats) -> None:
        """Count a wave's scores, float64[n]; NaN where nothing was judged."""
        self._fade_to(end_ms, size_ms)
        judged = scores[~np.isnan(scores)]
        if len(judged):
            self._windows += np.bincount(bucket(judged), minlength=BUCKETS)

    def _fade_to(self, end_ms: int, size_ms: int) -> None:
        past_ms = size_ms if self._at_ms is None else max(0, end_ms - self._at_ms)
        kept = 0.5 ** (past_ms / HALF_LIFE_MS)
        self._windows *= kept
        self._openings *= kept
        self._span_ms = self._span_ms * kept + past_ms
        self._at_ms = end_ms if self._at_ms is None else max(self._at_ms, end_ms)

    def on_openings(self, scores: Floats) -> None:
        """Alarms opened with these scores, told or not; scores that are NaN count nowhere."""
        self._openings += np.bincount(bucket(scores[~np.isnan(scores)]), minlength=BUCKETS)

    def merge_openings(self, scores: Floats) -> None:
        """Of openings that were counted, only the highest counts: they are told as one event."""
        known = scores[~np.isnan(scores)]
        if len(known) > 1:
            places = np.sort(bucket(known))[:-1]
            self._openings -= np.bincount(places, minlength=BUCKETS)
            np.maximum(self._openings, 0.0, out=self._openings)

    def expected_every(self, score: float) -> float | None:
        """One window in how many has such a score or a higher one; None where too few are known."""
        total = float(self._windows.sum())
        if not total >= WINDOWS_MIN or np.isnan(score):
            return None
        above = float(self._windows[bucket(np.array([score]))[0] :].sum())
        return max(1.0, total / above) if above > 0 else None

    def bar(self, openings: float, period_ms: int) -> float:
        """The least score above which no more than `openings` a period are to be expected; 0.0
        where all of them together are no more.

        Over less than a period it is the openings so far that count.
        """
        above = np.cumsum(self._openings[::-1])[::-1] * (period_ms / max(self._span_ms, period_ms))
        fitting = np.flatnonzero(above <= openings)
        place = int(fitting[0]) if len(fitting) else BUCKETS
        return 0.0 if place == 0 else edge(place)

    # ---- state --------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        return Saved(self._windows.tobytes(), self._openings.tobytes(), self._span_ms, self._at_ms)

    def adopt(self, saved: Saved, share: float = 1.0) -> None:
        """Go on from a state, own or of a parent, `share` of whose series came along.

        Of several parents the counts are added up, and the time is that of the longest. Raises
        ValueError where bytes don't fit.
        """
        windows, openings = (
            np.frombuffer(column, dtype=np.float64).copy()
            for column in (saved.windows, saved.openings)
        )
        if len(windows) != BUCKETS or len(openings) != BUCKETS:
            raise ValueError(f"histograms of {len(windows)} buckets, expected {BUCKETS}")
        other = Rarity()
        other._windows, other._openings = windows * share, openings * share
        other._span_ms, other._at_ms = saved.span_ms, saved.at_ms
        latest = max((at for at in (self._at_ms, other._at_ms) if at is not None), default=None)
        if latest is not None:
            for one in (self, other):
                if one._at_ms is not None:
                    one._fade_to(latest, 0)
        self._windows += other._windows
        self._openings += other._openings
        self._span_ms = max(self._span_ms, other._span_ms)
        self._at_ms = latest
