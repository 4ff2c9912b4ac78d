"""Charts: NAB's files and made series with band, alarms and labels, and the trade-off curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.detection import families, kinds, nab, on_nab
from bench.detection.families import DAY, Panel
from bench.detection.judged import Judged, Kind, judge
from bench.detection.nab_score import PROFILES, curve
from processor import charts

SHOWN_DAYS = 4  # around an anomaly
CURVE_SPAN = 1.8, 3.0  # thresholds of novelty that anyone would take


def draw(
    folder: Path, nab_folder: Path | None, kind: Kind, seed: int, figures: Mapping[str, Any]
) -> int:
    """All charts of one detector at medium sensitivity; says how many.

    `figures` are those of the part on families, for curves of all detectors; it may be empty.
    Raises UsageError where matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _families(folder, kind, seed) + _trade_off(folder, figures)
    return drawn + (_nab(folder, nab_folder, kind) if nab_folder else 0)


def _nab(folder: Path, nab_folder: Path, kind: Kind) -> int:
    files = nab.load(nab_folder)
    for file, found in zip(files, on_nab.judge(files, kinds.at(kind, "medium")), strict=True):
        labels = [(int(file.times_ms[a]), int(file.times_ms[b])) for a, b in file.windows]
        series = _series(f"{file.name}, {kind.name}", file.times_ms, file.values, found, 0)
        _save(folder / "nab", file.name, series, file.times_ms[found.opened[:, 0]], labels)
    marks = [found.marks[:, 0] for found in on_nab.judge(files, kinds.wide_open(kind))]
    thresholds = np.linspace(*CURVE_SPAN, 51).tolist()
    curves = []
    for name, profile in PROFILES.items():
        outcomes = curve(files, marks, profile)
        scores = [outcomes.at(threshold).score for threshold in thresholds]
        curves.append(charts.Curve(name, thresholds, scores))
    chart = charts.curve_chart(f"NAB, {kind.name}", curves, "threshold", "score")
    charts.save(chart, folder / "nab-score-by-threshold.png")
    return len(files) + 1


def _families(folder: Path, kind: Kind, seed: int) -> int:
    """A clean series of each family, and one of each family with each kind of anomaly."""
    shipped = kinds.at(kind, "medium")
    panels = (families.clean(seed, 14, 1), families.injected(seed, 1))
    for panel in panels:
        found = judge(shipped, panel)
        for i, label in enumerate(panel.labels):
            part = _part(panel, i)
            times_ms = panel.times_ms[part]
            series = _series(
                f"{label}, {kind.name}", times_ms, panel.values[part, i], found, i, part
            )
            alarms = times_ms[found.opened[part, i]]
            _save(folder / "families", label, series, alarms, _label(panel, i))
    return sum(panel.n_series for panel in panels)


def _part(panel: Panel, i: int) -> slice:
    """All of a clean series, the days around an anomaly of others."""
    if not len(panel.onsets):
        return slice(0, len(panel.times_ms))
    onset = int(panel.onsets[i])
    return slice(max(onset - SHOWN_DAYS * DAY, 0), onset + SHOWN_DAYS * DAY)


def _label(panel: Panel, i: int) -> list[tuple[int, int]]:
    if not len(panel.onsets):
        return []
    times_ms = panel.times_ms
    return [(int(times_ms[panel.onsets[i]]), int(times_ms[panel.ends[i]]))]


def _trade_off(folder: Path, figures: Mapping[str, Any]) -> int:
    curves = [
        charts.Curve(name, [rate for _, rate, _ in points], [100 * hit for _, _, hit in points])
        for name, of in figures.items()
        if (points := of["trade_off"])
    ]
    if not curves:
        return 0
    chart = charts.curve_chart(
        "Made series, one threshold for all",
        curves,
        "false alarms in 10,000 windows",
        "recall %",
        log_x=True,
    )
    charts.save(chart, folder / "recall-by-false-alarms.png")
    return 1


def _series(
    title: str,
    times_ms: Any,
    values: Any,
    found: Judged,
    i: int,
    part: slice = slice(None),
) -> charts.Series:
    columns = (found.expected[part, i], found.lower[part, i], found.upper[part, i])
    return charts.Series(title, times_ms, values, *columns)


def _save(
    folder: Path,
    name: str,
    series: charts.Series,
    alarms: Any,
    labels: Sequence[tuple[int, int]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chart = charts.series_chart(series, alarms.tolist(), labels)
    charts.save(chart, folder / f"{re.sub('[^a-zA-Z0-9]+', '-', name.removesuffix('.csv'))}.png")
