"""Several figures at once."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from processor import detectors
from processor.core.alarms.scorer import Scorer
from processor.core.columns import Columns
from processor.detectors import forest
from processor.detectors.base import Verdict, Wave
from processor.model import DetectSpec
from tests.detectors.support import MIDNIGHT, TEN_MIN


class Pairs:
    """Two figures of some series."""

    def __init__(self, n: int = 1):
        self.detector = detectors.get("forest")
        self.params = msgspec.convert({}, self.detector.params)
        self.columns = Columns(self.detector.columns(self.params))
        self.columns.ensure(n)
        self.rows, self.windows = np.arange(n), 0

    def see(self, first: float, second: float) -> Verdict:
        start = MIDNIGHT + self.windows * TEN_MIN
        n = len(self.rows)
        self.windows += 1
        self.wave = Wave(
            start,
            start + TEN_MIN,
            start,
            np.full(n, first),
            np.ones(n, dtype=np.int64),
            (np.full(n, second),),
            ("revenue",),
        )
        return self.detector.judge(self.params, self.columns.arrays, self.rows, self.wave)


def together(n: int, seed: int = 0) -> list[tuple[float, float]]:
    """Orders, and revenue that goes with them."""
    rng = np.random.default_rng(seed)
    orders = rng.normal(100, 20, n)
    return list(zip(orders.tolist(), (30 * orders + rng.normal(0, 20, n)).tolist(), strict=True))


def test_figures_that_go_together_are_quiet():
    pairs = Pairs()
    raised = sum(int(pairs.see(*pair).raised[0]) for pair in together(1_000))
    assert raised <= 1


@pytest.mark.parametrize(
    ("pair", "part", "words"),
    [
        ((100.0, 9_000.0), 1, "most so revenue, which is 9,000"),
        ((400.0, 3_000.0), 0, "most so orders, which is 400"),
    ],
)
def test_it_finds_what_lies_apart_and_says_which_figure_deviates_most(pair, part, words):
    pairs = Pairs()
    for one in together(600):
        pairs.see(*one)
    verdict = pairs.see(*pair)
    assert verdict.raised[0]
    assert verdict.part[0] == part
    sentence = pairs.detector.sentence(pairs.params, "orders", verdict, 0, pairs.wave)
    assert sentence == f"orders and revenue lie, taken together, apart from other windows; {words}"


def test_an_alarm_names_the_figure_that_deviates_most():
    spec = DetectSpec("forest", "forest", "orders", {"warm_up": 100}, ("revenue",))
    scorer = Scorer((spec,), {"orders": float("nan"), "revenue": float("nan")})
    scorer.ensure(1)
    row, count = np.zeros(1, dtype=np.intp), np.ones(1, dtype=np.int64)
    for i, (orders, revenue) in enumerate([*together(400), (100.0, 9_000.0)]):
        start = MIDNIGHT + i * TEN_MIN
        values = {"orders": np.array([orders]), "revenue": np.array([revenue])}
        told = scorer.judge(start, start + TEN_MIN, row, count, values)
    alarm = told[-1].make()
    assert (alarm.state, alarm.part) == ("opened", "revenue")
    assert "most so revenue" in alarm.sentence


def test_a_forest_grown_again_is_the_same_to_the_bit():
    kept, lost = Pairs(), Pairs()
    for i, pair in enumerate(together(400)):
        said = kept.see(*pair)
        forest._grown.clear()
        if i % 50 == 0:
            saved = {name: bytes(column) for name, column in lost.columns.snapshot(1).items()}
            lost.columns.restore(saved, 1)
        assert lost.see(*pair).score.tobytes() == said.score.tobytes()
        if i % 7:
            forest._grown.clear()


def test_a_window_without_one_of_its_figures_is_not_judged():
    pairs = Pairs()
    for pair in together(300):
        pairs.see(*pair)
    before = {name: bytes(column) for name, column in pairs.columns.snapshot(1).items()}
    verdict = pairs.see(100.0, float("nan"))
    assert np.isnan(verdict.score[0])
    assert {name: bytes(c) for name, c in pairs.columns.snapshot(1).items()} == before


def test_no_more_forests_are_kept_than_said(monkeypatch):
    monkeypatch.setattr(forest, "FORESTS_MAX", 3)
    forest._grown.clear()
    pairs = Pairs(1)
    for pair in together(200):
        pairs.see(*pair)
    for seed in range(1, 6):
        other = Pairs(1)
        for pair in together(200, seed):
            other.see(*pair)
    assert len(forest._grown) <= 3


def test_windows_on_both_sides_of_a_gap_make_no_point_together():
    pairs, steady = Pairs(), Pairs()
    for pair in together(300):
        pairs.see(*pair)
        steady.see(*pair)
    pairs.detector.pause(pairs.params, pairs.columns.arrays, pairs.rows)
    after = together(100, seed=1)
    said = [pairs.see(*pair).score[0] for pair in after]
    assert np.isnan(said[:3]).all()
    assert not np.isnan(said[3:]).any()
    with_gap = next(reversed(forest._grown.values()))
    assert not np.isnan([steady.see(*pair).score[0] for pair in after]).any()
    without = next(reversed(forest._grown.values()))
    assert with_gap.entries_seen() == without.entries_seen() - 3


def test_a_forest_grown_again_after_a_gap_is_the_same_to_the_bit():
    kept, lost = Pairs(), Pairs()
    for i, pair in enumerate(together(400)):
        if i == 290:
            for pairs in (kept, lost):
                pairs.detector.pause(pairs.params, pairs.columns.arrays, pairs.rows)
        grown = forest._grown.copy()
        forest._grown.clear()
        anew = lost.see(*pair).score
        forest._grown.clear()
        forest._grown.update(grown)
        assert kept.see(*pair).score.tobytes() == anew.tobytes()


def test_a_forest_without_the_gap_is_not_taken_for_one_with_it():
    with_gap, without = Pairs(), Pairs()
    for i, pair in enumerate(together(330)):
        if i == 300:
            with_gap.detector.pause(with_gap.params, with_gap.columns.arrays, with_gap.rows)
        with_gap.see(*pair)
        without.see(*pair)
    digests = {int(pairs.columns.arrays["digest"][0]) for pairs in (with_gap, without)}
    assert len(digests) == 2
