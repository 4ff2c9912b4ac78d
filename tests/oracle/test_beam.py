"""Apache Beam's own trigger machine and our engine say the same, pane by pane."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.oracle.__main__ import difference, main, read

CASES = Path(__file__).parent / "beam_panes.jsonl.gz"


def test_beam_and_our_engine_tell_the_same_panes() -> None:
    cases = list(read(CASES))
    assert len(cases) == 600
    assert [told for told in map(difference, cases) if told is not None] == []


def test_beam_and_our_engine_tell_the_same_of_sessions_that_grow_after_they_were_told() -> None:
    cases = list(read(CASES.with_name("beam_sessions.jsonl.gz")))
    assert len(cases) == 200
    assert [told for told in map(difference, cases) if told is not None] == []


def test_a_difference_is_shown_and_makes_the_runner_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, *_, bad = [case for case in read(CASES) if any(case["panes"])]
    at, (pane, *_) = next((i, panes) for i, panes in enumerate(bad["panes"]) if panes)
    pane[3] = "never"
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(json.dumps(case) for case in (good, bad)))
    assert main(str(file)) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == "1 agree, 1 differ"
    assert f"! {json.dumps(bad['ops'][at])}" in shown
    assert f"    expected {pane}" in shown


def test_agreement_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(next(read(CASES))))
    assert main(str(file)) == 0
    assert capsys.readouterr().out == "1 agree, 0 differ\n"
