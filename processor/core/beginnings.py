"""From where on a rule counts: what makes a window partial, and an id new.

A rule that starts anew on a shard whose records were read before lacks those records. Windows that
start at or before the newest event time seen until then are partial; later ones are whole. After a
reshard, keys of one rule may have begun apart, so a beginning holds for a range of hash keys.

One id must have one content, also where a rule is lost and regained (a rollout is rolled back, with
crashes in between): what was told before, by a life of the rule that was never committed, may be
told again, in other words. So whatever depends on where a section began has its beginning's
`origin` in its id: windows that were open then, what detectors say, and `other`, which holds the
keys that came too late. A later window of a known key depends on its records alone: it needs none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor.core.columns import Columns
from processor.core.homes import HashRange
from processor.model import Bools, Column, Ints, Rows, Shard

ALWAYS_MS = -(2**62)  # since ever: nothing is missing
# Each reshard may bring more; beyond that, all go on as one, with its start as that of the last.
BEGINNINGS_MAX = 64
_DIGITS = 32  # of 128 bits in hexadecimal: as text they sort as the numbers do


class Beginning(Struct, frozen=True):
    """Of the keys with a hash in [first, last] and, if `homeless`, of those that have none.

    Windows that start before `since_ms` are partial. Those that start before `apart_until_ms` could
    have been told otherwise by another life of the rule: they bear `origin`, the beginning's name.
    """

    first: str
    last: str
    since_ms: int
    apart_until_ms: int
    origin: str
    homeless: bool = True


WHOLE = Beginning("0" * _DIGITS, "f" * _DIGITS, ALWAYS_MS, ALWAYS_MS, "")

# Of one section. None: everything is whole, as in a shard that was read from its beginning.
Beginnings = tuple[Beginning, ...]


def anew(shard: Shard, newest_ms: int | None, origin: str) -> Beginnings:
    """A section that starts on `shard`, whose records so far had times up to `newest_ms` (None:
    there were none)."""
    if newest_ms is None:
        return ()
    first, last, since_ms = _hex(shard.first_hash), _hex(shard.last_hash), newest_ms + 1
    return (Beginning(first, last, since_ms, since_ms, origin),)


def renamed(beginnings: Beginnings, shard: Shard, newest_ms: int | None, origin: str) -> Beginnings:
    """The section goes on under another rule version: as whole as before, but with an origin."""
    if newest_ms is None:
        return beginnings
    until_ms = newest_ms + 1
    named = [replace(one, apart_until_ms=until_ms, origin=origin) for one in beginnings]
    for first, last in _gaps(beginnings, shard):
        named.append(Beginning(first, last, ALWAYS_MS, until_ms, origin, homeless=False))
    if not any(one.homeless for one in named):
        named[0] = replace(named[0], homeless=True)
    return bounded(named)


def inherited(parents: Iterable[Beginnings], child: Shard) -> Beginnings:
    """Those of the parents, as far as `child` holds their keys.

    Keys without a home are no heirs: the child's own begin with it.
    """
    first, last = _hex(child.first_hash), _hex(child.last_hash)
    return bounded(
        replace(one, first=max(one.first, first), last=min(one.last, last), homeless=False)
        for beginnings in parents
        for one in beginnings
        if one.first <= last and one.last >= first
    )


def bounded(beginnings: Iterable[Beginning]) -> Beginnings:
    """In order of their ranges, neighbours that are alike as one, and not too many."""
    out: list[Beginning] = []
    for one in sorted(beginnings, key=lambda each: each.first):
        before = out[-1] if out else None
        if before and _successor(before.last) == one.first and _is_alike(before, one):
            out[-1] = replace(before, last=one.last)
        else:
            out.append(one)
    return tuple(out) if len(out) <= BEGINNINGS_MAX else (_as_one(out),)


class Starts:
    """The beginnings of a rule's keys, by row, each looked up once; without any, for nothing."""

    def __init__(self, shard: Shard):
        self._shard = shard
        self._of = Columns((Column("nth", "<i2"),))  # a key's among `_each`
        self._set(())

    def _set(self, beginnings: Beginnings) -> None:
        self.beginnings = beginnings
        self._each = (*beginnings, WHOLE)
        self._since_ms = np.array([one.since_ms for one in self._each])
        covers_all = not _gaps(beginnings, self._shard) and any(b.homeless for b in beginnings)
        self._first_ms = min(b.since_ms for b in beginnings) if covers_all else ALWAYS_MS

    def begin(self, beginnings: Beginnings) -> None:
        """Before any key is known."""
        assert not self._of.rows, "begin() after keys were counted"
        self._set(beginnings)

    def begin_again(self, rows: int, newest_ms: int, origin: str) -> None:
        """All keys, known (below `rows`) or not, begin on this shard after records with times up to
        then."""
        self._set(anew(self._shard, newest_ms, origin))
        self._of.ensure(rows)
        self._of.arrays["nth"][:] = 0  # the only one that there is

    def know(self, rows: Rows, places: bytes, homeless: Bools) -> None:
        """Keys that got rows, intp[n]: where they are at home, 16 bytes each, unless they are
        `homeless`, bool[n]."""
        if not self.beginnings or not len(rows):
            return
        self._of.ensure(int(rows.max()) + 1)
        self._of.arrays["nth"][rows] = nths(self.beginnings, places, homeless)

    def may_be_whole(self, start_ms: int) -> bool:
        """Whether a window that starts there is whole for any key, known or not."""
        return start_ms >= self._first_ms

    def partial(self, rows: Rows, start_ms: int) -> Bools:
        """Of which keys a window that starts there is partial, bool[n]."""
        if not self.beginnings:
            return np.zeros(len(rows), dtype=np.bool_)
        late: Bools = self._since_ms[self._of.arrays["nth"][rows]] > start_ms
        return late

    def is_partial(self, row: int, start_ms: int) -> bool:
        """Whether a window of this key that starts there is partial."""
        return bool(self.beginnings) and self._beginning(row).since_ms > start_ms

    def origin(self, row: int) -> str:
        """What names the beginning of all that was learnt of this key."""
        return self._beginning(row).origin if self.beginnings else ""

    def window_origin(self, row: int, start_ms: int, *, is_other: bool) -> str:
        """What names it in the id of a window's result: "" where the result is the same anyhow."""
        if not self.beginnings:
            return ""
        own = self._beginning(row)
        return own.origin if start_ms < own.apart_until_ms or is_other else ""

    def _beginning(self, row: int) -> Beginning:
        return self._each[int(self._of.arrays["nth"][row])]


def nths(beginnings: Beginnings, places: bytes, homeless: Bools) -> Ints:
    """Which beginning each of n keys has, int64[n]; `len(beginnings)` for none: it is WHOLE."""
    found = np.full(len(homeless), len(beginnings))
    for nth, one in reversed(list(enumerate(beginnings))):
        held = HashRange(bytes.fromhex(one.first), bytes.fromhex(one.last)).mask(places)
        found[np.where(homeless, one.homeless, held)] = nth
    return found


def _as_one(beginnings: Sequence[Beginning]) -> Beginning:
    """All together: partial as long as any is, named by all."""
    names = "|".join(f"{one.first}-{one.last} {one.origin}" for one in beginnings)
    origin = hashlib.sha256(names.encode()).hexdigest()[:_DIGITS]
    return Beginning(
        first=beginnings[0].first,
        last=beginnings[-1].last,
        since_ms=max(one.since_ms for one in beginnings),
        apart_until_ms=max(one.apart_until_ms for one in beginnings),
        origin=origin,
        homeless=any(one.homeless for one in beginnings),
    )


def _gaps(beginnings: Beginnings, shard: Shard) -> list[tuple[str, str]]:
    """Ranges of the shard that no beginning holds."""
    gaps = []
    at, end = shard.first_hash, shard.last_hash
    for one in beginnings:
        if int(one.first, 16) > at:
            gaps.append((_hex(at), _hex(int(one.first, 16) - 1)))
        at = max(at, int(one.last, 16) + 1)
    if at <= end:
        gaps.append((_hex(at), _hex(end)))
    return gaps


def _is_alike(one: Beginning, other: Beginning) -> bool:
    return replace(one, first="", last="") == replace(other, first="", last="")


def _successor(hash_key: str) -> str:
    return _hex(int(hash_key, 16) + 1)


def _hex(hash_key: int) -> str:
    return f"{hash_key:0{_DIGITS}x}"
