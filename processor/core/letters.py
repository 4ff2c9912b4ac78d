"""Dead letters of a page's records; their ids are their places, so that a repeat is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from processor.core import events
from processor.core.admission import Tally
from processor.core.intake import Batch
from processor.core.rules import RulePlan
from processor.model import Counts, DeadLetter, Page


class Source(NamedTuple):
    """Whose records they are."""

    stream: str
    shard_id: str


class Refuser(Protocol):
    """A rule, as far as it is asked here."""

    plan: RulePlan
    tally: Tally


def of_page(
    batch: Batch, rules: Sequence[Refuser], source: Source, counts: Counts
) -> list[DeadLetter]:
    """In order of records: those that are bad, and those that single rules refused."""
    letters = []
    for i, reject in batch.rejects.items():
        counts.rejects[reject.reason] = counts.rejects.get(reject.reason, 0) + 1
        letters.append((i, of_record(source, batch.page, i, reject.reason, reject.detail)))
    for rule in rules:
        name = rule.plan.spec.name
        for at, reason, detail in rule.tally.refusals:
            i, said = int(batch.index[at]), f"rule {name}: {detail}"
            letters.append((i, of_record(source, batch.page, i, reason, said, rule=name)))
    return [letter for _, letter in sorted(letters, key=lambda each: each[0])]


def of_record(
    source: Source, page: Page, i: int, reason: str, detail: str, *, rule: str | None = None
) -> DeadLetter:
    """Of record i of the page; `rule`: the only one that refused it."""
    sequence_number = page.sequence_numbers[i]
    index = 0 if page.indexes is None else page.indexes[i]
    return DeadLetter(
        id=events.dead_letter_id(source.stream, source.shard_id, sequence_number, index, rule),
        reason=reason,
        detail=detail,
        payload=page.payloads[i],
        shard_id=source.shard_id,
        sequence_number=sequence_number,
        partition_key=page.partition_keys[i],
        arrival_ms=int(page.arrivals_ms[i]),
    )
