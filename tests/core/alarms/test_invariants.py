"""What holds for alarms under any options and any values."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.alarms.alarm import Alarm
from processor.detectors.base import SEVERITIES
from tests.core.alarms.support import NAN, Rule, scored

KEYS = 3
options = st.fixed_dictionaries(
    {},
    optional={
        "n_of_m": st.sampled_from([[1, 1], [1, 3], [2, 3], [3, 5], [5, 64]]),
        "escalation_only": st.booleans(),
        "recover_after": st.integers(1, 4),
        "recover_below": st.sampled_from([0.5, 1.0]),
        "cool_down": st.integers(0, 6),
        "warm_up": st.integers(0, 9),
        "missing": st.sampled_from(["default", "zero", "skip", "breach"]),
        "min_delta": st.sampled_from([0.0, 0.7]),
        "only_above": st.just(1.5),
        "clamp_max": st.just(2.5),
        "severity": st.sampled_from(
            ["info", {"warning": 1.5, "critical": 2.0}, {"info": 0.0, "critical": 3.0}]
        ),
    },
)
value = st.sampled_from([0.0, 0.4, 0.9, 1.2, 1.6, 2.2, 3.3, NAN, None])
histories = st.lists(st.tuples(value, value, value), min_size=1, max_size=60)


def see(rule: Rule, window: tuple[float | None, ...]) -> list[Alarm]:
    values = {row: NAN if each is None else each for row, each in enumerate(window)}
    return rule.see(values, [0 if each is None else 9 for each in window])


@settings(max_examples=200, deadline=None)
@given(chosen=options, history=histories)
def test_alarms_open_escalate_and_resolve_in_this_order_and_no_severity_is_told_twice(
    chosen: dict[str, Any], history: list[tuple[float | None, ...]]
) -> None:
    rule = Rule(scored(**chosen), keys=KEYS)
    open_: dict[int, str] = {}
    for window in history:
        told = see(rule, window)
        assert len({alarm.row for alarm in told}) == len(told), "one word a window and key"
        for alarm in told:
            if alarm.state == "opened":
                assert alarm.row not in open_
            else:
                before = open_.pop(alarm.row)
                rank, was = SEVERITIES.index(alarm.severity), SEVERITIES.index(before)  # type: ignore[arg-type]
                assert rank > was if alarm.state == "escalated" else rank == was
            if alarm.state != "resolved":
                open_[alarm.row] = alarm.severity
        is_open = rule.scorer.is_open(np.arange(KEYS))
        assert set(np.flatnonzero(is_open).tolist()) == open_.keys()


@settings(max_examples=150, deadline=None)
@given(chosen=options, history=histories, stop=st.integers(0, 60))
def test_restored_in_the_middle_equals_never_stopped_to_the_bit(
    chosen: dict[str, Any], history: list[tuple[float | None, ...]], stop: int
) -> None:
    straight, before, after = (Rule(scored(**chosen), keys=KEYS) for _ in range(3))
    expected = [see(straight, window) for window in history]
    told = [see(before, window) for window in history[:stop]]
    after.scorer.restore(before.scorer.snapshot(KEYS), KEYS)
    after.now_ms = before.now_ms
    told += [see(after, window) for window in history[stop:]]
    assert told == expected
    assert after.scorer.snapshot(KEYS) == straight.scorer.snapshot(KEYS)


@settings(max_examples=100, deadline=None)
@given(chosen=options, history=histories)
def test_keys_know_nothing_of_each_other(
    chosen: dict[str, Any], history: list[tuple[float | None, ...]]
) -> None:
    together, alone = Rule(scored(**chosen), keys=KEYS), Rule(scored(**chosen), keys=KEYS)
    for window in history:
        mine = [alarm for alarm in see(together, window) if alarm.row == 1]
        values = {1: NAN if window[1] is None else window[1]}
        assert alone.see(values, 0 if window[1] is None else 9) == mine
