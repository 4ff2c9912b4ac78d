"""States as chains under a lease: nothing missing, nothing orphaned, and damage at every link told.

A state here is a few columns; each commit changes some of them, so chains of several links arise.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from processor.core.leases.lineage import children_of
from processor.core.leases.rows import LinkRef, links_of
from processor.core.stored.chain import SEGMENT_BYTES, Body
from processor.core.stored.stream import Part
from processor.errors import StateUnreadable
from processor.model import END, TRIM_HORIZON, Shard
from processor.runtime.lease import Lease
from tests.runtime.test_lease import STREAM, Keeping, at, in_virtual_time, kept, noise
from tests.states import flipped

SIZE = 100_000


class Columns:
    """A state of several columns, as it changes from commit to commit."""

    def __init__(self, count: int = 6, size: int = SIZE) -> None:
        self.columns = [bytearray(noise(size + n)) for n in range(count)]

    @property
    def parts(self) -> list[Part]:
        return [Part(str(n), column) for n, column in enumerate(self.columns)]

    @property
    def message(self) -> bytes:
        return b"".join(self.columns)

    def renew(self, n: int, seed: int) -> None:
        self.columns[n][:] = random.Random(seed).randbytes(len(self.columns[n]))

    async def commit(self, lease: Lease, number: int) -> None:
        await lease.checkpoint(at(number), await lease.pack(self.parts))


async def chain_of(keeper: Keeping, links: int = 4) -> list[bytes]:
    """Commits as many, each with a link that the last one needs; their messages."""
    lease, state, messages = keeper.claim(), Columns(), []
    for number in range(1, links + 1):
        state.renew(number, 1_000 + number)
        await state.commit(lease, number)
        messages.append(state.message)
    return messages


def newest_links(keeper: Keeping) -> list[LinkRef]:
    state = keeper.row().pairs[-1].state
    assert state is not None
    return state.links


# ---- housekeeping


@in_virtual_time
async def test_after_every_commit_there_is_what_two_pairs_need_and_nothing_else() -> None:
    keeper, rng = kept(), random.Random(7)
    lease, state, most = keeper.claim(), Columns(), 0
    messages = [b""]
    for number in range(1, 41):
        for _ in range(rng.randrange(3)):
            state.renew(rng.randrange(6), number)
        state.columns[rng.randrange(6)][rng.randrange(SIZE)] ^= 1
        if number % 10 == 0:
            lease = keeper.claim()
            assert (await lease.load()).state == messages[-1]
        await state.commit(lease, number)
        messages.append(state.message)
        await settled()
        assert set(keeper.objects.blobs) == set(links_of(keeper.row()))
        older = keeper.claim("reader")
        if number > 1:
            assert (await older.load(older=True)).state == messages[-2]
        keeper.change(replace(keeper.row(), owner=lease.row.owner, epoch=lease.row.epoch))
        most = max(most, len(newest_links(keeper)))
    assert most > 3, "or it proves little"


@in_virtual_time
async def test_what_a_crash_between_put_and_commit_left_is_swept_by_the_next_claim() -> None:
    keeper = kept()
    messages = await chain_of(keeper)
    lease, state = keeper.claim(), Columns()
    assert (await lease.load()).state == messages[-1]
    keeper.faults.script = [("write", "refuse")] * 1_000
    task = asyncio.create_task(state.commit(lease, 9))
    await asyncio.sleep(5)
    task.cancel()
    await asyncio.wait([task])
    keeper.faults.script = []
    needed = set(links_of(keeper.row()))
    assert set(keeper.objects.blobs) > needed, "an orphan for now"
    lease = keeper.claim()
    await keeper.states.sweep(lease.row)
    assert set(keeper.objects.blobs) == needed
    assert (await lease.load()).state == messages[-1]


@in_virtual_time
async def test_a_commit_whose_answer_got_lost_is_what_the_next_one_goes_on_from() -> None:
    keeper = kept()
    lease, state = keeper.claim(), Columns()
    await state.commit(lease, 1)
    state.renew(0, 5)
    keeper.faults.script = [("write", "lose")]
    await state.commit(lease, 2)
    state.columns[0][7] ^= 1
    await state.commit(lease, 3)
    assert (await keeper.claim().load()).state == state.message


@in_virtual_time
async def test_an_owner_after_a_fallback_goes_on_from_the_older_pair() -> None:
    keeper = kept()
    messages = await chain_of(keeper)
    keeper.objects.blobs.pop(newest_links(keeper)[-1].key)
    lease = keeper.claim()
    assert (await lease.load()).state == messages[-2]
    state = Columns()
    await state.commit(lease, 5)
    await settled()
    assert (await keeper.claim().load()).state == state.message
    assert set(keeper.objects.blobs) == set(links_of(keeper.row()))


@in_virtual_time
async def test_a_child_begins_with_the_whole_chain_of_its_parent() -> None:
    keeper = kept()
    await chain_of(keeper)
    lease, state = keeper.claim(), Columns()
    await lease.load()
    state.renew(5, 5)
    children = (Shard("shardId-000000000001", parents=(lease.shard.id,)),)
    await lease.end(END, await lease.pack(state.parts), children)
    (child,) = children_of(keeper.row(), children, {lease.shard.id}, TRIM_HORIZON, "a")
    assert keeper.content.shards[STREAM, child.id] == child
    lease = Lease(replace(child, owner="a", epoch=1), keeper, margin_s=2.0)
    assert (await lease.load()).inherited == (state.message,)


@in_virtual_time
async def test_a_link_of_several_segments_comes_back_and_goes_whole() -> None:
    keeper = kept()
    lease, state = keeper.claim(), Columns(3, SEGMENT_BYTES // 2)
    await state.commit(lease, 1)
    assert len(keeper.objects.blobs) == 2
    lease = keeper.claim()
    assert (await lease.load()).state == state.message
    for number in (2, 3):
        for n in range(3):
            state.renew(n, number)
        await state.commit(lease, number)
    await settled()
    assert len(keeper.objects.blobs) == 4, "the first one's are gone"
    old = keeper.row()
    keeper.change(replace(old, pairs=old.pairs[:1]))
    await keeper.states.sweep(keeper.claim().row)
    assert len(keeper.objects.blobs) == 2
    keeper.objects.blobs.pop(next(key for key in keeper.objects.blobs if key.endswith(".001")))
    with pytest.raises(StateUnreadable, match="is missing"):
        await keeper.claim().load()


# ---- damage


def gone(body: bytes) -> bytes | None:
    return None


def cut_off(body: bytes) -> bytes | None:
    return body[: len(body) // 2]


def bit_flipped(body: bytes) -> bytes | None:
    return flipped(body, 8 * 5_000)


def exchanged(body: bytes) -> bytes | None:
    return noise(len(body))


@pytest.mark.parametrize("damage", [gone, cut_off, bit_flipped, exchanged])
@pytest.mark.parametrize("link", range(5))
def test_damage_to_any_link_leads_to_the_pair_before_or_stops_with_the_reason(
    link: int, damage: Callable[[bytes], bytes | None]
) -> None:
    @in_virtual_time
    async def test() -> None:
        keeper = kept()
        messages = await chain_of(keeper, 5)
        links = newest_links(keeper)
        assert len(links) == 5
        body = damage(keeper.objects.blobs.pop(links[link].key))
        if body is not None:
            keeper.objects.blobs[links[link].key] = body
        lease = keeper.claim()
        if link == 4:
            restored = await lease.load()
            assert (restored.position, restored.state) == (at(4), messages[-2])
            assert links[link].key.rpartition("/")[2] in keeper.observer.lines[-1]
            return
        name = links[link].key.rpartition("/")[2]
        with pytest.raises(StateUnreadable, match=name):
            await lease.load()

    test()


@in_virtual_time
async def test_a_newer_releases_state_is_refused_with_what_to_do() -> None:
    keeper = kept()
    lease = keeper.claim()
    await lease.checkpoint(at(1), b"one")
    (key,) = keeper.content.blobs
    body = keeper.content.blobs[key]
    newer = body[:4] + b"\x03" + body[5:]
    keeper.content.blobs[key] = newer
    pair = keeper.row().pairs[-1]
    assert pair.state is not None
    state = replace(pair.state, digest=digest_of(newer))
    keeper.change(replace(keeper.row(), pairs=(replace(pair, state=state),)))
    with pytest.raises(StateUnreadable, match=r"version 3, this release reads 2: deploy"):
        await keeper.claim().load()


@in_virtual_time
async def test_a_link_that_the_row_does_not_name_is_not_looked_for() -> None:
    keeper = kept()
    await chain_of(keeper, 3)
    row = keeper.row()
    state = row.pairs[-1].state
    assert state is not None
    pair = replace(row.pairs[-1], state=replace(state, older=state.older[1:]))
    keeper.change(replace(row, pairs=(pair,)))
    with pytest.raises(StateUnreadable, match="which the row does not name"):
        await keeper.claim().load()


@pytest.mark.parametrize("seed", range(40))
def test_no_bits_flipped_anywhere_ever_give_a_state_that_was_not_committed(seed: int) -> None:
    @in_virtual_time
    async def test() -> None:
        keeper, rng = kept(), random.Random(seed)
        messages = await chain_of(keeper, 4)
        for key in rng.sample(sorted(keeper.objects.blobs), rng.randint(1, 3)):
            body = keeper.objects.blobs[key]
            for _ in range(rng.choice([1, 1, 100])):
                body = flipped(body, rng.randrange(8 * len(body)))
            keeper.objects.blobs[key] = body
        try:
            restored = await keeper.claim().load()
        except StateUnreadable:
            return
        assert restored.state == messages[int(restored.position.value) - 1]

    test()


async def settled() -> None:
    """What goes on in the background is done."""
    await asyncio.sleep(1)


def digest_of(body: bytes) -> str:
    return Body([body]).digest
