"""Times as cases write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.config.values import Wrong
from processor.testing import times

NOON_MS = 1_772_452_800_000  # 2026-03-02T12:00:00Z
moments = st.integers(0, 4_000_000_000_000)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("+0s", 0),
        ("+1h30m", 5_400_000),
        ("-250ms", -250),
        ("2026-03-02T12:00:01Z", 1_000),
        ("2026-03-02T13:00:00.5+01:00", 500),
    ],
)
def test_a_time_is_whole_or_a_distance_from_the_start(text: str, ms: int) -> None:
    assert times.parse(text, NOON_MS) == NOON_MS + ms


@pytest.mark.parametrize("text", ["noon", "10m", "+10", "+m", "2026-03-02T12:00:00", "+", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Wrong):
        times.parse(text, NOON_MS)
    with pytest.raises(Wrong):
        times.parse("+10m", None)


@given(moments, st.sampled_from(["s", "ms", "us", "ns", "iso8601"]))
def test_a_time_in_any_unit_is_read_as_it_was_written(ms: int, unit: str) -> None:
    if unit == "s":
        ms = ms // 1000 * 1000 + 1  # what floats can't say
    written = times.in_unit(ms, unit)  # type: ignore[arg-type]
    assert times.of_field(written, unit) == ms  # type: ignore[arg-type]


def test_a_distance_is_shown_in_the_units_that_it_has() -> None:
    shown = {ms: times.show(ms, 0) for ms in (0, 5_400_000, 259_200_250, -90_000)}
    assert list(shown.values()) == ["+0s", "+1h30m", "+3d250ms", "-1m30s"]
    assert times.show(281_400_000, 0) == "+3d6h10m"


@given(moments, moments)
def test_a_distance_is_read_as_it_is_shown(ms: int, start_ms: int) -> None:
    assert times.parse(times.show(ms, start_ms), start_ms) == ms
