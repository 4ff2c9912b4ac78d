"""Both stages together: many shards tell what one shard with all records would tell."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import reshards, streams
from tests.core.merge import stages
from tests.core.streams import MINUTE_MS

N = 300
seeds = st.integers(0, 2**32)
RULES = (
    stages.rule("by_type"),
    stages.rule("by_store", 30_000, group_by=("type", "store")),
)


def end_ms(base: list[streams.Record]) -> int:
    """Past every window."""
    return max(record.arrival_ms for record in base) + 10 * MINUTE_MS


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(0, 6), st.integers(0, 4))
def test_shards_tell_together_what_one_shard_with_all_records_would(
    seed: int, source_reshards: int, merge_reshards: int
) -> None:
    rng = random.Random(seed)
    base = streams.records(seed, N, is_timely=True)
    plan = stages.plan(*RULES)
    history = reshards.history(rng, N, source_reshards)
    told = stages.tell(plan, base, history, rng, end_ms(base))
    put = stages.interleaved(told, history, rng)
    merged = stages.merge(
        plan, put, reshards.history(rng, len(put), merge_reshards), rng, end_ms(base)
    )
    expected = stages.by_one(plan, base, end_ms(base))
    assert stages.results(merged.events) == stages.results(expected)
    assert stages.anomalies(merged.events) == stages.anomalies(expected)
    assert merged.late == 0
