"""What `bench bounds` calls flat, and that a flood goes through a real pipeline."""

from __future__ import annotations

import pytest

from bench import bounds
from bench.flood import Flood, Footprint, Sample, flood


def told(*rss_mb: float) -> Flood:
    samples = [Sample(float(i), int(mb * 1e6), i, 1, 1) for i, mb in enumerate(rss_mb)]
    return Flood(samples, 1.0)


SMALL = {name: Footprint(50_000_000, 70_000_000, 0, 0) for name in bounds.FOOTPRINTS}


def test_memory_that_grows_at_first_and_then_stays_is_flat() -> None:
    course = bounds.course(told(10, 50, 60, 60, 60, 61, 59, 60))
    assert bounds.failures({"other": course}, SMALL) == []


def test_memory_that_goes_on_growing_is_a_failure() -> None:
    course = bounds.course(told(*range(40, 56, 2)))
    assert course.rss_slope_bytes_per_min == pytest.approx(120e6)
    assert bounds.failures({"other": course}, SMALL) == ["other: grew by 8.0 MB in the second half"]


def test_a_footprint_over_its_bound_is_a_failure() -> None:
    large = SMALL | {"as the system tells": Footprint(61_000_000, 61_000_000, 0, 0)}
    assert bounds.failures({}, large) == ["100,000 groups took 61.0 MB"]


def test_a_flood_of_keys_reaches_the_bound_of_groups_and_no_further() -> None:
    found = flood("evict", 1.0)
    assert max(sample.groups for sample in found.samples) <= 10_000
