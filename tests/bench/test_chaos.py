"""What the chaos benchmark says of its measurements; the scenarios themselves take minutes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import chaos
from bench.__main__ import main
from bench.chaos import SHORT, Gap
from bench.ordeal import Measured

GOOD: dict[str, Any] = {
    "takeover_s": [12.0] * 3 + [15.0],
    "handoff_s": [0.4] * 9 + [2.0],
    "reshard_gap_s": [0.2] * chaos.CHILDREN,
    "kills": 4,
}


def result(**changes: Any) -> chaos.Result:
    measured = Measured(**(GOOD | changes))
    report = {"records_sent": 1_000, "reshards": 8}
    return chaos.Result(
        benchmark=chaos.NAME,
        is_short=True,
        seed=1,
        took_s=150.0,
        takeover_s=Gap.of(measured.takeover_s),
        handoff_s=Gap.of(measured.handoff_s),
        reshard_gap_s=Gap.of(measured.reshard_gap_s),
        zombie_takeover_s=Gap.of([]),
        table_back_s=Gap.of([]),
        bus_back_s=Gap.of([]),
        lost=0,
        wrong=0,
        conflicting_ids=0,
        kills=measured.kills,
        restarts=5,
        failures=chaos._broken_bounds(measured, SHORT),
        report=report,
        samples=measured,
        sizes=SHORT,
        machine={},
        versions={},
    )


def test_a_distribution_is_told_by_nearest_rank() -> None:
    assert Gap.of([3.0, 1.0, 2.0, 4.0]) == Gap(4, 2.0, 4.0, 4.0)
    assert Gap.of([n / 100 for n in range(1, 201)]) == Gap(200, 1.0, 1.98, 2.0)
    assert Gap.of([]) == Gap(0, None, None, None)


def test_what_is_within_its_bounds_is_no_failure() -> None:
    assert result().failures == []


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"takeover_s": [1.0] * 3 + [15.5]}, "shards wait (max) 15.50 s, should be 15 s"),
        ({"handoff_s": [0.5] * 4 + [1.5] * 6}, "hand-off takes (p50) 1.50 s, should be 1 s"),
        ({"handoff_s": [0.5] * 9 + [2.5]}, "hand-off takes (p99) 2.50 s, should be 2 s"),
        ({"reshard_gap_s": [0.5] * 12 + [1.25]}, "first read (max) 1.25 s, should be 1 s"),
        ({"handoff_s": [0.5] * 9}, "9 hand-offs were seen, should be 10 at least"),
        ({"kills": 3}, "3 kills were seen, should be 4 at least"),
        ({"takeover_s": []}, "0 takeovers were seen, should be 4 at least"),
        ({"reshard_gap_s": [0.1]}, "1 children were seen, should be 13 at least"),
    ],
)
def test_each_bound_that_is_missed_is_a_failure(changes: dict[str, Any], failure: str) -> None:
    [said] = result(**changes).failures
    assert failure in said


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["chaos", "--quick"], "chaos has --short"),
        (["hot-path", "--short"], "hot-path has --quick"),
    ],
)
def test_a_size_that_a_benchmark_does_not_have_is_refused(
    arguments: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert instead in capsys.readouterr().err


def test_json_and_table_tell_every_distribution_and_failure() -> None:
    found = result(kills=3)
    told = json.loads(chaos.to_json(found))
    assert told["takeover_s"] == {"n": 4, "p50": 12.0, "p99": 15.0, "max": 15.0}
    assert (told["lost"], told["wrong"], told["conflicting_ids"]) == (0, 0, 0)
    assert told["samples"]["takeover_s"] == [12.0, 12.0, 12.0, 15.0]
    text = chaos.to_text(found)
    assert "hand-off at SIGTERM" in text
    assert "FAILED: 3 kills" in text
