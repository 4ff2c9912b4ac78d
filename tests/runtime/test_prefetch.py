"""States that are fetched ahead of a claim: bounded, and used only if they are the very ones."""

import random

from processor.core.leases.rows import LinkRef, StateRef, StreamKey, claimed, fresh_row
from processor.core.stored.chain import Body
from processor.core.stored.stream import Part
from processor.model import TRIM_HORIZON, Shard
from processor.runtime.prefetch import Prefetched
from processor.runtime.state_store import StateStore
from processor.stores.memory import MemoryObjects
from tests.states import packed

ROW = claimed(fresh_row(StreamKey("orders", 1), Shard("s0"), TRIM_HORIZON), "a", 0)


def ref(n: int, size: int = 10) -> StateRef:
    return StateRef("item", f"orders@1/s0/{n}", "digest", size)


def link(n: int) -> LinkRef:
    return ref(n).links[0]


async def test_what_was_fetched_ahead_needs_no_store_any_more() -> None:
    items = MemoryObjects()
    store = StateStore(items, None)
    stored = await store.put(ROW, 1, "w", packed(b"state"))
    await store.prefetch("s0", [stored.ref])
    items.blobs.clear()
    assert (await store.get("s0", stored.ref))[0] == b"state"


async def test_a_state_that_was_replaced_is_fetched_anew() -> None:
    store = StateStore(MemoryObjects(), None)
    old = await store.put(ROW, 1, "v", packed(b"old"))
    await store.prefetch("s0", [old.ref])
    new = await store.put(ROW, 2, "w", packed(b"new"))
    assert (await store.get("s0", new.ref))[0] == b"new"


async def test_a_state_that_is_missing_is_no_error_before_it_is_needed() -> None:
    store = StateStore(MemoryObjects(), None)
    await store.prefetch("s0", [ref(1)])
    assert store.prefetched.find("s0", link(1)) is None
    assert store.prefetched.reserve("s0", link(1))


def test_what_finds_no_room_is_not_fetched_until_others_are_dropped() -> None:
    here = Prefetched(bytes_max=25, refs_max=9)
    assert here.reserve("s0", link(1))
    assert here.reserve("s1", link(2))
    assert not here.reserve("s2", link(3))
    here.drop("s1")
    assert here.reserve("s2", link(3))


def test_so_many_references_have_room_and_no_more() -> None:
    here = Prefetched(bytes_max=1_000, refs_max=2)
    assert [here.reserve("s0", link(n)) for n in range(3)] == [True, True, False]


def test_what_comes_after_it_was_dropped_is_not_kept() -> None:
    here = Prefetched()
    assert here.reserve("s0", link(1))
    here.drop("s0")
    here.keep("s0", link(1), Body([b"late"]))
    assert here.find("s0", link(1)) is None


async def test_links_that_were_fetched_ahead_serve_a_chain_that_grew_on_them() -> None:
    """The giver commits once more, as a rule, after its taker fetched."""
    objects = MemoryObjects()
    store = StateStore(MemoryObjects(), objects)
    column = bytearray(random.Random(1).randbytes(100_000))
    base = await store.put(ROW, 1, "v", packed([Part("a", column)]))
    await store.prefetch("s0", [base.ref])
    column[7] ^= 1
    grown = await store.put(ROW, 2, "w", packed([Part("a", column)], base.chain))
    del objects.blobs[base.ref.key]
    assert (await store.get("s0", grown.ref))[0] == column
