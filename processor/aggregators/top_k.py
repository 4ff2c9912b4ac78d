"""`top_k`: the `k` most frequent texts or integers of a field, with how often each came.

Exact as long as a window has few different keys: 200, or 20 for each of the k if that is more.
Past that, all counts are lowered by that of the middle one, and what is then at zero is forgotten:
counts are least ones, and each tells its most as well. Keys that came more often than one record in
100 are never missing. Of equal counts integers come before texts, each in their order.

After Misra and Gries, "Finding repeated elements" (1982), merged after Agarwal et al., "Mergeable
summaries" (PODS 2012). Counts are lowered at the very record that brings one key too many, so that
page cuts don't show; past that point the order of records does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from processor.aggregators.base import CellCount, Inputs, Params, Plain, Reads, State
from processor.model import Bools, CellSpec, Column, Ints, Rows

KEPT_MIN = 100
KEPT_EACH = 10  # of each of the k

Key = str | int


class TopKParams(Params, frozen=True, kw_only=True):
    k: Annotated[int, Meta(ge=1, le=100, description="How many.")] = 10

    @property
    def kept(self) -> int:
        """Keys that are left when there were twice as many and one more."""
        return max(KEPT_MIN, KEPT_EACH * self.k)

    @property
    def room(self) -> int:
        return 2 * self.kept


class TopK(Plain):
    kind: ClassVar[str] = "top_k"
    params: ClassVar[type[Params]] = TopKParams
    reads: ClassVar[Reads] = "keys"
    is_number: ClassVar[bool] = False

    def columns(self, params: Any) -> tuple[Column, ...]:
        # How many keys there are, and by how much their counts were lowered.
        return (Column("n", "<i4"), Column("lowered", "<i8"))

    def cells(self, params: Any) -> tuple[CellSpec, ...]:
        return (CellSpec("counts", "add", is_keyed=True),)

    def cells_a_slot(self, params: TopKParams) -> CellCount:
        return CellCount(params.room, params.room)

    def update(self, params: TopKParams, state: State, slots: Rows, inputs: Inputs) -> None:
        tight = _tight(state, slots, inputs.keys, params.room)
        if not tight.any():
            _add(state, slots, inputs.keys, np.ones(len(slots), dtype=np.int64))
            return
        loose = np.flatnonzero(~tight)
        keys = list(compress(inputs.keys, (~tight).tolist()))
        _add(state, slots[loose], keys, np.ones(len(loose), dtype=np.int64))
        for slot, own in _by_slot(slots[tight], compress(inputs.keys, tight.tolist())):
            _add_in_order(state, slot, ((key, 1) for key in own), params)

    def merge(
        self, params: TopKParams, state: State, into: Rows, other: State, slots: Rows
    ) -> None:
        lowered = other["lowered"][slots]
        is_loose = state["n"][into] + other["n"][slots] <= params.room
        places, keys, counts = other["counts"].of(slots)
        state["lowered"][into] += lowered
        loose = is_loose[places]
        _add(state, into[places[loose]], list(compress(keys, loose.tolist())), counts[loose])
        entries = zip(keys, counts.tolist(), strict=True)
        for slot, own in _by_slot(into[places[~loose]], compress(entries, (~loose).tolist())):
            _join(state, slot, own, params)

    def result(self, params: TopKParams, state: State, slots: Rows) -> npt.NDArray[Any]:
        tables: list[list[tuple[Key, int]]] = [[] for _ in slots]
        places, keys, counts = state["counts"].of(slots)
        for place, key, count in zip(places.tolist(), keys, counts.tolist(), strict=True):
            tables[place].append((key, count))
        found = np.empty(len(slots), dtype=np.object_)
        lowered = state["lowered"][slots].tolist()
        for i, (table, less) in enumerate(zip(tables, lowered, strict=True)):
            first = sorted(table, key=_rank)[: params.k]
            found[i] = [_entry(key, count, less) for key, count in first]
        return found


def _rank(entry: tuple[Key, int]) -> tuple[int, bool, Key]:
    key, count = entry
    return -count, isinstance(key, str), key


def _entry(key: Key, count: int, lowered: int) -> dict[str, Key]:
    exact: dict[str, Key] = {"key": key, "count": count}
    return exact | {"at_most": count + lowered} if lowered else exact


def _add(state: State, slots: Rows, keys: Sequence[Key], counts: Ints) -> None:
    np.add.at(state["n"], state["counts"].update(slots, keys, counts), 1)


def _tight(state: State, slots: Rows, keys: Sequence[Key], room: int) -> Bools:
    """Which records are of slots that would have more keys than there is room for."""
    known, which, records = np.unique(slots, return_inverse=True, return_counts=True)
    suspect = (state["n"][known] + records > room)[which]
    if suspect.any():
        some = np.flatnonzero(suspect)
        asked = [keys[i] for i in some.tolist()]
        is_new = ~state["counts"].has(slots[some], asked)
        pairs = set(compress(zip(slots[some].tolist(), asked, strict=True), is_new.tolist()))
        new = Counter(slot for slot, _ in pairs)
        more = np.array([new[slot] for slot in known.tolist()], dtype=np.int64)
        suspect = (state["n"][known] + more > room)[which]
    found: Bools = suspect
    return found


def _by_slot(slots: Rows, items: Iterable[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Each slot with its items, in their order."""
    found: dict[int, list[Any]] = {}
    for slot, item in zip(slots.tolist(), items, strict=True):
        found.setdefault(slot, []).append(item)
    yield from found.items()


def _add_in_order(
    state: State, slot: int, entries: Iterable[tuple[Key, int]], params: TopKParams
) -> None:
    table = _table(state, slot)
    for key, count in entries:
        table[key] = table.get(key, 0) + count
        if len(table) > params.room:
            table = _lower(state, slot, table, params.kept)
    _store(state, slot, table)


def _join(state: State, slot: int, entries: Iterable[tuple[Key, int]], params: TopKParams) -> None:
    """All at once: the order in which another slot's keys come means nothing."""
    table = _table(state, slot)
    for key, count in entries:
        table[key] = table.get(key, 0) + count
    if len(table) > params.room:
        table = _lower(state, slot, table, params.kept)
    _store(state, slot, table)


def _table(state: State, slot: int) -> dict[Key, int]:
    _, keys, counts = state["counts"].of(np.array([slot]))
    return dict(zip(keys, counts.tolist(), strict=True))


def _lower(state: State, slot: int, table: Mapping[Key, int], kept: int) -> dict[Key, int]:
    """Lower all counts so that at most `kept` keys are left."""
    less = sorted(table.values(), reverse=True)[kept]
    state["lowered"][slot] += less
    return {key: count - less for key, count in table.items() if count > less}


def _store(state: State, slot: int, table: Mapping[Key, int]) -> None:
    slots = np.array([slot])
    state["counts"].reset(slots)
    state["n"][slot] = 0
    counts = np.array(list(table.values()), dtype=np.int64)
    _add(state, np.repeat(slots, len(counts)), list(table), counts)
