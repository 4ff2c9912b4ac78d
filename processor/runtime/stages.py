"""Both stages of one process: the source's worker, and the merge stream's where a rule is global.

Each has leases of its own in the same table. Start: what is refused of the merge stream is refused
before the source is read. End: the source stage hands over first, so that what it still has to tell
goes out; then the merge stage, once it has read that: who runs a newer pipeline file, in which the
rule is another one, can't tell its windows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from processor.runtime.waiting import unless
from processor.runtime.worker import Worker

# After so long the merge stage hands over beside a source stage that takes longer, or with records
# unread: a drain takes at most 25 s, and all is to be over within 30.
MERGE_AFTER_S = 4.0


class Stages:
    """What `app` runs; `merge` is None where no rule is global."""

    def __init__(self, source: Worker, merge: Worker | None = None) -> None:
        self.source, self.merge = source, merge

    def __repr__(self) -> str:
        return f"<Stages {self.source!r} {self.merge!r}>"

    @property
    def workers(self) -> list[Worker]:
        return [worker for worker in (self.source, self.merge) if worker is not None]

    @property
    def is_alive(self) -> bool:
        """Whether others see us as such: heartbeats are taken, of both stages."""
        return all(worker.is_alive for worker in self.workers)

    def barred(self) -> list[str]:
        """A sentence for each stage where all that we could do is left to a newer pipeline."""
        return [reason for worker in self.workers if (reason := worker.barred())]

    def stuck(self) -> list[str]:
        """A sentence for each shard that neither gets on nor waits for something with a name."""
        merge = [] if self.merge is None else self.merge.stuck()
        return [*self.source.stuck(), *(f"merge stream: {reason}" for reason in merge)]

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and every lease is handed over, in less than 30 s.

        Raises what `Worker.run` does. Cancelling is as safe.
        """
        if self.merge is None:
            return await self.source.run(stopping)
        await self.merge.open(stopping)
        await self.source.open(stopping)  # the merge stage asks which generation we are
        follows = asyncio.Event()
        source = asyncio.create_task(self._run_source(stopping, follows))
        timer = asyncio.create_task(self._follow(stopping, follows))
        merge = asyncio.create_task(self.merge.run(follows))
        try:
            await _all_or_first_error(source, merge)
        finally:
            tasks = (source, timer, merge)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_source(self, stopping: asyncio.Event, follows: asyncio.Event) -> None:
        assert self.merge is not None
        await self.source.run(stopping)
        await unless(follows, self.merge.read_up())
        follows.set()

    async def _follow(self, stopping: asyncio.Event, follows: asyncio.Event) -> None:
        await stopping.wait()
        await self.source.clock.sleep(MERGE_AFTER_S)
        follows.set()


async def _all_or_first_error(*tasks: asyncio.Task[None]) -> None:
    waiting: Awaitable[tuple[set[asyncio.Task[None]], set[asyncio.Task[None]]]]
    waiting = asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    done, _ = await waiting
    for task in done:
        task.result()
