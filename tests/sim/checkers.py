"""What must hold of one stream's leases at every moment, by what the table took and nobody's word.

`Checkers` is told what the network's `Watch` overhears of its stream: it keeps its own copy of
every row, of who joined under which id, and of which heartbeats were answered when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Set
from dataclasses import dataclass, field
from typing import Any

from processor.core.leases.commands import Timing
from processor.core.leases.rows import ShardRow, StreamKey, WorkerRow
from processor.core.pages import place
from processor.model import Position
from tests.sim.breach import Breach, Verdict
from tests.sim.loop import Host
from tests.sim.network import Call, write_kind
from tests.sim.services import Services
from tests.sim.truth import MarkSeen
from tests.virtual_time import START_MS

TIMING = Timing()
ROUNDING_S = 1e-6
READS_KEPT = 200  # four a second, for longer than a death takes


@dataclass
class Seen:
    """What one process was overheard to do."""

    id: str = ""  # its present worker id
    valid_from: float | None = None  # its own time at the send of the last heartbeat that was good
    reads: deque[tuple[float, dict[str, int]]] = field(  # of worker rows, without a failed one
        default_factory=lambda: deque(maxlen=READS_KEPT)
    )


class Checkers:
    """Of the stream of that name; its shards' short names begin with `prefix`."""

    def __init__(self, services: Services, stream: str, verdict: Verdict, prefix: str) -> None:
        self._services, self.stream, self._prefix = services, stream, prefix
        self._verdict, self._note, self.paths = verdict, verdict.note, verdict.paths
        self._seen: dict[Host, Seen] = {}
        self._removed: set[str] = set()
        self._claimers: dict[tuple[str, int], Host] = {}
        self._unanswered: dict[tuple[Host, str], ShardRow] = {}
        self.rows: dict[str, ShardRow] = {}
        self.marks: dict[str, list[MarkSeen]] = {}

    @property
    def ever(self) -> Set[str]:
        """All shards that ever had a row."""
        return self.rows.keys() | self._removed

    # ---- what is overheard

    def on_sent(self, host: Host, kind: str, args: tuple[Any, ...]) -> None:
        if kind in ("claim", "release", "commit", "mark", "end", "bury"):
            self._check_validity(host, kind)
        if kind == "bury":
            self._check_burial(host, args[1], args[2])
        if kind in ("commit", "mark", "end"):
            self._on_row_sent(host, args[1])

    def on_answer(self, call: Call, result: Any) -> None:
        seen = self._seen_of(call.host)
        match call.operation:
            case "write" | "end":
                self._unanswered.pop((call.host, call.args[0].id), None)
            case "join" | "heartbeat":
                row: WorkerRow = call.args[1]
                if call.operation == "join" and row.id != seen.id:
                    self._seen[call.host] = seen = Seen(row.id)
                if result is not False and row.id == seen.id:
                    seen.valid_from = max(seen.valid_from or call.sent_at, call.sent_at)
            case "read_workers":
                seen.reads.append((call.host.monotonic(), {row.id: row.counter for row in result}))

    def on_no_answer(self, call: Call) -> None:
        if call.kind == "read_workers":
            self._seen_of(call.host).reads.clear()

    def on_effect(self, call: Call, result: Any) -> None:
        """Raises Breach."""
        match call.service:
            case "items" | "objects":
                if call.operation == "delete":
                    self._check_deleted(call)
            case "table":
                self._compare(call, result)

    # ---- rows

    def _compare(self, call: Call, result: Any) -> None:
        """Whatever the call changed of the shards' rows."""
        if call.operation == "bury" and result:
            self._note(call.host, f"buries {self.name_of(call.args[1])}")
            self.paths["burial"] += 1
        shards = self._services.content.shards
        standing = {id_: row for (key, id_), row in shards.items() if key.name == self.stream}
        if len(standing) < len(self.rows):
            self._on_removed(call.host, standing.keys())
        for id_, row in standing.items():
            known = self.rows.get(id_)
            if known is not row:
                self.rows[id_] = row
                if known is None:
                    self._check_created(id_)
                    self._note(call.host, f"creates the row of {self.short(id_)}")
                elif (known.owner, known.epoch, known.commit) != (row.owner, row.epoch, row.commit):
                    self._check_change(call, known, row)
        if call.operation in ("write", "end") and not result.applied:
            self._on_refused(call)

    def _check_created(self, shard_id: str) -> None:
        if shard_id in self._removed:
            raise Breach("housekeeping", f"the row of {self.short(shard_id)} is back: it had ended")

    def _on_removed(self, host: Host, left: Set[str]) -> None:
        """A row may go when its shard has ended and the stream has forgotten it."""
        for shard_id in sorted(self.rows.keys() - left):
            row = self.rows.pop(shard_id)
            self._removed.add(shard_id)
            self._note(host, f"removes the row of {self.short(shard_id)}")
            if not row.ended or shard_id in self._listed():
                raise Breach(
                    "housekeeping", f"{host.name} removed the row of {self.short(shard_id)}"
                )

    def _listed(self) -> Collection[str]:
        return self._services.model.streams[self.stream].shards

    def _check_change(self, call: Call, before: ShardRow, after: ShardRow) -> None:
        kind = "end" if after.ended else write_kind(before, after)
        seen = self._seen_of(call.host)
        if kind == "claim":
            self._check_claim(call.host, seen, before, after)
            self._claimers[after.id, after.epoch] = call.host
            return
        detail = (
            f"{kind} of {self.short(after.id)}, epoch {after.epoch} of {self.name_of(before.owner)}"
        )
        claimer = self._claimers.get((before.id, before.epoch))
        if before.epoch != after.epoch or claimer is not call.host or before.owner is None:
            raise Breach("old epoch", f"{call.host.name} wrote: {detail}")
        self._note(
            call.host, f"{kind}s {self.short(after.id)} {after.position} (commit {after.commit})"
        )
        if kind == "release":
            self.paths[self._path_of_release(after)] += 1
            return
        if after.commit != before.commit + 1:
            raise Breach("old epoch", f"commit {after.commit} after {before.commit}: {detail}")
        if place(after.position) < place(self._readable(before)):
            raise Breach("position", f"back from {before.position} to {after.position}: {detail}")
        if kind == "mark":
            self._on_mark(after)
        self._check_refs(after)

    def _readable(self, row: ShardRow) -> Position:
        """How far a row's newest state came, or the one before it, if that is damaged: whoever
        goes on from there may have to leave before he is as far again."""
        state = row.pairs[-1].state
        is_damaged = state is not None and state.key in self._services.damaged
        return row.pairs[0].position if is_damaged else row.position

    def _check_claim(self, host: Host, seen: Seen, before: ShardRow, after: ShardRow) -> None:
        owner, id_ = before.owner, self.short(after.id)
        if after.epoch != before.epoch + 1 or before.ended:
            raise Breach("old epoch", f"{id_} claimed at {after.epoch} after {before.epoch}")
        workers = self._services.content.workers
        row = workers.get((after.stream, owner)) if owner else None
        if owner and owner != after.owner and row is not None and not row.buried:
            raise Breach("live owner", f"{id_} claimed from {self.name_of(owner)}, not buried")
        open_ = [p for p in self._parents(after.id) if not self._has_ended(p)]
        if open_:
            raise Breach("children after parents", f"{id_} claimed before the end of {open_}")
        path = self._path_of(before, after)
        self.paths[path] += 1
        if any(entry.commit > before.pairs[-1].commit for entry in before.marks):
            self.paths["mark replayed"] += 1
        if not before.epoch and before.shard.parents:
            parents = len(before.shard.parents)
            self.paths["merge adopted" if parents > 1 else "split adopted"] += 1
            if parents == 1 and self._parents(before.shard.parents[0]):
                self.paths["split of a split"] += 1
        self._note(host, f"claims {id_} at epoch {after.epoch} ({path})")

    def _path_of_release(self, after: ShardRow) -> str:
        if after.successor is None:
            return "release to anybody"
        heir = self._services.content.workers.get((after.stream, after.successor))
        ready = heir.ready if heir is not None else ()
        is_ready = any(one.shard_id == after.id and one.epoch == after.epoch for one in ready)
        return "release to one who is ready" if is_ready else "release to one who is not ready"

    def _path_of(self, before: ShardRow, after: ShardRow) -> str:
        if before.owner == after.owner:
            return "reclaim of one's own"
        if before.owner is not None:
            return "take-over from the dead"
        if not before.epoch:
            return "first claim"
        if before.successor is None:
            return "claim of what is free"
        if before.successor == after.owner:
            return "hand-off to the successor"
        return "hand-off by successor's time-out"

    def _parents(self, shard_id: str) -> tuple[str, ...]:
        return self._services.model.streams[self.stream].shards[shard_id].parent_ids

    def _has_ended(self, shard_id: str) -> bool:
        return shard_id in self._removed or (shard_id in self.rows and self.rows[shard_id].ended)

    def _on_mark(self, row: ShardRow) -> None:
        mark = row.marks[-1].mark
        number = int(mark.position.value) if mark.position.kind == "after" else 0
        seen = MarkSeen(number, mark.fact, mark.watermark_ms)
        self.marks.setdefault(row.id, []).append(seen)
        self.paths["mark" if mark.fact == "idle" else f"{mark.fact} mark"] += 1

    def _on_refused(self, call: Call) -> None:
        before: ShardRow = call.args[0]
        row = self.rows.get(before.id)
        if row is not None and row.epoch > before.epoch:
            self.paths["write under an old epoch refused"] += 1
            self._note(call.host, f"is refused: {self.short(before.id)} is at epoch {row.epoch}")
        elif row is not None and row.write_id == call.args[1].write_id:
            self.paths["repeat of an applied write refused"] += 1

    def _on_row_sent(self, host: Host, after: ShardRow) -> None:
        """Tells how a write whose answer never came was settled: by the next one of its task."""
        known = self._unanswered.get((host, after.id))
        if known is not None and known.epoch == after.epoch:
            if known.write_id != after.write_id:
                self.paths["ambiguous write settled as applied"] += 1
            elif self.rows[after.id].write_id != after.write_id:
                self.paths["ambiguous write settled as not applied"] += 1
        self._unanswered[host, after.id] = after

    # ---- states

    def _check_refs(self, row: ShardRow) -> None:
        for key in sorted(keys_of(row)):
            if not self._exists(key):
                raise Breach("missing object", f"{row.id} names {key}: there is none")

    def _exists(self, key: str) -> bool:
        return key in self._services.content.blobs or key in self._services.blobs

    def _check_deleted(self, call: Call) -> None:
        needed = [row for row in self.rows.values() if not row.ended or row.id in self._listed()]
        named = set().union(*map(keys_of, needed))
        wrong = named.intersection(call.args[0])
        if wrong:
            raise Breach("missing object", f"{call.host.name} deleted {wrong}, which rows name")

    # ---- validity and burial

    def _check_validity(self, host: Host, kind: str) -> None:
        """No effect starts with less validity left than the margin, counted from the send."""
        seen = self._seen_of(host)
        if host.thawed_at == self._services.loop.now:
            return  # decided before it was frozen: nobody can know that
        if seen.valid_from is None:
            self.on_breach("validity", f"{host.name} began a {kind} without a good heartbeat")
            return
        age_s = host.monotonic() - seen.valid_from
        if age_s > TIMING.validity_s - TIMING.margin_s + ROUNDING_S:
            self.on_breach(
                "validity", f"{host.name} began a {kind} {age_s:.3f} s after its heartbeat"
            )

    def _check_burial(self, host: Host, victim: str, counter: int) -> None:
        """Stood still over good reads close together, for as long as a TTL and the drift margin."""
        if host.thawed_at == self._services.loop.now:
            return
        until = now = host.monotonic()
        for at, counters in reversed(self._seen_of(host).reads):
            if until - at > TIMING.gap_max_s + ROUNDING_S or counters.get(victim) != counter:
                break
            until = at
        if now - until < TIMING.ttl_s + TIMING.burial_s - ROUNDING_S:
            stood_s = f"stood still for {now - until:.3f} s of good reads"
            self.on_breach("burial", f"{host.name} buries {self.name_of(victim)}, which {stood_s}")

    def on_breach(self, checker: str, what: str) -> None:
        self._verdict.on_breach(checker, what)

    def is_buried(self, host: Host) -> bool:
        """Whether nobody counts on that process any more."""
        key = StreamKey(self.stream, START_MS), self._seen_of(host).id
        row = self._services.content.workers.get(key)
        return row is None or row.buried

    def short(self, shard_id: str) -> str:
        return f"{self._prefix}{shard_id[-2:]}"

    def _seen_of(self, host: Host) -> Seen:
        return self._seen.setdefault(host, Seen())

    def name_of(self, worker_id: str | None) -> str:
        if worker_id is None:
            return "nobody"
        return next(
            (h.name for h, seen in self._seen.items() if seen.id == worker_id), worker_id[:6]
        )


def keys_of(row: ShardRow) -> set[str]:
    """What the row's pairs need, a chain's older links included."""
    states = [pair.state for pair in row.pairs if pair.state]
    older = {
        f"{state.key.rpartition('/')[0]}/{link.name}" for state in states for link in state.older
    }
    return older | {state.key for state in states}
