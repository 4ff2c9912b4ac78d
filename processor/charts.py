"""Charts of series and of trade-offs, as PNG or SVG, without a display and alike for alike data.

    figure = series_chart(Series("nyc_taxi", times_ms, values, lower=lower, upper=upper), alarms)
    save(figure, Path("nyc_taxi.png"))

matplotlib (the extra `plots`) is imported only when something is drawn. Texts come from data: they
are never read as formulas, and what XML can't hold is replaced. Every point that is drawn is one of
the series: where more windows than pixels are given, the smallest and the largest value of each
pixel's stretch stay, with the band of just those windows, so no spike is lost and none is smoothed.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color), told apart by all eyes; what matters
differs in shape as well.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from processor.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

INCHES, DPI = (9.0, 2.8), 110  # 990 × 308 pixels: three below one another on a laptop's screen
CURVE_INCHES = (6.0, 4.0)
COLUMNS = 700  # of pixels that a series' line can use: SVG's 72 points an inch, PNG's 110
TEXT_MAX = 100  # characters of a title: what fits the width
LEGEND_POINTS = 16  # between the picture and its title: a line of text
GAP_STEPS = 5  # a hole of more windows than that is drawn as one
DATED_MS = (-62_135_596_800_000, 253_402_300_799_999)  # years 1 to 9999: what a calendar can show
Y_ROOM = 0.35  # of the values' range: so far a band may widen the picture, and no further

INK, BLUE, SKY, ORANGE, RED = "#333333", "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREEN, PINK = "#009E73", "#CC79A7"
CURVES = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", "-."), (PINK, "D", ":"), (INK, "v", "-"))

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
_PATH = re.compile(r' d="[^"]*"')
_LONG = re.compile(r"(\.\d\d)\d+")
_NAMED = re.compile(r'( id="|url\(#|href="#)')


@dataclass(frozen=True, slots=True)
class Series:
    """n windows of one series, in order of time; NaN where there is nothing to draw.

    `times_ms`: int64[n], epoch milliseconds; the others float64[n] or None.
    """

    title: str
    times_ms: Ints
    values: Floats
    expected: Floats | None = None
    lower: Floats | None = None
    upper: Floats | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a trade-off chart, its points in the order in which they are joined."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def require() -> None:
    """Raises UsageError where matplotlib is missing: for work whose charts come at its end."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "charts need matplotlib, which is not installed; run: pip install 'processor[plots]'"
        ) from None


def series_chart(
    series: Series, alarms: Sequence[int] = (), labels: Sequence[tuple[int, int]] = ()
) -> Figure:
    """A series with its band; `alarms` are starts of windows, `labels` stretches, all in ms.

    Raises UsageError where matplotlib is missing.
    """
    with _style():
        figure = _figure(INCHES)
        axes = figure.subplots()
        _title(axes, series.title, LEGEND_POINTS)
        finite = np.isfinite(series.values)
        if not finite.any():
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
            return figure
        for i, (from_ms, to_ms) in enumerate(labels):
            name = "labelled" if i == 0 else None
            ends = _moments(np.array([from_ms, to_ms]), _is_dated(series.times_ms))
            axes.axvspan(*ends, color=ORANGE, alpha=0.25, lw=0, label=name, zorder=0)
        _draw(axes, series, _kept(series.times_ms, series.values, np.asarray(alarms, np.int64)))
        _mark(axes, series, np.asarray(alarms, np.int64))
        _limit(axes, series, finite)
        _say_axes(axes, _is_dated(series.times_ms))
        return figure


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Curves over a common pair of axes, such as recall over false alarms.

    Raises UsageError where matplotlib is missing.
    """
    with _style():
        figure = _figure(CURVE_INCHES)
        axes = figure.subplots()
        _title(axes, title)
        for i, curve in enumerate(curves):
            colour, marker, line = CURVES[i % len(CURVES)]
            name = plain(curve.name)
            axes.plot(curve.x, curve.y, line, color=colour, marker=marker, ms=4, lw=1.4, label=name)
        axes.set_xlabel(plain(x_label), parse_math=False)
        axes.set_ylabel(plain(y_label), parse_math=False)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        axes.grid(True)
        if len(curves) > 1:
            _unformulated(axes.legend(loc="best", fontsize=8))
        return figure


def save(figure: Figure, path: Path) -> None:
    """Write it as what the name says: `.png` or `.svg`. Raises OSError as any writing does."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"{path}: a chart's file ends in .png or .svg")
    path.write_bytes(svg(figure).encode() if kind == "svg" else _rendered(figure, "png"))


def svg(figure: Figure, prefix: str = "") -> str:
    """An SVG document from `<svg` on; `prefix` keeps names apart where a page holds several."""
    text = _rendered(figure, "svg").decode()
    text = text[text.index("<svg") :]
    # Hundredths of a point are finer than any screen, and half of the bytes.
    text = _PATH.sub(lambda found: _LONG.sub(r"\1", found[0]), text)
    return _NAMED.sub(rf"\g<1>{prefix}", text) if prefix else text


# ---- parts of a chart -----------------------------------------------------------------------


def _draw(axes: Axes, series: Series, kept: Ints) -> None:
    """The band, what is expected, the values; broken where windows are missing."""
    moments = _moments(series.times_ms[kept], _is_dated(series.times_ms))
    is_broken = _breaks(series.times_ms)[kept]

    def line(column: Floats) -> Floats:
        return np.where(np.isfinite(column[kept]), column[kept], np.nan)

    if series.lower is not None and series.upper is not None:
        lower, upper = line(series.lower), line(series.upper)
        whole = np.isfinite(lower) & np.isfinite(upper)
        axes.fill_between(
            moments, lower, upper, where=whole, color=SKY, alpha=0.35, lw=0, label="expected range"
        )
    if series.expected is not None:
        axes.plot(*_cut(moments, line(series.expected), is_broken), color=BLUE, lw=0.8, alpha=0.8)
    axes.plot(*_cut(moments, line(series.values), is_broken), color=INK, lw=0.8, label="value")


def _mark(axes: Axes, series: Series, alarms: Ints) -> None:
    """A line through each alarm, and a triangle on its value."""
    if not len(alarms):
        return
    at = np.clip(np.searchsorted(series.times_ms, alarms), 0, len(series.times_ms) - 1)
    values = series.values[at]
    moments = _moments(alarms, _is_dated(series.times_ms))
    for moment in moments:
        axes.axvline(moment, color=RED, lw=0.8, alpha=0.5, zorder=1)
    axes.plot(moments, values, "v", color=RED, ms=6, mec="white", mew=0.6, zorder=5, label="alarm")


def _limit(axes: Axes, series: Series, finite: npt.NDArray[np.bool_]) -> None:
    """All values are shown; of a wide band as much as leaves them readable."""
    low, high = float(series.values[finite].min()), float(series.values[finite].max())
    room = (high - low) or abs(high) or 1.0
    bottom, top = low, high
    for bound in (series.lower, series.upper):
        if bound is not None and np.isfinite(bound).any():
            bottom = min(bottom, float(np.nanmin(bound[np.isfinite(bound)])))
            top = max(top, float(np.nanmax(bound[np.isfinite(bound)])))
    bottom, top = max(bottom, low - Y_ROOM * room), min(top, high + Y_ROOM * room)
    margin = 0.06 * ((top - bottom) or room)
    axes.set_ylim(bottom - margin, top + margin)


def _say_axes(axes: Axes, is_dated: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if is_dated:
        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)
    axes.margins(x=0.01)
    axes.grid(True, axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=4, fontsize=8)


def _title(axes: Axes, title: str, pad: float = 6.0) -> None:
    text = textwrap.shorten(plain(title), TEXT_MAX, placeholder=" …")
    axes.set_title(text, parse_math=False, pad=pad)


def _figure(inches: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=inches, dpi=DPI, layout="constrained")


# ---- which points ---------------------------------------------------------------------------


def _kept(times_ms: Ints, values: Floats, alarms: Ints) -> Ints:
    """Windows to draw: all, or each pixel's smallest and largest, the ends, and those of alarms."""
    n = len(times_ms)
    if n <= 2 * COLUMNS:
        return np.arange(n)
    moments = times_ms.astype(np.float64)
    span = max(1.0, moments[-1] - moments[0])
    column = np.floor((moments - moments[0]) * (COLUMNS - 1) / span)
    known = np.where(np.isfinite(values), values, np.nan)
    by_low = np.lexsort((known, column))  # NaN sorts last: never the smallest of a column
    by_high = np.lexsort((-known, column))
    first = np.flatnonzero(np.diff(column[by_low], prepend=-1))
    edges = np.flatnonzero(_breaks(times_ms))
    at_alarms = np.clip(np.searchsorted(times_ms, alarms), 0, n - 1)
    ends = np.array([0, n - 1])
    parts = (by_low[first], by_high[first], edges, np.maximum(edges - 1, 0), at_alarms, ends)
    return np.unique(np.concatenate(parts))


def _breaks(times_ms: Ints) -> npt.NDArray[np.bool_]:
    """bool[n]: where a hole lies before the window."""
    steps = np.diff(times_ms, prepend=times_ms[:1])
    usual = np.median(steps[1:]) if len(steps) > 1 else 0
    is_broken: npt.NDArray[np.bool_] = steps > GAP_STEPS * usual
    return is_broken


def _cut(moments: Any, column: Floats, is_broken: npt.NDArray[np.bool_]) -> tuple[Any, Floats]:
    """With a NaN before each hole's end, so no line crosses it."""
    holes = np.flatnonzero(is_broken)
    return np.insert(moments, holes, moments[holes]), np.insert(column, holes, np.nan)


def _moments(times_ms: Ints, is_dated: bool) -> Any:
    """What the x axis takes: moments, or plain milliseconds outside of the calendar."""
    return times_ms.astype("datetime64[ms]") if is_dated else times_ms


def _is_dated(times_ms: Ints) -> bool:
    return len(times_ms) > 0 and bool(
        DATED_MS[0] <= times_ms.min() and times_ms.max() <= DATED_MS[1]
    )


# ---- matplotlib -----------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    """Our own look, whatever the user's matplotlibrc says. Raises UsageError without matplotlib."""
    require()
    import matplotlib

    settings: Any = {
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along
        "font.size": 8.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "svg.hashsalt": "processor",
        "svg.fonttype": "none",  # text stays text: searched, selected, read out
        "path.simplify": False,
        "timezone": "UTC",
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        # A name in letters that the font lacks is drawn as boxes: no reason to say more.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _rendered(figure: Figure, kind: str) -> bytes:
    """Without the date, which would make each file another. SVG's salt is part of the style."""
    out = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with _style():
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def plain(text: str) -> str:
    """Without what XML can't hold."""
    return _UNFIT.sub("\ufffd", text)


def _unformulated(legend: Any) -> None:
    for text in legend.get_texts():
        text.set_parse_math(False)
