"""Late data, shards that fall quiet and come back: no record is lost, and none is counted twice."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.model import PanesSpec
from tests.core import reshards, streams
from tests.core.merge import stages
from tests.core.merge.test_merging import end_ms

N = 300
seeds = st.integers(0, 2**32)


@settings(max_examples=15, deadline=None)
@given(
    seeds,
    st.integers(0, 6),
    st.integers(0, 4),
    st.sampled_from([3, 100_000]),
    st.sampled_from([0, 60_000]),
)
def test_every_counted_record_is_in_a_result_or_counted_late(
    seed: int, source_reshards: int, merge_reshards: int, max_groups: int, lateness_ms: int
) -> None:
    """The last pane of a window has all that it counted."""
    rng = random.Random(seed)
    base = reshards.in_disorder(streams.records(seed, N), rng)
    panes = PanesSpec(late_count=1 if lateness_ms else None)
    more = {"max_groups": max_groups, "lateness_ms": lateness_ms, "panes": panes}
    rule = stages.rule(group_by=("type", "store"), detect=(), **more)
    plan = stages.plan(rule)
    history = reshards.history(rng, N, source_reshards)
    told = stages.tell(plan, base, history, rng, end_ms(base), quiet=0.3)
    put = stages.interleaved(told, history, rng)
    merged = stages.merge(
        plan, put, reshards.history(rng, len(put), merge_reshards), rng, end_ms(base)
    )
    details = [json.loads(event.detail) for event in merged.events]
    assert len({event.id for event in merged.events}) == len(merged.events)
    assert sum(d["count"] for d in details if d["is_final"]) == merged.counted
    assert merged.counted + merged.late == sum(counts.counted for counts in told.counts)
    orders = sum(d["values"]["orders"] for d in details if d["is_final"])
    assert orders == merged.counted
