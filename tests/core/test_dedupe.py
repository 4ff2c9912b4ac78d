"""Duplicates: verdicts are those of a plain loop over the records, however pages are cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.dedupe import IDS_MAX, Dedupe

HORIZON_MS = 100


class Seen(NamedTuple):
    """A record as `Dedupe` sees it; `moves` is its effect on the watermark, after it."""

    id: int
    time: int
    enters: bool
    moves: int


def naive(records: Sequence[Seen], ids_max: int) -> list[bool]:
    """Record by record, with a dict; swept where the watermark crosses a quarter of the horizon."""
    seen: dict[int, int] = {}
    watermark, verdicts = 0, []
    step = HORIZON_MS // 4
    for record in records:
        floor = watermark // step * step
        seen = {id_: time for id_, time in seen.items() if time + HORIZON_MS >= floor}
        entered = seen.get(record.id)
        is_duplicate = entered is not None and watermark <= entered + HORIZON_MS
        verdicts.append(is_duplicate)
        is_alive = watermark <= record.time + HORIZON_MS
        has_room = record.id in seen or len(seen) < ids_max
        if record.enters and is_alive and has_room and not is_duplicate:
            seen[record.id] = record.time
        watermark += record.moves
    return verdicts


def run(
    records: Sequence[Seen],
    cuts: Iterable[int] = (),
    ids_max: int = IDS_MAX,
    restores: Iterable[int] = (),
    sweeps: bool = True,
) -> tuple[list[bool], tuple[bytes, bytes]]:
    """The verdicts, and the state at the end."""
    dedupe, verdicts, restored_at = Dedupe(HORIZON_MS, ids_max), [], set(restores)
    watermarks = np.concatenate(([0], np.cumsum([r.moves for r in records])))
    for start, stop in pairwise(sorted({0, len(records), *cuts} & set(range(len(records) + 1)))):
        part = records[start:stop]
        verdicts += dedupe.duplicates(
            np.array([r.id for r in part], dtype=np.uint64),
            np.array([r.time for r in part], dtype=np.int64),
            watermarks[start:stop],
            np.array([r.enters for r in part], dtype=np.bool_),
        ).tolist()
        if sweeps:
            dedupe.sweep(int(watermarks[stop]))
        if stop in restored_at:
            successor = Dedupe(HORIZON_MS, ids_max)
            successor.restore(dedupe.snapshot(int(watermarks[stop])))
            dedupe = successor
    return verdicts, dedupe.snapshot(int(watermarks[-1]))


seen = st.builds(
    Seen,
    st.integers(0, 12),
    st.integers(0, 800),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 1, 10, 25, 60, 300]),
)
streams = st.lists(seen, min_size=1, max_size=60)
places = st.sets(st.integers(0, 60))
bounds = st.sampled_from([0, 1, 3, 8, IDS_MAX])


@settings(deadline=None, max_examples=300)
@given(streams, places, bounds)
def test_verdicts_are_those_of_a_plain_loop_under_any_cuts_and_bound(
    records: list[Seen], cuts: set[int], ids_max: int
) -> None:
    assert run(records, cuts, ids_max)[0] == naive(records, ids_max)


@settings(deadline=None, max_examples=300)
@given(streams, places, places, bounds)
def test_cuts_and_restores_change_neither_verdicts_nor_state(
    records: list[Seen], cuts: set[int], restores: set[int], ids_max: int
) -> None:
    assert run(records, cuts | restores, ids_max, restores) == run(records, (), ids_max)


@settings(deadline=None)
@given(streams, places, bounds)
def test_a_sweep_has_no_effect_on_any_verdict(
    records: list[Seen], cuts: set[int], ids_max: int
) -> None:
    assert run(records, cuts, ids_max, sweeps=False) == run(records, cuts, ids_max)


def test_a_record_judged_by_a_later_watermark_makes_no_other_id_forgotten() -> None:
    """A merged child: one parent's keys are at 900, the child itself still at 0; room for two."""
    dedupe = Dedupe(HORIZON_MS, ids_max=2)
    own, judged = np.zeros(3, dtype=np.int64), np.array([0, 900, 0])
    times, enters = np.array([10, 900, 10]), np.ones(3, dtype=np.bool_)
    ids = np.array([1, 2, 1], dtype=np.uint64)
    assert dedupe.duplicates(ids, times, judged, enters, own).tolist() == [False, False, True]
    assert len(dedupe) == 2


def verdict_at(watermark: int) -> bool:
    """Of a repeat, by the watermark before it, of an id that entered at time 500."""
    first = Seen(1, 500, enters=True, moves=watermark)
    return run([first, Seen(1, 700, enters=True, moves=0)])[0][1]


def test_an_id_leaves_when_the_watermark_passes_its_time_and_the_horizon() -> None:
    assert {at: verdict_at(at) for at in (599, 600, 601)} == {599: True, 600: True, 601: False}


def test_an_id_that_left_may_enter_again_with_its_new_time() -> None:
    records = [Seen(1, 500, True, 601), Seen(1, 650, True, 0), Seen(1, 650, True, 0)]
    assert run(records)[0] == [False, False, True]


def test_what_is_late_or_rejected_makes_no_later_record_a_duplicate() -> None:
    records = [Seen(1, 500, False, 0), Seen(1, 500, True, 0), Seen(1, 500, True, 0)]
    assert run(records)[0] == [False, False, True]


def test_a_late_repeat_is_a_duplicate_first() -> None:
    records = [Seen(1, 500, True, 0), Seen(1, 500, False, 0)]
    assert run(records)[0] == [False, True]


def test_past_the_bound_no_id_enters_until_others_have_left() -> None:
    """Two ids fit; the third is not remembered, until the watermark has passed the first two."""
    full = [Seen(1, 0, True, 0), Seen(2, 0, True, 0), Seen(3, 0, True, 0)]
    repeats = [Seen(3, 0, True, 0), Seen(1, 0, True, 140)]
    later = [Seen(3, 100, True, 0), Seen(3, 100, True, 0)]
    verdicts, _ = run([*full, *repeats, *later], ids_max=2)
    assert verdicts == [False, False, False, False, True, False, True]


def test_memory_never_exceeds_the_bound() -> None:
    dedupe = Dedupe(HORIZON_MS, 1_000)
    for start in range(0, 10_000, 700):
        ids = np.arange(start, start + 700, dtype=np.uint64)
        zeros = np.zeros(700, dtype=np.int64)
        dedupe.duplicates(ids, zeros, zeros, np.ones(700, dtype=np.bool_))
        assert len(dedupe) <= 1_000
    assert len(dedupe) == 1_000


def test_what_has_left_is_forgotten() -> None:
    dedupe = Dedupe(HORIZON_MS)
    ids, times = np.arange(500, dtype=np.uint64), np.arange(500, dtype=np.int64)
    dedupe.duplicates(ids, times, np.zeros(500, dtype=np.int64), np.ones(500, dtype=np.bool_))
    dedupe.sweep(100 + 400)
    assert len(dedupe) == 100
    dedupe.sweep(10**15)
    assert len(dedupe) == 0


@pytest.mark.parametrize(
    "saved",
    [
        (b"", bytes(8)),
        (bytes(8), b""),
        (bytes(7), bytes(7)),
        (bytes(16), bytes(16)),
        (b"\2" + bytes(7) + b"\1" + bytes(7), bytes(16)),
        (bytes(8), b"\xff" * 8),
    ],
    ids=["no ids", "no times", "cut", "twice the same", "out of order", "before 1970"],
)
def test_what_is_no_snapshot_is_refused(saved: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Dedupe(HORIZON_MS).restore(saved)
