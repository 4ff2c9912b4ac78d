"""How long things took, at any percentile: HdrHistograms whose sum over workers is exact.

http://hdrhistogram.org: three digits from a microsecond to an hour, in 188 KB, whatever comes.
A percentile of percentiles means nothing, so a summary carries its histogram, in microseconds:
`merged` adds those of several workers.
"""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram
from msgspec import Struct

LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3
_PERCENTILES = (50, 90, 99, 99.9)


class Latency(Struct, frozen=True):
    """Milliseconds; zeros where nothing was recorded. `histogram` is base64, in microseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    histogram: str


class LatencyRecorder:
    """One kind of latency, since the process began."""

    def __init__(self) -> None:
        self._histogram = _empty()

    def __repr__(self) -> str:
        return f"<LatencyRecorder {self._histogram.get_total_count()} values>"

    def record(self, seconds: float, n: int = 1) -> None:
        """n times `seconds`, clamped to 1 µs … 1 h: clocks of two machines may even say less."""
        us = min(max(round(seconds * 1e6), LOWEST_US), HIGHEST_US)
        assert self._histogram.record_value(us, n), f"{us} µs is out of bounds"

    def summary(self) -> Latency:
        """All of it so far; takes about 2 ms."""
        return _summary(self._histogram)


def merged(histograms: Iterable[str]) -> Latency:
    """What several workers recorded, as one; from the `histogram` of their summaries."""
    total = _empty()
    for encoded in histograms:
        total.add(HdrHistogram.decode(encoded))
    return _summary(total)


def _empty() -> HdrHistogram:
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def _summary(histogram: HdrHistogram) -> Latency:
    values = histogram.get_percentile_to_value_dict(list(_PERCENTILES))  # empty without values
    p50, p90, p99, p999 = (_ms(values.get(percentile, 0)) for percentile in _PERCENTILES)
    return Latency(
        count=histogram.get_total_count(),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=_ms(histogram.get_max_value()),
        histogram=histogram.encode().decode("ascii"),
    )


def _ms(us: int) -> float:
    """A value is told by its bucket's upper end, which may lie beyond the highest value."""
    return min(us, HIGHEST_US) / 1_000
