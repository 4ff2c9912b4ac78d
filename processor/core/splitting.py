"""Records that hold several events: a page of records becomes a page of events.

All events of a record share its position, and are fed together: a commit lies after all of them.
Only a position that was imported may lie within a record; what comes before it there is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor.codecs.base import Events, Fault, Splitter
from processor.model import Page, Position, Shard


class Split(Struct, frozen=True):
    """A page of events. `outside_range` of them belong to another shard, by their own key: their
    producer did not know of a reshard. They are in the page, unless they were to be dropped."""

    page: Page
    faults: Mapping[int, Fault]
    outside_range: int


def split(
    page: Page,
    splitter: Splitter | None,
    shard: Shard,
    skip: Position | None,
    *,
    drops_outside: bool,
) -> Split:
    """Take a page's records apart; without a splitter each is one event.

    `skip`: if this record is in the page, leave out as many of its events as the position says.
    """
    events = splitter.split(page.payloads, page.partition_keys) if splitter else _whole(page)
    outside = {
        i
        for i, key in enumerate(events.hash_keys)
        if key is not None and not shard.first_hash <= key <= shard.last_hash
    }
    dropped = _done(page, events, skip)
    if drops_outside:
        dropped |= outside
    kept = [i for i in range(len(events.payloads)) if i not in dropped] if dropped else None
    return Split(*_page(page, events, kept), len(outside))


def _whole(page: Page) -> Events:
    n = len(page)
    return Events(page.payloads, page.partition_keys, [None] * n, list(range(n)), [0] * n, {})


def _done(page: Page, events: Events, skip: Position | None) -> set[int]:
    """Events that lie before the position."""
    if skip is None:
        return set()
    number = int(skip.value)
    return {
        i
        for i, (record, index) in enumerate(zip(events.records, events.indexes, strict=True))
        if index < skip.skip and int(page.sequence_numbers[record]) == number
    }


def _page(page: Page, events: Events, kept: list[int] | None) -> tuple[Page, dict[int, Fault]]:
    """The events at `kept` (None: all) as a page, and their faults by their places in it."""
    if kept is None:
        kept = list(range(len(events.payloads)))
    records = [events.records[i] for i in kept]
    result = replace(
        page,
        payloads=[events.payloads[i] for i in kept],
        sequence_numbers=[page.sequence_numbers[record] for record in records],
        partition_keys=[events.partition_keys[i] for i in kept],
        arrivals_ms=page.arrivals_ms[np.array(records, dtype=np.intp)],
        indexes=[events.indexes[i] for i in kept],
    )
    places = {i: place for place, i in enumerate(kept)} if events.faults else {}
    return result, {places[i]: fault for i, fault in events.faults.items() if i in places}
