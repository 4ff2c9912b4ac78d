"""What the windows must be: worked out record by record, with dicts, from what the stream took.

It shares no code with the ring, and knows of the workers only the marks that they committed. Shards
are walked parents first; a child goes on with what its parents left in its hash range.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sim.history import HASHES, OUT_OF_ORDERNESS_MS, RuleSaid

NEVER_MS = -(2**62)


class Taken(NamedTuple):
    """A record as the stream took it."""

    shard_id: str
    number: str  # its sequence number
    payload: bytes


class MarkSeen(NamedTuple):
    """A committed mark: it holds after that sequence number (0: before the first record)."""

    number: int
    fact: str
    watermark_ms: int


class Family(NamedTuple):
    """A shard as the stream cut it."""

    shard_id: str
    first: int
    last: int
    parents: tuple[str, ...]


Window = tuple[str, str, int]  # rule, group, start
# What a shard tells at once: its id, the start of a unit of which windows are made, and for how
# many of the windows that hold that unit it was too late.
Part = tuple[str, int, int]


@dataclass
class Truth:
    """The values of each window by the shard that counted them, and within a shard by what windows
    share; records dropped for a reason, ids of dead letters' places.

    `extras`: what was too late for the window on its shard, but not for a later one of a global
    rule's. It goes with that, and counts here too if it finds the window not yet told.
    """

    windows: dict[Window, dict[Part, list[int]]] = field(default_factory=dict)
    extras: dict[Window, dict[Part, list[int]]] = field(default_factory=dict)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    broken: set[tuple[str, str]] = field(default_factory=set)
    records: Counter[str] = field(default_factory=Counter)


@dataclass
class _Left:
    """How far a shard came: its watermark, those of its parents by hash range, ids seen."""

    watermark_ms: int = NEVER_MS
    floors: list[tuple[int, int, int]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def judged_by_ms(self, key: str) -> int:
        """The watermark by which records of that key are late."""
        floors = (ms for first, last, ms in self.floors if first <= HASHES[key] <= last)
        return max((self.watermark_ms, *floors))


def truth(
    rules: tuple[RuleSaid, ...],
    shards: Iterable[Family],
    records: Iterable[Taken],
    marks: Mapping[str, list[MarkSeen]],
) -> Truth:
    """`shards` in the order of their opening: parents come first."""
    found = Truth()
    by_shard: dict[str, list[Taken]] = {}
    for record in records:
        by_shard.setdefault(record.shard_id, []).append(record)
    left: dict[str, _Left] = {}
    families: dict[str, Family] = {}
    for shard in shards:
        families[shard.shard_id] = shard
        state = _begin(shard, families, left)
        taken, told = by_shard.get(shard.shard_id, []), marks.get(shard.shard_id, [])
        _walk(rules, taken, told, state, found)
        left[shard.shard_id] = state
    return found


def _begin(shard: Family, families: Mapping[str, Family], left: Mapping[str, _Left]) -> _Left:
    """A child begins at the lowest of its parents' watermarks; each of them is a floor for the
    records of its range, for whose windows have been told up to there."""
    state = _Left()
    parents = [(families[parent], left[parent]) for parent in shard.parents]
    for family, parent in parents:
        state.floors += [(family.first, family.last, parent.watermark_ms), *parent.floors]
        state.seen |= parent.seen
    state.watermark_ms = min((parent.watermark_ms for _, parent in parents), default=NEVER_MS)
    return state


def _walk(
    rules: tuple[RuleSaid, ...],
    records: list[Taken],
    marks: list[MarkSeen],
    state: _Left,
    found: Truth,
) -> None:
    ahead = sorted(marks, key=lambda mark: mark.number)
    for record in records:
        while ahead and ahead[0].number < int(record.number):
            _apply(ahead.pop(0), state)
        _count(rules, record, state, found)
    for mark in ahead:
        _apply(mark, state)


def _apply(mark: MarkSeen, state: _Left) -> None:
    if mark.fact == "idle":  # else it moves no watermark
        state.watermark_ms = max(state.watermark_ms, mark.watermark_ms)


def _count(rules: tuple[RuleSaid, ...], record: Taken, state: _Left, found: Truth) -> None:
    found.records[record.shard_id] += 1
    try:
        event = json.loads(record.payload)
    except ValueError:
        found.broken.add((record.shard_id, record.number))
        return
    judged_by_ms = state.judged_by_ms(event["key"])
    state.watermark_ms = max(state.watermark_ms, event["at"] - OUT_OF_ORDERNESS_MS)
    if event["id"] in state.seen:
        found.duplicates[record.shard_id] += 1
        return
    wanting = [
        (rule, start_ms)
        for rule in rules
        if rule.type == event["type"]
        for start_ms in rule.starts_ms(event["at"])
    ]
    holding = [one for one in wanting if judged_by_ms < _late_from_ms(*one)]
    if wanting and not holding:
        found.late[record.shard_id] += 1
        return
    held = {rule for rule, _ in holding}
    is_counted = not wanting
    for rule, start_ms in wanting:
        if rule not in held:
            continue
        window = rule.name, event[rule.field] if rule.field else "", start_ms
        late = sum(one[0] is rule for one in wanting) - sum(one[0] is rule for one in holding)
        part = record.shard_id, rule.unit_ms(event["at"]), late
        is_held = (rule, start_ms) in holding
        parts = (found.windows if is_held else found.extras).setdefault(window, {})
        if is_held and parts and judged_by_ms == start_ms + rule.size_ms:
            continue  # told at that very moment, for good
        parts.setdefault(part, []).append(event["value"])
        is_counted = True
    found.late[record.shard_id] += not is_counted
    state.seen.add(event["id"])


def _late_from_ms(rule: RuleSaid, start_ms: int) -> int:
    """The watermark from which on a record is too late: past the end of its window. A shard tells
    nothing more to a global rule from the end on."""
    return start_ms + rule.size_ms + (not rule.is_global)
