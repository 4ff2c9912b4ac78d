"""What a shard of the merge stream yields: a pure function of its records and its marks.

    steps(page or mark) → Step…, finish() → Step…        parts() / restoring() / inherit()

Takes the place of `core.pipeline.ShardPipeline` in the loop of a shard. Its records are partials
(see `partials`); its state is a world for each rule version and bucket, and goes with the bucket
when the merge stream is resharded. Records are taken one by one, so page cuts can't show.

    a rule version    that we run                 goes to its world
                      of a newer pipeline file    is kept aside, for a worker that runs that file
                      of an older one             is counted, and gone
    no partial, or another bucket's               goes to the dead letters
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from processor.codecs.base import Fault
from processor.core import instructions, letters, sections, snapshots
from processor.core.homes import HashRange, range_of
from processor.core.instructions import Instructed, Instruction
from processor.core.merge import partials, world
from processor.core.merge.members import Behind as Behind
from processor.core.merge.partials import Head
from processor.core.merge.world import Taken, World
from processor.core.plan import Plan
from processor.core.rules import Learnt, RulePlan
from processor.core.snapshots import Totals
from processor.core.stored import stream
from processor.core.telling import Output
from processor.core.turns import EVENT_WORK, Piece, joined, step, turns
from processor.errors import StateUnreadable
from processor.model import Counts, DeadLetter, Mark, Page, Position, Shard, Step

SNAPSHOT_VERSION = 2
# Of what newer pipeline files tell during a rollout, minutes of many shards; past it, what comes
# goes to the dead letters.
ASIDE_BYTES_MAX = 16 * 2**20
_RECORD_WORK = 100  # of a partial: some 50 µs


class Aside(Struct, frozen=True, array_like=True):
    """A record that waits for a worker who can read it."""

    rule_version: str
    hash_key: bytes  # of its bucket
    arrival_ms: int
    body: bytes
    generation: int  # of the pipeline that told it


class Snapshot(Struct, frozen=True):
    """All that must survive a takeover but the position."""

    version: int
    shard_id: str
    range: HashRange
    totals: Totals
    worlds: dict[str, world.Saved]  # by rule version and bucket
    aside: list[Aside]
    instructed: instructions.Saved = instructions.Saved()


class _Record(NamedTuple):
    """One partial, as far as the envelope tells."""

    generation: int
    head: Head
    body: bytes
    arrival_ms: int


class MergePipeline:
    """The second stage of all global rules on one shard of the merge stream."""

    def __init__(self, plan: Plan, shard: Shard, incarnation: str, generation: int = 0):
        """`generation`: our pipeline's number among those that the application ran; what a newer
        one tells of rules that we don't know is kept for it."""
        self.plan = plan
        self.shard = shard
        self.totals = Totals()
        self.position: Position | None = None  # of the last record taken
        self._seeks = int(incarnation.partition(".")[2] or 0)
        self._generation = generation
        self._range = range_of(shard)
        self._rules = {rule.version: rule for rule in plan.rules if rule.is_global}
        self._worlds: dict[tuple[str, int], World] = {}
        self._aside: list[Aside] = []
        self._instructed = Instructed()

    def __repr__(self) -> str:
        return f"<MergePipeline {self.shard.id} at {self.position} {list(self._worlds.values())!r}>"

    @property
    def watermark_ms(self) -> int | None:
        """The smallest merged watermark of its rules and buckets."""
        each = [one.watermark_ms for one in self._worlds.values()]
        return min((ms for ms in each if ms is not None), default=None)

    @property
    def furthest_ms(self) -> int | None:
        """From where on idleness moves time, where no shard of the source is waited for: what is
        open still closes, and detectors see that nothing comes. As all worlds hear of the same
        shards, the furthest tells the time. None where shards tell it."""
        each = [one.idle_from_ms for one in self._worlds.values()]
        return max((ms for ms in each if ms is not None), default=None)

    @property
    def windows_open(self) -> int:
        return sum(len(one.rule.windows) for one in self._worlds.values())

    @property
    def groups(self) -> Mapping[str, int]:
        """Keys by rule."""
        groups = {rule.spec.name: 0 for rule in self._rules.values()}
        for one in self._worlds.values():
            groups[one.rule.plan.spec.name] += len(one.rule.keys)
        return groups

    @property
    def behind(self) -> Behind | None:
        """Who holds back most a window that is open and that others have passed; None: nobody.

        While it stays the same for long, that shard stands still: `Mark(position, "stalled",
        watermark_ms, shard_id)`, once committed, lets the rules go on without it.
        """
        each = [one.behind for one in self._worlds.values()]
        found = [behind for behind in each if behind is not None]
        return min(found, key=lambda b: (b.watermark_ms, b.shard_id), default=None)

    def is_due(self, watermark_ms: int) -> bool:
        """Whether an idle mark that moves time there would have an effect."""
        return any(one.is_due(watermark_ms) for one in self._worlds.values())

    @property
    def is_quiet_due(self) -> bool:
        return False

    # ---- the inputs -------------------------------------------------------------------------

    def feed(self, page: Page) -> Step:
        """Take a page of records, in one step."""
        return joined(self.steps(page))

    def mark(self, mark: Mark) -> Step:
        """Apply a committed mark, in one step."""
        return joined(self.steps(mark))

    def settle(self) -> Iterator[Step]:
        """Nothing ever waits here."""
        return iter(())

    def steps(self, item: Page | Mark, *, may_wait: bool = False) -> Iterator[Step]:
        """To be taken to the end: only then is the state whole again, and `position` moved."""
        counts, bad = Counts(), list[DeadLetter]()
        if isinstance(item, Mark):
            pieces = self._mark(item, counts)
        else:
            counts.records = len(item)
            counts.payload_bytes = sum(map(len, item.payloads))
            pieces = self._page(item, counts, bad)
        rest = yield from turns(pieces)
        if isinstance(item, Page) and len(item):
            self.position = Position("after", item.sequence_numbers[-1])
        self.totals.add(counts)
        yield step(rest, bad, counts)

    def finish(self) -> Iterator[Step]:
        """The merge shard is at its end: all stays open for the children to inherit."""
        yield step([], [], Counts())

    def has_taken(self, instruction: Instruction) -> bool:
        """Whether it was taken here, or by a parent."""
        return self._instructed.has_taken(instruction)

    def is_asked(self, instruction: Instruction) -> bool:
        """Whether it concerns this shard, and was not taken yet. A mute concerns a rule of ours
        also where no world of it is here yet."""
        if self._instructed.has_taken(instruction):
            return False
        if instruction.rule:
            return any(plan.spec.name == instruction.rule for plan in self._rules.values())
        return any(one.rule.is_asked(instruction) for one in self._worlds.values())

    def _instruct(self, instruction: Instruction) -> None:
        self._instructed.take(instruction)
        for one in self._worlds.values():
            one.rule.on_instruction(instruction)

    def _mark(self, mark: Mark, counts: Counts) -> Iterator[Piece]:
        if mark.fact == "instructed":
            self._instruct(instructions.decoded(mark.payload))
        for _, one in sorted(self._worlds.items(), key=lambda item: item[0]):
            if mark.fact == "stalled":
                yield from _told(one, one.stall(mark.shard_id, mark.watermark_ms), 0, counts)
            elif mark.fact == "idle":
                yield from _told(one, one.advance(mark.watermark_ms), 0, counts)

    def _page(self, page: Page, counts: Counts, bad: list[DeadLetter]) -> Iterator[Piece]:
        for known in self._pop_known():
            yield from self._tell(known, counts)
        for i, payload in enumerate(page.payloads):
            yield _RECORD_WORK, []
            record = _read(payload, int(page.arrivals_ms[i]))
            fault = record if isinstance(record, Fault) else self._fault(record, counts)
            if isinstance(record, _Record) and fault is None:
                fault = yield from self._tell(record, counts)
            if fault is not None:
                counts.rejects[fault.reason] = counts.rejects.get(fault.reason, 0) + 1
                bad.append(self._dead_letter(page, i, fault))

    def _fault(self, record: _Record, counts: Counts) -> Fault | None:
        """Why a record goes to the dead letters before it is looked into, if so."""
        head = record.head
        place = partials.place(head.bucket % head.buckets, head.buckets)
        if head.bucket >= head.buckets or place not in self._range:
            return Fault("no_partial", f"bucket {head.bucket} of {head.buckets}: not of this shard")
        plan = self._rules.get(head.rule_version)
        if plan is not None:
            return _misfit(head, plan)
        if record.generation <= self._generation:
            counts.unmatched += 1
            return None
        held = sum(len(one.body) for one in self._aside)
        if held + len(record.body) > ASIDE_BYTES_MAX:
            detail = f"a newer pipeline file's, {held} bytes of which wait already: start workers"
            return Fault("aside_full", f"{detail} with that file")
        self._aside.append(
            Aside(head.rule_version, place, record.arrival_ms, record.body, record.generation)
        )
        return None

    def _pop_known(self) -> list[_Record]:
        """What was kept aside for who runs those rules: us."""
        known = [one for one in self._aside if one.rule_version in self._rules]
        self._aside = [one for one in self._aside if one.rule_version not in self._rules]
        heads = ((one, partials.head(one.body)) for one in known)
        return [
            _Record(self._generation, head, one.body, one.arrival_ms)
            for one, head in heads
            if isinstance(head, Head)
        ]

    def _tell(self, record: _Record, counts: Counts) -> Generator[Piece, None, Fault | None]:
        """Hand it to its world; gives a fault where something is wrong with it."""
        plan = self._rules.get(record.head.rule_version)
        if plan is None:
            return None
        closing = partials.closing(record.body)
        if isinstance(closing, Fault):
            return closing
        one, fault = self._world(plan, closing.bucket), None
        for taken in one.take(closing, len(record.body), record.arrival_ms):
            fault = fault or taken.fault
            yield from _told(one, taken, record.arrival_ms, counts)
        return fault

    def _world(self, plan: RulePlan, bucket: int) -> World:
        at = plan.version, bucket
        if at not in self._worlds:
            app = self.plan.pipeline.app
            self._worlds[at] = World(plan, app, self.shard, bucket, self._seeks)
            self._worlds[at].rule.obey(self._instructed)
        return self._worlds[at]

    def _dead_letter(self, page: Page, i: int, fault: Fault) -> DeadLetter:
        merge = self.plan.pipeline.merge
        source = letters.Source(merge.stream if merge is not None else "", self.shard.id)
        return letters.of_record(source, page, i, fault.reason, fault.detail)

    # ---- snapshot and restore ---------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The state; the same state gives the same bytes."""
        return stream.joined(self.parts())

    def parts(self) -> Iterator[stream.Part]:
        """The same in parts, some of them views of live memory: take them before feeding on."""
        saved = Snapshot(
            SNAPSHOT_VERSION,
            self.shard.id,
            self._range,
            self.totals,
            {_name(at): self._worlds[at].snapshot() for at in sorted(self._worlds)},
            self._aside,
            self._instructed.snapshot(),
        )
        yield from stream.parts(saved)

    def learnt(self, shard: Shard) -> Iterator[stream.Part]:
        """The state for `shard` to begin its stream with, after this history; as
        `ShardPipeline.learnt`. This one is fed no further."""
        held = range_of(shard)
        worlds = {
            _name(at): self._worlds[at].learnt()
            for at in sorted(self._worlds)
            if partials.place(at[1], self._rules[at[0]].buckets) in held
        }
        known = {name: saved for name, saved in worlds.items() if saved is not None}
        saved = Snapshot(SNAPSHOT_VERSION, shard.id, held, Totals(), known, [])
        yield from stream.parts(saved)

    def shut_alarms(self) -> None:
        """None that is open was told: none is to be told of as over."""
        for one in self._worlds.values():
            one.rule.shut_alarms()

    @property
    def learnt_of(self) -> Mapping[str, Learnt]:
        """What the detectors know, by rule that has some."""
        found: dict[str, Learnt] = {}
        for one in self._worlds.values():
            name, before = one.rule.plan.spec.name, found.get(one.rule.plan.spec.name)
            if one.rule.plan.spec.detect:
                own = one.rule.learnt_of()
                found[name] = own if before is None else before.with_(own)
        return found

    def restore(self, state: bytes, position: Position) -> None:
        """Into a fresh pipeline; raises StateUnreadable."""
        for _ in self.restoring(state, position):
            pass

    def restoring(self, state: bytes, position: Position) -> Iterator[None]:
        """`restore` in turns; to be taken to the end."""
        saved = self._decode(state)
        yield
        self.position, self.totals = position, saved.totals
        yield from self._adopting(saved)

    def inherit(self, states: Sequence[bytes]) -> None:
        """Begin with the buckets that are at home here, of the parents' last states, in any order.
        Into a fresh pipeline; raises StateUnreadable."""
        for saved in sorted(map(self._decode, states), key=lambda saved: saved.shard_id):
            for _ in self._adopting(saved):
                pass

    def _adopting(self, saved: Snapshot) -> Iterator[None]:
        """What is at home here: worlds of our rules, and what waits for others."""
        self._instructed.adopt(saved.instructed)
        self._aside += [one for one in saved.aside if one.hash_key in self._range]
        self._drop_old()
        try:
            for bucket, sections_ in _by_bucket(saved.worlds).items():
                for plan in self._rules.values():
                    if (
                        bucket < plan.buckets
                        and partials.place(bucket, plan.buckets) in self._range
                    ):
                        yield from self._adopting_world(plan, bucket, sections_)
        except ValueError as error:  # bytes that don't fit their columns
            raise StateUnreadable(self.shard.id, str(error)) from error

    def _drop_old(self) -> None:
        """What was kept for a pipeline that did not stay the newest: nobody will ask for it."""
        kept = [
            one
            for one in self._aside
            if one.rule_version in self._rules or one.generation > self._generation
        ]
        self.totals.unmatched += len(self._aside) - len(kept)
        self._aside = kept

    def _adopting_world(
        self, plan: RulePlan, bucket: int, saved: Mapping[str, world.Saved]
    ) -> Iterator[None]:
        """Its own section; of a former version whose state is as this one's, what was learnt."""
        former = sections.serving(plan, {version: one.rule for version, one in saved.items()})
        if former is None:
            return
        if plan.version in saved:
            yield from self._world(plan, bucket).restoring(saved[plan.version])
        else:
            yield from self._world(plan, bucket).converting(former)

    def _decode(self, state: bytes) -> Snapshot:
        return snapshots.decode(state, Snapshot, SNAPSHOT_VERSION, self.shard.id)


def _read(payload: bytes, arrival_ms: int) -> _Record | Fault:
    envelope = partials.envelope(payload)
    if isinstance(envelope, Fault):
        return envelope
    head = partials.head(envelope.body)
    if isinstance(head, Fault):
        return head
    return _Record(envelope.generation, head, envelope.body, arrival_ms)


def _misfit(head: Head, plan: RulePlan) -> Fault | None:
    if head.buckets == plan.buckets:
        return None
    return Fault("no_partial", f"{head.buckets} buckets, where the rule has {plan.buckets}")


def _told(one: World, taken: Taken, arrival_ms: int, counts: Counts) -> Iterator[Piece]:
    """What a record or a mark tells, and how it counts."""
    name = one.rule.plan.spec.name
    counts.counted += taken.counted
    counts.late += taken.late
    counts.late_by_rule[name] = counts.late_by_rule.get(name, 0) + taken.late
    counts.duplicates += taken.is_repeat
    for firing in taken.firings:
        counts.windows_closed += firing.closed
        yield firing.cost, []
        for output in firing.outputs:
            assert isinstance(output, Output), "a merged rule ships nothing"
            if output.alarm is not None:
                key = (name, output.alarm.detect.name, output.alarm.state)
                counts.anomalies[key] = counts.anomalies.get(key, 0) + 1
            yield EVENT_WORK, [replace(output.event, arrival_ms=arrival_ms)]
    for why, n in one.rule.take_untold().items():
        counts.untold[name, why] = counts.untold.get((name, why), 0) + n


def _name(at: tuple[str, int]) -> str:
    version, bucket = at
    return f"{version}/{bucket}"


def _by_bucket(worlds: Mapping[str, world.Saved]) -> dict[int, dict[str, world.Saved]]:
    """Saved worlds by bucket, then rule version."""
    found: dict[int, dict[str, world.Saved]] = {}
    for name, saved in worlds.items():
        version, _, bucket = name.rpartition("/")
        found.setdefault(int(bucket), {})[version] = saved
    return found
