"""Which pipelines an application has run, in order: who may go on from whose state.

Workers of one pipeline file (and release) are a generation. A file that is new to the application
begins the newest one; a file that is known keeps its number, so that a worker of the former file
that restarts in the midst of a rollout does not turn it back. A worker may claim what its own or
an older generation committed last, never what a newer one did: its rules would drop what the newer
ones hold. An explicit rollback gives a known file the newest number anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from processor.core.leases.rows import Generation, ShardRow

# As many different files are told apart; one that was last run before those counts as new.
GENERATIONS_MAX = 32


class Registered(Struct, frozen=True):
    """A worker's generation among those that an application ran; `known` is what is to stand."""

    number: int
    known: tuple[Generation, ...]

    @property
    def newest(self) -> int:
        return self.known[-1].number


def registered(
    known: tuple[Generation, ...], pipeline: str, *, is_rollback: bool = False
) -> Registered:
    """Where a worker of that pipeline (`pipeline.generation`) stands when it starts."""
    mine = next((one for one in known if one.pipeline == pipeline), None)
    if mine is not None and (mine == known[-1] or not is_rollback):
        return Registered(mine.number, known)
    newest = Generation(known[-1].number + 1 if known else 1, pipeline)
    others = tuple(one for one in known if one.pipeline != pipeline)
    return Registered(newest.number, (*others, newest)[-GENERATIONS_MAX:])


def advice(barred: int, number: int) -> str:
    """What a person should know of shards that a worker of generation `number` may not claim."""
    shards = "1 shard" if barred == 1 else f"{barred} shards"
    return (
        f"{shards} can't be claimed: a newer pipeline file (or release) than ours, which is number"
        f" {number} of those that this application ran, holds their state; start workers with the"
        " newest file, or roll back to ours by `processor run --rollback` or PROCESSOR_ROLLBACK=1"
    )


def state_generation(row: ShardRow, rows: Mapping[str, ShardRow]) -> int:
    """Who committed what a shard's next owner goes on from: its last state, or its parents'."""
    if all(pair.commit for pair in row.pairs):
        return row.generation
    parents = (rows[parent].generation for parent in row.shard.parents if parent in rows)
    return max((row.generation, *parents))
