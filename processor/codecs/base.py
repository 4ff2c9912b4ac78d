"""What a codec is: bytes in, payloads or rows out; chained as the pipeline file's `decode` says.

A bad payload is a value (`Fault`), never an exception that ends the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol


class Fault(NamedTuple):
    """Why one payload can't be decoded."""

    reason: str
    detail: str


class Decoded(NamedTuple):
    """n rows, and what is wrong with those payloads that gave none (their rows are None)."""

    rows: list[Any]
    faults: dict[int, Fault]


class Events(NamedTuple):
    """What records hold: n events in order, with the record that each is in and its place there.

    `hash_keys`: by which hash key an event would have been routed; None: as its record was.
    `faults`: events that stand for a record which can't be taken apart, with that record's payload.
    """

    payloads: list[bytes]
    partition_keys: list[str]
    hash_keys: list[int | None]
    records: list[int]
    indexes: list[int]
    faults: dict[int, Fault]

    def extend(
        self,
        record: int,
        payloads: list[bytes],
        partition_keys: list[str],
        hash_keys: Sequence[int | None],
    ) -> None:
        """All events of one record, in their order."""
        self.payloads.extend(payloads)
        self.partition_keys.extend(partition_keys)
        self.hash_keys.extend(hash_keys)
        self.records.extend([record] * len(payloads))
        self.indexes.extend(range(len(payloads)))


class Splitter(Protocol):
    """A step before the last: a record may hold several events, which all share its position.

    It never fails: what it can't take apart is a fault.
    """

    kind: ClassVar[str]

    def split(self, payloads: Sequence[bytes], partition_keys: Sequence[str]) -> Events: ...


class Codec(Protocol):
    """The last step of a chain: payloads to rows of the pipeline's own Struct type."""

    kind: ClassVar[str]

    def __init__(self, row_type: Any) -> None: ...

    def decode(self, payloads: Sequence[bytes]) -> Decoded: ...
