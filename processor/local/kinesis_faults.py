"""Faults on request: what the wire server does wrong next, as a list that is consumed in order.

    throttle          400 ProvisionedThroughputExceededException, nothing applied
    internal          500 InternalFailure, nothing applied
    expired_iterator  400 ExpiredIteratorException, nothing applied
    reset             the connection is reset, nothing applied
    empty             applied, and the answer is 200 with `{}`
    cut               applied, and the answer is 200 with the first half of its JSON
    lost              applied, and the connection is reset instead of an answer
    partial           PutRecords takes the first half of its records and refuses the others one by
                      one, as throttled; any other operation is answered as usual
    delay             applied and answered as usual, after `delay_ms`

What isn't applied isn't charged to a shard's rates either.
"""

from collections import deque
from typing import Literal

import msgspec

FaultKind = Literal[
    "throttle",
    "internal",
    "expired_iterator",
    "reset",
    "empty",
    "cut",
    "lost",
    "partial",
    "delay",
]
PENDING_MAX = 10_000


class Fault(msgspec.Struct, frozen=True):
    """One fault for the next matching requests, `times` of them; None matches every one.

    `operation` is a name such as GetRecords. `shard` is a shard id, and matches requests that name
    one shard: GetRecords, GetShardIterator, SplitShard, MergeShards (the first of the two).
    `delay_ms` milliseconds pass before the fault, whatever its kind.
    """

    kind: FaultKind
    operation: str | None = None
    shard: str | None = None
    times: int = 1
    delay_ms: int = 0

    def matches(self, operation: str, shard: str | None) -> bool:
        return self.operation in (None, operation) and self.shard in (None, shard)


class Faults:
    """The pending faults; the oldest that matches a request is used up by it."""

    def __init__(self) -> None:
        self._pending: deque[Fault] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def __repr__(self) -> str:
        return f"<Faults {list(self._pending)}>"

    @property
    def pending(self) -> list[Fault]:
        return list(self._pending)

    def add(self, *faults: Fault) -> None:
        """Append faults; ValueError past 10,000 of them."""
        if len(self._pending) + sum(fault.times for fault in faults) > PENDING_MAX:
            raise ValueError(f"{PENDING_MAX} faults at most can be pending; clear() them first")
        for fault in faults:
            self._pending.extend([msgspec.structs.replace(fault, times=1)] * fault.times)

    def clear(self) -> None:
        self._pending.clear()

    def take(self, operation: str, shard: str | None) -> Fault | None:
        for fault in self._pending:
            if fault.matches(operation, shard):
                self._pending.remove(fault)
                return fault
        return None
