"""A Kinesis stream by polling: when to ask, from where, and what to make of the answer.

A reader's state is a position and perhaps an iterator for it. Only a whole and sensible answer
moves them, together and without an await between: so a request may fail, be cancelled or be
repeated at any time. What goes wrong, and what then happens:

    throttled, failed, cut, garbled      the same iterator again, after pacing's back-off
    iterator expired, or 4 minutes old   a new one after the last record that was answered
    missing, denied                      the same with a new iterator: `check` told them at start,
                                         later they are outages, and end when somebody repairs them
    shard not found                      see `absence`: perhaps it is past retention and has ended
    no next iterator                     see `progress.outcome_of`: perhaps the end of the shard
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from processor.core import progress
from processor.core.pacing import Pace, Pacing
from processor.errors import IteratorExpired, Missing, Outage, Throttled, Unavailable
from processor.model import TRIM_HORIZON, Page, Position, Shard, StreamInfo
from processor.ports import Clock, ReadObserver, Unobserved
from processor.sources.absence import Absence, Looks
from processor.sources.budget import FOOTPRINT, ByteBudget, held_bytes
from processor.sources.kinesis_api import (
    KinesisApi,
    RecordsAnswer,
    children_of,
    end_page,
    page_of,
)
from processor.sources.wire import RequestFailed, Wire

ITERATOR_S_MAX = 240.0  # of the 300 that it lives


class Reading(NamedTuple):
    """What all readers of a process share."""

    clock: Clock
    jitter: Random
    budget: ByteBudget
    pace: Pace = Pace()
    observer: ReadObserver = Unobserved()


class KinesisSource:
    """One stream, by name or ARN. Its calls are single attempts; only `read` waits and repeats."""

    def __init__(self, wire: Wire, stream: str, reading: Reading) -> None:
        self._api = KinesisApi(wire, stream)
        self._looks = Looks(self._api, reading.clock)
        self._reading = reading
        self._created_ms: int | None = None  # of the stream, as last described

    def __repr__(self) -> str:
        return f"<KinesisSource {self._api!r}>"

    async def check(self) -> StreamInfo:
        """Every call that reading will need, once. Raises Unavailable, Throttled or Outage."""
        info = await self.describe()
        shards = await self.list_shards()
        if shards:
            iterator = await self._api.iterator(shards[-1].id, TRIM_HORIZON)
            with suppress(Throttled):  # refused for its rate means allowed
                await self._api.get_records(iterator, 1)
        return info

    async def describe(self) -> StreamInfo:
        info = await self._api.describe()
        self._created_ms = info.created_ms
        return info

    async def list_shards(self) -> list[Shard]:
        return await self._api.list_shards()

    async def probe(self, shard_id: str, position: Position) -> None:
        """Ask for an iterator and don't use it. Raises Unavailable, Throttled or Outage."""
        await self._api.iterator(shard_id, position)

    def open(self, shard_id: str, position: Position) -> KinesisReader:
        absence = Absence(shard_id, self._created_ms)
        return KinesisReader(self._api, self._looks, absence, shard_id, position, self._reading)


class KinesisReader:
    """One shard. While it is behind, one page is read ahead if the budget has room for it."""

    def __init__(
        self,
        api: KinesisApi,
        looks: Looks,
        absence: Absence,
        shard_id: str,
        position: Position,
        reading: Reading,
    ) -> None:
        assert position.kind != "end", f"{shard_id} is at its end"
        self._api = api
        self._looks = looks
        self._absence = absence
        self._shard_id = shard_id
        self._reading = reading
        self._pacing = Pacing(reading.pace, reading.clock.monotonic())
        self._position = position  # after all that was answered, taken by the caller or not
        self._iterator: str | None = None
        self._iterator_at = 0.0
        self._coming: asyncio.Task[Page] | None = None
        self._charged_bytes = 0
        self._errors = 0  # since the last page
        self._has_ended = False
        self._is_closed = False
        reading.budget.join()

    def __repr__(self) -> str:
        return f"<KinesisReader {self._shard_id} at {self._position} {self._pacing!r}>"

    async def read(self) -> Page:
        """The next page. Cancelling is safe: the page under way is kept for the next call.

        One call at a time; none after the page that names children, nor after close(). Raises
        StreamReplaced.
        """
        assert not self._has_ended, f"{self._shard_id} has ended"
        assert not self._is_closed, f"the reader of {self._shard_id} is closed"
        if self._coming is None:
            self._coming = asyncio.create_task(self._fetch())
        try:
            page = await asyncio.shield(self._coming)
        except Exception:  # but not CancelledError: then the page may have come all the same
            self._forget()
            raise
        self._forget()
        self._has_ended = page.children is not None
        if page.millis_behind and not self._has_ended:
            self._read_ahead()
        return page

    async def close(self) -> None:
        """May be called twice. Cancelling it leaves the read-ahead to end by itself."""
        task = self._coming
        self._forget()
        if not self._is_closed:
            self._is_closed = True
            self._reading.budget.leave()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # a page is dropped; an error is not

    # Reading ahead

    def _read_ahead(self) -> None:
        budget = self._reading.budget
        expected_bytes = FOOTPRINT * self._pacing.page_bytes(budget.page_bytes())
        if budget.try_take(expected_bytes):
            self._charged_bytes = expected_bytes
            self._coming = asyncio.create_task(self._fetch_ahead())

    async def _fetch_ahead(self) -> Page:
        page = await self._fetch()
        by = held_bytes(page) - self._charged_bytes
        self._reading.budget.correct(by)
        self._charged_bytes += by
        return page

    def _forget(self) -> None:
        """What was coming is the caller's now, or nobody's."""
        self._coming = None
        self._reading.budget.give_back(self._charged_bytes)
        self._charged_bytes = 0

    # Asking

    async def _fetch(self) -> Page:
        while True:
            await self._wait_until_due()
            try:
                return await self._attempt_or_end()
            except (Outage, Unavailable, IteratorExpired) as error:
                self._on_failure(error)

    async def _wait_until_due(self) -> None:
        now = self._reading.clock.monotonic()
        wait_s = self._pacing.next_at(now) - now
        if wait_s > 0:
            await self._reading.clock.sleep(wait_s)

    async def _attempt_or_end(self) -> Page:
        """A page, or the end if the shard is gone: what it still held is past retention."""
        try:
            return await self._attempt()
        except Unavailable as error:  # a new stream calls an old one's sequence numbers invalid
            look = await self._looks.look()
            if not self._absence.on_look(look) or not isinstance(error, Missing):
                raise
            children = (one for one in look.listing if self._shard_id in one.parents)
            return end_page(look.info.service_date_ms, tuple(children), self._errors)

    async def _attempt(self) -> Page:
        iterator = await self._good_iterator()
        began_at = self._reading.clock.monotonic()
        self._pacing.on_request(began_at)
        limit = self._pacing.limit(self._reading.budget.page_bytes())
        answer, date_ms = await self._api.get_records(iterator, limit)
        children = await self._children_after(answer)
        page = page_of(answer, date_ms, children)
        self._on_page(page, answer.next_shard_iterator, began_at)
        page, self._errors = replace(page, errors=self._errors), 0
        return page

    async def _good_iterator(self) -> str:
        now = self._reading.clock.monotonic()
        if self._iterator is None or now - self._iterator_at > ITERATOR_S_MAX:
            self._iterator = await self._api.iterator(self._shard_id, self._position)
            self._iterator_at = now
        return self._iterator

    async def _children_after(self, answer: RecordsAnswer) -> tuple[Shard, ...] | None:
        """The children if this answer was the last, None if not; RequestFailed if garbled."""
        outcome = progress.outcome_of(
            has_records=answer.records is not None and answer.millis_behind_latest is not None,
            has_next=answer.next_shard_iterator is not None,
            has_children=bool(answer.child_shards),
        )
        match outcome:
            case "goes_on":
                return None
            case "ended":
                return children_of(answer)
            case "ask_list":
                return await self._listed_children()
            case "garbled":
                raise RequestFailed("GetRecords", "garbled", "it has no Records")

    async def _listed_children(self) -> tuple[Shard, ...]:
        shards = await self._api.list_shards()
        own = next((shard for shard in shards if shard.id == self._shard_id), None)
        if not progress.is_end(is_listed=own is not None, is_closed=bool(own and own.is_closed)):
            detail = "no next iterator for a shard that is not closed"
            raise RequestFailed("GetRecords", "garbled", detail)
        return tuple(shard for shard in shards if self._shard_id in shard.parents)

    # Facts

    def _on_page(self, page: Page, next_iterator: str | None, began_at: float) -> None:
        now = self._reading.clock.monotonic()
        self._iterator, self._iterator_at = next_iterator, now
        if page.sequence_numbers:
            self._position = Position("after", page.sequence_numbers[-1])
        size, payload_bytes = len(page), sum(map(len, page.payloads))
        self._pacing.on_page(size, payload_bytes, page.millis_behind, now)
        self._reading.observer.on_read(
            self._shard_id, now - began_at, size, payload_bytes, page.millis_behind
        )

    def _on_failure(self, error: Outage | Unavailable | IteratorExpired) -> None:
        now, jitter = self._reading.clock.monotonic(), self._reading.jitter.random()
        observer = self._reading.observer
        self._errors += 1
        if isinstance(error, Throttled):
            self._pacing.on_throttle(jitter, now)
            observer.on_throttled(self._shard_id)
            return
        if isinstance(error, (IteratorExpired, Unavailable)):
            self._iterator = None
        if not isinstance(error, IteratorExpired):
            self._pacing.on_error(jitter, now)
        observer.on_error(self._shard_id, _kind(error), str(error))


def _kind(error: Outage | Unavailable | IteratorExpired) -> str:
    match error:
        case RequestFailed():
            return error.kind
        case Unavailable():
            return "unavailable"
        case IteratorExpired():
            return "expired_iterator"
    return "outage"
