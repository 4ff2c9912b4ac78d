"""A rule's windows in words: what they are, when they are told, and what is late for them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from processor.config.values import show_duration
from processor.model import EventSpec, RuleSpec, WindowSpec

IDLE = "after 30 s without records the service's clock takes over from records"


def of(window: WindowSpec) -> str:
    """What windows there are."""
    offset = f", shifted by {show_duration(window.offset_ms)}" if window.offset_ms else ""
    zone = window.zone or "UTC"
    match window.kind:
        case "tumbling":
            size = show_duration(window.size_ms)
            return f"{size} each, one after the other, from the epoch on (UTC){offset}"
        case "hopping":
            size, every = show_duration(window.size_ms), show_duration(window.every_ms)
            times = -(-window.size_ms // window.every_ms)
            return f"the last {size}, every {every}{offset}: each record is in {times} of them"
        case "session":
            gap = show_duration(window.gap_ms)
            return f"a key's records, each less than {gap} after another; ends {gap} after the last"
        case "calendar":
            first = "Monday's midnight" if window.calendar == "week" else "midnight"
            return f"each {window.calendar} of {zone}, from {first} on{offset}"
        case "running":
            ttl = show_duration(window.ttl_ms)
            return f"all records of a key since its first; ends {ttl} after the last, and is gone"


def when_told(rule: RuleSpec, event: EventSpec, *, is_global: bool) -> Iterator[str]:
    """A sentence a kind of pane."""
    whose = "the slowest shard's watermark" if is_global else "its shard's watermark"
    clock = "newest event time" if event.time else "newest arrival"
    if event.out_of_orderness_ms:
        clock += f" less {show_duration(event.out_of_orderness_ms)}"
    yield f"once a window and key, when {whose} ({clock}) has come to its end; {IDLE}"
    if rule.window.kind == "running":
        yield "while a key has records, its window does not end: only early panes tell of it"
    elif rule.window.kind != "session":
        yield "a key without records in a window is not told of"
    yield from _early(rule)
    yield from _late(rule)


def _early(rule: RuleSpec) -> Iterator[str]:
    panes = rule.panes
    told = "what came since the pane before" if panes.is_discarding else "all that it has so far"
    if panes.early_every_ms is not None:
        every = show_duration(panes.early_every_ms)
        yield f"early, every {every} of event time, where something new came: {told}"
    if panes.early_count is not None:
        yield f"early, after every {panes.early_count:,} records of a key in a window: {told}"
    if panes.early_when is not None:
        pattern = json.dumps(panes.early_when, ensure_ascii=False)
        yield f"early, once a window and key, as soon as its values match {pattern}"
    if panes.emit_empty:
        yield "at its end also where early panes have told everything"


def _late(rule: RuleSpec) -> Iterator[str]:
    count = rule.panes.late_count
    if not rule.lateness_ms or count is None:
        return
    each = "record" if count == 1 else f"{count:,} records"
    lateness = show_duration(rule.lateness_ms)
    yield f"late, after every {each} that came within {lateness} of its end"
    yield f"last of all, {lateness} after its end: that pane is final, the one on time is not"


def what_is_late(rule: RuleSpec, event: EventSpec) -> str:
    behind = show_duration(event.out_of_orderness_ms)
    if rule.window.kind == "running":
        ttl = show_duration(rule.window.ttl_ms + rule.lateness_ms)
        return (
            f"a record more than {ttl} older than the watermark is counted (processor_late_total)"
            " and dropped"
        )
    if rule.lateness_ms and rule.panes.late_count is not None:
        lateness = show_duration(rule.lateness_ms)
        which = f"whose window ended more than {lateness} before the watermark"
    elif rule.lateness_ms:
        lateness = show_duration(rule.lateness_ms)
        which = f"whose window was told already, or ended more than {lateness} before the watermark"
    else:
        which = "whose window has closed"
    some = ", for that window only" if rule.window.kind == "hopping" else ""
    never = f"at most {behind} older" if event.out_of_orderness_ms else "not older"
    return (
        f"a record {which} is counted (processor_late_total) and dropped{some}; one that is"
        f" {never} than the newest before it never is"
    )
