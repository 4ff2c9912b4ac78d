"""Group keys: what a rule groups by, as dense rows that are used again when a key is forgotten.

A key has a hash home if its records' PartitionKey is the key field that the pipeline names, and
its MD5 lies in the shard's hash range: then no other shard sees it, and a child shard can tell by
that place, which is kept, whether it is the heir. A key without a home, and `other` (what came
after `max_groups` keys), belong to this shard only: they carry it as their `part`.

A key costs its text, an entry of a dict, a place and a byte: names for people and events are made
as they are asked for. A new key takes the lowest free row, so rows are a function of the records,
whatever was restored in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np
import orjson
from msgspec import Struct

from processor.core.events import Key
from processor.core.homes import NOWHERE, PLACE_BYTES, place_of, range_of
from processor.core.interning import Interner
from processor.model import Bools, Ints, Overflow, Rows, Shard

OTHER = "__other__"
REFUSED = -1  # in place of a row: one key too many, and the rule wants no `other`
_FULL = -2

# What a row holds.
_FREE, _HOME, _PART, _REST = range(4)  # nothing; a key with a home; one of this shard; `other`

Raw = str | int | tuple[Any, ...]  # a key's value, or the tuple of its values


class Group(Struct, frozen=True, gc=False):
    """One key of a rule, in words."""

    key: Key
    part: str | None  # the shard, where the key has no hash home
    text: str  # for order and for messages


class SavedKeys(Struct, frozen=True):
    """A snapshot: n rows, of which some may be free."""

    kinds: bytes  # one a row
    places: bytes  # 16 a row; zeros where it has no home
    values: dict[str, list[str | int | None]]  # by field, one a row

    def __len__(self) -> int:
        return len(self.kinds)


class KeyTable:
    """The keys of one rule on one shard; at first in the order of their first record."""

    def __init__(
        self,
        fields: tuple[str, ...],
        home_field: str | None,
        shard: Shard,
        max_: int,
        overflow: Overflow = "other",
    ):
        self._fields = fields
        self._home_at = fields.index(home_field) if home_field in fields else None
        self._shard = shard
        self._range = range_of(shard)
        self.max = max_
        self._overflow = overflow
        # The keys that are as the pipeline file expects: at home, or all if there is no home field.
        self._usual = Interner(len(fields))
        self._strays: dict[Raw, int] = {}  # the others
        self._raws: list[Raw | None] = []  # by row
        self._kinds = bytearray()
        self._places = bytearray()
        self._free: list[int] = []  # a heap
        self._other: int | None = None
        self._new: list[int] = []  # rows that nobody was told of yet

    def __len__(self) -> int:
        return len(self._raws) - len(self._free)

    def __repr__(self) -> str:
        return f"<KeyTable {len(self)} of at most {self.max} keys by {', '.join(self._fields)}>"

    @property
    def rows(self) -> int:
        """Rows below this are in use or were; what has columns by key needs so many."""
        return len(self._raws)

    @property
    def is_full(self) -> bool:
        return len(self) - (self._other is not None) >= self.max

    # ---- records ----------------------------------------------------------------------------

    def indices(self, values: Sequence[Sequence[Any]], partition_keys: Sequence[str]) -> Rows:
        """Each of n records' row, intp[n]; an unknown key gets the lowest that is free.

        `values`: a column a field, each of length n, of texts and integers. Where the table is
        full, by its overflow: the row of `other`; REFUSED; or, to `evict`, only the rows of the
        records before the first that needs room.
        """
        usual = self._are_usual(values, partition_keys)
        if usual is None:
            found = self._usual.get(values, len(partition_keys))
        else:
            found = np.full(len(partition_keys), REFUSED, dtype=np.int64)
            at = np.flatnonzero(usual)
            if len(at):
                found[at] = self._usual.get([[c[i] for i in at.tolist()] for c in values], len(at))
            for i in np.flatnonzero(~usual).tolist():
                found[i] = self._strays.get(_raw(values, i), REFUSED)
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            found = self._meet(found, unknown, usual, values, partition_keys)
        return found

    def take_new(self) -> Rows:
        """The rows that keys got since it was last asked, intp[n], ascending."""
        new, self._new = self._new, []
        return np.unique(np.array(new, dtype=np.intp))

    def forget(self, rows: Rows) -> None:
        """Their keys are unknown again, and the rows free; each once."""
        usual: list[Raw] = []
        for row in rows.tolist():
            raw, kind = self._raws[row], self._kinds[row]
            assert raw is not None, "forget() of a free row"
            if row == self._other:
                self._other = None
            elif kind == _HOME or self._home_at is None:
                usual.append(raw)
            else:
                del self._strays[raw]
            self._raws[row] = None
            self._kinds[row] = _FREE
            self._places[PLACE_BYTES * row : PLACE_BYTES * (row + 1)] = NOWHERE
            heappush(self._free, row)
        self._usual.remove(self._columns(usual), len(usual))
        if self._usual.is_worn:
            self._intern()

    def _intern(self) -> None:
        """Make the usual keys known, from nothing."""
        usual = [row for row, kind in enumerate(self._kinds) if self._is_usual(kind)]
        self._usual = Interner(len(self._fields))
        columns = self._columns([self._raws[row] for row in usual])
        self._usual.add(columns, np.array(usual, dtype=np.int64))

    def _are_usual(
        self, values: Sequence[Sequence[Any]], partition_keys: Sequence[str]
    ) -> Bools | None:
        """Of which records the PartitionKey is the key field; None: all are as expected."""
        if self._home_at is None:
            return None
        home = values[self._home_at]
        if home == partition_keys:
            return None
        return np.fromiter(
            (str(value) == key for value, key in zip(home, partition_keys, strict=True)),
            np.bool_,
            len(partition_keys),
        )

    def _meet(
        self,
        found: Ints,
        unknown: Rows,
        usual: Bools | None,
        values: Sequence[Sequence[Any]],
        partition_keys: Sequence[str],
    ) -> Ints:
        """Rows for the records at `unknown`, one by one in their order."""
        met: dict[Raw, int] = {}  # the usual keys among them
        for i in unknown.tolist():
            is_usual = usual is None or bool(usual[i])
            row = self._row_of(_raw(values, i), partition_keys[i], met, is_usual=is_usual)
            if row == _FULL:
                found = found[:i]
                break
            found[i] = row
        self._usual.add(self._columns(list(met)), np.array(list(met.values()), dtype=np.int64))
        return found

    def _row_of(self, raw: Raw, partition_key: str, met: dict[Raw, int], *, is_usual: bool) -> int:
        """Four cases: known by now; one too many; new and at home; new and of this shard only."""
        place = NOWHERE
        if is_usual and self._home_at is not None:
            place = place_of(partition_key)
            # Else routed here by an explicit hash key: as if the PartitionKey were another.
            is_usual = place in self._range
        known = met if is_usual else self._strays
        row = known.get(raw)
        if row is not None:
            return row
        is_home = is_usual and self._home_at is not None
        if not is_home and self._is_other(raw):
            return self._find_other()
        if self.is_full:
            return self._when_full()
        row = known[raw] = self._append(
            raw, _HOME if is_home else _PART, place if is_home else NOWHERE
        )
        return row

    def _when_full(self) -> int:
        if self._overflow == "other":
            return self._find_other()
        return _FULL if self._overflow == "evict" else REFUSED

    def _find_other(self) -> int:
        if self._other is None:
            raw = OTHER if len(self._fields) == 1 else (OTHER,) * len(self._fields)
            self._other = self._append(raw, _REST, NOWHERE)
        return self._other

    def _is_other(self, raw: Raw) -> bool:
        return raw == OTHER if len(self._fields) == 1 else set(_values(raw)) == {OTHER}

    def _append(self, raw: Raw, kind: int, place: bytes) -> int:
        if self._free:
            row = heappop(self._free)
            self._raws[row] = raw
            self._kinds[row] = kind
            self._places[PLACE_BYTES * row : PLACE_BYTES * (row + 1)] = place
        else:
            row = len(self._raws)
            self._raws.append(raw)
            self._kinds.append(kind)
            self._places += place
        self._new.append(row)
        return row

    # ---- names ------------------------------------------------------------------------------

    def group(self, row: int) -> Group:
        """The key in that row, in words."""
        values, part = self._named(row)
        return Group(tuple(zip(self._fields, values, strict=True)), part, _text(values, part))

    def value(self, row: int, field: str) -> str | int:
        """Of one field of the key in that row."""
        found: str | int = self._named(row)[0][self._fields.index(field)]
        return found

    def text(self, row: int) -> str:
        """What keys are put in order by; different for each."""
        return _text(*self._named(row))

    @property
    def shard_id(self) -> str:
        return self._shard.id

    def is_other(self, row: int) -> bool:
        return row == self._other

    def count_other(self, rows: Rows) -> int:
        """How many of these are `other`."""
        return 0 if self._other is None else int((rows == self._other).sum())

    @property
    def live(self) -> Bools:
        """Which rows hold a key, bool[rows]."""
        live: Bools = self._kinds_of() != _FREE
        return live

    @property
    def homeless(self) -> Bools:
        """Which rows hold a group that belongs to this shard only, bool[rows]."""
        homeless: Bools = self._kinds_of() > _HOME
        return homeless

    def places(self, rows: Rows) -> bytes:
        """The hash home of the key in each row, 16 bytes each; zeros where it has none."""
        each = np.frombuffer(bytes(self._places), f"V{PLACE_BYTES}")
        return each[rows].tobytes()

    def _kinds_of(self) -> Any:
        return np.frombuffer(bytes(self._kinds), np.uint8)

    def _named(self, row: int) -> tuple[tuple[Any, ...], str | None]:
        raw = self._raws[row]
        assert raw is not None, "the name of a free row"
        values = (raw,) if len(self._fields) == 1 else _values(raw)
        return values, None if self._kinds[row] == _HOME else self._shard.id

    # ---- snapshot, restore, adoption --------------------------------------------------------

    def snapshot(self) -> SavedKeys:
        """Partly live memory: encode it before anything changes."""
        return SavedKeys(bytes(self._kinds), bytes(self._places), self._by_field())

    def restore(self, saved: SavedKeys) -> None:
        """Into an empty table, the same rows; raises ValueError where it is not of this rule."""
        assert not self._raws, "restore() into a table that has keys"
        raws = self._raws_of(saved)
        self._raws = raws
        self._kinds, self._places = bytearray(saved.kinds), bytearray(saved.places)
        self._intern()
        for row, (raw, kind) in enumerate(zip(raws, saved.kinds, strict=True)):
            if kind == _FREE:
                self._free.append(row)
            elif kind == _REST:
                self._other = row
            elif kind == _PART and self._home_at is not None:
                assert raw is not None
                self._strays[raw] = row
        heapify(self._free)
        self._new = np.flatnonzero(self.live).tolist()

    def adopt(self, saved: SavedKeys) -> Ints:
        """Take over the keys of a parent that are at home here: each one's row here, or -1.

        They come after those that are here already, in the parent's order, and all of them:
        `max_groups` bounds only what is new. Into a table that forgot nothing yet. Raises
        ValueError as `restore`.
        """
        raws = self._raws_of(saved)
        heirs = np.full(len(raws), -1)
        kinds = np.frombuffer(saved.kinds, np.uint8)
        chosen = np.flatnonzero((kinds == _HOME) & self._range.mask(saved.places))
        known = self._usual.get(self._columns([raws[i] for i in chosen.tolist()]), len(chosen))
        if (known >= 0).any():
            twice = raws[int(chosen[known >= 0][0])]
            raise ValueError(f"key {twice} is at home in two parents")
        for i in chosen.tolist():
            raw = raws[i]
            assert raw is not None
            place = saved.places[PLACE_BYTES * i : PLACE_BYTES * (i + 1)]
            heirs[i] = self._append(raw, _HOME, place)
        self._usual.add(self._columns([raws[i] for i in chosen.tolist()]), heirs[chosen])
        return heirs

    def _is_usual(self, kind: int) -> bool:
        return kind == _HOME or (kind == _PART and self._home_at is None)

    def _by_field(self) -> dict[str, list[str | int | None]]:
        raws: list[Any] = self._raws
        if len(self._fields) == 1:
            return {self._fields[0]: raws}
        return {
            field: [None if raw is None else raw[i] for raw in raws]
            for i, field in enumerate(self._fields)
        }

    def _columns(self, raws: Sequence[Raw | None]) -> list[list[Any]]:
        """Values of live rows as a column a field."""
        if len(self._fields) == 1:
            return [list(raws)]
        return [[_values(raw)[i] for raw in raws] for i in range(len(self._fields))]

    def _raws_of(self, saved: SavedKeys) -> list[Raw | None]:
        """Each row's key, checked: none twice, and none without what makes it one."""
        n = len(saved)
        if len(saved.places) != PLACE_BYTES * n:
            raise ValueError(f"{n} keys, {len(saved.places)} bytes of places")
        if tuple(saved.values) != self._fields or any(len(c) != n for c in saved.values.values()):
            raise ValueError(f"{n} keys by {', '.join(saved.values)}: expected {self._fields}")
        if n and max(saved.kinds) > _REST:
            raise ValueError(f"a key of kind {max(saved.kinds)}")
        raws: list[Raw | None]
        if len(self._fields) == 1:
            raws = list(saved.values[self._fields[0]])
        else:
            rows = zip(*saved.values.values(), strict=True) if self._fields else [()] * n
            raws = [
                None if kind == _FREE else values
                for kind, values in zip(saved.kinds, rows, strict=True)
            ]
        self._check(raws, saved.kinds)
        return raws

    def _check(self, raws: Sequence[Raw | None], kinds: bytes) -> None:
        missing = [
            kind != _FREE and (raw is None or (isinstance(raw, tuple) and None in raw))
            for raw, kind in zip(raws, kinds, strict=True)
        ]
        if any(missing):
            raise ValueError("a key without a value")
        for kind in (_HOME, _PART):
            of_kind = [raw for raw, its in zip(raws, kinds, strict=True) if its == kind]
            if len(set(of_kind)) < len(of_kind):
                raise ValueError(f"{len(of_kind)} keys, of which some repeat")
        if kinds.count(_REST) > 1:
            raise ValueError("two rows of other")


def _raw(values: Sequence[Sequence[Any]], i: int) -> Raw:
    """The key of record i."""
    if len(values) == 1:
        raw: Raw = values[0][i]
        return raw
    return tuple(column[i] for column in values)


def _values(raw: Raw | None) -> tuple[Any, ...]:
    assert isinstance(raw, tuple), "a key of several fields is a tuple"
    return raw


def _text(values: tuple[Any, ...], part: str | None) -> str:
    return orjson.dumps([list(values), part]).decode()
