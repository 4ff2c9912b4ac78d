"""The outcome as one HTML page: no scripts, nothing from elsewhere; charts are inline SVG.

All that comes from data is escaped, and a policy in the page's head forbids whatever could still
load or run. Lists are cut at stated lengths, and say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from processor import charts
from processor.model import DetectSpec
from processor.tuning.drawing import WINDOWS_MAX, Drawn, series
from processor.tuning.ladder import OWN
from processor.tuning.trying import DAY_MS, Outcome, Result, Tried, suggestion

KEYS_SHOWN, DAYS_SHOWN = 20, 62  # lines of a table: a person reads no more
TEXT_SHOWN = 200  # characters of a key

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0 1rem}
th,td{padding:.2rem .8rem .2rem 0;text-align:left}
th{border-bottom:1px solid #888}td{border-bottom:1px solid #ddd}.n{text-align:right}
.own{font-weight:600}svg{max-width:100%;height:auto}figure{margin:1rem 0}code{font-size:90%}
.hint{background:#eef6fb;border-left:4px solid #0072B2;padding:.4rem .8rem}h2{margin-top:2.2rem}
"""
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>{style}</style>
</head><body>
"""


def page(app: str, outcome: Outcome, drawn: Sequence[Drawn], per_day: float) -> str:
    """The whole page. Raises UsageError where matplotlib is missing and something is drawn."""
    return "".join(_parts(app, outcome, drawn, per_day))


def _parts(app: str, outcome: Outcome, drawn: Sequence[Drawn], per_day: float) -> Iterator[str]:
    title = f"Detectors of {app}, tried on a recording"
    yield _HEAD.format(title=_safe(title), style=_STYLE)
    span = f"{_when(outcome.first_ms)} to {_when(outcome.last_ms)} UTC, {outcome.days:.1f} days"
    yield f"<h1>{_safe(title)}</h1><p>{outcome.records:,} records, {span}.</p>"
    for i, result in enumerate(outcome.results):
        yield from _detector(result, outcome.days, per_day)
        mine = [one for one in drawn if one.result is result]
        keys = {key for one in result.tried for key in one.by_key}
        if keys:
            yield (
                f"<p>Charts of {len(mine)} of {len(keys):,} series with alarms, those with most "
                f"of them first; triangles and range are those of the file's own setting.</p>"
            )
        for j, one in enumerate(mine):
            yield _figure(one, f"c{i}-{j}-")
    yield "</body></html>\n"


def _written(spec: DetectSpec) -> str:
    """As in a pipeline file, so that it can be copied from the page."""
    named = {} if spec.name == spec.kind else {"name": spec.name}
    options = {**named, **spec.options}
    figures = f"[{', '.join((spec.aggregate, *spec.others))}]" if spec.others else spec.aggregate
    rest = "".join(f", {key}: {json.dumps(value)}" for key, value in options.items())
    return f"{{{spec.kind}: {figures}{rest}}}"


def _detector(result: Result, days: float, per_day: float) -> Iterator[str]:
    spec = result.detect
    yield (
        f"<h2>{_safe(result.rule.name)}: {_safe(spec.name)} of {_safe(spec.aggregate)}</h2>"
        f"<p><code>{_safe(_written(spec))}</code></p>"
    )
    if result.note:
        yield f"<p>{_safe(result.note)}.</p>"
    yield f'<p class="hint">{_safe(suggestion(result, days, per_day))}</p>'
    rows = (_setting(one, days) for one in result.tried)
    yield _table(("setting", "threshold", "openings", "a day", "worst day", "series"), rows)
    yield _by_day(result)
    yield _by_key(result)


def _setting(one: Tried, days: float) -> tuple[str, ...]:
    worst = max(one.by_day.values(), default=0)
    figures = (f"{one.total:,}", f"{one.total / days:.2f}", f"{worst:,}", f"{len(one.by_key):,}")
    return (one.rung.name, f"{one.rung.threshold:.3g}", *figures)


def _by_day(result: Result) -> str:
    days = sorted({day for one in result.tried for day in one.by_day})
    shown = days[-DAYS_SHOWN:]
    cut = f", the last {len(shown)} of {len(days):,}" if len(shown) < len(days) else ""
    rows = ((day_text(day), *(f"{one.by_day[day]:,}" for one in result.tried)) for day in shown)
    return _details(f"Openings by day, where there are any{cut}", _columns("day", result), rows)


def _by_key(result: Result) -> str:
    most = {key: n for one in result.tried for key, n in one.by_key.items()}
    own = result.own.by_key
    keys = sorted(most, key=lambda key: (-own[key], -most[key], key))
    shown = keys[:KEYS_SHOWN]
    cut = f", the first {len(shown)} of {len(keys):,}" if len(shown) < len(keys) else ""
    rows = ((key, *(f"{one.by_key[key]:,}" for one in result.tried)) for key in shown)
    return _details(f"Openings by series, most first{cut}", _columns("series", result), rows)


def _columns(first: str, result: Result) -> tuple[str, ...]:
    return (first, *(one.rung.name for one in result.tried))


def _details(about: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = _table(head, rows)
    return f"<details><summary>{_safe(about)}</summary>{table}</details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{_safe(cell)}</th>" for cell in head)
    return f"<table><tr>{cells}</tr>{''.join(map(_row, rows))}</table>"


def _row(cells: Sequence[str]) -> str:
    kind = ' class="own"' if cells[0] == OWN else ""
    rest = "".join(f'<td class="n">{_safe(cell)}</td>' for cell in cells[1:])
    return f"<tr{kind}><td>{_safe(cells[0])}</td>{rest}</tr>"


def _figure(one: Drawn, prefix: str) -> str:
    result = one.result
    title = f"{result.rule.name} {one.key}: {result.detect.aggregate}"
    alarms = result.own.openings_ms.get(one.key, [])
    drawing = charts.svg(charts.series_chart(series(one, title), alarms), prefix)
    counts = ", ".join(f"{tried.rung.name}: {tried.by_key[one.key]}" for tried in result.tried)
    cut = f"; only its first {WINDOWS_MAX:,} windows are drawn" if one.is_cut else ""
    return f"<figure>{drawing}<figcaption>{_safe(counts + cut)}</figcaption></figure>\n"


def _safe(text: str) -> str:
    short = text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}…"
    return escape(charts.plain(short))


def day_text(day: int) -> str:
    """A day since the epoch, as ISO 8601 has it."""
    return _when(day * DAY_MS)[:10]


def _when(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"  # outside of the calendar
