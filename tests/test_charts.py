"""Charts: nothing that matters is lost, and what comes from data is text and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from processor import charts
from processor.charts import Curve, Series, curve_chart, save, series_chart, svg
from processor.errors import UsageError

MINUTE_MS = 60_000
HOSTILE = "a --> </svg><script>alert(1)</script> $\\frac{1}$ & \x00\x1b \ud800 日本"


def series(n: int, title: str = "cpu of i-1") -> Series:
    times_ms = np.arange(n, dtype=np.int64) * MINUTE_MS + 1_400_000_000_000
    values = np.sin(np.arange(n) / 50)
    return Series(title, times_ms, values, values * 0, values * 0 - 1.2, values * 0 + 1.2)


def line_y(figure: object, label: str) -> np.ndarray:
    [axes] = figure.axes  # type: ignore[attr-defined]
    [line] = [one for one in axes.lines if one.get_label() == label]
    return np.asarray(line.get_ydata(), dtype=float)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        save(series_chart(series(300), [1_400_000_600_000]), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_of_more_windows_than_pixels_every_spike_stays() -> None:
    long = series(200_000)
    for at, value in ((77_777, 9.0), (123_456, -7.0)):
        long.values[at] = value
    drawn = line_y(series_chart(long), "value")
    assert len(drawn) < 3_000
    assert (np.nanmax(drawn), np.nanmin(drawn)) == (9.0, -7.0)
    assert set(drawn) <= set(long.values)  # not one that the series has not


def test_the_window_of_an_alarm_is_always_drawn() -> None:
    long = series(200_000)
    long.values[:] = 5.0
    long.values[1000:1010] = np.arange(10)  # in one pixel, so neither its least nor its most
    drawn = line_y(series_chart(long, [int(long.times_ms[1004])]), "value")
    assert 4.0 in drawn


def test_no_line_crosses_a_hole() -> None:
    times_ms = np.concatenate([np.arange(50), np.arange(500, 550)]).astype(np.int64) * MINUTE_MS
    drawn = line_y(series_chart(Series("with a hole", times_ms, np.ones(100))), "value")
    assert np.flatnonzero(np.isnan(drawn)).tolist() == [50]


def test_values_that_are_no_numbers_are_left_out() -> None:
    one = series(100)
    one.values[10], one.values[20] = np.nan, np.inf
    assert np.isnan(line_y(series_chart(one), "value")).sum() == 2
    empty = Series("nothing", one.times_ms, np.full(100, np.nan))
    assert "no values" in svg(series_chart(empty))
    assert "no values" in svg(series_chart(Series("less", one.times_ms[:0], one.values[:0])))


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e30, -1e30], [1e-300, 2e-300]])
def test_odd_ranges_are_drawn(values: list[float]) -> None:
    times_ms = np.arange(len(values), dtype=np.int64)
    assert "<svg" in svg(series_chart(Series("odd", times_ms, np.array(values)), [0]))


def test_times_outside_of_the_calendar_are_drawn_as_numbers() -> None:
    times_ms = np.array([-(2**62), 0, 2**61])
    assert "<svg" in svg(series_chart(Series("aeons", times_ms, np.arange(3.0)), [0]))


def test_a_name_is_never_more_than_text() -> None:
    figure = series_chart(series(10, HOSTILE), labels=[(1_400_000_000_000, 1_400_000_060_000)])
    text = svg(figure)
    root = ElementTree.fromstring(text)
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    assert any("<script>alert(1)</script> $\\frac" in (one.text or "") for one in root.iter())
    curves = [Curve(HOSTILE, [1, 2], [1, 2]), Curve("_hidden", [1, 2], [2, 1])]
    ElementTree.fromstring(svg(curve_chart(HOSTILE, curves, HOSTILE, HOSTILE)))


def test_charts_of_one_page_share_no_names() -> None:
    figure = series_chart(series(10))
    found = [
        {one.get("id") for one in ElementTree.fromstring(svg(figure, prefix)).iter()} - {None}
        for prefix in ("c1-", "c2-")
    ]
    assert found[0]
    assert not found[0] & found[1]


def test_a_wide_band_leaves_the_values_readable() -> None:
    one = series(100)
    one.upper[:] = 1e9  # type: ignore[index]
    [axes] = series_chart(one).axes
    bottom, top = axes.get_ylim()
    assert top - bottom < 5


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"chart\.pdf: a chart's file ends in \.png or \.svg"):
        save(series_chart(series(10)), tmp_path / "chart.pdf")


def test_without_matplotlib_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from processor.charts import curve_chart\n"
        "curve_chart('', [], '', '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError" in done.stderr
    assert "pip install 'processor[plots]'" in done.stderr


def test_drawing_needs_no_display_and_leaves_the_settings_of_others_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    svg(series_chart(series(10)))
    assert dict(matplotlib.rcParams) == before
    assert charts.Series is Series
