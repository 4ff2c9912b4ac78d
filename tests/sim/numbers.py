"""What shards told the merge stream: numbers without a hole, each of them one byte string.

Read off the records that the stream took, repeats and late arrivals included.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from processor.codecs.base import Fault
from processor.core.merge import partials
from tests.sim.breach import Breach


class Row(NamedTuple):
    """In which numbers count up: one bucket of a rule's version, in one life of it on a shard."""

    rule_version: str
    shard_id: str
    life: tuple[str, ...]
    bucket: int


def check_numbers(payloads: Iterable[bytes]) -> int:
    """Raises Breach; how many records were repeats."""
    bodies: dict[tuple[Row, int, int], bytes] = {}
    splits: dict[tuple[Row, int], int] = {}
    repeats = 0
    for payload in payloads:
        envelope = partials.envelope(payload)
        assert not isinstance(envelope, Fault), envelope
        closing = partials.closing(envelope.body)
        assert not isinstance(closing, Fault), closing
        teller = closing.teller
        row = Row(closing.rule_version, teller.shard_id, teller.life, closing.bucket)
        key = row, closing.number, closing.split
        known = bodies.setdefault(key, envelope.body)
        repeats += known is not envelope.body
        if known != envelope.body:
            raise Breach("one number, one byte string", f"{key}: {known!r} {envelope.body!r}")
        splits[row, closing.number] = closing.splits
    _check_whole(bodies.keys(), splits)
    return repeats


def _check_whole(told: Iterable[tuple[Row, int, int]], splits: dict[tuple[Row, int], int]) -> None:
    wanted = {(row, number, split) for (row, number), n in splits.items() for split in range(n)}
    missing = wanted - set(told)
    last: dict[Row, int] = {}
    for row, number in splits:
        last[row] = max(last.get(row, 0), number)
    holes = [
        (row, number)
        for row, n in last.items()
        for number in range(n)
        if (row, number) not in splits
    ]
    if missing or holes:
        raise Breach("numbers", f"missing splits {sorted(missing)}, holes {sorted(holes)}")
