"""What shards told the merge stream: numbers without a hole, each of them one byte string.

Read off the records that the stream took, repeats and late arrivals included. They also tell when
nobody waited for a shard: from a closing that says so to the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from processor.codecs.base import Fault
from processor.core.merge import partials
from processor.core.merge.partials import Closing
from tests.sim.breach import Breach


class Row(NamedTuple):
    """In which numbers count up: one bucket of a rule's version, in one life of it on a shard."""

    rule_version: str
    shard_id: str
    life: tuple[str, ...]
    bucket: int


class Quiet(NamedTuple):
    """Nobody waited for a shard that was at that watermark, until it spoke at that moment."""

    rule_version: str
    shard_id: str
    watermark_ms: int
    until_ms: int


class Told(NamedTuple):
    """A split as it was taken for the first time."""

    at_ms: int
    body: bytes
    closing: Closing


class Numbers:
    """All that was taken. Raises Breach where a number has two byte strings, or a hole is left."""

    def __init__(self, payloads: Iterable[tuple[int, bytes]]) -> None:
        self.repeats = 0
        self._rows: dict[Row, dict[int, dict[int, Told]]] = {}  # by number and split
        for at_ms, payload in payloads:
            self._add(at_ms, payload)
        for row, numbers in self._rows.items():
            _check_whole(row, numbers)

    def _add(self, at_ms: int, payload: bytes) -> None:
        envelope = partials.envelope(payload)
        assert not isinstance(envelope, Fault), envelope
        closing = partials.closing(envelope.body)
        assert not isinstance(closing, Fault), closing
        teller = closing.teller
        row = Row(closing.rule_version, teller.shard_id, teller.life, closing.bucket)
        splits = self._rows.setdefault(row, {}).setdefault(closing.number, {})
        known = splits.get(closing.split)
        if known is None:
            splits[closing.split] = Told(at_ms, envelope.body, closing)
            return
        self.repeats += 1
        if known.body != envelope.body:
            what = f"{row} {closing.number}: {known.body!r} {envelope.body!r}"
            raise Breach("one number, one byte string", what)

    @property
    def splits(self) -> int:
        """Closings that came in several records."""
        return sum(len(told) > 1 for row in self._rows.values() for told in row.values())

    def quiets(self, rules: Mapping[str, str]) -> Iterator[Quiet]:
        """`rules`: their names, by version."""
        for row, numbers in self._rows.items():
            for number, told in numbers.items():
                closing = told[0].closing
                if not closing.is_idle:
                    continue
                since_ms = closing.watermark_ms or 0
                if number + 1 in numbers:
                    until_ms = max(one.at_ms for one in numbers[number + 1].values())
                    yield Quiet(row.rule_version, row.shard_id, since_ms, until_ms)
                elif later := self._successors(row, told[0].at_ms, rules):
                    yield Quiet(row.rule_version, row.shard_id, since_ms, min(later))

    def _successors(self, row: Row, at_ms: int, rules: Mapping[str, str]) -> list[int]:
        """When other versions of a rule, which are all that a deploy leaves of it on a shard, first
        spoke after that moment."""
        return [
            first_ms
            for other, numbers in self._rows.items()
            if (other.shard_id, other.bucket) == (row.shard_id, row.bucket)
            and other.rule_version != row.rule_version
            and rules[other.rule_version] == rules[row.rule_version]
            and (first_ms := max(one.at_ms for one in numbers[0].values())) > at_ms
        ]


def _check_whole(row: Row, numbers: dict[int, dict[int, Told]]) -> None:
    if missing := set(range(max(numbers))) - numbers.keys():
        raise Breach("numbers", f"{row} lacks {sorted(missing)}")
    for number, told in numbers.items():
        if missing := set(range(next(iter(told.values())).closing.splits)) - told.keys():
            raise Breach("numbers", f"{row} lacks splits {sorted(missing)} of {number}")
