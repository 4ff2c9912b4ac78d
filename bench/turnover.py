"""How long a shard stood still when it changed hands, reckoned from the journal of all reads.

    takeover     from a worker's SIGKILL to the first page with records that another one got
    hand-off     from the last page that the old owner got and counted to the first read of the new
    reshard gap  from the page that told a parent's end (the later one of two) to the first read of
                 the child

What the old owner counted is told by where the new one went on: its last page with records all of
which lie before the new one's first. A page that was read and then left to the successor is none of
its own, and a successor that goes back to an older checkpoint makes the hand-off look as long as it
was. Empty pages of the old owner are left out, so figures err on the long side, by one read; so is
a shard of which the old owner had counted nothing yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby

from processor.local.journal import Read

Gaps = dict[str, float | None]  # seconds by shard; None: it has not happened yet


def takeovers(reads: Sequence[Read], victim: str, at_s: float) -> Gaps:
    """Of each shard that was the victim's when it was killed."""
    gaps: Gaps = {}
    for shard_id, pages in _held(reads, victim, at_s).items():
        after = (one.at_s for one in pages if one.at_s > at_s and _is_work(one, victim))
        heir_at_s = next(after, None)
        gaps[shard_id] = None if heir_at_s is None else heir_at_s - at_s
    return gaps


def handoffs(reads: Sequence[Read], owner: str, at_s: float) -> Gaps:
    """Of each shard that was the owner's when it was told to stop."""
    gaps: Gaps = {}
    for shard_id, pages in _held(reads, owner, at_s).items():
        heirs = [page for page in pages if page.at_s > at_s and page.caller != owner]
        begun = next((page for page in heirs if _is_work(page, owner)), None)
        if begun is None:
            gaps[shard_id] = None
        elif counted := _counted(pages, owner, begun):
            gaps[shard_id] = heirs[0].at_s - counted[-1].at_s
    return gaps


def reshard_gaps(reads: Sequence[Read], parents: Collection[str], children: Iterable[str]) -> Gaps:
    """Of each child."""
    by_shard = _by_shard(reads)
    ends = [
        next((page.at_s for page in by_shard.get(parent, ()) if page.is_end), None)
        for parent in parents
    ]
    firsts = {child: next(iter(by_shard.get(child, ())), None) for child in children}
    return {
        child: None
        if first is None or any(end is None for end in ends)
        else first.at_s - max(end for end in ends if end is not None)
        for child, first in firsts.items()
    }


def resumptions(reads: Sequence[Read], shard_ids: Iterable[str], at_s: float) -> Gaps:
    """From that moment to the first page with records, whoever got it."""
    by_shard = _by_shard(reads)
    gaps: Gaps = {}
    for shard_id in shard_ids:
        after = (one.at_s for one in by_shard.get(shard_id, ()) if one.at_s > at_s and one.records)
        resumed_at_s = next(after, None)
        gaps[shard_id] = None if resumed_at_s is None else resumed_at_s - at_s
    return gaps


def is_complete(gaps: Gaps) -> bool:
    return all(gap is not None for gap in gaps.values())


def _counted(pages: Sequence[Read], owner: str, begun: Read) -> list[Read]:
    """The owner's pages with records that lie before those with which its heir began."""
    own = [page for page in pages if page.caller == owner and page.records]
    return [page for page in own if not begun.records or int(page.last) < int(begun.first)]


def _is_work(page: Read, owner: str) -> bool:
    return page.caller != owner and (page.records > 0 or page.is_end)


def _held(reads: Sequence[Read], owner: str, at_s: float) -> dict[str, list[Read]]:
    """All pages of the shards whose last reader, until then, was the owner; not of ended ones."""
    out = {}
    for shard_id, pages in _by_shard(reads).items():
        before = [page for page in pages if page.at_s <= at_s]
        if before and before[-1].caller == owner and not any(page.is_end for page in before):
            out[shard_id] = pages
    return out


def _by_shard(reads: Sequence[Read]) -> Mapping[str, list[Read]]:
    ordered = sorted(reads, key=lambda read: (read.shard_id, read.at_s))
    return {shard: list(pages) for shard, pages in groupby(ordered, lambda read: read.shard_id)}
