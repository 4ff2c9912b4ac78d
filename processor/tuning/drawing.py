"""The series to show: those with most alarms, read once more, with the file's own band."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import orjson
from msgspec import Struct
from msgspec.structs import replace

from processor import charts, detectors, history, zones
from processor.core import figures
from processor.core.columns import Columns
from processor.detectors.base import Wave
from processor.history import Recorded
from processor.history.running import UNNAMED
from processor.model import Floats, Pipeline
from processor.tuning.trying import Result, key_text

GAP_MAX = 100  # empty windows in a row that are judged, as in the service
WINDOWS_MAX = 50_000  # of one series: a month of minutes

Point = tuple[int, int, float, int]  # start, end, value, records


class Drawn(Struct):
    """One chart to be: `alarms_ms` are those at the file's setting."""

    result: Result
    key: str
    points: list[Point]
    is_cut: bool = False


def chosen(results: Sequence[Result], most: int) -> list[Drawn]:
    """Of each detector in turn the series with most alarms: in the file's setting, then in any."""
    ranked = [iter(_ranked(one)) for one in results]
    out: list[Drawn] = []
    while ranked and len(out) < most:
        left = []
        for keys in ranked:
            drawn = next(keys, None)
            if drawn is not None and len(out) < most:
                out.append(drawn)
                left.append(keys)
        ranked = left
    return out


def _ranked(result: Result) -> list[Drawn]:
    most = {key: n for one in result.tried for key, n in one.by_key.items()}
    own = result.own.by_key
    keys = sorted(most, key=lambda key: (-own[key], -most[key], key))
    return [Drawn(result, key, []) for key in keys]


def read(pipeline: Pipeline, recorded: Iterable[Recorded], drawn: Sequence[Drawn]) -> None:
    """Fill in the points of all, in one pass."""
    wanted: dict[tuple[str, str], list[Drawn]] = {}
    for one in drawn:
        wanted.setdefault((one.result.rule.name, one.key), []).append(one)
    names = {one.result.rule.name for one in drawn}
    rules = tuple(
        replace(rule, detect=(), emit_windows=rule.emit_windows or UNNAMED)
        for rule in pipeline.rules
        if rule.name in names
    )
    for event in history.run(replace(pipeline, rules=rules), recorded, windows=True):
        detail = orjson.loads(event.detail)
        for one in wanted.get((detail["rule"], key_text(detail["key"])), ()):
            if detail["pane"] == "on_time":
                _add(one, detail)


def _add(one: Drawn, detail: dict[str, dict[str, int]]) -> None:
    value = detail["values"][one.result.detect.aggregate]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    window = detail["window"]
    if len(one.points) == WINDOWS_MAX:
        one.is_cut = True
        return
    number = float(value) if is_number else np.nan
    one.points.append((window["start"], window["end"], number, int(str(detail["count"]))))


def series(one: Drawn, title: str) -> charts.Series:
    """With the band at the file's setting, learnt from these windows; none for several figures."""
    points = sorted(set(_filled(one)))
    column = [np.array([point[i] for point in points]) for i in (0, 2)]
    times_ms, values = column[0].astype(np.int64), column[1].astype(np.float64)
    if one.result.detect.others:
        return charts.Series(title, times_ms, values)
    return charts.Series(title, times_ms, values, *_band(one.result, points))


def _filled(one: Drawn) -> list[Point]:
    """Windows without records, where the figure of nothing is a number."""
    empty = figures.empties(one.result.rule.aggregates)[one.result.detect.aggregate]
    out: list[Point] = []
    for point in one.points:
        size_ms = point[1] - point[0]
        is_row = bool(out) and one.result.rule.window.kind == "tumbling" and not np.isnan(empty)
        if is_row:
            missing = range(out[-1][1], point[0], size_ms)[:GAP_MAX]
            out += [(start, start + size_ms, empty, 0) for start in missing]
        out.append(point)
    return out


def _band(result: Result, points: Sequence[Point]) -> Floats:
    detector = detectors.get(result.detect.kind)
    params = msgspec.convert(dict(result.detect.options), detector.params)
    state = Columns(detector.columns(params))
    state.ensure(1)
    name = result.rule.window.zone
    zone = None if name is None else zones.table(name)
    rows, out = np.zeros(1, dtype=np.intp), np.full((3, len(points)), np.nan)
    for i, (start, end, value, count) in enumerate(points):
        local_ms = start if zone is None else start + zone.shift_ms(start)
        wave = Wave(start, end, local_ms, np.array([value]), np.array([count]))
        verdict = detector.judge(params, state.arrays, rows, wave)
        out[:, i] = verdict.expected[0], verdict.lower[0], verdict.upper[0]
    return out
