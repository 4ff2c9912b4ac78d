"""States that are fetched ahead of a claim: bounded, and used only if they are the very ones."""

from msgspec.structs import replace

from processor.core.rows import StateRef, StreamKey, claimed, fresh_row
from processor.model import TRIM_HORIZON, Shard
from processor.runtime.prefetch import Prefetched
from processor.runtime.state_store import StateStore
from processor.stores.memory import MemoryObjects

ROW = claimed(fresh_row(StreamKey("orders", 1), Shard("s0"), TRIM_HORIZON), "a", 0)


def ref(n: int, size: int = 10) -> StateRef:
    return StateRef("item", f"orders@1/s0/{n}", f"digest {n}", size)


async def test_what_was_fetched_ahead_needs_no_store_any_more() -> None:
    items = MemoryObjects()
    store = StateStore(items, None)
    stored = await store.put(ROW, 1, "w", b"state")
    await store.prefetch("s0", [stored])
    items.blobs.clear()
    assert await store.get("s0", stored) == b"state"


async def test_a_state_that_was_replaced_is_fetched_anew() -> None:
    store = StateStore(MemoryObjects(), None)
    await store.prefetch("s0", [await store.put(ROW, 1, "v", b"old")])
    assert await store.get("s0", await store.put(ROW, 2, "w", b"new")) == b"new"


async def test_a_state_that_is_missing_is_no_error_before_it_is_needed() -> None:
    store = StateStore(MemoryObjects(), None)
    await store.prefetch("s0", [ref(1)])
    assert store.prefetched.find("s0", ref(1)) is None
    assert store.prefetched.reserve("s0", ref(1))


def test_what_finds_no_room_is_not_fetched_until_others_are_dropped() -> None:
    here = Prefetched(bytes_max=25, refs_max=9)
    assert here.reserve("s0", ref(1))
    assert here.reserve("s1", ref(2))
    assert not here.reserve("s2", ref(3))
    here.drop("s1")
    assert here.reserve("s2", ref(3))


def test_so_many_references_have_room_and_no_more() -> None:
    here = Prefetched(bytes_max=1_000, refs_max=2)
    assert [here.reserve("s0", ref(n)) for n in range(3)] == [True, True, False]


def test_what_comes_after_it_was_dropped_is_not_kept() -> None:
    here = Prefetched()
    assert here.reserve("s0", ref(1))
    here.drop("s0")
    here.keep("s0", ref(1), b"late")
    assert here.find("s0", ref(1)) is None


def test_another_digest_is_another_state() -> None:
    here = Prefetched()
    assert here.reserve("s0", ref(1))
    here.keep("s0", ref(1), b"body")
    assert here.find("s0", replace(ref(1), digest="other")) is None
