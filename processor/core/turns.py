"""Bounded steps: what a page yields, cut so that heartbeats and other shards get their turn."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from processor.model import Counts, DeadLetter, DerivedEvent, Partial, Step

# A step ends after about 50 ms of closing: half a microsecond a key that detectors judge, 20 an
# event. The detectors judge all keys of a window in one go, its events are told in several.
TURN_WORK = 100_000
EVENT_WORK = 40

Told = DerivedEvent | Partial
Piece = tuple[int, list[Told]]  # what it cost, and what it yields


def turns(pieces: Iterable[Piece]) -> Generator[Step, None, list[Told]]:
    """Steps of about as much work as a turn may take; what is left makes the last step."""
    told: list[Told] = []
    work = 0
    for cost, derived in pieces:
        told += derived
        work += cost
        if work >= TURN_WORK:
            yield step(told, [], Counts())
            told, work = [], 0
    return told


def step(told: Sequence[Told], letters: list[DeadLetter], counts: Counts) -> Step:
    events = [one for one in told if isinstance(one, DerivedEvent)]
    partials = [one for one in told if isinstance(one, Partial)]
    return Step(events, letters, counts, partials)


def joined(steps: Iterator[Step]) -> Step:
    """All steps as one; the last one's counts are those of all."""
    *before, last = steps
    events = [event for step in (*before, last) for event in step.events]
    partials = [partial for step in (*before, last) for partial in step.partials]
    return Step(events, last.dead_letters, last.counts, partials)
