"""Group keys: what a rule groups by, as dense indices.

A key has a hash home if its records' PartitionKey is the key field that the pipeline names, and
its MD5 lies in the shard's hash range: then no other shard sees it, and a child shard can tell by
that place, which is kept, whether it is the heir. A key without a home, and `other` (what came
after `max_groups` keys), belong to this shard only: they carry it as their `part`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from msgspec import Struct

from processor.core.events import Key
from processor.core.homes import NOWHERE, PLACE_BYTES, place_of, range_of
from processor.core.interning import Interner
from processor.model import Bools, Ints, Rows, Shard

OTHER = "__other__"

Raw = str | int | tuple[Any, ...]
Name = tuple[list[str | int], str | None]  # a group's values and part


class Group(Struct, frozen=True, gc=False):
    """One key of a rule; never part of a cycle, so the collector need not walk all of them."""

    key: Key
    part: str | None  # the shard, where the key has no hash home
    text: str  # for order and for messages


class KeyTable:
    """The keys of one rule on one shard, in the order of their first record."""

    def __init__(self, fields: tuple[str, ...], home_field: str | None, shard: Shard, max_: int):
        self._fields = fields
        self._home_at = fields.index(home_field) if home_field in fields else None
        self._shard = shard
        self._range = range_of(shard)
        self._max = max_
        self._index: dict[Raw, int] = {}
        self._other: int | None = None
        self._known = Interner(len(fields))
        self._remembered = 0
        self._places = bytearray()  # 16 bytes a group
        self.groups: list[Group] = []
        self._names: list[Name] = []

    def __len__(self) -> int:
        return len(self.groups)

    def __repr__(self) -> str:
        return f"<KeyTable {len(self)} of at most {self._max} keys by {', '.join(self._fields)}>"

    def indices(self, values: Sequence[Sequence[Any]], partition_keys: Sequence[str]) -> Rows:
        """Each record's key index, intp[n]; unknown keys get the next ones.

        `values`: a column a field, each of length n, of texts and integers.
        """
        if self._home_at is not None and values[self._home_at] == partition_keys:
            return self._at_home(values, partition_keys)
        raws: list[Raw] = list(values[0]) if len(values) == 1 else list(zip(*values, strict=True))
        self._mark_homeless(raws, values, partition_keys)
        found = list(map(self._find, raws, partition_keys))
        self._remember()
        return np.array(found, dtype=np.intp)

    def _at_home(self, values: Sequence[Sequence[Any]], partition_keys: Sequence[str]) -> Rows:
        """The usual case: the PartitionKey of every record is the key field."""
        found = self._known.get(values)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            for i in unknown.tolist():
                row = tuple(column[i] for column in values)
                found[i] = self._find(row if len(row) > 1 else row[0], partition_keys[i])
            self._remember()
        return found

    def _remember(self) -> None:
        """Make new groups that are at home known to the fast way."""
        new = range(self._remembered, len(self.groups))
        self._remembered = len(self.groups)
        homes = [i for i in new if self.groups[i].part is None]
        if homes:
            keys = [self.groups[i].key for i in homes]
            columns = [[value for _, value in field] for field in zip(*keys, strict=True)]
            self._known.add(columns, np.array(homes))

    def names(self) -> list[Name]:
        """What a snapshot keeps, with `places`; made once a group, as checkpoints come often."""
        new = self.groups[len(self._names) :]
        self._names += [([value for _, value in group.key], group.part) for group in new]
        return self._names

    @property
    def places(self) -> bytes:
        """The hash home of each group, 16 bytes each; zeros where it has none."""
        return bytes(self._places)

    @property
    def homeless(self) -> Bools:
        """Which groups belong to this shard only, bool[n]."""
        return np.array([group.part is not None for group in self.groups], dtype=np.bool_)

    def restore(self, names: Sequence[Name], places: bytes) -> None:
        """Into an empty table; raises ValueError where these are no keys of this rule."""
        assert not self.groups, "restore() into a table that has keys"
        self._check(names, places)
        for i, (values, part) in enumerate(names):
            if part and set(values) == {OTHER}:
                self._find_other()
            else:
                raw = values[0] if len(values) == 1 else tuple(values)
                index: Raw = raw if part is None else (_HOMELESS, raw)
                self._append(index, values, part, _nth(places, i))
        self._remember()
        n_known = len(self._index) + (self._other is not None)
        if len(self) != len(names) or n_known != len(names):
            raise ValueError(f"{len(names)} keys, of which some repeat")

    def adopt(self, names: Sequence[Name], places: bytes) -> Ints:
        """Take over the groups of a parent that are at home here: each one's index here, or -1.

        They come after those that are here already, in the parent's order, and all of them:
        `max_groups` bounds only what is new. Raises ValueError as `restore`.
        """
        self._check(names, places)
        heirs = np.full(len(names), -1)
        for i in np.flatnonzero(self._range.mask(places)).tolist():
            values, part = names[i]
            if part is None:
                heirs[i] = len(self.groups)
                raw: Raw = values[0] if len(values) == 1 else tuple(values)
                if raw in self._index:
                    raise ValueError(f"key {values} is at home in two parents")
                self._append(raw, values, None, _nth(places, i))
        self._remember()
        return heirs

    def _check(self, names: Sequence[Name], places: bytes) -> None:
        if len(places) != PLACE_BYTES * len(names):
            raise ValueError(f"{len(names)} keys, {len(places)} bytes of places")
        for values, _ in names:
            if len(values) != len(self._fields):
                raise ValueError(f"key {values}, expected a value for {', '.join(self._fields)}")

    def _mark_homeless(
        self, raws: list[Raw], values: Sequence[Sequence[Any]], partition_keys: Sequence[str]
    ) -> None:
        """Records whose PartitionKey is not the key field are told apart from those where it is."""
        if self._home_at is None:
            raws[:] = [(_HOMELESS, raw) for raw in raws]
            return
        home = values[self._home_at]
        for i, (value, partition_key) in enumerate(zip(home, partition_keys, strict=True)):
            if str(value) != partition_key:
                raws[i] = (_HOMELESS, raws[i])

    def _find(self, raw: Raw, partition_key: str) -> int:
        index = self._index.get(raw)
        if index is not None:
            return index
        if isinstance(raw, tuple) and raw[0] is _HOMELESS:
            return self._add(raw, raw[1], self._shard.id, NOWHERE)
        place = place_of(partition_key)
        if place in self._range:
            return self._add(raw, raw, None, place)
        # Routed here by an explicit hash key: the same group as if the PartitionKey were another.
        index = self._find((_HOMELESS, raw), partition_key)
        if index != self._other:
            self._index[raw] = index
        return index

    def _find_other(self) -> int:
        if self._other is None:
            self._other = len(self.groups)
            self._places += NOWHERE
            self.groups.append(self._group((OTHER,) * len(self._fields), self._shard.id))
        return self._other

    def _add(self, raw: Raw, values: Raw, part: str | None, place: bytes) -> int:
        named = values if isinstance(values, tuple) else (values,)
        if len(self.groups) >= self._max or (part and set(named) == {OTHER}):
            return self._find_other()
        return self._append(raw, named, part, place)

    def _append(self, raw: Raw, values: Sequence[Any], part: str | None, place: bytes) -> int:
        self._index[raw] = len(self.groups)
        self._places += place
        self.groups.append(self._group(values, part))
        return len(self.groups) - 1

    def _group(self, values: Sequence[str | int], part: str | None) -> Group:
        key = tuple(zip(self._fields, values, strict=True))
        return Group(key, part, orjson.dumps([list(values), part]).decode())


class _Homeless:
    """Marks a raw key that has no hash home; equal to nothing but itself."""


_HOMELESS = _Homeless()


def _nth(places: bytes, i: int) -> bytes:
    return places[PLACE_BYTES * i : PLACE_BYTES * (i + 1)]
