"""Windows, lateness and panes in a pipeline file: what is read, and what is refused with why."""

from __future__ import annotations

import pytest

from processor import config
from processor.config import ConfigErrors
from processor.config.render import show, to_yaml
from processor.model import PanesSpec, Pipeline, RuleSpec, WindowSpec

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
FILE = """app: shop
source: {stream: orders}
event: {partition_key: store}
sinks: {out: {stdout: json}}
rules:
  orders:
    group_by: [store]
    aggregates: {orders: count, revenue: {sum: amount}}
    emit: {windows: out}
    window: WINDOW
"""


def read(window: str, *more: str) -> Pipeline:
    text = FILE.replace("WINDOW", window) + "".join(f"    {line}\n" for line in more)
    return config.loads(text, {}, file="f.yaml").pipeline


def rule(window: str, *more: str) -> RuleSpec:
    (found,) = read(window, *more).rules
    return found


def error(window: str, *more: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read(window, *more)
    assert caught.value.exit_code == 78
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("{tumbling: 10m, offset: 3m}", WindowSpec(10 * MINUTE, 3 * MINUTE)),
        ("{tumbling: 10m, zone: Asia/Tokyo}", WindowSpec(10 * MINUTE, zone="Asia/Tokyo")),
        (
            "{hopping: 10m, every: 1m, offset: 30s}",
            WindowSpec(10 * MINUTE, 30 * SECOND, "hopping", every_ms=MINUTE),
        ),
        (
            "{calendar: week, zone: Europe/Berlin, offset: 6h}",
            WindowSpec(0, 6 * HOUR, "calendar", calendar="week", zone="Europe/Berlin"),
        ),
        ("{calendar: day}", WindowSpec(kind="calendar", calendar="day")),
        ("{session: 30m}", WindowSpec(kind="session", gap_ms=30 * MINUTE)),
    ],
)
def test_each_kind_of_window_is_read_and_shown_again(text: str, window: WindowSpec) -> None:
    assert rule(text).window == window
    again = config.loads(to_yaml(show(read(text))), {}, file="f.yaml").pipeline
    assert again == read(text)


@pytest.mark.parametrize(
    ("lines", "panes"),
    [
        ((), PanesSpec()),
        (("lateness: 5m",), PanesSpec(late_count=1)),
        (("lateness: 5m", "panes: {late: none}"), PanesSpec()),
        (("lateness: 5m", "panes: {late: {count: 10}}"), PanesSpec(late_count=10)),
        (("panes: {early: {every: 1m}}",), PanesSpec(early_every_ms=MINUTE)),
        (
            ("panes: {early: {count: 100}, discarding: true, emit_empty: true}",),
            PanesSpec(early_count=100, is_discarding=True, emit_empty=True),
        ),
        (
            ('panes: {early: {when: {revenue: [{numeric: [">", 1000]}]}}}',),
            PanesSpec(early_when={"revenue": [{"numeric": [">", 1000]}]}),
        ),
    ],
)
def test_panes_are_read_and_shown_again(lines: tuple[str, ...], panes: PanesSpec) -> None:
    assert rule("{tumbling: 10m}", *lines).panes == panes
    pipeline = read("{tumbling: 10m}", *lines)
    assert config.loads(to_yaml(show(pipeline)), {}, file="f.yaml").pipeline == pipeline


EARLY = "panes: {early: {every: 1m}}"
DETECT = "detect: [{threshold: orders, above: 5}]"
CALENDAR = "{calendar: day, zone: Europe/Berln}"


@pytest.mark.parametrize(
    ("window", "lines", "words"),
    [
        ("10m", (), 'rules.orders.window: found the text "10m", expected a kind of window: tumb'),
        ("{sessions: 10m}", (), "window.sessions: found an unknown key, expected a kind of window"),
        ("{tumbling: 10m, every: 1m}", (), "window.every: found an unknown key"),
        ("{tumbling: 10m, offset: 10m}", (), "offset: found 10m, expected less than the window's"),
        ("{hopping: 10m}", (), "window.every: found nothing"),
        ("{hopping: 10m, every: 11m}", (), "every: found 11m, expected at most the window's size"),
        ("{hopping: 10m, every: 1m, offset: 1m}", (), "expected less than every, 1m"),
        ("{hopping: 1h, every: 7001ms}", (), "which makes 3,600,000 units of a window of 1h"),
        (CALENDAR, (), "did you mean Europe/Berlin?"),
        ("{calendar: hour}", (), "expected day, week, month or year"),
        ("{calendar: day, offset: 24h}", (), "window.offset: found"),
        ("{session: 30m}", (DETECT,), "detectors compare windows of one length"),
        ("{running: 7d}", (EARLY, DETECT), "detectors compare windows of one length"),
        ("{running: 7d}", (), "panes.early: found nothing"),
        ("{tumbling: 1m}", (EARLY,), "early.every: found 1m, expected less than the window's size"),
        ("{tumbling: 10m}", ("panes: {early: {}}",), "expected at least one of every, count and"),
        ("{tumbling: 10m}", ("panes: {early: {count: 0}}",), "expected a whole number from 1"),
        ("{tumbling: 10m}", ("panes: {late: {count: 1}}",), "without it no record comes late"),
        ("{tumbling: 10m}", ("panes: {discarding: true}",), "has nothing to discard"),
        ("{tumbling: 10m}", ("panes: {discarding: 1}",), "expected true or false"),
        ("{tumbling: 10m}", ("panes: {early: {when: {revenu: [1]}}}",), "did you mean revenue?"),
        ("{tumbling: 10m}", ("lateness: 32d",), 'lateness: found the text "32d", expected a dur'),
        (
            "{tumbling: 10m}",
            ("panes: {early: {count: 9}, discarding: true}", DETECT),
            "the pane on time, which tells only what early ones did not",
        ),
    ],
)
def test_what_can_not_be_is_refused_with_why(
    window: str, lines: tuple[str, ...], words: str
) -> None:
    assert words in error(window, *lines)
