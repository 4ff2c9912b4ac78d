"""How rare scores are, and the bar that holds an alarm budget."""

import numpy as np
import pytest

from processor.core.alarms.rarity import BUCKETS, HALF_LIFE_MS, Rarity, bucket, edge

DAY_MS = 86_400_000


def test_buckets_are_in_order_and_at_most_an_eighth_of_an_octave_wide():
    scores = np.array([-1.0, 0.0, 0.07, 1.0, 1.01, 2.2, 2.4, 1e9])
    places = bucket(scores)
    assert (np.diff(places) >= 0).all()
    assert (places[0], places[-1]) == (0, BUCKETS - 1)
    for place in range(BUCKETS - 1):
        assert 1.0 < edge(place + 1) / edge(place) <= 1.032
        assert bucket(np.array([edge(place)]))[0] == place


def test_a_score_that_comes_once_in_a_thousand_windows_is_said_to():
    rarity = Rarity()
    for window in range(100):
        rarity.on_wave((window + 1) * 60_000, 60_000, np.array([5.0] + [1.0] * 999))
    assert rarity.expected_every(5.0) == pytest.approx(1_000)
    assert rarity.expected_every(1.0) == 1.0


def test_with_few_windows_nobody_knows():
    rarity = Rarity()
    rarity.on_wave(60_000, 60_000, np.ones(999))
    assert rarity.expected_every(1.0) is None


def opened(per_day: list[float], days: int) -> Rarity:
    """Alarms with these scores open on each of so many days."""
    rarity = Rarity()
    for day in range(days):
        rarity.on_wave((day + 1) * DAY_MS, DAY_MS, np.array([np.nan]))
        rarity.on_openings(np.array(per_day))
    return rarity


def test_within_the_budget_the_threshold_stands():
    assert opened([3.0, 3.0], 30).bar(5, DAY_MS) == 0.0


def test_the_bar_rises_to_where_no_more_than_the_budget_is_to_be_expected():
    bar = opened([2.3] * 20 + [4.0] * 3, 30).bar(5, DAY_MS)
    assert 2.3 < bar <= 4.0


def test_where_even_the_rarest_are_too_many_only_more_than_ever_will_do():
    assert opened([2.3] * 20, 30).bar(5, DAY_MS) > 2.3


def test_a_quiet_month_brings_the_bar_down_again():
    rarity = opened([2.3] * 20, 10)
    assert rarity.bar(5, DAY_MS) > 0
    rarity.on_wave(10 * DAY_MS + 5 * HALF_LIFE_MS, DAY_MS, np.array([np.nan]))
    assert rarity.bar(5, DAY_MS) == 0.0


def test_a_restored_one_is_the_same_to_the_bit_and_parents_add_up():
    rarity = opened([2.3, 3.1], 12)
    heir = Rarity()
    heir.adopt(rarity.snapshot())
    assert heir.snapshot() == rarity.snapshot()
    both = Rarity()
    for _ in range(2):
        both.adopt(rarity.snapshot(), 0.5)
    assert both.snapshot() == rarity.snapshot()
