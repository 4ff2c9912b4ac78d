"""What a person sees: plain lines now and then, or the live table, both on standard error."""

from dataclasses import replace

import pytest
from rich.console import Console

from processor.local.live import LiveView
from processor.local.view import PlainView, Progress, ShardLine, make_view, when


def progress(elapsed_s: float) -> Progress:
    return Progress(
        elapsed_s=elapsed_s,
        now_ms=1_760_000_400_000,
        sent=1_500,
        total=120_000,
        throttled=3,
        processed=1_400,
        received=200,
        letters=2,
        reshards=3,
        deploys=0,
        shards=[ShardLine("shardId-000000000001", "worker-2", 4, 700)],
        alarms=["Thu 09 Oct 09:00  lima: orders is 31, above the 7 expected"],
    )


def test_a_line_now_and_then_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView() as view:
        for elapsed_s in (0.0, 0.25, 4.9, 5.0, 5.25):
            view.show(progress(elapsed_s))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "  0.0 s  Thu 09 Oct 09:00  sent 1,500 of 120,000  processed 1,400  events 200"
        "  dead letters 2  alarms 1  reshards 3",
        "  5.0 s  Thu 09 Oct 09:00  sent 1,500 of 120,000  processed 1,400  events 200"
        "  dead letters 2  alarms 1  reshards 3",
    ]


def test_figures_over_all_shards_are_told_once_there_are_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = replace(progress(0.0), overall="emea 812  5% of 20 payments failed")
    with PlainView() as view, LiveView(Console(stderr=True, width=120)) as live:
        view.show(told)
        live.show(told)
    assert capsys.readouterr().err.count("ten minutes: emea 812  5% of 20 payments failed") >= 2


def test_where_nobody_looks_the_view_is_plain() -> None:
    assert isinstance(make_view(wants_live=True), PlainView)  # pytest's stderr is no terminal
    assert isinstance(make_view(wants_live=False), PlainView)


def test_the_live_view_shows_figures_owners_and_alarms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console(stderr=True, width=120)
    with LiveView(console) as view:
        view.show(progress(12.0))
        view.say("killed [worker-1]")  # brackets are text, no markup
    out, err = capsys.readouterr()
    assert out == ""
    assert "deploys" not in err, "there was none"
    for text in (
        "reshards",
        "1,500 of 120,000",
        "worker-2",
        "above the 7 expected",
        "killed [worker-1]",
    ):
        assert text in err


def test_a_time_of_the_fortnight_is_said_in_utc() -> None:
    assert when(0) == "Thu 01 Jan 00:00"
