"""Chains of links: what a link holds, when it leans on older ones, and what is refused."""

from __future__ import annotations

import random
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.stored import chain_writer
from processor.core.stored.chain import (
    BLOCK_BYTES,
    LINKS_MAX,
    PART_BYTES_MIN,
    SEGMENT_BYTES,
    Body,
    Chain,
)
from processor.core.stored.stream import Part
from tests.states import flipped, opened, packed

SMALL = Part("totals", b"few bytes")


def noise(size: int, seed: int = 1) -> bytearray:
    """Bytes that don't compress."""
    return bytearray(random.Random(seed).randbytes(size))


class Stored:
    """A chain as it grows: one message after another, each under the next name."""

    def __init__(self) -> None:
        self.bodies: dict[str, Body] = {}
        self.chain: Chain | None = None
        self.count = 0

    def put(self, *message: Part) -> Body:
        self.count += 1
        made = packed(message, self.chain)
        self.chain = made.chain(name := f"link{self.count}")
        self.bodies[name] = made.body
        self.bodies = {key: self.bodies[key] for key in self.chain.links}
        read, chain = opened(name, self.bodies)
        assert read == b"".join(part.data for part in message)
        assert chain == self.chain, "who opens it goes on as who stored it would"
        return made.body


# ---- what a link holds


def test_small_parts_are_stored_with_every_link_and_lean_on_none() -> None:
    stored = Stored()
    stored.put(SMALL, Part("more", bytes(PART_BYTES_MIN - 1)))
    stored.put(Part("totals", b"other"))
    assert list(stored.bodies) == ["link2"]


def test_only_blocks_that_changed_are_stored_again() -> None:
    stored, column = Stored(), noise(8 * BLOCK_BYTES)
    assert stored.put(SMALL, Part("a", column), SMALL).size > 8 * BLOCK_BYTES
    assert stored.put(SMALL, Part("a", column), SMALL).size < 1_000
    column[3 * BLOCK_BYTES : 4 * BLOCK_BYTES] = noise(BLOCK_BYTES, 2)
    assert BLOCK_BYTES < stored.put(SMALL, Part("a", column)).size < BLOCK_BYTES + 1_000
    assert list(stored.bodies) == ["link1", "link3"], "the second holds nothing that is needed"


def test_a_few_bytes_in_every_row_are_stored_as_a_difference() -> None:
    """As a window does to a detector's memory: one place of each key's row, another a key."""
    stored, rows = Stored(), np.frombuffer(noise(4_096 * 512), np.uint8).reshape(4_096, 512).copy()
    base = stored.put(Part("memory", memoryview(rows.reshape(-1))))
    for wave in range(5):
        rows[np.arange(len(rows)), (np.arange(len(rows)) * 7 + wave) % 512] += 1
        delta = stored.put(Part("memory", memoryview(rows.reshape(-1))))
        assert delta.size < base.size / 20
    assert list(stored.bodies) == ["link1", "link6"], "a difference replaces the one before it"


def test_a_block_that_is_all_new_is_stored_whole_and_differences_start_from_it() -> None:
    stored = Stored()
    stored.put(Part("a", noise(PART_BYTES_MIN, 1)))
    column = noise(PART_BYTES_MIN, 2)
    assert stored.put(Part("a", column)).size > PART_BYTES_MIN
    column[7] ^= 1
    assert stored.put(Part("a", column)).size < 1_000
    assert list(stored.bodies) == ["link2", "link3"]


@pytest.mark.parametrize("sizes", [(3.5, 4.2, 4.2), (4.2, 3.5, 0.1), (0.1, 3, 0.5)])
def test_a_column_may_grow_and_shrink(sizes: tuple[float, ...]) -> None:
    stored, column = Stored(), noise(8 * BLOCK_BYTES)
    for size in sizes:
        column[5] ^= 1
        stored.put(SMALL, Part("a", column[: int(size * BLOCK_BYTES)]), SMALL)


def test_blocks_too_many_to_keep_for_differences_are_stored_whole_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chain_writer, "KEPT_BYTES_MAX", 0)
    column = noise(2 * BLOCK_BYTES)
    chain = packed([Part("a", column)]).chain("one")
    column[0] ^= 1
    second = packed([Part("a", column)], chain)
    assert BLOCK_BYTES < second.body.size < BLOCK_BYTES + 1_000


def test_small_parts_may_fill_several_segments() -> None:
    """The manifest holds them all, and is stored in one go."""
    count = 7 * SEGMENT_BYTES // 2 // (PART_BYTES_MIN - 1)
    body = Stored().put(*(Part(str(n), noise(PART_BYTES_MIN - 1, n)) for n in range(count)))
    *full, last = [len(segment) for segment in body.segments]
    assert full == [SEGMENT_BYTES] * 3
    assert 0 < last <= SEGMENT_BYTES


# ---- how links stay few


def test_links_are_never_more_than_eight_and_none_is_stored_in_vain() -> None:
    """Each link holds another block, so that all would be needed for good."""
    stored, column = Stored(), noise(64 * PART_BYTES_MIN)
    for i in range(20):
        at = i * PART_BYTES_MIN
        column[at : at + PART_BYTES_MIN] = noise(PART_BYTES_MIN, i)
        stored.put(SMALL, Part("a", column))
        assert len(stored.bodies) <= LINKS_MAX


def test_at_least_half_of_what_is_stored_is_needed() -> None:
    stored, columns = Stored(), [noise(BLOCK_BYTES, n) for n in range(16)]
    for i in range(40):
        columns[i % 16][:] = noise(BLOCK_BYTES, 100 + i)
        stored.put(*(Part(str(n), column) for n, column in enumerate(columns)))
        needed = 16 * BLOCK_BYTES
        total = sum(body.size for body in stored.bodies.values())
        assert total <= 2 * needed + 2 * chain_writer.SLACK_BYTES


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["byte", "all", "grow", "cut"]))))
def test_any_history_reads_back_as_it_was_written(history: list[tuple[int, str]]) -> None:
    stored, columns = Stored(), [noise(BLOCK_BYTES + 99, n) for n in range(6)]
    for step, (which, what) in enumerate(history):
        column = columns[which]
        if what == "byte" and column:
            column[step % len(column)] ^= 255
        elif what == "all":
            columns[which] = noise(len(column), step)
        elif what == "grow":
            column += noise(BLOCK_BYTES // 2, step)
        elif what == "cut":
            del column[len(column) // 3 :]
        stored.put(*(Part(str(n), bytes(c)) for n, c in enumerate(columns)), SMALL)


# ---- what is refused


def _chain_of_three() -> Stored:
    """Three links that are all needed, and a difference among them."""
    stored, column = Stored(), noise(3 * BLOCK_BYTES)
    stored.put(SMALL, Part("a", column))
    column[:BLOCK_BYTES] = noise(BLOCK_BYTES, 2)
    stored.put(SMALL, Part("a", column))
    column[-1] ^= 1
    stored.put(SMALL, Part("a", column))
    assert len(stored.bodies) == 3
    return stored


@pytest.mark.parametrize("link", ["link1", "link2"])
def test_no_flipped_bit_of_an_older_link_gives_another_state(link: str) -> None:
    """The newest one's are told by its digest, which the lease's row has."""
    stored = _chain_of_three()
    right, _ = opened("link3", stored.bodies)
    (segment,) = stored.bodies[link].segments
    rng = random.Random(1)
    for _ in range(60):
        body = Body([flipped(segment, rng.randrange(8 * len(segment)))])
        with suppress(ValueError):
            read, _ = opened("link3", {**stored.bodies, link: body})
            assert read == right, "a bit that nothing refers to"


@pytest.mark.parametrize("link", ["link1", "link2", "link3"])
def test_a_link_that_was_cut_off_is_refused(link: str) -> None:
    stored = _chain_of_three()
    (segment,) = stored.bodies[link].segments
    for size in (0, 1, 5, 8, 9, 100, len(segment) // 2):
        with pytest.raises(ValueError, match=r".+"):
            opened("link3", {**stored.bodies, link: Body([segment[:size]])})


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        opened("x", {"x": Body([body])})
    with pytest.raises(ValueError, match=r".+"):
        opened("x", {"x": Body([b"KSPS\x02" + body])})


def test_a_newer_version_is_refused_with_what_to_do() -> None:
    (segment,) = packed(b"state").body.segments
    newer = Body([segment[:4] + b"\x03" + segment[5:]])
    with pytest.raises(ValueError, match=r"version 3, this release reads 2: deploy the release"):
        opened("x", {"x": newer})


def test_something_else_than_a_state_is_told_from_an_older_or_newer_one() -> None:
    with pytest.raises(ValueError, match="no state of this program"):
        opened("x", {"x": Body([b"PK\x03\x04 and so on"])})


# ---- bombs: whole links with right digests that would become very large


def _link(links: list[str], head: bytes, parts: list, layers: bytes = b"") -> dict[str, Body]:
    manifest = chain_writer.zstd.compress(msgspec.msgpack.encode([links, head, parts]), 1)
    opening = b"KSPS\x02" + layers
    return {"x": Body([opening + manifest + len(manifest).to_bytes(4, "big")])}


def test_a_layer_that_would_become_larger_than_a_block_is_refused() -> None:
    bomb = chain_writer.zstd.compress(bytes(100 * BLOCK_BYTES), 1)
    block = [BLOCK_BYTES, b"digest", [[0, 5, len(bomb)]]]
    with pytest.raises(ValueError, match=f"more than {BLOCK_BYTES} bytes"):
        opened("x", _link([], b"", [["a", 0, [block]]], bomb))


def test_a_manifest_that_would_become_very_large_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        opened("x", _link([], bytes(70 * 1024**2), []))


def test_a_manifest_of_more_blocks_than_any_state_has_is_refused() -> None:
    block = [BLOCK_BYTES, b"digest", [[0, 0, 1]]]
    with pytest.raises(ValueError, match="more than any state's"):
        opened("x", _link([], b"", [["a", 0, [block] * (16 * 1024 + 1)]]))


@pytest.mark.parametrize(
    ("links", "parts", "reason"),
    [
        ([], [["a", 1, []], ["b", 0, []]], "out of order"),
        ([], [["a", 9, []]], "out of order"),
        ([], [["a", 0, [[1, b"", [[1, 0, 1]]]]]], "not named"),
        ([], [["a", 0, [[1, b"", [[0, 2**32, 1]]]]]], "bytes"),
        ([], [["a", 0, [[1, b"", []]]]], "list of blocks"),
        ([], [["a", 0, [[2 * BLOCK_BYTES, b"", [[0, 0, 1]]]]]], "list of blocks"),
        (["l"] * 9, [], "list of blocks"),
        ([], 7, "list of blocks"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(links: list, parts: list, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        opened("x", _link(links, b"head", parts))


def test_a_state_that_no_reader_would_believe_is_not_written() -> None:
    packing = chain_writer.Packing()
    packing.size = 4 * 1024**3 + 1
    with pytest.raises(ValueError, match="4294967297 bytes"):
        packing.finish()
