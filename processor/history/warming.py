"""A warm start from recordings, step by step: which shards are to begin, learning, writing.

    targets = await prepare(source, merge)      refused here, if at all
    learner = learn(pipeline, targets, recording, on_batch)
    await write(source, merge, targets, learner)

Between the first and the last an hour may pass: rows are written only if they are as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from msgspec import Struct

from processor.core.leases import firsts
from processor.core.leases.rows import ShardRow
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.history.learning import Learner, silent
from processor.history.lines import Recorded
from processor.history.recording import Recording
from processor.model import Pipeline
from processor.runtime.first_states import First, FirstStates


class Targets(Struct, frozen=True):
    """Shards that are to begin: of the source, each with the arrival from which on the stream gives
    its records itself (None: unknown), and of the merge stream."""

    takers: tuple[ShardRow, ...]
    until_ms: tuple[int | None, ...]
    merged: tuple[ShardRow, ...] = ()


async def prepare(source: FirstStates, merge: FirstStates | None) -> Targets:
    """Raises Refused where there is a state, or a live worker."""
    takers = firsts.takers((await source.prepare(is_relived=False)).shards)
    merged: list[ShardRow] = []
    if merge is not None:
        merged = firsts.takers((await merge.prepare(is_relived=False)).shards)
    info = await source.describe()
    until_ms = (firsts.begins_at_ms(row, info) for row in takers)
    return Targets(tuple(takers), tuple(until_ms), tuple(merged))


def learn(
    pipeline: Pipeline,
    targets: Targets,
    recorded: Iterable[Recorded],
    on_batch: Callable[[Learner], None],
) -> Learner:
    """All of a recording; `on_batch` is called with what there is after each batch."""
    shards = [row.shard for row in targets.takers]
    learner = Learner(silent(pipeline), shards, targets.until_ms)
    learner.learn(recorded, on_batch)
    if isinstance(recorded, Recording):
        learner.told.bad_lines = recorded.bad_lines
    return learner


async def write(
    source: FirstStates, merge: FirstStates | None, targets: Targets, learner: Learner
) -> int:
    """Commit what was learnt; how many bytes it takes. Raises Refused where a row has changed."""
    size = await source.write(
        [
            First(row, _shard_machine(shard.machine).learnt)
            for row, shard in zip(targets.takers, learner.stages.shards, strict=True)
        ]
    )
    stage = learner.stages.merge
    if merge is not None and stage is not None:
        machine = _merge_machine(stage.machine)
        each = [First(row, partial(machine.learnt, row.shard)) for row in targets.merged]
        size += await merge.write(each)
    return size


def _shard_machine(machine: ShardPipeline | MergePipeline) -> ShardPipeline:
    assert isinstance(machine, ShardPipeline)
    return machine


def _merge_machine(machine: ShardPipeline | MergePipeline) -> MergePipeline:
    assert isinstance(machine, MergePipeline)
    return machine
