"""Who has told how far: the source's shards, as a map of its hash space, and their watermark.

Membership is coverage, not a roster. Every closing says which hash keys its shard holds; at first
nobody holds any. The merged watermark is the smallest of all parts of the space, so nothing fires
before every part was told of, and no list of shards has to agree with a reshard under way.

    a shard                  in the minimum
    reports                  at its watermark
    quiet (`is_idle`)        not; if all are, the furthest tells the time, and idle marks move it on
    ended                    at its watermark, until its children, who are later, cover its keys
    covered by later ones    not: it is forgotten, and what it may still say is stale
    stalled, by a mark       not, until it reports again; meanwhile results are incomplete

A shard may begin anew (a seek, a rule that was lost and regained): that is another *life*, with
numbers of its own. It takes the place of the former one, and windows that both may have counted
are partial.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from msgspec import Struct

from processor.core.homes import HashRange, Place
from processor.core.merge.partials import Teller

NEVER_MS = -(2**62)  # of what has not reported
ALL = HashRange(bytes(16), b"\xff" * 16)
# Forgotten lives are remembered as such, so that what a stale worker repeats is not taken for news:
# many more than a reshard of a large stream leaves behind within the minutes that such a one lives.
GONE_MAX = 4_096

Standing = Literal["known", "new", "stale"]
Life = tuple[str, str, str]  # shard id, incarnation, origin


class Member(Struct):
    """A shard, as far as it told."""

    teller: Teller
    watermark_ms: int
    is_idle: bool = False
    is_ended: bool = False
    is_stalled: bool = False
    reach_ms: int = NEVER_MS  # the latest end of a window that it told something of

    @property
    def counts(self) -> bool:
        """Whether others wait for it."""
        return not (self.is_idle or self.is_stalled)


class Cover(Struct, frozen=True, array_like=True, order=True):
    """Who holds the hash keys from `first` to `last`, both included."""

    first: Place
    last: Place
    shard_id: str


class Report(NamedTuple):
    """What a closing says of its shard."""

    teller: Teller
    watermark_ms: int | None
    is_idle: bool
    is_ended: bool
    reach_ms: int = NEVER_MS  # the latest end among its deltas
    is_after_gap: bool = False  # closings before it are lost


class Behind(NamedTuple):
    """Whom others wait for: a shard's id, "" where a part of the space was never told of."""

    shard_id: str
    watermark_ms: int


class Saved(Struct, frozen=True):
    members: list[Member]
    covers: list[Cover]
    gone: list[Life]
    watermark_ms: int
    since_ms: int
    origin: str
    is_hole_stalled: bool


class Members:
    """All shards of the source that told of one rule's bucket."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._covers: list[Cover] = []  # disjoint, in order
        self._gone: dict[Life, None] = {}  # oldest first
        self._has_hole = True
        self._is_hole_stalled = False
        self._origin = 0
        self.watermark_ms = NEVER_MS  # merged; never goes back
        self.since_ms = NEVER_MS  # windows that start before it are partial

    def __repr__(self) -> str:
        return f"<Members {len(self)} at {self.watermark_ms}>"

    def __len__(self) -> int:
        return len(self._members)

    @property
    def origin(self) -> str:
        """Names what made windows partial; "" where nothing ever did."""
        return f"{self._origin:032x}" if self._origin else ""

    @property
    def incarnation(self) -> str:
        """The newest of all members."""
        newest = max(self._members.values(), key=lambda m: m.teller.age, default=None)
        return "" if newest is None else newest.teller.incarnation

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._members)

    @property
    def is_complete(self) -> bool:
        """Whether nobody was left behind."""
        return not self._is_hole_stalled and not any(m.is_stalled for m in self._members.values())

    # ---- what is told -----------------------------------------------------------------------

    def standing(self, teller: Teller) -> Standing:
        """What somebody's word is worth: that of a life that we follow, of a new one, or stale."""
        if _life(teller) in self._gone:
            return "stale"
        member = self._members.get(teller.shard_id)
        if member is None:
            return "stale" if self._is_succeeded(teller) else "new"
        if member.teller.life == teller.life:
            return "known"
        return "stale" if teller.age < member.teller.age else "new"

    def _is_succeeded(self, teller: Teller) -> bool:
        """Whether a child of the shard reports: then it has told all, and covers nothing any more.
        Where this stage began in the midst of things, a child may be heard before its parent."""
        return any(
            teller.shard_id in each.teller.parents and teller.age <= each.teller.age
            for each in self._members.values()
        )

    def supersede(self, teller: Teller) -> None:
        """A new life of a shard was heard of: what its former one still says is stale from now on,
        though it stands for the shard until the new one reports."""
        member = self._members.get(teller.shard_id)
        if member is not None and member.teller.life != teller.life:
            self._forget(_life(member.teller))

    def report(self, report: Report) -> None:
        """A closing was applied, its number the next of its life."""
        teller = report.teller
        former = self._members.get(teller.shard_id)
        is_new = former is None or former.teller.life != teller.life
        watermark_ms = NEVER_MS if report.watermark_ms is None else report.watermark_ms
        if former is None and self._is_succeeded(teller):  # held for long, it lacks what was before
            return self._lack(watermark_ms, f"gap {teller.shard_id} {teller.life} {watermark_ms}")
        if is_new:
            self.supersede(teller)
            self._begin(teller)
            self._members[teller.shard_id] = Member(teller, watermark_ms)
            self._cover(Cover(teller.first, teller.last, teller.shard_id))
        member = self._members.get(teller.shard_id)
        if member is None:  # covered by others from its first word on
            return None
        if report.is_after_gap:
            self._lack(watermark_ms, f"gap {teller.shard_id} {teller.life} {watermark_ms}")
        member.watermark_ms = max(member.watermark_ms, watermark_ms)
        member.is_idle, member.is_ended = report.is_idle, report.is_ended
        member.is_stalled = False
        member.reach_ms = max(member.reach_ms, report.reach_ms)
        self._move()
        return None

    def stall(self, shard_id: str, watermark_ms: int) -> None:
        """Go on without a shard that is still at that watermark or before it; "": without those
        that never reported."""
        if not shard_id:
            self._is_hole_stalled = self._has_hole
        member = self._members.get(shard_id)
        if member is not None and member.watermark_ms <= watermark_ms and not member.is_idle:
            member.is_stalled = True
        self._move()

    @property
    def are_quiet(self) -> bool:
        """Whether all are known and none is waited for: time may go on without them."""
        is_known = not self._has_hole or self._is_hole_stalled
        return is_known and not any(member.counts for member in self._members.values())

    def advance(self, to_ms: int) -> None:
        """Apply an idle mark of the merge stream's shard: time passed while all were quiet."""
        if self.are_quiet:
            self.watermark_ms = max(self.watermark_ms, to_ms)

    def behind(self, end_ms: int) -> Behind | None:
        """Who holds back a window that ends there, which others have passed."""
        counted = [m for m in self._members.values() if m.counts]
        if all(member.watermark_ms < end_ms for member in self._members.values()):
            return None
        if self._has_hole and not self._is_hole_stalled:
            return Behind("", NEVER_MS)
        last = min(counted, key=lambda m: (m.watermark_ms, m.teller.shard_id), default=None)
        if last is None or last.watermark_ms >= end_ms:
            return None
        return Behind(last.teller.shard_id, last.watermark_ms)

    # ---- the map ----------------------------------------------------------------------------

    def holes(self) -> list[HashRange]:
        """Parts of the space that nobody told of."""
        holes, at = [], 0
        for cover in self._covers:
            first = int.from_bytes(cover.first, "big")
            if first > at:
                holes.append(HashRange(_key(at), _key(first - 1)))
            at = int.from_bytes(cover.last, "big") + 1
        if at < 2**128:
            holes.append(HashRange(_key(at), ALL.last))
        return holes

    def _cover(self, new: Cover) -> None:
        """It holds these keys now; who is left with none is forgotten."""
        rest = [part for cover in self._covers for part in _without(cover, new)]
        self._covers = sorted([*rest, new])
        self._has_hole = bool(self.holes())
        self._is_hole_stalled = self._is_hole_stalled and self._has_hole
        left = {cover.shard_id for cover in self._covers}
        for shard_id in self._members.keys() - left:
            self._forget(_life(self._members.pop(shard_id).teller))

    def _forget(self, life: Life) -> None:
        self._gone.pop(life, None)
        self._gone[life] = None
        while len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]

    def _begin(self, teller: Teller) -> None:
        name = f"{teller.shard_id} {teller.incarnation} {teller.origin}"
        if teller.since_ms is not None:
            self._lack(teller.since_ms, f"{name} {teller.since_ms}")
        # What a former life of these hash keys told, this one may tell again.
        reach_ms = max(
            (m.reach_ms for m in self._members.values() if _is_former(m.teller, teller)),
            default=NEVER_MS,
        )
        if reach_ms > self.watermark_ms:
            self._lack(reach_ms, f"again {name}")

    def _lack(self, since_ms: int, name: str) -> None:
        """Windows that start before that lack something, or have it twice."""
        self.since_ms = max(self.since_ms, since_ms)
        # In whatever order shards report, the name is the same.
        self._origin ^= int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")

    # ---- time -------------------------------------------------------------------------------

    def _move(self) -> None:
        if self._has_hole and not self._is_hole_stalled:
            return
        each = self._members.values()
        counted = [m.watermark_ms for m in each if m.counts]
        merged = min(counted) if counted else max((m.watermark_ms for m in each), default=NEVER_MS)
        self.watermark_ms = max(self.watermark_ms, merged)

    # ---- state ------------------------------------------------------------------------------

    def snapshot(self) -> Saved:
        return Saved(
            [self._members[shard_id] for shard_id in sorted(self._members)],
            self._covers,
            list(self._gone),
            self.watermark_ms,
            self.since_ms,
            self.origin,
            self._is_hole_stalled,
        )

    def restore(self, saved: Saved) -> None:
        self._members = {member.teller.shard_id: member for member in saved.members}
        self._covers = list(saved.covers)
        self._has_hole = bool(self.holes())
        self._gone = dict.fromkeys(saved.gone)
        self.watermark_ms, self.since_ms = saved.watermark_ms, saved.since_ms
        self._origin, self._is_hole_stalled = int(saved.origin or "0", 16), saved.is_hole_stalled


def _is_former(one: Teller, new: Teller) -> bool:
    """Whether it is another life of the shard, or of one that an earlier incarnation had there."""
    is_earlier = one.age < new.age and one.range.overlap(new.range) is not None
    return is_earlier or (one.shard_id == new.shard_id and one.life != new.life)


def _life(teller: Teller) -> Life:
    return teller.shard_id, teller.incarnation, teller.origin


def _without(cover: Cover, new: Cover) -> list[Cover]:
    """What is left of a part, in order."""
    if cover.last < new.first or cover.first > new.last:
        return [cover]
    left = []
    if cover.first < new.first:
        before = int.from_bytes(new.first, "big") - 1
        left.append(Cover(cover.first, _key(before), cover.shard_id))
    if cover.last > new.last:
        after = int.from_bytes(new.last, "big") + 1
        left.append(Cover(_key(after), cover.last, cover.shard_id))
    return left


def _key(hash_key: int) -> bytes:
    return hash_key.to_bytes(16, "big")
