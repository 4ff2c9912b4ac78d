"""What the demo's receiver should have got, and whether it did: the demo checks itself with this.

Nothing here comes from the processor: the figures are plain dicts and `math.fsum`, the windows and
the rules are said once more. So a mistake in the ring can't hide by being made twice.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOW_MS = {  # as demo.yaml has them
    "orders": 600_000,
    "trend": 3 * HOUR_MS,
    "payments": HOUR_MS,
    "regions": 600_000,
    "failures": 600_000,
}
RULES = {  # which rules count what
    "order": ("orders", "trend", "regions"),
    "payment": ("payments", "failures"),
}
GLOBAL = {"regions": "region", "failures": ""}  # over all shards: by which field, or all in one
ONCE = ("orders", "payments")  # rules that together count each record once
JUDGED_FROM_DAYS = 7  # detectors learn for a week: alarms count from day 8 on
NOTES_MAX = 5  # examples of each kind of fault
AFTERMATH_MS = DAY_MS  # alarms on a planted key up to a day later are its aftermath, not false

Fate = Literal["counted", "duplicate", "late", "broken"]
WindowKey = tuple[str, str, int]  # rule, group, start
Figures = dict[str, float]


class Sent(NamedTuple):
    """One record as the generator knows it; a broken one has no figures."""

    id: str
    fate: Fate
    what: str = ""  # order or payment
    store: str = ""
    at_ms: int = 0
    amount: float = 0.0
    failed: int = 0
    region: str = ""


class Planted(NamedTuple):
    """An anomaly that the generator put into the traffic of one store."""

    name: str
    detector: str
    store: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Service:
    """What the workers say of themselves."""

    records: int
    duplicates: int
    late: int
    events_published: int
    shards_moved: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run left behind. `events` and `letters` are bodies as queues gave them.

    Windows count up to `end_ms`, alarms and anomalies up to `until_ms`: the same, unless the run
    was cut short inside an hour, whose rest then looks like an outage.
    """

    seed: int
    start_ms: int
    end_ms: int
    until_ms: int
    sent: Sequence[Sent]
    planted: Sequence[Planted]
    events: Sequence[bytes]  # EventBridge envelopes
    letters: Sequence[bytes]
    service: Service
    killed: bool = False
    reshards: int = 0
    deploys: int = 0  # workers replaced
    dense: bool = True  # enough events a window for detectors to tell anything


class Opened(NamedTuple):
    """An "Anomaly Opened" as received."""

    rule: str
    detector: str
    store: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Received:
    """The queue's contents by id."""

    details: Mapping[str, dict[str, Any]]
    messages: int
    repeated: int
    conflicting: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The report, and what is wrong in words; nothing wrong: the run passed."""

    report: dict[str, Any]
    failures: list[str]
    notes: list[str]


# ---- what was sent --------------------------------------------------------------------------


def expected_windows(sent: Iterable[Sent], end_ms: int) -> dict[WindowKey, Figures]:
    """The figures of every window that ends in time, from the records that count."""
    members: dict[WindowKey, list[Sent]] = {}
    for record in sent:
        if record.fate != "counted":
            continue
        for rule in RULES[record.what]:
            start_ms = record.at_ms - record.at_ms % WINDOW_MS[rule]
            if start_ms + WINDOW_MS[rule] <= end_ms:
                field = _group_field(rule)
                key = (rule, getattr(record, field) if field else "", start_ms)
                members.setdefault(key, []).append(record)
    return {key: _figures(key[0], records) for key, records in members.items()}


def _group_field(rule: str) -> str:
    """Empty where all is one group."""
    return GLOBAL.get(rule, "store")


def _figures(rule: str, records: Sequence[Sent]) -> Figures:
    amounts = [record.amount for record in records]
    if rule == "orders":
        return {"orders": len(records), "revenue": math.fsum(amounts), "largest": max(amounts)}
    if rule in ("trend", "regions"):
        return {"orders": len(records), "revenue": math.fsum(amounts)}
    failed = sum(record.failed for record in records)
    if rule == "failures":
        ratio = failed / len(records)
        return {"payments": len(records), "failed": failed, "failure_ratio": ratio}
    return {"payments": len(records), "failed_share": failed / len(records)}


def tally(sent: Iterable[Sent]) -> dict[Fate, int]:
    """How many records of each fate."""
    out: dict[Fate, int] = {"counted": 0, "duplicate": 0, "late": 0, "broken": 0}
    for record in sent:
        out[record.fate] += 1
    return out


# ---- what was received ----------------------------------------------------------------------


def read_events(bodies: Iterable[bytes]) -> Received:
    """Envelopes to details by id; a repeat must say exactly what the first one said."""
    details: dict[str, dict[str, Any]] = {}
    first: dict[str, bytes] = {}
    repeated: set[str] = set()
    conflicting: set[str] = set()
    messages = 0
    for body in bodies:
        envelope = orjson.loads(body)
        detail = envelope["detail"]
        said = orjson.dumps(
            [envelope["source"], envelope["detail-type"], detail], option=orjson.OPT_SORT_KEYS
        )
        messages += 1
        if detail["id"] not in first:
            first[detail["id"]], details[detail["id"]] = said, detail
            continue
        repeated.add(detail["id"])
        if first[detail["id"]] != said:
            conflicting.add(detail["id"])
    return Received(details, messages, len(repeated), len(conflicting))


def letter_ids(bodies: Iterable[bytes]) -> set[str]:
    """Distinct dead letters."""
    return {orjson.loads(body)["id"] for body in bodies}


def compare_windows(
    expected: Mapping[WindowKey, Figures], details: Iterable[Mapping[str, Any]], end_ms: int
) -> tuple[set[WindowKey], list[str], list[str]]:
    """Which windows are right, which are wrong (or nobody asked for), which never came."""
    correct: set[WindowKey] = set()
    seen: set[WindowKey] = set()
    wrong: list[str] = []
    for detail in details:
        if detail["kind"] != "window" or detail["window"]["end"] > end_ms:
            continue
        rule = detail["rule"]
        key = (rule, detail["key"].get(_group_field(rule), ""), detail["window"]["start"])
        fault = _fault(key, detail, expected.get(key), key in seen)
        if fault is None:
            correct.add(key)
        else:
            wrong.append(fault)
        seen.add(key)
    return correct, wrong, [f"missing {_name(key)}" for key in expected if key not in seen]


def _fault(
    key: WindowKey, detail: Mapping[str, Any], figures: Figures | None, is_second: bool
) -> str | None:
    if is_second:
        return f"{_name(key)} came under a second id {detail['id']}"
    if figures is None:
        return f"{_name(key)} came, but nothing was sent for it: {detail['values']}"
    size = detail["window"]["end"] - detail["window"]["start"]
    if size != WINDOW_MS[key[0]]:
        return f"{_name(key)} is {size} ms long"
    if "part" in detail:
        return f"{_name(key)} is only a shard's part"
    if detail["values"] != figures or detail["count"] != next(iter(figures.values())):
        return f"{_name(key)}: got {detail['count']} {detail['values']}, expected {figures}"
    return None


def _name(key: WindowKey) -> str:
    return f"window of {key[0]}, {key[1]}, {key[2]}"


# ---- detection ------------------------------------------------------------------------------


def opened_events(details: Iterable[Mapping[str, Any]], end_ms: int) -> list[Opened]:
    """Alarms that end within the traffic."""
    return [
        Opened(
            detail["rule"],
            detail["anomaly"]["kind"],
            detail["key"]["store"],
            detail["window"]["start"],
            detail["window"]["end"],
        )
        for detail in details
        if detail["kind"] == "anomaly"
        and detail["anomaly"]["state"] == "opened"
        and detail["window"]["end"] <= end_ms
    ]


def is_found(planted: Planted, alarms: Iterable[Opened]) -> bool:
    """Whether the named detector spoke up on this key, in any rule, during the anomaly."""
    return any(
        (alarm.detector, alarm.store) == (planted.detector, planted.store)
        and _overlaps(alarm, planted.start_ms, planted.end_ms)
        for alarm in alarms
    )


def false_alarms(
    alarms: Iterable[Opened], planted: Sequence[Planted], start_ms: int
) -> list[Opened]:
    """Alarms from day 8 on that no anomaly planted on their key explains."""
    judged_from_ms = start_ms + JUDGED_FROM_DAYS * DAY_MS
    return [
        alarm
        for alarm in alarms
        if alarm.start_ms >= judged_from_ms
        and not any(
            alarm.store == one.store and _overlaps(alarm, one.start_ms, one.end_ms + AFTERMATH_MS)
            for one in planted
        )
    ]


def _overlaps(alarm: Opened, start_ms: int, end_ms: int) -> bool:
    return alarm.start_ms < end_ms and start_ms < alarm.end_ms


# ---- the verdict ----------------------------------------------------------------------------


def judge(run: Run) -> Outcome:
    """Compare what was received with what was sent.

    A false alarm is reported but is no failure: chance has a share in it, so only many runs can
    tell. All else must hold in every run.
    """
    received = read_events(run.events)
    details = list(received.details.values())
    expected = expected_windows(run.sent, run.end_ms)
    correct, wrong, missing = compare_windows(expected, details, run.end_ms)
    alarms = opened_events(details, run.until_ms)
    planted = [one for one in run.planted if one.end_ms <= run.until_ms]
    found = [one for one in planted if is_found(one, alarms)]
    false = false_alarms(alarms, run.planted, run.start_ms)
    fates, service = tally(run.sent), run.service
    report = {
        "seed": run.seed,
        "records_sent": len(run.sent),
        "records_processed": service.records,
        "broken_sent": fates["broken"],
        "dead_letters": len(letter_ids(run.letters)),
        "duplicates_sent": fates["duplicate"],
        "duplicates_dropped": service.duplicates,
        "late_sent": fates["late"],
        "late_dropped": service.late,
        "windows_expected": len(expected),
        "windows_correct": len(correct),
        "windows_wrong": len(wrong),
        "windows_missing": len(missing),
        "global_windows": sum(key[0] in GLOBAL for key in correct),
        "events_published": service.events_published,
        "events_received": received.messages,
        "duplicate_ids": received.repeated,
        "conflicting_ids": received.conflicting,
        "anomalies_planted": len(planted),
        "anomalies_found": len(found),
        "false_alarms": len(false),
        "shards_moved": service.shards_moved,
        "p50_ms": service.p50_ms,
        "p99_ms": service.p99_ms,
        "reshards": run.reshards,
        "deploys": run.deploys,
    }
    counted = _counted(details, run.end_ms)
    dropped = sum(report[name] for name in ("dead_letters", "duplicates_dropped", "late_dropped"))
    report["records_lost"] = max(0, report["records_sent"] - counted - dropped)
    notes = [*wrong[:NOTES_MAX], *missing[:NOTES_MAX]]
    if run.dense:
        notes += [f"not found: {one}" for one in planted if one not in found]
        notes += [f"false alarm: {alarm}" for alarm in false]
    else:
        notes.append("detection is not judged: there is too little traffic to tell by")
    return Outcome(report, _failures(run, report, counted), notes)


def _counted(details: Iterable[Mapping[str, Any]], end_ms: int) -> int:
    """Records that windows count; those of rules that count each record once."""
    return sum(
        detail["count"]
        for detail in details
        if detail["kind"] == "window"
        and detail["rule"] in ONCE
        and detail["window"]["end"] <= end_ms
    )


def _failures(run: Run, report: Mapping[str, Any], counted: int) -> list[str]:
    fates = report["broken_sent"] + report["duplicates_sent"] + report["late_sent"]
    pairs = [
        ("every record is processed once", "records_processed", report["records_sent"]),
        ("every broken record is a dead letter", "dead_letters", report["broken_sent"]),
        ("every duplicate is dropped", "duplicates_dropped", report["duplicates_sent"]),
        ("every late record is dropped", "late_dropped", report["late_sent"]),
        ("every window is right", "windows_correct", report["windows_expected"]),
        ("no window is wrong", "windows_wrong", 0),
        ("no window is missing", "windows_missing", 0),
        ("one id never says two things", "conflicting_ids", 0),
    ]
    if run.dense:
        found = ("every anomaly is found", "anomalies_found", report["anomalies_planted"])
        pairs.append(found)
    out = [
        f"{sentence}: {name} is {report[name]}, should be {should}"
        for sentence, name, should in pairs
        if report[name] != should
    ]
    if counted + fates != report["records_sent"]:
        out.append(
            f"each record is broken, duplicate, late or counted: {fates} + {counted} in windows"
            f" of {report['records_sent']} sent"
        )
    if report["windows_expected"] == 0:
        out.append("no window was expected: there was no traffic to judge by")
    if run.killed and report["shards_moved"] < 1:
        out.append("a worker was killed, but shards_moved is 0")
    return out
