"""The target in memory: it fails as told, and notices an id that comes with other bytes."""

from __future__ import annotations

import random

import pytest

from processor.model import DerivedEvent
from processor.sinks.memory import MemorySink, MemoryTarget
from tests.clocks import VirtualClock


def event(id_: str, detail: bytes) -> DerivedEvent:
    return DerivedEvent(id_, "any", "processor.shop", "Window Result", 0, detail, "g", 0)


async def test_one_id_with_two_bodies_is_found_out():
    target = MemoryTarget()
    for detail in (b"1", b"2"):
        await MemorySink(target, VirtualClock(), random.Random(1)).put([event("a", detail)])
    with pytest.raises(AssertionError, match="a came as b'1' and b'2'"):
        target.by_id()


async def test_equal_repeats_are_one():
    target = MemoryTarget()
    for _ in range(2):
        await MemorySink(target, VirtualClock(), random.Random(1)).put([event("a", b"1")])
    assert target.by_id() == {"a": b"1"}
    assert len(target.arrivals) == 2


async def test_while_it_is_down_a_sink_waits_with_pauses_that_grow():
    target = MemoryTarget()
    target.is_down = True

    class Mending(VirtualClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            target.is_down = len(self.slept) < 12

    clock = Mending()
    assert await MemorySink(target, clock, random.Random(1)).put([event("a", b"1")]) == []
    assert target.by_id() == {"a": b"1"}
    ceilings = [min(10.0, 0.1 * 2**i) for i in range(12)]
    assert all(nap < ceiling for nap, ceiling in zip(clock.slept, ceilings, strict=True))
    assert max(clock.slept) > 1
