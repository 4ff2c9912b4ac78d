"""The simulator finds what it must: each planted bug, by a checker that is right for it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.sim.arguments import at_least_one
from tests.sim.planted import Bug, bugs, hunt, main, plant

NAMES = {
    "validity_from_the_answer",
    "no_drift_margin",
    "release_without_epoch",
    "checkpoint_before_put",
    "child_before_second_parent",
    "deleted_one_commit_early",
    "idle_before_its_mark",
    "dead_by_failed_reads",
    "repeat_merged_twice",
    "ended_parent_not_waited_for",
    "quiet_for_ever",
    "covered_parent_stays",
    "split_applied_half",
    "checkpoint_before_partials",
    "buckets_left_behind",
    "numbered_anew_after_takeover",
}


def test_no_planted_bug_has_got_lost() -> None:
    assert {bug.name for bug in bugs()} == NAMES


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_present_code(bug: Bug, tmp_path: Path) -> None:
    plant(bug, tmp_path)


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_for_the_right_reason(bug: Bug) -> None:
    found = hunt(bug, bug.seed)
    assert found.checker in bug.checkers, f"after {found.tried} seeds from {bug.seed}: {found.what}"


def test_a_bug_that_nobody_planted_is_an_error_that_names_the_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["no_such_bug"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "no_such_bug" in told
    assert [name for name in NAMES if name not in told] == []


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "²"])
def test_a_run_of_no_histories_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="a whole number from 1"):
        at_least_one(text)
