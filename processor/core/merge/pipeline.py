"""What a shard of the merge stream yields: a pure function of its records and its marks.

    steps(page or mark) → Step…, finish() → Step…        parts() / restoring() / inherit()

Takes the place of `core.pipeline.ShardPipeline` in the loop of a shard. Its records are partials
(see `partials`); its state is one for each rule version and bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from processor.core.pipeline import Totals
from processor.core.plan import Plan
from processor.core.stored import stream
from processor.model import Counts, Mark, Page, Position, Shard, Step


class Behind(NamedTuple):
    """Whom global rules wait for: a shard of the source, "" where a part of it never reported.

    While it stays the same though others went on, it stands still: `Mark(position, "stalled",
    watermark_ms, shard_id)`, once committed, lets the rules go on without it.
    """

    shard_id: str
    watermark_ms: int


class MergePipeline:
    """The second stage of all global rules on one shard of the merge stream."""

    def __init__(self, plan: Plan, shard: Shard, incarnation: str, generation: int = 0):
        """`generation`: our pipeline's number among those that the application ran; what a newer
        one tells of rules that we don't know is kept for it."""
        self.plan = plan
        self.shard = shard
        self.totals = Totals()
        self.position: Position | None = None  # of the last record taken
        self._incarnation = incarnation
        self._generation = generation

    @property
    def watermark_ms(self) -> int | None:
        """The smallest merged watermark of its rules and buckets."""
        return None

    @property
    def furthest_ms(self) -> int | None:
        """None: no idleness of a merge shard moves its time, only what shards tell."""
        return None

    @property
    def windows_open(self) -> int:
        return 0

    @property
    def groups(self) -> Mapping[str, int]:
        """Keys by rule."""
        return {}

    @property
    def behind(self) -> Behind | None:
        """Who holds open windows back most; None where none is open."""
        return None

    def steps(self, item: Page | Mark) -> Iterator[Step]:
        """To be taken to the end: only then is the state whole again, and `position` moved."""
        if isinstance(item, Page) and len(item):
            self.position = Position("after", item.sequence_numbers[-1])
        yield Step([], [], Counts())

    def finish(self) -> Iterator[Step]:
        """The merge shard is at its end: all stays open for the children to inherit."""
        yield Step([], [], Counts())

    def is_due(self, watermark_ms: int) -> bool:
        """No idle mark is ever due."""
        return False

    @property
    def is_quiet_due(self) -> bool:
        return False

    def parts(self) -> Iterator[stream.Part]:
        """The state, some of it views of live memory: take them before feeding on."""
        yield from stream.parts({})

    def restoring(self, state: bytes, position: Position) -> Iterator[None]:
        """Into a fresh pipeline, in turns; to be taken to the end. Raises StateUnreadable."""
        self.position = position
        yield

    def inherit(self, states: Sequence[bytes]) -> None:
        """Begin with the buckets that are at home here, of the parents' last states, in any order.
        Into a fresh pipeline; raises StateUnreadable."""
