"""The verdict at the end: what the windows came to, and what was left behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product

from processor.core.events import dead_letter_id
from processor.core.leases.rows import ShardRow
from processor.model import DeadLetter
from tests.sim.breach import Breach
from tests.sim.checkers import keys_of
from tests.sim.history import (
    CHANGED,
    CONVERTED,
    OUT_OF_ORDERNESS_MS,
    RuleSaid,
    plan_of,
)
from tests.sim.numbers import Numbers
from tests.sim.services import MERGE_STREAM, STREAM
from tests.sim.truth import Part, Truth, Window, truth
from tests.sim.world import World
from tests.virtual_time import START_MS

# A window is told so long after its end at most, were it not for outages: idleness begins anew with
# every owner.
DELIVERED_S = 150.0
Unwatched = set[tuple[Window, Part]]


def judge(world: World) -> None:
    """At the end: every record is where it belongs, and nothing else is left."""
    marks = world.checkers[STREAM].marks
    found = truth(world.history.rules, world.traffic.families(), world.traffic.taken, marks)
    numbers = Numbers(world.services.partials)
    free = _unwatched(world, found, numbers)
    late = _check_windows(world, found, free)
    _check_broken(world, found)
    _check_counts(world, found)
    _check_objects(world)
    _check_workers(world)
    if world.history.merge_shards:
        world.verdict.paths["partial told again"] += numbers.repeats
        world.verdict.paths["closing in several records"] += numbers.splits
        world.verdict.paths["late at the merge stage"] += late.total()
        _check_late(world, late)
    world.verdict.paths["late records"] += found.late.total()
    world.verdict.paths["duplicate records"] += found.duplicates.total()
    world.verdict.paths["broken records"] += len(found.broken)


def _unwatched(world: World, found: Truth, numbers: Numbers) -> Unwatched:
    """What shards counted in windows that others may have gone past: those after the watermark at
    which a shard said that nobody need wait for it, and before it, its child, or a changed rule's
    next version on it, spoke again."""
    names = {
        rule.version: rule.spec.name
        for changed in (False, True)
        for rule in plan_of(world.history.checkpoint_ms, True, changed).rules
    }
    families = {family.shard_id: family for family in world.traffic.families()}
    sizes = {rule.name: rule.size_ms for rule in world.history.rules}
    quiets: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in numbers.quiets(names):
        period = one.watermark_ms, one.until_ms - OUT_OF_ORDERNESS_MS
        quiets.setdefault((names[one.rule_version], one.shard_id), []).append(period)

    def periods(rule: str, shard_id: str) -> Iterator[tuple[int, int]]:
        yield from quiets.get((rule, shard_id), ())
        for parent in families[shard_id].parents:
            yield from periods(rule, parent)

    return {
        (window, part)
        for window, parts in found.windows.items()
        for part in parts
        if any(
            from_ms < window[2] + sizes[window[0]] <= to_ms
            for from_ms, to_ms in periods(window[0], part[0])
        )
    }


def _check_windows(world: World, found: Truth, unwatched: Unwatched) -> Counter[str]:
    """Each window was told with the figures that the truth has; once, unless its rule changed. How
    many records were too late for a window at the merge stage, by rule."""
    rules = {rule.name: rule for rule in world.history.rules}
    told = _told(world, rules)
    late = Counter[str]()
    for window in sorted(found.windows.keys() | (found.extras.keys() & told.keys())):
        said = told.pop(window, [])
        parts = found.windows.get(window, {})
        wanted = _figures(parts.values())
        missing = [_missing(found, unwatched, window, one) for one in said]
        if None in missing:
            raise Breach("truth", f"{window}: {said} instead of {wanted} by {parts}")
        late[window[0]] += sum(n for n in missing if n is not None)
        if len(said) == 1 or (len(said) > 1 and _is_converted(world, window)):
            continue
        if not said and _may_be_late(found, unwatched, window):
            late[window[0]] += wanted["n"]
        elif not _is_anew(world, rules[window[0]], window):
            what = f"told {len(said)} times, {said} instead of {wanted}"
            raise Breach("truth", f"{window}: {what} by {parts}")
    if told:
        raise Breach("truth", f"windows without records: {sorted(told)}")
    return late


def _missing(
    found: Truth, unwatched: Unwatched, window: Window, said: dict[str, int]
) -> int | None:
    """How many records the figures lack: none; or all that some shards told at once that nobody
    waited for, when the window had been told. None: they are wrong. What was too late for the
    window on its shard, but came with what is in time for another, may be in them or not."""
    parts = found.windows.get(window, {})
    free = sorted(part for part in parts if (window, part) in unwatched)
    extras = found.extras.get(window, {})
    for missing, more in product(_some(free), _some(sorted(extras))):
        left = [values for part, values in parts.items() if part not in missing]
        wanted = _figures([*left, *(extras[part] for part in more)])
        if said == {name: wanted[name] for name in said}:
            return sum(len(parts[part]) for part in missing)
    return None


def _some(parts: list[Part]) -> Iterator[tuple[Part, ...]]:
    """None of them, then ever more."""
    for size in range(len(parts) + 1):
        yield from combinations(parts, size)


def _may_be_late(found: Truth, unwatched: Unwatched, window: Window) -> bool:
    """Whether nobody waited for any of those who counted it."""
    parts = found.windows[window]
    return all((window, part) in unwatched for part in parts)


def _is_converted(world: World, window: Window) -> bool:
    """Whether each of two versions of its rule may have told it."""
    return window[0] in CONVERTED and world.fleet.changing_s is not None


def _is_anew(world: World, rule: RuleSaid, window: Window) -> bool:
    """Whether a rule that starts anew may have lost a window of that time, or told it twice."""
    if world.fleet.changing_s is None or rule.name not in CHANGED:
        return False
    from_s, to_s = world.fleet.changing_s
    start_s = (window[2] - START_MS) / 1_000
    end_s = start_s + rule.size_ms / 1_000
    return start_s <= to_s + DELIVERED_S and end_s + DELIVERED_S >= from_s


def _told(world: World, rules: Mapping[str, RuleSaid]) -> dict[Window, list[dict[str, int]]]:
    """What was said of each whole window, to the bus or, where that refused it, to the dead
    letters. A window of which a rule that started anew says itself that it lacks records is left
    out."""
    letters = (a.of for a in world.services.letters.arrivals if isinstance(a.of, DeadLetter))
    bodies = {one.id: one.payload for one in letters if one.reason == "refused"}
    bodies |= world.services.bus.by_id()
    told: dict[Window, list[dict[str, int]]] = {}
    for detail in map(json.loads, bodies.values()):
        if detail["kind"] == "window" and not detail.get("partial"):
            group = detail["key"].get(rules[detail["rule"]].field, "")
            window = (detail["rule"], group, detail["window"]["start"])
            told.setdefault(window, []).append(detail["values"])
    return told


def _figures(parts: Iterable[list[int]]) -> dict[str, int]:
    """By the names of the pipeline's aggregates."""
    values = [value for part in parts for value in part]
    if not values:
        return dict.fromkeys(("n", "total", "highest", "lowest"), 0)
    return {
        "n": len(values),
        "total": sum(values),
        "highest": max(values),
        "lowest": min(values),
    }


def _check_broken(world: World, found: Truth) -> None:
    arrived = {a.id for a in world.services.letters.arrivals}
    wanted = {dead_letter_id(STREAM, shard, number, 0) for shard, number in found.broken}
    if wanted - arrived:
        raise Breach("lost record", f"{len(wanted - arrived)} broken records are in no dead letter")


def _check_counts(world: World, found: Truth) -> None:
    """What a shard says of its records' fate: drops are counted, or they are losses."""
    broken = Counter(shard_id for shard_id, _ in found.broken)
    for shard_id, totals in sorted(world.totals.items()):
        counters = (found.records, found.duplicates, found.late, broken)
        wanted = tuple(counter[shard_id] for counter in counters)
        said = (totals.records, totals.duplicates, totals.late, totals.rejects)
        if said != wanted:
            what = "records, duplicates, late, rejects"
            raise Breach("counts", f"{what} of {shard_id}: {said} instead of {wanted}")


def _check_late(world: World, late: Counter[str]) -> None:
    """What the merge stage says of records that came too late for it, where all its shards are
    known, and no rule was told in two versions. What is late for one of two windows is not late."""
    if any(late[rule.name] for rule in world.history.rules if rule.every_ms):
        return
    known = world.fleet.ended(MERGE_STREAM) | world.merged
    if world.fleet.changing_s is None and known.keys() == world.checkers[MERGE_STREAM].ever:
        said = sum(totals.late for totals in known.values())
        if said != late.total():
            raise Breach("counts", f"{said} late at the merge stage instead of {late}")


def _check_objects(world: World) -> None:
    """What rows name is there, nothing else is, and of shards that are gone nothing is.

    A removal that got lost at a shard's end is made up for when its row goes; that stays while a
    child has not got on from its beginning.
    """
    services = world.services
    rows = {f"{row.stream}/{row.id}": row for row in services.content.shards.values()}
    named = set().union(*map(keys_of, rows.values()))
    there = {*services.content.blobs, *services.blobs}
    missing = sorted(named - there)
    orphaned = [key for key in sorted(there - named) if not _is_of_an_end(key, rows)]
    if missing or orphaned:
        checker = "missing object" if missing else "orphaned object"
        raise Breach(checker, f"missing {missing}, orphaned {orphaned}")
    for name in world.checkers:
        _check_rows(world, name, [row for row in rows.values() if row.stream.name == name])


def _check_rows(world: World, stream: str, rows: list[ShardRow]) -> None:
    beginners = (row for row in rows if not row.pairs[0].commit)  # they need parents
    needed = {parent for row in beginners for parent in row.shard.parents}
    listed = world.services.model.streams[stream].shards.keys()
    if left := {row.id for row in rows} - listed - needed:
        raise Breach("housekeeping", f"rows of {sorted(left)} are left in {stream}")


def _is_of_an_end(key: str, rows: Mapping[str, ShardRow]) -> bool:
    row = rows.get(key.rpartition("/")[0])
    return row is not None and row.ended


def _check_workers(world: World) -> None:
    left = [row for row in world.services.content.workers.values() if not row.buried]
    if left:
        raise Breach("leaving", f"rows of workers that are gone: {left}")
