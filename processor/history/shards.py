"""One shard of either stage, with its idleness: what the runtime does, without its waiting."""

from __future__ import annotations

from collections.abc import Iterator

from processor.core.merge.pipeline import MergePipeline
from processor.core.merge.stalls import Stall
from processor.core.pipeline import ShardPipeline
from processor.core.progress import Idle
from processor.model import TRIM_HORIZON, Mark, Page, Position, Step


class LoneShard:
    """A shard whose every decision takes effect at once: nothing fails here, nothing is stored."""

    def __init__(
        self,
        machine: ShardPipeline | MergePipeline,
        out_of_orderness_ms: int,
        on_stall_ms: int | None = None,
    ) -> None:
        self._machine = machine
        self._idle = Idle(out_of_orderness_ms)
        self._stall = Stall(on_stall_ms)

    def __repr__(self) -> str:
        return f"<LoneShard {self._machine!r} {self._idle!r}>"

    @property
    def machine(self) -> ShardPipeline | MergePipeline:
        """What it runs."""
        return self._machine

    @property
    def watermark_ms(self) -> int | None:
        return self._machine.watermark_ms

    def feed(self, page: Page) -> Iterator[Step]:
        """A read that brought records."""
        self._idle.on_answer(len(page), page.millis_behind, page.date_ms)
        yield from self._machine.steps(page)
        self._stall.on_answer(self._machine.behind, page.millis_behind, page.date_ms)

    def feed_nothing(self, date_ms: int) -> Iterator[Step]:
        """A read that brought none, with nothing left to read."""
        self._idle.on_answer(0, 0, date_ms)
        furthest_ms = self._machine.furthest_ms
        to_ms = self._idle.candidate_ms(furthest_ms)
        if to_ms is not None and self._machine.is_due(to_ms):
            yield from self.advance(to_ms)
        elif self._idle.is_certain:
            yield from self.quieten()
        self._stall.on_answer(self._machine.behind, 0, date_ms)
        behind = self._stall.candidate()
        if behind is not None:
            mark = Mark(self._position, "stalled", behind.watermark_ms, behind.shard_id)
            yield from self._machine.steps(mark)

    def advance(self, to_ms: int) -> Iterator[Step]:
        """Move the watermark there by a mark."""
        return self._machine.steps(Mark(self._position, "idle", to_ms))

    def quieten(self) -> Iterator[Step]:
        """Tell the merge stage that it need not wait for this shard, if nothing of it is open."""
        if self._machine.is_quiet_due:
            to_ms = self._machine.furthest_ms or 0
            yield from self._machine.steps(Mark(self._position, "quiet", to_ms))

    @property
    def _position(self) -> Position:
        return self._machine.position or TRIM_HORIZON
