"""Packing: how a batch of entries becomes requests of limited count and bytes, and what is retried.

Each entry is in one of five places, and only this file moves it:

    behind    a predecessor of the same group is not settled yet
    ready     may be sent
    flying    in a request that has no answer yet
    waiting   refused for now; ready again at its moment
    settled   taken, or refused for good

Order: while an entry of a group is out of `behind`, the others stay there. So no two requests in
flight share a group, and nothing overtakes a predecessor that waits for a retry. The price falls on
a batch of few groups and many entries: its requests are smaller. A target that promises no order
itself need not pay it (`Limits.together`): there the next entries of a group may follow in the same
request, and only a retry of a part of them may come after its successors.

Pressure: entries that fail one by one wait one by one. A request that fails as a whole, or whose
entries all ask for a retry, says that the target is down or overloaded: then everything pauses,
and a single request at a time tries again until one gets through.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from msgspec import Struct

from processor.ports import Refusal

TOO_LARGE = "EntryTooLarge"


class Limits(Struct, frozen=True):
    """What one request may hold, and how retries are paced."""

    entries_max: int
    bytes_max: int  # the sum of a request's entries; a single entry above it is refused
    retryable: frozenset[str]  # codes of entries that may be sent again
    flying_max: int = 4  # 4 × 10 entries at 5–20 ms a call: 2,000–8,000 entries/s a shard
    backoff_first_s: float = 0.1
    backoff_max_s: float = 10.0
    together: bool = False  # several entries of a group in one request


class Request(Struct, frozen=True):
    """Send the entries at `indices`, in this order."""

    id: int
    indices: tuple[int, ...]


class Result(Struct, frozen=True):
    """What the target said of one entry; `code` None: taken."""

    code: str | None = None
    message: str = ""


class Packing:
    """The state of one batch: `sizes[i]` bytes and `groups[i]` of entry i; bounded by the batch.

    There is no limit to the number of retries: a target that is down keeps the batch here, and the
    caller waits. `refusals` grows as entries are refused for good; it is complete when `is_done`.
    """

    def __init__(self, limits: Limits, sizes: Sequence[int], groups: Sequence[str]):
        assert len(sizes) == len(groups)
        self.limits = limits
        self.refusals: list[Refusal] = []
        self._sizes = sizes
        self._groups = groups
        self._attempts = [0] * len(sizes)
        self._behind: dict[str, list[int]] = {}  # the rest of each group, last first
        self._out: dict[str, int] = {}  # how many of a group are ready, flying or waiting
        self._ready: list[int] = []  # a heap: the oldest entry goes first
        self._waiting: list[tuple[float, int]] = []  # a heap of (due, entry)
        self._flying: dict[int, Request] = {}
        self._alone: set[int] = set()  # a request with them was refused whole: find the culprit
        self._failures = 0  # requests in a row that failed as a whole
        self._paused_until = 0.0
        self._last_id = 0
        self._admit()

    def __repr__(self) -> str:
        behind = sum(map(len, self._behind.values()))
        return (
            f"<Packing behind={behind} ready={len(self._ready)} flying={len(self._flying)} "
            f"waiting={len(self._waiting)} refused={len(self.refusals)} "
            f"failures in a row={self._failures}>"
        )

    # ---- questions ----

    @property
    def is_done(self) -> bool:
        """Every entry is settled (a group under way is behind somewhere below)."""
        return not (self._ready or self._waiting or self._flying)

    def wake_at(self) -> float | None:
        """When `commands` may have more to say; None: only after an answer, or never."""
        if len(self._flying) >= self._flying_max:
            return None
        if self._ready:
            return self._paused_until
        return max(self._waiting[0][0], self._paused_until) if self._waiting else None

    @property
    def _flying_max(self) -> int:
        return 1 if self._failures else self.limits.flying_max

    # ---- decisions ----

    def commands(self, now: float) -> list[Request]:
        """The requests to send now; each is in flight until one of the `on_` calls settles it."""
        while self._waiting and self._waiting[0][0] <= now:
            heappush(self._ready, heappop(self._waiting)[1])
        out: list[Request] = []
        if now < self._paused_until:
            return out
        while self._ready and len(self._flying) < self._flying_max:
            self._last_id += 1
            request = Request(self._last_id, self._take())
            self._flying[request.id] = request
            out.append(request)
        return out

    def on_answer(
        self, request: Request, results: Sequence[Result], now: float, draw: float
    ) -> None:
        """The target answered, entry by entry; `draw` is uniform in [0, 1), for the jitter.

        An answer of another length than the request's says nothing of any entry: all go again.
        """
        garbled = len(results) != len(request.indices)
        if garbled or all(result.code in self.limits.retryable for result in results):
            return self.on_failure(request, now, draw)
        self._land(request)
        self._failures = 0
        again: list[int] = []
        for index, result in zip(request.indices, results, strict=True):
            if result.code is None:
                self._settle(index)
            elif result.code in self.limits.retryable:
                again.append(index)
            else:
                self._refuse(index, result.code, result.message)
        self._retry(again, now, draw)
        return None

    def on_failure(self, request: Request, now: float, draw: float) -> None:
        """No answer, or an answer that the target is down or overloaded: pause, then go again."""
        self._land(request)
        self._failures += 1
        self._paused_until = max(self._paused_until, now + self._backoff(self._failures, draw))
        self._take_back(request.indices)

    def on_rejected(self, request: Request, code: str, message: str) -> None:
        """The target calls the request itself malformed: its entries go one by one.

        The one that is rejected alone is the culprit, and is refused for good.
        """
        self._land(request)
        self._failures = 0  # it was read, so the target is up
        if len(request.indices) == 1:
            return self._refuse(request.indices[0], code, message)
        self._alone.update(request.indices)
        self._take_back(request.indices)
        return None

    # ---- the moves ----

    def _admit(self) -> None:
        """Entries enter: the first of each group is ready, the others stand behind it."""
        for index in reversed(range(len(self._sizes))):
            self._behind.setdefault(self._groups[index], []).append(index)
        for group in list(self._behind):
            self._next_of(group)

    def _next_of(self, group: str) -> None:
        """The group's next entry becomes ready."""
        index = self._pull(group)
        if index is not None:
            heappush(self._ready, index)

    def _pull(self, group: str) -> int | None:
        """The group's next entry leaves `behind`; those over the limit are refused on the way."""
        rest = self._behind.get(group, [])
        while rest:
            index = rest.pop()
            if self._sizes[index] <= self.limits.bytes_max:
                self._out[group] = self._out.get(group, 0) + 1
                return index
            self.refusals.append(Refusal(index, TOO_LARGE, self._too_large(index)))
        self._behind.pop(group, None)
        return None

    def _take_back(self, indices: Sequence[int]) -> None:
        """Entries of a request that failed: as if never sent."""
        for index in sorted(indices, reverse=True):
            self._behind.setdefault(self._groups[index], []).append(index)
            self._out[self._groups[index]] -= 1
        for group in dict.fromkeys(self._groups[index] for index in indices):
            if not self._out[group]:
                self._next_of(group)

    def _retry(self, indices: Sequence[int], now: float, draw: float) -> None:
        """Entries that go again by themselves: the first of each group waits for its turn, the
        others stand behind it, or two requests under way could hold one group."""
        first = {self._groups[index]: index for index in reversed(indices)}
        for index in reversed(indices):
            self._attempts[index] += 1
            if first[self._groups[index]] == index:
                due = now + self._backoff(self._attempts[index], draw)
                heappush(self._waiting, (due, index))
            else:
                self._behind.setdefault(self._groups[index], []).append(index)
                self._out[self._groups[index]] -= 1

    def _take(self) -> tuple[int, ...]:
        """The oldest ready entries that fit into one request: at least one."""
        indices: list[int] = []
        followers: list[int] = []  # a heap: the next entries of groups that are in the request
        room = self.limits.bytes_max
        entries_max = 1 if self._ready[0] in self._alone else self.limits.entries_max
        while (self._ready or followers) and len(indices) < entries_max:
            heap = _older(self._ready, followers)
            if self._sizes[heap[0]] > room or (indices and heap[0] in self._alone):
                break
            indices.append(heappop(heap))
            room -= self._sizes[indices[-1]]
            follower = self._follower(indices)
            if follower is not None:
                heappush(followers, follower)
        for index in followers:  # no room: back behind those that go
            self._behind.setdefault(self._groups[index], []).append(index)
            self._out[self._groups[index]] -= 1
        return tuple(indices)

    def _follower(self, indices: list[int]) -> int | None:
        """The next of the last one's group, if nothing of the group is outside of the request."""
        group = self._groups[indices[-1]]
        inside = sum(self._groups[index] == group for index in indices)
        if not self.limits.together or self._out[group] > inside:
            return None
        return self._pull(group)

    def _land(self, request: Request) -> None:
        assert self._flying.pop(request.id, None) is not None, f"{request} is not in flight"

    def _settle(self, index: int) -> None:
        self._alone.discard(index)
        group = self._groups[index]
        self._out[group] -= 1
        if not self._out[group]:
            self._next_of(group)

    def _refuse(self, index: int, code: str, message: str) -> None:
        self.refusals.append(Refusal(index, code, message))
        self._settle(index)

    def _backoff(self, attempts: int, draw: float) -> float:
        """Full jitter: uniform in [0, min(max, first × 2^(attempts − 1))).

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        doublings = min(attempts - 1, 30)  # 2^30 × 0.1 s is three years: no overflow, no loss
        ceiling = self.limits.backoff_first_s * 2.0**doublings
        return draw * min(self.limits.backoff_max_s, ceiling)

    def _too_large(self, index: int) -> str:
        return (
            f"the entry has {self._sizes[index]} bytes and a request may have "
            f"{self.limits.bytes_max}: use fewer aggregates or shorter keys in the rule"
        )


def _older(one: list[int], other: list[int]) -> list[int]:
    """Of two heaps of which at least one has entries, the one whose first is the oldest."""
    if not (one and other):
        return one or other
    return one if one[0] < other[0] else other
