"""Both stages together: many shards tell what one shard with all records would tell."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.model import PanesSpec, RuleSpec, WindowSpec
from tests.core import reshards, streams
from tests.core.merge import stages
from tests.core.streams import MINUTE_MS

N = 300
seeds = st.integers(0, 2**32)
HOPPING = WindowSpec(30_000, kind="hopping", every_ms=10_000, offset_ms=3_000)
RULES = (
    stages.rule("by_type"),
    stages.rule("by_store", 30_000, group_by=("type", "store")),
)
DAYS = WindowSpec(kind="calendar", calendar="day", offset_ms=(22 * 60 + 18) * MINUTE_MS)
OTHERS = (
    stages.rule("hopping", window=HOPPING, detect=()),
    stages.rule("judged", window=HOPPING, group_by=("store",)),
    stages.rule("days", window=DAYS, detect=(), group_by=()),
    stages.rule("lenient", 20_000, lateness_ms=30_000, panes=PanesSpec(late_count=1)),
    stages.rule("both", window=HOPPING, lateness_ms=5_000, panes=PanesSpec(late_count=2)),
)


def end_ms(base: list[streams.Record]) -> int:
    """Past every window."""
    return max(record.arrival_ms for record in base) + 10 * MINUTE_MS


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(0, 6), st.integers(0, 4), st.sampled_from([RULES, OTHERS]))
def test_shards_tell_together_what_one_shard_with_all_records_would(
    seed: int, source_reshards: int, merge_reshards: int, rules: tuple[RuleSpec, ...]
) -> None:
    rng = random.Random(seed)
    base = streams.records(seed, N, is_timely=True)
    plan = stages.plan(*rules)
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
