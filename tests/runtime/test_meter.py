"""What a shard costs its worker."""

from processor.runtime.meter import Meter


def steady(meter: Meter, seconds: int, busy: float, payload_bytes: int = 0, start: int = 0) -> int:
    """The last of a sample every three seconds."""
    points = 0
    for now in range(start + 3, start + seconds + 1, 3):
        meter.add(3 * busy, 3 * payload_bytes)
        points = meter.sample(now)
    return points


def test_a_quarter_of_a_core_is_twenty_five_points() -> None:
    assert steady(Meter(0), 300, 0.25) == 25


def test_a_megabyte_a_second_is_a_point() -> None:
    assert steady(Meter(0), 300, 0, 2_000_000) == 2


def test_a_burst_of_three_seconds_is_a_tenth_of_itself() -> None:
    meter = Meter(0)
    meter.add(3)
    assert meter.sample(3) == 10


def test_two_samples_at_one_moment_lose_nothing() -> None:
    meter = Meter(0)
    meter.add(3)
    meter.sample(0)
    assert meter.sample(3) == 10
