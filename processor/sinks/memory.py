"""Targets in memory: they remember every byte that arrives, and fail as they are told to.

A `MemoryTarget` is the far side: an event bus or a queue. Many sinks may share one, as workers
share a bus. Faults are part of its input: a script of what happens to the next requests, entries
that it refuses for good, and `is_down` for as long as an outage should last.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from processor.core.packing import Limits, Packing, Request, Result
from processor.model import DeadLetter, DerivedEvent
from processor.ports import Clock, Refusal
from processor.sinks.delivery import Answered, Failed, Outcome, deliver

THROTTLED = "ThrottlingException"
LIMITS = Limits(entries_max=10, bytes_max=999_999, retryable=frozenset({THROTTLED}))


class Arrival(Struct, frozen=True):
    """One entry that the target took; the same again for every repeat."""

    id: str
    body: bytes
    group: str
    of: DerivedEvent | DeadLetter


class Healthy(Struct, frozen=True):
    """The request is taken, but for the entries that are refused for good."""


class Throttled(Struct, frozen=True):
    """The entries at these places of the request are throttled, the others taken."""

    places: frozenset[int]


class Dropped(Struct, frozen=True):
    """The request never arrives."""


class AnswerLost(Struct, frozen=True):
    """The request takes effect, but its answer is lost: the sender must repeat it."""


Fault = Healthy | Throttled | Dropped | AnswerLost


class MemoryTarget:
    """The far side. `script` says what happens to the next requests, then all goes well.

    `refuse` maps ids to the code with which they are refused for good.
    """

    def __init__(self, script: Iterable[Fault] = (), refuse: Mapping[str, str] | None = None):
        self.arrivals: list[Arrival] = []
        self.script = deque(script)
        self.refuse = dict(refuse or {})
        self.is_down = False

    def __repr__(self) -> str:
        return f"<MemoryTarget arrivals={len(self.arrivals)} is_down={self.is_down}>"

    def by_id(self) -> dict[str, bytes]:
        """Each id's bytes; an AssertionError if one id ever came with other bytes."""
        out: dict[str, bytes] = {}
        for arrival in self.arrivals:
            known = out.setdefault(arrival.id, arrival.body)
            assert known == arrival.body, f"{arrival.id} came as {known!r} and {arrival.body!r}"
        return out

    def take(self, entries: Sequence[Arrival]) -> Outcome:
        """One request arrives."""
        fault = self.script.popleft() if self.script else Healthy()
        if self.is_down or isinstance(fault, Dropped):
            return Failed("Down")
        throttled = fault.places if isinstance(fault, Throttled) else frozenset[int]()
        results = []
        for place, entry in enumerate(entries):
            code = THROTTLED if place in throttled else self.refuse.get(entry.id)
            if code is None:
                self.arrivals.append(entry)
            results.append(Result(code))
        return Failed("AnswerLost") if isinstance(fault, AnswerLost) else Answered(tuple(results))


class MemorySink:
    """A sink like any other (packing, retries, order), whose far side is a `MemoryTarget`."""

    def __init__(self, target: MemoryTarget, clock: Clock, rng: random.Random):
        self._target, self._clock, self._rng = target, clock, rng

    async def check(self) -> None:
        """It is always there."""

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        """See `ports.Sink`; cancelling is safe."""
        entries = [Arrival(event.id, event.detail, event.group, event) for event in events]
        sizes = [len(event.detail) for event in events]
        refusals = await _put(self._target, entries, sizes, self._clock, self._rng)
        return sorted(refusals, key=lambda refusal: refusal.index)

    async def close(self) -> None:
        """Nothing is held between calls."""


class MemoryDeadLetters:
    """Dead letters in memory, of any size."""

    def __init__(self, target: MemoryTarget, clock: Clock, rng: random.Random):
        self._target, self._clock, self._rng = target, clock, rng

    async def check(self) -> None:
        """It is always there."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """See `ports.DeadLetters`; cancelling is safe."""
        entries = [Arrival(letter.id, letter.payload, letter.id, letter) for letter in letters]
        refusals = await _put(self._target, entries, [0] * len(entries), self._clock, self._rng)
        assert not refusals, f"a dead letter was dropped: {refusals}"

    async def close(self) -> None:
        """Nothing is held between calls."""


async def _put(
    target: MemoryTarget,
    entries: Sequence[Arrival],
    sizes: Sequence[int],
    clock: Clock,
    rng: random.Random,
) -> list[Refusal]:
    packing = Packing(LIMITS, sizes, [entry.group for entry in entries])

    async def send(request: Request) -> Outcome:
        return target.take([entries[i] for i in request.indices])

    await deliver(packing, send, clock, rng)
    return packing.refusals
