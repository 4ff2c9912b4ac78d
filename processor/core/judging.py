"""What becomes of each record of a page: rejected, a duplicate, late, unmatched, or counted.

Each is judged by what came before it, never by its page: by the watermark before it, and by the ids
before it. A page of n records is n rows of columns here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from processor.core import figures, intake
from processor.core.admission import Tally
from processor.core.dedupe import Dedupe
from processor.core.intake import Batch
from processor.core.records import Records
from processor.core.rules import RulePlan
from processor.core.windows import Sample, SampleOf
from processor.model import Bools, Counts, EventSpec, Hashes, Ints, Rows

NO_WATERMARK = -(2**62)
# A time further ahead of its arrival than this counts, but moves the watermark only as far as its
# arrival would: one wrong clock must not close everybody's windows.
AHEAD_MAX_MS = 60_000
_NOWHERE: Rows = np.zeros(0, dtype=np.intp)


class Judge(Protocol):
    """A rule, as far as it is asked here."""

    plan: RulePlan
    tally: Tally

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which of n records no window can take any more, by the watermark before each."""


class Timed(NamedTuple):
    """A page's records with what they are judged by; columns of n."""

    batch: Batch
    times: Ints  # int64[n], event times in ms
    ids: Hashes | None  # uint64[n], where the stream has ids
    own: Ints  # int64[n]: the shard's watermark before each
    judged: Ints  # int64[n]: that, or a parent's floor; nowhere before `own`


def wanted(plan: RulePlan, batch: Batch) -> Bools:
    """Which records a rule wants, bool[n]; rejects those that lack what it reads."""
    columns = {path: batch.column(path) for path in plan.pattern.fields}
    result = plan.pattern.mask(columns, len(batch)) & batch.valid
    for path in plan.spec.group_by:
        batch.need_keys(path, result)
    for use in plan.uses:
        of = result
        if use.filter is not None:
            of = result & batch.matches(use.filter, plan.filters[use.filter])
        need = batch.need_numbers if use.reads == "numbers" else batch.need_keys
        need(use.field, of)
    return result


def watermarks(batch: Batch, times: Ints, event: EventSpec, from_ms: int) -> tuple[Ints, Ints]:
    """The watermark before and after each record, int64[n] each; before the first it is `from_ms`.

    Only records that are valid move it.
    """
    arrivals = batch.arrivals_ms
    moves = np.where(times > arrivals + AHEAD_MAX_MS, arrivals, times) - event.out_of_orderness_ms
    moves = np.where(batch.valid, moves, NO_WATERMARK)
    after = np.maximum(np.maximum.accumulate(moves), from_ms)
    before = np.concatenate(([from_ms], after[:-1]))
    return before, after


def judge(
    page: Timed,
    rules: Sequence[Judge],
    wanted: Sequence[Bools],
    seen: Dedupe,
    event: EventSpec,
    counts: Counts,
) -> list[Records | None]:
    """What each rule has to count of what it wants, None for nothing; the rest is in `counts`."""
    batch = page.batch
    wanted = [mask & batch.valid for mask in wanted]  # a later rule may have rejected a record
    late = [
        rule.late(page.times, page.judged) & mask for rule, mask in zip(rules, wanted, strict=True)
    ]
    timely = [mask & ~tardy for mask, tardy in zip(wanted, late, strict=True)]
    matched, counted = _any(wanted, len(batch)), _any(timely, len(batch))
    duplicate = _duplicates(page, seen, counted | ~matched)
    fresh = batch.valid & ~duplicate
    counts.duplicates = int(duplicate.sum())
    counts.counted = int((counted & fresh).sum())
    counts.late = int((matched & ~counted & fresh).sum())
    counts.unmatched = int((~matched & fresh).sum())
    for rule, tardy in zip(rules, late, strict=True):
        counts.late_by_rule[rule.plan.spec.name] = int((tardy & fresh).sum())
    return [
        _records(rule.plan, page, mask & fresh, event)
        for rule, mask in zip(rules, timely, strict=True)
    ]


def move_late(rules: Sequence[Judge], records: Sequence[Records | None], counts: Counts) -> None:
    """Records that no rule counted in the end, as their windows were told for good: which those
    are, only the rules could say, after `judge`."""
    if not any(rule.tally.late_at for rule in rules):
        return
    taken, kept = _NOWHERE, _NOWHERE
    for rule, own in zip(rules, records, strict=True):
        if own is not None:
            late = np.concatenate([_NOWHERE, *rule.tally.late_at])
            taken, kept = np.union1d(taken, own.at), np.union1d(kept, np.setdiff1d(own.at, late))
    counts.counted -= len(taken) - len(kept)
    counts.late += len(taken) - len(kept)


def _duplicates(page: Timed, seen: Dedupe, enters: Bools) -> Bools:
    """Which valid records repeat an id, bool[n]; the ids of those that enter are known then."""
    duplicate = np.zeros(len(page.batch), dtype=np.bool_)
    if page.ids is not None and len(page.batch):
        good = np.flatnonzero(page.batch.valid)
        duplicate[good] = seen.duplicates(
            page.ids[good], page.times[good], page.judged[good], enters[good], page.own[good]
        )
    return duplicate


def _records(plan: RulePlan, page: Timed, taken: Bools, event: EventSpec) -> Records | None:
    rows, batch = np.flatnonzero(taken), page.batch
    if not len(rows):
        return None
    return Records(
        [intake.where(batch.column(path), taken) for path in plan.spec.group_by],
        intake.where(batch.partition_keys, taken),
        page.times[rows],
        _readings(plan, page, rows, taken),
        rows,
        page.judged[rows],
        _sample_of(batch, rows, event),
    )


def _readings(plan: RulePlan, page: Timed, rows: Rows, taken: Bools) -> figures.Readings:
    batch = page.batch
    return figures.Readings(
        page.times[rows],
        {path: batch.numbers(path)[rows] for path in plan.numeric_fields},
        {path: intake.where(batch.column(path), taken) for path in plan.key_fields},
        {name: batch.matches(name, of)[rows] for name, of in plan.filters.items()},
    )


def _sample_of(batch: Batch, rows: Rows, event: EventSpec) -> SampleOf | None:
    if event.correlation_id is None and event.traceparent is None:
        return None

    def sample_of(i: int) -> Sample:
        at = int(rows[i])
        return batch.text(event.correlation_id, at), batch.text(event.traceparent, at)

    return sample_of


def _any(masks: Sequence[Bools], n: int) -> Bools:
    result = np.zeros(n, dtype=np.bool_)
    for mask in masks:
        result |= mask
    return result
